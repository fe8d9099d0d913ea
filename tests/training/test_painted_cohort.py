"""Cohorts with painted lesions: what is written, what stays as it was, and how they are continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_valid import bids_issues
from typer.testing import CliRunner

from hybriduad.cli.app import app
from hybriduad.cohort.manifest import index, read_cohort, write_manifest
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.types import Case
from hybriduad.datasets._layout import contrast_of, entities
from hybriduad.phantom.cohort import write_cohort
from hybriduad.scan.volumes import read_mask, read_volume
from hybriduad.training import painted_cohort
from hybriduad.training.painted_cohort import paint_cohort
from hybriduad.training.painted_files import scan_path

ANOMALIES = ["anomalies=[{name: poisson, same_scan: 0.0}, {name: intensity-bias, softness_mm: [4, 8]}]", "seed=1"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three healthy phantoms and one with a glioma. FLAIR is the reference: that of the first has fewer slices and
    another axis than its T1w, that of the second ends before the brain does."""
    root = tmp_path_factory.mktemp("healthy")
    write_cohort(root / "h", subjects=3, seed=3, contrasts=("T1w", "FLAIR"), spacing_mm=(5.0, 5.0, 8.0), workers=1)
    write_cohort(
        root / "g", subjects=4, seed=3, contrasts=("T1w",), spacing_mm=(5.0, 5.0, 8.0), pathology="glioma", workers=1
    )
    first, second, third = read_cohort(root / "h" / "manifest.csv")
    flair = nib.load(first.images["FLAIR"]).slicer[:, :, ::2]
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = flair.shape[0] - 1
    data = np.asanyarray(flair.dataobj)[::-1] * np.float32(1.37)
    nib.save(nib.Nifti1Image(data, flair.affine @ mirror), root / "first_FLAIR.nii.gz")
    nib.save(nib.load(second.images["FLAIR"]).slicer[:, :, :14], root / "second_FLAIR.nii.gz")
    ill = read_cohort(root / "g" / "manifest.csv")[3]
    cases = [
        replace(first, images={**first.images, "FLAIR": root / "first_FLAIR.nii.gz"}, split="train"),
        replace(second, images={**second.images, "FLAIR": root / "second_FLAIR.nii.gz"}, brain=None, split="test"),
        replace(third, split="test"),
        ill,
    ]
    write_manifest(cases, root / "cohort.csv")
    return root / "cohort.csv"


def assert_painted(before: Case, after: Case, contrast: str, *, on_mask_grid: bool = True) -> None:
    """Equal to the scan bit by bit outside lesion and ignore, on the same grid, and changed in the lesion."""
    was, now = read_volume(before.images[contrast]), read_volume(after.images[contrast])
    assert np.array_equal(now.grid.affine, was.grid.affine)
    changed = now.data != was.data
    assert changed.any()
    if (was.data == np.rint(was.data)).all():
        assert (now.data == np.rint(now.data)).all()
    if on_mask_grid:
        lesion = read_mask(after.lesion).data
        ignore = read_mask(after.ignore).data if after.ignore else np.zeros_like(lesion)
        assert not (changed & ~(lesion | ignore)).any()
        assert changed[lesion].mean() > 0.5
        assert not (lesion & ~read_mask(after.brain).data).any()


def test_a_cohort_with_known_truth_that_index_reads(cohort: Path, tmp_path: Path) -> None:
    outcome = paint_cohort("synthetic", cohort, out=tmp_path / "out", overrides=ANOMALIES)
    assert (outcome.failed, outcome.kept) == ({}, [])
    assert len(outcome.done) == 3  # without the one with a glioma
    healthy = read_cohort(cohort)[:3]
    painted = index("bids", tmp_path / "out", tmp_path / "m.csv", seed=0)
    assert [case.name for case in painted] == [case.name for case in healthy]
    assert {case.health for case in painted} == {"lesion"}
    assert [case.dataset for case in painted] == ["phantom-3"] * 3  # the same people
    assert [case.split for case in painted] == ["train", "test", "test"]
    assert painted[0].attributes["age"] == healthy[0].attributes["age"]
    assert {case.attributes["generator"] for case in painted} <= {"poisson", "intensity-bias"}
    assert {case.attributes["pathology"] for case in painted} == {"painted"}
    for before, after in zip(healthy, painted, strict=True):
        assert_painted(before, after, "FLAIR")  # the reference
    assert_painted(healthy[2], painted[2], "T1w")
    record = json.loads((tmp_path / "out/derivatives/manual/sub-0003/anat/sub-0003_label-lesion_mask.json").read_text())
    voxels = int(read_mask(painted[2].lesion).data.sum())
    assert record["volume_ml"] == pytest.approx(voxels * 0.2, abs=1e-3)
    errors, warnings = bids_issues(tmp_path / "out")
    assert errors == []
    assert "TSV_ADDITIONAL_COLUMNS_UNDEFINED" not in warnings


def test_contrasts_on_other_grids_get_the_same_lesion(cohort: Path, tmp_path: Path) -> None:
    changes = ["anomalies=[{name: intensity-bias, bright: 1.0, bias: [0.6, 0.6], diameter_mm: [60, 60]}]"]
    paint_cohort("synthetic", cohort, out=tmp_path / "out", overrides=changes)
    first, second = read_cohort(tmp_path / "out")[:2]
    for before, after in zip(read_cohort(cohort)[:2], (first, second), strict=True):
        assert_painted(before, after, "T1w", on_mask_grid=False)
        t1w, flair = (read_volume(path) for path in (after.images["T1w"], after.images["FLAIR"]))
        centres = []
        for name, scan in (("T1w", t1w), ("FLAIR", flair)):
            change = np.abs(scan.data - read_volume(before.images[name]).data)
            centre = np.argwhere(change > change.max() / 2).mean(axis=0)
            centres.append(scan.affine[:3, :3] @ centre + scan.affine[:3, 3])
        assert np.abs(centres[0] - centres[1])[:2].max() < 8


def test_lesions_are_dark_on_t1w_where_they_are_bright_on_flair(cohort: Path, tmp_path: Path) -> None:
    changes = ["anomalies=[{name: lesion, bright: 1.0, core: 0, mass_effect: 0, contrast: [0.4, 0.4]}]"]
    paint_cohort("synthetic", cohort, out=tmp_path / "out", overrides=changes)
    before, after = read_cohort(cohort)[2], read_cohort(tmp_path / "out")[2]
    lesion = read_mask(after.lesion).data
    flair, t1w = (
        np.mean((read_volume(after.images[name]).data - read_volume(before.images[name]).data)[lesion])
        for name in ("FLAIR", "T1w")
    )
    assert flair > 0 > t1w


def test_a_case_that_fails_never_ends_the_others_and_is_done_when_it_is_mended(cohort: Path, tmp_path: Path) -> None:
    cases = read_cohort(cohort)
    good = cases[1].images["T1w"]
    broken = tmp_path / "T1w.nii.gz"
    broken.write_bytes(good.read_bytes()[:2000])
    write_manifest([cases[0], replace(cases[1], images={"T1w": broken}), cases[2]], tmp_path / "c.csv")
    arguments = ["paint", "synthetic", str(tmp_path / "c.csv"), "--out", str(tmp_path / "out")]
    arguments += [part for override in ANOMALIES for part in ("--set", override)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3, result.output
    assert f"2 done, 0 kept, 1 failed, in {tmp_path / 'out'}" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("failed: sub-0002: damaged or truncated file")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("sub-*/anat/*")}
    assert len(before) == 4
    broken.write_bytes(good.read_bytes())
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "1 done, 2 kept, 0 failed" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [case.attributes["pathology"] for case in read_cohort(tmp_path / "out")] == ["painted"] * 3


def test_a_case_of_which_a_contrast_has_a_fault_is_not_painted_in_part(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third = read_cohort(cohort)[:3]
    faulty = replace(first, images={"FLAIR": first.images["FLAIR"]}, faults={"T1w": "two of a kind"})
    monkeypatch.setattr(painted_cohort, "read_cohort", lambda _: [faulty, third])
    outcome = paint_cohort("synthetic", cohort, out=tmp_path / "out", overrides=ANOMALIES)
    assert (outcome.done, outcome.failed) == (["sub-0003"], {"sub-0001": "two of a kind."})


def test_the_same_request_gives_the_same_files_and_another_is_refused(cohort: Path, tmp_path: Path) -> None:
    one = [*ANOMALIES, "anatomy={contrasts: [T1w]}"]
    for name in ("a", "b"):
        paint_cohort("synthetic", cohort, out=tmp_path / name, overrides=one)
    listed = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert not [path for path in listed if "FLAIR" in path.name]
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in listed)
    with pytest.raises(
        ConfigError, match=r"other painted scans in the same place.*seed 1 there and 2 now.*--overwrite"
    ):
        paint_cohort("synthetic", cohort, out=tmp_path / "a", overrides=[*one, "seed=2"])
    old = read_volume(read_cohort(tmp_path / "a")[0].images["T1w"]).data
    paint_cohort("synthetic", cohort, out=tmp_path / "a", overrides=[*one, "seed=2"], overwrite=True)
    assert not np.array_equal(read_volume(read_cohort(tmp_path / "a")[0].images["T1w"]).data, old)


def test_a_scan_that_changed_under_its_name_is_not_kept(cohort: Path, tmp_path: Path) -> None:
    case = read_cohort(cohort)[2]
    scan = tmp_path / "T1w.nii.gz"
    scan.write_bytes(case.images["T1w"].read_bytes())
    write_manifest([replace(case, images={"T1w": scan})], tmp_path / "c.csv")
    changes = ["anomalies=[{name: smooth-intensity}]"]
    assert paint_cohort("synthetic", tmp_path / "c.csv", out=tmp_path / "out", overrides=changes).done
    loaded = nib.load(scan)
    nib.save(nib.Nifti1Image(np.asanyarray(loaded.dataobj) + 1, loaded.affine), scan)
    failed = paint_cohort("synthetic", tmp_path / "c.csv", out=tmp_path / "out", overrides=changes).failed
    assert "painted from another scan of that name" in failed["sub-0003"]


def test_refuses(cohort: Path, tmp_path: Path) -> None:
    cases = read_cohort(cohort)
    with pytest.raises(ConfigError, match="config without anomalies to paint"):
        paint_cohort("synthetic", cohort, out=tmp_path / "o", overrides=["anomalies=[{name: transplant}]"])
    write_manifest(cases[3:], tmp_path / "ill.csv")
    with pytest.raises(DataError, match="no healthy case to paint into"):
        paint_cohort("synthetic", tmp_path / "ill.csv", out=tmp_path / "o")
    write_manifest([cases[0], replace(cases[1], dataset="else")], tmp_path / "two.csv")
    with pytest.raises(DataError, match=r"cases of several data sets.*\['else', 'phantom-3'\]"):
        paint_cohort("synthetic", tmp_path / "two.csv", out=tmp_path / "o")
    assert not (tmp_path / "o").exists()
    with pytest.raises(ConfigError, match="output folder holds something else"):
        paint_cohort("synthetic", cohort, out=tmp_path)


@pytest.mark.parametrize("contrast", ["T1w", "T1wCE", "FLAIR"])
def test_names_of_scans_are_read_back(contrast: str) -> None:
    case = Case("d", "7", {}, session="2", run="3")
    path = scan_path(Path("out"), case, contrast)
    parsed = entities(path.name)
    assert parsed is not None
    labels, suffix = parsed
    assert contrast_of(labels, suffix) == contrast
    assert (labels["sub"], labels["ses"], labels["run"]) == ("7", "2", "3")
    assert path.parent.as_posix() == "out/sub-7/ses-2/anat"
