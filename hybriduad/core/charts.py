"""Charts of many systems as one PNG file: a panel a question, one look a name, the names beside the panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hybriduad.core.drawing import new_figure, save_figure, tick_label

COLOURS = ("#000000", "#e69f00", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
"""Told apart by colour-blind readers too (Wong 2011, doi:10.1038/nmeth.1618), without the yellow, faint on white."""
MARKERS, DASHES = ("o", "s", "^"), ("-", "--", ":")
"""Of the first seven names, the next seven, and those after them."""
ACROSS = 3
NAME_IN = 0.17
"""Inches that a name takes in the list beside the panels."""
ROOM = 1.5
"""Factor beside the points of a logarithmic axis: so there is always a labelled tick, at 1, 2, 3 or 5."""


class Series(NamedTuple):
    """Points of a system, perhaps with an interval each; without ``x`` its one value is a level across the panel."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Panel(NamedTuple):
    """A chart and its title."""

    title: str
    series: Sequence[Series]


def charts(
    path: Path,
    panels: Sequence[Panel],
    *,
    x: str,
    y: str,
    names: Sequence[str],
    marked: bool = True,
    joined: bool = True,
    logarithmic: bool = False,
    ticks: Mapping[float, str] | None = None,
) -> None:
    """Draw panels over the same axes, y from 0 to 1, three in a row.

    ``names``: all that have a look, of which those that are drawn are listed; so a system looks alike in several files.
    ``marked`` points, ``joined`` by lines; ``logarithmic`` x; ``ticks``: the labels of x, where it is no number.
    """
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    drawn = {series.name for panel in panels for series in panel.series}
    figure = new_figure(3.1 * across + 0.5, max(2.8 * down + 0.3, NAME_IN * len(drawn) + 0.3))
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    handles: dict[str, Any] = {}
    along = [value for panel in panels for series in panel.series for value in series.x] or [1.0]
    for axis, panel in zip(axes, panels, strict=False):
        for series in panel.series:
            handles.setdefault(series.name, _draw(axis, series, names.index(series.name), marked, joined))
        axis.set_title(panel.title, fontsize=8)
    for axis in axes[: len(panels)]:
        axis.set_ylim(-0.02, 1.02)
        axis.grid(color="0.92", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=7, labelbottom=True)
        if logarithmic:
            axis.set_xscale("log")
            axis.set_xlim(min(along) / ROOM, max(along) * ROOM)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(tick_label)
            axis.tick_params(which="minor", labelsize=6)
        if ticks is not None:
            axis.set_xticks(list(ticks), list(ticks.values()))
            axis.set_xlim(min(ticks) - 0.3, max(ticks) + 0.3)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    figure.tight_layout()
    shown = [name for name in names if name in handles]
    legend = figure.legend([handles[name] for name in shown], shown, loc="center left", fontsize=7, frameon=False)
    legend.set_bbox_to_anchor((1.0, 0.5))
    save_figure(figure, path)


def _draw(axis: Any, series: Series, number: int, marked: bool, joined: bool) -> Any:
    """Draw a series in the look of its number; returns what stands for it beside its name."""
    generation = number // len(COLOURS) % len(DASHES)
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[generation]
    if not len(series.x):
        return axis.axhline(series.y[0], color=colour, linestyle=(0, (1, 3)), linewidth=1.2)
    if len(series.low):
        axis.vlines(series.x, series.low, series.high, color=colour, linewidth=0.8, alpha=0.6)
    (line,) = axis.plot(
        np.asarray(series.x),
        np.asarray(series.y),
        color=colour,
        linestyle=dash if joined else "none",
        linewidth=1.2,
        marker=MARKERS[generation] if marked else "",
        markersize=4.5,
        markerfacecolor=colour if generation == 0 else "white",
    )
    return line
