"""Split-conformal promises: their coverage by Monte Carlo, against MAPIE, and the peaks that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from hybriduad.core.errors import DataError
from hybriduad.metrics.clusters import cluster_peak, labelled, large_clusters, least_voxels
from hybriduad.metrics.conformal import (
    allowed_above,
    conformal_p,
    conformal_quantile,
    false_discovery,
    share_bound,
)
from hybriduad.metrics.histogram import key_edges, score_keys

DRAWS = 4000


@pytest.mark.parametrize(("controls", "alpha"), [(19, 0.05), (20, 0.1), (50, 0.33), (9, 0.1), (3, 0.25)])
def test_coverage_by_monte_carlo(controls: int, alpha: float) -> None:
    """Without ties the share above is (allowed + 1) / (n + 1) exactly, whatever the distribution; 4 standard errors."""
    rng = np.random.default_rng(0)
    draws = rng.lognormal(size=(DRAWS, controls + 1))
    exceeded = [new > conformal_quantile(others, alpha) for *others, new in draws.tolist()]
    exact = (allowed_above(alpha, controls) + 1) / (controls + 1)
    assert exact <= alpha + 1e-12 < exact + 1 / (controls + 1)
    assert np.mean(exceeded) == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / DRAWS))
    tied = np.round(draws, 0)
    assert np.mean([new > conformal_quantile(others, alpha) for *others, new in tied.tolist()]) < np.mean(exceeded)


def test_the_quantile_is_mapies() -> None:
    """Of absolute residuals: MAPIE's split-conformal interval around 0 ends at it."""
    from mapie.regression import SplitConformalRegressor
    from sklearn.dummy import DummyRegressor

    rng = np.random.default_rng(1)
    zero = DummyRegressor(strategy="constant", constant=0.0).fit(np.zeros((2, 1)), np.zeros(2))
    for controls in (21, 40, 57):
        scores = rng.gamma(2.0, size=controls)
        for alpha in (0.05, 0.1, 0.34):
            oracle = SplitConformalRegressor(zero, confidence_level=1 - alpha, prefit=True)
            oracle.conformalize(np.zeros((controls, 1)), scores)
            _, intervals = oracle.predict_interval(np.zeros((1, 1)))
            assert conformal_quantile(scores.tolist(), alpha) == pytest.approx(intervals[0, 1, 0], abs=1e-12)


def test_too_few_controls_are_refused_in_a_sentence() -> None:
    with pytest.raises(DataError, match=r"alpha >= 1 / \(n \+ 1\): got 18 controls, .* 0.0526, expected at least 19 "):
        conformal_quantile([0.5] * 18, 0.05)
    assert conformal_quantile([0.1, 0.5, *[0.2] * 17], 0.05) == 0.5
    assert [allowed_above(k / (n + 1), n) for n in range(1, 60) for k in range(1, n + 1)] == [
        k - 1 for n in range(1, 60) for k in range(1, n + 1)
    ]


def test_p_is_under_alpha_no_more_often_than_alpha_and_where_the_quantile_is_exceeded() -> None:
    rng = np.random.default_rng(2)
    *draws, new = np.round(rng.normal(size=(30, DRAWS)), 1)  # with ties
    controls = np.stack(draws, axis=1)
    p = np.array([conformal_p(value, others) for value, others in zip(new, controls, strict=True)])
    for alpha in (1 / 30, 0.1, 0.5):
        assert (p <= alpha).mean() <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / DRAWS)
        above = [value > conformal_quantile(others, alpha) for value, others in zip(new, controls, strict=True)]
        np.testing.assert_array_equal(p <= alpha + 1e-12, above)
    assert (conformal_p(1.0, [1.0, 2.0, 0.0]), conformal_p(3.0, [1.0])) == (0.75, 0.5)
    with pytest.raises(DataError, match="no control"):
        conformal_p(1.0, [])


def test_with_one_set_of_controls_the_share_keeps_to_its_bound() -> None:
    rng = np.random.default_rng(3)
    shares = [stats.norm.sf(conformal_quantile(rng.normal(size=39), 0.1)) for _ in range(DRAWS)]
    assert np.mean(np.array(shares) < share_bound(0.1, 39)) == pytest.approx(0.95, abs=0.015)


def test_q_values_are_benjamini_hochbergs() -> None:
    p = [0.04, 0.01, 0.5, 0.02]
    ranked = np.sort(p) * 4 / np.arange(1, 5)
    expected = np.minimum.accumulate(ranked[::-1])[::-1]
    np.testing.assert_allclose(np.sort(false_discovery(p)), expected)
    assert np.argsort(false_discovery(p)).tolist() == np.argsort(p).tolist()
    assert false_discovery([]) == []


@pytest.mark.parametrize("voxels", [1, 2, 5, 30, 400])
def test_the_peak_of_clusters_against_every_threshold(voxels: int) -> None:
    rng = np.random.default_rng(voxels)
    for smooth in (0.0, 1.0):
        field = ndimage.gaussian_filter(rng.random((9, 8, 10)), smooth)
        scores = ((field - field.min()) / np.ptp(field)).astype(np.float32)
        inside = np.indices(scores.shape).sum(axis=0) > 5
        levels = np.unique(key_edges(score_keys(scores[inside])))
        reaching = [at for at in levels if (labelled((scores >= at) & inside)[1] >= voxels).any()]
        assert cluster_peak(scores, inside, voxels) == max(reaching, default=0.0)
        for at in levels[::40]:
            kept = large_clusters((scores >= at) & inside, voxels)
            assert kept.any() == (cluster_peak(scores, inside, voxels) >= at)
            assert not (labelled(kept)[1] < voxels).any()
    assert cluster_peak(scores, np.zeros_like(inside), voxels) == 0.0


def test_least_voxels() -> None:
    assert [least_voxels(ml, 0.1) for ml in (0.0, 0.1, 0.3, 0.31, 1.0)] == [1, 1, 3, 4, 10]
