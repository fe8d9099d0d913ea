"""The way to the brain through fit, calibrate and predict: stated in the bundle, which wins over what is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes import AFFINE, SHAPE, fake_deepbet, forget_packages, write_head
from tiny import RECONSTRUCTOR, write_nifti

from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Case
from hybriduad.detector.bundle import verify
from hybriduad.evaluation.calibration import calibrate
from hybriduad.prediction.case_detector import load_detector
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.files import record_of
from hybriduad.training.fitting import fit_reconstructor


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of one head with a lesion, without a brain mask."""
    folder = tmp_path_factory.mktemp("heads")
    lesion = np.zeros(SHAPE, dtype=np.uint8)
    lesion[40:48, 40:48, 12:15] = 1
    images = {"FLAIR": write_head(folder / "FLAIR.nii.gz")}
    masked = write_nifti(folder / "lesion.nii.gz", lesion, AFFINE)
    write_manifest([Case("heads", "01", images, lesion=masked, health="lesion")], folder / "heads.csv")
    return folder / "heads.csv"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where deepbet is installed, until it is removed."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    fake_deepbet(folder)
    yield folder
    forget_packages()


def record(folder: Path, cohort: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(record_of(folder, read_cohort(cohort)[0]).read_text())
    return content


def test_the_bundle_wins_and_who_asks_gets_another_way(
    tiny_detector: Path, heads: Path, packages: Path, tmp_path: Path
) -> None:
    scores = {}
    for name, brain in {"default": None, "deepbet": "deepbet", "estimate": "estimate"}.items():
        out = tmp_path / name
        outcome = predict_cohort(tiny_detector, heads, out=out, device="cpu", brain=brain, cache=tmp_path / "cache")
        assert outcome.done == ["sub-01"]
        method = record(out, heads)["notes"]["brain"]["method"]
        assert method == ("deepbet 9.9" if name == "deepbet" else "surface fitted between brain and skull")
        scores[name] = (out / record(out, heads)["parts"]["score"]).read_bytes()
    assert scores["default"] == scores["estimate"] != scores["deepbet"]
    assert len(list((tmp_path / "cache").iterdir())) == 2
    for place, asked in {"default": "deepbet", "deepbet": None}.items():
        with pytest.raises(ConfigError, match=r"other predictions in the same place .* brain "):
            predict_cohort(tiny_detector, heads, out=tmp_path / place, device="cpu", brain=asked)
    kept = predict_cohort(tiny_detector, heads, out=tmp_path / "deepbet", device="cpu", brain="deepbet").kept
    assert kept == ["sub-01"]
    assert load_detector(tiny_detector, "cpu", brain="auto").anatomy.brain == "deepbet"
    assert load_detector(tiny_detector, "cpu").anatomy.brain is None


def test_calibrated_thresholds_and_their_brains_travel_together(
    tiny_detector: Path, heads: Path, packages: Path, tmp_path: Path
) -> None:
    with_option = calibrate(tiny_detector, heads, out=tmp_path / "with", device="cpu", brain="deepbet")
    without = calibrate(tiny_detector, heads, out=tmp_path / "without", device="cpu")
    assert (with_option.anatomy.brain, without.anatomy.brain) == ("deepbet", None)
    assert "brain" not in without.record["anatomy"]
    assert with_option.thresholds.values != without.thresholds.values
    out = tmp_path / "out"
    assert predict_cohort(with_option.folder, heads, out=out, device="cpu").done == ["sub-01"]
    assert record(out, heads)["notes"]["brain"]["method"] == "deepbet 9.9"
    shutil.rmtree(packages)
    forget_packages()
    with pytest.raises(ConfigError, match=r"not installed: got deepbet; pip install 'hybriduad\[strip\]'"):
        predict_cohort(with_option.folder, heads, out=out, device="cpu")


def test_an_implausible_brain_fails_its_case_alone(
    tiny_detector: Path, heads: Path, packages: Path, tmp_path: Path
) -> None:
    (head,) = read_cohort(heads)
    brain = write_nifti(tmp_path / "brain.nii.gz", np.ones(SHAPE, dtype=np.uint8), AFFINE)
    write_manifest([head, Case("heads", "02", head.images, brain=brain)], tmp_path / "both.csv")
    shutil.rmtree(packages)
    packages.mkdir()
    fake_deepbet(packages, box=":, :, :")
    out = predict_cohort(tiny_detector, tmp_path / "both.csv", out=tmp_path / "out", device="cpu", brain="deepbet")
    assert out.done == ["sub-02"]
    assert "implausible brain in sub-01" in out.failed["sub-01"]


def test_a_new_bundle_takes_what_is_installed_and_states_it(heads: Path, packages: Path, tmp_path: Path) -> None:
    config = RECONSTRUCTOR | {"train": RECONSTRUCTOR["train"] | {"steps": 1}}  # type: ignore[operator]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    installed = fit_reconstructor(tmp_path / "tiny.yaml", heads, out=tmp_path / "out", device="cpu")
    assert installed.anatomy.brain == "deepbet"
    assert "brain" not in yaml.safe_load((installed.folder / "config.yaml").read_text())["anatomy"]
    assert json.loads((installed.folder / "request.json").read_text())["brain"] == "deepbet 9.9"
    assert verify(installed.folder).anatomy.brain == "deepbet"
