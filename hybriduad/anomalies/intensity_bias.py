"""Intensity bias: a region whose tissues are brighter or darker than they should be, each tissue by another amount.

The "disentangled anomaly generation" of DISYRE (Naval Marimont et al., arXiv 2311.15453) draws the shape (box,
ellipsoid, random blob), the softness of its edge and what fills it apart from each other. This file is its tissue-wise
bias; its foreign patches are those of ``foreign-patch`` and ``poisson``.
Tissues are clusters of the brain's intensities over all contrasts.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from scipy.cluster.vq import kmeans2, vq

from hybriduad.anomalies._base import Donors, present, unchanged, with_extent
from hybriduad.anomalies._looks import TurningConfig, drawn_shifts, inverted_by_looks
from hybriduad.anomalies._painting import nothing_to_paint
from hybriduad.anomalies._region import Form, Interval, IntervalFrom0, Share, draw_region
from hybriduad.core.types import Corruption

CLUSTERED_VOXELS = 4096
"""So many voxels at most, evenly spaced, decide what the clusters are."""


class Config(TurningConfig):
    """``diameter_mm``: that of the disc or ball of equal size; ``softness_mm``: width of the edge; ``forms`` drawn
    evenly; ``most_tissues``: clusters at most, at least 2; ``bias``: the largest shift of a tissue, of which the others
    have a share; ``bright``: probability of getting brighter, and ``inverted`` where darker, as
    :class:`~hybriduad.anomalies._looks.TurningConfig` says; pairs are (lowest, highest).
    """

    name: Literal["intensity-bias"] = "intensity-bias"
    diameter_mm: Interval = (6.0, 70.0)
    softness_mm: IntervalFrom0 = (0.0, 10.0)
    forms: tuple[Form, ...] = Field(("box", "ellipsoid", "blob"), min_length=1)
    most_tissues: int = Field(4, ge=2)
    bias: Interval = (0.2, 0.9)
    bright: Share = 0.5


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
    """Shift the intensities of a region tissue by tissue, by the same shares and another amount in every contrast.

    Args:
        config: size, shape, edge and shift.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: not used.

    Returns:
        The image with the region, which is the lesion from half of the shift on; the outer part of its edge is ignored.

    Raises:
        ConfigError: ``inverted`` lists another number of contrasts than the image has.
    """
    if nothing_to_paint(image, brain):
        return unchanged(image)
    region = draw_region(
        brain, rng, spacing_mm, diameter_mm=config.diameter_mm, softness_mm=config.softness_mm, forms=config.forms
    )
    here = present(image)
    tissues = int(rng.integers(2, config.most_tissues + 1))
    tissue = clusters(image[here], brain, tissues)
    changed = image.astype(np.float32)
    shifts = drawn_shifts(config, image, region.extent, rng, sizes=config.bias, bright=config.bright)
    shares = rng.uniform(0.3, 1.0, tissues)
    shares /= shares.max()
    for contrast, shift in shifts.items():
        changed[contrast] += region.weight * (shift * shares).astype(np.float32)[tissue]
    return with_extent(image, changed, region.extent, brain)


def clusters(image: np.ndarray, brain: np.ndarray, count: int) -> np.ndarray:
    """Which of at most ``count`` clusters of intensities every voxel of ``image`` (C, *space) is nearest to.

    They are the k-means of the ``brain`` voxels, started from its quantiles on the first contrast, darkest first.
    """
    voxels = image[:, brain].T.astype(np.float64)
    voxels = voxels[np.argsort(voxels[:, 0], kind="stable")]
    sample = voxels[np.linspace(0, len(voxels) - 1, min(len(voxels), CLUSTERED_VOXELS)).astype(int)]
    starts = np.unique(sample[((np.arange(count) + 0.5) / count * len(sample)).astype(int)], axis=0)
    centres = kmeans2(sample, starts, minit="matrix", missing="raise")[0] if len(starts) > 1 else starts
    return vq(image.reshape(len(image), -1).T.astype(np.float64), centres)[0].reshape(brain.shape)
