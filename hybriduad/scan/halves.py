"""The two halves of a brain: which voxels lie left of the mid plane of its mask."""

from __future__ import annotations

import numpy as np

BOTH = 0.1
"""A lesion with at least this share of its voxels in each half lies on both sides."""


def left_half(brain: np.ndarray) -> np.ndarray:
    """Where a volume lies left of the mid plane of ``brain`` (X, Y, Z) bool in RAS: bool of its shape.

    The plane is fitted, by least squares, to the middle of every row of the mask from left to right, each weighted by
    its width: so it turns and tilts with the head. A brain without a row has none, and nothing is left of it.
    """
    width = brain.sum(axis=0)
    rows = np.argwhere(width > 0)
    if not len(rows):
        return np.zeros(brain.shape, dtype=bool)
    across = np.arange(brain.shape[0])
    middle = np.tensordot(across, brain, axes=(0, 0))[tuple(rows.T)] / width[tuple(rows.T)]
    weight = np.sqrt(width[tuple(rows.T)])
    design = np.column_stack([np.ones(len(rows)), rows])
    offset, front, up = np.linalg.lstsq(design * weight[:, None], middle * weight, rcond=None)[0]
    plane = offset + front * np.arange(brain.shape[1])[:, None] + up * np.arange(brain.shape[2])
    return np.asarray(across[:, None, None] < plane)


def side_of(left_share: float) -> str:
    """``left``, ``right`` or ``both``, by the share of a lesion's voxels in the left half."""
    return "left" if left_share > 1 - BOTH else "right" if left_share < BOTH else "both"
