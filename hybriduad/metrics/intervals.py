"""Percentile bootstrap over subjects (Efron and Tibshirani 1993): resample subjects, recompute the figure.

The draws depend only on the number of subjects, the number of draws and the seed, so systems that are evaluated on
the same subjects share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import binomtest

from hybriduad.core.errors import ConfigError, DataError
from hybriduad.metrics import histogram
from hybriduad.metrics.histogram import ScoreHistogram

DRAWS = 2000
# Pooled draws use about this many groups of bins, each with an equal share of the lesion voxels.
GROUPS = 2048
COUNTS = 2**16
"""Counts that the draws sum at once."""

PooledStatistic = Literal["average_precision", "auroc", "best_dice"]
POOLED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "average_precision": histogram.average_precision,
    "auroc": histogram.auroc,
    "best_dice": histogram.best_dice,
}


class Interval(NamedTuple):
    """A figure and its 95 % interval (nan under 2 subjects); ``subjects`` entered it, ``left_out`` were nan."""

    value: float
    low: float
    high: float
    subjects: int
    left_out: int
    draws: int
    seed: int


def draw_subjects(subjects: int, draws: int, seed: int) -> np.ndarray:
    """Indices of the subjects of each draw, with replacement: (draws, subjects) int64."""
    return np.random.default_rng(seed).integers(0, subjects, (draws, subjects))


def mean(values: np.ndarray) -> float:
    """Arithmetic mean as a plain float."""
    return float(np.mean(values))


def bootstrap(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = mean,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Interval of a figure over subjects.

    ``values`` is (subjects,) or (subjects, columns); ``statistic`` takes the drawn rows, in that shape, to one number
    (of several columns a figure can be computed anew in a draw: pooled hits over pooled lesions). Subjects with a nan
    are left out and counted; draws whose figure is nan do not enter the interval.

    Raises:
        DataError: ``values`` has neither one nor two axes.
    """
    # Not scipy.stats.bootstrap: from the same generator it gives the same interval (to 1e-12), but none at all once the
    # figure of a single draw is nan (the precision of subjects without an alarm), and it knows no histograms.
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim not in (1, 2):
        raise DataError("values to resample", where="bootstrap", got=rows.shape, expected="(subjects,) or two axes")
    defined = ~np.isnan(rows.reshape(len(rows), -1)).any(axis=1)
    kept = rows[defined]
    count = len(kept)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0, len(rows), draws, seed)
    drawn = draw_subjects(count, draws, seed)
    if statistic is mean and rows.ndim == 1:  # all draws at once: 30 times as fast as draw by draw
        figures = kept[drawn].mean(axis=1)
    else:
        figures = np.array([statistic(kept[chosen]) for chosen in drawn], dtype=np.float64)
    return interval_of(statistic(kept), figures, count, len(rows) - count, seed)


def bootstrap_sums(sums: np.ndarray, figure: Callable[..., float], *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Interval of a figure of sums over subjects: ``sums`` (subjects, columns), ``figure`` takes a total a column.

    As :func:`bootstrap` with a statistic that sums the drawn rows, of which all draws are summed at once.

    Raises:
        DataError: ``sums`` has not two axes.
    """
    rows = np.asarray(sums, dtype=np.float64)
    if rows.ndim != 2:
        raise DataError("sums to resample", where="bootstrap_sums", got=rows.shape, expected="(subjects, columns)")
    kept = rows[~np.isnan(rows).any(axis=1)]
    count = len(kept)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0, len(rows), draws, seed)
    totals = kept[draw_subjects(count, draws, seed)].sum(axis=1)
    figures = np.array([figure(*total) for total in totals], dtype=np.float64)
    return interval_of(figure(*kept.sum(axis=0)), figures, count, len(rows) - count, seed)


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Interval of ``mean(a) - mean(b)``, the mean of ``a - b``, where row i of both, (subjects,), is the same subject.

    Both systems share the draws; subjects that are nan in either are left out.

    Raises:
        DataError: different shapes, or more than one axis.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(
            "systems that cannot be paired",
            where="paired_difference",
            got=(first.shape, second.shape),
            expected="(subjects,) twice",
        )
    return bootstrap(first - second, draws=draws, seed=seed)


def bootstrap_pooled(
    histograms: Sequence[ScoreHistogram],
    statistic: PooledStatistic = "average_precision",
    *,
    against: Sequence[ScoreHistogram] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Interval of a figure pooled over the voxels of all subjects, a histogram a subject, merged anew in every draw.

    With ``against``, the histograms of another system for the same subjects, it is the interval of the difference,
    with shared draws. The value is exact; draws use bins merged to at most 1/2048 of the lesion voxels a group,
    which moves the ends of the interval by less than 0.001.

    Raises:
        ConfigError: unknown ``statistic``.
        DataError: the two systems have different numbers of subjects.
    """
    if statistic not in POOLED:
        raise ConfigError("unknown pooled figure", got=repr(statistic), expected=f"one of {list(POOLED)}")
    if against is not None and len(against) != len(histograms):
        raise DataError("systems that cannot be paired", where="bootstrap_pooled", got=(len(histograms), len(against)))
    subjects = len(histograms)
    if subjects == 0:
        return Interval(math.nan, math.nan, math.nan, 0, 0, draws, seed)
    drawn = draw_subjects(subjects, draws, seed)
    weights = np.stack([np.bincount(row, minlength=subjects) for row in drawn]).astype(np.float64)
    value, figures = _pooled(histograms, statistic, weights)
    if against is not None:
        other_value, other_figures = _pooled(against, statistic, weights)
        value, figures = value - other_value, figures - other_figures
    return interval_of(value, figures, subjects, 0, seed)


def interval_of(value: float, figures: np.ndarray, subjects: int, left_out: int, seed: int) -> Interval:
    """A figure with the percentiles of those ``figures`` (draws,), one a draw, that are defined."""
    defined = figures[~np.isnan(figures)]
    low, high = np.percentile(defined, [2.5, 97.5]) if subjects > 1 and len(defined) else (math.nan, math.nan)
    return Interval(float(value), float(low), float(high), subjects, left_out, len(figures), seed)


def share_interval(interval: Interval, subjects: int | None = None) -> Interval:
    """The interval of a share in [0, 1]; where all subjects have 0, or all 1, the exact one of so many subjects.

    All draws are then the same, but 0 of 8 says little of the next 8: Clopper and Pearson (1934,
    doi:10.1093/biomet/26.4.404) give [0, .37]. ``subjects``: how many have something to share, by default all that
    entered the figure; under 2 it stays nan.
    """
    count = interval.subjects if subjects is None else subjects
    if interval.value not in (0.0, 1.0) or count < 2:
        return interval
    exact = binomtest(round(interval.value) * count, count).proportion_ci(0.95, method="exact")
    return interval._replace(low=float(exact.low), high=float(exact.high))


def ranking_interval(interval: Interval) -> Interval:
    """The interval of how a few rank above others, in [0, 1]; nan where no draw differs from 0, or from 1: then it is
    not known how far that holds."""
    if interval.value in (0.0, 1.0) and interval.low == interval.high:
        return interval._replace(low=math.nan, high=math.nan)
    return interval


def _pooled(histograms: Sequence[ScoreHistogram], statistic: str, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The exact figure of all subjects, and one figure for each row of ``weights`` (draws, subjects)."""
    figure = POOLED[statistic]
    keys, positives, negatives = ScoreHistogram.merged(histograms).descending()
    value = float(figure(positives, negatives))
    group = _groups(positives)
    count = int(group[-1]) + 1 if len(group) else 0
    dense = np.zeros((2, len(histograms), count))
    for subject, subject_histogram in enumerate(histograms):
        subject_keys, *counts = subject_histogram.descending()
        place = group[np.searchsorted(-keys, -subject_keys)]
        for kind, column in enumerate(counts):
            dense[kind, subject] = np.bincount(place, weights=column, minlength=count)
    # Counts are whole numbers, so the sums of a few draws at once, which a processor's cache holds, are the same.
    parts = np.array_split(weights, max(1, math.ceil(weights.shape[0] * count / COUNTS)))
    return value, np.concatenate([figure(part @ dense[0], part @ dense[1]) for part in parts])


def _groups(positives: np.ndarray) -> np.ndarray:
    """Group of each bin (descending order): neighbours share a group while it holds at most 1/GROUPS of the positives.

    Precision is read at the end of a group, so AUPRC errs by at most a group's share of recall times the fall of
    precision inside it; bins with more positives than that stay alone.
    """
    total = positives.sum()
    before = np.cumsum(positives) - positives
    level = before * GROUPS // max(int(total), 1)
    large = positives * GROUPS >= max(int(total), 1)
    starts = np.diff(level, prepend=0) > 0
    starts |= large
    starts[1:] |= large[:-1]
    return np.cumsum(starts) - (1 if len(starts) and starts[0] else 0)
