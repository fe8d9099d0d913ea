"""``conformal-voxels``: of a healthy brain a share ``alpha`` at most is in the mask, on average; needs no lesion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hybriduad.config.strict import PluginConfig
from hybriduad.evaluation.rules._base import Finding, Observation, case_weights, edge, subjects_of
from hybriduad.evaluation.rules._conformal import ALIKE, SILENT, Alpha, parts_and_controls
from hybriduad.metrics.histogram import BINS


class Config(PluginConfig):
    """``alpha``: the mean share of a healthy brain in its mask, at least 1 / (n + 1) with n controls."""

    name: Literal["conformal-voxels"] = "conformal-voxels"
    alpha: Alpha


def find(config: Config, observed: Sequence[Observation]) -> Finding:
    """The lowest bin edge at which (n m + 1) / (n + 1) is alpha at most, m the mean over the people of that share.

    This is conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, arXiv 2208.02814) of a share, which
    is 1 at most and falls as the threshold rises: it bounds an expectation, and no scan by itself. The 1 stands for
    the next person, of whom nothing is known; with few controls it is most of the sum, and the threshold is high.

    Raises:
        DataError: no control, or too few people for ``alpha``.
    """
    parts, controls = parts_and_controls(observed, config.alpha)
    people = len(subjects_of(controls))
    cutoffs, reached = {}, {}
    for part in parts:
        total = np.zeros(BINS)
        weighted = zip(controls, case_weights(controls), strict=True)
        for case, weight in sorted(weighted, key=lambda pair: pair[0].subject):
            arrays = case.whole[part].to_arrays()
            counts = arrays["negatives"].astype(np.float64)
            total[arrays["keys"]] += weight * counts / max(counts.sum(), 1.0)
        above = np.cumsum(total[::-1])[::-1]  # at bin k: the sum over the people of the share of score >= its edge
        allowed = np.flatnonzero(above[1:] <= config.alpha * (people + 1) - 1 + 1e-9)
        key = int(allowed[0]) + 1 if len(allowed) else BINS
        cutoffs[part], reached[part] = edge(key), float(above[key]) / people if key < BINS else 0.0
    guarantee = (
        f"Of the brain of healthy people {ALIKE.format(people=people)}, a share of {config.alpha:.3g} at most is in "
        f"the mask, on average over people and over draws of controls; a single scan may have more. {SILENT}"
    )
    return Finding(
        cutoffs,
        "mean over the controls of the share of their brain in the mask",
        reached,
        cases=len(controls),
        subjects=people,
        limit={"alpha": config.alpha},
        facts={"guarantee": guarantee},
    )
