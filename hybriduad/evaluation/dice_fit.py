"""Learns at calibration how the Dice of a mask follows from its figures (:mod:`hybriduad.detector.dice_estimate`).

The mask of each annotated case is cut by what the rule finds on the other folds, so that no case is judged at a
threshold that its own truth has set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.detector.dice_estimate import COVERAGE, FIGURES, bin_edge, learnt, mask_figures
from hybriduad.detector.thresholds import Calibration, Cutoff, Sized
from hybriduad.evaluation import rules
from hybriduad.evaluation.rules._base import Finding, Observation, subjects_of
from hybriduad.metrics.conformal import allowed_above
from hybriduad.metrics.histogram import key_edges
from hybriduad.metrics.voxels import ratio

PART = "score"
FOLDS = 10
FEWEST = 5
"""Scans of as many people, for a line and its residuals."""
Found = tuple[dict[str, float], float]
"""Figures of a mask, and its Dice."""


def dice_entry(find: Callable[[Sequence[Observation]], Finding], observed: Sequence[Observation]) -> dict[str, Any]:
    """What the bundle says of a rule's Dice: an estimate, or a ``reason`` why there is none.

    Of several scans of a person with a lesion the first counts; scans whose mask stays empty do not.
    """
    alone = [_score_alone(case) for case in observed if PART in case.whole]
    people = subjects_of([case for case in alone if case.has_lesion])
    found: dict[tuple[str, str], Found] = {}
    folds = min(FOLDS, len(people))
    for fold in range(folds):
        held = set(people[fold::folds])
        try:
            with _rules_silent():
                cutoff = find([case for case in alone if case.subject not in held]).cutoffs.get(PART)
        except DataError:
            continue
        if cutoff is None or isinstance(cutoff, Sized):
            return {"reason": "the rule leaves out small components, or has no threshold of the score"}
        for case in alone:
            if case.subject in held and case.has_lesion and case.subject not in found:
                judged = _judged(case, cutoff)
                if judged is not None:
                    found[case.subject] = judged
    try:
        allowed_above(1 - COVERAGE, len(found))
        if len(found) < FEWEST:
            raise DataError("few")
    except DataError:
        return {"reason": f"{len(found)} annotated scans with a lesion and a mask, at least {FEWEST} are needed"}
    names = tuple(name for name in FIGURES if all(name in figures for figures, _ in found.values()))
    points = np.array([[figures[name] for name in names] for figures, _ in found.values()])
    return learnt(names, points, np.array([dice for _, dice in found.values()])).to_json()


@contextmanager
def _rules_silent() -> Iterator[None]:
    """While open, rules warn of nothing: what they say of a part of the cases is not said of all."""
    log = logging.getLogger(rules.__name__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _score_alone(case: Observation) -> Observation:
    whole, clear = ({PART: kind[PART]} if PART in kind else {} for kind in (case.whole, case.clear))
    return replace(case, whole=whole, clear=clear)


def _judged(case: Observation, cutoff: Cutoff) -> Found | None:
    keys, positives, negatives = case.whole[PART].descending()
    scores, counts = key_edges(keys), positives + negatives
    threshold = cutoff.threshold(scores, counts) if isinstance(cutoff, Calibration) else float(cutoff)  # type: ignore[arg-type]
    figures = mask_figures(scores, counts, threshold, case.voxel_ml, case.distance)
    if figures is None:
        return None
    inside = scores >= bin_edge(threshold)
    return figures, float(ratio(2 * int(positives[inside].sum()), int(counts[inside].sum()) + int(positives.sum())))
