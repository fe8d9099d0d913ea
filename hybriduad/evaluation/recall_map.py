"""A map of where painted lesions are found: recall smoothed over their centres, blank where too few were painted.

In template space it is a volume of that space. Without a registration, places are relative: shares of the box around
each brain, drawn in the proportions of the template's. That is no anatomy: the same place in two heads may be different
tissue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from hybriduad.core import rng
from hybriduad.core.drawing import new_figure, save_figure
from hybriduad.evaluation.real_lesions import SIZES
from hybriduad.scan.resampling import through_affine
from hybriduad.scan.template import Template, template
from hybriduad.scan.volumes import VolumeGrid, write_volume

PICTURE, VOLUME, SUPPORT = "recall-map.png", "recall-map.nii.gz", "recall-map-support.nii.gz"
STEP_MM, REACH_MM = 6.0, 30.0
"""Side of a voxel of the map, and the distance from which on a lesion counts no more at a place."""
FEWEST = 5.0
"""A place with fewer lesions near, each counted by its weight, is blank."""
SHUFFLES = 200
"""Maps that chance alone makes, for the sentence on how uneven the map is."""
SLICES = 5
"""In each of the three planes of the picture."""


class RecallMap(NamedTuple):
    """``recall`` (X, Y, Z) in [0, 1], nan where blank; ``support`` (X, Y, Z), how many lesions lie near, each by its
    weight; ``affine`` (4, 4) to RAS millimetres of the template; ``brain`` (X, Y, Z) bool. ``p``: how often chance
    alone makes a map at least as uneven, nan where nothing can be uneven."""

    recall: np.ndarray
    support: np.ndarray
    affine: np.ndarray
    brain: np.ndarray
    p: float


def recall_map(places_mm: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> RecallMap:
    """Smooth recall over the centres of lesions.

    A lesion weighs 1 where it lies, falling to 0 at :data:`REACH_MM` (Epanechnikov's kernel). What is smoothed is
    by how much lesions are found more often than those of their class of size and contrast, so that a place where large
    ones happened to be painted is no better for it; the recall of all is added. Chance: what is found is shuffled
    within the classes :data:`SHUFFLES` times, and the weighted variance over voxels compared.

    Args:
        places_mm: (L, 3) centres, in millimetres of the template.
        found: (L,) bool.
        classes: of size and contrast, L of them.
    """
    average = template()
    affine, shape = _grid(average)
    brain = _on_map(average, average.brain, affine, shape) >= 0.5
    voxels = np.argwhere(brain)
    points = voxels @ affine[:3, :3].T + affine[:3, 3]
    squared = cdist(points, places_mm, "sqeuclidean") / REACH_MM**2
    weights = np.maximum(1 - squared, 0).astype(np.float32)
    near = weights.sum(axis=1)
    supported = near >= FEWEST
    groups = [np.flatnonzero(np.array(classes) == name) for name in sorted(set(classes))]
    more = found.astype(np.float32)
    for group in groups:
        more[group] -= found[group].mean()
    smooth = weights[supported] / near[supported, None]
    values = smooth @ more
    p = math.nan
    if supported.any() and (spread := _spread(values, near[supported])) > 1e-9:
        generator = rng.numpy_rng(0, "recall map")
        shuffled = np.repeat(more[:, None], SHUFFLES, axis=1)
        for group in groups:
            shuffled[group] = generator.permuted(shuffled[group], axis=0)
        chance = [_spread(column, near[supported]) for column in (smooth @ shuffled).T]
        p = (1 + sum(value >= spread for value in chance)) / (1 + SHUFFLES)
    recall, support = np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32)
    recall[tuple(voxels[supported].T)] = np.clip(found.mean() + values, 0, 1)
    support[tuple(voxels.T)] = near
    return RecallMap(recall, support, affine, brain, p)


def _spread(values: np.ndarray, weights: np.ndarray) -> float:
    middle = np.average(values, weights=weights)
    return float(np.average((values - middle) ** 2, weights=weights))


def _grid(average: Template) -> tuple[np.ndarray, tuple[int, int, int]]:
    """(4, 4) and the shape of cubes of :data:`STEP_MM` over the template's brain."""
    low, high = average.box_mm
    x, y, z = (math.ceil(length / STEP_MM) for length in high - low)
    affine = np.diag([STEP_MM] * 3 + [1.0])
    affine[:3, 3] = (low + high) / 2 - STEP_MM * (np.array([x, y, z]) - 1) / 2
    return affine, (x, y, z)


def _on_map(average: Template, data: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return through_affine(data.astype(np.float32), np.linalg.inv(average.affine) @ affine, shape, linear=True)


def relative_mm(places: np.ndarray) -> np.ndarray:
    """(L, 3) places in the box around a brain, 0 left, back, bottom to 1, as millimetres of the template's box."""
    low, high = template().box_mm
    return np.asarray(low + places * (high - low))


def write_recall_map(folder: Path, lesions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the map of painted lesions, each with its ``place``, ``found``, classes, and in template space its
    ``template_mm``; returns what is to be said of it.

    The picture, and in template space two volumes: recall, not a number where blank, and support.
    """
    for name in (PICTURE, VOLUME, SUPPORT):
        (folder / name).unlink(missing_ok=True)
    registered = all("template_mm" in lesion for lesion in lesions)
    places = np.array([lesion["template_mm" if registered else "place"] for lesion in lesions], float)
    found = np.array([bool(lesion["found"]) for lesion in lesions])
    classes = [f"{lesion['size_ml']} {lesion['contrast']}" for lesion in lesions]
    made = recall_map(places if registered else relative_mm(places), found, classes)
    shown = ~np.isnan(made.recall)
    sizes = [lesion["size_ml"] for lesion in lesions]
    listed = ", ".join(f"{sizes.count(size)} of {size} ml" for size in SIZES if size in sizes)
    if not shown.any():
        few = f"No map of places: nowhere are there {FEWEST:g} of the {len(lesions)} painted lesions near one another"
        return [f"{few}; paint into more controls, or more --versions."]
    where = "in template space" if registered else "relative to the box around the brain, which is no anatomy"
    caption = f"recall of {len(lesions)} painted lesions ({listed}), {where}"
    _draw(folder / PICTURE, made, f"{caption}; grey: fewer than {FEWEST:g} near")
    if registered:
        grid = VolumeGrid.make(made.recall.shape, made.affine)
        write_volume(folder / VOLUME, made.recall, grid)
        write_volume(folder / SUPPORT, made.support, grid)
    low, high = float(made.recall[shown].min()), float(made.recall[shown].max())
    uneven = "nothing is uneven" if math.isnan(made.p) else f"chance alone makes it as uneven with p = {made.p:.2g}"
    share = shown.sum() / made.brain.sum()
    return [
        f"{PICTURE} shows recall by place, {where}: from {low:.0%} to {high:.0%} over the {share:.0%} of the brain "
        f"with at least {FEWEST:g} lesions near; it rests on {listed}, and {uneven}."
    ]


def _draw(path: Path, made: RecallMap, caption: str) -> None:
    """Three planes, a row each: recall in colour, blank places in grey."""
    average = template()
    anatomy = _on_map(average, average.image, made.affine, made.recall.shape)
    figure = new_figure(1.5 * SLICES + 0.8, 5.2)
    axes = figure.subplots(3, SLICES, gridspec_kw={"wspace": 0.03, "hspace": 0.12, "bottom": 0.08, "top": 0.97})
    for row, (axis, name) in enumerate(((2, "z"), (1, "y"), (0, "x"))):
        inside = np.flatnonzero(made.brain.any(axis=tuple({0, 1, 2} - {axis})))
        for column, index in enumerate(np.linspace(inside[0], inside[-1], SLICES + 2)[1:-1].round().astype(int)):
            panel = axes[row][column]
            under, over = (np.rot90(np.take(volume, index, axis=axis)) for volume in (anatomy, made.recall))
            panel.imshow(under, cmap="gray", vmin=0, vmax=1.4)
            image = panel.imshow(over, cmap="viridis", vmin=0, vmax=1, alpha=0.85)
            place = made.affine[axis, axis] * index + made.affine[axis, 3]
            panel.set_title(f"{name} {place:.0f}", fontsize=6, pad=2)
            panel.set_axis_off()
    figure.colorbar(image, ax=axes, shrink=0.6, label="recall")
    figure.text(0.45, 0.06, caption, fontsize=6, ha="center", va="top", wrap=True)
    save_figure(figure, path)
