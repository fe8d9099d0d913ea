"""Lesion-wise figures: connected components (26 neighbours in 3D) of the truth and of the predicted mask.

A lesion is hit when at least 10 % of its voxels are covered by the mask; a predicted component is false when under
10 % of its voxels lie on a lesion. Pass masks with ignored voxels, and those outside the brain, already removed.
By size, lesions and components count in the class of their volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.metrics.clusters import labelled
from hybriduad.metrics.voxels import as_masks, ratio

SIZES = ("under_1ml", "1_to_10ml", "over_10ml")
"""Classes of size: under 1 ml, from 1 to 10 ml, over 10 ml."""


class LesionCounts(NamedTuple):
    """Counts of a mask against the truth: lesions, lesions hit, components of the mask, false components."""

    lesions: int
    hit: int
    components: int
    false: int


class Component(NamedTuple):
    """One component of a mask; ``x, y, z`` is its centroid in voxels, scores are over its voxels.

    ``label`` is its number in :func:`hybriduad.metrics.clusters.labelled`.
    """

    number: int
    voxels: int
    volume_ml: float
    x: float
    y: float
    z: float
    mean_score: float
    maximum_score: float
    label: int


@dataclass(frozen=True)
class Overlaps:
    """The components of a mask, each with its voxels and those that another mask covers, (components,) int64 each."""

    voxels: np.ndarray
    covered: np.ndarray

    @property
    def matched(self) -> np.ndarray:
        """(components,) bool: whether at least 10 % are covered."""
        return np.asarray(10 * self.covered >= self.voxels)  # in integers: 10 % exactly is a hit

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each that is covered."""
        return tuple((self.covered / self.voxels).tolist())

    def sizes(self, voxel_ml: float) -> np.ndarray:
        """(components,) int64: the index in :data:`SIZES` of each."""
        ml = np.round(self.voxels * voxel_ml, 6)  # a product of spacings may miss 1 ml by a rounding error
        return np.asarray((ml >= 1).astype(np.int64) + (ml > 10))


@dataclass(frozen=True)
class Detection:
    """The ``lesions`` of the truth as a mask covers them, and the ``components`` of the mask as the truth does."""

    lesions: Overlaps
    components: Overlaps

    def counts(self) -> LesionCounts:
        """Over all sizes."""
        hit, right = self.lesions.matched, self.components.matched
        return LesionCounts(lesions=len(hit), hit=int(hit.sum()), components=len(right), false=int((~right).sum()))

    def counts_by_size(self, voxel_ml: float) -> dict[str, LesionCounts]:
        """Of each class of :data:`SIZES`: lesions by the size of the lesion, components by that of the component."""
        return {
            name: Detection(
                *(
                    Overlaps(overlaps.voxels[chosen], overlaps.covered[chosen])
                    for overlaps in (self.lesions, self.components)
                    for chosen in [overlaps.sizes(voxel_ml) == number]
                )
            ).counts()
            for number, name in enumerate(SIZES)
        }


def _overlaps(mask: np.ndarray, other: np.ndarray) -> Overlaps:
    labels, sizes = labelled(mask)
    return Overlaps(sizes, np.bincount(labels[other], minlength=len(sizes) + 1)[1:])


def match_lesions(mask: np.ndarray, truth: np.ndarray) -> Detection:
    """Match the lesions of the truth and the components of the mask, two masks of one shape.

    Raises:
        DataError: no masks, or different shapes.
    """
    predicted, lesion = as_masks("lesions", mask=mask, truth=truth)
    return Detection(_overlaps(lesion, predicted), _overlaps(predicted, lesion))


def lesion_detection(mask: np.ndarray, truth: np.ndarray) -> LesionCounts:
    """Count lesions, hits, components and false components of two masks of one shape.

    Raises:
        DataError: no masks, or different shapes.
    """
    return match_lesions(mask, truth).counts()


def lesion_recall(counts: LesionCounts) -> float:
    """Lesions hit / lesions; nan without lesions."""
    return ratio(counts.hit, counts.lesions)


def lesion_precision(counts: LesionCounts) -> float:
    """Components that lie on a lesion / components; nan without components."""
    return ratio(counts.components - counts.false, counts.components)


def lesion_f1(counts: LesionCounts) -> float:
    """2 hit / (2 hit + missed + false components), as in ISLES'22 (doi:10.1038/s41597-022-01875-5); in [0, 1];
    nan without lesions.

    Lesions hit are the true positives, so it is no harmonic mean of :func:`lesion_recall` and
    :func:`lesion_precision`, whose numerators differ: lesions hit by one component are two, and of one size class
    the component that hits a lesion may be of another.
    """
    missed = counts.lesions - counts.hit
    return ratio(2 * counts.hit, 2 * counts.hit + missed + counts.false) if counts.lesions else math.nan


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
    labels, sizes = labelled(inside)
    index = np.arange(1, len(sizes) + 1)
    if not len(index):
        return []
    voxel_ml = math.prod(float(spacing) for spacing in spacing_mm) / 1000.0
    places = np.nonzero(inside)
    labels = labels[places]  # of the mask's voxels alone, which are few
    centroids = [ndimage.mean(places[axis], labels, index) for axis in range(3)]
    means, maxima = (figure(np.asarray(score)[places], labels, index) for figure in (ndimage.mean, ndimage.maximum))
    return [
        Component(
            number=number,
            voxels=int(sizes[i]),
            volume_ml=float(sizes[i] * voxel_ml),
            x=float(centroids[0][i]),
            y=float(centroids[1][i]),
            z=float(centroids[2][i]),
            mean_score=float(means[i]),
            maximum_score=float(maxima[i]),
            label=i + 1,
        )
        for number, i in enumerate(np.argsort(-sizes, kind="stable").tolist(), start=1)
    ]
