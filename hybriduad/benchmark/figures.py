"""The figures of a row of a table, each with its interval: means over subjects, pooled ones, and those of scans."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hybriduad.benchmark.plan import Row, has_healthy_rule
from hybriduad.benchmark.results import HEALTHY_DICE, Curve, TestedCase
from hybriduad.evaluation.case import RECONSTRUCTION
from hybriduad.evaluation.figures import (
    MEAN,
    OUTLINED,
    POOLED,
    POOLED_OUTLINED,
    RANKED,
    mean_interval,
    pooled_interval,
)
from hybriduad.metrics import Interval, ScoreHistogram, scan_auroc
from hybriduad.metrics.coarse import precision_recall
from hybriduad.metrics.scans import Scan

Person = tuple[str, str]
RECALLS = 101
"""At which the precision of trials is averaged, evenly from 0 to 1."""


class Entry(NamedTuple):
    """The cases of a finished trial, its fold, the folder of its pictures beside the tables, "" without any, and the
    validation curves of its trainings, as :class:`hybriduad.benchmark.results.Result` has them."""

    fold: int
    cases: tuple[TestedCase, ...]
    pictures: str = ""
    curves: tuple[tuple[str, Curve], ...] = ()


Entries = Mapping[Row, Sequence[Entry]]
Figures = Mapping[tuple[str, str], Interval]
"""(figure, how it is taken together) -> its value with an interval."""


def row_figures(row: Row, done: Sequence[Entry]) -> Figures:
    """All figures of a row that some subject has; none where nothing is done."""
    if not done:
        return {}
    lacking = () if all(has_healthy_rule(trial.rule) for trial in row.trials) else (HEALTHY_DICE,)
    listed: dict[tuple[str, str], Interval] = {
        (name, MEAN): mean_interval(name, np.array(list(subject_figures(row, done, name).values())))
        for name in (*RANKED, *OUTLINED, HEALTHY_DICE, *(RECONSTRUCTION if row.part in ("map", "score") else ()))
        if name not in lacking
    }
    listed["scan_auroc", POOLED] = scan_auroc(_scans(row, entry) for entry in done)
    if curves := trial_curves(row, done):
        areas = [float(np.trapezoid(curve.precision, curve.recall)) for curve in curves]
        value = float(np.average(areas, weights=[curve.subjects for curve in curves]))
        people = {case.subject for entry in done for case in entry.cases if case.has_lesion}
        listed["auprc", POOLED] = Interval(value, math.nan, math.nan, len(people), 0, 0, 0)
    for name, (columns, _, everyone) in POOLED_OUTLINED.items():
        listed[name, POOLED] = pooled_interval(name, _sums(row, done, columns, everyone))
    return {name: interval for name, interval in listed.items() if interval.subjects and not math.isnan(interval.value)}


def subject_figures(row: Row, done: Sequence[Entry], figure: str) -> dict[Person, float]:
    """A person -> the mean of a figure, or of a fact, over their cases and the seeds for which it is defined; nan
    without any."""
    return _by_subject(done, lambda case: case.parts.get(row.part, {}).get(figure, case.facts.get(figure, math.nan)))


def judged_apart(done: Iterable[Entry]) -> set[Person]:
    """The people of whom some entries have a case with another truth, or over other voxels, than other entries; in
    results from before these were kept they are taken to be the same."""
    seen: dict[tuple[Person, str], set[tuple[str, str]]] = {}
    for case in (case for entry in done for case in entry.cases if case.truth and case.region):
        seen.setdefault((case.subject, case.name), set()).add((case.truth, case.region))
    return {person for (person, _), digests in seen.items() if len(digests) > 1}


def brain_ways(chosen: Entries) -> dict[str, list[str]]:
    """How brains were found -> the systems for which they were, of cases that rows have by different ways; none where
    all have each case by the same way."""
    ways: dict[tuple[Person, str], dict[str, set[str]]] = {}
    for row, done in chosen.items():
        for case in (case for entry in done for case in entry.cases if case.brain):
            ways.setdefault((case.subject, case.name), {}).setdefault(case.brain, set()).add(row.system)
    found: dict[str, set[str]] = {}
    for systems in (systems for systems in ways.values() if len(systems) > 1):
        for way, names in systems.items():
            found.setdefault(way, set()).update(names)
    return {way: [row.system for row in chosen if row.system in names] for way, names in sorted(found.items())}


def validation_curve(row: Row, done: Sequence[Entry]) -> Curve:
    """Step -> AUPRC on validation slices, mean over the trials, of the training that the row's score comes from last:
    of a map the reconstructor's, of a score or a probability the segmenter's; none of what learns nothing."""
    stage = {"map": "reconstructor", "score": "detector", "probability": "detector"}.get(row.part)
    last = [curve for entry in done if (curve := dict(entry.curves).get(stage or ""))]
    common = set.intersection(*(set(curve) for curve in last)) if last else set()
    return {step: float(np.mean([curve[step] for curve in last])) for step in sorted(common)}


def _by_subject(done: Sequence[Entry], value: Callable[[TestedCase], float]) -> dict[Person, float]:
    values: dict[Person, list[float]] = {}
    for entry in done:
        for case in entry.cases:
            values.setdefault(case.subject, []).append(value(case))
    return {person: _mean(listed) for person, listed in sorted(values.items())}


class TrialCurve(NamedTuple):
    """Recall, ascending, and precision, (points,) each, pooled over the ``subjects`` with a lesion of one trial."""

    recall: np.ndarray
    precision: np.ndarray
    subjects: int


def trial_curves(row: Row, done: Sequence[Entry]) -> list[TrialCurve]:
    """The curve of each trial with a lesion; none if the scores of a case are not known, as in results from before.

    Scores are pooled within a trial alone: those of models trained apart share no scale.
    """
    curves = []
    for entry in done:
        sick = [case for case in entry.cases if case.has_lesion]
        if not all(row.part in case.histograms for case in sick):
            return []
        points = precision_recall(ScoreHistogram.merged(case.histograms[row.part] for case in sick))
        if sick:
            curves.append(TrialCurve(*points, len({case.subject for case in sick})))
    return curves


def mean_curve(curves: Sequence[TrialCurve]) -> tuple[np.ndarray, np.ndarray]:
    """Recalls from 0 to 1 and the mean over trials of their precision there, weighted by subjects with a lesion.

    (points,) each, no point without a trial; between its points a curve is a straight line, and at a recall of 1 it is
    at the highest threshold that gives it.
    """
    if not curves:
        return np.zeros(0), np.zeros(0)
    at = np.linspace(0, 1, RECALLS)
    precisions = []
    for curve in curves:
        reached = np.searchsorted(curve.recall, 1.0) + 1
        precisions.append(np.interp(at, curve.recall[:reached], curve.precision[:reached]))
    return at, np.average(precisions, axis=0, weights=[curve.subjects for curve in curves])


def _scans(row: Row, entry: Entry) -> list[Scan]:
    return [
        Scan(case.subject, case.parts.get(row.part, {}).get("scan_score", math.nan), case.has_lesion)
        for case in entry.cases
        if not case.set_aside
    ]


def _sums(row: Row, done: Sequence[Entry], columns: Sequence[str], everyone: bool) -> np.ndarray:
    """(subjects, columns): the sums over each person's cases, of lesion-free ones if ``everyone`` counts."""
    sums: dict[Person, np.ndarray] = {}
    for case in (case for entry in done for case in entry.cases if case.has_lesion or everyone):
        known = {**case.facts, **case.parts.get(row.part, {})}
        values = np.array([known.get(name, math.nan) for name in columns])
        sums[case.subject] = sums.get(case.subject, np.zeros(len(columns))) + values
    return np.array([sums[person] for person in sorted(sums)]).reshape(len(sums), len(columns))


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
