"""Wrong input, each in one sentence: through the command line, where a user meets it."""

from __future__ import annotations

import gzip
import json
import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny import write_nifti
from typer.testing import CliRunner

from hybriduad.cli.app import app
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case

AFFINE = np.diag([5.0, 5.0, 8.0, 1.0])


def refused(*arguments: object) -> str:
    """The one sentence with which a verb refuses everything; exit code 2."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert re.fullmatch(r"hybriduad: .+\.\n", result.stderr)
    return result.stderr.strip()


def failed(bundle: Path, cohort: Path, out: Path) -> str:
    """The one sentence with which ``predict`` skips the only case of a cohort; exit code 3, and nothing written."""
    result = CliRunner().invoke(app, ["predict", str(bundle), str(cohort), "--out", str(out)])
    assert result.exit_code == 3, result.output
    assert "0 done, 0 kept, 1 failed" in result.stdout
    assert list(out.rglob("*.nii.gz")) == []
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch(r"failed: sub-\w+: .+\.", last)
    return last


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 100, (34, 41, 22)).astype(np.float32)


@pytest.fixture
def case(tiny_cohort: Path) -> Case:
    return read_cohort(tiny_cohort)[0]


def test_missing_file(tiny_reconstructor: Path, tmp_path: Path) -> None:
    path = tmp_path / "sub-1_FLAIR.nii.gz"
    sentence = refused("predict", tiny_reconstructor, path, "--out", tmp_path / "p")
    expected = "a manifest .csv, a BIDS folder, or an image .nii or .nii.gz"
    assert sentence == f"hybriduad: no such cohort: got {path}, expected {expected}; check the path."


def test_missing_file_in_a_manifest(tiny_reconstructor: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("dataset,subject,FLAIR\nd,1,gone.nii.gz\n")
    sentence = refused("predict", tiny_reconstructor, tmp_path / "cohort.csv", "--out", tmp_path / "p")
    assert f"row 2: FLAIR: missing file {tmp_path / 'gone.nii.gz'}" in sentence


def test_no_such_cohort(tiny_reconstructor: Path, tmp_path: Path) -> None:
    sentence = refused("predict", tiny_reconstructor, tmp_path / "none.txt", "--out", tmp_path / "p")
    assert "no such cohort" in sentence
    assert "expected a manifest .csv, a BIDS folder, or an image" in sentence


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no gzip"])
def test_corrupt_gzip(damage: str, tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", noise, AFFINE)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(
        b"\x1f\x8bno gzip at all"
        if damage == "no gzip"
        else content
        if damage == "flipped"
        else content[: len(content) // 2]
    )
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert f"damaged or truncated file in {path}" in sentence
    assert "copy or export it again" in sentence


def test_not_nifti(tiny_reconstructor: Path, tmp_path: Path) -> None:
    path = tmp_path / "sub-1_FLAIR.nii.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert f"not a NIfTI file in {path}" in failed(tiny_reconstructor, path, tmp_path / "p")


def test_four_dimensions(tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", np.stack([noise, noise], axis=-1), AFFINE)
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert f"not a volume in {path}: got shape (34, 41, 22, 2), expected three axes" in sentence


def test_header_in_metres(tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", noise, np.diag([0.001, 0.001, 0.004, 1.0]))
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert f"voxel size that no brain scan has in {path}: got 0.001 x 0.001 x 0.004 mm, expected 0.05 to 30" in sentence
    assert "the unit in the header is probably wrong: write its spacing and transform in millimetres" in sentence


def test_noise_in_place_of_a_scan(tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", noise, AFFINE)
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert re.search(
        rf"nothing but noise in {path}: got neighbouring voxels that correlate by -?0\.\d\d, expected 0\.3 or more; "
        r"export the scan again\.",
        sentence,
    )


def test_a_negated_scan(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    scan = nib.load(case.images["FLAIR"])
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", -scan.get_fdata().astype(np.float32), scan.affine)
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert f"inverted intensities in {path}: got" in sentence
    assert "expected air darker than tissue; give the scan as it was acquired" in sentence


def test_a_scan_without_a_head(tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    empty = np.zeros_like(noise)
    empty[17, 20, 11] = 5
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", empty, np.diag([1.0, 1.0, 4.0, 1.0]))
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert "no brain found in sub-1: got no head that stands out from its background; check the scan" in sentence


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity(value: float, tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    noise[3, 4, 5:8] = value
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", noise, AFFINE)
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert f"NaN or infinite voxels in {path}: got 3 of {noise.size}, expected finite numbers" in sentence


def test_constant_image(tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "sub-1_FLAIR.nii.gz", np.full_like(noise, 7), AFFINE)
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    assert f"constant image in {path}: got 7 in every voxel, expected a scan" in sentence


def test_mask_on_none_of_the_grids(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    mask = write_nifti(tmp_path / "brain.nii.gz", np.ones((30, 30, 20), np.uint8), AFFINE)
    write_manifest([replace(case, brain=mask)], tmp_path / "cohort.csv")
    sentence = failed(tiny_reconstructor, tmp_path / "cohort.csv", tmp_path / "p")
    assert f"brain mask on none of the case's grids in {mask}: got shape (30, 30, 20)" in sentence
    assert "expected FLAIR (34, 41, 22), T1w (34, 41, 22); resample it onto the scan" in sentence


def test_mask_of_the_right_shape_but_elsewhere(case: Case, tmp_path: Path) -> None:
    from hybriduad.config.runs import Anatomy
    from hybriduad.scan.preparation import prepare

    affine = nib.load(case.images["FLAIR"]).affine.copy()
    affine[0, 3] += 10
    mask = write_nifti(tmp_path / "lesion.nii.gz", np.zeros((34, 41, 22), np.uint8), affine)
    with pytest.raises(DataError, match=r"grids.*shape \(34, 41, 22\), in another place than theirs"):
        prepare(replace(case, lesion=mask), Anatomy(contrasts=("FLAIR",), size=32))


def test_unknown_contrast(tiny_reconstructor: Path, noise: np.ndarray, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "sub-1_FLARE.nii.gz", noise, AFFINE)
    sentence = refused("predict", tiny_reconstructor, path, "--out", tmp_path / "p")
    assert f"unknown contrast in {path}: got 'FLARE', expected one of ['FLAIR', 'T1w'" in sentence
    assert "--contrast FLAIR" in sentence
    asked = refused("predict", tiny_reconstructor, path, "--contrast", "T1", "--out", tmp_path / "p")
    assert "got 'T1'" in asked
    assert "--contrast T1w" in asked


def test_contrast_that_the_bundle_lacks(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    sentence = failed(tiny_reconstructor, case.images["T1w"], tmp_path / "p")
    assert "no contrast that the bundle knows in sub-01: got ['T1w'], expected one of ['FLAIR']" in sentence


def test_empty_manifest(tiny_reconstructor: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("dataset,subject,FLAIR\n")
    sentence = refused("predict", tiny_reconstructor, tmp_path / "cohort.csv", "--out", tmp_path / "p")
    assert f"empty cohort in {tmp_path / 'cohort.csv'}: got a header and no row" in sentence


def test_empty_folder(tiny_reconstructor: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sentence = refused("predict", tiny_reconstructor, tmp_path / "empty", "--out", tmp_path / "p")
    assert str(tmp_path / "empty") in sentence


def test_no_case_of_the_split(tiny_reconstructor: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    sentence = refused("predict", tiny_reconstructor, tiny_cohort, "--split", "test", "--out", tmp_path / "p")
    assert "no case of the split" in sentence
    assert "expected test" in sentence


def test_duplicate_case(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    row = f"d,1,{case.images['FLAIR']}\n"
    (tmp_path / "cohort.csv").write_text("dataset,subject,FLAIR\n" + row + row)
    sentence = refused("predict", tiny_reconstructor, tmp_path / "cohort.csv", "--out", tmp_path / "p")
    assert "row 3: duplicate case sub-1 of 'd', first in row 2" in sentence


def test_every_bad_row_is_reported(tiny_reconstructor: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("dataset,subject,FLAIR,health\nd,1,gone.nii,\nd,2,,sick\n")
    sentence = refused("predict", tiny_reconstructor, tmp_path / "cohort.csv", "--out", tmp_path / "p")
    assert "row 2: " in sentence
    assert "row 3: no image" in sentence
    assert "health 'sick'" in sentence


def test_unknown_config_key(tmp_path: Path) -> None:
    sentence = refused("show", "restoration", "--set", "train.step=3")
    assert "unknown key" in sentence
    assert "got 'train.step'" in sentence
    assert "perhaps 'train.steps' is meant" in sentence


def copied(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_tampered_weights(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    bundle = copied(tiny_reconstructor, tmp_path)
    weights = bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    sentence = refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")
    assert f"damaged or changed file in bundle in {bundle}: got weights.safetensors" in sentence


def test_truncated_weights(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    bundle = copied(tiny_reconstructor, tmp_path)
    weights = bundle / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    sentence = refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")
    assert "damaged or changed file in bundle" in sentence


def test_missing_and_added_files(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    bundle = copied(tiny_reconstructor, tmp_path)
    (bundle / "extra.txt").write_text("x")
    assert "got extra.txt; remove it" in refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")
    (bundle / "extra.txt").unlink()
    (bundle / "statistics.safetensors").unlink()
    sentence = refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")
    assert "file missing from bundle" in sentence
    assert "got statistics.safetensors" in sentence


def test_tampered_record(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    bundle = copied(tiny_reconstructor, tmp_path)
    record = json.loads((bundle / "bundle.json").read_text())
    record["seed"] = 5
    (bundle / "bundle.json").write_text(json.dumps(record))
    sentence = refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")
    assert f"bundle.json was changed after it was written in {bundle}" in sentence
    (bundle / "bundle.json").write_text("{")
    assert "unreadable bundle.json" in refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")
    (bundle / "bundle.json").write_bytes(b"\xff\xfe")
    assert "unreadable bundle.json" in refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")


def test_tampered_reconstructor_inside_a_detector(tiny_detector: Path, case: Case, tmp_path: Path) -> None:
    bundle = copied(tiny_detector, tmp_path)
    inner = bundle / "reconstructor" / "config.yaml"
    inner.write_text(inner.read_text().replace("seed: 0", "seed: 1"))
    sentence = refused("predict", bundle, case.images["FLAIR"], "--out", tmp_path / "p")
    assert f"damaged or changed file in bundle in {bundle / 'reconstructor'}: got config.yaml" in sentence


def test_no_bundle(case: Case, tmp_path: Path) -> None:
    sentence = refused("predict", tmp_path / "none", case.images["FLAIR"], "--out", tmp_path / "p")
    assert f"no such bundle: got {tmp_path / 'none'}" in sentence
    assert "expected a folder made by fit-reconstructor or fit-detector" in sentence


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_header_that_declares_27_gb(suffix: str, tiny_reconstructor: Path, tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((3000, 3000, 750))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + b"\0" * 4
    path = tmp_path / f"sub-1_FLAIR{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentence = failed(tiny_reconstructor, path, tmp_path / "p")
    grown_gib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert f"header that declares too much in {path}: got 25.1 GiB (3000, 3000, 750)" in sentence
    assert grown_gib < 1  # nothing of that size was ever allocated


def test_manifest_path_outside_its_root(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    outside = tmp_path / "sub-1_FLAIR.nii.gz"
    shutil.copy(case.images["FLAIR"], outside)
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "link.nii.gz").symlink_to(outside)
    for written in ("../sub-1_FLAIR.nii.gz", "link.nii.gz"):
        (folder / "cohort.csv").write_text(f"dataset,subject,FLAIR\nd,1,{written}\n")
        sentence = refused("predict", tiny_reconstructor, folder / "cohort.csv", "--out", tmp_path / "p")
        assert "row 2: FLAIR: path outside its root" in sentence
        assert f"is not below {folder}" in sentence


def test_output_folder_with_something_else(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("do not touch")
    for more in ([], ["--overwrite"]):
        sentence = refused("predict", tiny_reconstructor, case.images["FLAIR"], "--out", tmp_path / "p", *more)
        assert f"output folder holds something else in {tmp_path / 'p'}" in sentence
    assert (tmp_path / "p" / "thesis.txt").read_text() == "do not touch"


def test_output_folder_that_cannot_be_made(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("precious")
    for out in (tmp_path / "cohort.csv", tmp_path / "cohort.csv" / "below"):
        sentence = refused("predict", tiny_reconstructor, case.images["FLAIR"], "--out", out)
        assert f"cannot read or write in {tmp_path / 'cohort.csv'}" in sentence
    assert (tmp_path / "cohort.csv").read_text() == "precious"


def test_unusable_device(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    sentence = refused(
        "predict", tiny_reconstructor, case.images["FLAIR"], "--device", "abacus", "--out", tmp_path / "p"
    )
    assert "no such device on this machine: got 'abacus', expected auto, cpu" in sentence


def test_unknown_maps_and_rule(tiny_reconstructor: Path, case: Case, tmp_path: Path) -> None:
    common = ("predict", tiny_reconstructor, case.images["FLAIR"], "--out", tmp_path / "p")
    assert "unknown maps: got ['scores'], expected some of ['score'" in refused(*common, "--maps", "scores")
    assert "uncalibrated rule: got 'best-dice', expected one of []" in refused(*common, "--rule", "best-dice")
