"""What a bundle remembers of its training slices, for later checks of whether a new scan is like them.

Features (mean and Ledoit-Wolf covariance, DOI 10.1016/S0047-259X(03)00096-4), histograms of the scores on healthy
slices, and intensity quantiles of each contrast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hybriduad.core import rng
from hybriduad.core.types import Batch
from hybriduad.detector.inference import Detector
from hybriduad.detector.thresholds import PARTS
from hybriduad.scan.slices import slices_of
from hybriduad.training.samples import SlicePool

SLICES = 256
BINS = np.concatenate([[0.0], np.logspace(-4, 0, 81)])
"""Edges of the histograms: finer towards 0, where scores crowd."""
QUANTILES = np.linspace(0.0, 1.0, 101)


def reference_statistics(detector: Detector, pool: SlicePool, *, batch: int = 16) -> dict[str, Tensor]:
    """Statistics of the healthy slices of as many of the pool's cases, drawn by the detector's seed, as give 256.

    Returns ``histogram_edges`` (82,), ``histogram_<part>`` (81,) counts of the brain's voxels by each map of a
    prediction, as thresholds are applied to it; ``quantiles_<contrast>`` (101,) of the model intensities in the brain,
    and with a reconstructor ``feature_mean`` (D,), ``feature_covariance`` (D, D).
    """
    histograms: dict[str, np.ndarray] = {}
    features: list[Tensor] = []
    intensities: list[list[np.ndarray]] = [[] for _ in detector.anatomy.contrasts]
    for case, chosen in _drawn(pool.healthy, detector.seed).items():
        prepared = pool.prepared[case]
        slices = slices_of(prepared, chosen, detector.seed)
        inside = np.moveaxis(slices.brain.numpy(), 0, -1)
        found = detector.predict_volume(prepared, batch=batch)
        for part in PARTS:
            if (values := getattr(found, part)) is not None:
                counts = np.histogram(values[..., chosen][inside], bins=BINS)[0]
                histograms[part] = histograms.get(part, 0) + counts
        for index, collected in enumerate(intensities):
            collected.append(slices.image[:, index][slices.brain & slices.valid[:, index]].numpy())
        if detector.reconstructor is not None:
            features.append(_features(detector, slices))
    made = {f"histogram_{part}": torch.from_numpy(counts.astype(np.int64)) for part, counts in histograms.items()}
    made["histogram_edges"] = torch.from_numpy(BINS)
    for name, collected in zip(detector.anatomy.contrasts, intensities, strict=True):
        shades = np.concatenate(collected)
        if shades.size:
            made[f"quantiles_{name}"] = torch.from_numpy(np.quantile(shades, QUANTILES).astype(np.float32))
    return made | (_covariance(torch.cat(features)) if features else {})


def _drawn(slices: Sequence[tuple[int, int]], seed: int) -> dict[int, list[int]]:
    """Whole cases, since a prediction is made of whole ones: the healthy slices of each."""
    of_case: dict[int, list[int]] = {}
    for case, index in slices:
        of_case.setdefault(case, []).append(index)
    drawn: dict[int, list[int]] = {}
    for case in rng.numpy_rng(seed, "statistics").permutation(list(of_case)):
        if sum(map(len, drawn.values())) >= SLICES:
            break
        drawn[int(case)] = of_case[int(case)]
    return drawn


@torch.inference_mode()
def _features(detector: Detector, slices: Batch) -> Tensor:
    assert detector.reconstructor is not None
    moved = slices.to(detector.device)
    return detector.reconstructor.features(moved.image, moved.brain, slices.keys).cpu()


def _covariance(features: Tensor) -> dict[str, Tensor]:
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(features.numpy().astype(np.float64))
    return {
        "feature_mean": torch.from_numpy(fitted.location_.astype(np.float32)),
        "feature_covariance": torch.from_numpy(fitted.covariance_.astype(np.float32)),
    }
