"""The truth of a case on the grid of its prediction, and the region over which every figure is computed.

Region: the scan's brain *or* the lesion, without ``ignore`` voxels. The brain is the given mask on the scan's grid, or
the estimate there, whatever the grid of a model, so all systems are compared over the same voxels. Outside the
brain a score is 0 and a mask empty, so a lesion voxel there counts as missed: a small brain mask cannot raise a figure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.metrics import ScoreHistogram
from hybriduad.scan.grid import (
    DIRECTIONS,
    find_slice_axis,
    in_plane,
    to_slices,
)
from hybriduad.scan.preparation import mask_on_grid
from hybriduad.scan.slices import SMALLEST_BRAIN_MM2, enough_brain
from hybriduad.scan.volumes import Image, VolumeGrid, spacing_of, to_ras

CLEAR_MM = 10.0
"""A slice is lesion-free when this far, and at least a slice, from every lesion and ignored voxel."""
REGION = (
    "Figures are over the voxels of the scan's brain (the given mask, else the estimate, on the scan's own grid) or "
    "the lesion, without ignored voxels; outside the brain every score is 0, so lesion voxels there count as missed. A "
    "lesion-free slice has enough brain to be judged "
    f"({SMALLEST_BRAIN_MM2 / 100:g} cm2) and keeps {CLEAR_MM:g} mm, at least one slice, from every lesion."
)


SET_ASIDE = (
    "cases without a lesion to be found that are no healthy controls either, as all that is marked is ignored: %d; "
    "they count neither as ill nor as lesion-free scans; state health 'healthy' of those that are"
)
"""The warning of whoever sets such cases aside."""


@dataclass(frozen=True)
class Truth:
    """One case's truth, cropped to the box of its region; arrays (H, W, S), the acquired slices last.

    ``lesion`` and ``brain`` bool; ``region`` bool, where figures are computed; ``clear`` (S,) bool, the lesion-free
    slices; ``spacing_mm`` along H, W, S; ``control``: whether the scan is known to have no lesion; ``ignored`` counts
    voxels left out, ``outside`` lesion voxels outside the brain; ``region_digest`` is a sha256 of the region, the same
    in two evaluations that may be compared. :meth:`crop` brings any volume of the case's grid to the same arrays.
    """

    lesion: np.ndarray
    brain: np.ndarray
    region: np.ndarray
    clear: np.ndarray
    spacing_mm: tuple[float, float, float]
    control: bool
    ignored: int
    outside: int
    region_digest: str
    grid: VolumeGrid
    slice_axis: int
    box: tuple[slice, slice, slice]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing_mm) / 1000.0

    def crop(self, data: np.ndarray) -> np.ndarray:
        """(X, Y, Z) in the orientation of the file to (H, W, S) in the box, a view."""
        return _slices(data, self.grid, self.slice_axis)[self.box]

    def scores(self, data: np.ndarray) -> np.ndarray:
        """As :meth:`crop`, 0 outside the brain."""
        return np.where(self.brain, self.crop(data), np.float32(0))

    def histogram(self, scores: np.ndarray) -> ScoreHistogram:
        """Scores (H, W, S) of the region against the lesion."""
        counted = ScoreHistogram()
        counted.add(scores[self.region], self.lesion[self.region])
        return counted

    def clear_histogram(self, scores: np.ndarray) -> ScoreHistogram:
        """Scores (H, W, S) of the region in the lesion-free slices, all of them negatives."""
        counted = ScoreHistogram()
        inside = scores[self.region & self.clear]
        counted.add(inside, np.zeros(inside.shape, dtype=bool))
        return counted


def has_truth(case: Case) -> bool:
    """Whether it is known where the lesions are: a lesion mask, or health "healthy"; a missing mask says nothing.

    So it is of a mask that cannot be used: the case is not passed over, and reading its truth says why not.
    """
    return case.lesion is not None or case.health == "healthy" or "lesion" in case.faults


def read_truth(case: Case, brain: np.ndarray, grid: VolumeGrid, notes: Mapping[str, Any]) -> Truth:
    """The truth of a case on ``grid``, on which ``brain`` (X, Y, Z) bool lies in the orientation of its file.

    ``notes`` are those of the prediction: the ``direction`` of acquisition (sagittal, coronal, axial), by default the
    axis with the largest spacing, and the contrasts that were ``moved``. A mask on the grid of another of the case's
    contrasts goes with it and is resampled to the nearest voxel.

    Raises:
        DataError: no truth, a mask that cannot be read or is on none of the case's grids, or an empty brain.
    """
    if not has_truth(case):
        raise DataError("case without truth", where=case.name, expected="a lesion mask, or health 'healthy'")
    case.check(("lesion", "ignore"))
    spacing = spacing_of(grid.affine_ras)
    direction = notes.get("direction")
    axis = DIRECTIONS.index(direction) if direction in DIRECTIONS else find_slice_axis(spacing)
    marked = _slices(_mask(case, case.lesion, grid, "lesion", notes), grid, axis)
    ignore = _slices(_mask(case, case.ignore, grid, "ignore", notes), grid, axis)
    inside = _slices(brain, grid, axis)
    lesion = marked & ~ignore
    region = (inside | marked) & ~ignore
    if not (inside & ~ignore).any():
        raise DataError("no brain to evaluate in", where=case.name, got="an empty brain mask")
    spans = [np.flatnonzero(region.any(axis=in_plane(k))) for k in range(3)]
    box = (_span(spans[0]), _span(spans[1]), _span(spans[2]))
    near = (marked | ignore).any(axis=(0, 1))
    margin = max(1, math.ceil(CLEAR_MM / spacing[axis]))
    if near.any():
        near = ndimage.binary_dilation(near, iterations=margin)
    h, w = in_plane(axis)
    return Truth(
        lesion=lesion[box],
        brain=inside[box],
        region=region[box],
        clear=(~near & enough_brain(inside, (spacing[h], spacing[w])))[box[2]],
        spacing_mm=(spacing[h], spacing[w], spacing[axis]),
        control=not lesion.any() and (case.health == "healthy" or not marked.any()),
        ignored=int((inside & ignore).sum()),
        outside=int((lesion & ~inside).sum()),
        region_digest=_digest(np.moveaxis(region, -1, axis)),
        grid=grid,
        slice_axis=axis,
        box=box,
    )


def _digest(mask: np.ndarray) -> str:
    """The sha256 of a mask (X, Y, Z) in RAS: of its shape and its packed voxels."""
    digest = hashlib.sha256(str(mask.shape).encode())
    digest.update(np.packbits(mask).tobytes())
    return digest.hexdigest()


def _span(indices: np.ndarray) -> slice:
    return slice(int(indices[0]), int(indices[-1]) + 1)


def _slices(data: np.ndarray, grid: VolumeGrid, axis: int) -> np.ndarray:
    return to_slices(to_ras(Image(data, grid))[0], axis)


def _mask(case: Case, path: Path | None, grid: VolumeGrid, kind: str, notes: Mapping[str, Any]) -> np.ndarray:
    """(X, Y, Z) bool on ``grid``, in the orientation of its file; all False where the case has no such mask."""
    return np.zeros(grid.shape, dtype=bool) if path is None else mask_on_grid(path, case, kind, grid, notes)
