"""The score of a scan, and healthy scans against ill, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hybriduad.metrics import scan_auroc, scan_score
from hybriduad.metrics.scans import Scan


def scans(seed: int, people: int = 12) -> list[Scan]:
    """A scan a person, every third of them healthy; scores are coarse, so that some tie."""
    drawn = np.random.default_rng(seed).normal(size=people)
    return [Scan(("d", f"{i:02d}"), round(float(drawn[i] + (i % 3 > 0)), 1), i % 3 > 0) for i in range(people)]


def test_the_score_is_what_a_tenth_of_a_millilitre_reaches() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1000, dtype=np.float32) / 1000)
    assert scan_score(scores, 0.01) == np.float32(0.990)
    assert (scores >= scan_score(scores, 0.01)).sum() == 10
    assert scan_score(scores.reshape(10, 100), 0.03) == np.float32(0.996)  # four voxels are the first to hold 0.1 ml
    assert scan_score(scores, 5.0) == np.float32(0.999)
    assert scan_score(scores[:3], 0.001) == scores[:3].min()
    assert math.isnan(scan_score(scores[:0], 1.0))


def test_one_trial_is_scikit_learns() -> None:
    trial = scans(0)
    interval = scan_auroc([trial], draws=200)
    assert interval.value == pytest.approx(roc_auc_score([scan.ill for scan in trial], [scan.score for scan in trial]))
    assert interval.low < interval.value < interval.high
    assert interval.subjects == 12


def test_a_draw_is_the_figure_of_the_subjects_drawn() -> None:
    trial = scans(4, 6)
    interval = scan_auroc([trial], draws=40, seed=3)
    figures = []
    for draw in np.random.default_rng(3).integers(0, 6, (40, 6)):
        ill, scores = zip(*((trial[i].ill, trial[i].score) for i in draw), strict=True)
        if len(set(ill)) == 2:
            figures.append(roc_auc_score(ill, scores))
    assert interval[1:3] == pytest.approx(np.percentile(figures, [2.5, 97.5]))


def test_scores_of_different_models_are_never_compared() -> None:
    """Of two models that rank alike, one scores ten times as high."""
    trial = scans(0)
    louder = [scan._replace(subject=("e", scan.subject[1]), score=10 * scan.score + 50) for scan in trial]
    assert scan_auroc([trial, louder], draws=10).value == pytest.approx(scan_auroc([trial], draws=10).value)
    assert scan_auroc([trial + louder], draws=10).value != pytest.approx(scan_auroc([trial], draws=10).value)


def test_how_far_a_perfect_ranking_holds_is_not_known() -> None:
    trial = [Scan(("d", str(i)), float(i), i > 3) for i in range(8)]
    for scans_of, value in ((trial, 1), ([scan._replace(ill=not scan.ill) for scan in trial], 0)):
        interval = scan_auroc([scans_of], draws=100)
        assert (interval.value, interval.subjects) == (value, 8)
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
    tied = [scan._replace(score=1.0) for scan in trial]
    assert scan_auroc([tied], draws=100)[:3] == (0.5, 0.5, 0.5)


def test_with_one_kind_alone_it_is_undefined() -> None:
    ill = [scan for scan in scans(0) if scan.ill]
    for trials in ([], [[]], [ill], [ill, [scan for scan in scans(0) if not scan.ill]]):
        assert math.isnan(scan_auroc(trials, draws=10).value)
    unknown = [scan._replace(score=math.nan) for scan in ill]
    assert math.isnan(scan_auroc([[*unknown, *(scan for scan in scans(0) if not scan.ill)]], draws=10).value)
