"""Bootstrap intervals against scipy, against brute force, and their pairing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from hybriduad import metrics
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.metrics import ScoreHistogram, bootstrap
from hybriduad.metrics.intervals import bootstrap_sums, draw_subjects, share_interval


def cohort(
    seed: int, subjects: int = 8, voxels: int = 2_000, gain: float = 0.15
) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(subjects):
        truth = rng.random(voxels) < rng.uniform(0.01, 0.1)
        cases.append((np.clip(rng.normal(0.3, 0.1, voxels) + rng.uniform(0, 2 * gain) * truth, 0, 1), truth))
    return cases


def histograms(cases: list[tuple[np.ndarray, np.ndarray]]) -> list[ScoreHistogram]:
    result = []
    for scores, truth in cases:
        histogram = ScoreHistogram()
        histogram.add(scores, truth)
        result.append(histogram)
    return result


def scipy_interval(columns: Sequence[np.ndarray], statistic: Callable[..., float], draws: int, seed: int):
    return stats.bootstrap(
        columns,
        statistic,
        paired=len(columns) > 1,
        vectorized=False,
        method="percentile",
        n_resamples=draws,
        rng=np.random.default_rng(seed),
    ).confidence_interval


def pooled_recall(drawn: np.ndarray) -> float:
    """Of rows (hits, lesions); nan without a lesion."""
    hits, lesions = drawn.sum(axis=0)
    return float(hits / lesions) if lesions else math.nan


def test_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(3).beta(2, 3, 40)
    ours = metrics.bootstrap(values, draws=500, seed=1)
    assert (ours.low, ours.high) == tuple(scipy_interval([values], np.mean, 500, 1))
    assert ours.value == pytest.approx(values.mean())
    assert ours.low < ours.value < ours.high


def test_interval_of_a_ratio_of_sums_is_that_of_scipy_which_has_none_once_a_draw_is_undefined():
    def of_columns(hits: np.ndarray, lesions: np.ndarray) -> float:
        return pooled_recall(np.stack([hits, lesions], axis=1))

    rows = np.random.default_rng(0).integers(1, 9, (15, 2)).astype(float)
    ours = metrics.bootstrap(rows, pooled_recall, draws=300, seed=1)
    theirs = scipy_interval([rows[:, 0], rows[:, 1]], of_columns, 300, 1)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), rel=1e-12)
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0], [0.0, 1.0]])
    with pytest.warns(stats.DegenerateDataWarning):
        theirs = scipy_interval([rows[:, 0], rows[:, 1]], of_columns, 300, 1)
    assert math.isnan(theirs.low)
    ours = metrics.bootstrap(rows, pooled_recall, draws=300, seed=1)
    assert 0 <= ours.low < ours.value < ours.high <= 1


def test_the_seed_is_part_of_the_result_and_global_state_is_not():
    values = np.random.default_rng(0).random(12)
    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = metrics.bootstrap(values, draws=50, seed=5)
    assert first == metrics.bootstrap(values, draws=50, seed=5)
    assert (first.seed, first.draws) == (5, 50)
    assert (first.low, first.high) != metrics.bootstrap(values, draws=50, seed=6)[1:3]
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_nan_subjects_are_left_out_and_counted():
    values = np.random.default_rng(0).random(10)
    holes = np.concatenate([[np.nan], values, [np.nan, np.nan]])
    plain, holed = metrics.bootstrap(values, draws=200), metrics.bootstrap(holes, draws=200)
    assert holed[:3] == plain[:3]
    assert (holed.subjects, holed.left_out) == (10, 3)
    nothing = metrics.bootstrap(np.full(4, np.nan))
    assert math.isnan(nothing.value)
    assert (nothing.subjects, nothing.left_out) == (0, 4)
    single = metrics.bootstrap(np.array([0.4]))
    assert single.value == 0.4
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_a_figure_of_several_columns_is_made_anew_in_each_draw():
    rows = np.random.default_rng(0).integers(1, 9, (15, 2)).astype(float)
    rows[:, 1] += rows[:, 0]

    ours = metrics.bootstrap(rows, pooled_recall, draws=300, seed=4)
    brute = [pooled_recall(rows[index]) for index in draw_subjects(15, 300, 4)]
    assert ours.value == pooled_recall(rows)
    assert (ours.low, ours.high) == tuple(np.percentile(brute, [2.5, 97.5]))


def test_pairing_shares_the_draws():
    rng = np.random.default_rng(0)
    hard = rng.random(30)
    better, worse = hard + 0.02, hard.copy()
    paired = metrics.paired_difference(better, worse)
    assert paired.low == pytest.approx(0.02)
    assert paired.high == pytest.approx(0.02)
    alone = metrics.bootstrap(better), metrics.bootstrap(worse)
    assert alone[0].low < alone[1].high
    worse[3] = np.nan
    assert metrics.paired_difference(better, worse)[3:5] == (29, 1)
    with pytest.raises(DataError, match="paired"):
        metrics.paired_difference(better, worse[1:])


@pytest.mark.parametrize("statistic", ["average_precision", "auroc", "best_dice"])
def test_pooled_draws_agree_with_merging_anew(statistic):
    cases = histograms(cohort(0))
    ours = metrics.bootstrap_pooled(cases, statistic, draws=40, seed=9)

    def figure(merged: ScoreHistogram) -> float:
        return merged.best_dice()[0] if statistic == "best_dice" else getattr(merged, statistic)()

    brute = [figure(ScoreHistogram.merged([cases[i] for i in drawn])) for drawn in draw_subjects(8, 40, 9)]
    assert ours.value == pytest.approx(figure(ScoreHistogram.merged(cases)), abs=1e-12)
    assert ours.low == pytest.approx(np.percentile(brute, 2.5), abs=1e-3)
    assert ours.high == pytest.approx(np.percentile(brute, 97.5), abs=1e-3)
    assert ours.high - ours.low > 0.01


def test_pooled_groups_stay_exact_where_scores_are_tied_or_lesions_are_larger_than_the_groups():
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(5):
        truth = rng.random(30_000) < 0.3
        scores = np.clip(np.round(rng.normal(0.4, 0.2, 30_000) + 0.2 * truth, 1), 0, 1)
        scores[:3_000] += rng.random(3_000) * (1 - scores[:3_000])
        cases.append((scores, truth))
    ours = metrics.bootstrap_pooled(histograms(cases), "average_precision", draws=10, seed=2)
    brute = []
    for drawn in draw_subjects(5, 10, 2):
        scores, truth = (np.concatenate([cases[i][part] for i in drawn]) for part in (0, 1))
        brute.append(average_precision_score(truth, scores))
    assert ours.low == pytest.approx(np.percentile(brute, 2.5), abs=1e-3)
    assert ours.high == pytest.approx(np.percentile(brute, 97.5), abs=1e-3)


@pytest.mark.parametrize("statistic", ["average_precision", "auroc", "best_dice"])
def test_pooled_draws_are_exact_with_few_lesion_voxels(statistic):
    cases = []
    for subject in range(4):
        rng = np.random.default_rng(subject)
        truth = np.arange(500) < 3
        cases.append((np.clip(rng.normal(0.4, 0.1, 500) + 0.1 * truth, 0, 1), truth))
    filled = histograms(cases)
    ours = metrics.bootstrap_pooled(filled, statistic, draws=30, seed=1)
    figures = []
    for drawn in draw_subjects(4, 30, 1):
        merged = ScoreHistogram.merged([filled[i] for i in drawn])
        figures.append(merged.best_dice()[0] if statistic == "best_dice" else getattr(merged, statistic)())
    assert ours[1:3] == pytest.approx(tuple(np.percentile(figures, [2.5, 97.5])), abs=1e-9)


def test_pooled_value_is_that_of_scikit_learn_and_differences_are_paired():
    a, b = cohort(0), cohort(0)
    b = [(scores * 0.5, truth) for scores, truth in b]
    scores, truth = (np.concatenate([case[part] for case in a]) for part in (0, 1))
    value = metrics.bootstrap_pooled(histograms(a), "auroc", draws=5).value
    assert value == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    # Halving every score keeps the ranking (and the mantissa): the same figure in every shared draw.
    same = metrics.bootstrap_pooled(histograms(a), against=histograms(b), draws=50)
    assert same[:3] == pytest.approx((0, 0, 0), abs=1e-12)
    weaker = metrics.bootstrap_pooled(histograms(a), against=histograms(cohort(0, gain=0.05)), draws=200)
    assert weaker.low > 0


def test_pooled_with_nothing_to_pool():
    assert math.isnan(metrics.bootstrap_pooled([]).value)
    healthy = ScoreHistogram()
    healthy.add(np.linspace(0, 1, 50), np.zeros(50, bool))
    for case in (healthy, ScoreHistogram()):
        result = metrics.bootstrap_pooled([case, case], draws=10)
        assert math.isnan(result.value)
        assert math.isnan(result.low)
    with pytest.raises(ConfigError, match="accuracy"):
        metrics.bootstrap_pooled([healthy], "accuracy")
    with pytest.raises(DataError, match="paired"):
        metrics.bootstrap_pooled([healthy], against=[])
    with pytest.raises(DataError, match="resample"):
        metrics.bootstrap(np.zeros((2, 2, 2)))


def test_no_alarm_in_eight_scans_says_little_of_the_next() -> None:
    """The next eight may have 1 - (0.025)^(1/8) of them: where all are alike, draws of them are too."""
    assert bootstrap(np.zeros(8), draws=50)[:3] == (0, 0, 0)
    none, all_of_them = (share_interval(bootstrap(np.full(8, share), draws=50)) for share in (0.0, 1.0))
    bound = 1 - 0.025 ** (1 / 8)
    assert none[:3] == pytest.approx((0, 0, bound))
    assert all_of_them[:3] == pytest.approx((1, 1 - bound, 1))
    assert (none.subjects, none.draws) == (8, 50)
    assert share_interval(bootstrap(np.zeros(8), draws=50), 3)[1:3] == pytest.approx((0, 1 - 0.025 ** (1 / 3)))
    some = bootstrap(np.array([0.0, 1.0, 0.5]), draws=50)
    assert share_interval(some) == some
    assert math.isnan(share_interval(bootstrap(np.zeros(1))).high)
    assert math.isnan(share_interval(bootstrap(np.full(3, math.nan))).high)


def test_sums_are_resampled_as_by_a_statistic_that_sums():
    rng = np.random.default_rng(0)
    sums = rng.integers(0, 9, (11, 2)).astype(float)
    sums[3, 1] = math.nan
    expected = bootstrap(sums, lambda drawn: drawn[:, 0].sum() / drawn.sum(), draws=200, seed=4)
    assert bootstrap_sums(sums, lambda a, b: a / (a + b), draws=200, seed=4) == pytest.approx(expected)
    assert bootstrap_sums(sums[3:4], lambda a, b: a / b, draws=10).subjects == 0
    with pytest.raises(DataError, match="sums to resample"):
        bootstrap_sums(sums[:, 0], lambda a: a)
