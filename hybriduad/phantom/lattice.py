"""Grids of points, smooth random fields on them, and trilinear sampling: the geometry under the phantom."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from hybriduad.core.errors import ConfigError

FIELD_OF_VIEW_MM = (168.0, 204.0, 176.0)
"""Left-right, back-front, bottom-top; every phantom fits."""
SAMPLE_MM = (1.5, 1.5, 2.0)
MAX_SAMPLES = (2, 2, 3)
"""A voxel averages points about SAMPLE_MM apart, at most so many an axis: partial volume in plane and in the slab."""


@dataclass(frozen=True)
class Grid:
    """The scan's voxels, and the finer points that a voxel averages. Axes are RAS, centred on the brain.

    ``shape`` (X, Y, Z) voxels; ``spacing_mm`` their distance; ``extent_mm`` the size of the box that a voxel
    averages: in plane the spacing, through the slices the slice thickness; ``samples`` points a voxel along each axis.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    samples: tuple[int, int, int]

    @staticmethod
    def make(spacing_mm: tuple[float, float, float], slice_thickness_mm: float | None = None) -> Grid:
        """The grid of axial slices ``spacing_mm[2]`` apart and ``slice_thickness_mm`` thick (None: no gap).

        Raises:
            ConfigError: a spacing or thickness that is not in [0.5, 10] mm.
        """
        thickness = spacing_mm[2] if slice_thickness_mm is None else slice_thickness_mm
        if len(spacing_mm) != 3 or not all(0.5 <= value <= 10 for value in (*spacing_mm, thickness)):
            got = f"spacing {tuple(spacing_mm)}, slice thickness {thickness}"
            raise ConfigError("impossible phantom grid", got=got, expected="three spacings, a thickness, of 0.5-10 mm")
        x, y, z = (math.ceil(size / step) for size, step in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True))
        extent = (spacing_mm[0], spacing_mm[1], thickness)
        limits = zip(extent, SAMPLE_MM, MAX_SAMPLES, strict=True)
        samples = tuple(min(most, math.ceil(size / step - 1e-9)) for size, step, most in limits)
        return Grid((x, y, z), (spacing_mm[0], spacing_mm[1], spacing_mm[2]), extent, samples)  # type: ignore[arg-type]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, from voxels to RAS millimetres, the origin in the middle of the field of view."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = [-step * (n - 1) / 2 for step, n in zip(self.spacing_mm, self.shape, strict=True)]
        return affine

    @property
    def point_ml(self) -> float:
        """Volume that a fine point stands for."""
        return math.prod(self.spacing_mm) / math.prod(self.samples) / 1000

    @property
    def axes_mm(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The coordinates of the fine points along each axis."""
        x, y, z = (self._axis(axis) for axis in range(3))
        return x, y, z

    def _axis(self, axis: int) -> np.ndarray:
        voxels = self.affine[axis, 3] + self.spacing_mm[axis] * np.arange(self.shape[axis])
        count = self.samples[axis]
        within = ((np.arange(count) + 0.5) / count - 0.5) * self.extent_mm[axis]
        return (voxels[:, None] + within).ravel()

    def average(self, points: np.ndarray) -> np.ndarray:
        """Mean of the fine points of each voxel: (*any, X*a, Y*b, Z*c) -> (*any, X, Y, Z)."""
        for axis, count in zip((-3, -2, -1), self.samples, strict=True):
            # Adding views, one axis after the other, is several times faster than a mean over three axes.
            shape = list(points.shape)
            shape[axis : axis + 1 or None] = [shape[axis] // count, count]
            views = np.moveaxis(points.reshape(shape), axis, 0)
            points = views[0] if count == 1 else views[0] + views[1]
            for view in views[2:]:
                points += view
        return points / np.float32(np.prod(self.samples))

    def lattice(self, step_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A coarse lattice over the field of view, one step_mm beyond it; the same for every grid."""
        counts = [math.ceil(size / step_mm / 2) + 2 for size in FIELD_OF_VIEW_MM]
        x, y, z = (step_mm * np.arange(-count, count + 1, dtype=float) for count in counts)
        return x, y, z

    def upsample(self, coarse: np.ndarray, step_mm: float) -> np.ndarray:
        """Linear interpolation of (C, *lattice) to the fine points: (C, *fine) float32."""
        matrices = []
        for axis, lattice in zip(self.axes_mm, self.lattice(step_mm), strict=True):
            position = (axis - lattice[0]) / step_mm
            matrices.append(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(len(lattice)))))
        return _separable(coarse, matrices)

    def noise(self, rng: np.random.Generator, wavelength_mm: float) -> np.ndarray:
        """A smooth random field of mean 0 and variance 1 on the fine points: (*fine) float32."""
        return smooth_field(rng, max(2, round(max(FIELD_OF_VIEW_MM) / wavelength_mm)), self.axes_mm)


def smooth_field(rng: np.random.Generator, control: int, axes_mm: tuple[np.ndarray, ...]) -> np.ndarray:
    """A cubic B-spline field with ``control`` random control points an axis of the field of view.

    Returns (len(x), len(y), len(z)) float32 of mean 0 and variance 1 over draws; axes are in mm from the centre.
    """
    coefficients = rng.standard_normal((control + 3,) * 3)
    matrices = []
    for axis, size in zip(axes_mm, FIELD_OF_VIEW_MM, strict=True):
        position = np.clip(axis / size + 0.5, 0, 1) * (control - 1) + 1
        matrices.append(_cubic(np.abs(position[:, None] - np.arange(control + 3))))
    scale = [np.sqrt((matrix**2).sum(axis=1).mean()) for matrix in matrices]
    return _separable(coefficients[None], [m / s for m, s in zip(matrices, scale, strict=True)])[0]


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic B-spline at ``distance`` >= 0 control points from its centre."""
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(0, 2 - distance) ** 3 / 6
    return np.where(distance < 1, near, far)


def _separable(coarse: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """(C, a, b, c) -> (C, A, B, C) by one matrix an axis, the last axis first: it is the cheapest order."""
    result = np.asarray(coarse, dtype=np.float32)
    x, y, z = (matrix.astype(np.float32) for matrix in matrices)
    result = result @ z.T
    result = np.matmul(y, result)
    channels, a, b, c = result.shape
    return np.matmul(x, result.reshape(channels, a, b * c)).reshape(channels, len(x), b, c)


def resample(maps: torch.Tensor, voxels: np.ndarray) -> np.ndarray:
    """Trilinear values of ``maps`` (C, X, Y, Z) at ``voxels`` (3, N), zero outside: (C, N) float32."""
    sizes = np.array(maps.shape[1:], dtype=np.float32)[:, None]
    unit = (2 * voxels.astype(np.float32) / (sizes - 1) - 1)[::-1]  # grid_sample wants the last axis first
    points = torch.from_numpy(np.ascontiguousarray(unit.T))[None, None, None]
    return torch.nn.functional.grid_sample(maps[None], points, align_corners=True)[0, :, 0, 0].numpy()
