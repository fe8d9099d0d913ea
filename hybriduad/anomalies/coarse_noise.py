"""Coarse noise inside a region: blotches of several voxels, in place of nothing.

The noise of the denoising autoencoder (Kascenas, Pugeault, O'Neil, "Denoising autoencoders for unsupervised anomaly
detection in brain MRI", MIDL 2022): normal numbers on a grid of 16 x 16, brought to the size of the image and rolled at
random. There it covers the whole foreground to teach restoring; here it lies in a region, which is to be outlined.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from hybriduad.anomalies._base import Donors, present, unchanged, with_extent
from hybriduad.anomalies._looks import TurningConfig, inverted_by_looks, listed
from hybriduad.anomalies._noise import smooth
from hybriduad.anomalies._painting import nothing_to_paint
from hybriduad.anomalies._region import Form, Interval, IntervalFrom0, draw_region
from hybriduad.core.types import Corruption


class Config(TurningConfig):
    """``diameter_mm``: that of the disc or ball of equal size; ``softness_mm``: width of the edge; ``cell_mm``:
    distance of the grid's numbers (an image of 220 mm has 16 of 14 mm); ``sigma``: standard deviation of the noise on
    the range [-1, 1]; pairs are (lowest, highest). ``forms`` are drawn evenly. ``inverted``: where
    bright blotches are dark, as :class:`~hybriduad.anomalies._looks.TurningConfig` says.
    """

    name: Literal["coarse-noise"] = "coarse-noise"
    diameter_mm: Interval = (12.0, 70.0)
    softness_mm: IntervalFrom0 = (0.0, 6.0)
    forms: tuple[Form, ...] = Field(("ellipsoid", "blob"), min_length=1)
    cell_mm: Interval = (6.0, 16.0)
    sigma: Interval = (0.2, 0.6)


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
    """Add coarse noise to a region: the same blotches in every contrast, of another strength.

    Args:
        config: size of the region, size and strength of the blotches.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: not used.

    Returns:
        The image with the region, all of which is the lesion, also where the noise passes through 0; the outer part of
        its edge is ignored.

    Raises:
        ConfigError: ``inverted`` lists another number of contrasts than the image has.
    """
    if nothing_to_paint(image, brain):
        return unchanged(image)
    region = draw_region(
        brain, rng, spacing_mm, diameter_mm=config.diameter_mm, softness_mm=config.softness_mm, forms=config.forms
    )
    cell = rng.uniform(*config.cell_mm)
    noise = region.weight * smooth(brain.shape, [cell / size for size in spacing_mm], rng)
    changed = image.astype(np.float32)
    inverted = listed(config, present(image))
    sign = 1 if rng.random() < 0.5 else -1
    for contrast, turned in inverted.items():
        changed[contrast] += np.float32((-sign if turned else sign) * rng.uniform(*config.sigma)) * noise
    return with_extent(image, changed, region.extent, brain)
