"""How a lesion of a volume stands out from the tissue around it, whole and section by section; painted or real.

A section is a connected part (corners count) of a lesion in one slice, which is what a network of slices sees of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from hybriduad.evaluation.threshold_curve import is_hit
from hybriduad.evaluation.traits import RING_MM
from hybriduad.training.native_volume import NativeVolume

LEAST_CM2 = 0.1
"""Smaller sections are left out."""
CONTRASTS = ("under 0.3", "0.3-0.5", "0.5-0.8", "over 0.8")
"""Classes of contrast; the brain's median intensity is 0.8 on its scale."""
EDGES = (0.3, 0.5, 0.8)
TENTH = 10.0
"""The percentage of a lesion whose contrast counts, its most conspicuous part: as much must be in a mask for a hit."""


def contrast_class(contrast: float) -> str:
    """The class of :data:`CONTRASTS` that a contrast, of either sign, is in."""
    return CONTRASTS[int(np.searchsorted(EDGES, abs(contrast), side="right"))]


def contrast_of(
    images: np.ndarray, lesion: np.ndarray, tissue: np.ndarray, spacing_mm: Sequence[float]
) -> float | None:
    """How much the most conspicuous tenth of a lesion at least departs from the tissue around it.

    That is its 90th percentile, of a dark lesion its 10th, minus the median of the tissue up to
    :data:`~hybriduad.evaluation.traits.RING_MM` around it. A median would not do: real lesions are uneven, and are
    found by their brighter parts.

    Args:
        images: (C, *space) in [-1, 1]; of several contrasts that with the largest difference counts.
        lesion: (*space) bool.
        tissue: (*space) bool: brain without any lesion.
        spacing_mm: voxel size along each axis of space.

    Returns:
        The difference, None where there is no lesion or no tissue around it.
    """
    if not lesion.any():
        return None
    box = tuple(
        slice(max(0, part.start - reach), part.stop + reach)
        for part, reach in zip(
            ndimage.find_objects(lesion.astype(np.uint8))[0],
            (int(RING_MM / size) + 1 for size in spacing_mm),
            strict=True,
        )
    )
    inside = lesion[box]
    ring = tissue[box] & ~inside & (ndimage.distance_transform_edt(~inside, sampling=spacing_mm) <= RING_MM)
    if not ring.any():
        return None
    departures = []
    for image in images:
        values = image[box][inside] - np.median(image[box][ring])
        departures.append(float(np.percentile(values, 100 - TENTH if np.median(values) >= 0 else TENTH)))
    return max(departures, key=abs)


def look_of(
    volume: NativeVolume,
    images: np.ndarray,
    lesion: np.ndarray,
    tissue: np.ndarray,
    axis: int,
    mask: np.ndarray | None = None,
    before: np.ndarray | None = None,
) -> dict[str, Any]:
    """What a lesion looks like, as records hold it.

    Args:
        volume: what it lies in.
        images: (C, X, Y, Z) in [-1, 1], with the lesion.
        lesion: (X, Y, Z) bool.
        tissue: (X, Y, Z) bool, as in :func:`contrast_of`.
        axis: along which the slices lie, in RAS.
        mask: (X, Y, Z) bool, the predicted mask.
        before: (X, Y, Z) bool, the mask of the scan without the lesion: a section that it hits is not found.

    Returns:
        ``place``, where its centroid lies in the box around the brain, 0 left, back, bottom to 1; ``to_tissue``, the
        contrast to the tissue around, and ``sections``, for each its area in square centimetres, its
        own contrast in the slice and whether it is found, None without a mask.
    """
    plane = [size for number, size in enumerate(volume.spacing_mm) if number != axis]
    sections = []
    for index in np.flatnonzero(lesion.any(axis=tuple({0, 1, 2} - {axis}))):
        inside, around = (np.take(part, index, axis=axis) for part in (lesion, tissue))
        slices = np.take(images, index, axis=axis + 1)
        labels, count = ndimage.label(inside, structure=np.ones((3, 3)))
        for number in range(1, count + 1):
            section = labels == number
            area = float(section.sum() * np.prod(plane)) / 100
            contrast = contrast_of(slices, section, around, plane)
            if area < LEAST_CM2 or contrast is None:
                continue
            found = None
            if mask is not None:
                found = is_hit(np.take(mask, index, axis=axis), section)
                found &= before is None or not is_hit(np.take(before, index, axis=axis), section)
            sections.append([round(area, 3), round(contrast, 4), found])
    whole = contrast_of(images, lesion, tissue, volume.spacing_mm)
    place = [round(float(share), 3) for share in _place(lesion, volume.brain)] if lesion.any() else [0.5] * 3
    return {"place": place, "to_tissue": None if whole is None else round(whole, 4), "sections": sections}


def _place(lesion: np.ndarray, brain: np.ndarray) -> np.ndarray:
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    start, size = (np.array(values) for values in zip(*((s.start, s.stop - s.start) for s in box), strict=True))
    return np.asarray((np.argwhere(lesion).mean(axis=0) - start + 0.5) / size)
