"""Pictures as PNG files: rows of slices, and curves. matplotlib is imported when the first picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    figure = _figure(inch * len(titles), inch * len(rows))
    # One axes for all: with one for each slice nearly all of the time, 0.9 s for 40 of them, would go into their ticks.
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


def curves(path: Path, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x: str, y: str) -> None:
    """Draw named curves of (x, y) values, each smoothed over a fiftieth of its length beside its own faint trace."""
    figure = _figure(5.0, 5.0)
    axes = figure.subplots()
    for name, (along, values) in series.items():
        (line,) = axes.plot(along, values, alpha=0.25, linewidth=0.8)
        width = max(1, len(values) // 50)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(along[width - 1 :], smooth, color=line.get_color(), linewidth=1.2, label=name)
    axes.set(xlabel=x, ylabel=y, yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")  # powers of ten as formulas would take half of the time
    axes.yaxis.set_minor_formatter(_some)
    axes.legend(fontsize=7)
    save_figure(figure, path)


def _some(value: float, _: float) -> str:
    """Of the ticks between two powers of ten, 2, 3 and 5 times the lower are labelled."""
    return f"{value:g}" if f"{value:e}"[0] in "235" else ""


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, dpi=110, bbox_inches="tight", format="png")
    partial.replace(path)


def _figure(width_inch: float, height_inch: float) -> Figure:
    # The object interface: pyplot would keep every figure, and choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch))
    FigureCanvasAgg(figure)
    return figure
