"""Which pictures of its trials show a row's best, median and worst case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hybriduad.benchmark.figures import Entries, Entry
from hybriduad.benchmark.plan import Row
from hybriduad.evaluation.pictures import best_median_worst, picture_name
from hybriduad.evaluation.tables import number

LABELS = ("best", "median", "worst")


def row_pictures(out: Path, row: Row, done: Sequence[Entry]) -> dict[str, tuple[float, str]]:
    """Label -> Dice and file, in ``out``, of the picture that shows it; trials whose pictures are not there are left
    out. The median is that of the trial whose median is nearest to the row's."""
    shown: dict[str, list[tuple[float, str]]] = {}
    every: list[float] = []
    for entry in done:
        values = {case.name: case.parts.get(row.part, {}).get("dice", math.nan) for case in entry.cases}
        every += [value for value in values.values() if not math.isnan(value)]
        for label, name in best_median_worst(values).items():
            file = f"{entry.pictures}/{picture_name(label, row.part)}"
            if entry.pictures and (out / file).is_file():
                shown.setdefault(label, []).append((values[name], file))
    middle = float(np.median(every)) if every else math.nan
    rank = {"best": lambda value: -value, "median": lambda value: abs(value - middle), "worst": lambda value: value}
    return {label: min(shown[label], key=lambda pair: rank[label](pair[0])) for label in LABELS if label in shown}


def picture_table(out: Path, chosen: Entries) -> list[str]:
    """Markdown lines: the rows of a table with links to their pictures; none without any."""
    found: Mapping[Row, Mapping[str, tuple[float, str]]] = {
        row: row_pictures(out, row, done) for row, done in chosen.items()
    }
    if not any(found.values()):
        return []
    lines = [f"| pictures, by Dice | {' | '.join(LABELS)} |", "|---" * (len(LABELS) + 1) + "|"]
    for row, shown in found.items():
        if shown:
            cells = [f"[{number(shown[label][0])}]({shown[label][1]})" if label in shown else "–" for label in LABELS]
            lines.append(f"| {row.system} | {' | '.join(cells)} |")
    return [*lines, ""]
