"""scripts/train_cohort.sh on a tiny cohort: the real script and the real verbs, which run in this process."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import pytest
import yaml
from tiny import DETECTOR, RECONSTRUCTOR
from verbs import TINY, script

from hybriduad.config import files as configs

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_cohort.sh"
SUBJECTS = 12


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS folder of patients, masks in derivatives/manual, without the manifest that phantoms have beside it."""
    from hybriduad.phantom.cohort import write_cohort

    root = tmp_path_factory.mktemp("bids") / "cohort"
    manifest = write_cohort(
        root, subjects=SUBJECTS, seed=5, contrasts=("FLAIR",), pathology="glioma", spacing_mm=(6.0, 6.0, 10.0)
    )
    manifest.unlink()
    return root


@pytest.fixture(scope="module")
def tiny_configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment that names configs of tiny networks."""
    folder = tmp_path_factory.mktemp("configs")
    few = {name: value for name, value in DETECTOR.items() if name != "segmenter"} | {"mix": {"labelled": 1.0}}
    environment = {}
    for name, run in (("RECONSTRUCTOR", RECONSTRUCTOR), ("DETECTOR", DETECTOR), ("FEW_LABELS", few)):
        path = folder / f"{name.lower()}.yaml"
        path.write_text(yaml.safe_dump(run))
        environment[name] = str(path)
    return environment


@pytest.mark.parametrize("arguments", [[], ["x"], ["/nonexistent", "out"], [".", "out", "20"], [".", "out", "--set"]])
def test_wrong_calls_get_the_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(["bash", SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: scripts/train_cohort.sh BIDS_DIR OUT")
    assert list(tmp_path.iterdir()) == []


def test_another_contrast(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "cohort.csv").write_text("dataset,subject,age\n")
    code, calls = script(tmp_path, str(tmp_path), str(out), *TINY, of=SCRIPT, run=False, CONTRAST="T1w", DEVICE="cpu")
    assert code == 0
    fits = {call[1]: call for call in calls if call[0].startswith("fit-")}
    assert "anatomy.contrasts=[T1w]" in fits["restoration"]
    assert all(any("bright: 0.1" in word for word in call) for call in fits.values())
    assert [name for name, call in fits.items() if any("transplant" in word for word in call)] == ["few-labels"]
    # What the user sets comes after what the script sets, and so overrules it.
    assert all(call[-4:] == TINY for call in fits.values())
    for name, call in fits.items():
        changed = configs.load(name, [word for before, word in pairwise(call) if before == "--set"])
        for anomaly, shipped in zip(changed.anomalies, configs.load(name).anomalies, strict=True):
            # A list is replaced as a whole: what the shipped config tuned beside the brightness must stay.
            assert anomaly == (shipped.model_copy(update={"bright": 0.1}) if shipped.name == "lesion" else shipped)
    assert all("anatomy.contrasts=[T1w]" not in fits[name] for name in ("synthetic", "few-labels"))
    assert not any("--by" in call for call in calls)


def test_a_failing_verb_ends_the_script(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, calls = script(tmp_path, str(tmp_path / "empty"), str(tmp_path / "out"), of=SCRIPT)
    assert code == 2
    assert [call[0] for call in calls] == ["index"]


def test_whole_sequence_twice(tmp_path: Path, cohort: Path, tiny_configs: dict[str, str]) -> None:
    out = tmp_path / "out"
    code, calls = script(tmp_path, str(cohort), str(out), *TINY, of=SCRIPT, DEVICE="cpu", **tiny_configs)
    assert code == 0
    per_detector = ["calibrate", "predict", "evaluate"]
    verbs = ["index", "fit-reconstructor", "fit-detector", "fit-detector", *per_detector, *per_detector]
    assert [call[0] for call in calls] == verbs
    with (out / "cohort.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert Counter(row["split"] for row in rows) == {"train": 8, "validation": 2, "test": 2}
    test = {row["subject"] for row in rows if row["split"] == "test"}
    for name, labelled in (("detector", 0), ("detector-few", 7)):
        record = json.loads((out / name / "bundle.json").read_text())
        assert record["training"]["labelled_cases"] == labelled
        assert set(record["thresholds"]["rules"]) == {"expected-dice", "best-dice", "false-positives"}
        assert record["thresholds"]["default"] == "expected-dice"
        assert record["thresholds"]["rules"]["false-positives"]["limit"] == {"false_positive_ml": 0.1, "per": "slice"}
        scores = sorted((out / f"predictions-{name}").rglob("*_desc-anomaly_probseg.nii.gz"))
        assert {path.name.split("_")[0] for path in scores} == {f"sub-{subject}" for subject in test}
        scan = nib.load(next(cohort.glob(f"{scores[0].name.split('_')[0]}/anat/*_FLAIR.nii.gz")))
        assert nib.load(scores[0]).shape == scan.shape
        summary = json.loads((out / f"scores-{name}" / "summary.json").read_text())
        assert len(summary["cases"]) == 2
        assert any(figure["group"].startswith("site=") for figure in summary["figures"])
    bundles = {path: path.stat().st_mtime_ns for path in out.glob("*/bundle.json")}
    assert len(bundles) == 5
    code, calls = script(tmp_path, str(cohort), str(out), *TINY, of=SCRIPT, DEVICE="cpu", **tiny_configs)
    assert (code, [call[0] for call in calls]) == (0, verbs)
    assert {path: path.stat().st_mtime_ns for path in bundles} == bundles
