"""What a bundle remembers of its training slices, for later checks of whether a new scan is like them.

Features (mean and Ledoit-Wolf covariance, DOI 10.1016/S0047-259X(03)00096-4), histograms of the maps on healthy slices,
and intensity quantiles of each contrast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hybriduad import rng
from hybriduad.detector import Detector
from hybriduad.slices import SlicePool, slices_of
from hybriduad.types import Batch

SLICES = 256
BINS = np.concatenate([[0.0], np.logspace(-4, 0, 81)])
"""Edges of the histograms: finer towards 0, where scores crowd."""
QUANTILES = np.linspace(0.0, 1.0, 101)


def reference_statistics(detector: Detector, pool: SlicePool, *, batch: int = 16) -> dict[str, Tensor]:
    """Statistics of at most 256 of the pool's healthy slices, drawn by the detector's seed.

    Returns ``histogram_edges`` (82,), ``histogram_<part>`` (81,) voxel counts, ``quantiles_<contrast>`` (101,) of the
    model intensities in the brain, and with a reconstructor ``feature_mean`` (D,), ``feature_covariance`` (D, D).
    """
    chosen = _drawn(pool.healthy, detector.seed)
    histograms: dict[str, np.ndarray] = {}
    features: list[Tensor] = []
    intensities: list[list[np.ndarray]] = [[] for _ in detector.anatomy.contrasts]
    for start in range(0, len(chosen), batch):
        slices = _gathered(pool, chosen[start : start + batch], detector.seed)
        inside = slices.brain.numpy()
        maps = detector.slice_maps(slices)
        for part, values in (("map", maps.map), ("probability", maps.probability)):
            if values is not None:
                counts = np.histogram(values.float().cpu().numpy()[inside], bins=BINS)[0]
                histograms[part] = histograms.get(part, 0) + counts
        for index, collected in enumerate(intensities):
            shown = inside & slices.present[:, index].numpy()[:, None, None]
            collected.append(slices.image[:, index].numpy()[shown])
        if detector.reconstructor is not None:
            features.append(_features(detector, slices))
    found = {f"histogram_{part}": torch.from_numpy(counts.astype(np.int64)) for part, counts in histograms.items()}
    found["histogram_edges"] = torch.from_numpy(BINS)
    for name, collected in zip(detector.anatomy.contrasts, intensities, strict=True):
        shades = np.concatenate(collected)
        if shades.size:
            found[f"quantiles_{name}"] = torch.from_numpy(np.quantile(shades, QUANTILES).astype(np.float32))
    return found | (_covariance(torch.cat(features)) if features else {})


def _drawn(slices: Sequence[tuple[int, int]], seed: int) -> list[tuple[int, int]]:
    order = rng.numpy_rng(seed, "statistics").permutation(len(slices))[:SLICES]
    return [slices[int(k)] for k in sorted(order)]


def _gathered(pool: SlicePool, chosen: Sequence[tuple[int, int]], seed: int) -> Batch:
    return Batch.stack([slices_of(pool.prepared[case], [index], seed) for case, index in chosen])


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
