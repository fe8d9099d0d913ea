"""The ICBM 2009a template of nilearn's wheel: what the space MNI152NLin2009aSym is, and its model grid.

Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033, and 2009, doi:10.1016/S1053-8119(09)70884-5: the average of 152
people, symmetric and without a skull.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import DataError, ToolError
from hybriduad.scan.volumes import read_volume, to_ras

MARGIN_MM = 4.0
"""Room above and below the template's brain on a model grid."""


@dataclass(frozen=True)
class Template:
    """The average head at 1 mm: ``image`` (X, Y, Z) float32, T1w in [0, 1], 0 outside the ``brain`` (X, Y, Z) bool;
    ``affine`` (4, 4) from its voxels to RAS millimetres of MNI space."""

    image: np.ndarray
    brain: np.ndarray
    affine: np.ndarray

    @functools.cached_property
    def box_mm(self) -> np.ndarray:
        """(2, 3): where the brain begins and ends along each axis."""
        spans = [np.flatnonzero(self.brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        ends = np.array([[inside[0] - 0.5, inside[-1] + 0.5] for inside in spans]).T
        return np.asarray(ends * np.diag(self.affine)[:3] + self.affine[:3, 3])

    def grid(self, size: int, spacing_mm: float) -> tuple[tuple[int, int, int], np.ndarray]:
        """The model grid: shape (size, size, S), and (4, 4) from its voxels to millimetres of MNI space.

        Cubes of ``spacing_mm`` in axial slices; the midline lies in the middle of H.
        """
        low, high = self.box_mm
        slices = math.ceil((high[2] - low[2] + 2 * MARGIN_MM) / spacing_mm)
        shape = (size, size, slices)
        middle = (low + high) / 2
        affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
        affine[:3, 3] = middle - spacing_mm * (np.array(shape) - 1) / 2
        return shape, affine


@functools.lru_cache(maxsize=1)
def template() -> Template:
    """Read the template, once a process.

    Raises:
        ToolError: this version of nilearn does not carry it.
    """
    image, affine = read_map("t1")
    return Template(image.astype(np.float32), ndimage.binary_fill_holes(image > 0), affine)


def read_map(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A map of the template, ``t1``, ``gm`` or ``wm``: (X, Y, Z) in RAS with a maximum of 1, and its (4, 4) affine.

    Raises:
        ToolError: this version of nilearn does not carry the map.
    """
    folder = importlib.resources.files("nilearn") / "datasets" / "data"
    with importlib.resources.as_file(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") as path:
        try:
            data, affine, _ = to_ras(read_volume(path))
        except DataError as error:
            mend = "install the nilearn version of requirements.lock"
            raise ToolError("no usable ICBM 2009a map in nilearn", where=path, got=str(error), mend=mend) from error
    return data / data.max(), affine
