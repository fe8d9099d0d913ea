"""The predicted Dice of a mask: what its interval covers, against MAPIE; how it is learnt, stored and said."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybriduad.core.errors import BundleError, DataError
from hybriduad.core.types import Prediction
from hybriduad.detector.dice_estimate import COVERAGE, DiceEstimate, learnt, mask_figures
from hybriduad.detector.thresholds import Sized
from hybriduad.evaluation.dice_fit import dice_entry
from hybriduad.evaluation.rules._base import Finding, Observation
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.histogram import key_edges, score_keys
from hybriduad.prediction.confidence import ENTRY, predicted_dice
from hybriduad.report.facts import predicted_dice as said
from hybriduad.scan.volumes import VolumeGrid

NAMES = ("expected", "log_ml")


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Figures of masks, and Dice that depend on them, with a tail."""
    points = np.stack([rng.uniform(0.2, 0.9, count), rng.normal(2, 1, count)], axis=1)
    return points, np.clip(points[:, 0] + 0.05 * points[:, 1] - np.abs(rng.standard_t(3, count)) * 0.1, 0, 1)


def figures_of(point: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, point.tolist(), strict=True))


@pytest.mark.parametrize("cases", [5, 8, 20])
def test_the_interval_covers_what_it_says(cases: int) -> None:
    rng = np.random.default_rng(cases)
    covered = []
    for _ in range(800):
        points, dice = drawn(rng, cases + 1)
        low, high = learnt(NAMES, points[:-1], dice[:-1]).interval(figures_of(points[-1]))
        covered.append(low <= dice[-1] <= high)
    assert np.mean(covered) >= COVERAGE - 0.03


def test_it_is_the_jackknife_plus_of_mapie() -> None:
    from mapie.regression import CrossConformalRegressor
    from sklearn.model_selection import LeaveOneOut

    rng = np.random.default_rng(0)
    points, dice = drawn(rng, 19)
    further, _ = drawn(rng, 6)
    # The ridge penalty goes by the number of cases, which is one less without one of them.
    model = make_pipeline(StandardScaler(), Ridge(alpha=18.0))
    known = CrossConformalRegressor(model, confidence_level=COVERAGE, method="plus", cv=LeaveOneOut())
    known.fit_conformalize(points, dice)
    _, expected = known.predict_interval(further)
    mine = learnt(NAMES, points, dice)
    intervals = np.array([mine.interval(figures_of(point)) for point in further])
    assert intervals == pytest.approx(np.clip(expected[..., 0], 0, 1), abs=1e-9)
    whole = make_pipeline(StandardScaler(), Ridge(alpha=19.0)).fit(points, dice)
    values = [mine.value(figures_of(point)) for point in further]
    assert values == pytest.approx(np.clip(whole.predict(further), 0, 1))


def test_too_few_cases_promise_nothing() -> None:
    points, dice = drawn(np.random.default_rng(0), 5)
    estimate = learnt(NAMES, points, dice)
    with pytest.raises(DataError):
        estimate.interval(figures_of(points[0]), coverage=0.9)


def test_a_bundle_keeps_it_without_the_order_of_the_cases() -> None:
    points, dice = drawn(np.random.default_rng(1), 9)
    estimate = learnt(NAMES, points, dice)
    stored = json.loads(json.dumps(estimate.to_json()))
    assert stored["residuals"] == sorted(stored["residuals"], reverse=True)
    back, point = DiceEstimate.from_json(stored), figures_of(points[3])
    assert back.interval(point) == estimate.interval(point)
    assert back.value(point) == estimate.value(point)
    for broken in ({}, stored | {"line": [1.0]}, stored | {"figures": ["age", "log_ml"]}):
        with pytest.raises(BundleError):
            DiceEstimate.from_json(broken)


def test_the_figures_of_a_mask() -> None:
    scores, counts = np.array([0.9, 0.5, 0.1]), np.array([10, 10, 100])
    figures = mask_figures(scores, counts, 0.5, 0.01, None)
    assert figures == pytest.approx({"expected": 2 * 14 / (20 + 24), "log_ml": math.log(0.2)})
    assert mask_figures(scores, counts, 0.95, 0.01, 1.0) is None
    assert mask_figures(scores, counts, 0.5, 0.01, 0.7) == pytest.approx({**(figures or {}), "distance": 0.7})
    edge = float(key_edges(score_keys(np.array([0.7301])))[0])
    assert edge < 0.7301
    inside = mask_figures(np.array([edge]), np.array([300]), 0.7301, 0.01, None)
    assert inside == pytest.approx(
        {"expected": 2 * edge / (1 + edge), "log_ml": math.log(3)}
    )  # the bin of the threshold
    assert mask_figures(np.array([1.0]), np.array([300]), 1.5, 0.01, None) is None


def observed(count: int) -> list[Observation]:
    """Patients whose lesions score higher the better they are found, and a healthy person."""
    cases = []
    for number in range(count):
        rng, histogram = np.random.default_rng(number), ScoreHistogram()
        truth = np.arange(400) < (40 + 5 * number if number < count - 1 else 0)
        scores = np.clip(rng.normal(0.2, 0.1, 400) + truth * (0.1 + 0.05 * number), 0, 1)
        histogram.add(scores, truth)
        parts = {"score": histogram}
        cases.append(Observation(("set", f"{number}"), 0.01, 0, parts, parts, distance=0.5 + 0.01 * number))
    return cases


def test_every_case_is_cut_by_a_threshold_that_it_did_not_set() -> None:
    seen: list[set[tuple[str, str]]] = []

    def find(cases: Sequence[Observation]) -> Finding:
        seen.append({case.subject for case in cases})
        return Finding({"score": 0.4}, "", {}, len(cases), len(cases))

    entry = dice_entry(find, observed(9))
    assert [len(subjects) for subjects in seen] == [8] * 8
    estimate = DiceEstimate.from_json(entry)
    assert (estimate.cases, estimate.figures) == (8, ("expected", "log_ml", "distance"))
    assert "at least 5" in dice_entry(find, observed(5))["reason"]
    sized = Finding({"score": Sized(0.4, 0.1, "lesion")}, "", {}, 1, 1)
    assert "components" in dice_entry(lambda _: sized, observed(9))["reason"]


def test_a_record_says_it_or_why_not() -> None:
    def find(cases: Sequence[Observation]) -> Finding:
        return Finding({"score": 0.4}, "", {}, len(cases), len(cases))

    entry = {ENTRY: dice_entry(find, observed(9))}
    grid = VolumeGrid.make((8, 8, 8), np.diag([2.0, 2.0, 2.5, 1.0]))
    score = np.zeros((8, 8, 8), dtype=np.float32)
    score[:3] = 0.8
    notes = {"out_of_distribution": {"distance": 1.0, "limit": 2.0}}
    prediction = Prediction(np.ones((8, 8, 8), dtype=bool), score=score, threshold=0.4, grid=grid, notes=notes)
    found = predicted_dice(entry, prediction)
    low, high = found["interval"]
    assert 0 <= low <= found["value"] <= high <= 1
    assert (found["coverage"], found["cases"]) == (COVERAGE, 8)
    assert said({ENTRY: found}) is not None
    prediction.threshold = 0.9
    for stated, reason in ((entry, "empty"), ({}, "calibrate"), ({ENTRY: {"reason": "few"}}, "few")):
        silent = predicted_dice(stated, prediction)
        assert (silent["value"], silent["interval"]) == (None, None)
        assert reason in silent["reason"]
        assert said({ENTRY: silent}) is None
    prediction.threshold, prediction.notes = 0.4, {}
    assert "distance" in predicted_dice(entry, prediction)["reason"]
