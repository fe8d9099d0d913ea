"""The tables of a benchmark: systems down, figures across, each with its interval; differences from the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hybriduad.benchmark.plan import Row
from hybriduad.benchmark.results import TestedCase
from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.core.drawing import Bar, bars
from hybriduad.evaluation.tables import LABELS, number, write_table
from hybriduad.metrics.comparisons import holm, paired_p_value
from hybriduad.metrics.intervals import Interval, bootstrap, paired_difference
from hybriduad.scan.volumes import write_atomically

FIGURES = (
    "auprc",
    "dice",
    "best_dice",
    "lesion_f1",
    "false_positive_ml_per_lesion_free_slice",
    "lesion_free_scans_with_alarm",
)
COMPARED = ("auprc", "dice")
"""Figures whose differences from the reference are tested."""
NOT_RUN = "not run"


class Entry(NamedTuple):
    """The cases of a finished trial, and its fold."""

    fold: int
    cases: tuple[TestedCase, ...]


Entries = Mapping[Row, Sequence[Entry]]


@dataclass(frozen=True)
class Difference:
    """``system`` - reference in a figure: interval, and p with and without Holm's correction over its table."""

    system: str
    figure: str
    interval: Interval
    p: float
    corrected: float


def write_tables(out: Path, run: BenchmarkRun, entries: Entries) -> None:
    """Write ``table.md``, ``.csv`` and ``.tex``, ``differences.csv`` and ``auprc.png`` of what is done so far."""
    texts, latex, values, differences, drawn = [_heading(run)], [], [], [], []
    for trained_on, tested_on in dict.fromkeys((row.trained_on, row.tested_on) for row in entries):
        chosen = {
            row: done for row, done in entries.items() if (row.trained_on, row.tested_on) == (trained_on, tested_on)
        }
        place = {"trained_on": trained_on, "tested_on": tested_on}
        figures = {row: _intervals(row, done) for row, done in chosen.items()}
        compared = _differences(run.reference, chosen)
        texts.append(_markdown(trained_on, tested_on, chosen, figures, run.reference, compared))
        latex.append(_latex(trained_on, tested_on, figures))
        values += [place | _value_row(row, name, figures[row][name]) for row in chosen for name in figures[row]]
        differences += [place | _difference_row(run.reference, difference) for difference in compared]
        title = f"{trained_on} → {tested_on}"
        drawn += [Bar(title, row.system, *figures[row]["auprc"][:3]) for row in chosen if figures[row]]
    write_atomically(out / "table.md", "\n".join(texts).encode())
    write_atomically(out / "table.tex", "\n".join(latex).encode())
    write_table(out / "table.csv", values)
    write_table(out / "differences.csv", differences)
    if drawn:
        bars(out / "auprc.png", drawn, x="AUPRC, mean over subjects with a lesion, 95 % interval")


def subject_figures(row: Row, done: Sequence[Entry], figure: str) -> dict[tuple[str, str], float]:
    """A person -> the mean of a figure over their cases and the seeds for which it is defined; nan without any."""
    values: dict[tuple[str, str], list[float]] = {}
    for entry in done:
        for case in entry.cases:
            values.setdefault(case.subject, []).append(case.parts.get(row.part, {}).get(figure, math.nan))
    return {person: _mean(listed) for person, listed in sorted(values.items())}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _intervals(row: Row, done: Sequence[Entry]) -> dict[str, Interval]:
    """Figure -> its interval over subjects; figures that no subject has are left out, all where nothing is done."""
    if not done:
        return {}
    intervals = {name: bootstrap(np.array(list(subject_figures(row, done, name).values()))) for name in FIGURES}
    return {name: interval for name, interval in intervals.items() if interval.subjects}


def _differences(reference: str, chosen: Entries) -> list[Difference]:
    """Of every other system, over the subjects that both have, as they stand under the same folds."""
    first = next((row for row in chosen if row.system == reference and chosen[row]), None)
    if first is None:
        return []
    listed = []
    for row, done in chosen.items():
        if row is first or not done:
            continue
        for name in COMPARED:
            a, b = subject_figures(row, done, name), subject_figures(first, chosen[first], name)
            people = sorted(a.keys() & b.keys())
            pair = np.array([a[person] for person in people]), np.array([b[person] for person in people])
            listed.append((row.system, name, paired_difference(*pair), paired_p_value(*pair)))
    corrected = holm([p for *_, p in listed])
    return [Difference(*values, held) for values, held in zip(listed, corrected, strict=True)]


def _heading(run: BenchmarkRun) -> str:
    return (
        "# Benchmark\n\n"
        "Means over subjects with a lesion (false alarms: over all subjects) [95 % interval, bootstrap over subjects]; "
        f"masks by the rule {run.rule}, calibrated on validation subjects of the cohort that was trained on; "
        f"{run.folds} folds by subject, training seeds {', '.join(map(str, run.seeds))}. [Dice] is the best possible "
        "of each case, an upper bound. p: permutation within subjects, corrected by Holm over the differences of a "
        "table. Where the two cohorts of a table differ, nothing of the tested one was seen. Research use only.\n"
    )


def _markdown(
    trained_on: str,
    tested_on: str,
    chosen: Entries,
    figures: Mapping[Row, Mapping[str, Interval]],
    reference: str,
    compared: Sequence[Difference],
) -> str:
    names = [name for name in FIGURES if any(name in known for known in figures.values())] or list(COMPARED)
    lines = [f"## Trained on {trained_on}, tested on {tested_on}", ""]
    lines += ["| system | " + " | ".join(LABELS[name] for name in names) + " | subjects | trials |"]
    lines += ["|---" * (len(names) + 3) + "|"]
    for row, done in chosen.items():
        known = figures[row]
        cells = [_cell(known.get(name)) if known else NOT_RUN for name in names]
        subjects = len({case.subject for entry in done for case in entry.cases})
        lines.append(f"| {row.system} | {' | '.join(cells)} | {subjects} | {len(done)} of {len(row.trials)} |")
    if compared:
        lines += ["", f"| - {reference} | figure | value | 95 % interval | p, corrected |", "|---|---|---|---|---|"]
    for difference in compared:
        value, low, high = (number(x, sign=True) for x in difference.interval[:3])
        title = f"| {difference.system} | {LABELS[difference.figure]}"
        lines.append(f"{title} | {value} | {low} to {high} | {number(difference.corrected)} |")
    return "\n".join([*lines, ""])


def _latex(trained_on: str, tested_on: str, figures: Mapping[Row, Mapping[str, Interval]]) -> str:
    lines = [f"% trained on {trained_on}, tested on {tested_on}", r"\begin{tabular}{lrr}", r"\hline"]
    lines += [r"system & AUPRC & Dice \\", r"\hline"]
    for row, known in figures.items():
        cells = [_cell(known.get(name)) if known else NOT_RUN for name in COMPARED]
        system = row.system.replace("\\", "").replace("_", r"\_").replace("&", r"\&").replace("%", r"\%")
        lines.append(f"{system} & {' & '.join(cell.replace('–', '--') for cell in cells)} " + r"\\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def _value_row(row: Row, figure: str, interval: Interval) -> dict[str, Any]:
    value, low, high, subjects, *_ = interval
    about = {"system": row.system, "part": row.part, "figure": figure}
    return about | {"value": value, "low": low, "high": high, "subjects": subjects}


def _difference_row(reference: str, difference: Difference) -> dict[str, Any]:
    value, low, high, subjects, *_ = difference.interval
    about = {"system": difference.system, "reference": reference, "figure": difference.figure, "value": value}
    return about | {"low": low, "high": high, "subjects": subjects, "p": difference.p, "p_holm": difference.corrected}
