"""``best-dice``: one threshold for all, with the largest mean over subjects with a lesion of Dice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np

from hybriduad.config.strict import PluginConfig
from hybriduad.evaluation.rules._base import (
    DICE_FIGURE,
    Finding,
    Observation,
    dice_curves,
    edge,
    parts_of,
    subjects_of,
    with_lesion,
)

log = logging.getLogger(__name__)

PLATEAU = 0.01
"""Thresholds whose mean Dice is this close to the best count as equally good: few subjects cannot tell them apart."""
FAR = 0.15
"""One threshold does not serve subjects if its mean Dice is so far under the mean of their best Dice."""


class Config(PluginConfig):
    """The rule has no options."""

    name: Literal["best-dice"] = "best-dice"


def find(config: Config, observed: Sequence[Observation]) -> Finding:
    """The middle, in order of the bins, of the run of thresholds around the best that are within :data:`PLATEAU` of it.

    The mean of few subjects' Dice is flat with a peak here and there; the middle of the run depends less on a peak and
    keeps clear of both its ends. It is never the mean of far apart peaks, so it is always nearly the best.

    Raises:
        DataError: no case has a lesion.
    """
    sick = with_lesion(observed)
    values, reached, best = {}, {}, {}
    for part in parts_of(sick):
        keys, curves = dice_curves(sick, part)
        mean = curves.mean(axis=0)
        key, at = _middle(keys, mean)
        values[part], reached[part] = edge(key), float(mean[at])
        best[part] = float(curves.max(axis=1).mean())
        if best[part] - reached[part] > FAR:
            log.warning(
                "best-dice, %s: one threshold does not serve all of these subjects (mean Dice %.2f, of each subject's "
                "best threshold %.2f)",
                part,
                reached[part],
                best[part],
            )
    return Finding(
        values,
        DICE_FIGURE,
        reached,
        cases=len(sick),
        subjects=len(subjects_of(sick)),
        facts={
            "subjects_own_best": best,
            "serves_all_subjects": {part: best[part] - reached[part] <= FAR for part in values},
        },
    )


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
