"""Foreign patch interpolation: a patch of another scan, blended in by a factor.

FPI (Tan, Hou, Batten, Qiu, Kainz, arXiv 2011.04197): inside a box x' = (1 - a) x + a y, y another scan at the same
place; the network regresses a, which is the visibility here. The paper's patches lie where they were; here the other
brain lies centre on centre, moved a little, and the patch may come from another place of the same scan.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from hybriduad.anomalies._base import Donors, unchanged, with_extent
from hybriduad.anomalies._foreign import Tissue, with_foreign_tissue
from hybriduad.anomalies._painting import nothing_to_paint
from hybriduad.anomalies._region import Form, Interval, Opacity, Share, draw_region
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.types import Corruption


class Config(AnomalyConfig):
    """``diameter_mm``: that of the disc or ball of equal size; ``forms``: of the patch; ``opacity``: the factor of
    blending; pairs are (lowest, highest). ``same_scan``: probability that the patch is of another place of the scan
    (a training takes 0 at its word: of another case, from about the same height of the brain); ``shift_mm``: the most
    that the other scan is moved along an axis.
    """

    name: Literal["foreign-patch"] = "foreign-patch"
    diameter_mm: Interval = (12.0, 60.0)
    forms: tuple[Form, ...] = Field(("box",), min_length=1)
    opacity: Opacity = (0.2, 1.0)
    same_scan: Share = 0.25
    shift_mm: float = Field(15.0, ge=0)


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Blend a patch of foreign tissue into an image, the same patch by the same factor in every contrast.

    Args:
        config: size, form and blending of the patch.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: lesion-free images of the same shape; without, the patch is of the same scan.

    Returns:
        The image with the patch, the whole of which is the lesion, of the visibility of its factor. Other tissue is
        drawn, up to eight times, where it hardly differs; then the image is unchanged.
    """
    if nothing_to_paint(image, brain):
        return unchanged(image)
    region = draw_region(brain, rng, spacing_mm, diameter_mm=config.diameter_mm, forms=config.forms)
    weight = region.extent.astype(np.float32)

    def attempt(tissue: Tissue) -> Corruption | None:
        opacity = np.float32(rng.uniform(*config.opacity))
        source = tissue()
        if source is None:
            return None
        changed = image + opacity * weight * (source - image)
        return with_extent(image, changed, region.extent, brain, opacity=float(opacity))

    return with_foreign_tissue(attempt, config, image, brain, region, rng, spacing_mm=spacing_mm, donors=donors)
