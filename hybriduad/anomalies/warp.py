"""Sink and source: tissue drawn towards a centre, or pushed away from it, without a change of its grey values.

The deformations of "Many tasks make light work" (Baugh et al., arXiv 2307.01140). Here what lies r from the centre
comes from r (1 +- s (1 - (r / R)^2)^2), which is smooth at the rim R and folds nothing; tissue at the border of the
brain stays. The extent is all tissue that moved, visible or not: moved within the same tissue it looks as before.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field
from scipy import ndimage

from hybriduad.anomalies._base import Donors, unchanged, with_extent
from hybriduad.anomalies._painting import nothing_to_paint
from hybriduad.anomalies._region import Interval, Share, distance_mm
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.types import Corruption

TRIES = 8
"""Places that are tried before an image is left as it is."""
LEAST_MOVED_MM = 0.5
"""Tissue that moved by less than this, or by less than a quarter of a voxel, counts as still."""
BORDER_MM = 4.0
"""Width over which the displacement fades out towards the border of the brain."""
LARGEST_STRENGTH = 0.9


def _unfolded(strength: tuple[float, float]) -> tuple[float, float]:
    if strength[1] > LARGEST_STRENGTH:
        raise ValueError(f"at most {LARGEST_STRENGTH}, above which a source comes near folding")
    return strength


class Config(AnomalyConfig):
    """``radius_mm``: R; ``strength``: s, relative displacement at the centre, at most 0.9; pairs are (lowest, highest).
    ``sink``: probability of drawing tissue in, which makes things smaller, rather than pushing it out.
    """

    name: Literal["warp"] = "warp"
    radius_mm: Interval = (12.0, 35.0)
    strength: Annotated[Interval, AfterValidator(_unfolded)] = (0.45, 0.85)
    sink: Share = Field(0.5)


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Move tissue towards a centre or away from it, the same way in every contrast.

    Args:
        config: size and strength.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: not used.

    Returns:
        The deformed image; its lesion is what moved. Where too little of that shows, in the midst of the same tissue,
        another place is drawn, up to eight times; then the image is unchanged.
    """
    if nothing_to_paint(image, brain):
        return unchanged(image)
    clean = image.astype(np.float32)
    places = np.argwhere(brain)
    room = ndimage.distance_transform_edt(brain, sampling=spacing_mm)
    room = np.clip(room / BORDER_MM - 0.5, 0, 1)
    for _ in range(TRIES):
        radius, strength = rng.uniform(*config.radius_mm), rng.uniform(*config.strength)
        sign = 1 if rng.random() < config.sink else -1
        offset = distance_mm(brain.shape, places[rng.integers(len(places))], spacing_mm)
        distance = np.sqrt((offset**2).sum(axis=0))
        share = strength * np.clip(1 - (distance / radius) ** 2, 0, None) ** 2 * room
        # With its centre, which does not move but is enclosed by tissue that moves.
        moved = ndimage.binary_fill_holes(share * distance > max(LEAST_MOVED_MM, 0.25 * min(spacing_mm)))
        column = (-1, *[1] * brain.ndim)
        source = np.indices(brain.shape, np.float32)
        source += sign * share * offset / np.asarray(spacing_mm, np.float32).reshape(column)
        changed = [ndimage.map_coordinates(contrast, source, order=1, mode="nearest") for contrast in clean]
        corruption = with_extent(clean, np.stack(changed), moved & brain, brain)
        if corruption.lesion.any():
            return corruption
    return unchanged(image)
