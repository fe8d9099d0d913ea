"""Whether a scan as a whole is ill: one score a scan, and how it ranks the ill against the healthy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hybriduad.metrics.clusters import least_voxels
from hybriduad.metrics.intervals import DRAWS, Interval, draw_subjects, interval_of, ranking_interval

LEAST_ML = 0.1
"""A scan's score is reached by at least this volume: a voxel alone, as noise makes it, is no finding."""


class Scan(NamedTuple):
    """A scan of a subject: its score, and whether it has a lesion."""

    subject: tuple[str, str]
    score: float
    ill: bool


def scan_score(scores: np.ndarray, voxel_ml: float) -> float:
    """The largest value that at least :data:`LEAST_ML` of the scored voxels reach, the lowest of all where there is
    less; nan without a voxel."""
    values = np.ravel(scores)
    if not values.size:
        return math.nan
    return highest_reached(values, min(values.size, least_voxels(LEAST_ML, voxel_ml)))


def highest_reached(values: np.ndarray, count: int) -> float:
    """The largest value that at least ``count`` of ``values`` (N,) reach, 1 <= count <= N."""
    return float(np.partition(values, values.size - count)[values.size - count])


def scan_auroc(trials: Iterable[Sequence[Scan]], *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Probability that an ill scan's score is above a healthy one's, ties half; a 95 % interval over subjects.

    Only scans of the same trial, scored by the same model, are compared; all such pairs count alike. A scan whose score
    is nan is left out. nan where no trial has both kinds; draws without a pair do not enter the interval, which is nan
    where all others are 0 or all are 1.
    """
    known = [[scan for scan in trial if not math.isnan(scan.score)] for trial in trials]
    subjects = sorted({scan.subject for trial in known for scan in trial})
    if not subjects:
        return Interval(math.nan, math.nan, math.nan, 0, 0, draws, seed)
    place = {subject: number for number, subject in enumerate(subjects)}
    wins, pairs = np.zeros((2, len(subjects), len(subjects)))
    for trial in known:
        ill, well = ([scan for scan in trial if scan.ill is kind] for kind in (True, False))
        if not ill or not well:
            continue
        a, b = (np.array([scan.score for scan in scans]) for scans in (ill, well))
        at = np.ix_(*([place[scan.subject] for scan in scans] for scans in (ill, well)))
        np.add.at(wins, at, (a[:, None] > b) + 0.5 * (a[:, None] == b))
        np.add.at(pairs, at, 1.0)
    drawn = draw_subjects(len(subjects), draws, seed)
    weights = np.stack([np.bincount(row, minlength=len(subjects)) for row in drawn]).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(subjects))), weights])
    won, compared = (((weights @ table) * weights).sum(axis=1) for table in (wins, pairs))
    figures = np.divide(won, compared, out=np.full(len(won), np.nan), where=compared > 0)
    return ranking_interval(interval_of(figures[0], figures[1:], len(subjects), 0, seed))
