"""Volumes that no brain scan can be: noise, inverted, centred on 0. Refused before anything is done with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hybriduad.core.errors import DataError

LEAST_STRUCTURE = 0.3
"""Correlation of neighbouring voxels; noise alone has 0, scans and heavily noised scans 0.8 and more."""
ONE_VALUE = 0.9
"""Share of the voxels of one value from which on a volume is a mask or a small brain in a large field."""
BRIGHTEST_BORDER = 1.1
"""Brightness of the volume's sides over that of the upper quartile in its middle, both above the darkest voxels."""
MOST_NEGATIVE = 0.1
"""Share of the middle below 0: magnitudes have none there, resampling leaves a few in a thousand."""
SAMPLES = 64
"""Voxels along an axis that are looked at, at most."""


def refuse_no_scan(data: np.ndarray, where: Path) -> None:
    """Make sure that the voxels (X, Y, Z) of a file can be those of a head in air, or of a stripped brain.

    Raises:
        DataError: neighbouring voxels that have nothing in common, sides brighter than the middle, or a middle with
            negative values.
    """
    if (structure := _structure(data)) < LEAST_STRUCTURE:
        raise DataError(
            "nothing but noise",
            where=where,
            got=f"neighbouring voxels that correlate by {structure:.2f}",
            expected=f"{LEAST_STRUCTURE} or more",
            mend="export the scan again",
        )
    middle = data[tuple(slice(length // 4, length - length // 4) for length in data.shape)]
    low = float(np.percentile(data[_strides(data)], 1))
    tissue, air = float(np.percentile(middle, 75)), float(np.median(_sides(data)))
    if air - low > BRIGHTEST_BORDER * (tissue - low):
        raise DataError(
            "inverted intensities",
            where=where,
            got=f"{air:.4g} at the sides of the volume and {tissue:.4g} in its middle",
            expected="air darker than tissue",
            mend="give the scan as it was acquired, neither negated nor of another modality",
        )
    if (share := float((middle < 0).mean())) > MOST_NEGATIVE:
        raise DataError(
            "negative intensities",
            where=where,
            got=f"{share:.0%} of the voxels in the middle of the volume",
            expected="magnitudes of 0 or more",
            mend="give the scan before it was normalised to a mean of 0",
        )


def _strides(data: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(None, None, max(1, length // SAMPLES)) for length in data.shape)


def _structure(data: np.ndarray) -> float:
    """The correlation of voxels with their neighbours, along the axis that has the highest.

    1 in a volume that has one value nearly everywhere, as noise has not.
    """
    if float((data == np.median(data[_strides(data)])).mean()) > ONE_VALUE:
        return 1.0
    apart = data - data.mean(dtype=np.float64)
    correlations = []
    for axis in range(3):
        lines = np.moveaxis(apart, axis, 0)
        lines = lines[(slice(None), *_strides(lines)[1:])]
        correlations.append(float((lines[1:] * lines[:-1]).mean() / (lines**2).mean()) if lines.any() else 0.0)
    return max(correlations)


def _sides(data: np.ndarray) -> np.ndarray:
    """The voxels of the two outermost planes along the two axes with the most voxels: thick slices may start and end
    within the head."""
    axes = np.argsort(data.shape, kind="stable")[1:]
    return np.concatenate([np.take(data, end, axis=axis).ravel() for axis in axes for end in (0, -1)])
