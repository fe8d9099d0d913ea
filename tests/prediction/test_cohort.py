"""Prediction on the scan's own grid, and cohorts that grow case by case."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from bids_valid import bids_issues
from scipy import ndimage
from tiny import cropped

from hybriduad.cohort.manifest import read_case, read_cohort, write_manifest
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.types import Case
from hybriduad.detector.bundle import verify
from hybriduad.detector.loading import load_detector
from hybriduad.evaluation.evaluate import evaluate
from hybriduad.prediction import work
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.files import FORMAT, SUFFIXES
from hybriduad.prediction.quality import with_quality

NAMES = ["sub-01", "sub-02", "sub-03"]


@pytest.fixture(scope="module")
def cases(tiny_cohort: Path) -> list[Case]:
    return read_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def predicted(tiny_detector: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every map of the tiny cohort; read-only."""
    out = tmp_path_factory.mktemp("predictions") / "all"
    outcome = predict_cohort(tiny_detector, tiny_cohort, out=out, maps=("all",), device="cpu")
    assert (outcome.done, outcome.kept, outcome.failed) == (NAMES, [], {})
    return out


def test_a_scan_to_be_doubted_is_flagged_in_its_record_and_in_the_log(
    tiny_detector: Path, cases: list[Case], predicted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Upside down against its header: predicted all the same."""
    assert record_of_case(predicted)["quality"] == {"flags": [], "out_of_distribution": None}
    image = nib.load(cases[0].images["FLAIR"])
    scan = tmp_path / "sub-01_FLAIR.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, ::-1], image.affine), scan)
    assert predict_cohort(tiny_detector, scan, out=tmp_path / "out", device="cpu").done == ["sub-01"]
    record = record_of_case(tmp_path / "out")
    [flag] = record["quality"]["flags"]
    assert flag["name"] == "upside down"
    assert flag["value"] < flag["limit"]
    assert f"sub-01: {flag['sentence']}" in caplog.messages
    assert "quality" not in record["notes"]
    assert "out_of_distribution" not in record["notes"]


def test_a_scan_unlike_the_training_is_said_to_be(
    cases: list[Case], tiny_detector: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = predict_case(load_detector(tiny_detector, "cpu"), cases[0])
    for distance, warned in ((3.0, False), (4.5, True)):
        caplog.clear()
        familiarity = {"distance": distance, "limit": 4.0}
        noted = replace(found, notes=found.notes | {"out_of_distribution": familiarity})
        assert with_quality(noted, cases[0], ("FLAIR",)).notes["quality"]["out_of_distribution"] == familiarity
        assert ("sub-01: unlike the scans of the training: distance 4.5, limit 4.0" in caplog.messages) == warned


def record_of_case(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "sub-01/anat/sub-01_desc-anomaly_probseg.json").read_text()))


def test_a_table_of_the_components_of_the_mask(predicted: Path) -> None:
    """Volume, centroid in the scan's millimetres and scores, the largest component first, counted anew here."""
    mask = nib.load(part(predicted, "sub-01", "mask"))
    inside = np.asarray(mask.dataobj) > 0
    labels, count = ndimage.label(inside, np.ones((3, 3, 3)))
    assert count >= 1
    rows = (predicted / "sub-01/anat/sub-01_desc-anomaly_lesions.tsv").read_text().splitlines()
    names, first = (rows[number].split("\t") for number in (0, 1))
    assert len(rows) == 1 + count
    row = {name: float(value) for name, value in zip(names[:7], first[:7], strict=True)}
    assert (names[7:], first[8:10]) == (["side", "p", "q", "uncertainty"], ["n/a", "n/a"])
    assert first[7] in ("left", "right", "both")
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    assert row["number"] == 1
    assert row["volume_ml"] == pytest.approx(largest.sum() * abs(np.linalg.det(mask.affine)) / 1000, abs=1e-3)
    centroid = nib.affines.apply_affine(mask.affine, np.argwhere(largest).mean(axis=0))
    np.testing.assert_allclose([row[f"{axis}_mm"] for axis in "xyz"], centroid, atol=0.06)
    score = np.asarray(nib.load(part(predicted, "sub-01", "score")).dataobj)[largest]
    assert row["mean_score"] == pytest.approx(score.mean(), abs=1e-4)
    assert row["maximum_score"] == pytest.approx(score.max(), abs=1e-4)
    uncertainty = np.asarray(nib.load(part(predicted, "sub-01", "uncertainty")).dataobj)
    assert float(first[10]) == pytest.approx(uncertainty[largest].mean(), abs=1e-4)
    brain = np.asarray(nib.load(part(predicted, "sub-01", "brain")).dataobj) > 0
    assert record_of_case(predicted)["mean_uncertainty"] == pytest.approx(uncertainty[brain].mean(), abs=1e-4)
    described = json.loads((predicted / "desc-anomaly_lesions.json").read_text())
    assert set(names) < set(described)
    assert "anatomy.space=MNI152NLin2009aSym" in described["place"]["Description"]  # how to get what is not there
    volumes = [float(row.split("\t")[1]) for row in rows[1:]]
    assert volumes == sorted(volumes, reverse=True)


def cohort_of(cases: list[Case], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(cases, folder / "cohort.csv")
    return folder / "cohort.csv"


def part(folder: Path, name: str, what: str) -> Path:
    suffix = SUFFIXES[what] + ("_FLAIR" if what == "reconstruction" else "")
    return folder / name / "anat" / f"{name}_{suffix}.nii.gz"


def load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def oriented(case: Case, codes: str, folder: Path) -> Case:
    """The same scan and masks with its axes in another order, on an oblique grid."""
    turn = np.eye(4)
    cosine, sine = np.cos(0.09), np.sin(0.09)
    turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
    turn[:3, 3] = (3.3, -7.1, 11.9)
    moved: dict[str, Path] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in {"FLAIR": case.images["FLAIR"], "brain": case.brain, "lesion": case.lesion}.items():
        scan = nib.load(path)
        wanted = nib.orientations.axcodes2ornt(codes)
        turned = scan.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(scan.affine), wanted))
        image = nib.Nifti1Image(np.asarray(turned.dataobj), turn @ turned.affine)
        image.set_sform(image.affine, 2)
        image.set_qform(image.affine, 1)
        nib.save(image, folder / f"{case.name}_{codes}_{name}.nii.gz")
        moved[name] = folder / f"{case.name}_{codes}_{name}.nii.gz"
    return replace(case, images={"FLAIR": moved["FLAIR"]}, brain=moved["brain"], lesion=moved["lesion"])


class TestOneCase:
    @pytest.mark.parametrize("codes", ["LPS", "PIR"])
    def test_the_maps_lie_on_the_grid_of_the_scan(
        self, codes: str, tiny_detector: Path, cases: list[Case], tmp_path: Path, predicted: Path
    ) -> None:
        case = oriented(cases[0], codes, tmp_path / "scans")
        out = tmp_path / "out"
        outcome = predict_cohort(
            tiny_detector, cohort_of([case], tmp_path / "list"), out=out, maps=("all",), device="cpu"
        )
        assert not outcome.failed
        scan = nib.load(case.images["FLAIR"])
        for what in SUFFIXES:
            image = nib.load(part(out, "sub-01", what))
            assert image.shape == scan.shape, what
            np.testing.assert_array_equal(image.affine, scan.affine)
            np.testing.assert_array_equal(image.get_sform(), scan.get_sform())
            np.testing.assert_array_equal(image.get_qform(), scan.get_qform())
            assert int(image.header["sform_code"]) == 2
            assert int(image.header["qform_code"]) == 1
            assert image.header.get_xyzt_units()[0] == "mm"
            assert image.header.get_zooms() == scan.header.get_zooms()
        # The same head, whatever the order of its voxels in the file.
        straight = nib.load(part(predicted, "sub-01", "score"))
        back = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.io_orientation(straight.affine))
        turned = nib.orientations.apply_orientation(load(part(out, "sub-01", "score")), back)
        np.testing.assert_allclose(turned, load(part(predicted, "sub-01", "score")), atol=1e-4)

    def test_parts_agree_with_each_other(self, predicted: Path, cases: list[Case], tiny_detector: Path) -> None:
        maps = {what: load(part(predicted, "sub-01", what)) for what in SUFFIXES}
        brain = maps["brain"] > 0
        for what in ("score", "probability", "map", "intensity", "asymmetry"):
            assert maps[what].dtype == np.float32
            assert maps[what].min() >= 0
            assert maps[what].max() <= 1
            assert not maps[what][~brain].any()
            assert maps[what][brain].any()
        np.testing.assert_array_equal(maps["mask"] > 0, (maps["score"] >= np.float32(0.6)) & brain)
        scan = load(cases[0].images["FLAIR"])
        np.testing.assert_allclose(maps["reconstruction"][~brain], scan[~brain], rtol=1e-6)
        assert np.abs(maps["reconstruction"] - scan)[brain].mean() > 0.02 * scan[brain].mean()
        direct = predict_case(load_detector(tiny_detector, "cpu"), cases[0])
        for what in ("score", "probability", "map", "intensity", "asymmetry", "brain", "mask"):
            np.testing.assert_array_equal(getattr(direct, what), maps[what].astype(getattr(direct, what).dtype))

    def test_a_reference_that_the_bundle_does_not_know(
        self, tiny_detector: Path, cases: list[Case], tmp_path: Path
    ) -> None:
        """As in WMH2017, where the masks lie on FLAIR, by a bundle of another contrast."""
        scan = nib.load(cases[0].images["T1w"])
        cut = scan.slicer[2:, :, 1:]
        nib.save(cut, tmp_path / "T1w.nii.gz")
        case = replace(cases[0], reference="T1w", images={**cases[0].images, "T1w": tmp_path / "T1w.nii.gz"})
        cohort, out = cohort_of([case], tmp_path), tmp_path / "out"
        outcome = predict_cohort(tiny_detector, cohort, out=out, maps=("all",), device="cpu")
        assert outcome.failed == {}
        image = nib.load(part(out, "sub-01", "reconstruction"))  # of FLAIR, which the bundle knows
        assert image.shape == cut.shape
        np.testing.assert_array_equal(image.affine, cut.affine)
        flair, brain = load(case.images["FLAIR"])[2:, :, 1:], load(part(out, "sub-01", "brain")) > 0
        np.testing.assert_allclose(load(image.get_filename())[~brain], flair[~brain], rtol=1e-4, atol=1e-2)
        assert 0.2 < np.median(load(image.get_filename())[brain]) / np.median(flair[brain]) < 5
        record = json.loads((out / "sub-01/anat/sub-01_desc-anomaly_probseg.json").read_text())
        assert (record["notes"]["reference"], record["notes"]["shown"]) == ("T1w", "FLAIR")
        assert set(record["inputs"]) == {"FLAIR", "T1w", "brain"}
        scores = evaluate(out, cohort, out=tmp_path / "scores", draws=5)
        assert scores.failed == {}
        assert scores.value("reconstruction", "l1_healthy").value > 0
        assert (tmp_path / "scores/pictures/best.png").is_file()

    def test_the_brain_is_the_given_one(self, predicted: Path, cases: list[Case]) -> None:
        brain, given = load(part(predicted, "sub-01", "brain")) > 0, load(cases[0].brain) > 0
        np.testing.assert_array_equal(brain, given)

    def test_the_truth_changes_nothing(self, cases: list[Case], tiny_detector: Path) -> None:
        detector = load_detector(tiny_detector, "cpu")
        known = predict_case(detector, cases[0])
        unknown = predict_case(detector, replace(cases[0], lesion=None, health="unknown", attributes={}))
        for what in ("score", "mask", "reconstruction", "brain"):
            np.testing.assert_array_equal(getattr(known, what), getattr(unknown, what))

    def test_names_and_paths_change_nothing(self, cases: list[Case], tiny_detector: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copy(cases[0].images["FLAIR"], tmp_path / "renamed.nii.gz"))
        renamed = replace(cases[0], dataset="else", subject="99", images={"FLAIR": copy})
        detector = load_detector(tiny_detector, "cpu")
        first, second = predict_case(detector, cases[0]), predict_case(detector, renamed)
        np.testing.assert_array_equal(first.score, second.score)


class TestCohort:
    def test_the_official_validator_finds_no_error(self, predicted: Path) -> None:
        errors, warnings = bids_issues(predicted)
        assert errors == []
        assert warnings <= {"TOO_FEW_AUTHORS", "SIDECAR_KEY_RECOMMENDED"}

    def test_the_files_and_their_records(self, predicted: Path, cases: list[Case], tiny_detector: Path) -> None:
        bundle = verify(tiny_detector)
        model = json.loads((predicted / "model.json").read_text())
        assert (model["bundle"], model["kind"], model["contrasts"]) == (bundle.digest, "detector", ["FLAIR"])
        assert model["thresholds"]["default"] == "best-dice"
        description = json.loads((predicted / "dataset_description.json").read_text())
        assert description["DatasetType"] == "derivative"
        assert description["GeneratedBy"][0]["Name"] == "hybriduad"
        assert "Research use only" in (predicted / "README.md").read_text()
        expected = {"model.json", "dataset_description.json", ".bidsignore", "README.md"}
        expected |= {"failures.tsv", "desc-anomaly_cases.tsv", "desc-anomaly_cases.json"}
        expected |= {"desc-anomaly_lesions.json"}
        for case in cases:
            expected.add(f"{case.name}/anat/{case.name}_desc-anomaly_lesions.tsv")
            images = {what: part(predicted, case.name, what) for what in SUFFIXES}
            for path in images.values():
                sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
                assert isinstance(json.loads(sidecar.read_text())["SkullStripped"], bool)
                expected |= {file.relative_to(predicted).as_posix() for file in (path, sidecar)}
            record = json.loads(images["score"].with_name(f"{case.name}_desc-anomaly_probseg.json").read_text())
            assert record["parts"] == {w: p.relative_to(predicted).as_posix() for w, p in images.items()}
            assert (record["case"], record["dataset"], record["subject"]) == (case.name, "tiny", case.subject)
            assert (record["bundle"], record["rule"], record["threshold"]) == (bundle.digest, "best-dice", 0.6)
            assert set(record["inputs"]) == {"FLAIR", "brain"}
            assert record["notes"]["direction"] == "axial"
            assert record["notes"]["brain"]["method"] == "given mask"
            assert record["versions"]["hybriduad"]
            mask = json.loads(images["mask"].with_name(images["mask"].name.replace(".nii.gz", ".json")).read_text())
            assert mask["Type"] == "Lesion"
        assert set(files(predicted)) == expected

    def test_alone_and_in_a_cohort(
        self, predicted: Path, cases: list[Case], tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        predict_cohort(tiny_detector, cohort_of([cases[1]], tmp_path), out=out, maps=("all",), device="cpu")
        alone, whole = files(out), files(predicted)
        for name, content in alone.items():
            if name.endswith(".nii.gz"):
                assert content == whole[name], name

    def test_the_maps_that_are_asked_for(self, cases: list[Case], tiny_detector: Path, tmp_path: Path) -> None:
        cohort = cohort_of([cases[0]], tmp_path)
        predict_cohort(tiny_detector, cohort, out=tmp_path / "out", device="cpu")
        written = {path.name for path in (tmp_path / "out").rglob("*.nii.gz")}
        assert written == {f"sub-01_{SUFFIXES[what]}.nii.gz" for what in ("score", "mask", "brain")}
        with pytest.raises(ConfigError, match=r"unknown maps.*'heatmap'.*probability"):
            predict_cohort(tiny_detector, cohort, out=tmp_path / "no", maps=("heatmap",))
        with pytest.raises(ConfigError, match="uncalibrated rule"):
            predict_cohort(tiny_detector, cohort, out=tmp_path / "no", rule="false-positives")
        assert not (tmp_path / "no").exists()

    def test_a_part_that_the_bundle_lacks_is_absent(
        self, cases: list[Case], tiny_reconstructor: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        out = tmp_path / "out"
        predict_cohort(tiny_reconstructor, cohort_of([cases[0]], tmp_path), out=out, maps=("all",), device="cpu")
        assert "no masks: the bundle has no threshold yet" in caplog.text
        lacking = {"probability", "uncertainty", "mask"}
        for what in SUFFIXES:
            assert part(out, "sub-01", what).exists() == (what not in lacking), what
        record = json.loads((out / "sub-01/anat/sub-01_desc-anomaly_probseg.json").read_text())
        assert set(record["parts"]) == set(SUFFIXES) - lacking
        assert record["threshold"] is None

    def test_a_case_that_lacks_a_contrast_is_named(
        self, cases: list[Case], tiny_reconstructor: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        record = json.loads((tiny_reconstructor / "bundle.json").read_text())
        both = load_detector(tiny_reconstructor, device="cpu")
        assert record["anatomy"]["contrasts"] == ["FLAIR"]
        both.anatomy = both.anatomy.model_copy(update={"contrasts": ("FLAIR", "T1w")})
        both.reconstructor.reconstruct = lambda image, *_: image[None]  # it knows one contrast only
        alone = replace(cases[0], images={"FLAIR": cases[0].images["FLAIR"]})
        assert predict_case(both, alone).notes["absent_contrasts"] == ["T1w"]
        assert predict_case(both, cases[0]).notes["absent_contrasts"] == []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(work, "load_detector", lambda *_: both)
            predict_cohort(tiny_reconstructor, cohort_of([alone], tmp_path), out=tmp_path / "out", device="cpu")
        assert "sub-01 lacks T1w: less sure, and thresholds may not fit" in caplog.text
        caplog.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(work, "load_detector", lambda *_: both)
            for slices, named in ((11, True), (21, False)):  # of 22, the last of which are no brain
                short = cropped(cases[0].images["T1w"], slices, tmp_path / f"{slices}" / "short.nii.gz")
                part = replace(cases[0], images={**cases[0].images, "T1w": short})
                out = tmp_path / f"out_{slices}"
                predict_cohort(tiny_reconstructor, cohort_of([part], tmp_path), out=out, device="cpu")
                notes = json.loads((out / "sub-01/anat/sub-01_desc-anomaly_probseg.json").read_text())["notes"]
                assert (notes["lacking"].get("T1w", 0.0) > 0.3) == named
                assert ("sub-01 lacks T1w in" in caplog.text) == named
                caplog.clear()

    def test_a_scan_without_an_orientation_is_named(
        self, cases: list[Case], tiny_detector: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        scan = nib.load(cases[0].images["FLAIR"])
        bare = nib.Nifti1Image(scan.get_fdata(dtype=np.float32), None)
        bare.header.set_zooms(scan.header.get_zooms())
        nib.save(bare, tmp_path / "bare.nii.gz")
        assert [int(nib.load(tmp_path / "bare.nii.gz").header[name]) for name in ("sform_code", "qform_code")] == [0, 0]
        case = Case("clinic", "bare", {"FLAIR": tmp_path / "bare.nii.gz"}, brain=None)
        cohort = cohort_of([replace(cases[0], brain=None), case], tmp_path)
        outcome = predict_cohort(tiny_detector, cohort, out=tmp_path / "out", device="cpu")
        assert not outcome.failed
        warned = [
            record.message for record in caplog.records if "states no orientation in its header" in record.message
        ]
        assert [message.split()[0] for message in warned] == ["sub-bare"]

    def test_one_bad_case_never_ends_a_cohort(
        self, cases: list[Case], tiny_detector: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        scans = [Path(shutil.copy(case.images["FLAIR"], tmp_path / f"{case.name}.nii.gz")) for case in cases]
        good = scans[1].read_bytes()
        scans[1].write_bytes(good[: len(good) // 2])
        listed = [replace(case, images={"FLAIR": scan}) for case, scan in zip(cases, scans, strict=True)]
        arguments: dict[str, Any] = {"cohort": cohort_of(listed, tmp_path), "out": tmp_path / "out", "device": "cpu"}
        outcome = predict_cohort(tiny_detector, **arguments)
        assert (outcome.done, list(outcome.failed)) == (["sub-01", "sub-03"], ["sub-02"])
        assert "sub-02.nii.gz" in outcome.failed["sub-02"]
        assert "sub-02" in caplog.text
        assert not list((tmp_path / "out").rglob("sub-02_desc-anomaly_probseg.*"))
        before = files(tmp_path / "out")
        scans[1].write_bytes(good)
        again = predict_cohort(tiny_detector, **arguments)
        assert (again.done, again.kept, again.failed) == (["sub-02"], ["sub-01", "sub-03"], {})
        after = files(tmp_path / "out")
        kept = [name for name in before if name.startswith("sub-")]
        assert {name: after[name] for name in kept} == {name: before[name] for name in kept}

    def test_a_fault_of_our_own_never_ends_a_cohort_either(
        self,
        cases: list[Case],
        tiny_detector: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def faulty(detector: Any, case: Case, **options: Any) -> Any:
            return predict_case(detector, case, **options) if case.name != "sub-01" else [][0]

        monkeypatch.setattr(work, "predict_case", faulty)
        caplog.set_level("DEBUG", "hybriduad")
        outcome = predict_cohort(tiny_detector, cohort_of(cases[:2], tmp_path), out=tmp_path / "out", device="cpu")
        assert (outcome.done, list(outcome.failed)) == (["sub-02"], ["sub-01"])
        assert outcome.failed["sub-01"].startswith("unexpected IndexError: list index out of range; leave the case out")
        (traceback,) = [record for record in caplog.records if "Traceback" in record.message]
        assert (traceback.levelname, "in faulty" in traceback.message) == ("DEBUG", True)

    def test_a_case_that_fails_anew_leaves_nothing_of_before(
        self, predicted: Path, cases: list[Case], tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(predicted, tmp_path / "out"))
        (out / "sub-02/anat/sub-02_run-1_desc-brain_mask.nii.gz").touch()  # of another case
        damaged = tmp_path / "flair.nii.gz"
        damaged.write_bytes(cases[1].images["FLAIR"].read_bytes()[:3000])
        now = [cases[0], replace(cases[1], images={"FLAIR": damaged})]
        outcome = predict_cohort(tiny_detector, now, out=out, maps=("all",), device="cpu", overwrite=True)
        assert (outcome.done, list(outcome.failed)) == (["sub-01"], ["sub-02"])
        assert [path.name for path in (out / "sub-02/anat").iterdir()] == ["sub-02_run-1_desc-brain_mask.nii.gz"]
        assert part(out, "sub-03", "mask").is_file()

    def test_a_stopped_run_redoes_the_case_without_a_record(
        self, predicted: Path, cases: list[Case], tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(predicted, tmp_path / "out"))
        (out / "sub-02/anat/sub-02_desc-anomaly_probseg.json").unlink()
        part(out, "sub-02", "mask").write_bytes(b"half")
        outcome = predict_cohort(tiny_detector, tiny_cohort, out=out, maps=("all",), device="cpu")
        assert (outcome.done, outcome.kept) == (["sub-02"], ["sub-01", "sub-03"])
        assert part(out, "sub-02", "mask").read_bytes() == part(predicted, "sub-02", "mask").read_bytes()

    @pytest.mark.parametrize(
        "change",
        [{"reference": "T1w"}, {"attributes": {"brain_labels": "1"}}],
        ids=["reference", "labels of the brain"],
    )
    def test_another_grid_or_brain_is_not_taken_for_done(
        self, change: dict[str, Any], predicted: Path, cases: list[Case], tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(predicted, tmp_path / "out"))
        arguments: dict[str, Any] = {"out": out, "maps": ("all",), "device": "cpu"}
        first = replace(cases[0], lesion=None)
        assert predict_cohort(tiny_detector, cohort_of([first], tmp_path), **arguments).kept == ["sub-01"]
        outcome = predict_cohort(tiny_detector, cohort_of([replace(first, **change)], tmp_path), **arguments)
        assert "another scan of that name" in outcome.failed["sub-01"]

    def test_a_changed_scan_is_not_taken_for_done(
        self, predicted: Path, cases: list[Case], tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(predicted, tmp_path / "out"))
        swapped = replace(cases[0], images={"FLAIR": cases[1].images["FLAIR"]}, brain=cases[1].brain, lesion=None)
        arguments: dict[str, Any] = {"cohort": cohort_of([swapped], tmp_path), "out": out, "maps": ("all",)}
        outcome = predict_cohort(tiny_detector, **arguments, device="cpu")
        assert not outcome.kept
        assert "another scan of that name" in outcome.failed["sub-01"]
        outcome = predict_cohort(tiny_detector, **arguments, device="cpu", overwrite=True)
        assert outcome.done == ["sub-01"]
        np.testing.assert_array_equal(load(part(out, "sub-01", "score")), load(part(predicted, "sub-02", "score")))

    def test_other_predictions_in_the_same_place(
        self, predicted: Path, cases: list[Case], tiny_detector: Path, tiny_reconstructor: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(predicted, tmp_path / "out"))
        cohort = cohort_of([cases[0]], tmp_path)
        with pytest.raises(ConfigError, match=r"another maps; .*--overwrite"):
            predict_cohort(tiny_detector, cohort, out=out, device="cpu")
        with pytest.raises(ConfigError, match=r"another bundle; .*--overwrite"):
            predict_cohort(tiny_reconstructor, cohort, out=out, maps=("all",), device="cpu")
        assert files(out) == files(predicted)
        predict_cohort(tiny_reconstructor, cohort, out=out, maps=("all",), device="cpu", overwrite=True)
        digest = verify(tiny_reconstructor).digest
        assert json.loads((out / "model.json").read_text())["bundle"] == digest
        # Nothing of the other model is left, not even of the cases that were not asked for.
        left = {path.name.split("_")[0] for path in out.rglob("*.nii.gz")}
        assert left == {"sub-01"}
        assert not part(out, "sub-01", "probability").exists()

    def test_a_folder_of_another_version_is_not_continued(
        self, predicted: Path, cases: list[Case], tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(predicted, tmp_path / "out"))
        arguments: dict[str, Any] = {"out": out, "maps": ("all",), "device": "cpu"}
        cohort = cohort_of([replace(cases[0], lesion=None)], tmp_path)
        record = out / "sub-01/anat/sub-01_desc-anomaly_probseg.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"format": FORMAT - 1}))
        assert "prediction of another version" in predict_cohort(tiny_detector, cohort, **arguments).failed["sub-01"]
        model = json.loads((out / "model.json").read_text())
        assert model.pop("format") == FORMAT
        (out / "model.json").write_text(json.dumps(model))
        with pytest.raises(ConfigError, match=r"predictions of another version.*got format None.*--overwrite"):
            predict_cohort(tiny_detector, cohort, **arguments)
        assert predict_cohort(tiny_detector, cohort, **arguments, overwrite=True).done == ["sub-01"]
        assert predict_cohort(tiny_detector, cohort, **arguments).kept == ["sub-01"]

    def test_a_folder_of_something_else(self, cases: list[Case], tiny_detector: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("x")
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match="something else"):
                predict_cohort(
                    tiny_detector,
                    cohort_of([cases[0]], tmp_path),
                    out=tmp_path / "out",
                    device="cpu",
                    overwrite=overwrite,
                )

    def test_two_data_sets_with_the_same_subject(self, cases: list[Case], tiny_detector: Path, tmp_path: Path) -> None:
        cohort = cohort_of([cases[0], replace(cases[1], dataset="else", subject="01")], tmp_path)
        with pytest.raises(DataError, match=r"one name in different data sets.*sub-01"):
            predict_cohort(tiny_detector, cohort, out=tmp_path / "out", device="cpu")

    def test_only_a_split(self, cases: list[Case], tiny_detector: Path, tmp_path: Path) -> None:
        cohort = cohort_of([replace(cases[0], split="train"), replace(cases[1], split="test")], tmp_path)
        assert predict_cohort(tiny_detector, cohort, out=tmp_path / "out", split="test", device="cpu").done == [
            "sub-02"
        ]
        with pytest.raises(DataError, match="validation"):
            predict_cohort(tiny_detector, cohort, out=tmp_path / "out", split="validation", device="cpu")

    def test_one_image_and_a_cache(self, cases: list[Case], tiny_detector: Path, tmp_path: Path) -> None:
        scan = Path(shutil.copy(cases[0].images["FLAIR"], tmp_path / "sub-07_FLAIR.nii.gz"))
        outcome = predict_cohort(tiny_detector, scan, out=tmp_path / "out", cache=tmp_path / "cache", device="cpu")
        assert outcome.done == ["sub-07"]
        direct = predict_case(load_detector(tiny_detector, "cpu"), read_case(scan))
        np.testing.assert_array_equal(load(part(tmp_path / "out", "sub-07", "score")), direct.score)
        assert list((tmp_path / "cache").iterdir())
