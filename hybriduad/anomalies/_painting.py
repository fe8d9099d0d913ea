"""Painting a described lesion: growing its shape in a brain, pushing tissue aside, filling it contrast by contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hybriduad.anomalies._base import MINIMUM_BRAIN_VOXELS, VISIBLE_CHANGE, finish, present, unchanged
from hybriduad.anomalies._description import Filling, Focus, Lesion
from hybriduad.anomalies._noise import fractal, replay
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption

OUTLINE_OCTAVES, TEXTURE_OCTAVES = 3, 4


@dataclass(frozen=True)
class Shape:
    """Foci together: ``weight`` (*space) in [0, 1], the share of lesion; ``depth`` (*space), 0 at the border to 1.

    ``centre_mm`` and ``radius_mm`` are those of the largest focus.
    """

    weight: np.ndarray
    depth: np.ndarray
    centre_mm: np.ndarray
    radius_mm: float


def paint(lesion: Lesion, image: np.ndarray, brain: np.ndarray, *, spacing_mm: tuple[float, ...]) -> Corruption:
    """Paint a described lesion into the image that it was drawn for, or any other image.

    On the grid it was drawn for it is the same lesion bit by bit. In another brain a centre lies as far from the middle
    of the bounding box, moved to the nearest brain voxel, and the noise is another sample of the same kind.

    Args:
        lesion: the description.
        image: (C, *space) float32 in [-1, 1], as many spatial axes as the lesion's.
        brain: (*space) bool.
        spacing_mm: voxel size, one number a spatial axis.

    Returns:
        The corrupted image, its lesion, visibility and ignored voxels (faint border, tissue that moved).

    Raises:
        ConfigError: the lesion has other axes, or says nothing of a contrast that the image has.
    """
    here = present(image)
    described = [filling is not None for filling in lesion.fillings]
    if {len(focus.centre_mm) for focus in lesion.foci} != {brain.ndim} or len(described) != len(image):
        got = f"{len(lesion.foci[0].centre_mm)} axes and {len(described)} contrasts"
        raise ConfigError("lesion of other images", got=got, expected=f"{brain.ndim} axes and {len(image)} contrasts")
    if (here & ~np.array(described)).any():
        missing = np.flatnonzero(here & ~np.array(described)).tolist()
        raise ConfigError("lesion without a look", got=f"no filling for contrast {missing}", expected="all present")
    if nothing_to_paint(image, brain):
        return unchanged(image)
    box = bounding_box(brain)
    inside = brain[box]
    clean = image[:, *box].astype(np.float32)
    shape = _grow(lesion, clean[here][0], inside, spacing_mm)
    moved = clean if lesion.push is None else _push(clean, inside, shape, lesion.push, spacing_mm)
    steps = texture_steps(shape.radius_mm, spacing_mm)
    texture = fractal(inside.shape, steps, TEXTURE_OCTAVES, 0.8, replay(lesion.texture_noise))
    core = None if lesion.core is None else ramp((shape.depth - lesion.core[0]) / lesion.core[1])
    filled = moved.copy()
    for contrast in np.flatnonzero(here):
        filling = lesion.fillings[contrast]
        assert filling is not None
        fluid = None if filling.cavity is None else float(np.percentile(clean[contrast][inside], filling.cavity))
        filled[contrast] = _fill(filling, moved[contrast], shape, texture, core, fluid, lesion.least_contrast)
    change = np.abs(np.clip(filled, -1, 1) - clean).max(axis=0)
    outlined = shape.weight >= lesion.outline
    marked = np.zeros(brain.shape, bool)
    ignore = np.zeros(brain.shape, bool)
    marked[box] = outlined
    # Lesion that happens to look like the tissue it replaced is ignored: not visible, yet not healthy either.
    ignore[box] = outlined | (change > VISIBLE_CHANGE)
    changed = image.astype(np.float32)
    changed[:, *box] = filled
    return finish(image, changed, marked, ignore, brain)


def nothing_to_paint(image: np.ndarray, brain: np.ndarray) -> bool:
    """Whether ``image`` (C, *space) has too little ``brain`` (*space) or no contrast to paint into."""
    return bool(np.count_nonzero(brain) < MINIMUM_BRAIN_VOXELS or not present(image).any())


def bounding_box(brain: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a brain that is not empty; shapes and noise live in it."""
    return ndimage.find_objects(brain.astype(np.uint8))[0]


def outline_steps(radius_mm: float, spacing_mm: tuple[float, ...]) -> list[float]:
    """Knot distance in voxels of the noise that roughens a focus."""
    return [1.2 * radius_mm / size for size in spacing_mm]


def texture_steps(radius_mm: float, spacing_mm: tuple[float, ...]) -> list[float]:
    """Knot distance in voxels of the noise inside a lesion."""
    return [radius_mm / 1.5 / size for size in spacing_mm]


def middle(brain: np.ndarray) -> np.ndarray:
    """The middle (axes,) of a bounding box, in voxels."""
    return (np.array(brain.shape) - 1) / 2


def _place(focus: Focus, places: np.ndarray, brain: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """The brain voxel (axes,) nearest to the centre of a focus; ``places`` (N, axes) lists those of ``brain``."""
    wanted = np.asarray(focus.centre_mm) / spacing_mm + middle(brain)
    voxel = np.rint(wanted).astype(int)
    if (voxel >= 0).all() and (voxel < brain.shape).all() and brain[tuple(voxel)]:
        return voxel
    return places[(((places - wanted) * spacing_mm) ** 2).sum(axis=1).argmin()]


def _grow(lesion: Lesion, guide: np.ndarray, brain: np.ndarray, spacing_mm: tuple[float, ...]) -> Shape:
    """Grow the foci inside ``brain`` (*space), following the tissue of ``guide`` (*space) as far as the lesion does."""
    axes = brain.ndim
    spacing = np.asarray(spacing_mm, np.float32)
    grid = np.indices(brain.shape, np.float32) * spacing.reshape(-1, *[1] * axes)
    places = np.argwhere(brain)
    tissue = ndimage.gaussian_filter(guide, [3 / size for size in spacing_mm], truncate=2)
    low, high = np.percentile(tissue[brain], (20, 95))
    border_mm = lesion.softness_mm + float(spacing.min())
    weight = np.zeros(brain.shape, np.float32)
    depth = np.zeros(brain.shape, np.float32)
    main: tuple[np.ndarray, float] | None = None
    for focus in lesion.foci:
        radius = focus.diameter_mm / 2
        place = _place(focus, places, brain, spacing_mm)
        centre = place * spacing
        if focus is lesion.largest:
            main = centre, radius
        turn = np.array(focus.rotation) / (radius * np.array(focus.stretch)[:, None])
        offset = grid - centre.reshape(-1, *[1] * axes).astype(np.float32)
        level = radius * np.sqrt((np.tensordot(turn.astype(np.float32), offset, 1) ** 2).sum(0))
        noise = fractal(brain.shape, outline_steps(radius, spacing_mm), OUTLINE_OCTAVES, 0.5, replay(focus.noise))
        level += np.float32(radius * lesion.roughness) * noise
        if lesion.follow_tissue > 0:
            # The tissue at the centre, kept within the parenchyma: lesions spare CSF more than they fill it.
            centre_tissue = np.clip(tissue[tuple(place)], low, high)
            unlike = np.minimum(np.abs(tissue - centre_tissue) / max(high - low, 1e-3), 2)
            level += np.float32(radius * lesion.follow_tissue) * unlike
        size = np.pi / 4 * focus.diameter_mm**2 if axes == 2 else np.pi / 6 * focus.diameter_mm**3
        voxels = int(np.clip(round(size / float(spacing.prod())), 1, 0.4 * len(places)))
        level -= np.partition(level[brain], voxels - 1)[voxels - 1]
        share = np.where(brain, ramp(0.5 - level / border_mm), 0)
        # Scaled, so that the middle of a focus as small as its border still has the full contrast.
        weight = np.maximum(weight, share / max(float(share.max()), 1e-6))
        depth = np.maximum(depth, np.clip(-level / radius, 0, 1))
    assert main is not None
    return Shape(weight, depth, *main)


def ramp(values: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def _push(
    image: np.ndarray, brain: np.ndarray, shape: Shape, strength: float, spacing_mm: tuple[float, ...]
) -> np.ndarray:
    """Push tissue away from the centre of the largest focus; tissue at the border of the brain stays.

    ``strength``: the push at the focus' border, relative to its radius.
    """
    axes = brain.ndim
    column = (-1, *[1] * axes)
    spacing = np.asarray(spacing_mm, np.float32).reshape(column)
    index = np.indices(brain.shape, np.float32)
    offset = index * spacing - shape.centre_mm.reshape(column).astype(np.float32)
    distance = np.sqrt((offset**2).sum(0)) / shape.radius_mm
    # Grows linearly to the border and fades outside: below a push of one radius the mapping cannot fold.
    reach = np.where(distance < 1, distance, np.exp((1 - distance) / 0.4))
    room = np.clip(2 * ndimage.gaussian_filter(brain.astype(np.float32), [4 / size for size in spacing_mm]) - 1, 0, 1)
    push_mm = shape.radius_mm * strength * reach * room
    direction = offset / np.maximum(distance * shape.radius_mm, 1e-3)
    source = index - push_mm * direction / spacing
    return np.stack([ndimage.map_coordinates(contrast, source, order=1, mode="nearest") for contrast in image])


def _fill(
    filling: Filling,
    tissue: np.ndarray,
    shape: Shape,
    texture: np.ndarray,
    core: np.ndarray | None,
    fluid: float | None,
    least_contrast: float,
) -> np.ndarray:
    """One contrast (*space) with the lesion in it, not yet clipped to [-1, 1].

    ``core`` (*space) in [0, 1]: where the lesion has a core; ``fluid``: the intensity of a cavity in it.
    """
    total = float(shape.weight.sum())
    mean = float((shape.weight * tissue).sum()) / total
    spread = np.sqrt(float((shape.weight * (tissue - mean) ** 2).sum()) / total)
    bright = filling.bright
    if (1 - mean if bright else 1 + mean) < least_contrast:  # no room on that side: tissue at the end of the range
        bright = not bright
    contrast = filling.contrast if bright else -filling.contrast
    profile = 1 - filling.rim * (1 - shape.depth)
    profile = profile * np.maximum(1 + filling.texture * texture, 0.2)
    if core is not None and fluid is None:
        profile = profile * (1 - core) + filling.core * core
    blurred = ndimage.gaussian_filter(tissue, filling.blur, truncate=2.5)
    kept = blurred + filling.kept * (tissue - blurred)
    # Flattened by less in a faint lesion, where all of it would brighten a half of the tissue and darken the other.
    flattened = min(filling.flattened, 0.7 * abs(contrast) / max(spread, 1e-6))
    content = (1 - flattened) * kept + flattened * mean + contrast * profile
    if core is not None and fluid is not None:
        content = content * (1 - core) + fluid * core
    return tissue + shape.weight * (content - tissue)
