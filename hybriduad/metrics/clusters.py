"""Clusters of a score: connected voxels (26 neighbours in 3D) that all reach a threshold.

A cluster's peak is the highest threshold that a cluster of a least size still reaches, so that noise of single voxels
does not make it. The largest cluster of a mask shrinks as the threshold rises: the peak is found by bisection.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from hybriduad.metrics.histogram import key_edges, score_keys


def least_voxels(least_ml: float, voxel_ml: float) -> int:
    """How many voxels make up ``least_ml``, at least one; ``voxel_ml`` is the volume of a voxel."""
    return max(1, math.ceil(round(least_ml / voxel_ml, 6)))  # a product of spacings may miss by a rounding error


def labelled(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels from 1 on of a mask's components, int32 of its shape, and the voxels of each (components,) int64."""
    labels, count = ndimage.label(mask, structure=ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:]


def large_clusters(mask: np.ndarray, voxels: int) -> np.ndarray:
    """The part of a mask that lies in components of at least so many ``voxels``; bool of its shape."""
    if voxels <= 1:
        return mask
    labels, sizes = labelled(mask)
    return np.asarray(np.append(False, sizes >= voxels)[labels])


def cluster_peak(scores: np.ndarray, inside: np.ndarray, voxels: int) -> float:
    """The highest score that a cluster of at least ``voxels`` voxels reaches; 0 where there is none.

    ``scores`` in [0, 1] and ``inside`` bool, of one shape; only voxels inside count. It is the smallest score of its
    bin (:func:`hybriduad.metrics.histogram.key_edges`): a cluster reaches a higher bin if and only if its peak's bin is
    higher.

    Raises:
        DataError: scores outside [0, 1] or nan.
    """
    if not inside.any():
        return 0.0
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    keys = np.where(inside[box], score_keys(scores[box]).astype(np.int64), 0)
    ranked = np.sort(keys[keys > 0])[::-1]
    if len(ranked) < voxels:
        return 0.0

    def reached(key: int) -> bool:
        return bool((labelled(keys >= key)[1] >= voxels).any())

    before = rank = voxels  # so many voxels reach the first bound: no cluster can be higher
    while not reached(int(ranked[rank - 1])):
        if rank == len(ranked):
            return 0.0
        before, rank = rank, min(2 * rank, len(ranked))
    between = np.unique(ranked[before - 1 : rank])  # ascending; the first is reached
    low, high = 0, len(between) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if reached(int(between[middle])) else (low, middle - 1)
    return float(key_edges(between[low : low + 1])[0])
