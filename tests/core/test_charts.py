"""Charts: every series in the look of its name, at its place, and the names beside the panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from hybriduad.core.charts import COLOURS, Panel, Series, charts
from hybriduad.core.drawing import Bar, bars


def places(picture: np.ndarray, colour: str, *, off: float = 0.02) -> np.ndarray:
    """(n, 2) shares of height, from the top, and of width at which a colour stands, or one at most so far off."""
    found = np.argwhere(np.abs(picture[..., :3] - to_rgb(colour)).max(axis=-1) < off)
    return found / picture.shape[:2]


def test_high_values_stand_above_low_ones_and_names_beside_them(tmp_path: Path) -> None:
    x = [0.0, 0.5, 1.0]
    panels = [
        Panel("one", [Series("a", x, [0.9] * 3), Series("c", x, [0.1] * 3)]),
        Panel("two", [Series("c", [], [0.5])]),
    ]
    charts(tmp_path / "chart.png", panels, x="x", y="y", names=["a", "b", "c"])
    picture = imread(tmp_path / "chart.png")
    high, absent, low = (places(picture, COLOURS[number]) for number in range(3))
    assert not len(absent)
    left, middle, right = 0.48, 0.91, 1.0
    first = low[low[:, 1] < left, 0]
    assert len(first) > 10
    assert 0.6 < first.min() < first.max() < 0.8
    dots = places(picture, COLOURS[2], off=0.4)  # dotted, in the second: no dot has its full colour
    inside = (dots[:, 1] > left + 0.03) & (dots[:, 1] < middle) & (dots[:, 0] > 0.15) & (dots[:, 0] < 0.75)
    level = dots[inside, 0]
    assert len(level) > 10
    assert 0.3 < level.min() < level.max() < 0.6
    assert ((low[:, 1] > middle) & (low[:, 1] < right)).any()  # beside its name
    upper = high[(high[:, 0] > 0.12) & (high[:, 0] < 0.22) & (high[:, 1] > 0.12) & (high[:, 1] < 0.45), 0]
    assert len(upper) > 10


def test_points_without_lines_and_intervals(tmp_path: Path) -> None:
    series = [Series("a", [1.0], [0.5]), Series("b", [1.0, 100.0], [0.4, 0.6], [0.1, 0.5], [0.9, 0.7])]
    for name, joined in (("joined", True), ("apart", False)):
        panel = [Panel("one", series)]
        charts(tmp_path / f"{name}.png", panel, x="x", y="y", names=["a", "b"], joined=joined, logarithmic=True)
    joined_up, apart = (len(places(imread(tmp_path / f"{name}.png"), COLOURS[1])) for name in ("joined", "apart"))
    assert joined_up > apart + 100
    ticks = {0.0: "none", 1.0: "all"}
    charts(tmp_path / "ticks.png", [Panel("", series[:1])], x="x", y="y", names=["a"], ticks=ticks)
    assert (tmp_path / "ticks.png").is_file()


def test_bars_of_a_name_share_a_line_also_where_another_is_missing(tmp_path: Path) -> None:
    listed = [Bar("left", "b", 1.0, 0.9, 1.0), Bar("right", "a", 0.2, 0.1, 0.3), Bar("right", "b", 0.6, 0.5, 0.7)]
    bars(tmp_path / "bars.png", listed, x="x", names=["a", "b"])
    found = places(imread(tmp_path / "bars.png"), "steelblue")
    left, right = found[found[:, 1] < 0.49], found[found[:, 1] > 0.52]
    assert len(left)
    assert len(right)
    assert left[:, 0].min() > right[:, 0].min() + 0.1  # a's line is empty there
    assert abs(left[:, 0].max() - right[:, 0].max()) < 0.02


def test_every_name_has_its_place_however_many(tmp_path: Path) -> None:
    def height(count: int) -> int:
        names = [f"system {number}" for number in range(count)]
        panel = Panel("a", [Series(name, [0.0, 1.0], [0.2, 0.8]) for name in names])
        charts(tmp_path / "c.png", [panel], x="x", y="y", names=names)
        return int(imread(tmp_path / "c.png").shape[0])

    few, many = height(3), height(40)
    assert many > 1.5 * few
