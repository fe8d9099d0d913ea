"""The mid-sagittal plane of a brain, found on the volume itself: the plane about which it is most like its mirror."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize

SMOOTH_MM, LOCAL_MM = 2.5, 8.0
"""Standard deviations of the Gaussians between which detail is kept: tissue borders, neither noise nor large tumours.

A tumour across the plane is like itself in the mirror, and would draw the plane through its own middle.
"""
LEAST_SMOOTHING = 0.6
"""Of a Gaussian's standard deviation, in voxels: less, and planes that need no interpolation look best."""
APART_MM = 8.0
"""Brain voxels that are compared with their mirror are about so far apart along every axis, or neighbours."""
STARTS_DEGREES = np.arange(-24.0, 25.0, 8.0)
LARGEST_DEGREES = 30.0
"""A head lies no farther turned or tilted in a scanner."""
STEP = 3.0
"""Millimetres and degrees of the first steps away from the start."""
DEEP_MM, FEWEST_VOXELS = 50.0, 5
"""How far, and over how many voxels, a brain reaches at least along an axis towards which a plane can be turned."""


@dataclass(frozen=True)
class Plane:
    """The points p with normal p = ``offset_mm``, in mm along the axes of a volume from the middle of its first voxel.

    ``normal`` (3,) is of length 1.
    """

    normal: np.ndarray
    offset_mm: float

    def mirrored(self, points_mm: np.ndarray) -> np.ndarray:
        """The mirror images (3, N) of points (3, N), in mm."""
        distance = self.normal @ points_mm - self.offset_mm
        return np.asarray(points_mm - 2 * self.normal[:, None] * distance)


def find_plane(
    image: np.ndarray, valid: np.ndarray, brain: np.ndarray, spacing_mm: Sequence[float], lateral: int
) -> Plane:
    """The plane that parts the left of a brain from its right; a pure function of the volume.

    ``image`` (C, H, W, S) in [0, 1], ``valid`` (C, H, W, S) bool, ``brain`` (H, W, S) bool, not empty; ``lateral`` is
    the axis, 0 to 2, that runs from left to right. The start is the symmetric axis of the brain: through its centroid,
    turned in plane by that of -24 to 24 degrees at which brain and mirror overlap most. Shift and rotation, and where
    the slices show it tilt, are then those of the largest correlation of image and mirror, smoothed and without what is
    wider than about 2 cm, plus the overlap (Nelder-Mead). That the plane is that of the largest correlation is of
    Ardekani et al. 1997, doi:10.1109/42.650892.
    """
    spacing = np.array(spacing_mm, dtype=np.float64)
    outline = _smoothed(brain, SMOOTH_MM, spacing)
    details = [_detail(values, here & brain, spacing) for values, here in zip(image, valid, strict=True) if here.any()]
    places = _places(brain, spacing)
    points, centroid = places * spacing[:, None], (np.argwhere(brain) * spacing).mean(axis=0)
    here_values = [detail[tuple(places)] for detail in details]
    turned = [axis for axis in range(3) if axis != lateral and _deep(brain, spacing, axis)]

    def plane(values: np.ndarray) -> Plane:
        normal = np.zeros(3)
        normal[lateral] = 1.0
        normal[turned] = np.tan(np.radians(values[1:]))
        normal /= np.linalg.norm(normal)
        return Plane(normal, float(normal @ centroid + values[0]))

    def overlap(mirror: np.ndarray) -> float:
        return float(_at(outline, mirror).mean())

    def unlikeness(values: np.ndarray) -> float:
        if np.abs(values[1:]).max(initial=0.0) > LARGEST_DEGREES:
            return 1.0
        mirror = plane(values).mirrored(points) / spacing[:, None]
        alike = [_correlation(values, _at(detail, mirror)) for values, detail in zip(here_values, details, strict=True)]
        return -float(np.mean(alike)) - overlap(mirror)

    starts = np.zeros((len(STARTS_DEGREES) if turned else 1, 1 + len(turned)))
    if turned:
        starts[:, 1] = STARTS_DEGREES[np.argsort(np.abs(STARTS_DEGREES), kind="stable")]  # of equals the least turned
    overlaps = [overlap(plane(start).mirrored(points) / spacing[:, None]) for start in starts]
    start = starts[int(np.argmax(overlaps))]
    simplex = np.vstack([start, start + STEP * np.eye(len(start))])
    options = {"initial_simplex": simplex, "xatol": 0.05, "fatol": 1e-4, "maxiter": 150}
    return plane(optimize.minimize(unlikeness, start, method="Nelder-Mead", options=options).x)


def _smoothed(values: np.ndarray, sigma_mm: float, spacing: np.ndarray) -> np.ndarray:
    sigma = np.maximum(sigma_mm / spacing, LEAST_SMOOTHING)
    return np.asarray(ndimage.gaussian_filter(values.astype(np.float32), sigma, truncate=2.0))


def _detail(values: np.ndarray, here: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """What an image (H, W, S) holds beside its mean over the surroundings ``here``, smoothed; 0 elsewhere."""
    weighted, weight = (_smoothed(field, LOCAL_MM, spacing) for field in (values * here, here))
    return _smoothed(np.where(here, values - weighted / np.maximum(weight, 1e-3), 0), SMOOTH_MM, spacing)


def _places(brain: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """(3, N): a regular sample of the brain's voxels, all of them where that would be empty."""
    steps = np.maximum(1, np.rint(APART_MM / spacing)).astype(int)
    sample = np.zeros_like(brain)
    sample[tuple(slice(step // 2, None, step) for step in steps)] = True
    chosen = brain & sample
    return np.argwhere(chosen if chosen.any() else brain).T


def _deep(brain: np.ndarray, spacing: np.ndarray, axis: int) -> bool:
    reach = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
    voxels = int(reach[-1] - reach[0]) + 1
    return voxels >= FEWEST_VOXELS and voxels * spacing[axis] >= DEEP_MM


def _at(field: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Linear interpolation (N,) at ``places`` (3, N) in voxels; beyond the volume its edge goes on."""
    return np.asarray(ndimage.map_coordinates(field, places, order=1, mode="nearest", prefilter=False))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one of the two is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
