"""The distance of a scan from the training, against scipy; its limit, against what it promises; bundles without any."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import mahalanobis
from tiny import ANATOMY

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import BundleError
from hybriduad.detector.bundle import STATISTICS, verify, write_record
from hybriduad.detector.familiarity import SLICES, Reference, case_features, reference_of
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.scan.preparation import Prepared, prepare


@pytest.fixture(scope="module")
def prepared(tiny_cohort: Path) -> Prepared:
    return prepare(read_cohort(tiny_cohort)[2], ANATOMY)


def features_of(detector: Detector, prepared: Prepared) -> np.ndarray:
    assert detector.reconstructor is not None
    features = case_features(detector.reconstructor, prepared, detector.seed, "cpu")
    assert features is not None
    return features


def with_statistics(bundle: Path, out: Path, **tensors: torch.Tensor) -> Path:
    """A copy of a bundle that remembers these tensors too."""
    shutil.copytree(bundle, out)
    save_file(load_file(out / STATISTICS) | tensors, out / STATISTICS)
    write_record(out, verify(bundle).record)
    return out


def test_the_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, 5))
    covariance, mean, features = mixing @ mixing.T + np.eye(5), rng.normal(size=5), rng.normal(size=(7, 5))
    expected = mahalanobis(features.mean(axis=0), mean, np.linalg.inv(covariance))
    assert Reference(mean, covariance, np.ones(3)).distance(features) == pytest.approx(expected)


def test_the_limit_leaves_one_in_twenty_above_it() -> None:
    rng = np.random.default_rng(0)
    above = []
    for _ in range(2000):
        cases = np.exp(rng.normal(1.0, 0.3, 9))
        above.append(cases[-1] > Reference(np.zeros(1), np.eye(1), cases[:-1]).limit)
    assert np.mean(above) == pytest.approx(0.05, abs=0.015)


def test_a_prediction_says_how_far_the_scan_is(tiny_detector: Path, prepared: Prepared, tmp_path: Path) -> None:
    features = features_of(load_detector(tiny_detector, "cpu"), prepared)
    assert 1 < len(features) <= SLICES
    length = features.shape[1]
    known = {
        "feature_mean": torch.from_numpy(features.mean(axis=0)) + 2.0 / length**0.5,
        "feature_covariance": torch.eye(length),
        "case_distances": torch.tensor([1.0, 1.1, 0.9, 1.0]),
    }
    detector = load_detector(with_statistics(tiny_detector, tmp_path / "b", **known), "cpu")
    found = detector.predict_volume(prepared).notes["out_of_distribution"]
    assert found["distance"] == pytest.approx(2.0, abs=1e-3)
    assert 1.0 < found["limit"] < 1.5
    few = replace(prepared, brain=np.zeros_like(prepared.brain))
    assert case_features(detector.reconstructor, few, 0, "cpu") is None


@pytest.mark.parametrize("kept", [(), ("feature_mean", "feature_covariance")])
def test_a_bundle_without_reference_cases_says_nothing(
    kept: tuple[str, ...], tiny_detector: Path, prepared: Prepared, tmp_path: Path
) -> None:
    known = {"feature_mean": torch.zeros(16), "feature_covariance": torch.eye(16)}
    bundle = with_statistics(tiny_detector, tmp_path / "b", **{name: known[name] for name in kept})
    assert load_detector(bundle, "cpu").predict_volume(prepared).notes["out_of_distribution"] is None


def test_too_few_cases_have_no_limit() -> None:
    known = {"feature_mean": torch.zeros(2), "feature_covariance": torch.eye(2)}
    assert reference_of({**known, "case_distances": torch.ones(2)}) is None
    assert reference_of({**known, "case_distances": torch.ones(3)}) is not None


def test_statistics_that_cannot_be_read_are_one_sentence(tiny_detector: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_detector, tmp_path / "b")
    (tmp_path / "b" / STATISTICS).write_bytes(b"12345678 no tensors")
    write_record(tmp_path / "b", verify(tiny_detector).record)
    with pytest.raises(BundleError, match=r"^unusable reference statistics in .*: got .*\.$"):
        load_detector(tmp_path / "b", "cpu")
