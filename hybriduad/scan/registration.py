"""Rigid and affine registration by mutual information (Mattes et al. 2003, doi:10.1109/TMI.2003.809072).

No warp: it would deform lesions, or close them. Everything is looked at on cubes of a few millimetres, whatever the
slices; on one thread and without random samples, so that the same scans give the same matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from hybriduad.scan.resampling import one_thread, through_affine
from hybriduad.scan.template import Template

WORK_MM = 2.5
"""Side of the cubes that scans are registered on."""
FIELD_MM = 15.0
"""How much field is kept around a brain."""
DILATED_MM = 8.0
"""How far around the template's brain voxels count, from the second level on."""
TILTS_DEG = (0.0, -15.0, 15.0)
"""Rotations about the axis from left to right that are tried at first: heads nod more than they turn."""
BINS = 32


@dataclass(frozen=True)
class Field:
    """Something to register: ``data`` (X, Y, Z) in RAS, with an ``affine`` (4, 4) to millimetres; ``inside`` bool."""

    data: np.ndarray
    affine: np.ndarray
    inside: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """(3,): the centre of mass of what is inside, in millimetres."""
        return self.affine[:3, :3] @ ndimage.center_of_mass(self.inside) + self.affine[:3, 3]

    def cubes(self, side_mm: float, *, masked: bool) -> tuple[sitk.Image, sitk.Image, np.ndarray]:
        """The data around what is inside, and what is inside, on cubes along the axes of space; and the (4, 4) affine
        of the cubes. Of data that is ``masked`` nothing but the inside is left."""
        places = np.argwhere(self.inside)[:: max(1, int(self.inside.sum()) // 20_000)]
        points = places @ self.affine[:3, :3].T + self.affine[:3, 3]
        low, high = points.min(axis=0) - FIELD_MM, points.max(axis=0) + FIELD_MM
        x, y, z = (int(n) for n in np.ceil((high - low) / side_mm))
        target = np.diag([side_mm] * 3 + [1.0])
        target[:3, 3] = low
        index = np.linalg.inv(self.affine) @ target
        data = np.where(self.inside, self.data, 0) if masked else self.data
        # The brightest voxels are fat, vessels and enhancing lesions: they would leave few bins to the tissue.
        data = np.clip(data, 0, np.percentile(self.data[self.inside], 99.5))
        moved = through_affine(data, index, (x, y, z), linear=True)
        inside = through_affine(self.inside, index, (x, y, z), linear=True) >= 0.5
        return _image(moved, side_mm, low), _image(inside.astype(np.float32), side_mm, low), target


def _image(data: np.ndarray, side_mm: float, origin_mm: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    image.SetSpacing([side_mm] * 3)
    image.SetOrigin(origin_mm.tolist())
    return image


def to_template(scan: Field, template: Template) -> np.ndarray:
    """(4, 4): from millimetres of a scan to those of the template, 12 parameters; ``scan.inside`` is its brain.

    A similarity from the brain's middle, then an affine map. Of the scan nothing but the brain is looked at.
    """
    average = Field(template.image, template.affine, template.brain)
    fixed, brain, _ = average.cubes(WORK_MM, masked=True)
    moving, _, _ = scan.cubes(WORK_MM, masked=True)
    near = sitk.Cast(sitk.BinaryDilate(brain > 0.5, [round(DILATED_MM / WORK_MM)] * 3), sitk.sitkUInt8)
    centre, start = average.middle, scan.middle
    starts = []
    for tilt in TILTS_DEG:
        similarity = sitk.Similarity3DTransform()
        similarity.SetCenter(centre.tolist())
        similarity.SetRotation([1.0, 0.0, 0.0], np.deg2rad(tilt))
        similarity.SetTranslation((start - centre).tolist())
        starts.append((_optimise(fixed, moving, similarity, None, (4,), 200), similarity))
    _, similarity = min(starts, key=lambda start: start[0])
    _optimise(fixed, moving, similarity, near, (2,), 200)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(centre.tolist())
    affine.SetMatrix(similarity.GetMatrix())
    affine.SetTranslation(similarity.GetTranslation())
    _optimise(fixed, moving, affine, near, (2, 1), 200)
    return np.linalg.inv(_matrix(affine))


def rigid(moving: Field, fixed: Field) -> np.ndarray:
    """(4, 4): from millimetres of ``fixed`` to those of ``moving``, another contrast of the same head.

    From where the headers place the two, and from one middle upon the other.
    """
    still, _, _ = fixed.cubes(WORK_MM, masked=False)
    moved, _, _ = moving.cubes(WORK_MM, masked=False)
    centre = fixed.middle
    starts = []
    for shift in (np.zeros(3), moving.middle - centre):
        transform = sitk.Euler3DTransform()
        transform.SetCenter(centre.tolist())
        transform.SetTranslation(shift.tolist())
        starts.append((_optimise(still, moved, transform, None, (4,), 200), transform))
    _, transform = min(starts, key=lambda start: start[0])
    _optimise(still, moved, transform, None, (2, 1), 200)
    return _matrix(transform)


def displacement_mm(a: np.ndarray, b: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """(N,): how far apart two maps (4, 4) bring each of ``points_mm`` (N, 3)."""
    apart = (a - b)[:3]
    return np.asarray(np.linalg.norm(points_mm @ apart[:, :3].T + apart[:, 3], axis=1))


def _optimise(
    fixed: sitk.Image,
    moving: sitk.Image,
    transform: sitk.Transform,
    mask: sitk.Image | None,
    shrink: Sequence[int],
    iterations: int,
) -> float:
    """Change ``transform`` for the better, coarse to fine; the metric's value at the end, the lower the
    better, and infinity where the two do not meet."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    if mask is not None:
        method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=0.001,
        numberOfIterations=iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
        estimateLearningRate=method.Once,
        maximumStepSizeInPhysicalUnits=2.0,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(shrink))
    method.SetSmoothingSigmasPerLevel([0.5 * (factor**2 - 1) ** 0.5 for factor in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        with one_thread():
            method.Execute(fixed, moving)
    except RuntimeError:  # the two do not meet from that start
        return math.inf
    return float(method.GetMetricValue())


def _matrix(transform: Any) -> np.ndarray:
    """(4, 4) of a linear transform of SimpleITK, its centre included."""
    linear, shift = np.array(transform.GetMatrix()).reshape(3, 3), np.array(transform.GetTranslation())
    centre = np.array(transform.GetCenter())
    whole = np.eye(4)
    whole[:3, :3] = linear
    whole[:3, 3] = shift + centre - linear @ centre
    return whole
