"""``expected-dice``: a threshold for every scan, that of the mask with the largest expected Dice (RankSEG).

Dai and Li, RankSEG, JMLR 24 (2023). It needs no more than the probability of a lesion at every score, which is learnt
here; the mask of a scan is then computed by :class:`hybriduad.detector.thresholds.Calibration`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

from hybriduad.config.strict import PluginConfig
from hybriduad.core.errors import DataError
from hybriduad.detector.thresholds import EMPTY, Calibration, score_logit
from hybriduad.evaluation.rules._base import (
    DICE_FIGURE,
    Finding,
    Observation,
    case_weights,
    parts_of,
    subjects_of,
    with_lesion,
)
from hybriduad.evaluation.rules._single import best_threshold
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.histogram import BINS, key_edges
from hybriduad.metrics.voxels import ratio

log = logging.getLogger(__name__)

LEAST_DEVIATION = 0.02
"""Of expected Dice between scans: a single scan has none to show."""
PENALTY = 1e-6
"""Weight of the squared slope beside a subject's mean loss: it keeps the slope of a perfect score finite."""
LEFT_EMPTY = 0.05
"""The share of scans with a lesion that a floor set on slices may leave empty."""


class Config(PluginConfig):
    """``below``: what becomes of a scan under a floor that was set on slices. It stays "empty", or is cut at the
    "threshold" of all scans that ``best-dice`` gives: for cohorts whose lesions may be unlike those of the calibration,
    smaller or fainter. Under a floor that lesion-free scans set, a scan stays empty either way: that is their floor."""

    name: Literal["expected-dice"] = "expected-dice"
    below: Literal["empty", "threshold"] = "empty"


def find(config: Config, observed: Sequence[Observation]) -> Finding:
    """A logistic regression of the truth on the logit of the score, and a floor, for each part.

    Slope and intercept are fitted on the scans with a lesion, every subject with the same weight: they give the
    probability that a voxel is lesion if the scan has a lesion. Voxels of score 0 are left out: they lie outside the
    brain or in slices that were not judged, are in no mask, and as lesion would flatten the slope. Whether it has is
    decided by the floor of the largest expected Dice, which is high where a few voxels stand out and low where none
    does, whatever the size of the brain.

    The floor is set on material without a lesion: the lesion-free scans or, without any, the lesion-free slices of each
    annotated scan as a separate scan. It is the expected Dice that best tells them from the scans with a lesion, where
    the share of them under it is furthest above the share of scans with a lesion there (Youden 1950,
    doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3). The shares of a dozen scans follow a single odd
    scan, and shares of normal distributions (Fluss, Faraggi and Reiser 2005, doi:10.1002/bimj.200410135) a long tail:
    of the two floors the lower counts, since a patient left empty is worse than an alarm. Slices of the ill are no
    healthy scans: set on them, the floor is no higher than the expected Dice that :data:`LEFT_EMPTY` of the scans with
    a lesion stay under, by their normal distribution. Without either it is 0: then every scan gets a mask, and the rule
    is for cohorts that are known to be ill.

    A part whose higher scores are no likelier lesion gets no calibration.

    Raises:
        DataError: no case has a lesion, or no part can be calibrated.
    """
    sick = with_lesion(observed)
    healthy = [case for case in observed if case.control]
    clear = healthy or [case for case in sick if case.slices > 0]
    if not clear:
        log.warning(
            "expected-dice: no lesion-free scan or slice to set a floor on, so every scan gets a mask: the rule is for "
            "cohorts that are known to be ill"
        )
    stays_empty = config.below == "empty" or bool(healthy)
    cutoffs, reached, emptied = {}, {}, {}
    for part in parts_of([*sick, *clear]):
        fitted = _fit(sick, part)
        if fitted is None:
            log.warning("expected-dice, %s: higher scores are no likelier lesion, so it has no calibration", part)
            continue
        ill = [_expected(fitted, case.whole[part]) for case in sick]
        free = [_expected(fitted, case.whole[part] if healthy else case.clear[part]) for case in clear]
        floor = _floor(np.array(ill), case_weights(sick), np.array(free), case_weights(clear))
        if not healthy:
            floor = max(0.0, min(floor, float(_normal(np.array(ill), case_weights(sick)).ppf(LEFT_EMPTY))))
        below = EMPTY if stays_empty else best_threshold(sick, part)[0]
        cutoffs[part] = Calibration(fitted.slope, fitted.intercept, floor, below)
        reached[part] = _mean_dice(cutoffs[part], sick, part)
        emptied[part] = int((np.array(ill) <= floor).sum())
        if emptied[part] and stays_empty:
            log.warning("expected-dice, %s: %d of %d scans with a lesion stay empty", part, emptied[part], len(sick))
    if not cutoffs:
        raise DataError("no part that can be calibrated", got="higher scores that are no likelier lesion")
    kind = "none" if not clear else "lesion-free scans" if healthy else "lesion-free slices of each annotated scan"
    return Finding(
        cutoffs,
        DICE_FIGURE,
        reached,
        cases=len(sick),
        subjects=len(subjects_of(sick)),
        limit=None if config.below == "empty" else {"below": config.below},
        facts={
            "floor_on": {"material": kind, "scans": len(clear)},
            "scans_with_lesion_left_empty" if stays_empty else "scans_with_lesion_under_floor": emptied,
        },
    )


def _fit(sick: Sequence[Observation], part: str) -> Calibration | None:
    """The calibration without a floor; None where the slope is not above 0."""
    from sklearn.linear_model import LogisticRegression

    weights = np.zeros((2, BINS))  # of lesion and other voxels in each bin, over all subjects
    for case, share in zip(sick, case_weights(sick), strict=True):
        keys, positives, negatives = case.whole[part].descending()
        judged = keys > 0
        keys, positives, negatives = keys[judged], positives[judged], negatives[judged]
        weights[:, keys] += share * np.stack([positives, negatives]) / max(int(positives.sum() + negatives.sum()), 1)
    truths, keys = np.nonzero(weights)
    if not (truths == 0).any() or not (truths == 1).any():
        return None
    model = LogisticRegression(C=1 / PENALTY, solver="newton-cholesky", tol=1e-9, max_iter=1000)
    model.fit(score_logit(key_edges(keys))[:, None], truths == 0, sample_weight=weights[truths, keys])
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Calibration(slope, intercept) if slope > 0 else None


def _scores(histogram: ScoreHistogram) -> tuple[np.ndarray, np.ndarray]:
    """The scores that occur, descending, and how many voxels have each."""
    keys, positives, negatives = histogram.descending()
    return key_edges(keys), positives + negatives


def _expected(fitted: Calibration, histogram: ScoreHistogram) -> float:
    return fitted.best_mask(*_scores(histogram))[1]


def _floor(ill: np.ndarray, ill_weights: Sequence[float], free: np.ndarray, free_weights: Sequence[float]) -> float:
    """The floor that best parts ``ill`` from ``free``, expected Dice in [0, 1]: the lower of two estimates."""
    if not len(free):
        return 0.0
    values = np.unique(np.concatenate([[0.0], free, ill]))
    between = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2])
    shares = [
        np.average(free <= value, weights=free_weights) - np.average(ill <= value, weights=ill_weights)
        for value in between
    ]
    by_shares = float(between[int(np.argmax(np.round(shares, 12)))])  # of equals the lowest
    sick, healthy = _normal(ill, ill_weights), _normal(free, free_weights)
    if sick.mean() <= healthy.mean():
        return 0.0
    candidates = np.linspace(healthy.mean(), sick.mean(), 1001)
    gain = np.round(healthy.cdf(candidates) - sick.cdf(candidates), 9)
    return min(by_shares, float(candidates[gain == gain.max()].mean()))  # far apart, all between them are as good


def _normal(values: np.ndarray, weights: Sequence[float]) -> Any:
    mean = np.average(values, weights=weights)
    deviation = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    return norm(mean, max(deviation, LEAST_DEVIATION))


def _mean_dice(calibration: Calibration, sick: Sequence[Observation], part: str) -> float:
    """Mean over subjects of the Dice of their cases, every case at the threshold of its scan."""
    total = 0.0
    for case, share in zip(sick, case_weights(sick), strict=True):
        scores, counts = _scores(case.whole[part])
        _, positives, _ = case.whole[part].descending()
        mask = scores >= calibration.threshold(scores, counts)
        hits = int(positives[mask].sum())
        total += share * ratio(2 * hits, int(counts[mask].sum()) + int(positives.sum()))
    return total / len(subjects_of(sick))
