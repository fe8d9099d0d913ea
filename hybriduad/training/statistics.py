"""What a bundle remembers of its training slices, for later checks of whether a new scan is like them.

Features (mean and Ledoit-Wolf covariance, DOI 10.1016/S0047-259X(03)00096-4), histograms of the scores on healthy
slices, and intensity quantiles of each contrast. They are of a few dozen single slices, so that they cost seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hybriduad.core import rng
from hybriduad.core.types import Batch
from hybriduad.detector.inference import Detector
from hybriduad.networks.scoring import intensity_map
from hybriduad.reconstructors._base import Reconstructor
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import slices_of
from hybriduad.training.samples import SlicePool

SLICES = 48
"""Healthy slices that are judged at most, spread over all cases."""
BINS = np.concatenate([[0.0], np.logspace(-4, 0, 81)])
"""Edges of the histograms: finer towards 0, where scores crowd."""
QUANTILES = np.linspace(0.0, 1.0, 101)


def reference_statistics(detector: Detector, pool: SlicePool, *, batch: int = 16) -> dict[str, Tensor]:
    """Statistics of at most 48 healthy slices of the pool, spread over its cases and drawn by the detector's seed.

    Returns ``histogram_edges`` (82,), ``histogram_<part>`` (81,) counts of the brain's voxels that any contrast covers
    by each map of a prediction; ``quantiles_<contrast>`` (101,) of the model intensities in the brain where the
    contrast covers it, and with a reconstructor that gives features ``feature_mean`` (D,), ``feature_covariance``
    (D, D). Maps are those of single slices: the filters of a whole volume, the median and the smoothing across slices,
    are left out, so that no case has to be predicted as a whole. A drawn slice whose brain no contrast covers counts in
    none of them.
    """
    histograms: dict[str, np.ndarray] = {}
    features: list[Tensor] = []
    intensities: list[list[np.ndarray]] = [[] for _ in detector.anatomy.contrasts]
    for case, chosen in _drawn(pool.healthy, detector.seed).items():
        prepared = pool.prepared[case]
        covered = [index for index in chosen if _shown(prepared.brain[..., index], prepared.valid[..., index]).any()]
        for first in range(0, len(covered), batch):
            slices = slices_of(prepared, covered[first : first + batch], detector.seed)
            for part, values in _voxels(detector, prepared, slices):
                histograms[part] = histograms.get(part, 0) + np.histogram(values, bins=BINS)[0]
            for index, collected in enumerate(intensities):
                collected.append(slices.image[:, index][slices.brain & slices.valid[:, index]].numpy())
            if detector.reconstructor is not None:
                features += _features(detector.reconstructor, slices.to(detector.device))
    tensors = {f"histogram_{part}": torch.from_numpy(counts.astype(np.int64)) for part, counts in histograms.items()}
    tensors["histogram_edges"] = torch.from_numpy(BINS)
    for name, collected in zip(detector.anatomy.contrasts, intensities, strict=True):
        shades = np.concatenate([np.empty(0, np.float32), *collected])
        if shades.size:
            tensors[f"quantiles_{name}"] = torch.from_numpy(np.quantile(shades, QUANTILES).astype(np.float32))
    return tensors | (_covariance(torch.cat(features)) if features else {})


def _drawn(slices: Sequence[tuple[int, int]], seed: int) -> dict[int, list[int]]:
    """By case, the slices that are judged: every case's first in its drawn order, then every case's second."""
    of_case: dict[int, list[int]] = {}
    for case, index in slices:
        of_case.setdefault(case, []).append(index)
    turns: list[tuple[int, int, int, int]] = []
    for case, indices in of_case.items():
        shuffled = rng.numpy_rng(seed, "statistics", case).permutation(indices)
        turns += [(turn, rng.fold(seed, "statistics", case), case, int(k)) for turn, k in enumerate(shuffled)]
    drawn: dict[int, list[int]] = {}
    for _, _, case, index in sorted(turns)[:SLICES]:
        drawn.setdefault(case, []).append(index)
    return {case: sorted(drawn[case]) for case in sorted(drawn)}


def _voxels(detector: Detector, prepared: Prepared, slices: Batch) -> Iterator[tuple[str, np.ndarray]]:
    """Each part of a prediction (of :data:`hybriduad.detector.thresholds.PARTS`) where a contrast covers the brain."""
    image, valid, brain = (np.moveaxis(part.numpy(), 0, -1) for part in (slices.image, slices.valid, slices.brain))
    shown = _shown(brain, valid)
    maps = detector.slice_maps(slices)
    plain = intensity_map(image, valid, brain, prepared.spacing_mm, detector.anatomy.contrasts, length_mm=0.0)
    score = detector.fuse(maps.map, maps.probability, torch.from_numpy(np.moveaxis(plain, -1, 0)).to(detector.device))
    for part, values in (("score", score), ("probability", maps.probability), ("map", maps.map)):
        if values is not None:
            yield part, np.moveaxis(values.float().cpu().numpy(), 0, -1)[shown]
    yield "intensity", plain[shown]


def _shown(brain: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Where a contrast covers the brain: brain (...) bool, valid (C, ...) bool -> (...) bool. Elsewhere maps are 0."""
    return brain & valid.any(axis=0)


@torch.inference_mode()
def _features(reconstructor: Reconstructor, slices: Batch) -> list[Tensor]:
    """The features of the slices (B, D) in a list, which is empty where the family gives none."""
    features = reconstructor.features(slices.image, slices.brain, slices.keys)
    return [] if features is None else [features.cpu()]


def _covariance(features: Tensor) -> dict[str, Tensor]:
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(features.numpy().astype(np.float64))
    return {
        "feature_mean": torch.from_numpy(fitted.location_.astype(np.float32)),
        "feature_covariance": torch.from_numpy(fitted.covariance_.astype(np.float32)),
    }
