"""What masks are cut by, as bundles hold it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import prepared_cases

from hybriduad.core.errors import BundleError
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import (
    EMPTY,
    Calibration,
    Sized,
    Thresholds,
    cutoffs_of,
    encoded,
    said,
    scan_mask,
)

CALIBRATION = Calibration(slope=2.0, intercept=-1.5, floor=0.2)


def test_all_forms_come_back_from_json() -> None:
    cutoffs = {"score": CALIBRATION, "map": 0.3, "intensity": Sized(0.4, 0.1, "lesion")}
    entry = json.loads(json.dumps(encoded(cutoffs) | {"figure": "Dice"}))
    assert cutoffs_of(entry) == cutoffs
    record = {"default": "a", "rules": {"a": entry, "b": {"values": {"score": 0.5}}}}
    thresholds = Thresholds.from_json(record)
    assert (thresholds.of("score"), thresholds.of("score", "b"), thresholds.of("probability")) == (
        CALIBRATION,
        0.5,
        None,
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"calibrations": {"score": {"slope": 1.0}}},
        {"calibrations": {"score": {"slope": -1.0, "intercept": 0.0, "floor": 0.0}}},
        {"calibrations": {"score": {"slope": 1.0, "intercept": 0.0, "floor": 0.2, "below": 0.0}}},
        {"calibrations": {"score": {"slope": 1.0, "intercept": 0.0, "floor": 0.2, "below": float("nan")}}},
        {"values": {"score": "high"}},
        {"sized": {"score": {"threshold": 0.5, "least_ml": 0.1}}},
        {"sized": {"score": {"threshold": 0.5, "least_ml": 0.1, "per": "slice"}}},
        {"sized": {"score": {"threshold": 0.0, "least_ml": 0.1, "per": "scan"}}},
    ],
)
def test_others_are_refused(entry: dict) -> None:
    with pytest.raises(BundleError, match="thresholds that cannot be read"):
        cutoffs_of(entry)


def test_under_the_floor_and_without_a_score_a_scan_stays_empty() -> None:
    scores = np.linspace(0.05, 0.1, 500, dtype=np.float32)
    assert 0 < Calibration(1.0, 0.0).best_mask(scores[::-1], np.ones(500))[1] < 0.2
    assert Calibration(1.0, 0.0).threshold(scores) <= 0.1
    assert Calibration(1.0, 0.0, floor=0.2).threshold(scores) == EMPTY > 1
    assert Calibration(1.0, 0.0, floor=0.2, below=0.07).threshold(scores) == 0.07
    assert Calibration(1.0, 0.0, floor=0.0, below=0.07).threshold(scores) <= 0.1
    assert Calibration(1.0, 10.0).threshold(np.zeros(5, np.float32)) == EMPTY
    assert not (np.ones(3, np.float32) >= EMPTY).any()


def test_what_a_scan_under_the_floor_is_cut_at_is_written_where_it_is_stated() -> None:
    stated = {"score": replace(CALIBRATION, below=0.07), "map": CALIBRATION}
    entry = json.loads(json.dumps(encoded(stated)))
    assert cutoffs_of(entry) == stated
    assert "below" not in entry["calibrations"]["map"], "bundles of before are read"
    assert "at 0.07 up to" in said(stated["score"])
    assert "empty up to" in said(CALIBRATION)


def test_a_detector_cuts_its_mask_by_the_scan(tiny_detector: Path, tiny_cohort: Path) -> None:
    prepared = prepared_cases(tiny_cohort)[0]
    detector = copy.copy(load_detector(tiny_detector, "cpu"))
    # Steep around the median, so that the scores of these untrained networks become probabilities of 0 to 1.
    plain = detector.predict_volume(prepared)
    middle = float(np.median(plain.score[plain.brain]))
    calibration = Calibration(40.0, -40.0 * float(np.log(middle / (1 - middle))))
    detector.thresholds = Thresholds({"expected-dice": {"score": calibration}}, "expected-dice")
    prediction = detector.predict_volume(prepared)
    assert prediction.threshold == calibration.threshold(prediction.score[prediction.brain])
    np.testing.assert_array_equal(
        prediction.mask, (prediction.score >= np.float32(prediction.threshold)) & prediction.brain
    )
    assert 0 < prediction.mask.sum() < prediction.brain.sum()


def test_what_is_smaller_than_the_least_volume_is_in_no_mask() -> None:
    scores = np.zeros((8, 8, 8), np.float32)
    scores[1, 1, 1:4], scores[6, 6, 6], scores[5, 5, 5] = 0.9, 0.9, 0.9  # the last two touch at a corner
    brain = np.ones(scores.shape, bool)
    brain[1, 1, 3] = False
    assert scan_mask(0.5, scores, brain, 0.1)[0].sum() == 4
    for least_ml, lesion, scan in ((0.1, 4, 4), (0.2, 4, 4), (0.25, 0, 4), (0.4, 0, 4), (0.41, 0, 0)):
        for per, voxels in (("lesion", lesion), ("scan", scan)):
            mask, threshold = scan_mask(Sized(0.5, least_ml, per), scores, brain, 0.1)
            assert (int(mask.sum()), threshold) == (voxels, 0.5), (per, least_ml)
    assert said(Sized(0.5, 0.1, "lesion")) == "0.5, at least 0.1 ml a lesion"
