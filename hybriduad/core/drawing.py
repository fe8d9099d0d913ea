"""Pictures as PNG files: rows of slices, and curves. matplotlib is imported when the first picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


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


class Panel(NamedTuple):
    """Named curves of (x, y) values in one plot; on a logarithmic axis values below 1e-8 are drawn there."""

    y: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    logarithmic: bool = False


def curves(path: Path, panels: Sequence[Panel], *, x: str) -> None:
    """Draw panels side by side, each curve smoothed over a fiftieth of its length beside its own faint trace.

    Curves of a few points are drawn with the points.
    """
    from matplotlib.ticker import AutoLocator

    figure, axes = _axes(1, len(panels), 5.0)
    for axis, panel in zip(axes[0], panels, strict=True):
        for name, (along, values) in panel.series.items():
            shown = np.maximum(values, 1e-8) if panel.logarithmic else np.asarray(values)
            (line,) = axis.plot(along, shown, alpha=0.25, linewidth=0.8)
            width = max(1, len(shown) // 50)
            smooth = np.convolve(shown, np.ones(width) / width, mode="valid")
            (line,) = axis.plot(along[width - 1 :], smooth, color=line.get_color(), linewidth=1.2, label=name)
            line.set_marker("." if len(shown) < 50 else "")
        axis.set(xlabel=x, ylabel=panel.y)
        axis.xaxis.set_major_locator(AutoLocator())
        if panel.logarithmic:
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
