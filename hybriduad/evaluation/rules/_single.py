"""One threshold for all scans: the middle of those with nearly the best mean Dice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybriduad.evaluation.rules._base import Observation, dice_curves, edge

PLATEAU = 0.01
"""Thresholds whose mean Dice is this close to the best count as equally good: few subjects cannot tell them apart."""


def best_threshold(sick: Sequence[Observation], part: str) -> tuple[float, float, float]:
    """The threshold of a part, the mean over subjects of the Dice that it reaches, and that of each subject's best one.

    It is the middle, in order of the bins, of the run of thresholds around the best that are within :data:`PLATEAU` of
    it. The mean of few subjects' Dice is flat with a peak here and there; the middle of the run depends less on a peak
    and keeps clear of both its ends. It is never the mean of far apart peaks, so it is always nearly the best.
    """
    keys, curves = dice_curves(sick, part)
    mean = curves.mean(axis=0)
    key, at = _middle(keys, mean)
    return edge(key), float(mean[at]), float(curves.max(axis=1).mean())


def _middle(keys: np.ndarray, mean: np.ndarray) -> tuple[int, int]:
    """The middle bin of the run around the best, and the index in ``keys`` (K,), descending, whose mask is the same."""
    top = int(mean.argmax())
    refused = np.flatnonzero(mean < mean[top] - PLATEAU)
    place = int(np.searchsorted(refused, top))
    first = int(refused[place - 1]) + 1 if place > 0 else 0
    last = int(refused[place]) - 1 if place < len(refused) else len(mean) - 1
    key = int(keys[first] + keys[last]) // 2
    # Between two occupied bins the mask is that of the upper bin.
    return key, int(np.searchsorted(-keys, -key, side="right")) - 1
