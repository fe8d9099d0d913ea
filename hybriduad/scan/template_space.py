"""A case in template space: shading taken out, registered by its brain, and brought to the template's model grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from hybriduad.config.runs import NATIVE, Anatomy
from hybriduad.core.errors import DataError
from hybriduad.core.types import BACKGROUND, WHITE
from hybriduad.scan.bias_field import bias_field
from hybriduad.scan.brain import find_head
from hybriduad.scan.grid import find_slice_axis, to_slices
from hybriduad.scan.placed import Placed
from hybriduad.scan.registration import Field, displacement_mm, register, rigid
from hybriduad.scan.resampling import through_affine
from hybriduad.scan.template import Template, template
from hybriduad.scan.template_grid import TemplateGrid, rows
from hybriduad.scan.volumes import Image, VolumeGrid, spacing_of, to_ras

FORMAT = 4
"""Part of the cache's key in template space: raised whenever :func:`place`, :func:`aligned` or :func:`along` give other
numbers."""
OVERLAP = 0.88
"""The least Dice of the outlines of a scan's brain and the template's, where the scan has voxels. Of real scans
(healthy, MS, tumours, white-matter lesions, with a skull and without) it was 0.91 to 0.97, and 0.84 to 0.87 of one that
its header turns upside down, back to front, or onto another axis: an affine map brings any close to a brain's shape."""
LEAST_OVERLAP = 0.75
"""The least Dice where the inside of the brain was registered: 0.84 of masks that are too wide, and more of others."""
APART_MM = 2.0
"""Two starts whose registrations end farther apart leave it unsure where the brain lies: nearly all end within 0.1 mm,
or some 10 mm apart."""
MOVED_MM = 0.7
"""Contrasts that lie closer to the reference than that stay as they are: interpolating would blur them for nothing."""


def registration_version(anatomy: Anatomy) -> dict[str, int]:
    """What a request of predictions or thresholds states of registration: nothing where scans are not registered."""
    return {} if anatomy.space == NATIVE else {"registration": FORMAT}


def aligned(scan: Image, reference: Image) -> tuple[np.ndarray | None, float]:
    """How another contrast of the same head comes onto the reference: (4, 4) in RAS millimetres, see :func:`along`, and
    by how many millimetres that moves the head on average; None and less than :data:`MOVED_MM` where it stays."""
    moving, fixed = _head(scan), _head(reference)
    matrix = rigid(moving, fixed)
    places = np.argwhere(fixed.inside)[::101] @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    moved_mm = float(displacement_mm(matrix, np.eye(4), places).mean())
    if moved_mm < MOVED_MM:
        return None, moved_mm
    return np.asarray(np.linalg.inv(matrix)), moved_mm


def along(grid: VolumeGrid, change: np.ndarray) -> VolumeGrid:
    """The grid of a scan that was moved by ``change`` (4, 4) in RAS millimetres, its voxels as they are."""
    return VolumeGrid.make(grid.shape, change @ grid.affine)


def lying(grid: VolumeGrid, contrast: str, notes: Mapping[str, Any]) -> VolumeGrid:
    """Where a contrast, or a mask that was drawn on it, was taken to lie, by the ``notes`` of the case as prepared."""
    moved = notes.get("moved", {}).get(contrast)
    return grid if moved is None else along(grid, np.array(moved["matrix"]))


def _head(scan: Image) -> Field:
    data, affine, _ = to_ras(scan)
    axis = find_slice_axis(spacing_of(affine))
    return Field(data, affine, np.moveaxis(find_head(to_slices(data, axis)), -1, axis))


def place(
    scans: Mapping[str, np.ndarray],
    covered: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    volume: VolumeGrid,
    anatomy: Anatomy,
    reference: str,
    where: str,
) -> Placed:
    """Bring a case from the grid of its reference scan to the model grid of ``anatomy`` in template space.

    Nothing but brain is left of the image: its voxels are averaged over those in the brain alone, so that scans with a
    skull and without one come out the same.

    Args:
        scans: of each contrast (X, Y, Z) in RAS, in the scan's units, the reference among them.
        covered: (X, Y, Z) bool for contrasts that have voxels in a part of the reference scan only.
        masks: ``brain``, and ``lesion`` and ``ignore`` if there are any, (X, Y, Z) bool.
        volume: the grid of the reference scan.
        anatomy: the contrasts in their order, and the grid.
        reference: the contrast that is registered.
        where: the name of the case.

    Raises:
        DataError: the brain does not come to lie on the template's, or a contrast has no signal in it.
    """
    brain, affine, average = masks["brain"], volume.affine_ras, template()
    inside = {name: brain & covered[name] if name in covered else brain for name in scans}
    for name in scans:
        if not inside[name].any() or np.median(scans[name][inside[name]]) <= 0:
            raise DataError(f"no signal of {name} in the brain", where=where)
    shading = {name: bias_field(Field(scan, affine, inside[name])) for name, scan in scans.items()}
    even = {name: scan / shading[name] for name, scan in scans.items()}
    matrix, outline, apart_mm = register(Field(even[reference], affine, brain), average)
    assert anatomy.spacing_mm is not None  # stated in every space but the native one
    shape, model = average.grid(anatomy.size, anatomy.spacing_mm)
    index = np.linalg.inv(affine) @ np.linalg.inv(matrix) @ model

    def moved(data: np.ndarray) -> np.ndarray:
        return through_affine(data, index, shape, linear=True)

    overlap = overlap_of(brain, index, shape, model, average)
    shapes = np.linalg.inv(affine) @ np.linalg.inv(outline) @ model
    alike = overlap_of(brain, shapes, shape, model, average)
    for dice, least in ((alike, OVERLAP), (overlap, LEAST_OVERLAP)):
        if not dice >= least:
            raise DataError(
                "a brain that does not lie on the template's after registration",
                where=where,
                got=f"an overlap (Dice) of {dice:.2f}",
                expected=f"{least:.2f} or more",
                mend="check the orientation in the scan's header and the brain mask, or use a bundle of native space",
            )
    median = {name: float(np.median(even[name][inside[name]])) for name in scans}
    grid = TemplateGrid(volume, shape, rows(model), rows(matrix), tuple(median.get(n, 0.0) for n in anatomy.contrasts))
    image = np.full((len(anatomy.contrasts), *shape), BACKGROUND, dtype=np.float32)
    bias = np.ones_like(image)
    valid = np.zeros(image.shape, dtype=bool)
    placed_brain = moved(brain) >= 0.5
    for position, name in enumerate(anatomy.contrasts):
        if name in scans:
            share = moved(inside[name])
            scaled = np.clip(even[name] * np.float32(1 / (WHITE * median[name])), 0, 1)
            within = moved(np.where(inside[name], scaled, 0)) / np.maximum(share, 0.1)
            valid[position] = moved(covered[name]) > 0.99 if name in covered else True
            shown = placed_brain & (share >= 0.5) & valid[position]
            image[position] = np.where(shown, np.clip(2 * within - 1, -1, 1), np.float32(BACKGROUND))
            bias[position] = np.exp(moved(np.log(shading[name])))
    return Placed(
        image=image,
        valid=valid,
        brain=placed_brain,
        foreground=placed_brain,
        lesion=_lesion(masks.get("lesion"), index, shape),
        ignore=moved(masks["ignore"]) >= 0.5 if "ignore" in masks else np.zeros(shape, dtype=bool),
        grid=grid,
        bias=bias,
        about={
            "name": anatomy.space,
            "spacing_mm": anatomy.spacing_mm,
            "overlap": round(overlap, 4),
            "outline": round(alike, 4),
            "apart_mm": round(apart_mm, 3),
            "matrix": [list(row) for row in grid.matrix],
        },
    )


def overlap_of(
    brain: np.ndarray, index: np.ndarray, shape: tuple[int, int, int], model: np.ndarray, average: Template
) -> float:
    """The Dice of the scan's brain and the template's on the model grid, where the scan has voxels."""
    seen = through_affine(np.ones(brain.shape, dtype=np.float32), index, shape, linear=False) > 0.5
    ours = through_affine(brain, index, shape, linear=True) >= 0.5
    theirs = through_affine(average.brain, np.linalg.inv(average.affine) @ model, shape, linear=True) >= 0.5
    theirs &= seen
    return float(2 * (ours & theirs).sum() / max(1, ours.sum() + theirs.sum()))


def _lesion(lesion: np.ndarray | None, index: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A lesion on the model grid; one that fills no half of any voxel keeps the voxel that most of it lies in."""
    x, y, z = shape
    if lesion is None:
        return np.zeros((x, y, z), dtype=bool)
    model = through_affine(lesion, index, (x, y, z), linear=True) >= 0.5
    labels, count = ndimage.label(lesion, structure=np.ones((3, 3, 3)))
    places = np.argwhere(labels)
    back = np.linalg.inv(index)
    voxels = np.rint(places @ back[:3, :3].T + back[:3, 3]).astype(int)
    known = ((voxels >= 0) & (voxels < shape)).all(axis=1)
    numbers, voxels = labels[tuple(places[known].T)], voxels[known]
    there = model[tuple(voxels.T)]
    for number in set(range(1, count + 1)) - set(numbers[there].tolist()):
        choices, sizes = np.unique(voxels[numbers == number], axis=0, return_counts=True)
        if len(choices):
            model[tuple(choices[sizes.argmax()])] = True
    return model
