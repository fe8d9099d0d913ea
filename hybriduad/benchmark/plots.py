"""The plots of a benchmark: precision and recall, Dice by lesion volume, labels, operations; a panel a table. And the
validation over the steps of training; a panel a cohort."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hybriduad.benchmark.figures import (
    Entries,
    Entry,
    Figures,
    mean_curve,
    subject_figures,
    trial_curves,
    validation_curve,
)
from hybriduad.benchmark.plan import Row
from hybriduad.config.benchmarks import BenchmarkRun, BenchmarkSystem
from hybriduad.core.charts import Panel, Series, charts
from hybriduad.core.drawing import Bar, bars
from hybriduad.evaluation.figures import MEAN

Tables = Mapping[tuple[str, str], Entries]
"""(trained on, tested on) -> the rows of that table."""
BARS, CURVES, VOLUMES, LABELS, COSTS, VALIDATION = (
    "auprc.png",
    "precision_recall.png",
    "dice_by_volume.png",
    "label_efficiency.png",
    "auprc_by_operations.png",
    "validation.png",
)
GROUPS, FEWEST = 4, 3
"""Groups of patients by their lesions' volume at most, and patients in a group at least."""
ALL = "all"


def write_plots(
    out: Path, run: BenchmarkRun, tables: Tables, figures: Mapping[Row, Figures], costs: Mapping[str, float]
) -> list[str]:
    """Draw what there is something to draw of; returns the names of the files in ``out``.

    ``costs``: of each system, operations (1e9) of a slice.
    """
    names, written = list(run.systems), []
    drawn = [
        Bar(_title(place), row.system, *figures[row]["auprc", MEAN][:3])
        for place, rows in tables.items()
        for row in rows
        if ("auprc", MEAN) in figures[row]
    ]
    if drawn:
        shown = [name for name in names if any(bar.name == name for bar in drawn)]
        bars(out / BARS, drawn, x="AUPRC, mean over subjects with a lesion, 95 % interval", names=shown)
        written.append(BARS)
    if panels := _panels(tables, lambda rows: [_curve(row, done) for row, done in rows.items()]):
        y = "precision, pooled within a trial, mean over trials"
        charts(out / CURVES, panels, x="recall", y=y, names=names, marked=False)
        written.append(CURVES)
    if panels := _panels(tables, _by_volume):
        x, y = (
            "lesion volume of the patient, ml (median of a group of patients)",
            "Dice, mean over the group",
        )
        charts(out / VOLUMES, panels, x=x, y=y, names=names, logarithmic=True)
        written.append(VOLUMES)
    families = list(label_families(run))
    limits = sorted({limit for family in families for limit in family}, key=_rank)
    if panels := _panels(tables, lambda rows: _by_labels(rows, families, limits, figures)):
        ticks = {float(place): ALL if limit is None else str(limit) for place, limit in enumerate(limits)}
        x, y = "patients with labels", "AUPRC, mean over subjects, 95 % interval"
        charts(out / LABELS, panels, x=x, y=y, names=names, ticks=ticks)
        written.append(LABELS)
    if panels := _panels(tables, lambda rows: _by_costs(rows, figures, costs)):
        x, y = "GFLOP a slice in prediction (dotted: none)", "AUPRC, mean over subjects"
        charts(out / COSTS, panels, x=x, y=y, names=names, joined=False, logarithmic=True)
        written.append(COSTS)
    if panels := _by_steps(tables):
        x, y = "step of the last training", "AUPRC on painted validation slices"
        charts(out / VALIDATION, panels, x=x, y=y, names=names)
        written.append(VALIDATION)
    return written


def label_families(run: BenchmarkRun) -> Iterator[dict[int | None, str]]:
    """Systems that differ in the ``limit`` of one training alone: limit -> system, 0 for that without the training.

    Only families of two or more; a system of no limit, ``None``, learns from all labelled training patients.
    """
    systems = {name: system.model_copy(update={"against": ()}) for name, system in run.systems.items()}
    families: dict[tuple[BenchmarkSystem, BenchmarkSystem], dict[int | None, str]] = {}
    for name, system in systems.items():
        limited = [place for place, training in enumerate(system.detector) if training.limit is not None]
        if len(limited) == 1:
            (place,) = limited
            chain = list(system.detector)
            limit = chain[place].limit
            chain[place] = chain[place].model_copy(update={"limit": None})
            unlimited = system.model_copy(update={"detector": tuple(chain)})
            del chain[place]
            without = system.model_copy(update={"detector": tuple(chain)})
            families.setdefault((unlimited, without), {})[limit] = name
    for (unlimited, without), members in families.items():
        for name, system in systems.items():
            if system == unlimited:
                members[None] = name
            elif system == without and system.detector:
                members[0] = name
        if len(members) > 1:
            yield dict(sorted(members.items(), key=lambda member: _rank(member[0])))


def volume_groups(volumes: Sequence[float]) -> np.ndarray:
    """(patients,) int64: the group of each, of up to :data:`GROUPS` of equal size, the smallest volumes first."""
    count = max(1, min(GROUPS, len(volumes) // FEWEST))
    ranks = np.empty(len(volumes), np.int64)
    ranks[np.argsort(volumes, kind="stable")] = np.arange(len(volumes))
    return np.asarray(ranks * count // max(len(volumes), 1))


def _rank(limit: int | None) -> float:
    return math.inf if limit is None else limit


def _title(place: tuple[str, str]) -> str:
    trained_on, tested_on = place
    return f"{trained_on} → {tested_on}"


def _panels(tables: Tables, series: Callable[[Entries], Sequence[Series | None]]) -> list[Panel]:
    """A panel for each table in which a series holds a value."""
    panels = []
    for place, rows in tables.items():
        there = [curve for curve in series(rows) if curve is not None and len(curve.y)]
        if there:
            panels.append(Panel(_title(place), there))
    return panels


def _curve(row: Row, done: Sequence[Entry]) -> Series:
    recall, precision = mean_curve(trial_curves(row, done))
    return Series(row.system, recall.tolist(), precision.tolist())


def _by_volume(rows: Entries) -> list[Series]:
    volumes: dict[tuple[str, str], float] = {}
    for row, done in rows.items():
        volumes |= {who: ml for who, ml in subject_figures(row, done, "lesion_ml").items() if ml > 0}
    people = sorted(volumes)
    group = dict(zip(people, volume_groups([volumes[who] for who in people]).tolist(), strict=True))
    series = []
    for row, done in rows.items():
        values: dict[int, list[tuple[float, float]]] = {}
        for who, value in subject_figures(row, done, "dice").items():
            if who in volumes and not math.isnan(value):
                values.setdefault(group[who], []).append((volumes[who], value))
        pairs = [np.array(values[number]) for number in sorted(values)]
        points = [(float(np.median(pair[:, 0])), float(pair[:, 1].mean())) for pair in pairs]
        series.append(Series(row.system, [x for x, _ in points], [y for _, y in points]))
    return series


def _by_labels(
    rows: Entries,
    families: Sequence[Mapping[int | None, str]],
    limits: Sequence[int | None],
    figures: Mapping[Row, Figures],
) -> list[Series]:
    """A series a family, named by its first system; neighbours stand a little apart, so that their intervals show."""
    known = {row.system: figures[row]["auprc", MEAN] for row in rows if ("auprc", MEAN) in figures[row]}
    series = []
    for number, family in enumerate(families):
        aside = 0.06 * (number - (len(families) - 1) / 2)
        points = [(limits.index(limit) + aside, *known[name][:3]) for limit, name in family.items() if name in known]
        if points:
            series.append(Series(next(iter(family.values())), *([*column] for column in zip(*points, strict=True))))
    return series


def _by_costs(rows: Entries, figures: Mapping[Row, Figures], costs: Mapping[str, float]) -> list[Series]:
    series = []
    for row in rows:
        if row.system in costs and ("auprc", MEAN) in figures[row]:
            cost, value = costs[row.system], figures[row]["auprc", MEAN].value
            series.append(Series(row.system, [cost] if cost > 0 else [], [value]))
    return series


def _by_steps(tables: Tables) -> list[Panel]:
    """A panel for each cohort that is trained on. Rows that read the same training have one series, named by the first
    of them."""
    panels: dict[str, dict[tuple[tuple[int, float], ...], Series]] = {}
    for (trained_on, _), rows in tables.items():
        drawn = panels.setdefault(trained_on, {})
        for row, done in rows.items():
            if points := tuple(validation_curve(row, done).items()):
                drawn.setdefault(points, Series(row.system, *([*column] for column in zip(*points, strict=True))))
    return [Panel(f"trained on {name}", [*drawn.values()]) for name, drawn in panels.items() if drawn]
