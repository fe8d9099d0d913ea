"""Voxel-wise figures of a mask against the truth."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hybriduad.core.errors import DataError


class Confusion(NamedTuple):
    """Counts of voxels, to be read by name: the order differs between libraries (scikit-learn: tn, fp, fn, tp)."""

    tp: int
    fp: int
    fn: int
    tn: int


def as_masks(where: str, **masks: np.ndarray) -> list[np.ndarray]:
    """Check that all are masks of one shape (bool, or numbers that are only 0 and 1); returns them as bool.

    Raises:
        DataError: other values, such as probabilities or labels, or different shapes.
    """
    shapes = {name: np.shape(mask) for name, mask in masks.items()}
    if len(set(shapes.values())) > 1:
        raise DataError("masks of different shapes", where=where, got=shapes, expected="one shape")
    checked = []
    for name, mask in masks.items():
        array = np.asarray(mask)
        if array.dtype != bool and not np.isin(array, (0, 1)).all():
            raise DataError(f"{name} is not a mask", where=where, got=array.dtype, expected="bool, or only 0 and 1")
        checked.append(array.astype(bool))
    return checked


def ratio(numerator: float, denominator: float) -> float:
    """The quotient, nan where the denominator is 0."""
    return float(numerator) / float(denominator) if denominator else math.nan


def confusion(mask: np.ndarray, truth: np.ndarray, region: np.ndarray) -> Confusion:
    """Count voxels inside ``region`` only (the brain without ignored voxels); background is no true negative.

    Raises:
        DataError: no masks, or different shapes.
    """
    predicted, lesion, inside = as_masks("confusion", mask=mask, truth=truth, region=region)
    tp = int(np.count_nonzero(predicted & lesion & inside))
    fp = int(np.count_nonzero(predicted & inside)) - tp
    fn = int(np.count_nonzero(lesion & inside)) - tp
    return Confusion(tp=tp, fp=fp, fn=fn, tn=int(np.count_nonzero(inside)) - tp - fp - fn)


def dice(counts: Confusion) -> float:
    """2 TP / (2 TP + FP + FN), in [0, 1]: 0 where one of mask and truth is empty, nan where both are."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def false_positive_rate(counts: Confusion) -> float:
    """FP / (FP + TN): the share of healthy voxels that alarm; nan where there is no healthy voxel."""
    return ratio(counts.fp, counts.fp + counts.tn)


def sensitivity(counts: Confusion) -> float:
    """TP / (TP + FN): the share of lesion voxels in the mask; nan where there is no lesion."""
    return ratio(counts.tp, counts.tp + counts.fn)


def precision(counts: Confusion) -> float:
    """TP / (TP + FP): the share of alarms that are right; nan where there is no alarm."""
    return ratio(counts.tp, counts.tp + counts.fp)
