"""Still pictures of a case, for readers without a viewer: a mosaic of slices, and a thumbnail."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from hybriduad.core.drawing import new_figure
from hybriduad.report.embedding import Layers

ACROSS = 7
"""Slices in a row."""
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Plane -> the axis across it, of volumes in RAS order."""
OUTLINE, SCORE_MAP, UNCERTAINTY_MAP = "#4fd1ff", "inferno", "viridis"
THUMBNAIL_PIXELS = 112


def draw_mosaic(layers: Layers, threshold: float | None) -> bytes:
    """A PNG, rows of slices on black: the axial scan, the pseudo-healthy one, the score over it with the outline of the
    mask, and the uncertainty; then the score in the other two planes. What was not written has no row."""
    rows = [(name, "axial", name) for name in ("scan", "reconstruction") if name in layers.values]
    rows += [("score", "axial", "score")]
    rows += [("uncertainty", "axial", "uncertainty")] if "uncertainty" in layers.values else []
    rows += [("score", "coronal", "coronal"), ("score", "sagittal", "sagittal")]
    names = {"scan": "scan", "reconstruction": "pseudo-healthy", "score": "score and mask"}
    extents = np.array(layers.brain.shape) * np.array(layers.spacing_mm)
    cell = float(extents.max())
    heights = [float(_height(extents, PLANES[plane])) for _, plane, _ in rows]
    inch = 1.5 / cell
    figure = new_figure(inch * cell * ACROSS + 0.2, inch * sum(heights))
    figure.patch.set_facecolor("black")
    axes = figure.add_axes((0.2 / figure.get_figwidth(), 0.0, 1 - 0.2 / figure.get_figwidth(), 1.0))
    top = 0.0
    for (layer, plane, title), height in zip(rows, heights, strict=True):
        axis = PLANES[plane]
        for column, index in enumerate(shown_slices(layers, axis, ACROSS)):
            wide = extents[0 if axis else 1]
            left = column * cell + (cell - wide) / 2
            _draw(axes, layers, layer, axis, index, (left, left + wide, top + height, top), threshold)
            millimetres = (layers.affine @ np.array([*(index if k == axis else 0 for k in range(3)), 1.0]))[axis]
            label = f"{'xyz'[axis]} {millimetres:.0f}"
            axes.text(left + wide, top + height, label, color="0.6", fontsize=5.5, ha="right", va="bottom")
        what = names.get(title, title)
        axes.text(-2, top + height / 2, what, color="0.8", fontsize=7, ha="right", va="center", rotation="vertical")
        top += height
    axes.set(xlim=(0, ACROSS * cell + 4), ylim=(top + 4, 0))
    axes.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, dpi=100, format="png", facecolor="black")
    return stream.getvalue()


def draw_thumbnail(layers: Layers, threshold: float | None) -> str:
    """A JPEG, in base64: the axial slice with the most of the mask, or of the score where nothing is marked."""
    index = _fullest(layers, 2)
    extents = np.array(layers.brain.shape) * np.array(layers.spacing_mm)
    figure = new_figure(1.0, float(extents[1] / extents[0]))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    box = (0.0, float(extents[0]), float(extents[1]), 0.0)
    _draw(axes, layers, "score", 2, index, box, threshold)
    axes.set(xlim=box[:2], ylim=box[2:])
    axes.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, dpi=THUMBNAIL_PIXELS, format="jpeg", facecolor="black")
    return base64.b64encode(stream.getvalue()).decode()


def shown_slices(layers: Layers, axis: int, count: int) -> list[int]:
    """Slices through the brain at equal distances, of which the nearest to it gives way to the one that shows most."""
    there = np.flatnonzero(layers.brain.any(axis=tuple(other for other in range(3) if other != axis)))
    if not len(there):
        return [layers.brain.shape[axis] // 2] * count
    chosen = np.rint(np.quantile(there, np.linspace(0.1, 0.9, count))).astype(int)
    fullest = _fullest(layers, axis)
    chosen[np.argmin(np.abs(chosen - fullest))] = fullest
    return [int(index) for index in chosen]


def _fullest(layers: Layers, axis: int) -> int:
    """The slice with the most of the mask, or of the score where nothing is marked."""
    mask = layers.values.get("mask")
    weights = mask if mask is not None and mask.any() else layers.values["score"]
    return int(np.argmax(weights.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.float64)))


def _height(extents: np.ndarray, axis: int) -> float:
    return float(extents[1] if axis == 2 else extents[2])


def _draw(
    axes: Any, layers: Layers, layer: str, axis: int, index: int, extent: Sequence[float], threshold: float | None
) -> None:
    """A slice, front or top up, right of the brain at the right."""

    def plane(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.take(index, axis=axis).T[::-1])

    low, high = layers.window()
    ground = "reconstruction" if layer == "reconstruction" else "scan"
    if ground not in layers.values:
        ground = "reconstruction"
    look: dict[str, Any] = {"extent": extent, "interpolation": "bilinear"}
    if ground in layers.values:
        shown = np.where(plane(layers.brain), plane(layers.values[ground]), low)
        axes.imshow(shown, cmap="gray", vmin=low, vmax=high, **look)
    else:
        axes.imshow(plane(layers.brain) * 0.25, cmap="gray", vmin=0, vmax=1, **look)
    if layer in ("score", "uncertainty"):
        values = layers.values[layer]
        share = plane(values) / max(float(values.max()), 1e-6)
        floor = 0.0 if layer == "uncertainty" or threshold is None else threshold / max(float(values.max()), 1e-6)
        opacity = np.clip((share - floor / 2) / max(1 - floor / 2, 1e-6) * 3, 0, 0.8)
        colours = SCORE_MAP if layer == "score" else UNCERTAINTY_MAP
        axes.imshow(share, cmap=colours, vmin=0, vmax=1, alpha=opacity, **look)
    mask = layers.values.get("mask")
    if layer == "score" and mask is not None and plane(mask).any():
        # Twice as fine, so that the outline runs around voxels and not through them.
        fine = ndimage.zoom(plane(mask).astype(np.float32), 2, order=1, mode="nearest", grid_mode=True)
        axes.contour(fine, [0.5], colors=OUTLINE, linewidths=0.6, extent=extent, origin="upper")
