"""Masks, score histograms and lesions against scikit-learn, scipy and closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score

from hybriduad import metrics
from hybriduad.core.errors import DataError
from hybriduad.metrics import LesionCounts, ScoreHistogram
from hybriduad.metrics.histogram import dice_curve, key_edges, score_keys
from hybriduad.metrics.voxels import Confusion


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def sample(kind: str, voxels: int = 60_000, share: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Scores in [0, 1] of three shapes, lesions ranked above the rest but overlapping."""
    rng = np.random.default_rng(0)
    truth = rng.random(voxels) < share
    if kind == "uniform":
        scores = np.where(truth, rng.random(voxels) ** 0.4, rng.random(voxels))
    elif kind == "gaussian":
        scores = np.clip(rng.normal(0.4, 0.1, voxels) + 0.15 * truth, 0, 1)
    else:
        scores = sigmoid(rng.normal(-11, 1.5, voxels) + 2.5 * truth)
    return scores.astype(np.float32), truth


def filled(scores: np.ndarray, truth: np.ndarray) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.add(scores, truth)
    return histogram


def dice_at(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    return metrics.dice(metrics.confusion(np.float32(scores) >= np.float32(threshold), truth, np.ones_like(truth)))


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "sigmoid"])
def test_histogram_agrees_with_scikit_learn(kind):
    scores, truth = sample(kind)
    histogram = filled(scores, truth)
    assert histogram.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=1e-4)
    assert histogram.auroc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    order = np.argsort(-scores, kind="stable")
    tp = np.cumsum(truth[order])
    curve = 2 * tp / (np.arange(1, len(tp) + 1) + truth.sum())
    best, threshold = histogram.best_dice()
    assert best == pytest.approx(curve.max(), abs=1e-3)
    assert best <= curve.max() + 1e-12
    assert best == pytest.approx(f1_score(truth, scores >= threshold), abs=1e-12)


def test_equal_width_bins_would_have_failed():
    """Published mistake 11: 4096 equal bins lose the ranking of probabilities that crowd near 0; the key does not."""
    scores, truth = sample("sigmoid")
    exact = average_precision_score(truth, scores)
    equal = average_precision_score(truth, np.floor(scores * 4096))
    assert abs(equal - exact) > 0.05
    assert abs(filled(scores, truth).average_precision() - exact) < 1e-4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1e-30, 1e-5, 0.25, 0.5, 1.0]), st.booleans()), min_size=2, max_size=40))
def test_ties_are_exact(pairs):
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    histogram = filled(scores, truth)
    if truth.any():
        assert histogram.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    else:
        assert math.isnan(histogram.average_precision())
        assert math.isnan(histogram.best_dice()[0])
    if truth.any() and not truth.all():
        assert histogram.auroc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    else:
        assert math.isnan(histogram.auroc())
    if truth.any():
        every = [dice_at(scores, truth, threshold) for threshold in np.unique(scores)]
        _, *counts = histogram.descending()
        assert dice_curve(*counts).tolist() == pytest.approx(every[::-1])
        assert histogram.best_dice()[0] == pytest.approx(max(every))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20))
def test_keys_preserve_order_and_edges_bound_their_bin(values):
    scores = np.sort(np.array(values, np.float32))
    keys = score_keys(scores)
    assert (np.diff(keys.astype(int)) >= 0).all()
    assert (key_edges(keys) <= scores).all()
    assert (key_edges(keys + 1) > scores).all()
    assert score_keys(np.array([-0.0]))[0] == 0


def test_merging_is_the_same_as_pooling_voxels():
    scores, truth = sample("gaussian", 9_000)
    parts = [filled(s, t) for s, t in zip(scores.reshape(3, -1), truth.reshape(3, -1), strict=True)]
    whole = filled(scores, truth).to_arrays()
    grown = ScoreHistogram()
    for part in parts:
        grown.merge(part)
    for pooled in (ScoreHistogram.merged(parts), grown, ScoreHistogram.from_arrays(whole)):
        for name, values in pooled.to_arrays().items():
            np.testing.assert_array_equal(values, whole[name])
    assert grown.positives == truth.sum()
    assert grown.negatives == (~truth).sum()


def test_counts_above_what_a_small_type_holds_survive():
    histogram = ScoreHistogram.from_arrays({"keys": [0], "positives": [200], "negatives": [2**32 - 1]})
    histogram.merge(histogram)
    assert (histogram.positives, histogram.negatives) == (400, 2**33 - 2)
    assert ScoreHistogram.merged([histogram, histogram]).positives == 800


def test_the_curve_of_dice_is_that_of_the_masks():
    scores, truth = sample("uniform", 5_000)
    keys, *counts = filled(scores, truth).descending()
    curve = dice_curve(*counts)
    for index in range(0, len(keys), 97):
        assert curve[index] == pytest.approx(dice_at(scores, truth, float(key_edges(keys[index : index + 1])[0])))
    best, threshold = filled(scores, truth).best_dice()
    assert dice_at(scores, truth, threshold) == pytest.approx(best)


def test_dice_at_a_threshold_is_that_of_the_mask():
    scores, truth = sample("gaussian", 5_000)
    histogram = filled(scores, truth)
    for threshold in key_edges(score_keys(np.array([0.2, 0.45, 0.7], np.float32))):
        assert histogram.dice_at(float(threshold)) == pytest.approx(dice_at(scores, truth, float(threshold)))
    assert histogram.dice_at(0.0) == pytest.approx(2 * truth.sum() / (truth.sum() + truth.size))
    assert histogram.dice_at(float(np.nextafter(np.float32(1), np.float32(2)))) == 0.0
    assert math.isnan(filled(scores, np.zeros_like(truth)).dice_at(0.5))


def test_the_threshold_of_a_volume_of_false_positives_is_the_lowest_that_keeps_to_it():
    scores = np.array([0.9, 0.8, 0.8, 0.5, 0.5, 0.25, 0.0, 0.0], np.float32)
    truth = np.array([1, 0, 1, 0, 0, 1, 0, 0], bool)
    histogram = filled(scores, truth)
    for allowed, expected in ((0, 0.9), (1, 0.8), (2, 0.8), (3, 0.25), (4, 0.25), (5, 0.0)):
        threshold = histogram.threshold_of(allowed)
        assert threshold == pytest.approx(expected, abs=2e-4)
        assert ((scores >= threshold) & ~truth).sum() <= allowed
    assert filled(scores, np.zeros(8, bool)).threshold_of(0) == math.inf
    assert histogram.threshold_of(0.5) == histogram.threshold_of(0)


def test_a_pooled_figure_notices_that_scores_were_rescaled_per_scan():
    """Published mistake 6: after min-max per volume a healthy scan alarms as loudly as a sick one."""
    rng = np.random.default_rng(0)
    sick, healthy = rng.random((2, 2_000)) * 0.2
    truth = np.arange(2_000) < 100
    sick[truth] += 0.6
    none = np.zeros_like(truth)
    honest = ScoreHistogram.merged([filled(sick, truth), filled(healthy, none)])
    rescaled = ScoreHistogram.merged([filled(sick / sick.max(), truth), filled(healthy / healthy.max(), none)])
    assert honest.average_precision() == 1.0
    assert rescaled.average_precision() < 0.7


@pytest.mark.parametrize("bad", [[0.5, np.nan], [0.5, 1.01], [-0.1, 0.5]])
def test_scores_outside_their_range_are_refused(bad):
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        filled(np.array(bad), np.array([True, False]))


def test_bad_histograms_are_refused():
    histogram = ScoreHistogram()
    with pytest.raises(DataError, match="shapes"):
        histogram.add(np.zeros(3), np.zeros(2, bool))
    for arrays in (
        {},
        {"keys": [2, 1], "positives": [1, 1], "negatives": [0, 0]},
        {"keys": [1], "positives": [1]},
        {"keys": [600_000], "positives": [1], "negatives": [0]},
    ):
        with pytest.raises(DataError, match="no score histogram"):
            ScoreHistogram.from_arrays(arrays)
    assert math.isnan(histogram.average_precision())


def test_dice_and_its_empty_rules():
    rng = np.random.default_rng(0)
    mask, truth = rng.random((2, 6, 7, 5)) < 0.3
    none, everywhere = np.zeros_like(mask), np.ones_like(mask)

    def dice(mask: np.ndarray, truth: np.ndarray) -> float:
        return metrics.dice(metrics.confusion(mask, truth, everywhere))

    assert dice(mask, truth) == pytest.approx(f1_score(truth.ravel(), mask.ravel()))
    assert dice(mask.astype(np.uint8), truth.astype(np.float32)) == dice(mask, truth)
    assert math.isnan(dice(none, none))
    assert dice(mask, none) == 0
    assert dice(none, truth) == 0
    with pytest.raises(DataError, match="mask is not a mask"):
        dice(mask * 0.4, truth)
    with pytest.raises(DataError, match="shapes"):
        dice(mask[:-1], truth)


def test_confusion_is_read_by_name_and_the_false_positive_rate_is_not_the_false_discovery_rate():
    """Published mistake 2: a confusion matrix unpacked in another order; FPR computed as FP / (FP + TP)."""
    rng = np.random.default_rng(0)
    mask, truth, region = rng.random((3, 9, 8, 7)) < np.array([0.2, 0.1, 0.8])[:, None, None, None]
    counts = metrics.confusion(mask, truth, region)
    tn, fp, fn, tp = confusion_matrix(truth[region], mask[region]).ravel()
    assert counts._asdict() == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    assert metrics.false_positive_rate(counts) == fp / (fp + tn)
    assert metrics.false_positive_rate(counts) != fp / (fp + tp)
    assert metrics.sensitivity(counts) == tp / (tp + fn)
    assert metrics.precision(counts) == tp / (tp + fp)
    nothing = Confusion(tp=0, fp=0, fn=0, tn=0)
    for rate in (metrics.false_positive_rate, metrics.sensitivity, metrics.precision, metrics.dice):
        assert math.isnan(rate(nothing))


def test_background_and_empty_slices_are_no_negatives():
    """Published mistake 3: rates over background voxels, slices without brain as negatives (for the axis of the slices
    see the tests of the evaluation)."""
    region = np.zeros((10, 12, 6), bool)
    region[3:7, 3:9, 1:5] = True
    mask, truth = np.zeros((2, *region.shape), bool)
    mask[3, 3:5, 2] = True
    mask[0, 0, :] = True
    counts = metrics.confusion(mask, truth, region)
    assert counts == Confusion(tp=0, fp=2, fn=0, tn=4 * 6 * 4 - 2)
    assert metrics.false_positive_rate(counts) == 2 / 96
    padded = tuple(np.pad(array, 20) for array in (mask, truth, region))
    assert metrics.confusion(*padded) == counts


def lesions() -> tuple[np.ndarray, np.ndarray]:
    """Truth: lesions of 20 voxels with 2 covered (10 %), of 20 with 1 covered, and of 1 + 1 voxels that touch at a
    corner, covered; mask: those, and one component of its own."""
    truth, mask = np.zeros((2, 24, 24, 8), bool)
    truth[0:5, 0:4, 0] = truth[10:15, 0:4, 0] = True
    truth[20, 20, 5] = truth[21, 21, 6] = True
    mask[0:2, 0, 0] = mask[10, 0, 0] = True
    mask[20, 20, 5] = mask[21, 21, 6] = True
    mask[4:8, 15:18, 3] = True
    return mask, truth


def test_lesions_are_hit_at_ten_percent_and_join_at_corners():
    mask, truth = lesions()
    counts = metrics.lesion_detection(mask, truth)
    assert counts == LesionCounts(lesions=3, hit=2, components=4, false=1)
    assert metrics.lesion_recall(counts) == 2 / 3
    assert metrics.lesion_precision(counts) == 3 / 4
    assert metrics.lesion_f1(counts) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1)), "one missed, one false"
    mask[0, 0, 0] = False
    assert metrics.lesion_detection(mask, truth).hit == 1


def test_a_component_is_false_when_under_ten_percent_lies_on_a_lesion():
    truth, mask = np.zeros((2, 12, 12, 3), bool)
    truth[0, 0, 0] = True
    mask[0, 0:10, 0] = True
    assert metrics.lesion_detection(mask, truth) == (1, 1, 1, 0)
    mask[0, 10, 0] = True
    assert metrics.lesion_detection(mask, truth) == (1, 1, 1, 1)


def test_lesions_by_their_size_and_components_by_theirs():
    truth, mask = np.zeros((2, 40, 40, 4), bool)
    truth[0:10, 0:10, 0] = truth[20:30, 20:32, 0] = True  # 10 ml and 12 ml at 0.1 ml a voxel
    truth[15, 15, 0] = True  # 0.1 ml
    mask[0:3, 0:3, 0] = mask[20:30, 20:40, 0] = True  # 0.9 ml, 9 % of the first; 20 ml, all of the second
    mask[35, 0, 0] = True  # a false alarm of 0.1 ml
    detection = metrics.match_lesions(mask, truth)
    sizes = detection.counts_by_size(0.1)
    assert sizes == {
        "under_1ml": LesionCounts(lesions=1, hit=0, components=2, false=1),
        "1_to_10ml": LesionCounts(lesions=1, hit=0, components=0, false=0),
        "over_10ml": LesionCounts(lesions=1, hit=1, components=1, false=0),
    }
    assert metrics.lesion_precision(sizes["under_1ml"]) == 0.5
    assert [metrics.lesion_f1(counts) for counts in sizes.values()] == [0, 0, 1]
    assert detection.counts() == tuple(map(sum, zip(*sizes.values(), strict=True)))
    assert (detection.lesions.covered / detection.lesions.voxels).tolist() == [0.09, 0.0, 1.0]
    # Exactly 1 ml, although 0.1 * 0.1 * 0.1 is a little over 0.001.
    ten = np.ones((10, 10, 10), bool)
    assert metrics.match_lesions(ten, ten).counts_by_size(0.1 * 0.1 * 0.1)["1_to_10ml"].hit == 1


def test_a_lesion_found_by_a_component_of_the_next_size_is_found():
    truth, mask = np.zeros((2, 30, 30, 4), bool)
    truth[5:14, 5:15, 0] = mask[5:16, 5:15, 0] = True  # 9 ml and 11 ml at 0.1 ml a voxel
    sizes = metrics.match_lesions(mask, truth).counts_by_size(0.1)
    assert sizes["1_to_10ml"] == (1, 1, 0, 0)
    assert metrics.lesion_f1(sizes["1_to_10ml"]) == 1
    assert math.isnan(metrics.lesion_f1(sizes["over_10ml"])), "no lesion of that size"


def test_lesion_figures_where_there_is_nothing():
    none = np.zeros((4, 4, 4), bool)
    voxel = none.copy()
    voxel[1, 1, 1] = True
    healthy, missed, alarm = (metrics.lesion_detection(m, t) for m, t in ((none, none), (none, voxel), (voxel, none)))
    assert healthy == (0, 0, 0, 0)
    assert math.isnan(metrics.lesion_recall(healthy))
    assert math.isnan(metrics.lesion_precision(missed))
    assert metrics.lesion_recall(missed) == metrics.lesion_f1(missed) == 0
    assert math.isnan(metrics.lesion_f1(alarm))
    assert metrics.lesion_precision(alarm) == 0


def test_the_table_of_components_agrees_with_scipy_and_with_the_counts():
    mask, truth = lesions()
    score = np.random.default_rng(0).random(mask.shape).astype(np.float32)
    rows = metrics.component_table(mask, score, (1.0, 2.0, 5.0))
    assert len(rows) == metrics.lesion_detection(mask, truth).components
    biggest = rows[0]
    alone = np.zeros_like(mask)
    alone[4:8, 15:18, 3] = True
    assert biggest.voxels == 12
    assert biggest.volume_ml == pytest.approx(0.12)
    assert (biggest.x, biggest.y, biggest.z) == ndimage.center_of_mass(alone)
    assert biggest.mean_score == pytest.approx(score[alone].mean())
    assert biggest.maximum_score == score[alone].max()
    assert [row.number for row in rows] == [1, 2, 3, 4]
    assert metrics.component_table(mask & False, score, (1, 1, 1)) == []
    with pytest.raises(DataError, match="component_table"):
        metrics.component_table(mask, score[1:], (1, 1, 1))
