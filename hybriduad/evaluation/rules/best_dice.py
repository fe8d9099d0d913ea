"""``best-dice``: one threshold for all, with the largest mean over subjects with a lesion of Dice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from hybriduad.config.strict import PluginConfig
from hybriduad.evaluation.rules._base import (
    DICE_FIGURE,
    Finding,
    Observation,
    parts_of,
    subjects_of,
    with_lesion,
)
from hybriduad.evaluation.rules._single import best_threshold

log = logging.getLogger(__name__)

FAR = 0.15
"""One threshold does not serve subjects if its mean Dice is so far under the mean of their best Dice."""


class Config(PluginConfig):
    """The rule has no options."""

    name: Literal["best-dice"] = "best-dice"


def find(config: Config, observed: Sequence[Observation]) -> Finding:
    """For each part :func:`hybriduad.evaluation.rules._single.best_threshold`.

    Raises:
        DataError: no case has a lesion.
    """
    sick = with_lesion(observed)
    values, reached, best = {}, {}, {}
    for part in parts_of(sick):
        values[part], reached[part], best[part] = best_threshold(sick, part)
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
