"""Pictures as PNG files: rows of slices, and curves. matplotlib is imported when the first picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TRUTH_COLOUR, MASK_COLOUR = "lime", "white"
"""Of the outlines that :func:`panel_sheet` draws."""


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
    figure, axes = _axes(-(-len(groups) // across), across * panels, inch)
    for axis in axes.ravel():
        axis.set_axis_off()
    for number, (title, row) in enumerate(groups):
        for column, panel in enumerate(row):
            axis = axes[number // across][number % across * panels + column]
            _draw_panel(axis, panel, max(highest, 1e-6))
            if column == panels // 2:
                axis.set_title(title, fontsize=7)
    figure.supxlabel(f"{caption}; colour: score, 0 to {highest:.2f}", fontsize=7)
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
    figure, axes = _axes(len(rows), len(titles), inch)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axis = axes[row][column]
            shown = np.rot90(np.asarray(picture))
            if shown.dtype == bool:
                axis.imshow(shown, cmap="gray", vmin=0, vmax=1)
            elif shown.dtype == np.float64:
                axis.imshow(shown, cmap="inferno", vmin=0, vmax=1)
            else:
                axis.imshow(shown, cmap="gray", vmin=-1, vmax=0.6)
            if row == 0:
                axis.set_title(titles[column], fontsize=7)
            if column == 0 and labels:
                axis.set_ylabel(labels[row], fontsize=7)
    save_figure(figure, path)


class Chart(NamedTuple):
    """Named curves of (x, y) values in one plot; on a logarithmic axis values below 1e-8 are drawn there."""

    y: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    logarithmic: bool = False


def curves(path: Path, charts: Sequence[Chart], *, x: str) -> None:
    """Draw charts side by side, each curve smoothed over a fiftieth of its length beside its own faint trace.

    Curves of a few points are drawn with the points.
    """
    from matplotlib.ticker import AutoLocator

    figure, axes = _axes(1, len(charts), 5.0)
    for axis, chart in zip(axes[0], charts, strict=True):
        for name, (along, values) in chart.series.items():
            shown = np.maximum(values, 1e-8) if chart.logarithmic else np.asarray(values)
            (line,) = axis.plot(along, shown, alpha=0.25, linewidth=0.8)
            width = max(1, len(shown) // 50)
            smooth = np.convolve(shown, np.ones(width) / width, mode="valid")
            (line,) = axis.plot(along[width - 1 :], smooth, color=line.get_color(), linewidth=1.2, label=name)
            line.set_marker("." if len(shown) < 50 else "")
        axis.set(xlabel=x, ylabel=chart.y)
        axis.xaxis.set_major_locator(AutoLocator())
        if chart.logarithmic:
            axis.set_yscale("log")
        else:
            axis.yaxis.set_major_locator(AutoLocator())
        axis.legend(fontsize=7)
    save_figure(figure, path)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, dpi=110, bbox_inches="tight", format="png")
    partial.replace(path)


def _axes(rows: int, columns: int, inch: float) -> tuple[Any, Any]:
    # The object interface: pyplot would keep every figure, and choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.0, inch * columns), max(2.0, inch * rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    if rows * columns > 1:
        for axis in axes.ravel():
            axis.set_xticks([])
            axis.set_yticks([])
    return figure, axes
