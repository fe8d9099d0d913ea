"""The way to the brain through fit, calibrate and predict: stated in the bundle, which wins over what is installed."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from fakes import AFFINE, SHAPE, fake_deepbet, forget_packages, write_head
from tiny import RECONSTRUCTOR, write_nifti

from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Case
from hybriduad.detector.bundle import verify
from hybriduad.evaluation.blind_spots import find_blind_spots
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.operating_point import choose_operating_point
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


STRIPS = (
    "import sys, nibabel as nib, numpy as np\n"
    "scan = nib.load(sys.argv[1]); mask = np.zeros(scan.shape, np.uint8); mask[16:-16, 16:-16, 4:-4] = 1\n"
    "nib.save(nib.Nifti1Image(mask, scan.affine), sys.argv[2])\n"
)
"""A program that outlines brains, by the files of a scan and of its mask."""


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
    with pytest.raises(ConfigError, match=r"not installed: got deepbet; pip install '\.\[strip\]' in the checkout"):
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


@pytest.mark.parametrize(("scale", "limit"), [(0.7, 600.0), (1.0, None), (1.3, 2200.0)])
@pytest.mark.parametrize("stripped", [False, True])
def test_a_brain_of_an_implausible_volume_is_predicted_and_flagged(
    scale: float, limit: float | None, stripped: bool, tiny_detector: Path, heads: Path, tmp_path: Path
) -> None:
    """By our estimate and in a stripped scan, whose header states another voxel size; a mask that is given is not."""
    (head,) = read_cohort(heads)
    image = nib.load(head.images["FLAIR"])
    affine = AFFINE @ np.diag([scale, scale, scale, 1.0])
    x, y, z = (AFFINE[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + AFFINE[:3, 3:]).reshape(3, *SHAPE)
    brain = (x / 65) ** 2 + (y / 82) ** 2 + (z / 62) ** 2 < 1
    data = np.asarray(image.dataobj)
    scan = write_nifti(tmp_path / "FLAIR.nii.gz", np.where(brain, data, 0) if stripped else data, affine)
    mask = write_nifti(tmp_path / "brain.nii.gz", brain.astype(np.uint8), affine)
    cases = [Case("heads", "01", {"FLAIR": scan}), Case("heads", "02", {"FLAIR": scan}, brain=mask)]
    outcome = predict_cohort(tiny_detector, cases, out=tmp_path / "out", device="cpu")
    assert outcome.failed == {}
    found, given = (json.loads(record_of(tmp_path / "out", case).read_text()) for case in cases)
    flags = {flag["name"]: flag for flag in found["quality"]["flags"]}
    assert ("brain volume" in flags) == (limit is not None)
    assert "brain volume" not in {flag["name"] for flag in given["quality"]["flags"]}
    rows = (tmp_path / "out" / "desc-anomaly_cases.tsv").read_text().splitlines()
    assert ["brain volume" in row for row in rows[1:]] == [limit is not None, False]
    if limit is not None:
        flag, brain_note = flags["brain volume"], found["notes"]["brain"]
        assert (flag["value"], flag["limit"]) == (brain_note["volume_ml"], limit)
        assert f"{flag['value']:.0f} ml, a whole one 600 to 2200 ({brain_note['method']})" in flag["sentence"]


def test_a_new_bundle_takes_what_is_installed_and_states_it(heads: Path, packages: Path, tmp_path: Path) -> None:
    config = RECONSTRUCTOR | {"train": RECONSTRUCTOR["train"] | {"steps": 1}}  # type: ignore[operator]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    installed = fit_reconstructor(tmp_path / "tiny.yaml", heads, out=tmp_path / "out", device="cpu")
    assert installed.anatomy.brain == "deepbet"
    assert "brain" not in yaml.safe_load((installed.folder / "config.yaml").read_text())["anatomy"]
    assert json.loads((installed.folder / "request.json").read_text())["brain"] == "deepbet 9.9"
    assert verify(installed.folder).anatomy.brain == "deepbet"


def test_what_is_not_there_is_said_before_anything_is_removed(
    tiny_detector: Path, heads: Path, packages: Path, tmp_path: Path
) -> None:
    predict_cohort(tiny_detector, heads, out=tmp_path / "out", device="cpu")
    before = sorted(tmp_path.joinpath("out").rglob("*"))
    forget_packages()
    shutil.rmtree(packages)
    with pytest.raises(ConfigError, match="deepbet"):
        predict_cohort(tiny_detector, heads, out=tmp_path / "out", device="cpu", brain="deepbet", overwrite=True)
    assert sorted(tmp_path.joinpath("out").rglob("*")) == before


def test_a_command_that_failed_is_tried_again(tiny_detector: Path, heads: Path, tmp_path: Path) -> None:
    script = tmp_path / "strip.py"
    script.write_text("import sys; sys.exit('licence server busy')")
    brain = f"{sys.executable} {script} {{in}} {{out}}"
    asked: dict[str, Any] = {"out": tmp_path / "out", "device": "cpu", "brain": brain}
    assert "licence server busy" in predict_cohort(tiny_detector, heads, **asked).failed["sub-01"]
    script.write_text(STRIPS)
    again = predict_cohort(tiny_detector, heads, **asked)
    assert "licence" not in str(again.failed), "the scan was not at fault"


def test_rules_that_were_found_on_other_brains_are_left_out(
    tiny_detector: Path, heads: Path, packages: Path, tmp_path: Path
) -> None:
    first = calibrate(tiny_detector, heads, out=tmp_path / "first", rules=["best-dice"], device="cpu")
    rule = "false-positives:false_positive_ml=5"
    second = calibrate(first.folder, heads, out=tmp_path / "second", rules=[rule], device="cpu", brain="deepbet")
    kept = calibrate(first.folder, heads, out=tmp_path / "kept", rules=[rule], device="cpu")
    assert set(second.record["thresholds"]["rules"]) == {"false-positives"}
    assert {"best-dice", "false-positives"} <= set(kept.record["thresholds"]["rules"])


def test_blind_spots_and_the_operating_point_by_a_command(tiny_detector: Path, heads: Path, tmp_path: Path) -> None:
    """The brain is the command's in the healthy scan and in the painted ones, and the new bundle asks for a command."""
    write_manifest([replace(case, lesion=None, health="healthy") for case in read_cohort(heads)], tmp_path / "c.csv")
    (tmp_path / "strip.py").write_text(STRIPS)
    brain = f"{sys.executable} {tmp_path / 'strip.py'} {{in}} {{out}}"
    asked: dict[str, Any] = {"out": tmp_path / "spots", "versions": 1, "device": "cpu"}
    outcome = find_blind_spots(tiny_detector, tmp_path / "c.csv", **asked, brain=brain)
    assert (outcome.done, outcome.failed) == (["sub-01"], {})
    spots = json.loads((tmp_path / "spots" / "cases" / "sub-01.json").read_text())
    low, high = np.array([16, 16, 4]), np.array(SHAPE) - [17, 17, 5]
    corners = np.stack([low, high]) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    places = np.array([[lesion[f"{axis}_mm"] for axis in "xyz"] for lesion in spots["lesions"]])
    assert len(places) >= 3
    assert ((places >= corners.min(axis=0) - 0.1) & (places <= corners.max(axis=0) + 0.1)).all()
    with pytest.raises(ConfigError, match=r"other blind spots in the same place.*brain"):
        find_blind_spots(tiny_detector, tmp_path / "c.csv", **asked)
    point: dict[str, Any] = {"false_lesions": 1e6, "out": tmp_path / "point"}
    with pytest.raises(ConfigError, match=r"blind spots of other brains.*got as the bundle says, expected external"):
        choose_operating_point(tiny_detector, tmp_path / "spots", **point)
    new, _ = choose_operating_point(tiny_detector, tmp_path / "spots", **point, brain=brain)
    assert set(new.record["thresholds"]["rules"]) == {"operating-point"}  # best-dice was found on other brains
    assert new.record["anatomy"]["brain"] == "command"
    assert "strip.py" not in (new.folder / "bundle.json").read_text()
    with pytest.raises(ConfigError, match="brain by a command, but no command"):
        find_blind_spots(new.folder, tmp_path / "c.csv", **asked | {"out": tmp_path / "other"})
