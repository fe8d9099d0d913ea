"""The model grid in template space, the same for every scan, and the way back to the scan's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.scan.resampling import through_affine
from hybriduad.scan.volumes import VolumeGrid, from_ras

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class TemplateGrid:
    """Cubes in axial slices of the template, and where they lie in the reference scan.

    ``volume`` is the grid of the reference file. ``affine`` (4, 4) brings voxels of the model grid to millimetres of
    the template, ``matrix`` (4, 4) millimetres of the scan to those of the template. ``median`` is, for each contrast,
    the brain's median intensity in the scan's units without its bias field, 0 where the contrast is absent.
    """

    volume: VolumeGrid
    shape: tuple[int, int, int]
    affine: Matrix
    matrix: Matrix
    median: tuple[float, ...]

    direction = "axial"
    """Slices are axial, however the scan was acquired."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a model voxel along H, W and S."""
        return self.affine[0][0], self.affine[1][1], self.affine[2][2]

    @property
    def from_scan(self) -> np.ndarray:
        """(4, 4): from voxels of the reference scan in RAS to those of the model grid."""
        return np.asarray(np.linalg.inv(self.affine) @ np.array(self.matrix) @ self.volume.affine_ras)

    def restore(self, array: np.ndarray, order: int, fill: float = 0.0) -> np.ndarray:
        """As :func:`hybriduad.scan.grid.restore`, in all three directions."""
        if array.shape != self.shape:
            raise DataError("array on another grid", got=array.shape, expected=f"the model grid {self.shape}")
        shape = self.volume.shape_ras
        data = through_affine(array, self.from_scan, shape, linear=order == 1, fill=fill)
        return np.ascontiguousarray(from_ras(data if order == 1 else data.astype(array.dtype), self.volume.orientation))

    def to_json(self) -> dict[str, Any]:
        """A mapping that JSON holds without loss."""
        return {
            "volume": self.volume.to_json(),
            "shape": list(self.shape),
            "affine": [list(row) for row in self.affine],
            "matrix": [list(row) for row in self.matrix],
            "median": list(self.median),
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> TemplateGrid:
        """The way back of :meth:`to_json`."""
        h, w, s = record["shape"]
        return TemplateGrid(
            volume=VolumeGrid.from_json(record["volume"]),
            shape=(h, w, s),
            affine=rows(record["affine"]),
            matrix=rows(record["matrix"]),
            median=tuple(record["median"]),
        )


def rows(matrix: Any) -> Matrix:
    """A matrix as tuples, which can be compared and written."""
    return tuple(tuple(float(value) for value in row) for row in matrix)
