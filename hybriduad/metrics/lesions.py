"""Lesion-wise figures: connected components (26 neighbours in 3D) of the truth and of the predicted mask.

A lesion is hit when at least 10 % of its voxels are covered by the mask; a predicted component is false when under
10 % of its voxels lie on a lesion. Pass masks with ignored voxels, and those outside the brain, already removed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.metrics.voxels import as_masks, ratio


class LesionCounts(NamedTuple):
    """Counts of a mask against the truth: lesions, lesions hit, components of the mask, false components."""

    lesions: int
    hit: int
    components: int
    false: int


class Component(NamedTuple):
    """One component of a mask; ``x, y, z`` is its centroid in voxels, scores are over its voxels."""

    number: int
    voxels: int
    volume_ml: float
    x: float
    y: float
    z: float
    mean_score: float
    maximum_score: float


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the voxels of each component."""
    labels, count = ndimage.label(mask, structure=ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:]


def _matches(mask: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Whether ``region`` covers at least 10 % of each component of ``mask``: (components,) bool."""
    labels, sizes = _components(mask)
    covered = np.bincount(labels[region], minlength=len(sizes) + 1)[1:]
    return np.asarray(10 * covered >= sizes)  # in integers: 10 % exactly is a hit


def lesion_detection(mask: np.ndarray, truth: np.ndarray) -> LesionCounts:
    """Count lesions, hits, components and false components of two masks of one shape.

    Raises:
        DataError: no masks, or different shapes.
    """
    predicted, lesion = as_masks("lesion_detection", mask=mask, truth=truth)
    hit, right = _matches(lesion, predicted), _matches(predicted, lesion)
    return LesionCounts(lesions=len(hit), hit=int(hit.sum()), components=len(right), false=int((~right).sum()))


def lesion_recall(counts: LesionCounts) -> float:
    """Lesions hit / lesions; nan without lesions."""
    return ratio(counts.hit, counts.lesions)


def lesion_precision(counts: LesionCounts) -> float:
    """Components that lie on a lesion / components; nan without components."""
    return ratio(counts.components - counts.false, counts.components)


def lesion_f1(counts: LesionCounts) -> float:
    """Harmonic mean of lesion recall and precision; nan without lesions, 0 where none is hit."""
    recall, precision = lesion_recall(counts), lesion_precision(counts)
    if math.isnan(recall):
        return math.nan
    return 2 * recall * precision / (recall + precision) if counts.hit and precision > 0 else 0.0


def component_table(mask: np.ndarray, score: np.ndarray, spacing_mm: Sequence[float]) -> list[Component]:
    """One row for each component of a mask (X, Y, Z), the largest first; ``spacing_mm`` one number an axis.

    Raises:
        DataError: no mask, or shapes that do not fit.
    """
    (inside,) = as_masks("component_table", mask=mask)
    if inside.ndim != 3 or np.shape(score) != inside.shape or len(spacing_mm) != 3:
        raise DataError(
            "shapes that do not fit",
            where="component_table",
            got=f"mask {inside.shape}, score {np.shape(score)}, spacing {tuple(spacing_mm)}",
            expected="(X, Y, Z) twice and three spacings",
        )
    labels, sizes = _components(inside)
    index = np.arange(1, len(sizes) + 1)
    if not len(index):
        return []
    voxel_ml = math.prod(float(spacing) for spacing in spacing_mm) / 1000.0
    centroids = ndimage.center_of_mass(inside, labels, index)
    means, maxima = ndimage.mean(score, labels, index), ndimage.maximum(score, labels, index)
    return [
        Component(
            number=number,
            voxels=int(sizes[i]),
            volume_ml=float(sizes[i] * voxel_ml),
            x=float(centroids[i][0]),
            y=float(centroids[i][1]),
            z=float(centroids[i][2]),
            mean_score=float(means[i]),
            maximum_score=float(maxima[i]),
        )
        for number, i in enumerate(np.argsort(-sizes, kind="stable").tolist(), start=1)
    ]
