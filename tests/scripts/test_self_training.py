"""A detector's own masks in the place of an annotator's: of training cases alone, and only where there is something."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.core.errors import DataError
from hybriduad.evaluation.calibration import calibrate
from hybriduad.prediction.files import SUFFIXES, record_of
from hybriduad.scan.volumes import read_mask

SCRIPT = Path(__file__).parents[2] / "scripts" / "self_training.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("self_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_cases_get_their_predicted_masks_and_others_keep_the_truth(
    script: ModuleType,
    tiny_detector: Path,
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = read_manifest(tiny_cohort)
    split = [replace(cases[0], split="train"), replace(cases[1], split="validation"), replace(cases[2], split="train")]
    write_manifest(split, tmp_path / "cohort.csv")
    bundle = calibrate(tiny_detector, tmp_path / "cohort.csv", out=tmp_path / "model", split="validation", device="cpu")
    arguments = (bundle.folder, tmp_path / "cohort.csv", tmp_path / "out", None, "cpu")
    monkeypatch.setattr(script, "LEAST_ML", 0.001)
    manifest, labelled = script.self_labelled(*arguments)
    after = {case.name: case for case in read_manifest(manifest)}
    assert after[cases[1].name].lesion == cases[1].lesion
    own = {name: case.lesion for name, case in after.items() if case.split == "train" and case.lesion is not None}
    assert len(own) == labelled > 0
    for case in (case for case in split if case.split == "train"):
        path = record_of(tmp_path / "out" / "predictions", case).with_name(f"{case.name}_{SUFFIXES['mask']}.nii.gz")
        if read_mask(path).data.any():
            assert own[case.name].samefile(path)
            assert after[case.name].health == "lesion"
        else:
            assert after[case.name].health == "unknown", "an empty mask does not say that a scan is healthy"
    monkeypatch.setattr(script, "LEAST_ML", 1e6)
    with pytest.raises(DataError, match="no mask to learn from"):
        script.self_labelled(*arguments)
