"""What a threshold would do, for many at once: false lesions in healthy scans, and painted lesions found.

A lesion in a mask is a cluster of at least :data:`LEAST_ML`; smaller ones are left out, as
:class:`hybriduad.detector.thresholds.Sized` does. A painted lesion is found if at least 10 % of it are in the mask, as
in :mod:`hybriduad.metrics.lesions`, and were not before it was painted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from hybriduad.metrics.clusters import labelled, large_clusters
from hybriduad.metrics.scans import LEAST_ML

__all__ = ["LEAST_ML", "LEVELS", "Curve", "curve_of", "heights", "is_hit"]

_STEPS = 2.0 ** (-np.arange(8, 81) / 8)
LEVELS = np.unique(np.concatenate([_STEPS, 1 - _STEPS]).astype(np.float32))
"""The thresholds of a curve, ascending: 9 % apart in the odds, from 0.001 to 0.999."""
WIDEST = 0.1
"""Share of the brain in a mask from which a threshold is not looked at any more."""


def is_hit(mask: np.ndarray, lesion: np.ndarray) -> bool:
    """Whether a mask holds at least 10 % of a lesion, both (X, Y, Z) bool, the lesion not empty."""
    inside = mask[lesion]
    return bool(10 * inside.sum() >= inside.size)


def heights(
    score: np.ndarray, brain: np.ndarray, lesions: Sequence[np.ndarray], voxels: int
) -> tuple[list[float], list[int]]:
    """For each lesion the highest of :data:`LEVELS` at which it is hit, 0 if none is; clusters at each, highest first.

    ``score`` (X, Y, Z) in [0, 1], ``brain`` and ``lesions`` (X, Y, Z) bool; a cluster has at least ``voxels``. The
    clusters end before the first level at which more than :data:`WIDEST` of the brain is in the mask.
    """
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    scores = np.where(brain[box], score[box], np.float32(0))
    parts = [np.flatnonzero(lesion[box]) for lesion in lesions]
    sizes = [int(lesion.sum()) for lesion in lesions]  # what lies outside the brain counts as not hit
    limit, top = WIDEST * brain.sum(), scores.max()
    reached, clusters = [0.0] * len(lesions), []
    for level in LEVELS[::-1]:
        if level > top:
            clusters.append(0)
            continue
        mask = scores >= level
        if mask.sum() > limit:
            break
        mask = large_clusters(mask, voxels)
        clusters.append(len(labelled(mask)[1]))
        flat = mask.ravel()
        for number, part in enumerate(parts):
            if not reached[number] and 10 * flat[part].sum() >= sizes[number]:
                reached[number] = float(level)
    return reached, clusters


class Curve(NamedTuple):
    """At each of ``thresholds`` (T,), ascending: ``false`` (P, T), the false lesions in a healthy scan of each of P
    people, a mean over their scans; ``found`` (L, T) bool of the painted lesions; ``person`` (L,), whose they are."""

    thresholds: np.ndarray
    false: np.ndarray
    found: np.ndarray
    person: np.ndarray

    def lowest(self, false_lesions: float, people: np.ndarray) -> int | None:
        """The index of the lowest threshold from which on the mean over the ``people`` (P,) bool keeps to a limit."""
        kept = self.false[people].mean(axis=0) <= false_lesions + 1e-9
        beyond = np.flatnonzero(~kept)
        first = int(beyond[-1]) + 1 if len(beyond) else 0
        return first if first < len(kept) else None


def curve_of(records: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve of the records of :mod:`hybriduad.evaluation.blind_spots`, from the lowest level that all have."""
    depth = min(len(record["false"]) for record in records)
    people = sorted({tuple(record["person"]) for record in records})
    thresholds = LEVELS[len(LEVELS) - depth :]
    false = np.array(
        [
            np.mean([record["false"][:depth][::-1] for record in records if tuple(record["person"]) == who], axis=0)
            for who in people
        ]
    )
    lesions = [(people.index(tuple(record["person"])), lesion) for record in records for lesion in record["lesions"]]
    reached, before = (np.array([lesion[key] for _, lesion in lesions]) for key in ("found_at", "marked_at"))
    found = (reached[:, None] >= thresholds) & (before[:, None] < thresholds)
    return Curve(thresholds, false, found, np.array([who for who, _ in lesions]))
