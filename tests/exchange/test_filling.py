"""Lesion filling: what may change and what may not, and the mask as fMRIPrep reads it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bids_valid import bids_issues
from scipy import ndimage
from tiny import DETECTOR, RECONSTRUCTOR

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.config import files as configs
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError
from hybriduad.detector import bundle
from hybriduad.exchange.filled_cohort import fill_cohort
from hybriduad.exchange.filling import fill_lesion
from hybriduad.networks.segmenter import Segmenter
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.scan.preparation import resampled
from hybriduad.scan.volumes import read_grid, read_volume

SPACING = (1.0, 1.0, 3.0)
SHAPE = (40, 40, 9)


@pytest.fixture(scope="module")
def blob() -> tuple[np.ndarray, ...]:
    """A scan of noise around 100 with a lesion of 200, its brain, and a reconstruction that is darker by 15."""
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    brain = np.hypot(x, y) < 18
    mask = (np.hypot(x, y) < 5) & (abs(z) < 2)
    healthy = np.full(SHAPE, 100, np.float32)
    scan = healthy + rng.normal(0, 2, SHAPE).astype(np.float32) + np.float32(100) * mask
    return scan, np.where(brain, healthy - 15, scan).astype(np.float32), mask, brain


def test_the_lesion_is_gone_and_the_filling_is_as_bright_as_what_is_around(blob: tuple[np.ndarray, ...]) -> None:
    scan, healthy, mask, brain = blob
    filled, where = fill_lesion(scan, healthy, mask, brain, SPACING)
    assert scan[mask].mean() > 195
    assert abs(filled[mask] - 100).max() < 3  # the reconstruction is 15 darker
    assert where[mask].all()


@pytest.mark.parametrize("seam_mm", [3.0, 6.0, 9.5])
def test_nothing_changes_beyond_the_seam_or_the_brain(blob: tuple[np.ndarray, ...], seam_mm: float) -> None:
    scan, healthy, mask, brain = blob
    filled, where = fill_lesion(scan, healthy, mask, brain, SPACING, seam_mm)
    points = np.argwhere(mask) * SPACING
    changed = np.argwhere(filled != scan)
    nearest = np.array([np.linalg.norm(points - point * SPACING, axis=1).min() for point in changed])
    assert 0.6 * seam_mm < nearest.max() <= seam_mm
    assert brain[tuple(changed.T)].all()
    assert not where[~brain].any()
    assert (filled == scan)[~where].all()


def test_the_seam_has_no_step(blob: tuple[np.ndarray, ...]) -> None:
    _, healthy, mask, brain = blob
    smooth = np.where(mask, 200, 100).astype(np.float32)  # without noise a step would show
    filled, _ = fill_lesion(smooth, healthy, mask, brain, SPACING)
    assert abs(np.diff(filled[:, SHAPE[1] // 2, SHAPE[2] // 2])).max() < 1.0
    assert abs(np.diff(smooth[:, SHAPE[1] // 2, SHAPE[2] // 2])).max() == 100


def test_without_a_lesion_the_scan_stays(blob: tuple[np.ndarray, ...]) -> None:
    scan, healthy, mask, brain = blob
    filled, where = fill_lesion(scan, healthy, np.zeros_like(mask), brain, SPACING)
    np.testing.assert_array_equal(filled, scan)
    assert not where.any()


@pytest.fixture(scope="module")
def predicted(tiny_cohort: Path, tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of predictions and the manifest: 01 stored as scaled integers, its T1w on a finer grid, and 03."""
    root = tmp_path_factory.mktemp("fill")
    first, _, last = read_manifest(tiny_cohort)
    flair, t1 = nib.load(first.images["FLAIR"]), nib.load(first.images["T1w"])
    stored = nib.Nifti1Image(np.rint(flair.get_fdata() * 2).astype(np.int16), flair.affine)
    stored.header.set_slope_inter(0.5, 10.0)
    nib.save(stored, root / "flair.nii.gz")
    fine = nib.Nifti1Image(
        ndimage.zoom(t1.get_fdata().astype(np.float32), (2, 1, 1), order=0), t1.affine @ np.diag([0.5, 1, 1, 1])
    )
    nib.save(fine, root / "t1.nii.gz")
    mine = replace(first, images={"FLAIR": root / "flair.nii.gz", "T1w": root / "t1.nii.gz"})
    write_manifest([mine, replace(last, images={"FLAIR": last.images["FLAIR"]})], root / "cohort.csv")
    predict_cohort(tiny_detector, root / "cohort.csv", out=root / "p", maps=("all",), device="cpu")
    return root / "p", root / "cohort.csv"


def test_stored_voxels_type_scaling_and_place_stay(predicted: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = fill_cohort(*predicted, out=tmp_path / "out")
    assert outcome.done == ["sub-01", "sub-03"]
    before = nib.load(predicted[1].parent / "flair.nii.gz")
    after = nib.load(tmp_path / "out/sub-01/anat/sub-01_desc-lesionfilled_FLAIR.nii.gz")
    assert after.get_data_dtype() == before.get_data_dtype() == np.int16
    assert (after.dataobj.slope, after.dataobj.inter) == (0.5, 10.0)
    np.testing.assert_array_equal(after.affine, before.affine)
    mask = nib.load(predicted[0] / "sub-01/anat/sub-01_label-lesion_desc-anomaly_mask.nii.gz")
    far = ndimage.distance_transform_edt(np.asarray(mask.dataobj) == 0, sampling=mask.header.get_zooms()) > 6
    same = before.dataobj.get_unscaled() == after.dataobj.get_unscaled()
    assert far.any()
    assert same[far].all()
    assert 0 < (~same).sum() == pytest.approx(record(tmp_path / "out")["voxels_changed"], rel=0.05)
    assert fill_cohort(*predicted, out=tmp_path / "out").kept == ["sub-01", "sub-03"]
    with pytest.raises(ConfigError, match=r"other filled scans in the same place.*seam_mm 6.0 there and 3 now"):
        fill_cohort(*predicted, out=tmp_path / "out", seam_mm=3)


def test_the_mask_for_fmriprep_lies_on_the_t1w(predicted: tuple[Path, Path], tmp_path: Path) -> None:
    """Binary, in the space and resolution of the T1w scan, named after it; none without a T1w scan."""
    fill_cohort(*predicted, out=tmp_path)
    roi = nib.load(tmp_path / "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz")
    scan = nib.load(predicted[1].parent / "t1.nii.gz")
    assert roi.shape == scan.shape
    np.testing.assert_array_equal(roi.affine, scan.affine)
    values = np.asarray(roi.dataobj)
    assert sorted(np.unique(values)) == [0, 1]
    mask = np.asarray(nib.load(predicted[0] / "sub-01/anat/sub-01_label-lesion_desc-anomaly_mask.nii.gz").dataobj)
    index = (np.arange(len(values)) * 0.5).round(6)
    inner = [k for k, place in enumerate(index) if place == int(place)]
    np.testing.assert_array_equal(values[inner], mask[[int(index[k]) for k in inner]])
    assert "*lesion_roi.nii.gz" in (tmp_path / ".bidsignore").read_text()
    assert record(tmp_path)["roi"] == "sub-01_T1w_label-lesion_roi.nii.gz"
    assert [path.name for path in (tmp_path / "sub-03/anat").glob("*roi*")] == []


def test_a_lesion_that_is_gone_leaves_no_mask_for_fmriprep(predicted: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = Path(shutil.copytree(predicted[0], tmp_path / "p")), tmp_path / "out"
    fill_cohort(source, predicted[1], out=out)
    roi = out / "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz"
    assert roi.is_file()
    path = source / "sub-01/anat/sub-01_label-lesion_desc-anomaly_mask.nii.gz"
    mask = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), path)
    assert fill_cohort(source, predicted[1], out=out, overwrite=True).done == ["sub-01", "sub-03"]
    assert not roi.exists()
    assert record(out)["roi"] is None


def test_the_official_validator_finds_no_error(predicted: tuple[Path, Path], tmp_path: Path) -> None:
    """In the derivative, and in raw data with the mask for fMRIPrep and the line that it needs there."""
    fill_cohort(*predicted, out=tmp_path / "out")
    errors, warnings = bids_issues(tmp_path / "out")
    assert errors == []
    assert warnings <= {"TOO_FEW_AUTHORS"}
    raw = tmp_path / "raw"
    (raw / "sub-01/anat").mkdir(parents=True)
    shutil.copy(predicted[1].parent / "t1.nii.gz", raw / "sub-01/anat/sub-01_T1w.nii.gz")
    shutil.copy(tmp_path / "out/sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz", raw / "sub-01/anat")
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.10.0"}))
    assert [issue["code"] for issue in bids_issues(raw)[0]] == ["NOT_INCLUDED"]
    (raw / ".bidsignore").write_text("*lesion_roi.nii.gz\n")
    assert bids_issues(raw)[0] == []


def test_a_case_that_cannot_be_filled_is_named(
    predicted: tuple[Path, Path], tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    outcome = fill_cohort(predicted[0], tiny_cohort, out=tmp_path / "out")
    assert outcome.done == ["sub-03"]
    assert "prediction of another scan of that name" in outcome.failed["sub-01"]
    assert "no prediction in sub-02" in outcome.failed["sub-02"]
    predict_cohort(tiny_detector, predicted[1], out=tmp_path / "p", device="cpu")
    outcome = fill_cohort(tmp_path / "p", predicted[1], out=tmp_path / "out2")
    assert "got no ['reconstruction']; predict with --maps all" in outcome.failed["sub-01"]
    with pytest.raises(ConfigError, match="bad seam"):
        fill_cohort(*predicted, out=tmp_path / "no", seam_mm=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="output folder holds something else"):
        fill_cohort(*predicted, out=tmp_path / "mine")


@pytest.fixture(scope="module")
def of_both(
    predicted: tuple[Path, Path], tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Predictions of 01 alone by an untrained detector of FLAIR and T1w, with the cohort."""
    root = tmp_path_factory.mktemp("both")
    stage1 = RECONSTRUCTOR | {"anatomy": {"contrasts": ["FLAIR", "T1w"], "size": 32}}
    first, second = configs.parse(stage1, "tests", "reconstructor"), configs.parse(DETECTOR, "tests", "detector")
    torch.manual_seed(0)
    model = plugins.load("reconstructors", "ddpm").Model(first.model, 2, 32)
    thresholds = {"default": "best-dice", "rules": {"best-dice": {"values": {"score": 0.6}}}}
    stated = bundle.Description(first.anatomy, "axial", "float32", {"cases": 0}, {}, thresholds=thresholds)
    edges = {"histogram_edges": torch.linspace(0, 1, 82)}
    parent = bundle.save(root / "reconstructor", first, model.state_dict(), edges, stated)
    bundle.save(root / "detector", second, Segmenter(second.segmenter, 2).state_dict(), edges, stated, parent)
    case, _ = read_manifest(predicted[1])
    write_manifest([case], root / "cohort.csv")
    predict_cohort(root / "detector", root / "cohort.csv", out=root / "p", maps=("all",), device="cpu")
    return root / "p", root / "cohort.csv"


def test_every_contrast_is_filled_on_its_own_grid(of_both: tuple[Path, Path], tmp_path: Path) -> None:
    (case,) = read_manifest(of_both[1])
    outcome = fill_cohort(*of_both, out=tmp_path / "out")
    assert outcome.done == ["sub-01"]
    for contrast in ("FLAIR", "T1w"):
        before = nib.load(case.images[contrast])
        after = nib.load(tmp_path / f"out/sub-01/anat/sub-01_desc-lesionfilled_{contrast}.nii.gz")
        assert after.shape == before.shape
        np.testing.assert_array_equal(after.affine, before.affine)
        changed = np.asarray(after.dataobj) != np.asarray(before.dataobj)
        assert 0 < changed.sum() == pytest.approx(record(tmp_path / "out", contrast)["voxels_changed"], rel=0.05)
    healthy = nib.load(of_both[0] / "sub-01/anat/sub-01_desc-pseudohealthy_T1w.nii.gz")
    brain = np.asarray(nib.load(of_both[0] / "sub-01/anat/sub-01_desc-brain_mask.nii.gz").dataobj) > 0
    scan = resampled(read_volume(case.images["T1w"]), read_grid(case.images["FLAIR"]), linear=True)
    assert scan[~brain].any()
    np.testing.assert_allclose(healthy.get_fdata()[~brain], scan[~brain], rtol=1e-5)
    assert np.abs(healthy.get_fdata() - scan)[brain].mean() > 0.01 * scan[brain].mean()
    assert bids_issues(of_both[0])[0] == []
    assert bids_issues(tmp_path / "out")[0] == []
    assert fill_cohort(*of_both, out=tmp_path / "out").kept == ["sub-01"]
    (tmp_path / "out/sub-01/anat/sub-01_desc-lesionfilled_T1w.json").unlink()  # killed between the two
    assert fill_cohort(*of_both, out=tmp_path / "out").done == ["sub-01"]


def test_a_contrast_that_was_moved_is_filled_where_it_lies(of_both: tuple[Path, Path], tmp_path: Path) -> None:
    """As template space notes it: 15 mm to the right of where the header has it."""
    source = Path(shutil.copytree(of_both[0], tmp_path / "p"))
    path = source / "sub-01/anat/sub-01_desc-anomaly_probseg.json"
    content = json.loads(path.read_text())
    content["notes"]["moved"] = {
        "T1w": {"mm": 15.0, "matrix": [[1, 0, 0, 15], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}
    }
    path.write_text(json.dumps(content))
    places = {}
    for name, predictions in (("still", of_both[0]), ("moved", source)):
        fill_cohort(predictions, of_both[1], out=tmp_path / name)
        roi = nib.load(tmp_path / name / "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz")
        filled = nib.load(tmp_path / name / "sub-01/anat/sub-01_desc-lesionfilled_T1w.nii.gz")
        scan = nib.load(read_manifest(of_both[1])[0].images["T1w"])
        different = np.asarray(filled.dataobj) != np.asarray(scan.dataobj)
        places[name] = [
            (np.argwhere(voxels) @ scan.affine[:3, :3].T).mean(axis=0)
            for voxels in (np.asarray(roi.dataobj) > 0, different)
        ]
    for still, moved in zip(places["still"], places["moved"], strict=True):
        np.testing.assert_allclose(moved - still, [-15, 0, 0], atol=2)


def test_predictions_of_before_fill_the_contrast_that_they_have(of_both: tuple[Path, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(of_both[0], tmp_path / "p"))
    path = source / "sub-01/anat/sub-01_desc-anomaly_probseg.json"
    content = json.loads(path.read_text())
    del content["pseudo_healthy"]
    path.write_text(json.dumps(content))
    assert fill_cohort(source, of_both[1], out=tmp_path / "out").done == ["sub-01"]
    assert [path.name for path in (tmp_path / "out").rglob("*filled*.nii.gz")] == [
        "sub-01_desc-lesionfilled_FLAIR.nii.gz"
    ]
    model = json.loads((source / "model.json").read_text())
    del model["request"]["pseudo_healthy"]
    (source / "model.json").write_text(json.dumps(model))
    detector = of_both[0].parent / "detector"
    with pytest.raises(ConfigError, match=r"other predictions.*pseudo_healthy None there and every contrast now"):
        predict_cohort(detector, of_both[1], out=source, maps=("all",), device="cpu")


def record(out: Path, contrast: str = "FLAIR") -> dict:
    return json.loads((out / f"sub-01/anat/sub-01_desc-lesionfilled_{contrast}.json").read_text())
