"""``hybriduad.load_detector``: the object of the package's front page."""

from __future__ import annotations

import inspect
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import hybriduad as hu
from hybriduad.core.errors import BundleError, ConfigError
from hybriduad.detector import loading
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector


def test_predicts_on_the_scans_own_grid(tiny_cohort: Path, tiny_detector: Path) -> None:
    case = hu.read_cohort(tiny_cohort)[0]
    detector = hu.load_detector(tiny_detector, device="cpu")
    prediction = detector.predict(case)
    scan = nib.load(case.images["FLAIR"])
    assert prediction.score.shape == prediction.mask.shape == scan.shape
    assert prediction.mask.dtype == bool
    assert np.array_equal(prediction.mask, (prediction.score >= 0.6) & prediction.brain)
    assert prediction.notes["quality"] == {"flags": [], "out_of_distribution": None}
    again = hu.predict_case(detector, case)
    assert np.array_equal(prediction.score, again.score)


def test_keeps_all_that_the_bundle_says(tiny_detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a detector is built from, the one of cases has the same of, and not a default."""
    plain = load_detector(tiny_detector, "cpu")
    plain.seed, plain.precision, plain.mirror = 5, "bfloat16", not plain.mirror
    monkeypatch.setattr(loading, "load_detector", lambda *_: plain)
    whole = hu.load_detector(tiny_detector, "cpu")
    for name in inspect.signature(Detector).parameters:
        assert getattr(whole, name) == getattr(plain, name), name
    assert whole.segmenter is not None
    assert whole.reconstructor is not None


def test_refuses(tiny_cohort: Path, tiny_reconstructor: Path, tmp_path: Path) -> None:
    case = hu.read_cohort(tiny_cohort)[0]
    with pytest.raises(ConfigError, match=r"uncalibrated rule: got 'best-dice', expected one of \[\]"):
        hu.load_detector(tiny_reconstructor, "cpu").predict(case, rule="best-dice")
    with pytest.raises(BundleError, match="no bundle"):
        hu.load_detector(tmp_path)
    with pytest.raises(ConfigError, match="no such device on this machine: got 'cuda:99'"):
        hu.load_detector(tiny_reconstructor, "cuda:99")
