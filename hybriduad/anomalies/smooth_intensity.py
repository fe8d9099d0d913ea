"""Smooth intensity change: a region gets brighter or darker, most in its middle, and keeps all of its detail.

The smooth additive change of "Many tasks make light work" (Baugh et al., arXiv 2307.01140): an amplitude times a
function that falls smoothly from the middle to the rim. A slow variation is laid over it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from hybriduad.anomalies._base import Donors, unchanged, with_extent
from hybriduad.anomalies._looks import TurningConfig, drawn_shifts, inverted_by_looks
from hybriduad.anomalies._noise import smooth
from hybriduad.anomalies._painting import nothing_to_paint, outline_steps, ramp
from hybriduad.anomalies._region import Interval, Share, draw_region
from hybriduad.core.types import Corruption


class Config(TurningConfig):
    """``diameter_mm``: that of the disc or ball of equal size; ``amplitude``: change in the middle, on the range
    [-1, 1]; both (lowest, highest). ``bright``: probability of getting brighter, and ``inverted`` where
    darker, as :class:`~hybriduad.anomalies._looks.TurningConfig` says. ``variation``: of the amplitude over the region,
    relative to it.
    """

    name: Literal["smooth-intensity"] = "smooth-intensity"
    diameter_mm: Interval = (12.0, 80.0)
    amplitude: Interval = (0.2, 0.9)
    bright: Share = 0.5
    variation: float = Field(0.2, ge=0, le=0.5)


for_contrasts = inverted_by_looks


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Add a smooth change to a region, of the same course and another amplitude in every contrast.

    Args:
        config: size and amplitude.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: not used.

    Returns:
        The image with the region, all of which is the lesion: the change falls to nothing at its rim.

    Raises:
        ConfigError: ``inverted`` lists another number of contrasts than the image has.
    """
    if nothing_to_paint(image, brain):
        return unchanged(image)
    region = draw_region(brain, rng, spacing_mm, diameter_mm=config.diameter_mm)
    # Depth below the rim within the brain: where the region meets the border of the brain the change does not fade.
    depth = ndimage.distance_transform_edt(region.extent | ~brain, sampling=spacing_mm)
    course = ramp(np.where(region.extent, depth, 0) / depth[region.extent].max())
    variation = config.variation * smooth(brain.shape, outline_steps(region.diameter_mm / 2, spacing_mm), rng)
    course *= np.clip(1 + variation, 0.2, None)
    changed = image.astype(np.float32)
    amplitudes = drawn_shifts(config, image, region.extent, rng, sizes=config.amplitude, bright=config.bright)
    for contrast, amplitude in amplitudes.items():
        changed[contrast] += np.float32(amplitude) * course
    return with_extent(image, changed, region.extent, brain)
