"""Where the head and the brain are: thresholds and shape, no learning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from hybriduad.scan.brain_surface import Spacing, estimate_brain
from hybriduad.scan.grid import area_weights

WORK_MM = 2.0
"""Finer voxels are averaged to about this size before head and brain are looked for."""
MASKED = 0.99
"""Share of the voxels outside the foreground that have one value in a scan that was masked (raw scans: up to 0.83)."""


def find_head(data: np.ndarray) -> np.ndarray:
    """The head in slices (H, W, S): voxels above a robust threshold, holes filled slice by slice, largest component.

    The threshold is a tenth of the way from the 2nd to the 98th percentile (Smith 2002, doi:10.1002/hbm.10062). In a
    masked scan, which has one value outside, every voxel of another value counts.
    """
    low, high = np.percentile(data[::2, ::2], (2, 98))
    if high <= low:  # a small brain in a large empty field
        low, high = 0.0, float(np.percentile(data[data != 0], 98)) if (data != 0).any() else 1.0
    threshold = low + 0.1 * (high - low)
    head = _whole(ndimage.uniform_filter(data, (3, 3, 1)) > threshold)
    background, constant = _background(data, head)
    if constant:
        return _whole(data != background)
    rim = head & ~ndimage.binary_erosion(head, np.ones((3, 3, 1)))
    return head & ~(rim & (data <= threshold))  # the filter let it grow by a voxel


def _background(data: np.ndarray, head: np.ndarray) -> tuple[float, bool]:
    """The usual value outside the head, and whether the scan was masked: nearly all voxels there have it."""
    outside = data[~head]
    if outside.size == 0:
        return 0.0, False
    value = float(np.median(outside))
    return value, float((outside == value).mean()) > MASKED


def find_brain(
    data: np.ndarray,
    head: np.ndarray,
    spacing_mm: Spacing,
    slice_axis: int,
    outline: Callable[[], tuple[np.ndarray, str] | None] = lambda: None,
) -> tuple[np.ndarray, str]:
    """The brain (X, Y, Z) bool of a scan in RAS and the method: the whole head if the scan is stripped.

    ``outline`` is asked where it is not, and our own estimate is made where that gives None.
    The mask is empty where no brain is found, or where the head is smaller than a few millimetres.
    """
    shape = _work_shape(data.shape, spacing_mm)
    small, inside = _resize(data, shape), _resize(head, shape) >= 0.5
    if not inside.any():
        return np.zeros(head.shape, dtype=bool), "no head that stands out from its background"
    x, y, z = (s * n / m for s, n, m in zip(spacing_mm, data.shape, small.shape, strict=True))
    _, constant = _background(data, head)
    if is_stripped(depth_profile(small, inside, (x, y, z), slice_axis), constant):
        return head, "non-zero voxels of a stripped scan"
    if (outlined := outline()) is not None:
        return outlined
    brain = estimate_brain(small, inside, (x, y, z)).astype(np.float32)
    return (_resize(brain, data.shape) >= 0.5) & head, "surface fitted between brain and skull"


def is_stripped(profile: np.ndarray, constant: bool) -> bool:
    """Whether nothing but brain is left in a scan, from its :func:`depth_profile`.

    Going inwards, a head is bright (scalp) and then dark (skull); a brain is not. The dip is the least value of the
    profile over the largest value nearer to the surface. With ``constant`` background a dip above 0.62 is a brain, the
    rim counted as at most 1.5 (CSF on T2w); with noise outside, only a dip above 0.75 is.
    """
    if len(profile) < 2:
        return constant
    rim = np.minimum(profile, 1.5) if constant else profile
    dip = float((rim[1:] / np.maximum(np.maximum.accumulate(rim)[:-1], 0.05)).min())
    return dip > (0.62 if constant else 0.75)


def depth_profile(data: np.ndarray, head: np.ndarray, spacing_mm: Spacing, slice_axis: int) -> np.ndarray:
    """Median intensity by in-plane depth under the surface, in bins of 2 mm to 18 mm, over that deeper than 20 mm.

    From ten slices between 45 and 85 % of the head's extent along ``slice_axis``; empty where nothing lies that deep.
    """
    data, head = np.moveaxis(data, slice_axis, -1), np.moveaxis(head, slice_axis, -1)
    if not head.any():
        return np.zeros(0)
    first, last = np.flatnonzero(head.any(axis=(0, 1)))[[0, -1]]
    chosen = np.unique(
        np.linspace(first + 0.45 * (last - first), first + 0.85 * (last - first), 10).round().astype(int)
    )
    sampling = [spacing_mm[axis] for axis in range(3) if axis != slice_axis]
    pad = ((1, 1), (1, 1))
    depth = [ndimage.distance_transform_edt(np.pad(head[..., s], pad), sampling=sampling)[1:-1, 1:-1] for s in chosen]
    depths, values = np.stack(depth, axis=-1), data[..., chosen]
    deep = values[depths > 20]
    scale = float(np.median(deep)) if deep.size else 0.0
    bins = [values[(depths > low) & (depths <= low + 2)] for low in range(0, 18, 2)]
    return np.array([np.median(b) / scale for b in bins if b.size]) if scale > 0 else np.zeros(0)


def _work_shape(shape: tuple[int, ...], spacing_mm: Spacing) -> list[int]:
    return [max(1, round(n * min(1, s / WORK_MM))) for n, s in zip(shape, spacing_mm, strict=True)]


def _resize(data: np.ndarray, shape: list[int] | tuple[int, ...]) -> np.ndarray:
    for axis, length in enumerate(shape):
        old = data.shape[axis]
        if old != length:
            weights = area_weights(old, 0.0, old / length, length)
            data = np.moveaxis(np.tensordot(weights, np.asarray(data, dtype=np.float32), axes=(1, axis)), 0, axis)
    return np.asarray(data, dtype=np.float32)


def _whole(mask: np.ndarray) -> np.ndarray:
    """The largest 6-connected component, filled, and what lies around it: a dark skull can part scalp from brain."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    first, *smaller = np.argsort(-sizes, kind="stable")[: min(count, 4)]
    largest = labels == first
    whole = fill_slices(largest)
    for label in smaller:
        if sizes[label] > 0.02 * sizes[first]:
            around = fill_slices(labels == label)
            if (around & largest).sum() > 0.5 * sizes[first]:
                whole |= around
    return whole


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill holes slice by slice (H, W, S), since sinuses and ears open to the air through-plane."""
    in_slice = np.zeros((3, 3, 3), dtype=bool)
    in_slice[:, 1, 1] = in_slice[1, :, 1] = True
    outside, count = ndimage.label(np.pad(~mask, ((1, 1), (1, 1), (0, 0)), constant_values=True), in_slice)
    is_outside = np.zeros(count + 1, dtype=bool)
    is_outside[outside[0, 0]] = True
    return np.asarray(~is_outside[outside[1:-1, 1:-1]])
