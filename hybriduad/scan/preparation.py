"""Scan to model grid: reference grid, contrasts resampled to it, brain, crop or template, intensity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.config.runs import NATIVE, Anatomy
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.datasets._layout import MASKS
from hybriduad.scan import native_space, template_space
from hybriduad.scan.brain import find_brain, find_head
from hybriduad.scan.brain_ways import outline_brain
from hybriduad.scan.digests import mask_files
from hybriduad.scan.grid import (
    DIRECTIONS,
    Grid,
    ModelGrid,
    find_slice_axis,
    intensity_from_model,
    restore,
    to_slices,
)
from hybriduad.scan.refusals import refuse_no_scan
from hybriduad.scan.resampling import through_affine
from hybriduad.scan.volumes import (
    Image,
    VolumeGrid,
    check_mask_grid,
    from_ras,
    read_case_mask,
    read_grid,
    read_volume,
    same_grid,
    spacing_of,
    to_ras,
)

__all__ = [
    "Grid",
    "Prepared",
    "intensity_from_model",
    "mask_on_grid",
    "prepare",
    "resampled",
    "restore",
    "scan_on_grid",
]

FORMAT = 12
"""Part of the cache's key: raised whenever :func:`prepare` gives other numbers or refuses other files."""


@dataclass(frozen=True)
class Prepared:
    """One case on the model grid.

    ``image`` (C, H, W, S) float32 in [-1, 1], background -1; ``valid`` (C, H, W, S) bool, the voxels that a contrast's
    scan covers, none of an absent contrast; ``brain``, ``foreground``, ``lesion``, ``ignore`` (H, W, S) bool, the
    last two all False where the case has none; ``has_lesion_mask`` tells an empty lesion mask from a missing mask;
    ``spacing_mm`` along H, W, S; ``grid`` the way back for :func:`restore`; ``notes`` what was done, for the sidecar.
    The arrays may be read-only and memory-mapped.

    ``scan_brain`` (X, Y, Z) bool is the brain on the grid of the reference scan, in its file's orientation: as it was
    given or estimated, and the same for every model grid.

    In template space ``image`` holds nothing but brain, without the shading ``bias`` (C, H, W, S) float32 that a factor
    of the scan's intensity is; in native space there is none, and ``image`` shows the head.
    """

    image: np.ndarray
    valid: np.ndarray
    brain: np.ndarray
    foreground: np.ndarray
    lesion: np.ndarray
    ignore: np.ndarray
    has_lesion_mask: bool
    spacing_mm: tuple[float, float, float]
    grid: ModelGrid
    scan_brain: np.ndarray
    bias: np.ndarray | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def present(self) -> np.ndarray:
        """Which contrasts cover at least a voxel: (C,) bool."""
        return np.asarray(self.valid.any(axis=(1, 2, 3)))


def prepare(case: Case, anatomy: Anatomy, direction: str | None = None) -> Prepared:
    """Bring a case to the model grid of ``anatomy``; a pure function of the files.

    The reference scan gives the grid, the head and, without a mask, the brain: what is left of a stripped scan, else
    found as ``anatomy.brain`` says (:mod:`hybriduad.scan.brain_ways`). It need not be a contrast of
    ``anatomy``: a reference that the model does not know gives these alone, and the others are resampled to it.
    ``direction`` (sagittal, coronal or axial) is the acquisition direction that a bundle was trained on.

    Raises:
        DataError: the case has a fault in one of the contrasts or in a mask, has none of the contrasts, was acquired in
            another direction, a mask is on none of its grids, no brain is found, or a file cannot be used
            (:mod:`hybriduad.scan.volumes`, :mod:`hybriduad.scan.refusals`).
        ConfigError: what is to find the brain is not installed.
    """
    names = anatomy.contrasts
    case.check((*names, case.reference, *MASKS))
    if not any(name in case.images for name in names):
        needed = f"one of {list(names)}"
        raise DataError("no contrast that the bundle knows", where=case.name, got=sorted(case.images), expected=needed)
    reference = case.reference_contrast(names)
    if reference not in case.images:
        raise DataError("missing reference contrast", where=case.name, got=sorted(case.images), expected=reference)
    image = _read_scan(case.images[reference])
    spacing = spacing_of(image.grid.affine_ras)
    axis = find_slice_axis(spacing)
    native = anatomy.space == NATIVE
    if native and direction is not None and DIRECTIONS[axis] != direction:
        mend = "use a bundle that was trained on such slices"
        raise DataError(
            "another acquisition direction", where=case.name, got=DIRECTIONS[axis], expected=direction, mend=mend
        )
    other_scans = {n: _read_scan(case.images[n]) for n in names if n in case.images and n != reference}
    moved: dict[str, dict[str, Any]] = {}
    for name, scan in ({} if native else dict(other_scans)).items():
        change, apart_mm = template_space.aligned(scan, image)
        if change is not None:
            moved[name] = {"mm": round(apart_mm, 2), "matrix": change.tolist()}
            other_scans[name] = Image(scan.data, template_space.along(scan.grid, change))
    scans = {reference: image} | other_scans
    slices = {name: to_slices(_on_grid(scan, image.grid, linear=True), axis) for name, scan in scans.items()}
    fields = {name: to_slices(_coverage(scan, image.grid), axis) for name, scan in other_scans.items()}
    covered = {name: field for name, field in fields.items() if not field.all()}
    masks = {}
    for kind, path in mask_files(case).items():
        mask = _read_mask(path, case, kind, image.grid, {"moved": moved})
        masks[kind] = to_slices(_on_grid(mask, image.grid, linear=False), axis) > 0.5
    head = find_head(slices[reference])
    brain, method = _brain(image, axis, head, masks.get("brain"), case, anatomy)
    head |= brain
    inside = {name: brain & covered[name] if name in covered else brain for name in slices}
    notes: dict[str, Any] = {
        "space": anatomy.space,
        "direction": DIRECTIONS[axis],
        "reference": reference,
        "orientation_stated": image.grid.orientation_stated,
        "brain": {"method": method, "volume_ml": round(float(brain.sum()) * float(np.prod(spacing)) / 1000, 1)},
        "lacking": _lacking(inside, brain),
        "resampled": [name for name, scan in other_scans.items() if not same_grid(scan.grid, image.grid)],
    }
    if native:
        placed = native_space.place(
            slices, covered, masks | {"brain": brain, "head": head}, image.grid, axis, anatomy, case.name
        )
    else:
        volumes, covers, solids = (
            {name: np.moveaxis(part, -1, axis) for name, part in kind.items()}
            for kind in (slices, covered, masks | {"brain": brain})
        )
        placed = template_space.place(volumes, covers, solids, image.grid, anatomy, reference, case.name)
        notes["template"] = placed.about
        notes["moved"] = moved
    grid = placed.grid
    notes["intensity_median"] = {name: m for name, m in zip(names, grid.median, strict=True) if name in slices}
    return Prepared(
        image=placed.image,
        valid=placed.valid,
        brain=placed.brain,
        foreground=placed.foreground,
        lesion=placed.lesion,
        ignore=placed.ignore,
        has_lesion_mask="lesion" in masks,
        spacing_mm=grid.spacing_mm,
        grid=grid,
        scan_brain=from_ras(np.moveaxis(brain, -1, axis), image.grid.orientation),
        bias=placed.bias,
        notes=notes,
    )


def scan_on_grid(images: Mapping[str, Path], contrast: str, target: VolumeGrid, notes: Mapping[str, Any]) -> np.ndarray:
    """(X, Y, Z) float32 of a case's scan, on the grid and in the orientation of another file, as it is for the model.

    ``notes`` are those of the case's :class:`Prepared`: they say where the contrast was moved to, if it was.

    Raises:
        DataError: as :func:`hybriduad.scan.volumes.read_volume`.
    """
    scan = read_volume(images[contrast])
    return resampled(Image(scan.data, template_space.lying(scan.grid, contrast, notes)), target, linear=True)


def resampled(image: Image, target: VolumeGrid, *, linear: bool) -> np.ndarray:
    """(X, Y, Z) float32 of a volume, on the grid and in the orientation of another file: bit by bit where both have the
    same voxels in space, else interpolated linearly or, where not ``linear``, from the nearest voxel; 0 beyond it."""
    return from_ras(_on_grid(image, target, linear=linear), target.orientation)


def mask_on_grid(
    path: Path, case: Case, kind: str, target: VolumeGrid, notes: Mapping[str, Any] | None = None
) -> np.ndarray:
    """(X, Y, Z) bool of a mask of ``case``, on the grid and in the orientation of another file, by nearest voxels.

    ``notes`` are those of the case's :class:`Prepared`: a mask that was drawn on a contrast which was moved onto the
    reference, whose grid ``target`` is, goes with it.

    Raises:
        DataError: as :func:`hybriduad.scan.volumes.read_case_mask`, or on the grid of no scan of the case.
    """
    mask = _read_mask(path, case, kind, target, notes or {})
    return resampled(mask, target, linear=False) > 0.5


def _read_scan(path: Path) -> Image:
    image = read_volume(path)
    refuse_no_scan(image.data, path)
    return image


def _read_mask(path: Path, case: Case, kind: str, target: VolumeGrid, notes: Mapping[str, Any]) -> Image:
    """A mask; unless it lies on ``target``, where the first of the moved contrasts went on whose grid it was drawn."""
    mask = read_case_mask(path, case, kind)
    if same_grid(mask.grid, target):
        return mask
    check_mask_grid(path, mask.grid, case.images, kind)
    for name in sorted(notes.get("moved", {})):
        if same_grid(mask.grid, read_grid(case.images[name])):
            return Image(mask.data, template_space.lying(mask.grid, name, notes))
    return mask


def _on_grid(image: Image, target: VolumeGrid, *, linear: bool) -> np.ndarray:
    """(X, Y, Z) float32 in RAS on ``target``: as it is on the same grid, else resampled by the affines alone."""
    data, affine, _ = to_ras(image)
    if same_grid(image.grid, target):
        return np.asarray(data, dtype=np.float32)
    # Target index -> millimetres -> index of the image.
    index = np.linalg.inv(affine) @ target.affine_ras
    return through_affine(data, index, target.shape_ras, linear=linear)


def _coverage(image: Image, target: VolumeGrid) -> np.ndarray:
    """Where on ``target`` a scan has voxels, whatever they hold: (X, Y, Z) bool in RAS."""
    whole = Image(np.ones(image.grid.shape, dtype=np.float32), image.grid)
    return _on_grid(whole, target, linear=False) > 0.5


def _lacking(inside: dict[str, np.ndarray], brain: np.ndarray) -> dict[str, float]:
    """The share of the brain that a contrast does not cover, for contrasts that do not cover all of it."""
    shares = {name: round(1 - float(part.sum() / brain.sum()), 3) for name, part in inside.items()}
    return {name: share for name, share in shares.items() if share > 0}


def _brain(
    image: Image, axis: int, head: np.ndarray, given: np.ndarray | None, case: Case, anatomy: Anatomy
) -> tuple[np.ndarray, str]:
    """The brain in slices (H, W, S), and where it comes from: a mask, a stripped scan, or as ``anatomy`` says."""
    if given is not None:
        brain, method = given, "given mask"
    else:
        data, affine, _ = to_ras(image)
        found, method = find_brain(
            np.asarray(data, dtype=np.float32),
            np.moveaxis(head, -1, axis),
            spacing_of(affine),
            axis,
            lambda: outline_brain(image, anatomy, case.name),
        )
        brain = to_slices(found, axis)
    if not brain.any():
        raise DataError("no brain found", where=case.name, got=method, mend="check the scan, or give a brain mask")
    return brain, method
