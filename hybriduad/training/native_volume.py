"""A case on the voxels of its own reference scan, to be painted into, and the way of a painting into its files.

A change that is painted on the model grid and carried back would keep the fine detail of the tissue that it replaces,
and would have to be cut at the lesion's border; here neither is so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hybriduad.config.runs import Anatomy
from hybriduad.core.errors import DataError
from hybriduad.core.types import BACKGROUND, WHITE, Case, Corruption
from hybriduad.scan.preparation import prepare, resampled
from hybriduad.scan.volumes import Image, VolumeGrid, from_ras, read_grid, read_volume, spacing_of, to_ras


@dataclass(frozen=True)
class NativeVolume:
    """The scans of a case on the voxels of its reference scan, in RAS, cut to the ``box`` around the brain.

    ``image`` (C, X, Y, Z) float32 in [-1, 1] as on a model grid, ``valid`` (C, X, Y, Z) and ``brain`` (X, Y, Z) bool;
    ``median`` the brain's median intensity for each contrast, 0 where it is absent; ``grid`` that of the reference.
    """

    image: np.ndarray
    valid: np.ndarray
    brain: np.ndarray
    spacing_mm: tuple[float, float, float]
    box: tuple[slice, ...]
    median: tuple[float, ...]
    grid: VolumeGrid

    def on_scan(self, values: np.ndarray) -> np.ndarray:
        """``values`` of the box on the whole reference scan, in its file's orientation; 0 around the box."""
        whole = np.zeros(self.grid.shape_ras, values.dtype)
        whole[self.box] = values
        return from_ras(whole, self.grid.orientation)

    def of_scan(self, values: np.ndarray) -> np.ndarray:
        """The way back of :meth:`on_scan`: what the box holds of ``values``, which lie on the whole reference scan."""
        return np.asarray(to_ras(Image(values, self.grid))[0][self.box])

    def scan_with(self, painted: Corruption, scan: Image, contrast: int) -> np.ndarray:
        """``scan``, the contrast at that index, with what was painted into this volume: (X, Y, Z) float32.

        Outside lesion and ignore it is the scan's, bit by bit, and nowhere below the scan's lowest value. On another
        grid than the reference's the change is interpolated. Whole numbers stay whole: fractions in the lesion alone
        would give it away.
        """
        touched = painted.lesion | painted.ignore
        change = (painted.image[contrast] - self.image[contrast]) * np.float32(WHITE * self.median[contrast] / 2)
        moved = resampled(Image(self.on_scan(change), self.grid), scan.grid, linear=True)
        there = resampled(Image(self.on_scan(touched.astype(np.float32)), self.grid), scan.grid, linear=False) > 0.5
        changed = np.maximum(scan.data + moved, scan.data.min())
        data = np.where(there & (moved != 0), changed, scan.data)
        return np.rint(data) if (scan.data == np.rint(scan.data)).all() else data


def native_volume(case: Case, contrasts: Sequence[str], brain: np.ndarray | None = None) -> NativeVolume:
    """The scans of a case, as many of ``contrasts`` as it has, to be painted into.

    ``brain`` (X, Y, Z) bool on the grid of the reference scan, in its file's orientation: where lesions may lie, by
    default the case's mask or our estimate. Intensities are on the scale of its median.

    Raises:
        DataError: as :func:`hybriduad.scan.preparation.prepare`.
    """
    brain = prepare(case, Anatomy(contrasts=tuple(contrasts))).scan_brain if brain is None else brain
    grid = read_grid(case.images[case.reference_contrast(tuple(contrasts))])
    whole = to_ras(Image(brain, grid))[0]
    box = ndimage.find_objects(whole.astype(np.uint8))[0]
    image = np.full((len(contrasts), *whole[box].shape), BACKGROUND, np.float32)
    valid = np.zeros(image.shape, bool)
    median = [0.0] * len(contrasts)
    for index, name in enumerate(contrasts):
        if name not in case.images:
            continue
        scan = read_volume(case.images[name])
        everywhere = Image(np.ones(scan.grid.shape, np.float32), scan.grid)
        data, inside = (
            to_ras(Image(resampled(part, grid, linear=linear), grid))[0][box]
            for part, linear in ((scan, True), (everywhere, False))
        )
        valid[index] = inside > 0.5
        median[index] = float(np.median(data[whole[box] & valid[index]]))
        if not median[index] > 0:
            raise DataError(f"no signal of {name} in the brain", where=case.name, got=f"median {median[index]:g}")
        scaled = 2 * np.clip(data / np.float32(WHITE * median[index]), 0, 1) - 1
        image[index] = np.where(valid[index], scaled, np.float32(BACKGROUND))
    return NativeVolume(image, valid, whole[box], spacing_of(grid.affine_ras), box, tuple(median), grid)
