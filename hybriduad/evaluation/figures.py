"""From cases to a cohort: means over subjects, pooled figures, paired differences, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hybriduad.core.errors import ConfigError
from hybriduad.detector.thresholds import PARTS
from hybriduad.evaluation.case import RECONSTRUCTION, CaseScores
from hybriduad.evaluation.outlines import EQUAL_ALARM_HITS
from hybriduad.metrics import (
    SIZES,
    Interval,
    LesionCounts,
    ScoreHistogram,
    bootstrap,
    bootstrap_pooled,
    lesion_f1,
    lesion_precision,
    lesion_recall,
    paired_difference,
    scan_auroc,
)
from hybriduad.metrics.comparisons import paired_p_value
from hybriduad.metrics.intervals import DRAWS, PooledStatistic, bootstrap_sums, share_interval
from hybriduad.metrics.scans import Scan
from hybriduad.metrics.voxels import ratio

MEAN, POOLED = "mean over subjects", "pooled"
RANKED = ("auprc", "auroc", "best_dice")
OUTLINED = (
    "dice",
    "sensitivity",
    "precision",
    "fpr",
    "lesion_recall",
    "lesion_precision",
    "lesion_f1",
    "false_positive_ml_per_lesion_free_scan",
    "lesion_free_scans_with_alarm",
    "false_positive_ml_per_lesion_free_slice",
    "false_lesions_per_lesion_free_scan",
    "surface_dice",
    "hd95",
    *(f"{figure}_{size}" for size in SIZES for figure in ("lesion_recall", "lesion_precision", "lesion_f1")),
)
EQUAL_ALARM_RECALL = "lesion_recall_at_1ml"
"""Before the name of a size: :func:`hybriduad.evaluation.outlines.equal_alarm_figures`, pooled."""
POOLED_RANKED: Mapping[str, PooledStatistic] = {
    "auprc": "average_precision",
    "auroc": "auroc",
    "best_dice": "best_dice",
}
SHARES = (
    "lesion_free_scans_with_alarm",
    "lesion_recall",
    *(f"{name}_{size}" for size in SIZES for name in ("lesion_recall", EQUAL_ALARM_RECALL)),
)
"""Figures that are shares of scans or lesions, whose intervals are those of shares."""
PAIRED = ("auprc", "best_dice", "dice")
LEVEL = 0.05
"""A difference whose p is this at most is called more than chance."""
PAIRS = tuple(("score", part) for part in PARTS if part != "score")


class Figure(NamedTuple):
    """One row of a summary: a figure of a system (or of "a - b") over a group of subjects, with its 95 % interval.

    ``how`` is "mean over subjects" or "pooled"; ``group`` is "" for all, else "attribute=value"; ``left_out`` counts
    subjects for whom the figure is not defined, as AUPRC and Dice are not for subjects without a lesion. ``p`` is that
    of a difference of means, by :func:`hybriduad.metrics.comparisons.paired_p_value`; nan in every other row.
    """

    group: str
    system: str
    figure: str
    how: str
    value: float
    low: float
    high: float
    subjects: int
    left_out: int
    draws: int
    seed: int
    p: float = math.nan

    @property
    def more_than_chance(self) -> bool:
        """Whether a difference of means is: by its permutation test, since a bootstrap interval of few subjects is too
        narrow (that of 6 excludes 0 in one of 7 cohorts without a difference). False where there is no ``p``."""
        return self.p <= LEVEL


def summarise(cases: Sequence[CaseScores], by: Sequence[str], seed: int, draws: int) -> list[Figure]:
    """All figures of a cohort: over all, then by each value of each attribute in ``by`` (means over subjects only).

    Raises:
        ConfigError: an attribute that no case has.
    """
    figures = [
        *subject_means("", cases, seed, draws),
        *_pooled(cases, seed, draws),
        *fusion_differences(cases, seed, draws),
    ]
    for attribute in by:
        values = [case.attributes.get(attribute, "") for case in cases]
        if not any(values):
            known = sorted({name for case in cases for name, value in case.attributes.items() if value})
            raise ConfigError("unknown attribute", got=repr(attribute), expected=f"one of {known}")
        for value in sorted(set(values)):
            chosen = [case for case, stated in zip(cases, values, strict=True) if stated == value]
            figures += subject_means(f"{attribute}={value or 'n/a'}", chosen, seed, draws)
    return figures


def by_subject(cases: Sequence[CaseScores]) -> dict[tuple[str, str], list[CaseScores]]:
    """The cases of each person, people in order of their names."""
    people: dict[tuple[str, str], list[CaseScores]] = {}
    for case in sorted(cases, key=lambda case: (case.subject, case.name)):
        people.setdefault(case.subject, []).append(case)
    return people


def subject_values(cases: Sequence[CaseScores], system: str, figure: str) -> np.ndarray:
    """(subjects,) float64: a person's figure is the mean over those of their cases for which it is defined."""
    values = []
    for person in by_subject(cases).values():
        values.append(_mean(float(case.systems.get(system, {}).get(figure, math.nan)) for case in person))
    return np.array(values)


def subject_histograms(cases: Sequence[CaseScores], system: str) -> list[ScoreHistogram]:
    """One histogram for each person, of their cases with a lesion; people without such a case are absent."""
    return [
        ScoreHistogram.merged(case.histograms[system] for case in person)
        for person in by_subject([case for case in cases if case.has_lesion]).values()
    ]


def systems_of(cases: Sequence[CaseScores]) -> list[str]:
    """The systems that every case has, in the order of the first."""
    return [name for name in cases[0].systems if all(name in case.systems for case in cases)] if cases else []


def figure_row(group: str, system: str, figure: str, how: str, interval: Interval, p: float = math.nan) -> Figure:
    """An interval as a row."""
    return Figure(group, system, figure, how, *interval, p)


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def subject_means(group: str, cases: Sequence[CaseScores], seed: int, draws: int) -> list[Figure]:
    """Every figure as the mean over those subjects for whom it is defined."""
    rows = []
    for system in systems_of(cases):
        for figure in (*RANKED, *OUTLINED):
            if any(figure in case.systems[system] for case in cases):
                interval = mean_interval(figure, subject_values(cases, system, figure), seed, draws)
                rows.append(figure_row(group, system, figure, MEAN, interval))
    for figure in RECONSTRUCTION:
        values = [
            _mean(float(case.facts.get(figure, math.nan)) for case in person) for person in by_subject(cases).values()
        ]
        if not np.isnan(values).all():
            interval = bootstrap(np.array(values), draws=draws, seed=seed)
            rows.append(figure_row(group, "reconstruction", figure, MEAN, interval))
    return rows


def _pooled(cases: Sequence[CaseScores], seed: int, draws: int) -> list[Figure]:
    rows = []
    for system in systems_of(cases):
        histograms = subject_histograms(cases, system)
        for figure, ranking in POOLED_RANKED.items():
            interval = bootstrap_pooled(histograms, ranking, draws=draws, seed=seed)
            rows.append(figure_row("", system, figure, POOLED, interval))
        scans = [
            Scan(case.subject, case.systems[system].get("scan_score", math.nan), case.has_lesion)
            for case in cases
            if not case.set_aside
        ]
        rows.append(figure_row("", system, "scan_auroc", POOLED, scan_auroc([scans], draws=draws, seed=seed)))
        if not all("threshold" in case.systems[system] for case in cases):
            continue
        for figure, (columns, _, everyone) in POOLED_OUTLINED.items():
            chosen = cases if everyone else [case for case in cases if case.has_lesion]
            if not chosen:
                continue
            interval = pooled_interval(figure, _sums(chosen, system, columns), seed, draws)
            rows.append(figure_row("", system, figure, POOLED, interval))
    return rows


def _sums(cases: Sequence[CaseScores], system: str, columns: Sequence[str]) -> np.ndarray:
    """(subjects, columns): the sums over each person's cases."""
    rows = [
        [sum(float({**case.facts, **case.systems[system]}[column]) for case in person) for column in columns]
        for person in by_subject(cases).values()
    ]
    return np.array(rows, dtype=np.float64)


def _pooled_dice(tp: float, fp: float, fn: float) -> float:
    return ratio(2 * tp, 2 * tp + fp + fn)


def _lesion_wise(figure: Callable[[LesionCounts], float]) -> Callable[..., float]:
    return lambda *counts: figure(LesionCounts(*(int(count) for count in counts)))


_LESIONS = ("lesions", "lesions_hit", "components", "false_components")
# Figure -> the columns that are summed, what is computed from the sums, and whether lesion-free cases enter.
POOLED_OUTLINED: Mapping[str, tuple[tuple[str, ...], Callable[..., float], bool]] = {
    "dice": (("tp", "fp", "fn"), _pooled_dice, False),
    "sensitivity": (("tp", "fn"), lambda tp, fn: ratio(tp, tp + fn), False),
    "precision": (("tp", "fp"), lambda tp, fp: ratio(tp, tp + fp), False),
    "fpr": (("fp", "tn"), lambda fp, tn: ratio(fp, fp + tn), True),
    "lesion_recall": (_LESIONS, _lesion_wise(lesion_recall), False),
    "lesion_precision": (_LESIONS, _lesion_wise(lesion_precision), False),
    "lesion_f1": (_LESIONS, _lesion_wise(lesion_f1), False),
    "false_positive_ml_per_lesion_free_slice": (
        ("false_positive_ml_on_lesion_free_slices", "lesion_free_slices"),
        ratio,
        True,
    ),
    **{
        f"{name}_{size}": (tuple(f"{column}_{size}" for column in _LESIONS), _lesion_wise(figure), False)
        for size in SIZES
        for name, figure in (
            ("lesion_recall", lesion_recall),
            ("lesion_precision", lesion_precision),
            ("lesion_f1", lesion_f1),
        )
    },
    **{
        f"{EQUAL_ALARM_RECALL}_{size}": (
            (f"lesions_{size}", f"{EQUAL_ALARM_HITS}_{size}"),
            lambda lesions, hit: ratio(hit, lesions),
            False,
        )
        for size in SIZES
    },
}
"""Figure -> the columns that are summed, what is made of the sums, and whether lesion-free cases enter."""


def mean_interval(figure: str, values: np.ndarray, seed: int = 0, draws: int = DRAWS) -> Interval:
    """The mean of a figure over subjects, ``values`` (subjects,), with its interval."""
    interval = bootstrap(values, draws=draws, seed=seed)
    return share_interval(interval) if figure in SHARES else interval


def pooled_interval(figure: str, sums: np.ndarray, seed: int = 0, draws: int = DRAWS) -> Interval:
    """A figure of :data:`POOLED_OUTLINED` with its interval; ``sums`` (subjects, columns) of its columns."""
    interval = bootstrap_sums(sums, POOLED_OUTLINED[figure][1], draws=draws, seed=seed)
    with_lesion = int((sums[:, 0] > 0).sum())  # of the size: others say nothing of its recall
    return share_interval(interval, with_lesion) if figure in SHARES else interval


def fusion_differences(
    cases: Sequence[CaseScores], seed: int, draws: int, name: str = "", *, pooled: bool = True
) -> list[Figure]:
    """The fused score of one evaluation less each of its other systems; ``name`` stands before their titles.

    ``pooled`` as in :func:`differences`.
    """
    there = systems_of(cases)
    rows = []
    for a, b in PAIRS:
        if a in there and b in there:
            title = f"{name}: {a} - {b}" if name else f"{a} - {b}"
            rows += differences(cases, a, cases, b, title, seed, draws, pooled=pooled)
    return rows


def differences(
    first: Sequence[CaseScores],
    a: str,
    second: Sequence[CaseScores],
    b: str,
    name: str,
    seed: int,
    draws: int,
    *,
    pooled: bool = True,
) -> list[Figure]:
    """System ``a`` of ``first`` less system ``b`` of ``second``, which hold the same cases; both share the draws.

    A difference of means has a p; one of pooled figures has none, as no subject has a value of it. ``pooled``: also
    over the voxels of all cases, which only scores of one model allow: those of models trained apart, as of several
    folds, share no scale.
    """
    rows = []
    for figure in PAIRED:
        if all(figure in case.systems[system] for cases, system in ((first, a), (second, b)) for case in cases):
            values = subject_values(first, a, figure), subject_values(second, b, figure)
            interval = paired_difference(*values, draws=draws, seed=seed)
            rows.append(figure_row("", name, figure, MEAN, interval, paired_p_value(*values, seed=seed)))
    if pooled:
        interval = bootstrap_pooled(
            subject_histograms(first, a),
            "average_precision",
            against=subject_histograms(second, b),
            draws=draws,
            seed=seed,
        )
        rows.append(figure_row("", name, "auprc", POOLED, interval))
    return rows
