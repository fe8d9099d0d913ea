"""Focal atrophy and cavity: fluid where tissue was.

After a stroke or a resection a hole is left, filled with fluid; where tissue shrinks, the spaces of fluid beside it
(ventricles, and the furrows at the brain's border) get wider. Fluid looks as it does in the scan: on the first contrast
that the image has it is the darkest part of the brain, or the brightest where ``bright_fluid`` says so, and on every
other what the same voxels show there, so that contrasts agree. The forms are those of chronic stroke and atrophy as a
radiologist describes them; no published generator is copied. What was fluid before is no lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from hybriduad.anomalies._base import Donors, per_contrast, present, unchanged, with_extent
from hybriduad.anomalies._noise import smooth
from hybriduad.anomalies._painting import nothing_to_paint, outline_steps, ramp
from hybriduad.anomalies._region import EDGE, Interval, IntervalFrom0, Share, draw_region
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.contrasts import LOOKS
from hybriduad.core.types import Corruption

TRIES = 8
"""Places that are tried before an image is left as it is."""
LEAST_VOXELS = 6
"""Fewer voxels of tissue that turned to fluid are no lesion."""
NOISE_VOXELS = 1.5
"""Distance of the knots of the noise in fluid."""


class Config(AnomalyConfig):
    """``cavity``: probability of a hole rather than of widening. ``diameter_mm``: of the hole, or of the region in
    which fluid widens; ``widening_mm``: by how much; ``softness_mm``: width of the edge; pairs are (lowest, highest).
    ``fluid_percent``: the share of the brain that is surely fluid; ``bright_fluid``: whether it is the brightest
    part (T2w) rather than the darkest (T1w, FLAIR), once or for every contrast in the bundle's order. Where it is left
    at ``false`` and the names of the contrasts are known, as in a training, they say so.
    """

    name: Literal["atrophy-cavity"] = "atrophy-cavity"
    cavity: Share = 0.5
    diameter_mm: Interval = (10.0, 60.0)
    widening_mm: Interval = (4.0, 14.0)
    softness_mm: IntervalFrom0 = (0.0, 3.0)
    fluid_percent: float = Field(2.0, gt=0, lt=50)
    bright_fluid: bool | tuple[bool, ...] = False


@dataclass(frozen=True)
class Fluid:
    """``look`` and ``spread`` (C,): mean and standard deviation of the intensity of fluid on every contrast;
    ``there`` (*space) bool: where fluid is already."""

    look: np.ndarray
    spread: np.ndarray
    there: np.ndarray


def for_contrasts(config: Config, contrasts: Sequence[str]) -> Config:
    """The config for contrasts of these names: without another statement, fluid is as bright as it is on them."""
    bright = tuple(LOOKS[name].bright_fluid for name in contrasts)
    return config if config.bright_fluid or not any(bright) else config.model_copy(update={"bright_fluid": bright})


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Replace tissue by fluid, in a hole or along the fluid that is there, in every contrast alike.

    Args:
        config: size, kind, and how fluid is known.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: not used.

    Returns:
        The image with more fluid; its lesion is the tissue that is gone. Another place is drawn, up to eight times,
        where there is hardly any tissue; then the image is unchanged.

    Raises:
        ConfigError: ``bright_fluid`` lists another number of contrasts than the image has.
    """
    bright = per_contrast(config.bright_fluid, len(image), "atrophy-cavity.bright_fluid")
    if nothing_to_paint(image, brain):
        return unchanged(image)
    fluid = _known_fluid(image, brain, bright, config.fluid_percent)
    for _ in range(TRIES):
        if rng.random() < config.cavity:
            weight = draw_region(
                brain, rng, spacing_mm, diameter_mm=config.diameter_mm, softness_mm=config.softness_mm, forms=("blob",)
            ).weight
        else:
            weight = _widened(config, fluid.there, brain, rng, spacing_mm)
        extent = (weight >= EDGE) & ~fluid.there
        if np.count_nonzero(extent) < LEAST_VOXELS:
            continue
        noise = smooth(brain.shape, [NOISE_VOXELS] * brain.ndim, rng)
        changed = image.astype(np.float32)
        for contrast in np.flatnonzero(present(image)):
            content = fluid.look[contrast] + fluid.spread[contrast] * noise
            changed[contrast] += weight * (content - changed[contrast])
        corruption = with_extent(image, changed, extent, brain)
        if corruption.lesion.any():
            return corruption
    return unchanged(image)


def _known_fluid(image: np.ndarray, brain: np.ndarray, bright: tuple[bool, ...], percent: float) -> Fluid:
    """How fluid looks, and where it is: nearer to its look on the first present contrast than to the median tissue."""
    first = int(np.flatnonzero(present(image))[0])
    guide = image[first] if bright[first] else -image[first]
    surely = brain & (guide >= np.percentile(guide[brain], 100 - percent))
    voxels = image[:, surely].astype(np.float64)
    half = (float(guide[surely].mean()) + float(np.median(guide[brain]))) / 2
    return Fluid(voxels.mean(axis=1).astype(np.float32), voxels.std(axis=1).astype(np.float32), brain & (guide > half))


def _widened(
    config: Config, fluid: np.ndarray, brain: np.ndarray, rng: np.random.Generator, spacing_mm: tuple[float, ...]
) -> np.ndarray:
    """The share of new fluid (*space) where the fluid in a region, and what is around the brain, spreads into it."""
    distance = ndimage.distance_transform_edt(brain & ~fluid, sampling=spacing_mm)
    width = rng.uniform(*config.widening_mm)
    region = draw_region(
        brain,
        rng,
        spacing_mm,
        diameter_mm=config.diameter_mm,
        softness_mm=config.softness_mm,
        places=np.argwhere(brain & (distance <= max(width, max(spacing_mm)))),
    )
    uneven = width * np.clip(1 + 0.5 * smooth(brain.shape, outline_steps(width, spacing_mm), rng), 0.2, 2)
    spread = ramp(0.5 - (distance - uneven) / min(spacing_mm))
    return np.where(brain, region.weight * spread, 0).astype(np.float32)
