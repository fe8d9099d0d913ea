"""Healthy anatomy: the ICBM 2009a tissue maps of nilearn's wheel, bent into another head for every subject.

Fonov et al. 2009, doi:10.1016/S1053-8119(09)70884-5. The template is exactly symmetric and an average of 152 people, so
its maps are sharpened (fourth power, renormalised) and warped by smooth random displacements that differ by hemisphere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from hybriduad.core.rng import numpy_rng
from hybriduad.phantom.lattice import Grid, resample, smooth_field
from hybriduad.scan.places import depth_mm, lateral_ventricles
from hybriduad.scan.template import read_map

DISPLACEMENT_MM = {4: 2.6, 8: 2.4, 16: 1.9, 32: 0.85}
"""Control points an axis, and the standard deviation of the displacement at that scale in mm along each axis."""
ASYMMETRY = 0.5
"""Share of the displacement's variance that is drawn separately for the left and the right hemisphere."""
LATTICE_MM = 3.0
"""Displacements are summed on a lattice of this spacing and interpolated from there."""
PLACE_MM = 2
"""Voxel size of the maps that say where in the brain a point is."""
DISTANCES, TOWARDS = slice(0, 2), slice(2, 5)
"""Where ``Template.place`` holds the distance to the ventricles with the depth, and the vector to the ventricles."""

Push = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(template_mm (3, N), depth_mm (N,)) -> template_mm (3, N) of the tissue that was pushed there."""


@dataclass(frozen=True)
class Template:
    """A healthy head in MNI space: the average of 152 people, or a single person.

    ``tissue`` (3, X, Y, Z) float32 at 1 mm: grey matter, white matter and CSF, which sum to 1 inside the filled brain
    mask and to 0 outside. ``place`` (5, X, Y, Z) at 2 mm: the distance to the lateral ventricles (negative inside), the
    depth under the brain's surface, and a vector that points to the ventricles; all in mm. ``origin_mm`` is where
    voxel 0 of both lies in MNI space; ``centre_mm`` the middle of the brain; ``sharpness`` the power that makes borders
    of ``tissue`` crisp.
    """

    tissue: torch.Tensor
    place: torch.Tensor
    origin_mm: np.ndarray
    centre_mm: np.ndarray
    sharpness: float

    def sample_tissue(self, points_mm: np.ndarray) -> np.ndarray:
        """Grey matter, white matter, CSF at ``points_mm`` (3, N): (3, N) float32."""
        return resample(self.tissue, points_mm - self.origin_mm[:, None])

    def sample_place(self, points_mm: np.ndarray, maps: slice = slice(None)) -> np.ndarray:
        """The given ``maps`` of ``place`` at ``points_mm`` (3, N): (len(maps), N) float32."""
        return resample(self.place[maps], (points_mm - self.origin_mm[:, None]) / PLACE_MM)


@functools.lru_cache(maxsize=1)
def template() -> Template:
    """Read the template from nilearn's wheel: no download, once a process.

    Raises:
        DataError: this version of nilearn does not carry the maps.
    """
    maps = {}
    for name in ("t1", "gm", "wm"):
        maps[name], affine = read_map(name)
    mask = ndimage.binary_fill_holes(maps["t1"] > 0)
    grey, white = maps["gm"] * mask, maps["wm"] * mask
    csf = np.clip(mask - grey - white, 0, 1)
    tissue = np.stack([grey, white, csf]).astype(np.float32)
    corners = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    middle = np.array([(inside[0] + inside[-1]) / 2 for inside in corners])
    origin = affine[:3, 3]
    step = (slice(None, None, PLACE_MM),) * 3
    place = place_of(mask[step], lateral_ventricles(mask[step], csf[step], PLACE_MM))
    return Template(torch.from_numpy(tissue), place, origin, origin + middle, sharpness=4.0)


def place_of(mask: np.ndarray, ventricle: np.ndarray) -> torch.Tensor:
    """``Template.place`` from the brain's mask and its lateral ventricles, both (X, Y, Z) bool at 2 mm."""
    distance = ndimage.distance_transform_edt(~ventricle, sampling=PLACE_MM)
    distance = distance - ndimage.distance_transform_edt(ventricle, sampling=PLACE_MM)
    smooth = ndimage.gaussian_filter(distance, 1.0)
    towards = [-slope * np.exp(-np.abs(smooth) / 12.0) for slope in np.gradient(smooth, PLACE_MM)]
    return torch.from_numpy(np.stack([distance, depth_mm(mask, PLACE_MM), *towards]).astype(np.float32))


@dataclass(frozen=True)
class Person:
    """What shapes a head: ``age`` in years, ``sex`` (F or M), size and position in the scanner.

    ``scale`` of each axis relative to MNI space (3,), ``rotation`` (3, 3) and ``shift_mm`` (3,); ``ventricle_mm``, how
    far the ventricles grow to each side; ``csf_weight``, how wide the sulci are; ``strip_mm``, what the skull-stripping
    took off the template's brain.
    """

    age: int
    sex: str
    scale: np.ndarray
    rotation: np.ndarray
    shift_mm: np.ndarray
    ventricle_mm: float
    csf_weight: float
    strip_mm: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Person:
        """A random adult; with age the ventricles and sulci widen."""
        age = int(rng.integers(20, 81))
        sex = "FM"[int(rng.integers(2))]
        scale = 0.925 * (1 + 0.02 * (sex == "M") - 0.01) * (1 + 0.025 * rng.standard_normal())
        older = (age - 20) / 60
        return Person(
            age=age,
            sex=sex,
            scale=np.clip(scale * (1 + 0.02 * rng.standard_normal(3)), 0.83, 1.02),
            rotation=_rotation(np.deg2rad(rng.normal(0, [3.0, 2.0, 2.0]))),
            shift_mm=rng.normal(0, 1.5, 3),
            ventricle_mm=float(np.clip(rng.normal(-1.5 + 4.0 * older**1.5, 1.4), -3.5, 6.0)),
            csf_weight=float(np.exp(rng.normal(0.2 + 1.6 * older, 0.4))),
            strip_mm=float(rng.uniform(1.0, 3.0)),
        )


@dataclass(frozen=True)
class Anatomy:
    """A head on the fine points of a :class:`Grid` that lie in its brain: N of them, ``brain`` (X, Y, Z) says which.

    ``fractions`` (3, N): grey matter, white matter, CSF, which sum to 1. ``template_mm`` (3, N): where in MNI space a
    point comes from, which says what part of the brain it is. ``ventricle_mm`` and ``depth_mm`` (N,): distance to the
    lateral ventricles (negative inside) and to the brain's surface, measured on ``head``, which the tissue comes from.
    """

    head: Template
    grid: Grid
    person: Person
    brain: np.ndarray
    fractions: np.ndarray
    template_mm: np.ndarray
    ventricle_mm: np.ndarray
    depth_mm: np.ndarray

    def noise(self, rng: np.random.Generator, wavelength_mm: float) -> np.ndarray:
        """A smooth random field of mean 0 and variance 1 at the N points."""
        return self.grid.noise(rng, wavelength_mm)[self.brain]

    def pushed(self, push: Push, widened: np.ndarray | float = 1.0) -> Anatomy:
        """The same head after its tissue was pushed aside: other ``fractions`` at the same points.

        ``widened`` (N,) is a factor on how wide the sulci are.
        """
        source = push(self.template_mm, self.depth_mm)
        return replace(self, fractions=_sharpen(self.head, source, self.person.csf_weight * widened))

    def towards_ventricle(self, points_mm: np.ndarray) -> np.ndarray:
        """Vectors (3, N) to the lateral ventricles at ``points_mm`` (3, N), of length 1 or less, shorter far away."""
        return self.head.sample_place(points_mm, TOWARDS)


def draw_anatomy(seed: int, subject: int, grid: Grid, head: Template | None = None) -> Anatomy:
    """The head of subject ``subject``: a pure function of (seed, subject), whatever the grid, up to sampling.

    ``head`` is what is bent into it, by default the template.
    """
    head = template() if head is None else head
    person = Person.draw(numpy_rng(seed, "phantom", subject, "person"))
    lattice_mm = _displacement(numpy_rng(seed, "phantom", subject, "warp"), person, grid, head)
    place = head.sample_place(lattice_mm.reshape(3, -1), DISTANCES).reshape(2, *lattice_mm.shape[1:])
    x, y, z, ventricle, depth = grid.upsample(np.concatenate([lattice_mm, place]), LATTICE_MM)
    brain = depth > person.strip_mm
    inside = np.stack([x[brain], y[brain], z[brain]])
    fractions = _sharpen(head, inside, person.csf_weight)
    return Anatomy(head, grid, person, brain, fractions, inside, ventricle[brain], depth[brain])


def _sharpen(head: Template, points_mm: np.ndarray, csf_weight: np.ndarray | float) -> np.ndarray:
    """A power, and renormalise: the average of 152 heads gets borders as crisp as those of a single head."""
    powers = head.sample_tissue(points_mm) ** head.sharpness
    powers[2] *= csf_weight
    total = powers.sum(axis=0)
    powers[2, total < 1e-6] = 1.0
    return powers / powers.sum(axis=0)


def _rotation(angles: np.ndarray) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _displacement(rng: np.random.Generator, person: Person, grid: Grid, head: Template) -> np.ndarray:
    """(3, *lattice) float32: where in MNI space each lattice point's tissue comes from, in mm."""
    axes = grid.lattice(LATTICE_MM)
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    moved = np.stack(np.broadcast_arrays(x, y, z)).reshape(3, -1) - person.shift_mm[:, None]
    home = (person.rotation.T @ moved) / person.scale[:, None] + head.centre_mm[:, None]
    points = home.reshape(3, *(len(axis) for axis in axes))

    side = np.tanh(x / 8.0)  # the mirrored part must not tear the midline: its x component vanishes there
    mirrored_axes = (np.abs(axes[0]), axes[1], axes[2])
    for control, size in DISPLACEMENT_MM.items():
        for axis in range(3):
            asymmetric = smooth_field(rng, control, axes)
            shared = smooth_field(rng, control, mirrored_axes) * (side if axis == 0 else 1.0)
            points[axis] += size * (np.sqrt(ASYMMETRY) * asymmetric + np.sqrt(1 - ASYMMETRY) * shared)

    # Yakovlevian torque: the right frontal and the left occipital lobe protrude, and the midline bends.
    torque, bend = rng.normal(1.5, 1.0), rng.normal(1.5, 1.5)
    points[1] -= torque * np.tanh(x / 30.0)
    points[0] += bend * np.sin(np.pi * y / 180.0)

    towards = head.sample_place(points.reshape(3, -1), TOWARDS).reshape(points.shape)
    return (points + person.ventricle_mm * towards).astype(np.float32)
