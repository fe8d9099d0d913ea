"""What a bundle remembers of its training slices, for later checks of whether a new scan is like them.

Features (mean and Ledoit-Wolf covariance, DOI 10.1016/S0047-259X(03)00096-4), histograms of the scores on healthy
slices, and intensity quantiles of each contrast. They are of a few dozen single slices, so that they cost seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hybriduad.core import rng
from hybriduad.core.types import Batch
from hybriduad.detector.appearance import training_traits
from hybriduad.detector.familiarity import COVARIANCE, DISTANCES, FEWEST, MEAN, case_features, mahalanobis
from hybriduad.detector.inference import Detector
from hybriduad.networks.baselines import baseline_maps
from hybriduad.reconstructors._base import Reconstructor
from hybriduad.scan.grid import lateral_axis
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import slices_of
from hybriduad.training.samples import SlicePool

SLICES = 48
"""Healthy slices that are judged at most, spread over all cases."""
JACKKNIFED = 24
"""Training cases whose distance from the others is measured, at most."""
BINS = np.concatenate([[0.0], np.logspace(-4, 0, 81)])
"""Edges of the histograms: finer towards 0, where scores crowd."""
QUANTILES = np.linspace(0.0, 1.0, 101)


def reference_statistics(
    detector: Detector, pool: SlicePool, *, unseen: Sequence[Prepared] = (), batch: int = 16
) -> dict[str, Tensor]:
    """Statistics of at most 48 healthy slices of the pool, spread over its cases and drawn by the detector's seed.

    Returns ``histogram_edges`` (82,), ``histogram_<part>`` (81,) counts of the brain's voxels that any contrast covers
    by each map of a prediction; ``quantiles_<contrast>`` (101,) of the model intensities in the brain where the
    contrast covers it, and with a reconstructor that gives features ``feature_mean`` (D,), ``feature_covariance``
    (D, D) and, of 3 or more cases, ``case_distances`` (N,): how far scans that the covariance is not of are from it.
    Those are the ``unseen`` cases where they are enough; else training cases, at most 24, each measured against the
    slices of the others. Maps are those of single slices: the filters of a whole volume, the median and the smoothing
    across slices, are left out, so that no case has to be predicted as a whole; only the plane of the left-right
    asymmetry is that of the whole scan. ``traits_<contrast>`` (N, 2) say what the cases of the pool look like
    (:mod:`hybriduad.detector.appearance`), of 5 cases or more. A drawn slice whose brain no contrast covers counts in
    none of them.
    """
    histograms: dict[str, np.ndarray] = {}
    features: dict[int, Tensor] = {}
    intensities: list[list[np.ndarray]] = [[] for _ in detector.anatomy.contrasts]
    for case, chosen in _drawn(pool.healthy, detector.seed).items():
        prepared = pool.prepared[case]
        covered = [index for index in chosen if _shown(prepared.brain[..., index], prepared.valid[..., index]).any()]
        if not covered:
            continue
        baselines = _baselines(detector, prepared)
        for first in range(0, len(covered), batch):
            indices = covered[first : first + batch]
            slices = slices_of(prepared, indices, detector.seed)
            for part, values in _voxels(detector, slices, {name: part[indices] for name, part in baselines.items()}):
                histograms[part] = histograms.get(part, 0) + np.histogram(values, bins=BINS)[0]
            for index, collected in enumerate(intensities):
                collected.append(slices.image[:, index][slices.brain & slices.valid[:, index]].numpy())
            if detector.reconstructor is not None:
                known = [features[case]] if case in features else []
                if (further := _features(detector.reconstructor, slices.to(detector.device))) is not None:
                    features[case] = torch.cat([*known, further])
    tensors = {f"histogram_{part}": torch.from_numpy(counts.astype(np.int64)) for part, counts in histograms.items()}
    tensors["histogram_edges"] = torch.from_numpy(BINS)
    looks = training_traits(pool.prepared, detector.anatomy.contrasts)
    tensors |= {name: torch.from_numpy(values) for name, values in looks.items()}
    for name, collected in zip(detector.anatomy.contrasts, intensities, strict=True):
        shades = np.concatenate([np.empty(0, np.float32), *collected])
        if shades.size:
            tensors[f"quantiles_{name}"] = torch.from_numpy(np.quantile(shades, QUANTILES).astype(np.float32))
    if not features:
        return tensors
    tensors |= _covariance(torch.cat(list(features.values())))
    distances = _distances(detector, pool, unseen, features, tensors)
    return tensors | ({DISTANCES: torch.tensor(distances)} if len(distances) >= FEWEST else {})


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


def _voxels(detector: Detector, slices: Batch, baselines: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Each part of a prediction (of :data:`hybriduad.detector.thresholds.PARTS`) where a contrast covers the brain.

    ``baselines``: each baseline of the slices, (B, H, W).
    """
    shown = _shown(slices.brain.numpy(), np.moveaxis(slices.valid.numpy(), 1, 0))
    maps = detector.slice_maps(slices)
    tensors = {part: torch.from_numpy(values).to(detector.device) for part, values in baselines.items()}
    intensity = torch.from_numpy(_witness(detector, slices, maps.reconstruction)).to(detector.device)
    score = detector.fuse(maps.map, maps.probability, intensity, tensors.get("asymmetry"))
    for part, values in (("score", score), ("probability", maps.probability), ("map", maps.map)):
        if values is not None:
            yield part, values.float().cpu().numpy()[shown]
    for part, plain in baselines.items():
        yield part, plain[shown]


def _witness(detector: Detector, slices: Batch, reconstruction: torch.Tensor | None) -> np.ndarray:
    """:meth:`Detector.intensity_witness` of slices, (B, H, W), without its median filter."""

    def stacked(part: torch.Tensor) -> np.ndarray:
        return np.moveaxis(part.float().cpu().numpy(), 0, -1)

    expected = None if reconstruction is None else stacked(reconstruction)
    valid, brain = stacked(slices.valid) > 0, stacked(slices.brain) > 0
    witness = detector.intensity_witness(stacked(slices.image), valid, brain, (1.0, 1.0, 1.0), expected, 0.0)
    return np.moveaxis(witness, -1, 0)


def _baselines(detector: Detector, prepared: Prepared) -> dict[str, np.ndarray]:
    """Each baseline that the case allows, without its median filter: (S, H, W)."""
    volume = (prepared.image, prepared.valid, np.array(prepared.brain), prepared.spacing_mm)
    maps = baseline_maps(*volume, detector.anatomy.contrasts, lateral_axis(detector.direction), length_mm=0.0)
    return {part: np.moveaxis(values, -1, 0) for part, values in maps.items() if values is not None}


def _shown(brain: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Where a contrast covers the brain: brain (...) bool, valid (C, ...) bool -> (...) bool. Elsewhere maps are 0."""
    return brain & valid.any(axis=0)


@torch.inference_mode()
def _features(reconstructor: Reconstructor, slices: Batch) -> Tensor | None:
    """The features of the slices (B, D); None where the family gives none."""
    features = reconstructor.features(slices.image, slices.brain, slices.keys)
    return None if features is None else features.cpu()


def _distances(
    detector: Detector,
    pool: SlicePool,
    unseen: Sequence[Prepared],
    features: Mapping[int, Tensor],
    statistics: Mapping[str, Tensor],
) -> list[float]:
    """The distances of the unseen cases, or of training cases from the slices of the others."""

    def distance(prepared: Prepared, known: Mapping[str, Tensor]) -> float:
        assert detector.reconstructor is not None  # by the features
        found = case_features(detector.reconstructor, prepared, detector.seed, detector.device)
        assert found is not None  # a case of the pool has slices
        return mahalanobis(found, known[MEAN].numpy(), known[COVARIANCE].numpy())

    if len(unseen) >= FEWEST:
        return [distance(prepared, statistics) for prepared in unseen]
    if len(features) < FEWEST:
        return []
    others = {case: torch.cat([part for owner, part in features.items() if owner != case]) for case in features}
    return [distance(pool.prepared[case], _covariance(others[case])) for case in list(features)[:JACKKNIFED]]


def _covariance(features: Tensor) -> dict[str, Tensor]:
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(features.numpy().astype(np.float64))
    return {
        MEAN: torch.from_numpy(fitted.location_.astype(np.float32)),
        COVARIANCE: torch.from_numpy(fitted.covariance_.astype(np.float32)),
    }
