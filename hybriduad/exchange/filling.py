"""Lesion filling: the pseudo-healthy reconstruction in place of the lesion, faded into the scan around it.

Tools that segment tissue or find the cortex fail on lesions; a scan without them they can read (lesion filling, DOI
10.1002/hbm.20480). What is filled in is smoother than tissue and is made up: it is no measurement.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SEAM_MM = 6.0
"""Default reach of a change around the mask. Its first third is filled like the lesion, whose border masks miss."""
RING_MM = 10.0
"""Width of the tissue around a lesion that says how bright the filling has to be, and the scale of that field."""


def fill_lesion(
    scan: np.ndarray,
    pseudo_healthy: np.ndarray,
    mask: np.ndarray,
    brain: np.ndarray,
    spacing_mm: tuple[float, float, float],
    seam_mm: float = SEAM_MM,
) -> tuple[np.ndarray, np.ndarray]:
    """The scan without its lesion: values (X, Y, Z) float32 in the scan's units, and where they differ, (X, Y, Z) bool.

    In the ``mask``, and up to a third of ``seam_mm`` from it, the values are ``pseudo_healthy``, brought to the
    brightness of the tissue around: by the mean difference of both in a ring of :data:`RING_MM`, carried inward by a
    Gaussian of that width. From there they fade to the scan. They differ nowhere outside the ``brain`` or farther
    than ``seam_mm`` from the mask.
    """
    unchanged = np.zeros(mask.shape, dtype=bool)
    mask = mask & brain
    if not mask.any():
        return scan.astype(np.float32), unchanged
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    core_mm = seam_mm / 3
    fade = np.clip((seam_mm - distance) / max(seam_mm - core_mm, 1e-6), 0.0, 1.0)
    weight = np.where(mask, 1.0, fade**2 * (3 - 2 * fade))  # smooth at both ends
    where = brain & (weight > 0) & (mask | (distance <= seam_mm))
    ring = brain & (distance > core_mm) & (distance <= core_mm + RING_MM)
    sigma = [RING_MM / size for size in spacing_mm]
    near = ndimage.gaussian_filter(ring.astype(np.float64), sigma)
    excess = ndimage.gaussian_filter(np.where(ring, scan - pseudo_healthy, 0.0).astype(np.float64), sigma)
    offset = np.divide(excess, near, out=np.zeros_like(near), where=near > 1e-6)
    filled = scan + weight * (pseudo_healthy + offset - scan)
    return np.where(where, filled, scan).astype(np.float32), where
