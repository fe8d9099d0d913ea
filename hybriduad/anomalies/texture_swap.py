"""Texture swap: a region keeps its brightness and gets the fine structure of tissue elsewhere.

Detail is what a Gaussian takes away. That of the region is removed, and that of another place of the scan, or of
another scan, is put there at a drawn strength, in the spirit of the texture sources of DRAEM (arXiv 2108.07610), with
tissue in place of photographs of surfaces.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from hybriduad.anomalies._base import Donors, present, unchanged, with_extent
from hybriduad.anomalies._foreign import Tissue, with_foreign_tissue
from hybriduad.anomalies._painting import nothing_to_paint
from hybriduad.anomalies._region import Form, Interval, IntervalFrom0, Share, draw_region
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.types import Corruption

MOST_DETAIL = 2.0
"""Detail beyond so many standard deviations, such as the border of a ventricle, is cut: it is an edge, no texture."""


class Config(AnomalyConfig):
    """``diameter_mm``: that of the disc or ball of equal size; ``softness_mm``: width of the edge; ``detail_mm``: sigma
    of the Gaussian that parts detail from brightness; ``strength``: standard deviation of the new detail on the range
    [-1, 1]; pairs are (lowest, highest). ``forms`` are drawn evenly. ``same_scan``: probability that the detail is of
    another place of the scan; ``shift_mm``: the most that another scan is moved along an axis.
    """

    name: Literal["texture-swap"] = "texture-swap"
    diameter_mm: Interval = (15.0, 70.0)
    softness_mm: IntervalFrom0 = (0.0, 6.0)
    forms: tuple[Form, ...] = Field(("ellipsoid", "blob"), min_length=1)
    detail_mm: Interval = (4.0, 10.0)
    strength: Interval = (0.12, 0.4)
    same_scan: Share = 0.5
    shift_mm: float = Field(20.0, ge=0)


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Replace the fine structure of a region, in every contrast by that of the same tissue.

    Args:
        config: size of the region, scale and strength of the detail.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: lesion-free images of the same shape; without, the detail is of the same scan.

    Returns:
        The image with the region, all of which is the lesion; the outer part of its edge is ignored. Unchanged where
        eight draws gave no tissue with detail.
    """
    if nothing_to_paint(image, brain):
        return unchanged(image)
    region = draw_region(
        brain, rng, spacing_mm, diameter_mm=config.diameter_mm, softness_mm=config.softness_mm, forms=config.forms
    )
    sigma = rng.uniform(*config.detail_mm) / np.asarray(spacing_mm)

    def attempt(tissue: Tissue) -> Corruption | None:
        source = tissue()
        strength = rng.uniform(*config.strength)
        if source is None:
            return None
        changed = image.astype(np.float32)
        for contrast in np.flatnonzero(present(image)):
            detail = source[contrast] - ndimage.gaussian_filter(source[contrast], sigma)
            spread = float(detail[region.extent].std())
            plain = _smoothed(changed[contrast], brain, sigma)
            detail = np.clip(detail / max(spread, 1e-6), -MOST_DETAIL, MOST_DETAIL)
            content = plain + np.float32(strength) * detail
            changed[contrast] += region.weight * (content - changed[contrast])
        return with_extent(image, changed, region.extent, brain)

    return with_foreign_tissue(attempt, config, image, brain, region, rng, spacing_mm=spacing_mm, donors=donors)


def _smoothed(image: np.ndarray, brain: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The brightness (*space) of the brain without its detail; what is around the brain does not leak in."""
    total = ndimage.gaussian_filter(np.where(brain, image, np.float32(0)), sigma)
    return total / np.maximum(ndimage.gaussian_filter(brain.astype(np.float32), sigma), np.float32(1e-3))
