"""DICOM in: voxels and places as pydicom reads them, contrasts as stated, and nothing that names the patient."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_valid import bids_issues

from hybriduad.cohort.manifest import read_manifest
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.exchange import dicom_conversion
from hybriduad.exchange.contrast_guess import guess_contrast, no_anatomy
from hybriduad.exchange.dicom_import import import_dicom
from hybriduad.exchange.dicom_series import WITHHELD, DicomSeries, find_series

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")
from dicom_made import SECRETS, head, write_series  # noqa: E402

T1 = {"EchoTime": 9.0, "RepetitionTime": 500.0, "InversionTime": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient's study: a localizer, a FLAIR, two T1w of which one has fewer voxels, a T1w with an agent, an ADC."""
    root = tmp_path_factory.mktemp("dicom") / "export"
    write_series(root / "a", head(1, (3, 20, 24)), number=1, description="localizer")
    write_series(root / "b", head(2), number=2)
    write_series(root / "c", head(3), number=3, description="t1_se_tra", **T1)
    write_series(root / "c", head(4, (10, 20, 24)), number=4, description="t1 Quackenbush", **T1)
    write_series(root / "d", head(5), number=5, description="t1_se_tra", ContrastBolusAgent="Dotarem", **T1)
    write_series(root / "e", head(6), number=6, description="ep2d_diff_ADC")
    write_series(root / "f", head(7), number=7, description="weird")
    (root / "f" / "notes.txt").write_text("not DICOM")
    return root


@pytest.fixture(scope="module")
def imported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "bids"
    result = import_dicom(folder, out=out)
    assert result.failed == {}
    return out


def table(out: Path) -> dict[str, dict[str, str]]:
    header, *rows = [line.split("\t") for line in (out / "series.tsv").read_text().splitlines()]
    return {row[2]: dict(zip(header, row, strict=True)) for row in rows}


def test_scans_are_where_bids_and_the_manifest_say(imported: Path) -> None:
    (case,) = read_manifest(imported / "cohort.csv")
    assert {name: path.name for name, path in case.images.items()} == {
        "FLAIR": "sub-01_FLAIR.nii.gz",
        "T1w": "sub-01_T1w.nii.gz",
        "T1wCE": "sub-01_ce-gadolinium_T1w.nii.gz",
    }
    assert (case.name, case.health, case.split) == ("sub-01", "unknown", "")


def test_the_official_validator_finds_no_error(imported: Path) -> None:
    assert bids_issues(imported)[0] == []


def test_voxels_lie_where_pydicom_says(imported: Path, folder: Path) -> None:
    image = nib.load(imported / "sub-01/anat/sub-01_T1w.nii.gz")
    assert image.get_data_dtype() == np.int16
    values = np.asarray(image.dataobj)
    back = np.linalg.inv(image.affine)
    slices = [pydicom.dcmread(path) for path in sorted((folder / "c").glob("im_3_*"))]
    assert len(slices) == image.shape[2] == 12
    for data in slices:
        across, down = np.array(data.ImageOrientationPatient).reshape(2, 3)
        for row, column in ((0, 0), (7, 19), (19, 3)):
            place = np.array(data.ImagePositionPatient) + column * across * 1.5 + row * down * 2.0
            voxel = back @ [-place[0], -place[1], place[2], 1]
            assert np.abs(voxel - voxel.round()).max() < 1e-3
            assert values[tuple(voxel[:3].round().astype(int))] == data.pixel_array[row, column]


def test_every_series_is_accounted_for_with_a_reason(imported: Path) -> None:
    rows = table(imported)
    assert sorted(rows) == ["1", "2", "3", "4", "5", "6", "7"]
    assert "a localizer" in rows["1"]["why"]
    assert (rows["2"]["contrast"], rows["2"]["file"]) == ("FLAIR", "sub-01/anat/sub-01_FLAIR.nii.gz")
    assert rows["3"]["file"].endswith("sub-01_T1w.nii.gz")
    assert rows["4"]["file"] == "n/a"
    assert "but series 3 is kept" in rows["4"]["why"]
    assert "contrast agent stated" in rows["5"]["why"]
    assert "diffusion" in rows["6"]["why"]
    assert (rows["7"]["contrast"], rows["7"]["file"]) == ("FLAIR", "n/a")  # by its times
    assert "by TE 90 ms, TR 9000 ms, TI 2500 ms, but series 2 is kept" in rows["7"]["why"]


def test_nothing_names_the_patient(imported: Path) -> None:
    files = [path for path in imported.rglob("*") if path.is_file()]
    assert len(files) == 6 + 5
    for path in files:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        said = (path.name + content.decode("latin-1")).casefold()
        assert [secret for secret in SECRETS if secret in said] == [], path
        assert "101712" not in said, path  # dcm2niix's header holds the time of day
        assert "10:17:12" not in said, path
    assert table(imported)["4"]["description"] == WITHHELD
    sidecar = json.loads((imported / "sub-01/anat/sub-01_FLAIR.json").read_text())
    assert sidecar["InversionTime"] == 2.5
    assert sidecar["MagneticFieldStrength"] == 3


def test_the_user_has_the_last_word(folder: Path, tmp_path: Path) -> None:
    stated = {"7": "PDw", "t2_tirm_tra_dark-fluid": "none"}
    import_dicom(folder, out=tmp_path / "out", subject="sub-P_9", contrasts=stated)
    rows = table(tmp_path / "out")
    assert (rows["7"]["file"], rows["7"]["why"]) == ("sub-P9/anat/sub-P9_PDw.nii.gz", "as stated")
    assert rows["2"]["why"] == "left out as stated"
    with pytest.raises(ConfigError, match=r"unknown contrast: got \['T9'\]"):
        import_dicom(folder, out=tmp_path / "no", contrasts={"7": "T9"})
    with pytest.raises(DataError, match=r"series that is not there: got \['88'\]"):
        import_dicom(folder, out=tmp_path / "no", contrasts={"88": "FLAIR"})
    with pytest.raises(ConfigError, match="name the patient by --subject"):
        import_dicom(folder, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="subject already there"):
        import_dicom(folder, out=tmp_path / "out", subject="P9")
    assert not (tmp_path / "no").exists()


def test_patients_and_studies_are_numbered_and_a_subject_can_be_added(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "x", head(1), study="2")
    write_series(tmp_path / "in" / "y", head(2), study="1")
    write_series(tmp_path / "in" / "z", head(3), patient="Other^One", PatientID="2")
    with pytest.raises(ConfigError, match="several patients under one name: got 2 patients"):
        import_dicom(tmp_path / "in", out=tmp_path / "out", subject="A")
    import_dicom(tmp_path / "in", out=tmp_path / "out")
    import_dicom(tmp_path / "in" / "z", out=tmp_path / "out", subject="A")
    names = [case.name for case in read_manifest(tmp_path / "out" / "cohort.csv")]
    assert names == ["sub-01_ses-01", "sub-01_ses-02", "sub-02", "sub-A"]
    oldest = nib.load(tmp_path / "out/sub-01/ses-01/anat/sub-01_ses-01_FLAIR.nii.gz")
    assert sorted(np.asarray(oldest.dataobj).ravel()) == sorted(head(2).ravel())


def test_who_is_one_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By number, else by name, else by study; and nobody is named in the log."""

    def patients(**headers: dict[str, str]) -> list[int]:
        caplog.clear()
        for name, header in headers.items():
            write_series(tmp_path / str(len(headers)) / name, head(), study=name[-1], **header)
        return [series.patient for series in find_series(tmp_path / str(len(headers)))]

    alike = {f"s{i}": {"patient": name} for i, name in enumerate(("Doe^John", "Doe^John^^^", "DOE^JOHN "))}
    assert patients(**alike) == [1, 1, 1]
    assert caplog.text == ""
    unnumbered = [{"patient": name, "PatientID": ""} for name in ("Doe^John", "DOE^JOHN^^^", "Roe^Jane", "Doe^John")]
    assert patients(**{f"s{i}": header for i, header in enumerate(unnumbered)}) == [1, 1, 1, 2]
    assert caplog.text == ""
    nobody = {f"s{i}": {"patient": "", "PatientID": ""} for i in (1, 2)}
    assert patients(**nobody) == [1, 2]
    assert "2 studies name no patient: each counts as a patient of its own" in caplog.text
    renamed = {f"s{i}": {"patient": name} for i, name in enumerate(("Doe^Jane", "Roe^Jane", "Roe^Jane", "Roe", ""))}
    assert patients(**renamed) == [1, 1, 1, 1, 1]
    assert "one PatientID and several names count as one each: 1" in caplog.text


def test_overwriting_a_subject_leaves_the_others_and_their_masks(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number, name in enumerate("AB"):
        import_dicom(write_series(tmp_path / name, head(number)), out=out, subject=name)
    other, mask = out / "sub-A/anat/sub-A_FLAIR.nii.gz", out / "derivatives/manual/sub-A/anat/drawn_mask.nii.gz"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"by hand")
    (out / "participants.tsv").write_text("participant_id\tage\nsub-A\t40\nsub-B\t50\n")
    before = other.read_bytes()
    again = write_series(tmp_path / "again", head(7), description="t1_se_tra", **T1)
    import_dicom(again, out=out, subject="B", overwrite=True)
    assert (other.read_bytes(), mask.read_bytes()) == (before, b"by hand")
    cases = read_manifest(out / "cohort.csv")
    assert [(case.subject, list(case.images), case.attributes["age"]) for case in cases] == [
        ("A", ["FLAIR"], "40"),
        ("B", ["T1w"], "50"),
    ]
    assert [path.name for path in sorted((out / "sub-B/anat").iterdir())] == ["sub-B_T1w.json", "sub-B_T1w.nii.gz"]
    rows = [line.split("\t") for line in (out / "series.tsv").read_text().splitlines()[1:]]
    assert [(row[0], row[4]) for row in rows] == [("A", "FLAIR"), ("B", "T1w")]
    roi = out / "sub-B/anat/sub-B_T1w_label-lesion_roi.nii.gz"
    roi.write_bytes(b"by hand")
    with pytest.raises(ConfigError, match=r"what no import wrote among the scans .*sub-B_T1w_label-lesion_roi.nii.gz;"):
        import_dicom(again, out=out, subject="B", overwrite=True)
    assert roi.read_bytes() == b"by hand"


def test_overwriting_all_takes_nothing_but_imported_scans(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = (write_series(tmp_path / str(number), head(number)) for number in (1, 2))
    import_dicom(first, out=out, subject="A")
    (out / "participants.tsv").write_text("participant_id\nsub-A\n")
    with pytest.raises(ConfigError, match=r"got participants.tsv; move that away first, .* one patient .*--subject"):
        import_dicom(second, out=out, overwrite=True)
    assert (out / "sub-A/anat/sub-A_FLAIR.nii.gz").is_file()
    (out / "participants.tsv").unlink()
    (out / ".DS_Store").touch()
    import_dicom(second, out=out, overwrite=True)
    assert [case.name for case in read_manifest(out / "cohort.csv")] == ["sub-01"]
    assert sorted(path.name for path in out.glob("sub-*")) == ["sub-01"]


def test_what_fails_or_is_killed_leaves_the_scans_there(tmp_path: Path) -> None:
    out, scan = tmp_path / "out", tmp_path / "out/sub-A/anat/sub-A_FLAIR.nii.gz"
    good, bad = write_series(tmp_path / "good", head(1)), write_series(tmp_path / "bad", head(2), description="scout")
    import_dicom(good, out=out, subject="A")
    with pytest.raises(DataError, match="no usable scan"):
        import_dicom(bad, out=out, subject="A", overwrite=True)
    assert scan.is_file()
    code = (
        "import os, sys; from hybriduad.exchange import dicom_import;"
        "dicom_import.convert_series = lambda *_: os._exit(9);"
        "dicom_import.import_dicom(sys.argv[1], out=sys.argv[2], subject='B')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(good), str(out)], timeout=300, check=False)
    assert done.returncode == 9
    (left,) = out.glob(".import-*")
    assert (scan.is_file(), (out / "sub-B").exists()) == (True, False)
    living = out / left.name.replace(left.name.split("-")[2], str(os.getpid()))
    living.mkdir()
    import_dicom(good, out=out, subject="B")
    assert list(out.glob(".import-*")) == [living]
    assert [case.subject for case in read_manifest(out / "cohort.csv")] == ["A", "B"]


@pytest.mark.parametrize("subject", ["A", None])
def test_an_exchange_that_is_stopped_is_undone_and_can_be_done_again(
    subject: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, series = tmp_path / "out", write_series(tmp_path / "in", head(1))
    import_dicom(series, out=out, subject="A")
    rename = os.rename

    def killed(source: Path, target: Path) -> None:
        if source.parent.name == "bids":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            import_dicom(series, out=out, subject=subject, overwrite=True)
    assert (out / "sub-A/anat/sub-A_FLAIR.nii.gz").is_file()
    import_dicom(series, out=out, subject=subject, overwrite=True)
    assert [case.subject for case in read_manifest(out / "cohort.csv")] == [subject or "01"]
    assert len((out / "series.tsv").read_text().splitlines()) == 2


def test_nothing_usable_and_no_dicom_are_one_sentence(tmp_path: Path) -> None:
    write_series(tmp_path / "in", head(1, (3, 20, 24)), number=1, description="scout")
    with pytest.raises(DataError, match=r"no usable scan.*series 1: called 'scout': a localizer; name what it is"):
        import_dicom(tmp_path / "in", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("no DICOM at all")
    with pytest.raises(DataError, match="no DICOM image"):
        import_dicom(tmp_path / "text", out=tmp_path / "out")


def test_a_failing_or_endless_dcm2niix_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dcm").write_text("no DICOM")
    with pytest.raises(DataError, match=r"dcm2niix failed: got exit code 2 \(no image in its files\)"):
        dicom_conversion.convert_series([tmp_path / "a.dcm"], tmp_path / "one")
    fake = tmp_path / "slow"
    fake.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    fake.chmod(0o755)
    monkeypatch.setattr(dicom_conversion, "TIMEOUT_S", 0.2)
    monkeypatch.setattr("dcm2niix.bin", str(fake))
    with pytest.raises(DataError, match="dcm2niix takes too long"):
        dicom_conversion.convert_series([tmp_path / "a.dcm"], tmp_path / "two")


def test_without_the_extra_one_sentence_names_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    with pytest.raises(ConfigError) as caught:
        import_dicom(folder, out=tmp_path / "out")
    assert str(caught.value) == (
        "DICOM needs a package that is not installed: got no dcm2niix; pip install '.[dicom]' in the checkout."
    )
    assert not (tmp_path / "out").exists()


def series(
    description: str,
    *,
    kind: tuple[str, ...] = ("ORIGINAL", "PRIMARY"),
    agent: bool = False,
    protocol: str = "",
) -> DicomSeries:
    return DicomSeries(1, 1, "1", description, protocol, "MR", kind, agent, 30, ())


@pytest.mark.parametrize(
    ("description", "sidecar", "contrast"),
    [
        ("T2 FLAIR sag", {}, "FLAIR"),
        ("t2_spc_da-fl_irprep_sag", {}, "FLAIR"),
        ("AX T1 FLAIR", {}, "T1w"),
        ("t1_mprage_sag_p2_iso", {}, "T1w"),
        ("Sag 3D BRAVO +C", {}, "T1wCE"),
        ("T1 post gado", {}, "T1wCE"),
        ("T1 pre contrast", {}, "T1w"),
        ("T1 SE posterior", {}, "T1w"),
        ("T2W_TSE", {}, "T2w"),
        ("T2*_GRE", {}, "T2starw"),
        ("PD_TSE_tra", {}, "PDw"),
        ("sag", {"EchoTime": 0.12, "RepetitionTime": 9.0, "InversionTime": 2.5}, "FLAIR"),
        ("sag", {"EchoTime": 0.003, "RepetitionTime": 2.3, "InversionTime": 0.9}, "T1w"),
        ("sag", {"EchoTime": 0.1, "RepetitionTime": 4.0}, "T2w"),
        ("sag", {"EchoTime": 0.05, "RepetitionTime": 1.5}, ""),
        ("sag", {}, ""),
    ],
)
def test_contrast_by_words_then_by_times(description: str, sidecar: dict[str, float], contrast: str) -> None:
    guess = guess_contrast(series(description), sidecar)
    assert guess.contrast == contrast
    assert guess.why


def test_a_contradiction_and_an_agent_are_said() -> None:
    times = {"EchoTime": 0.1, "RepetitionTime": 4.0}
    assert guess_contrast(series("T1 SE"), times).why == "called 'T1 SE', though TE 100 ms, TR 4000 ms would be T2w"
    assert guess_contrast(series("T1 SE", agent=True), {}).contrast == "T1wCE"


@pytest.mark.parametrize(
    "description",
    [
        *("AX T1 W/O CONTRAST", "SAG T1 WO CONTRAST", "T1 AX PRE-CONTRAST", "T1 precontrast", "T1 non-contrast"),
        *("T1 PRE GD", "AX T1 PRE GAD", "T1 w/o Gd", "T1 ohne KM", "t1_se_tra_vor_KM", "T1 unenhanced"),
        *("T1 W/WO CONTRAST", "T1 with and without contrast", "T1 W & W/O CONTRAST", "T1 post-op", "T1 W/O FS"),
    ],
)
def test_no_contrast_agent_by_the_name(description: str) -> None:
    assert guess_contrast(series(description), {}).contrast == "T1w"


@pytest.mark.parametrize(
    "description",
    ["AX T1 W CONTRAST", "T1 POST W/O FS", "T1 FS +C", "T1 pre-op post contrast", "T1 nach KM", "T1 MPRAGE Gd"],
)
def test_a_contrast_agent_by_the_name(description: str) -> None:
    assert guess_contrast(series(description), {}).contrast == "T1wCE"


def test_the_name_says_more_of_the_agent_than_the_header() -> None:
    guess = guess_contrast(series("T1 pre Gd", agent=True), {})
    assert guess.contrast == "T1w"
    assert guess.why == "called 'T1 pre Gd', without contrast agent by its name, though one is stated"
    assert guess_contrast(series("T1 w/wo contrast", agent=True), {}).contrast == "T1wCE"


@pytest.mark.parametrize(
    ("description", "protocol", "contrast"),
    [
        ("SAG T1 SE", "BRAIN W/WO CONTRAST", "T1w"),
        ("AX T2 FLAIR", "BRAIN + MRA", "FLAIR"),
        ("AX T1", "HEAD AND NECK", "T1w"),
        ("Ax T2 FSE", "ROUTINE BRAIN FLAIR T2", "T2w"),
        ("", "t1_mprage", "T1w"),
        (WITHHELD, "t2_flair", "FLAIR"),
    ],
)
def test_the_protocol_of_an_examination_names_no_series(description: str, protocol: str, contrast: str) -> None:
    named = series(description, protocol=protocol)
    assert no_anatomy(named) == ""
    assert guess_contrast(named, {}).contrast == contrast


def test_what_is_no_anatomy() -> None:
    assert no_anatomy(series("t1_mprage")) == ""
    assert no_anatomy(series("t1_mprage", kind=("DERIVED", "PRIMARY", "MPR"))) == "image type DERIVED"
    assert no_anatomy(series("t1", kind=("ORIGINAL", "PRIMARY", "P"))) == "no magnitude image"
    for name in ("3-plane Loc", "DTI_64", "SWI_Images", "TOF_3D", "ep2d_bold", "gre_field_mapping", "T2 C-Spine"):
        assert no_anatomy(series(name)).startswith(f"called {name!r}"), name


def test_a_series_knows_no_name(folder: Path) -> None:
    assert [secret for secret in SECRETS if secret in repr(find_series(folder)).casefold()] == []
