"""Rigid and affine registration by mutual information (Mattes et al. 2003, doi:10.1109/TMI.2003.809072).

No warp: it would deform lesions, or close them. Everything is looked at on cubes of a few millimetres, whatever the
slices; on one thread and without random samples, so that the same scans give the same matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
"""How far around the template's brain voxels count in the second level of the similarity."""
TILTS_DEG = (0.0, -15.0, 15.0)
"""Rotations about the axis from left to right that are tried at first: heads nod more than they turn."""
STRETCHES = (1.0, 1.1, 1.2)
"""By how much a brain is heightened at first: the template is higher than most brains that are as long and wide."""
ASPECT = 1.5
"""By how much more a head may be stretched along one axis than along another, 1.1 to 1.25 as a rule; beyond that its
tissue led astray, as with a mask that holds the face, and the outlines alone are brought together."""
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

    @property
    def stripped(self) -> bool:
        """Whether there is nothing but zeros outside."""
        return not self.data[~self.inside].any()

    @property
    def typical(self) -> float:
        """The median of what is inside."""
        return float(np.median(self.data[self.inside]))

    def cubes(self, side_mm: float, *, outside: float | None = None) -> tuple[sitk.Image, sitk.Image, np.ndarray]:
        """The data around what is inside, and what is inside, on cubes along the axes of space; and the (4, 4) affine
        of the cubes. Everything else, beyond the scan's end too, is set to ``outside``, if that is stated."""
        places = np.argwhere(self.inside)[:: max(1, int(self.inside.sum()) // 20_000)]
        points = places @ self.affine[:3, :3].T + self.affine[:3, 3]
        low, high = points.min(axis=0) - FIELD_MM, points.max(axis=0) + FIELD_MM
        x, y, z = (int(n) for n in np.ceil((high - low) / side_mm))
        target = np.diag([side_mm] * 3 + [1.0])
        target[:3, 3] = low
        index = np.linalg.inv(self.affine) @ target
        data = self.data if outside is None else np.where(self.inside, self.data, np.float32(outside))
        # The brightest voxels are fat, vessels and enhancing lesions: they would leave few bins to the tissue.
        data = np.clip(data, 0, np.percentile(self.data[self.inside], 99.5))
        moved = through_affine(data, index, (x, y, z), linear=True, fill=outside or 0.0)
        inside = through_affine(self.inside, index, (x, y, z), linear=True) >= 0.5
        return _image(moved, side_mm, low), _image(inside.astype(np.float32), side_mm, low), target


def _image(data: np.ndarray, side_mm: float, origin_mm: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    image.SetSpacing([side_mm] * 3)
    image.SetOrigin(origin_mm.tolist())
    return image


class Registration(NamedTuple):
    """``matrix`` (4, 4) from millimetres of a scan to those of the template; ``outline`` (4, 4), likewise, brings the
    outline of the brain onto the template's, whatever is in it; ``apart_mm`` is by how much the two best of
    :data:`STRETCHES` differ at the end, on average over the template's brain: next to nothing where one answer fits."""

    matrix: np.ndarray
    outline: np.ndarray
    apart_mm: float


def to_template(scan: Field, template: Template) -> np.ndarray:
    """(4, 4): as :func:`register`, without how sure that is."""
    return register(scan, template).matrix


def register(scan: Field, template: Template) -> Registration:
    """From millimetres of a scan to those of the template, 12 parameters; ``scan.inside`` is its brain.

    A similarity of brains on a dark ground finds the place and the size, from the brain's middle. The affine map of a
    stripped scan goes on so. That of a head looks within the template's brain alone, at a scan whose outside is as
    bright as its typical tissue: the rim of an estimated brain mask, which is often too wide at the skull's base, would
    else outweigh all tissue. Every affine map begins at several heights of the brain, which slices that are thick or
    end within it leave open.
    """
    average = Field(template.image, template.affine, template.brain)
    fixed, brain, _ = average.cubes(WORK_MM, outside=0.0)
    dark, _, _ = scan.cubes(WORK_MM, outside=0.0)
    centre, start = average.middle, scan.middle
    similar = []
    for tilt in TILTS_DEG:
        similarity = sitk.Similarity3DTransform()
        similarity.SetCenter(centre.tolist())
        similarity.SetRotation([1.0, 0.0, 0.0], np.deg2rad(tilt))
        similarity.SetTranslation((start - centre).tolist())
        similar.append((_optimise(fixed, dark, similarity, None, (4,), 200), similarity))
    _, similarity = min(similar, key=lambda end: end[0])
    near = sitk.Cast(sitk.BinaryDilate(brain > 0.5, [round(DILATED_MM / WORK_MM)] * 3), sitk.sitkUInt8)
    _optimise(fixed, dark, similarity, near, (2,), 200)
    outline = _stretched(similarity, 1.0)
    ground, region = dark, near
    if not scan.stripped:
        _optimise(fixed, dark, outline, near, (4, 2), 200)
        ground, _, _ = scan.cubes(WORK_MM, outside=scan.typical)
        region = sitk.Cast(brain > 0.5, sitk.sitkUInt8)
    ends = []
    for stretch in STRETCHES:
        affine = _stretched(similarity, stretch)
        ends.append((_optimise(fixed, ground, affine, region, (4, 2), 200), affine))
    ends.sort(key=lambda end: end[0])
    points = np.argwhere(average.inside)[::997] @ average.affine[:3, :3].T + average.affine[:3, 3]
    apart = displacement_mm(_matrix(ends[0][1]), _matrix(ends[1][1]), points).mean()
    _, affine = ends[0]
    _optimise(fixed, ground, affine, region, (1,), 200)
    if not scan.stripped and np.linalg.cond(_matrix(affine)[:3, :3]) > ASPECT:
        affine = outline
        _optimise(fixed, dark, affine, near, (1,), 200)
    matrix = np.linalg.inv(_matrix(affine))
    return Registration(matrix, matrix if scan.stripped else np.linalg.inv(_matrix(outline)), float(apart))


def _stretched(similarity: sitk.Similarity3DTransform, stretch: float) -> sitk.AffineTransform:
    """A similarity from the template to a scan as an affine map, for a brain that is to be so many times as high."""
    affine = sitk.AffineTransform(3)
    affine.SetCenter(similarity.GetCenter())
    linear = np.array(similarity.GetMatrix()).reshape(3, 3) @ np.diag([1.0, 1.0, 1 / stretch])
    affine.SetMatrix(linear.ravel().tolist())
    affine.SetTranslation(similarity.GetTranslation())
    return affine


def rigid(moving: Field, fixed: Field) -> np.ndarray:
    """(4, 4): from millimetres of ``fixed`` to those of ``moving``, another contrast of the same head.

    From where the headers place the two, and from one middle upon the other.
    """
    still, _, _ = fixed.cubes(WORK_MM)
    moved, _, _ = moving.cubes(WORK_MM)
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
