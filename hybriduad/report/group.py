"""The page of all cases: a row each, how their values are distributed, and which of them stand out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FENCE = 1.5
"""A value is an outlier beyond so many interquartile ranges from the quartiles (Tukey 1977), from FEWEST cases on."""
FEWEST = 5
WIDTH, HEIGHT, MARGIN = 640, 96, 24
"""Of a chart, in its own units."""
RADIUS = 5.0


@dataclass(frozen=True)
class Row:
    """What the table shows of a case; ``page`` is its file, ``values`` numbers by column, None where there is none,
    ``checked`` whether its input was checked at all."""

    case: str
    page: str
    thumbnail: str
    values: Mapping[str, float | None]
    flags: Sequence[str] = field(default_factory=tuple)
    checked: bool = False


class Dot(NamedTuple):
    """A case in a chart."""

    case: str
    page: str
    x: float
    y: float
    value: float
    outlier: bool


class Distribution(NamedTuple):
    """A chart of one column: its dots, ticks (place, label), median, and the names of the outliers."""

    title: str
    dots: list[Dot]
    ticks: list[tuple[float, str]]
    median: float
    outliers: list[str]


def distribution(title: str, rows: Sequence[Row], column: str, *, logarithmic: bool = False) -> Distribution | None:
    """A strip of dots, one a case; None where fewer than two cases have a value.

    ``logarithmic``: places and fences by log(1 + value), for volumes.
    """
    chosen = [(row, value) for row in rows if (value := row.values.get(column)) is not None and math.isfinite(value)]
    if len(chosen) < 2:
        return None
    values = np.array([value for _, value in chosen])
    ticks = _ticks(float(values.max()), logarithmic)
    high = max(float(values.max()), ticks[-1], 1e-9)

    def place(value: float) -> float:
        share = math.log1p(value) / math.log1p(high) if logarithmic else value / high
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    out = outliers(np.log1p(values) if logarithmic else values)
    xs = [place(value) for value in values.tolist()]
    ys = _swarm(xs)
    dots = [
        Dot(row.case, row.page, x, y, float(value), bool(strange))
        for (row, value), x, y, strange in zip(chosen, xs, ys, out, strict=True)
    ]
    named = [dot.case for dot in sorted(dots, key=lambda dot: -dot.value) if dot.outlier]
    labels = [(place(tick), f"{tick:g}") for tick in ticks]
    return Distribution(title, dots, labels, place(float(np.median(values))), named)


def outliers(values: np.ndarray) -> np.ndarray:
    """(N,) bool: which values lie beyond Tukey's fences; none of fewer than :data:`FEWEST`."""
    if len(values) < FEWEST:
        return np.zeros(len(values), dtype=bool)
    low, high = np.percentile(values, [25, 75])
    reach = FENCE * (high - low)
    return np.asarray((values < low - reach) | (values > high + reach))


def _ticks(highest: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        powers = [10.0**power for power in range(0, max(1, math.ceil(math.log10(max(highest, 1.0)))) + 1)]
        return [0.0, *powers]
    step = 10.0 ** math.floor(math.log10(max(highest, 1e-6)))
    step = step / 5 if highest / step < 2 else step / 2 if highest / step < 5 else step
    return [round(step * k, 10) for k in range(math.ceil(highest / step - 1e-9) + 1)]


def _swarm(xs: Sequence[float]) -> list[float]:
    """Heights at which dots of these places do not cover each other, as far as the chart is high enough."""
    middle, step, placed = HEIGHT / 2 - 8, 1.6 * RADIUS, list[tuple[float, float]]()
    for x in xs:
        heights = [middle + sign * k * step for k in range(4) for sign in (1, -1)]
        free = (y for y in heights if all((x - a) ** 2 + (y - b) ** 2 >= (1.9 * RADIUS) ** 2 for a, b in placed))
        placed.append((x, next(free, middle)))
    return [round(y, 1) for _, y in placed]
