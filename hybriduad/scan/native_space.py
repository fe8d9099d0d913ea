"""A case in native space: the slices as they were acquired, cropped to the head and resampled in plane."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hybriduad.config.runs import Anatomy
from hybriduad.core.errors import DataError
from hybriduad.scan.grid import Grid, cover, image_to_model, in_plane, lesion_to_model, mask_to_model
from hybriduad.scan.placed import Placed
from hybriduad.scan.volumes import VolumeGrid, spacing_of

MARGIN_MM = 4.0
"""Room around the head in the square."""


def place(
    scans: Mapping[str, np.ndarray],
    covered: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    volume: VolumeGrid,
    axis: int,
    anatomy: Anatomy,
    where: str,
) -> Placed:
    """Bring a case from the acquired slices of its reference scan to the model grid of ``anatomy``.

    Args:
        scans: of each contrast (H, W, S), in the scan's units.
        covered: (H, W, S) bool for contrasts that have voxels in a part of the reference scan only.
        masks: ``brain`` and ``head``, and ``lesion`` and ``ignore`` if there are any, (H, W, S) bool.
        volume: the grid of the reference scan.
        axis: along which its slices lie, in RAS.
        anatomy: the contrasts in their order, and the size of a slice.
        where: the name of the case.

    Raises:
        DataError: a contrast has no signal in the brain.
    """
    brain, head, names = masks["brain"], masks["head"], anatomy.contrasts
    spacing = spacing_of(volume.affine_ras)
    h, w = in_plane(axis)
    corner, step = cover(head, (spacing[h], spacing[w]), anatomy.size, MARGIN_MM)
    inside = {name: brain & covered[name] if name in covered else brain for name in scans}
    medians = tuple(_median(scans[name][inside[name]], name, where) if name in scans else 0.0 for name in names)
    grid = Grid(volume, axis, anatomy.size, corner, step, medians)
    image, valid = image_to_model([scans.get(n) for n in names], [covered.get(n) for n in names], head, grid)
    return Placed(
        image=image,
        valid=valid,
        brain=mask_to_model(brain, grid),
        foreground=mask_to_model(head, grid),
        lesion=lesion_to_model(masks.get("lesion"), grid),
        ignore=mask_to_model(masks.get("ignore"), grid),
        grid=grid,
    )


def _median(values: np.ndarray, name: str, where: str) -> float:
    median = float(np.median(values)) if values.size else 0.0
    if median <= 0:
        raise DataError(f"no signal of {name} in the brain", where=where, got=f"median {median:g}")
    return median
