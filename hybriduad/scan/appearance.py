"""Which contrast a scan looks like: the order of white matter, cortex and fluid, whatever the file is called.

On T1w white matter is brighter than cortex, on T2w, PDw and FLAIR it is darker; fluid is dark on T1w and FLAIR, bright
on T2w and PDw (Bernstein et al. 2004, doi:10.1016/B978-0-12-092861-3.X5000-6). T1w with contrast medium looks like T1w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

UPPER = 0.6
"""Share of the brain, from above, that is looked at: below lie skull base and eyes, which estimated brains hold too."""
FULL = 0.4
"""Slices with less brain than so much of the fullest are left out."""
RIM_MM = 5.0
"""Under the brain's surface, where an estimated brain may hold dura and bone."""
INNER_MM = 8.0
"""Depth from which the median is taken, and from which what is dark is fluid."""
TISSUE = (0.65, 1.5)
"""Of that median: below and above lie fluid, and lesions that are as dark or bright."""
BESIDE_MM, DEEP_MM = 6.0, 9.0
"""Tissue up to so far from fluid and from the brain's surface is mostly cortex; farther away it is white matter."""
LEAST_ML = 5.0
"""Of either, for a ratio."""
FLUID_PERCENTILE = 0.5
CORTEX_CUT, FLUID_CUT = 0.95, 0.55
"""Between T1w and the others, and between T2w or PDw and the others: set on the training and validation patients of
lgg, and on phantoms."""


class Traits(NamedTuple):
    """``cortex``: the median of tissue beside fluid or surface, over that of tissue far from both; ``fluid``: the
    darkest of the inner brain (percentile 0.5) over its median."""

    cortex: float
    fluid: float


SAID = ("tissue beside fluid is {:.2f} as bright as deep white matter", "the darkest fluid is {:.2f} of tissue")
"""Each trait in words, in their order."""


def contrast_traits(
    image: np.ndarray, valid: np.ndarray, brain: np.ndarray, spacing_mm: Sequence[float], direction: str
) -> Traits | None:
    """The traits of one contrast on the model grid; None where it shows too little of a brain.

    Args:
        image: (H, W, S) in [-1, 1], -1 for no signal.
        valid: (H, W, S) bool, the voxels that the contrast's scan covers.
        brain: (H, W, S) bool.
        spacing_mm: along H, W, S.
        direction: of the slices, "axial", "coronal" or "sagittal".
    """
    up = 2 if direction == "axial" else 1
    area = brain.sum(axis=tuple(axis for axis in range(3) if axis != up))
    if not area.any():
        return None
    above = (np.cumsum(area[::-1])[::-1] <= UPPER * area.sum()) & (area >= FULL * area.max())
    shape = [1, 1, 1]
    shape[up] = -1
    shown = brain & valid & above.reshape(shape)
    depth = _in_plane(brain, spacing_mm)
    inner = shown & (depth > INNER_MM)
    signal = (image.astype(np.float32) + 1) / 2
    median = float(np.median(signal[inner])) if inner.any() else 0.0
    if median <= 0:
        return None
    signal /= median
    tissue = brain & (signal > TISSUE[0]) & (signal < TISSUE[1])
    away = _in_plane(tissue, spacing_mm)
    looked = shown & tissue & (depth > RIM_MM)
    beside, deep = looked & (away <= BESIDE_MM), looked & (away > DEEP_MM)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    if min(beside.sum(), deep.sum()) * voxel_ml < LEAST_ML:
        return None
    cortex = float(np.median(signal[beside]) / np.median(signal[deep]))
    return Traits(cortex, float(np.percentile(signal[inner], FLUID_PERCENTILE)))


def looks_like(traits: Traits) -> str:
    """The kind of contrast with such traits: "T1w", "FLAIR", or "T2w or PDw"."""
    if traits.cortex < CORTEX_CUT:
        return "T1w"
    return "T2w or PDw" if traits.fluid >= FLUID_CUT else "FLAIR"


def kind_of(name: str) -> str | None:
    """The kind, as :func:`looks_like` has it, that a contrast of this name is of; None for a name that tells none."""
    lower = name.lower()
    if "flair" in lower:
        return "FLAIR"
    if lower.startswith("t1") and not lower.startswith(("t1rho", "t1map")):
        return "T1w"
    return "T2w or PDw" if lower in ("t2", "t2w", "pd", "pdw") else None


def _in_plane(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """How far each pixel of a mask (H, W, S) is from its border, within its slice, in mm; 0 outside."""
    padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)))
    depth = [ndimage.distance_transform_edt(padded[..., k], sampling=spacing_mm[:2]) for k in range(mask.shape[2])]
    return np.stack(depth, axis=-1)[1:-1, 1:-1]
