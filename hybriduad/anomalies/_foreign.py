"""Tissue from elsewhere: of another scan, or of another place in the same scan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from scipy import ndimage

from hybriduad.anomalies._base import Donor, Donors, present, unchanged
from hybriduad.anomalies._region import Region
from hybriduad.core.types import Corruption

Tissue = Callable[[], np.ndarray | None]
"""Draws tissue of :func:`foreign_tissue`: (C, *space) float32, or None where no donor had any."""

TRIES = 8
"""Donors and places that are tried before a slice is left as it is."""
LEAST_COVERED = 0.8
"""The share of a region for which the donor has to have brain."""
NEARBY = (0.6, 1.5)
"""How far tissue of the same scan comes from, in diameters of the region."""


class Provenance(Protocol):
    """Where the tissue of a generator comes from, as in :func:`foreign_tissue`."""

    @property
    def same_scan(self) -> float: ...

    @property
    def shift_mm(self) -> float: ...


def with_foreign_tissue(
    attempt: Callable[[Tissue], Corruption | None],
    config: Provenance,
    image: np.ndarray,
    brain: np.ndarray,
    region: Region,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None,
) -> Corruption:
    """The first corruption with a lesion of up to eight attempts; if none has any, the image unchanged.

    Args:
        attempt: makes its draws, among them, once, one of tissue, and paints; None where there was no tissue.
        config: of the generator.
        image, brain, region, rng, spacing_mm, donors: as in :func:`foreign_tissue`.
    """
    tissue = partial(
        foreign_tissue,
        image,
        brain,
        region,
        rng,
        spacing_mm=spacing_mm,
        donors=donors,
        same_scan=config.same_scan,
        shift_mm=config.shift_mm,
    )
    for _ in range(TRIES):
        corruption = attempt(tissue)
        if corruption is not None and corruption.lesion.any():
            return corruption
    return unchanged(image)


def foreign_tissue(
    image: np.ndarray,
    brain: np.ndarray,
    region: Region,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None,
    same_scan: float,
    shift_mm: float,
) -> np.ndarray | None:
    """Tissue to put into a region, millimetre by millimetre: (C, *space) float32.

    Args:
        image: (C, *space) float32 in [-1, 1].
        brain: (*space) bool.
        region: where the tissue will be used.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: lesion-free images, of any shape, are drawn from them; without, all tissue is of ``image``.
        same_scan: probability that the tissue is of another place of ``image``, mirrored along the first axis or not.
        shift_mm: the most that a donor's brain is moved along an axis, from lying centre on centre.

    Returns:
        None where no donor that was tried has every contrast of the image and brain in the region. Outside the donor's
        brain its nearest brain voxel is repeated.
    """
    extent, spacing = region.extent, np.asarray(spacing_mm)
    same = rng.random() < same_scan
    for _ in range(TRIES):
        if same or donors is None:
            donor = Donor(image, brain, np.zeros_like(brain), spacing_mm)
            scale = np.ones(brain.ndim)
            scale[0] = rng.choice((-1.0, 1.0))
            direction = rng.standard_normal(brain.ndim)
            away = direction / np.linalg.norm(direction) * rng.uniform(*NEARBY) * region.diameter_mm / spacing
            offset = region.centre * (1 - scale) + away
        else:
            donor = donors(rng, labelled=False)
            shift = rng.uniform(-1, 1, brain.ndim) * shift_mm / spacing
            if not donor.brain.any() or not present(donor.image)[present(image)].all():
                continue
            scale = spacing / np.asarray(donor.spacing_mm)
            middle = np.array(ndimage.center_of_mass(brain)) + shift
            offset = np.array(ndimage.center_of_mass(donor.brain)) - scale * middle
        shape = brain.shape
        inside = ndimage.affine_transform(donor.brain.astype(np.uint8), scale, offset, shape, order=0, cval=0) > 0
        if np.count_nonzero(inside & extent) >= LEAST_COVERED * np.count_nonzero(extent):
            nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
            moved = [ndimage.affine_transform(c.astype(np.float32), scale, offset, shape, order=1) for c in donor.image]
            return np.stack([contrast[tuple(nearest)] for contrast in moved])
    return None
