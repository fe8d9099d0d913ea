"""Lesion-wise figures: connected components (26 neighbours in 3D) of the truth and of the predicted mask.

A lesion is hit when at least 10 % of its voxels are covered by the mask; a predicted component is false when under
10 % of its voxels lie on a lesion. Pass masks with ignored voxels, and those outside the brain, already removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.metrics.voxels import as_masks, ratio


class LesionCounts(NamedTuple):
    """What a mask found: lesions of the truth, those hit, components of the mask, those false."""

    lesions: int
    hit: int
    components: int
    false: int

    @staticmethod
    def pooled(counts: Iterable[LesionCounts]) -> LesionCounts:
        """The sums over cases."""
        rows = list(counts)
        return LesionCounts(*(sum(row[index] for row in rows) for index in range(4)))


class LesionRow(NamedTuple):
    """One component: a ``lesion`` of the truth, or a predicted ``component``.

    ``x, y, z`` is the centroid in voxels; ``overlap`` the share of its voxels that the other mask covers, and
    ``matched`` whether that is at least 10 % (nan and None without a truth); scores are over its voxels.
    """

    kind: Literal["lesion", "component"]
    number: int
    voxels: int
    volume_ml: float
    x: float
    y: float
    z: float
    overlap: float
    matched: bool | None
    mean_score: float
    maximum_score: float


def _components(mask: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, voxels of each component and how many of them ``other`` covers."""
    labels, count = ndimage.label(mask, structure=ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return labels, sizes, np.bincount(labels[other], minlength=count + 1)[1:]


def _matched(covered: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return 10 * covered >= sizes  # in integers: 10 % exactly is a hit


def lesion_detection(mask: np.ndarray, truth: np.ndarray) -> LesionCounts:
    """Count lesions, hits, components and false components of two masks of one shape.

    Raises:
        DataError: no masks, or different shapes.
    """
    predicted, lesion = as_masks("lesion_detection", mask=mask, truth=truth)
    _, lesion_sizes, covered = _components(lesion, predicted)
    _, sizes, on_lesion = _components(predicted, lesion)
    return LesionCounts(
        lesions=len(lesion_sizes),
        hit=int(_matched(covered, lesion_sizes).sum()),
        components=len(sizes),
        false=int((~_matched(on_lesion, sizes)).sum()),
    )


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


def lesion_table(
    mask: np.ndarray, truth: np.ndarray | None, score: np.ndarray, spacing_mm: Sequence[float]
) -> list[LesionRow]:
    """One row for each lesion of the truth (if there is one), then for each predicted component; the largest first.

    ``mask`` and ``truth`` are (X, Y, Z) masks, ``score`` (X, Y, Z), ``spacing_mm`` one number an axis.

    Raises:
        DataError: no masks, or shapes that do not fit.
    """
    predicted, lesion = as_masks("lesion_table", mask=mask, truth=np.zeros_like(mask) if truth is None else truth)
    if predicted.ndim != 3 or np.shape(score) != predicted.shape or len(spacing_mm) != 3:
        raise DataError(
            "shapes that do not fit",
            where="lesion_table",
            got=f"mask {predicted.shape}, score {np.shape(score)}, spacing {tuple(spacing_mm)}",
            expected="(X, Y, Z) twice and three spacings",
        )
    voxel_ml = math.prod(float(spacing) for spacing in spacing_mm) / 1000.0
    rows = [] if truth is None else _rows("lesion", lesion, predicted, score, voxel_ml)
    found = _rows("component", predicted, lesion, score, voxel_ml)
    if truth is None:
        found = [row._replace(overlap=math.nan, matched=None) for row in found]
    return rows + found


def _rows(
    kind: Literal["lesion", "component"], mask: np.ndarray, other: np.ndarray, score: np.ndarray, voxel_ml: float
) -> list[LesionRow]:
    labels, sizes, covered = _components(mask, other)
    index = np.arange(1, len(sizes) + 1)
    if not len(index):
        return []
    centroids = ndimage.center_of_mass(mask, labels, index)
    means, maxima = ndimage.mean(score, labels, index), ndimage.maximum(score, labels, index)
    matched = _matched(covered, sizes)
    order = np.argsort(-sizes, kind="stable").tolist()
    return [
        LesionRow(
            kind=kind,
            number=number,
            voxels=int(sizes[i]),
            volume_ml=float(sizes[i] * voxel_ml),
            x=float(centroids[i][0]),
            y=float(centroids[i][1]),
            z=float(centroids[i][2]),
            overlap=float(covered[i] / sizes[i]),
            matched=bool(matched[i]),
            mean_score=float(means[i]),
            maximum_score=float(maxima[i]),
        )
        for number, i in enumerate(order, start=1)
    ]
