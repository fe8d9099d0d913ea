"""The tables of a benchmark: systems down, figures across, each with its interval; differences from the reference."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.benchmark.figures import (
    Entries,
    Entry,
    Figures,
    Person,
    brain_ways,
    judged_apart,
    row_figures,
    subject_figures,
)
from hybriduad.benchmark.pictures import picture_table
from hybriduad.benchmark.plan import HEALTHY_RULE, Row, has_healthy_rule
from hybriduad.benchmark.plots import write_plots
from hybriduad.benchmark.results import HEALTHY_DICE
from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.evaluation.figures import EQUAL_ALARM_RECALL, MEAN, POOLED
from hybriduad.evaluation.tables import LABELS, SIZE_NAMES, number, write_table
from hybriduad.metrics.comparisons import holm, paired_p_value
from hybriduad.metrics.intervals import Interval, paired_difference
from hybriduad.scan.volumes import write_atomically

FIRST = {
    "auprc": "AUPRC",
    "dice": "Dice",
    HEALTHY_DICE: "Dice, healthy-only rule",
    "best_dice": LABELS["best_dice"],
    "lesion_f1": "lesion F1",
    "false_positive_ml_per_lesion_free_slice": "false alarms, ml a lesion-free slice",
}
"""Means over subjects in the first table, and their names there."""
SECOND: tuple[tuple[str, str, str], ...] = (
    ("auprc", POOLED, "AUPRC pooled"),
    ("dice", POOLED, "Dice pooled"),
    ("surface_dice", MEAN, "surface Dice 1 mm"),
    ("hd95", MEAN, "HD95, mm"),
    ("lesion_recall", MEAN, "recall"),
    *((f"lesion_recall_{size}", POOLED, f"recall {said}") for size, said in SIZE_NAMES.items()),
    ("lesion_precision", MEAN, "precision"),
    *((f"lesion_precision_{size}", POOLED, f"precision {said}") for size, said in SIZE_NAMES.items()),
    *((f"lesion_f1_{size}", POOLED, f"F1 {said}") for size, said in SIZE_NAMES.items()),
    *((f"{EQUAL_ALARM_RECALL}_{size}", POOLED, f"recall {said} at 1 ml") for size, said in SIZE_NAMES.items()),
    ("false_positive_ml_per_lesion_free_scan", MEAN, "ml a healthy scan"),
    ("false_lesions_per_lesion_free_scan", MEAN, "outlines a healthy scan"),
    ("lesion_free_scans_with_alarm", MEAN, "healthy scans with an alarm"),
    ("scan_auroc", POOLED, "AUROC of scans"),
    ("ssim_healthy", MEAN, "SSIM, healthy tissue"),
    ("l1_healthy", MEAN, "L1, healthy tissue"),
    ("l1_ratio", MEAN, "L1 in lesions / healthy"),
    ("error_healthy", MEAN, "error, healthy tissue"),
    ("error_ratio", MEAN, "error in lesions / healthy"),
)
"""Figure, how it is taken together, and its short name, in the second table."""
COMPARED = ("auprc", "dice")
"""Figures whose differences from the reference are tested."""
NOT_RUN = "not run"


@dataclass(frozen=True)
class Difference:
    """``system`` - ``reference`` in a figure: interval, and p with and without Holm's correction over its table."""

    system: str
    reference: str
    figure: str
    interval: Interval
    p: float
    corrected: float


def write_tables(
    out: Path,
    run: BenchmarkRun,
    entries: Entries,
    costs: Mapping[str, float],
    lacking: Mapping[Row, str] | None = None,
) -> None:
    """Write ``table.md``, ``.csv`` and ``.tex``, ``differences.csv`` and the plots of what is done so far.

    ``costs``: of each system, operations (1e9) of a slice. ``lacking``: what a row that cannot be run is short of.
    """
    tables: dict[tuple[str, str], dict[Row, Sequence[Entry]]] = {}
    for row, done in entries.items():
        tables.setdefault((row.trained_on, row.tested_on), {})[row] = done
    figures = {row: row_figures(row, done) for row, done in entries.items()}
    texts, latex, values, differences = [_heading(run)], [], [], []
    for (trained_on, tested_on), chosen in tables.items():
        place = {"trained_on": trained_on, "tested_on": tested_on}
        compared = _differences(run, chosen)
        texts.append(_markdown(_title(run, trained_on, tested_on), chosen, figures, compared, lacking or {}))
        texts += _cautions(run, chosen)
        texts += picture_table(out, chosen)
        latex.append(_latex(trained_on, tested_on, {row: figures[row] for row in chosen}))
        values += [place | _value_row(row, *name, figures[row][name]) for row in chosen for name in figures[row]]
        differences += [place | _difference_row(difference) for difference in compared]
    drawn = write_plots(out, run, tables, figures, costs)
    texts += [f"![{Path(name).stem.replace('_', ' ')}]({name})\n" for name in drawn]
    write_atomically(out / "table.md", "\n".join(texts).encode())
    write_atomically(out / "table.tex", "\n".join(latex).encode())
    write_table(out / "table.csv", values)
    write_table(out / "differences.csv", differences)


def _differences(run: BenchmarkRun, chosen: Entries) -> list[Difference]:
    """Of every system from those it is compared with, over the folds that both have, and the subjects in them who
    were judged alike."""
    listed = []
    for pair in _pairs(run, chosen):
        apart = judged_apart(chain(*pair.values()))
        system, reference = (row.system for row in pair)
        for name in COMPARED:
            a, b = (subject_figures(row, done, name) for row, done in pair.items())
            people = sorted((a.keys() & b.keys()) - apart)
            if not people:  # so far they stand under different folds
                continue
            values = np.array([a[person] for person in people]), np.array([b[person] for person in people])
            listed.append((system, reference, name, paired_difference(*values), paired_p_value(*values)))
    corrected = holm([p for *_, p in listed])
    return [Difference(*values, held) for values, held in zip(listed, corrected, strict=True)]


def _pairs(run: BenchmarkRun, chosen: Entries) -> Iterator[dict[Row, list[Entry]]]:
    """The two rows of each difference, with what they have of the folds that both have."""
    rows = {row.system: row for row, done in chosen.items() if done}
    for names in run.pairs():
        if all(name in rows for name in names):
            pair = [rows[name] for name in names]
            folds = set.intersection(*({entry.fold for entry in chosen[row]} for row in pair))
            yield {row: [entry for entry in chosen[row] if entry.fold in folds] for row in pair}


def _cautions(run: BenchmarkRun, chosen: Entries) -> list[str]:
    """A sentence for whatever rows of a table do not share."""
    apart: dict[Person, None] = {}
    systems: dict[str, None] = {}
    for pair in _pairs(run, chosen):
        if people := judged_apart(chain(*pair.values())):
            apart |= dict.fromkeys(sorted(people))
            systems[" - ".join(row.system for row in pair)] = None
    sentences = []
    if apart:
        sentences.append(
            f"Left out of {', '.join(systems)}: {len(apart)} subjects whose two rows were judged against different "
            "truths or over different voxels; delete the older results, they are made anew.\n"
        )
    if ways := brain_ways(chosen):
        found = "; ".join(f"{way}: {', '.join(names)}" for way, names in ways.items())
        sentences.append(
            f"The brains of the same scans were found in different ways ({found}), so that these rows do not compare; "
            "state anatomy.brain in the config.\n"
        )
    return sentences


def _heading(run: BenchmarkRun) -> str:
    beside = f", for one Dice by {HEALTHY_RULE}, which sees no lesion, both" if has_healthy_rule(run.rule) else ","
    return (
        "# Benchmark\n\n"
        "Means over subjects with a lesion (false alarms: over all subjects) [95 % interval, bootstrap over subjects]; "
        f"subjects: with a lesion, of all. Masks by the rule {run.rule}{beside} calibrated on "
        "validation subjects of the cohort that was trained on; "
        f"{run.folds} folds by subject, training seeds {', '.join(map(str, run.seeds))}. [Dice] is the best possible "
        "of each case, an upper bound. p: permutation within subjects, corrected by Holm over the differences of a "
        "table. Where the two cohorts of a table differ, nothing of the tested one was seen. Below it the other "
        "figures: pooled over all voxels of the subjects with a lesion (AUPRC, within 0.005, of each trial, and the "
        "mean of the trials by their subjects with a lesion: scores of models trained apart share no scale), lesions "
        "and outlines by their own size pooled over all of them (at 1 ml: where that much of each scan is false "
        "positives, whatever the rule), scans ranked by the value that 0.1 ml of them reach; "
        "HD95 with the number of subjects that have a mask at all, whom alone it is of; intervals, but for the pooled "
        "AUPRC, are in table.csv. Research use only.\n"
    )


def _title(run: BenchmarkRun, trained_on: str, tested_on: str) -> str:
    """The heading of a table; a cohort that is tested whole is another hospital's, by its meaning in the config."""
    elsewhere = " (other hospital, other pathology)" if run.cohorts[tested_on].whole else ""
    return f"## Trained on {trained_on}, tested on {tested_on}{elsewhere}"


def _markdown(
    title: str,
    chosen: Entries,
    figures: Mapping[Row, Figures],
    compared: Sequence[Difference],
    lacking: Mapping[Row, str],
) -> str:
    there = {name for row in chosen for name in figures[row]}
    names = [name for name in FIRST if (name, MEAN) in there] or list(COMPARED)
    lines = [title, ""]
    lines += ["| system | " + " | ".join(FIRST[name] for name in names) + " | subjects | trials |"]
    lines += ["|---" * (len(names) + 3) + "|"]
    for row, done in chosen.items():
        known = figures[row]
        cells = [_cell(known.get((name, MEAN))) if known else NOT_RUN for name in names]
        if row in lacking and not known:
            cells[0] = f"{NOT_RUN}: {lacking[row]}"
        everyone = {case.subject for entry in done for case in entry.cases}
        sick = {case.subject for entry in done for case in entry.cases if case.has_lesion}
        subjects = f"{len(sick)} of {len(everyone)}" if sick != everyone else f"{len(everyone)}"
        lines.append(f"| {row.system} | {' | '.join(cells)} | {subjects} | {len(done)} of {len(row.trials)} |")
    if compared:
        lines += ["", "| difference | figure | value | 95 % interval | p, corrected |", "|---|---|---|---|---|"]
    for difference in compared:
        value, low, high = (number(x, sign=True) for x in difference.interval[:3])
        title = f"| {difference.system} - {difference.reference} | {LABELS[difference.figure]}"
        lines.append(f"{title} | {value} | {low} to {high} | {number(difference.corrected)} |")
    return "\n".join([*lines, "", *_rest(chosen, figures, there)])


def _rest(chosen: Entries, figures: Mapping[Row, Figures], there: Collection[tuple[str, str]]) -> list[str]:
    """The second table: of the systems that are done what the first leaves out, without intervals."""
    listed = [(name, how, head) for name, how, head in SECOND if (name, how) in there]
    if not listed:
        return []
    lines = ["| system | " + " | ".join(head for *_, head in listed) + " |", "|---" * (len(listed) + 1) + "|"]
    for row in chosen:
        if known := figures[row]:
            cells = [_counted(name, known[name, how]) if (name, how) in known else "–" for name, how, _ in listed]
            lines.append(f"| {row.system} | {' | '.join(cells)} |")
    return [*lines, ""]


def _counted(figure: str, interval: Interval) -> str:
    """The value, with the subjects that it is of where they are fewer the more scans a system leaves empty."""
    value = number(interval.value)
    return f"{value} ({interval.subjects})" if figure == "hd95" else value


def _latex(trained_on: str, tested_on: str, figures: Mapping[Row, Figures]) -> str:
    lines = [f"% trained on {trained_on}, tested on {tested_on}", r"\begin{tabular}{lrr}", r"\hline"]
    lines += [r"system & AUPRC & Dice \\", r"\hline"]
    for row, known in figures.items():
        cells = [_cell(known.get((name, MEAN))) if known else NOT_RUN for name in COMPARED]
        system = row.system.replace("\\", "").replace("_", r"\_").replace("&", r"\&").replace("%", r"\%")
        lines.append(f"{system} & {' & '.join(cell.replace('–', '--') for cell in cells)} " + r"\\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def _value_row(row: Row, figure: str, how: str, interval: Interval) -> dict[str, Any]:
    value, low, high, subjects, *_ = interval
    about = {"system": row.system, "part": row.part, "figure": figure, "how": how}
    return about | {"value": value, "low": low, "high": high, "subjects": subjects}


def _difference_row(difference: Difference) -> dict[str, Any]:
    value, low, high, subjects, *_ = difference.interval
    about: dict[str, Any] = {"system": difference.system, "reference": difference.reference}
    about |= {"figure": difference.figure}
    about |= {"value": value, "low": low, "high": high, "subjects": subjects}
    return about | {"p": difference.p, "p_holm": difference.corrected}
