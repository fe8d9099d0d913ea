"""Pictures as PNG files: rows of slices, curves of a training, bars; of many systems see :mod:`hybriduad.core.charts`.

matplotlib is imported when the first picture is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUTH_COLOUR, MASK_COLOUR = "lime", "white"
"""Colours of the outlines that :func:`panel_sheet` draws."""


@dataclass(frozen=True)
class Panel:
    """A slice (H, W) in [-1, 1] and what is laid over it: ``score`` in [0, 1] in colour, ``truth`` and ``mask`` (bool)
    as outlines; all (H, W)."""

    image: np.ndarray
    score: np.ndarray | None = None
    truth: np.ndarray | None = None
    mask: np.ndarray | None = None


def panel_sheet(
    path: Path, groups: Sequence[tuple[str, Sequence[Panel]]], *, across: int, caption: str, inch: float = 1.25
) -> None:
    """Draw groups of panels, each under its title, ``across`` groups in a row, every group with as many panels.

    Scores of all panels share a colour scale, from 0 to the highest of them.
    """
    panels = len(groups[0][1])
    scores = [panel.score for _, row in groups for panel in row if panel.score is not None]
    highest = max((float(score.max()) for score in scores), default=0.0)
    rows, columns = -(-len(groups) // across), across * panels
    figure = new_figure(inch * columns, 1.25 * inch * rows)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.25})
    for axis in axes.ravel():
        axis.set_axis_off()
    for number, (title, row) in enumerate(groups):
        for column, panel in enumerate(row):
            axis = axes[number // across][number % across * panels + column]
            _draw_panel(axis, panel, max(highest, 1e-6))
            if column == panels // 2:
                axis.set_title(title, fontsize=7)
    figure.text(0.5, 0.08, f"{caption}; colour: score, 0 to {highest:.2f}", fontsize=7, ha="center", va="top")
    save_figure(figure, path)


def _draw_panel(axis: Any, panel: Panel, highest: float) -> None:
    axis.imshow(np.rot90(panel.image), cmap="gray", vmin=-1, vmax=0.6)
    if panel.score is not None:
        share = np.rot90(panel.score) / highest
        axis.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(2 * share, 0, 0.75))
    for outlined, colour in ((panel.truth, TRUTH_COLOUR), (panel.mask, MASK_COLOUR)):
        if outlined is not None and outlined.any():
            axis.contour(np.rot90(outlined), [0.5], colors=colour, linewidths=0.8)


def slice_grid(
    path: Path,
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    labels: Sequence[str] = (),
    inch: float = 1.6,
) -> None:
    """Draw rows of slices, front up.

    Each picture is (H, W): float in [-1, 1] or [0, 1] is grey (by the dtype's own range: float32 images in [-1, 1]
    are shown over [-1, 0.6], float64 maps in [0, 1] in colour over [0, 1]), bool is white on black.
    """
    figure = new_figure(inch * len(titles), inch * len(rows))
    # All slices share an axes: with an axes a slice, nearly all of the time, 0.9 s for 40 slices, would go into ticks.
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            shown = np.rot90(np.asarray(picture))
            if shown.dtype == bool:
                look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
            elif shown.dtype == np.float64:
                look = {"cmap": "inferno", "vmin": 0, "vmax": 1}
            else:
                look = {"cmap": "gray", "vmin": -1, "vmax": 0.6}
            high, wide = (0.48 * size / max(shown.shape) for size in shown.shape)
            x, y = column + 0.5, row + 0.5
            axes.imshow(shown, extent=(x - wide, x + wide, y + high, y - high), **look)
    for column, title in enumerate(titles):
        axes.text(column + 0.5, 0.0, title, fontsize=7, ha="center", va="bottom")
    for row, label in enumerate(labels):
        axes.text(0.0, row + 0.5, label, fontsize=7, ha="right", va="center", rotation="vertical")
    axes.set(xlim=(0, len(titles)), ylim=(len(rows), 0))
    axes.set_axis_off()
    save_figure(figure, path)


class Chart(NamedTuple):
    """Named curves of (x, y) values in one plot; on a logarithmic axis values below 1e-8 are drawn there."""

    y: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    logarithmic: bool = False


def curves(path: Path, charts: Sequence[Chart], *, x: str) -> None:
    """Draw charts side by side, each curve smoothed over a fiftieth of its length beside its faint trace.

    Curves of a few points are drawn with the points.
    """
    figure = new_figure(5.0 * len(charts), 5.0)
    inch = 1 / figure.get_figwidth()
    margins = {"left": 0.9 * inch, "right": 1 - 0.15 * inch, "bottom": 0.1, "top": 0.98, "wspace": 0.22}
    axes = figure.subplots(1, len(charts), squeeze=False, gridspec_kw=margins)
    for axis, chart in zip(axes[0], charts, strict=True):
        for name, (along, values) in chart.series.items():
            shown = np.maximum(values, 1e-8) if chart.logarithmic else np.asarray(values)
            (line,) = axis.plot(along, shown, alpha=0.25, linewidth=0.8)
            width = max(1, len(shown) // 50)
            smooth = np.convolve(shown, np.ones(width) / width, mode="valid")
            (line,) = axis.plot(along[width - 1 :], smooth, color=line.get_color(), linewidth=1.2, label=name)
            line.set_marker("." if len(shown) < 50 else "")
        axis.set(xlabel=x, ylabel=chart.y)
        if chart.logarithmic:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")  # powers of ten as formulas would take half of the time
            axis.yaxis.set_minor_formatter(tick_label)
        axis.legend(fontsize=7)
    save_figure(figure, path, crop=False)


def tick_label(value: float, _: float = 0.0) -> str:
    """The label of a tick between two powers of ten: empty but for 2, 3 and 5 times the lower power."""
    return f"{value:g}" if f"{value:e}"[0] in "235" else ""


class Bar(NamedTuple):
    """A value with its interval, under a name, in a group of bars."""

    group: str
    name: str
    value: float
    low: float
    high: float


def bars(path: Path, listed: Sequence[Bar], *, x: str, names: Sequence[str]) -> None:
    """Draw horizontal bars with their intervals, a chart a group, three in a row; a line for each of ``names``."""
    groups = list(dict.fromkeys(bar.group for bar in listed))
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    figure = new_figure(2.0 + 3.0 * across, 0.3 + down * (0.6 + 0.2 * len(names)))
    axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axis, group in zip(axes, groups, strict=False):
        chosen = [bar for bar in listed if bar.group == group]
        places = [names.index(bar.name) for bar in chosen]
        axis.barh(places, [bar.value for bar in chosen], color="steelblue", height=0.6)
        axis.hlines(places, [bar.low for bar in chosen], [bar.high for bar in chosen], color="black", linewidth=1)
        axis.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)), yticklabels=names)
        axis.set_title(group, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(groups) :]:
        axis.remove()
    figure.supxlabel(x, fontsize=7)
    figure.tight_layout()
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path, *, crop: bool = True) -> None:
    """Write a figure as PNG, complete or not at all; cropped to what is drawn, for which it is drawn twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, dpi=110, bbox_inches="tight" if crop else None, format="png")
    partial.replace(path)


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """An empty figure, to be written by :func:`save_figure`."""
    # The object interface: pyplot would keep every figure, and choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch))
    FigureCanvasAgg(figure)
    return figure
