"""An evaluation as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybriduad.evaluation.case import RECONSTRUCTION, CaseScores
from hybriduad.evaluation.figures import (
    EQUAL_ALARM_RECALL,
    LEVEL,
    MEAN,
    POOLED,
    Figure,
    by_subject,
    systems_of,
)
from hybriduad.metrics import SIZES
from hybriduad.scan.volumes import write_atomically

LEAKED = "**Leakage, allowed on request, so these figures say nothing about new patients:**"
SYSTEMS = {
    "score": "fused score",
    "probability": "segmenter's probability alone",
    "map": "reconstruction's map alone",
    "intensity": "plain intensity (learns nothing)",
    "asymmetry": "left-right asymmetry (learns nothing)",
    "reconstruction": "reconstruction",
}
SIZE_NAMES = dict(zip(SIZES, ("< 1 ml", "1-10 ml", "> 10 ml"), strict=True))
LABELS = {
    "auprc": "AUPRC",
    "auroc": "AUROC",
    "best_dice": "[Dice] (best possible: an upper bound)",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "fpr": "FPR = FP / (FP + TN)",
    "lesion_recall": "lesion recall",
    "lesion_precision": "lesion precision",
    "lesion_f1": "lesion F1",
    "false_positive_ml_per_lesion_free_scan": "ml a lesion-free scan",
    "lesion_free_scans_with_alarm": "share of lesion-free scans with an alarm",
    "false_lesions_per_lesion_free_scan": "outlines a lesion-free scan",
    "surface_dice": "surface Dice at 1 mm",
    "hd95": "HD95 in mm",
    "scan_auroc": "AUROC of scans, ill against healthy",
    "false_positive_ml_per_lesion_free_slice": "ml a lesion-free slice",
    "l1_healthy": "L1 on healthy tissue",
    "l1_lesion": "L1 inside lesions",
    "l1_ratio": "ratio",
    "ssim_healthy": "SSIM on healthy tissue",
    "error_healthy": "error on healthy tissue",
    "error_lesion": "error inside lesions",
    "error_ratio": "ratio of errors",
    **{f"{EQUAL_ALARM_RECALL}_{size}": f"recall, {said}" for size, said in SIZE_NAMES.items()},
    **{
        f"lesion_{figure}_{size}": f"{title}, {said}"
        for size, said in SIZE_NAMES.items()
        for figure, title in (("recall", "recall"), ("precision", "precision"), ("f1", "F1"))
    },
}
_LESION_WISE = ("lesion_recall", "lesion_precision", "lesion_f1")
_FALSE = (
    "false_positive_ml_per_lesion_free_slice",
    "false_positive_ml_per_lesion_free_scan",
    "lesion_free_scans_with_alarm",
    "false_lesions_per_lesion_free_scan",
    "fpr",
)
_BY_SIZE = tuple(f"{figure}_{size}" for size in SIZES for figure in _LESION_WISE)
_EQUAL_ALARM = tuple(f"{EQUAL_ALARM_RECALL}_{size}" for size in SIZES)
_TABLES = (
    ("Primary: mean over subjects with a lesion", MEAN, ("auprc", "best_dice", "dice", "auroc")),
    ("Beside it: pooled over the voxels of all cases with a lesion", POOLED, ("auprc", "best_dice", "dice", "auroc")),
    ("Voxels of the mask, mean over subjects with a lesion", MEAN, ("sensitivity", "precision")),
    ("Lesions (26-connected, hit from 10 % overlap), mean over subjects with a lesion", MEAN, _LESION_WISE),
    ("Lesions, pooled", POOLED, _LESION_WISE),
    ("Lesions by their size, and outlines by theirs, pooled", POOLED, _BY_SIZE),
    ("Lesions found where 1 ml of each scan is false positives, pooled", POOLED, _EQUAL_ALARM),
    ("Outline, mean over subjects with a lesion (HD95: and a mask)", MEAN, ("surface_dice", "hd95")),
    ("Scans, by the value that 0.1 ml of the region reach", POOLED, ("scan_auroc",)),
    ("False positives, mean over subjects", MEAN, _FALSE),
    ("False positives, pooled over slices and voxels", POOLED, ("false_positive_ml_per_lesion_free_slice", "fpr")),
    (
        "Pseudo-healthy scan on the [0, 1] scale: L1 from the scan, error from the same brain without its lesion",
        MEAN,
        RECONSTRUCTION,
    ),
)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, the columns in order of appearance; nan and absent are empty cells."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if _undefined(value) else value for name, value in row.items()})
    write_atomically(path, text.getvalue().encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON with null for nan."""
    write_atomically(path, json.dumps(_without_nan(content), indent=1).encode())


def case_rows(cases: Sequence[CaseScores]) -> list[dict[str, Any]]:
    """One row for each case and system."""
    return [
        {"case": case.name, "system": system, **case.facts, **values, **_named(case.attributes)}
        for case in cases
        for system, values in case.systems.items()
    ]


def figure_rows(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """One row for each figure; a difference of means says with its p whether it is more than chance."""
    rows = []
    for figure in figures:
        row: dict[str, Any] = dict(figure._asdict())
        row["more_than_chance"] = "" if math.isnan(figure.p) else figure.more_than_chance
        rows.append(row)
    return rows


def markdown(
    cases: Sequence[CaseScores],
    figures: Sequence[Figure],
    *,
    title: str,
    notes: Sequence[str],
    rule: str,
    pictures: Sequence[str],
    missing: int = 0,
) -> str:
    """The summary a person reads: what was measured on whom, then one table for each question.

    ``missing`` counts the cases with a truth that have no prediction.
    """
    overall = [figure for figure in figures if not figure.group]
    plain = [figure for figure in overall if " - " not in figure.system]
    lines = [f"# {title}", "", *(f"- {line}" for line in [*_cohort(cases, missing), *notes]), ""]
    lines += _thresholds(cases, rule)
    for heading, how, names in _TABLES:
        lines += _table(heading, [figure for figure in plain if figure.how == how], names)
    lines += difference_table([figure for figure in overall if " - " in figure.system])
    for group in dict.fromkeys(figure.group for figure in figures if figure.group):
        chosen = [figure for figure in figures if figure.group == group]
        lines += _table(f"{group}: mean over subjects", chosen, ("auprc", "best_dice", "dice", _FALSE[0]))
    for picture in pictures:
        lines += [f"![{Path(picture).stem}]({picture})", ""]
    return "\n".join(lines)


def difference_table(differences: Sequence[Figure], title: str = "Paired differences") -> list[str]:
    """Markdown lines: each difference with interval, p and whether it is more than chance; none without differences."""
    if not differences:
        return []
    lines = [f"## {title}", ""]
    lines += ["| difference | figure | value | 95 % interval | subjects | p | more than chance |", "|---" * 7 + "|"]
    for row in differences:
        name = f"{LABELS[row.figure]}, {row.how}"
        verdict = "–" if math.isnan(row.p) else "yes" if row.more_than_chance else "no"
        interval = f"{number(row.low, sign=True)} to {number(row.high, sign=True)}"
        value = number(row.value, sign=True)
        lines.append(f"| {row.system} | {name} | {value} | {interval} | {row.subjects} | {number(row.p)} | {verdict} |")
    said = (
        f"p: paired permutation test of the mean, by subject; more than chance: p of {LEVEL:g} or less. Pooled: none."
    )
    return [*lines, "", said, ""]


def number(value: float, *, sign: bool = False) -> str:
    """Three digits after the point, or two significant digits if small; a dash where undefined."""
    if math.isnan(value):
        return "–"
    plus = "+" if sign else ""
    return f"{value:{plus}.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:{plus}.2g}"


def _cohort(cases: Sequence[CaseScores], missing: int) -> list[str]:
    sick = [case for case in cases if case.has_lesion]
    slices = sum(int(case.facts["lesion_free_slices"]) for case in cases)
    names = ", ".join(sorted({str(case.facts["dataset"]) for case in cases}))
    outside = sum(int(case.facts["lesion_voxels_outside_brain"]) for case in cases)
    share = outside / max(1, sum(int(case.facts["lesion_voxels"]) for case in cases))
    hit = sum(case.facts["lesion_voxels_outside_brain"] > 0 for case in cases)
    methods = ", ".join(sorted({str(case.facts["brain_method"]) for case in cases} - {""})) or "not stated"
    volumes = [float(case.facts["lesion_ml"]) for case in sick]
    middle = f", median {statistics.median(volumes):.1f} ml of lesion" if volumes else ""
    set_aside = sum(case.set_aside for case in cases)
    aside = f", {set_aside} neither ill nor known to be healthy, in no figure of scans" if set_aside else ""
    lacking = f" **Not in these figures: {missing} cases without a prediction.**" if missing else ""
    return [
        f"Data: {names}; {len(cases)} cases of {len(by_subject(cases))} subjects, {len(sick)} cases with a lesion"
        f"{middle}, {sum(case.control for case in cases)} without{aside}; {slices} lesion-free slices."
        f"{lacking}",
        f"Brain: {methods}. Lesion voxels outside it: {outside} ({share:.2%} of all, in {hit} cases).",
    ]


def _thresholds(cases: Sequence[CaseScores], rule: str) -> list[str]:
    thresholds = {
        system: [case.systems[system]["threshold"] for case in cases]
        for system in systems_of(cases)
        if all("threshold" in case.systems[system] for case in cases)
    }
    if not thresholds:
        return ["Not calibrated: there is no threshold, so there are no figures of a mask.", ""]
    listed = ", ".join(f"{system} {_range(values)}" for system, values in thresholds.items())
    return [f"Thresholds, by the rule {rule}, found on other cases: {listed}.", ""]


def _range(values: Sequence[float]) -> str:
    """The threshold of all scans; by a rule with a threshold for every scan, their median, lowest and highest."""
    if len(set(values)) == 1:
        return number(values[0])
    return f"{number(statistics.median(values))} by scan, {number(min(values))} to {number(max(values))}"


def _table(heading: str, figures: Sequence[Figure], names: Sequence[str]) -> list[str]:
    """Systems down, figures across, each with its interval; figures that no system has are left out."""
    defined = {(row.system, row.figure): row for row in figures if not math.isnan(row.value)}
    columns = [name for name in names if any(figure == name for _, figure in defined)]
    systems = [name for name in SYSTEMS if any((name, column) in defined for column in columns)]
    if not columns:
        return []
    heads = []
    for name in columns:
        counts = {row.subjects for (_, figure), row in defined.items() if figure == name}
        heads.append(f"{LABELS[name]}, n = {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else ""))
    lines = [f"## {heading}", "", f"| system | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for system in systems:
        cells = []
        for name in columns:
            row = defined.get((system, name))
            cells.append("–" if row is None else f"{number(row.value)} [{number(row.low)}, {number(row.high)}]")
        lines.append(f"| {SYSTEMS[system]} | {' | '.join(cells)} |")
    return [*lines, ""]


def _named(attributes: Mapping[str, str]) -> dict[str, str]:
    return {f"attribute_{name}": value for name, value in attributes.items() if name != "dataset"}


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if _undefined(value) else value
