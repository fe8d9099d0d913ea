"""Real lesions of labelled slices, carried into lesion-free slices of other subjects (CarveMix, arXiv 2108.06883).

The lesion is turned, scaled and shifted, and blended into the slice with a margin; its surroundings are brought to the
intensity of the tissue that they meet there. The lesions of a few labelled patients thus appear in the brains of all
others, mirrored too where the donors are mirrored. It needs labelled slices to draw from, so it is no generator for the
first stage.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator
from scipy import ndimage

from hybriduad.anomalies._base import (
    MINIMUM_BRAIN_VOXELS,
    Donor,
    Donors,
    finish,
    present,
    unchanged,
)
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.errors import DataError
from hybriduad.core.types import BACKGROUND, Corruption

NEEDS_LABELS = True
TRIES = 8
"""Donors and places that are tried before a slice is left as it is."""
SURROUNDINGS_MM = 8.0
"""How far around the lesion tissue is compared."""


class Config(AnomalyConfig):
    """``margin_mm``: (least, most) width of the blended border. ``shift_mm``: the most that a lesion moves along an
    axis, from its place relative to the centre of the brain. ``turn_degrees``: the most that it turns in plane.
    ``ln_scale``: the most that the logarithm of its size changes. ``inside``: the least share of it in the brain.
    """

    name: Literal["transplant"] = "transplant"
    margin_mm: tuple[float, float] = (1.0, 6.0)
    shift_mm: float = Field(15.0, ge=0)
    turn_degrees: float = Field(20.0, ge=0)
    ln_scale: float = Field(0.2, ge=0)
    inside: float = Field(0.7, gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Config:
        if not 0 < self.margin_mm[0] <= self.margin_mm[1]:
            raise ValueError("margin_mm must be two numbers, 0 < least <= most")
        return self


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Carry one labelled lesion into an image.

    Args:
        config: how the lesion may be moved and how it is blended in.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: labelled images of the same shape; of another spacing, their lesions keep their size in mm.

    Returns:
        The image with the lesion, its mask and visibility; the blended border is ignored. Unchanged where no donor that
        was tried has a lesion and every contrast of the image, or no such lesion has room.

    Raises:
        DataError: no donors at all.
    """
    here = present(image)
    if np.count_nonzero(brain) < MINIMUM_BRAIN_VOXELS or not here.any():
        return unchanged(image)
    if donors is None:
        raise DataError("no lesion to transplant", got="no donors", expected="labelled slices to draw from")
    for _ in range(TRIES):
        donor = donors(rng, labelled=True)
        if not donor.lesion.any() or not present(donor.image)[here].all():
            continue
        source, around, lesion = _moved(config, donor, brain, rng, spacing_mm)
        if lesion.any() and np.count_nonzero(lesion & brain) >= config.inside * np.count_nonzero(lesion):
            break
    else:
        return unchanged(image)
    shared = around & brain
    distance_mm = ndimage.distance_transform_edt(~lesion, sampling=spacing_mm)
    weight = np.where(shared, np.clip(1 - distance_mm / rng.uniform(*config.margin_mm), 0, 1), 0).astype(np.float32)
    ring = shared & (distance_mm > 0) & (distance_mm < SURROUNDINGS_MM)
    changed = image.astype(np.float32)
    for contrast in np.flatnonzero(here):
        offset = float(np.median(image[contrast][ring]) - np.median(source[contrast][ring])) if ring.any() else 0.0
        changed[contrast] += weight * (source[contrast] + offset - image[contrast])
    return finish(image, changed, lesion & shared, weight > 0, brain)


def _moved(
    config: Config, donor: Donor, target: np.ndarray, rng: np.random.Generator, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A donor's image, brain and lesion, millimetre by millimetre, turned, scaled and shifted to the ``target`` brain.

    Its lesion lies as far from the centre of the brain, in mm, as in the donor, but for the shift.
    """
    axes = donor.lesion.ndim
    ratio = np.asarray(spacing_mm) / np.asarray(donor.spacing_mm)  # voxels of the donor in one of the target
    angle, scale = np.deg2rad(rng.uniform(-1, 1) * config.turn_degrees), np.exp(rng.uniform(-1, 1) * config.ln_scale)
    matrix = np.eye(axes)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix /= scale
    matrix *= ratio
    shift = np.subtract(ndimage.center_of_mass(target), np.array(ndimage.center_of_mass(donor.brain)) / ratio)
    shift += rng.uniform(-1, 1, axes) * config.shift_mm / np.asarray(spacing_mm)
    centre = np.array(ndimage.center_of_mass(donor.lesion))
    offset = centre - matrix @ (centre / ratio + shift)

    def move(values: np.ndarray, outside: float) -> np.ndarray:
        moved: np.ndarray = ndimage.affine_transform(
            values.astype(np.float32), matrix, offset, order=1, mode="constant", cval=outside
        )
        return moved

    pictures = np.stack([move(contrast, BACKGROUND) for contrast in donor.image])
    return pictures, move(donor.brain, 0.0) > 0.5, move(donor.lesion, 0.0) > 0.5
