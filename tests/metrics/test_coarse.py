"""Precision and recall from few bins against scikit-learn's from all voxels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.coarse import SHARES, coarsened, precision_recall

ERROR = 0.005
"""Of the AUPRC, as the module states it."""
SMALL_ERROR = 0.013
"""Of a lesion of 60 voxels alone."""


def voxels(seed: int, count: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a case and its truth: lesions from 0.05 to 10 % of the brain, easy or hard, loud or faint scans."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < (0.0005, 0.002, 0.02, 0.1)[seed % 4]
    logit = rng.normal(rng.normal(-6, 0.7), 1.5, count) + (1.5, 3.0)[seed // 4 % 2] * truth * (1 + rng.random(count))
    return (1 / (1 + np.exp(-logit))).astype(np.float32), truth


def filled(scores: np.ndarray, truth: np.ndarray) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.add(scores, truth)
    return histogram


def area(histogram: ScoreHistogram) -> float:
    recall, precision = precision_recall(histogram)
    return float(np.trapezoid(precision, recall))


def test_the_area_is_the_exact_auprc_of_each_case_and_of_all_together() -> None:
    pairs = [voxels(seed) for seed in range(8)]
    coarse = []
    for scores, truth in pairs:
        coarse.append(coarsened(filled(scores, truth)))
        assert len(coarse[-1].descending()[0]) <= 2 * SHARES
        assert area(coarse[-1]) == pytest.approx(average_precision_score(truth, scores), abs=ERROR)
    scores, truth = (np.concatenate(values) for values in zip(*pairs, strict=True))
    pooled = ScoreHistogram.merged(coarse)
    assert (pooled.positives, pooled.negatives) == (truth.sum(), (~truth).sum())
    exact = average_precision_score(truth, scores)
    assert area(pooled) == pytest.approx(exact, abs=ERROR)
    assert abs(np.mean([area(histogram) for histogram in coarse]) - exact) > 4 * ERROR, "pooled is another figure"


def test_a_case_of_a_small_lesion_errs_more_and_many_of_them_pooled_do_not() -> None:
    pairs = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = np.arange(60_060) < 60
        pairs.append(((1 / (1 + np.exp(-rng.normal(np.where(truth, 0, -3), 1.5)))).astype(np.float32), truth))
    coarse = [coarsened(filled(*pair)) for pair in pairs]
    errors = [abs(area(few) - average_precision_score(*pair[::-1])) for few, pair in zip(coarse, pairs, strict=True)]
    assert max(errors) == pytest.approx(SMALL_ERROR, abs=0.001)
    scores, truth = (np.concatenate(values) for values in zip(*pairs, strict=True))
    assert area(ScoreHistogram.merged(coarse)) == pytest.approx(average_precision_score(truth, scores), abs=ERROR)


def test_the_curve_is_scikit_learns() -> None:
    scores, truth = voxels(6)
    recall, precision = precision_recall(coarsened(filled(scores, truth)))
    exact_precision, exact_recall, _ = precision_recall_curve(truth, scores)
    at = np.linspace(0.05, 1, 50)
    expected = np.interp(at, exact_recall[::-1], exact_precision[::-1])
    np.testing.assert_allclose(np.interp(at, recall, precision), expected, atol=0.02)
    assert (np.diff(recall) >= 0).all()
    assert recall[-1] == 1


def test_few_scores_stay_as_they_are() -> None:
    scores, truth = np.array([0.9, 0.9, 0.5, 0.1], np.float32), np.array([True, False, True, False])
    whole, few = (histogram.to_arrays() for histogram in (filled(scores, truth), coarsened(filled(scores, truth))))
    for name, values in whole.items():
        np.testing.assert_array_equal(few[name], values)


def test_without_a_lesion_voxel_there_is_no_curve() -> None:
    scores, _ = voxels(0)
    healthy = coarsened(filled(scores, np.zeros(scores.shape, bool)))
    assert healthy.negatives == scores.size
    assert len(healthy.descending()[0]) <= SHARES
    for histogram in (healthy, coarsened(ScoreHistogram())):
        assert [len(values) for values in precision_recall(histogram)] == [0, 0]
