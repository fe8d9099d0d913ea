"""What the lesion of a slice is like, painted or real: its size, contrast and place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

RING_MM = 8.0
"""How far around a lesion the tissue lies that it is compared with."""


@dataclass(frozen=True)
class Traits:
    """Of all lesion in a slice; nan where there is nothing to compare with.

    ``area_cm2``; ``diameter_mm`` of the disc as large as the largest part; ``parts``: how many, touching at corners
    counted as one. ``contrast``: median of the lesion minus that of the brain up to :data:`RING_MM` around it, on
    the range [-1, 1]; ``contrast_sd``: the same in standard deviations of the slice's brain outside the lesion.
    ``edge_mm``: median distance of its voxels from what is not brain, in the slice; ``height``: of the slice, 0 for the
    lowest judged slice to 1 for the highest; ``left``: the share of it that lies left of the brain's centre.
    ``change``: mean change inside and ``visibility`` (mean), of painted lesions.
    """

    area_cm2: float
    diameter_mm: float
    parts: int
    contrast: float
    contrast_sd: float
    edge_mm: float
    height: float
    left: float
    change: float = math.nan
    visibility: float = math.nan


def measure(
    image: np.ndarray,
    lesion: np.ndarray,
    ignore: np.ndarray,
    brain: np.ndarray,
    spacing_mm: tuple[float, ...],
    *,
    height: float,
    sided: bool,
) -> Traits:
    """Measure the lesion of a slice.

    Args:
        image: (H, W) in [-1, 1], one contrast with its lesion.
        lesion: (H, W) bool, not empty.
        ignore: (H, W) bool; neither lesion nor tissue to compare with.
        brain: (H, W) bool.
        spacing_mm: voxel size along H and W.
        height: of the slice, in [0, 1].
        sided: whether H runs from left to right; else ``left`` is nan.
    """
    voxel_mm2 = float(math.prod(spacing_mm))
    labels, parts = ndimage.label(lesion, structure=np.ones((3, 3)))
    largest = int(np.bincount(labels.ravel())[1:].max())
    tissue = brain & ~lesion & ~ignore
    ring = tissue & (ndimage.distance_transform_edt(~lesion, sampling=spacing_mm) <= RING_MM)
    contrast = float(np.median(image[lesion]) - np.median(image[ring])) if ring.any() else math.nan
    spread = float(image[tissue].std()) if tissue.any() else 0.0
    across = np.arange(len(brain))[:, None] < ndimage.center_of_mass(brain)[0]
    return Traits(
        area_cm2=np.count_nonzero(lesion) * voxel_mm2 / 100,
        diameter_mm=2 * math.sqrt(largest * voxel_mm2 / math.pi),
        parts=parts,
        contrast=contrast,
        contrast_sd=contrast / spread if spread > 0 else math.nan,
        edge_mm=float(np.median(ndimage.distance_transform_edt(brain, sampling=spacing_mm)[lesion])),
        height=height,
        left=float((lesion & across).sum() / lesion.sum()) if sided else math.nan,
    )
