"""How far the outline of a mask is from that of the truth: surface Dice and HD95, in mm on the grid of the scan.

A mask's surface are its voxels with a face on another voxel, or on the edge of the volume, each counted once whatever
its area; distances are between centres of voxels. These are the definitions of MONAI (monai.metrics, spacing given).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from hybriduad.core.errors import DataError
from hybriduad.metrics.voxels import as_masks

TOLERANCE_MM = 1.0


class SurfaceFigures(NamedTuple):
    """``dice``: share of both surfaces, in [0, 1], within a tolerance of the other; ``hd95``: in mm."""

    dice: float
    hd95: float


def surface_figures(
    mask: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], *, tolerance_mm: float = TOLERANCE_MM
) -> SurfaceFigures:
    """Surface Dice at a tolerance (Nikolov et al. 2021, doi:10.2196/26151) and the larger of both 95th percentiles of
    the distances from one surface to the other, of two masks (X, Y, Z).

    Where one of them is empty the Dice is 0 and there is no HD95, nan; where both are, both are nan.

    Raises:
        DataError: no masks, or shapes that do not fit.
    """
    predicted, lesion = as_masks("surface_figures", mask=mask, truth=truth)
    if predicted.ndim != len(spacing_mm):
        raise DataError(
            "shapes that do not fit",
            where="surface_figures",
            got=f"mask {predicted.shape}, {len(spacing_mm)} spacings",
            expected="one spacing an axis",
        )
    if not predicted.any() or not lesion.any():
        return SurfaceFigures(0.0 if predicted.any() or lesion.any() else np.nan, np.nan)
    first, second = (np.argwhere(_surface(volume)) * np.asarray(spacing_mm) for volume in (predicted, lesion))
    distances = KDTree(second).query(first)[0], KDTree(first).query(second)[0]
    near = sum(int(np.count_nonzero(to_other <= tolerance_mm)) for to_other in distances)
    return SurfaceFigures(
        dice=near / (len(first) + len(second)), hd95=float(max(np.percentile(to_other, 95) for to_other in distances))
    )


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)
