"""What another detector finds in scans and in pseudo-healthy scans: side by side, the figures of its masks."""

from __future__ import annotations

import csv
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from hybriduad.cohort.manifest import read_manifest
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.scan.volumes import read_mask

SCRIPT = Path(__file__).parents[2] / "scripts" / "still_seen.py"


@pytest.fixture(scope="module")
def still_seen() -> ModuleType:
    spec = importlib.util.spec_from_file_location("still_seen", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def predictions(tiny_detector: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the three tiny cases; nothing is gone from the pseudo-healthy scan of the first, it is the scan itself."""
    folder = tmp_path_factory.mktemp("still-seen") / "predictions"
    predict_cohort(tiny_detector, tiny_cohort, out=folder, maps=("reconstruction", "brain"), device="cpu")
    scan = read_manifest(tiny_cohort)[0].images["FLAIR"]
    shutil.copy(scan, folder / "sub-01" / "anat" / "sub-01_desc-pseudohealthy_FLAIR.nii.gz")
    return folder


def test_both_are_judged_alike(
    still_seen: ModuleType, tiny_detector: Path, predictions: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    text = still_seen.compare(tiny_detector, predictions, tiny_cohort, tmp_path, None, None, "cpu")
    assert text == (tmp_path / "still_seen.md").read_text()
    with (tmp_path / "still_seen.csv").open() as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["sub-01", "sub-02"], "the third has no lesion that could be gone"
    for figure in ("mask, ml", "Dice", "share of lesion in mask", "lesion recall"):
        assert rows["sub-01"][f"scan: {figure}"] == rows["sub-01"][f"pseudo-healthy: {figure}"]
    assert rows["sub-02"]["scan: mask, ml"] != rows["sub-02"]["pseudo-healthy: mask, ml"]
    for case in read_manifest(tiny_cohort)[:2]:
        lesion = read_mask(case.lesion).data
        for kind, folder in (("scan", "scan"), ("pseudo-healthy", "pseudohealthy")):
            place = tmp_path / folder / "predictions" / case.name / "anat"
            image = nib.load(place / f"{case.name}_label-lesion_desc-anomaly_mask.nii.gz")
            mask = np.asanyarray(image.dataobj) > 0
            row = {name.removeprefix(f"{kind}: "): value for name, value in rows[case.name].items()}
            assert float(row["mask, ml"]) == pytest.approx(mask.sum() * np.prod(image.header.get_zooms()) / 1000)
            assert float(row["Dice"]) == pytest.approx(2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()))
            assert float(row["share of lesion in mask"]) == pytest.approx((mask & lesion).sum() / lesion.sum())
    mean = np.mean([float(row["scan: mask, ml"]) for row in rows.values()])
    assert f"| mean | {np.mean([float(row['lesion, ml']) for row in rows.values()]):.3f} | {mean:.3f} |" in text


def test_what_cannot_be_compared_is_a_sentence(
    still_seen: ModuleType,
    tiny_detector: Path,
    tiny_reconstructor: Path,
    predictions: Path,
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(model: Path, folder: Path) -> str:
        arguments = [str(SCRIPT), str(model), str(folder), str(tiny_cohort), str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as end:
            still_seen.main()
        return str(end.value)

    assert "still_seen: model without a threshold" in said(tiny_reconstructor, predictions)
    assert "still_seen: no scan with a lesion mask and a pseudo-healthy scan" in said(tiny_detector, tmp_path)
    broken = Path(shutil.copytree(predictions, tmp_path / "broken"))
    (broken / "sub-02" / "anat" / "sub-02_desc-anomaly_probseg.json").write_text("[]")
    assert "still_seen: unreadable record" in said(tiny_detector, broken)
    assert not (tmp_path / "out").exists()
