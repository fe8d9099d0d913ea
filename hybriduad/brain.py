"""Where the head and the brain are, in a scan that nobody has stripped: thresholds and morphology, no learning."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hybriduad.model_grid import apply_weights, area_weights


def find_head(data: np.ndarray) -> np.ndarray:
    """The head in slices (H, W, S): voxels above a robust threshold, largest component, holes filled slice by slice.

    The threshold is a tenth of the way from the 2nd to the 98th percentile (Smith 2002, doi:10.1002/hbm.10062).
    """
    low, high = np.percentile(data[::2, ::2], (2, 98))
    if high <= low:  # a small brain in a large empty field
        low, high = 0.0, float(np.percentile(data[data != 0], 98)) if (data != 0).any() else 1.0
    smooth = ndimage.uniform_filter(data, (3, 3, 1))
    mask = largest_component(smooth > low + 0.1 * (high - low))
    return fill_slices(mask)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 6-connected component of ``mask``; all False for an empty one."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill holes in every slice (H, W, S) on its own: through-plane, sinuses and ears open to the air."""
    return np.stack([ndimage.binary_fill_holes(mask[..., s]) for s in range(mask.shape[-1])], axis=-1)


WORK_MM = 2.0
"""In-plane pixel at which the brain is estimated."""


def estimate_brain(data: np.ndarray, head: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The brain inside an unstripped ``head``, both (H, W, S); an estimate by morphology at 2 mm in plane."""
    h, w = (max(1, round(n * s / WORK_MM)) for n, s in zip(data.shape[:2], spacing_mm[:2], strict=True))
    down = [area_weights(n, 0.0, n / m, m) for n, m in zip(data.shape[:2], (h, w), strict=True)]
    x = apply_weights(data, *down)
    inside = apply_weights(head, *down) >= 0.5
    brain = _work_brain(x, inside)
    up = [area_weights(m, 0.0, m / n, n) for n, m in zip(data.shape[:2], (h, w), strict=True)]
    return (apply_weights(ndimage.gaussian_filter(brain.astype(np.float32), (0.7, 0.7, 0)), *up) >= 0.5) & head


def _disk(radius_mm: float) -> np.ndarray:
    r = radius_mm / WORK_MM
    n = int(np.ceil(r))
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    return (x * x + y * y <= r * r + 1e-6)[..., None]


def _depth(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)))
    depth = np.stack([ndimage.distance_transform_edt(padded[..., s]) for s in range(mask.shape[-1])], -1)
    return depth[1:-1, 1:-1] * WORK_MM


def _work_brain(x: np.ndarray, head: np.ndarray) -> np.ndarray:
    depth = _depth(head)
    deep = depth > 0.6 * depth.max()
    median = float(np.median(x[deep]))
    tissue = head & (depth > 6) & (x > 0.5 * median)
    core = largest_component(ndimage.binary_erosion(tissue, _disk(4)))
    grown = ndimage.binary_dilation(core, _disk(6)) & tissue
    closed = ndimage.binary_closing(np.pad(grown, ((10, 10), (10, 10), (0, 0))), _disk(10))[10:-10, 10:-10]
    return fill_slices(closed) & (depth > 6)


def is_stripped(data: np.ndarray, head: np.ndarray, spacing_mm: tuple[float, float, float]) -> bool:
    """Whether the scan (H, W, S) is already stripped."""
    outside = data[~head]
    return bool(outside.size and (outside == np.median(outside)).mean() > 0.99)
