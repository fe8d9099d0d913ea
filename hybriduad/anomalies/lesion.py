"""Realistic lesions: one or several foci grown inside the brain, with irregular soft borders and their own texture.

A focus is an ellipsoid's level set, roughened by noise on several scales and drawn towards tissue like that at its
centre, cut where it has the wanted area (2D) or volume (3D). Sizes are log-normal in millimetres. Inside, detail is
blurred and partly replaced by the local mean, then shifted brighter or darker under a texture, sometimes with a core of
its own, down to a cavity as dark as fluid behind a thin rim; tissue around may be pushed outwards. The draws are broad
on purpose (subtle to obvious): the idea is that of the intensity-bias and mass-effect generators (DISYRE, arXiv
2311.15453; UNA, see ``method.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy import ndimage

from hybriduad.anomalies._base import (
    MINIMUM_BRAIN_VOXELS,
    VISIBLE_CHANGE,
    Donors,
    finish,
    present,
    unchanged,
)
from hybriduad.anomalies._noise import fractal
from hybriduad.config.strict import PluginConfig
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption

Probability = Annotated[float, Field(ge=0, le=1)]


class Config(PluginConfig):
    """Sizes in millimetres, intensities on the model range [-1, 1], pairs are (lowest, highest).

    ``diameter_mm`` is that of the disc or ball of equal area or volume: log-normal with ``median_mm`` and ``ln_sigma``,
    cut to the pair. ``several``: probability of 2 to ``most_foci`` foci. ``softness_mm``: width of the border, beside
    the voxel's own. ``outline``: the share of lesion in a voxel from which it counts as lesion; less is ignored.
    ``bright``: probability of a lesion brighter than its tissue, one number or one a contrast in the bundle's order
    (about 0.8 FLAIR, 0.1 T1w, 0.9 T2w). ``contrast``: how much brighter or darker, faint ones somewhat more often.
    ``texture``: its variation inside, relative to ``contrast``. ``core``, ``mass_effect``, ``follow_tissue``:
    probabilities; ``cavity``: that a core is one. The defaults cover the gliomas of 32 patients on FLAIR (slices:
    diameter 20 to 69 mm, contrast to the tissue around 0.17 to 0.76, 10th to 90th percentile) and go further to small
    and faint ones.
    """

    name: Literal["lesion"] = "lesion"
    median_mm: float = Field(28.0, gt=0)
    ln_sigma: float = Field(0.7, ge=0)
    diameter_mm: tuple[float, float] = (3.0, 90.0)
    several: Probability = 0.2
    most_foci: int = Field(8, ge=2)
    roughness: tuple[float, float] = (0.1, 0.5)
    follow_tissue: Probability = 0.7
    softness_mm: tuple[float, float] = (0.0, 8.0)
    outline: float = Field(0.5, gt=0, lt=1)
    bright: Probability | tuple[Probability, ...] = 0.8
    contrast: tuple[float, float] = (0.15, 1.0)
    texture: tuple[float, float] = (0.0, 0.6)
    core: Probability = 0.35
    cavity: Probability = 0.5
    mass_effect: Probability = 0.25

    @model_validator(mode="after")
    def _ordered(self) -> Config:
        for key in ("diameter_mm", "roughness", "softness_mm", "contrast", "texture"):
            low, high = getattr(self, key)
            if not 0 <= low <= high:
                raise ValueError(f"{key} must be two numbers, 0 <= lowest <= highest")
        if self.diameter_mm[0] == 0 or self.contrast[0] < 2 * VISIBLE_CHANGE:
            raise ValueError(f"diameter_mm must be above 0 and contrast at least {2 * VISIBLE_CHANGE}")
        return self


@dataclass(frozen=True)
class Shape:
    """Foci together: ``weight`` (*space) in [0, 1], the share of lesion; ``depth`` (*space), 0 at the border to 1.

    ``centre_mm`` and ``radius_mm`` are those of the largest focus.
    """

    weight: np.ndarray
    depth: np.ndarray
    centre_mm: np.ndarray
    radius_mm: float


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Paint one lesion (of one or several foci) into an image.

    Args:
        config: distributions of size, shape and intensity.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: not used; the lesion is made from the image itself.

    Returns:
        The corrupted image, its lesion, visibility and ignored voxels (faint border, tissue that moved).

    Raises:
        ConfigError: ``bright`` lists another number of contrasts than the image has.
    """
    bright = np.broadcast_to(_bright_per_contrast(config, image.shape[0]), image.shape[0])
    here = present(image)
    if np.count_nonzero(brain) < MINIMUM_BRAIN_VOXELS or not here.any():
        return unchanged(image)
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    inside = brain[box]
    clean = image[:, *box].astype(np.float32)
    shape = _grow(config, clean[here][0], inside, rng, spacing_mm)
    moved = clean
    if rng.random() < config.mass_effect and shape.radius_mm > 8:
        moved = _push(clean, inside, shape, rng, spacing_mm)
    steps = [shape.radius_mm / 1.5 / size for size in spacing_mm]
    texture = fractal(inside.shape, steps, 4, 0.8, rng)
    filled = moved.copy()
    sign_draw = rng.random()  # shared, so that contrasts agree on the kind of lesion as far as their shares allow
    core = _core(config, shape, rng)
    hollow = rng.random() < config.cavity
    for contrast in np.flatnonzero(here):
        fluid = float(np.percentile(clean[contrast][inside], rng.uniform(0.5, 15))) if hollow else None
        bright_here = bool(sign_draw < bright[contrast])
        filled[contrast] = _fill(config, moved[contrast], shape, texture, core, bright_here, fluid, rng)
    change = np.abs(np.clip(filled, -1, 1) - clean).max(axis=0)
    outlined = shape.weight >= config.outline
    lesion = np.zeros(brain.shape, bool)
    ignore = np.zeros(brain.shape, bool)
    lesion[box] = outlined
    # Where the lesion happens to look like the tissue it replaced nothing can be seen, yet it is not healthy either.
    ignore[box] = outlined | (change > VISIBLE_CHANGE)
    changed = image.astype(np.float32)
    changed[:, *box] = filled
    return finish(image, changed, lesion, ignore, brain)


def _bright_per_contrast(config: Config, contrasts: int) -> np.ndarray:
    shares = np.atleast_1d(np.asarray(config.bright, float))
    if len(shares) not in (1, contrasts):
        raise ConfigError(
            "wrong number of shares",
            where="anomalies lesion.bright",
            got=len(shares),
            expected=f"one number, or one for each of {contrasts} contrasts",
        )
    return shares


def _diameters(config: Config, rng: np.random.Generator) -> np.ndarray:
    """Equivalent diameters of the foci in mm, the largest first."""
    first = config.median_mm * np.exp(config.ln_sigma * rng.standard_normal())
    foci = int(rng.integers(2, config.most_foci + 1)) if rng.random() < config.several else 1
    others = first * rng.uniform(0.2, 0.8, foci - 1)
    return np.clip(np.sort(np.append(others, first))[::-1], *config.diameter_mm)


def _grow(
    config: Config, guide: np.ndarray, brain: np.ndarray, rng: np.random.Generator, spacing_mm: tuple[float, ...]
) -> Shape:
    """Grow the foci inside ``brain`` (*space), following the tissue of ``guide`` (*space) where the draw says so."""
    axes = brain.ndim
    spacing = np.asarray(spacing_mm, np.float32)
    grid = np.indices(brain.shape, np.float32) * spacing.reshape(-1, *[1] * axes)
    places = np.argwhere(brain)
    tissue = ndimage.gaussian_filter(guide, [3 / size for size in spacing_mm], truncate=2)
    low, high = np.percentile(tissue[brain], (20, 95))
    border_mm = rng.uniform(*config.softness_mm) + float(spacing.min())
    roughness = rng.uniform(*config.roughness)
    strength = rng.uniform(0.2, 1.0) if rng.random() < config.follow_tissue else 0.0
    weight = np.zeros(brain.shape, np.float32)
    depth = np.zeros(brain.shape, np.float32)
    main: tuple[np.ndarray, float] | None = None
    for diameter in _diameters(config, rng):
        radius = float(diameter) / 2
        place = places[rng.integers(len(places))]
        centre = place * spacing
        main = main or (centre, radius)
        stretch = np.exp(0.3 * rng.standard_normal(axes))
        stretch /= stretch.prod() ** (1 / axes)
        turn = np.linalg.qr(rng.standard_normal((axes, axes)))[0] / (radius * stretch[:, None])
        offset = grid - centre.reshape(-1, *[1] * axes).astype(np.float32)
        level = radius * np.sqrt((np.tensordot(turn.astype(np.float32), offset, 1) ** 2).sum(0))
        steps = [1.2 * radius / size for size in spacing_mm]
        level += np.float32(radius * roughness) * fractal(brain.shape, steps, 3, 0.5, rng)
        if strength > 0:
            # The centre's own tissue, kept within the parenchyma: lesions spare CSF more than they fill it.
            own = np.clip(tissue[tuple(place)], low, high)
            level += np.float32(radius * strength) * np.minimum(np.abs(tissue - own) / max(high - low, 1e-3), 2)
        size = np.pi / 4 * diameter**2 if axes == 2 else np.pi / 6 * diameter**3
        voxels = int(np.clip(round(size / float(spacing.prod())), 1, 0.4 * len(places)))
        level -= np.partition(level[brain], voxels - 1)[voxels - 1]
        share = np.where(brain, _ramp(0.5 - level / border_mm), 0)
        # A focus of the size of the border would be faint everywhere; its middle has the full contrast.
        weight = np.maximum(weight, share / max(float(share.max()), 1e-6))
        depth = np.maximum(depth, np.clip(-level / radius, 0, 1))
    assert main is not None
    return Shape(weight, depth, *main)


def _ramp(values: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def _push(
    image: np.ndarray, brain: np.ndarray, shape: Shape, rng: np.random.Generator, spacing_mm: tuple[float, ...]
) -> np.ndarray:
    """Push tissue away from the centre of the largest focus, and nothing at the border of the brain."""
    axes = brain.ndim
    column = (-1, *[1] * axes)
    spacing = np.asarray(spacing_mm, np.float32).reshape(column)
    index = np.indices(brain.shape, np.float32)
    offset = index * spacing - shape.centre_mm.reshape(column).astype(np.float32)
    distance = np.sqrt((offset**2).sum(0)) / shape.radius_mm
    # Grows linearly to the border and fades outside: below a push of one radius the mapping cannot fold.
    reach = np.where(distance < 1, distance, np.exp((1 - distance) / 0.4))
    room = np.clip(2 * ndimage.gaussian_filter(brain.astype(np.float32), [4 / size for size in spacing_mm]) - 1, 0, 1)
    push_mm = shape.radius_mm * rng.uniform(0.05, 0.3) * reach * room
    direction = offset / np.maximum(distance * shape.radius_mm, 1e-3)
    source = index - push_mm * direction / spacing
    return np.stack([ndimage.map_coordinates(contrast, source, order=1, mode="nearest") for contrast in image])


def _core(config: Config, shape: Shape, rng: np.random.Generator) -> np.ndarray | None:
    """Where the lesion has a core of another intensity: (*space) in [0, 1], or None; small lesions have none."""
    start, width, draw = rng.uniform(0.05, 0.6), rng.uniform(0.1, 0.4), rng.random()
    if draw >= config.core or shape.radius_mm < 7:
        return None
    return _ramp((shape.depth - start) / width)


def _fill(
    config: Config,
    tissue: np.ndarray,
    shape: Shape,
    texture: np.ndarray,
    core: np.ndarray | None,
    bright: bool,
    fluid: float | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """One contrast (*space) with the lesion in it, not yet clipped to [-1, 1]; ``fluid``: the intensity of a cavity."""
    total = float(shape.weight.sum())
    mean = float((shape.weight * tissue).sum()) / total
    spread = np.sqrt(float((shape.weight * (tissue - mean) ** 2).sum()) / total)
    low, high = config.contrast
    contrast = low + (high - low) * rng.random() ** 1.5
    if (1 - mean if bright else 1 + mean) < low:  # no room on that side: tissue at the end of the range
        bright = not bright
    contrast *= 1.0 if bright else -1.0
    profile = 1 - rng.uniform(0, 0.7) * (1 - shape.depth)
    profile = profile * np.maximum(1 + rng.uniform(*config.texture) * texture, 0.2)
    core_level = rng.uniform(-0.8, 0.7)
    if core is not None and fluid is None:
        profile = profile * (1 - core) + core_level * core
    blurred = ndimage.gaussian_filter(tissue, rng.uniform(0.4, 1.5), truncate=2.5)
    kept = blurred + rng.uniform(0, 1) * (tissue - blurred)
    # A faint lesion cannot also flatten its tissue: it would brighten one half and darken the other.
    flattened = min(rng.uniform(0, 1), 0.7 * abs(contrast) / max(spread, 1e-6))
    content = (1 - flattened) * kept + flattened * mean + contrast * profile
    if core is not None and fluid is not None:
        content = content * (1 - core) + fluid * core
    return tissue + shape.weight * (content - tissue)
