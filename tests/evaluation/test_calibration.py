from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny import write_nifti

from hybriduad.cohort.leakage import identities
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import ConfigError, DataError, LeakageError
from hybriduad.core.types import Case
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import Bundle
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import PARTS
from hybriduad.evaluation import calibration
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.evaluate import evaluate
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.files import SUFFIXES

LIMITED = "false-positives:false_positive_ml=2.0"


@pytest.fixture(scope="module")
def calibrated(tiny_detector: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("calibrated") / "bundle"
    return calibrate(tiny_detector, tiny_cohort, out=out, rules=(LIMITED, "best-dice", "expected-dice"), device="cpu")


class TestCalibrate:
    def test_new_bundle_with_a_threshold_for_each_part_and_rule(
        self, calibrated: Bundle, tiny_detector: Path, tiny_cohort: Path
    ) -> None:
        old = bundles.verify(tiny_detector)
        new = bundles.verify(calibrated.folder)
        assert new.digest != old.digest
        assert new.record["checksums"]["weights.safetensors"] == old.record["checksums"]["weights.safetensors"]
        assert new.thresholds.default == "false-positives"
        for rule in ("best-dice", "expected-dice", "false-positives"):
            # Untrained networks may rank these lesions low, which no expected Dice can use; they are bright.
            least = {"intensity"} if rule == "expected-dice" else set(PARTS)
            assert least <= set(new.thresholds.values[rule]) <= set(PARTS)
            entry = new.record["thresholds"]["rules"][rule]
            assert entry["provenance"]["parent"] == old.digest
            assert entry["region"]
        assert new.record["thresholds"]["rules"]["best-dice"]["cases"] == 2
        used = identities(read_cohort(tiny_cohort), "calibrate")
        assert new.used == old.used | used

    def test_the_rule_holds_on_the_scans_own_grid(self, calibrated: Bundle, tiny_cohort: Path) -> None:
        entry = calibrated.record["thresholds"]["rules"]["best-dice"]
        detector = load_detector(calibrated.folder, "cpu")
        figures = []
        for case in read_cohort(tiny_cohort)[:2]:
            prediction = predict_case(detector, case, rule="best-dice")
            truth = calibration.read_truth(case, prediction.brain, prediction.grid, prediction.notes)
            mask, region = truth.crop(prediction.mask), truth.region
            figures.append(2 * (mask & truth.lesion & region).sum() / ((mask & region).sum() + truth.lesion.sum()))
        assert np.mean(figures) == pytest.approx(entry["reached"]["score"], abs=1e-9)

    def test_a_rule_that_gives_every_scan_its_own_threshold(
        self, calibrated: Bundle, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        """One function cuts the mask in predict, in evaluate and in the API, and each case says where."""
        bundle = Path(shutil.copytree(calibrated.folder, tmp_path / "bundle"))
        record = json.loads((bundle / "bundle.json").read_text())
        # Of a model that learnt something: probabilities of 0 to 1, steep around a score that occurs in every scan.
        steep = {"slope": 40.0, "intercept": -8.0, "floor": 0.0}
        record["thresholds"]["rules"]["expected-dice"]["calibrations"] = dict.fromkeys(("score", "map"), steep)
        bundles.write_record(bundle, record)
        out, cohort = tmp_path / "predictions", tiny_cohort
        predict_cohort(bundle, cohort, out=out, maps=("all",), rule="expected-dice", device="cpu")
        evaluation = evaluate(out, cohort, out=tmp_path / "scores", rule="expected-dice", draws=5, allow_leakage=True)
        assert not evaluation.failed
        cutoff = bundles.verify(bundle).thresholds.of("score", "expected-dice")
        detector = load_detector(bundle, "cpu")
        with (tmp_path / "scores" / "cases.csv").open() as file:
            rows = {(row["case"], row["system"]): row for row in csv.DictReader(file)}
        thresholds = set()
        for case in read_cohort(cohort):
            place = out / case.name / "anat"
            score, mask, brain = (
                np.asarray(nib.load(place / f"{case.name}_{SUFFIXES[part]}.nii.gz").dataobj)
                for part in ("score", "mask", "brain")
            )
            record = json.loads((place / f"{case.name}_{SUFFIXES['score']}.json").read_text())
            assert record["threshold"] == cutoff.threshold(score[brain > 0])
            assert float(rows[case.name, "score"]["threshold"]) == record["threshold"]
            np.testing.assert_array_equal(mask > 0, (score >= np.float32(record["threshold"])) & (brain > 0))
            prediction = predict_case(detector, case, rule="expected-dice")
            assert prediction.threshold == record["threshold"]
            thresholds.add(record["threshold"])
        assert len(thresholds) > 1
        text = (tmp_path / "scores" / "summary.md").read_text()
        assert "by the rule expected-dice" in text
        assert " by scan, " in text

    def test_the_ill_without_a_lesion_to_be_found_are_no_controls(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All that is marked of the second person is ignored."""
        cases = [case for case in read_cohort(tiny_cohort) if case.health == "lesion"]
        write_manifest([cases[0], replace(cases[1], ignore=cases[1].lesion)], tmp_path / "cohort.csv")
        with pytest.raises(DataError, match="no healthy control to calibrate on: got 2 cases"):
            calibrate(
                tiny_detector,
                tmp_path / "cohort.csv",
                out=tmp_path / "bundle",
                rules=("conformal-lesions:alpha=0.5",),
                device="cpu",
            )
        assert caplog.text.count("no healthy controls either, as all that is marked is ignored: 1;") == 1

    def test_same_request_returns_it_and_another_is_refused(
        self, calibrated: Bundle, tiny_detector: Path, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calibration, "predict_case", lambda *_, **__: pytest.fail("predicted again"))
        place = {"out": calibrated.folder, "device": "cpu"}
        again = calibrate(tiny_detector, tiny_cohort, rules=(LIMITED, "best-dice", "expected-dice"), **place)
        assert again.digest == calibrated.digest
        for rules in (("best-dice",), (f"{LIMITED},per=scan", "best-dice", "expected-dice")):
            with pytest.raises(ConfigError, match="--overwrite"):
                calibrate(tiny_detector, tiny_cohort, rules=rules, **place)

    def test_stopped_in_the_middle_and_continued(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def stops(detector, case, **options):
            if len(asked) == 1:
                raise KeyboardInterrupt
            asked.append(case.name)
            return predict_case(detector, case, **options)

        monkeypatch.setattr(calibration, "predict_case", stops)
        with pytest.raises(KeyboardInterrupt):
            calibrate(tiny_detector, tiny_cohort, out=tmp_path / "b", device="cpu")
        assert not (tmp_path / "b").exists()

        def goes_on(detector, case, **options):
            asked.append(case.name)
            return predict_case(detector, case, **options)

        monkeypatch.setattr(calibration, "predict_case", goes_on)
        calibrated_bundle = calibrate(tiny_detector, tiny_cohort, out=tmp_path / "b", device="cpu")
        assert asked == ["sub-01", "sub-02", "sub-03"]
        assert not list(calibrated_bundle.folder.glob("cases*"))
        assert not (tmp_path / "b.partial").exists()
        # The rule of the parent that was named is replaced, and a second calibration keeps it.
        old = bundles.verify(tiny_detector)
        assert calibrated_bundle.thresholds.values["best-dice"] != old.thresholds.values["best-dice"]
        second = calibrate(
            calibrated_bundle.folder,
            tiny_cohort,
            out=tmp_path / "c",
            device="cpu",
            rules=("false-positives:false_positive_ml=1",),
        )
        assert second.thresholds.values["best-dice"] == calibrated_bundle.thresholds.values["best-dice"]
        assert second.thresholds.default == "false-positives"

    def test_a_mask_edited_in_place_its_labels_and_the_reference_are_another_request(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_, **__):
            raise KeyboardInterrupt

        def calibrate_on(case: Case) -> None:
            write_manifest([case], tmp_path / "c.csv")
            calibrate(tiny_detector, tmp_path / "c.csv", out=tmp_path / "b", device="cpu")

        monkeypatch.setattr(calibration, "predict_case", stop)
        first = read_cohort(tiny_cohort)[0]
        image = nib.load(first.lesion)
        mask = np.asarray(image.dataobj).astype(np.uint8)
        case = replace(first, lesion=write_nifti(tmp_path / "lesion.nii", mask, image.affine))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                calibrate_on(case)
        for changed in (replace(case, attributes={"lesion_labels": "1"}), replace(case, reference="FLAIR")):
            with pytest.raises(ConfigError, match="got another cohort"):
                calibrate_on(changed)
        write_nifti(tmp_path / "lesion.nii", np.roll(mask, 1, axis=0), image.affine)
        with pytest.raises(ConfigError, match="got another cohort"):
            calibrate_on(case)

    def test_an_unexpected_error_leaves_one_case_out(
        self,
        tiny_detector: Path,
        tiny_cohort: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def faulty(detector, case, **options):
            return predict_case(detector, case, **options) if case.name != "sub-02" else [][0]

        monkeypatch.setattr(calibration, "predict_case", faulty)
        calibrated_bundle = calibrate(tiny_detector, tiny_cohort, out=tmp_path / "b", device="cpu")
        assert "sub-02 left out of the calibration: unexpected IndexError: list index out of range" in caplog.text
        cases = read_cohort(tiny_cohort)
        assert calibrated_bundle.used == identities([cases[0], cases[2]], "calibrate")

    def test_a_namesake_in_another_data_set_is_not_left_out_with_it(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        first, second, _ = read_cohort(tiny_cohort)
        (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
        broken = replace(first, dataset="other", subject=second.subject, images={"FLAIR": tmp_path / "broken.nii.gz"})
        write_manifest([replace(broken, lesion=None, brain=None, health="healthy"), second], tmp_path / "c.csv")
        used = tmp_path / "used"
        shutil.copytree(tiny_detector, used)
        record = dict(bundles.verify(used).record)
        bundles.write_record(used, record | {"identities": {"a" * 64: "fit"}})  # so that it is looked at before
        calibrated_bundle = calibrate(used, tmp_path / "c.csv", out=tmp_path / "b", device="cpu")
        assert calibrated_bundle.record["thresholds"]["rules"]["best-dice"]["provenance"]["failed_cases"] == 1
        assert calibrated_bundle.used == {"a" * 64: "fit"} | identities([second], "calibrate")

    def test_cases_that_will_not_do_leave_nothing_in_the_way_of_others(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        healthy = [replace(case, lesion=None, health="healthy") for case in read_cohort(tiny_cohort)[:1]]
        write_manifest(healthy, tmp_path / "healthy.csv")
        with pytest.raises(DataError, match="no lesion to calibrate on"):
            calibrate(tiny_detector, tmp_path / "healthy.csv", out=tmp_path / "b", device="cpu")
        assert not (tmp_path / "b.partial").exists()
        calibrate(tiny_detector, tiny_cohort, out=tmp_path / "b", device="cpu")

    def test_validation_cases_only_where_there_are_splits(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        cases = read_cohort(tiny_cohort)
        splits = ("train", "validation", "test")
        write_manifest(
            [replace(case, split=split) for case, split in zip(cases, splits, strict=True)], tmp_path / "c.csv"
        )
        calibrated_bundle = calibrate(tiny_detector, tmp_path / "c.csv", out=tmp_path / "b", device="cpu")
        assert calibrated_bundle.used == identities(cases[1:2], "calibrate")

    def test_a_contrast_that_the_bundle_does_not_use_need_not_be_readable(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        case = read_cohort(tiny_cohort)[0]
        broken = tmp_path / "broken.nii.gz"
        broken.write_bytes(case.images["T1w"].read_bytes()[:2000])
        write_manifest([replace(case, images={**case.images, "T1w": broken})], tmp_path / "c.csv")
        calibrated_bundle = calibrate(tiny_detector, tmp_path / "c.csv", out=tmp_path / "b", device="cpu")
        assert calibrated_bundle.used == identities(
            [replace(case, images={"FLAIR": case.images["FLAIR"]})], "calibrate"
        )

    def test_cases_that_the_model_was_fitted_on_are_refused(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(tiny_detector, tmp_path / "fitted")
        record = dict(bundles.verify(tmp_path / "fitted").record)
        record["identities"] = identities(read_cohort(tiny_cohort)[:1], "fit")
        bundles.write_record(tmp_path / "fitted", record)
        with pytest.raises(LeakageError, match=r"sub-01.*role fit"):
            calibrate(tmp_path / "fitted", tiny_cohort, out=tmp_path / "b", device="cpu")

    @pytest.mark.parametrize(
        ("rules", "sentence"),
        [
            ((), "unusable rules"),
            (("best-dice", "best-dice"), "unusable rules"),
            (("best-dise",), "unknown plug-in of kind rules.*perhaps best-dice is meant"),
            (("false-positives",), "'false_positive_ml' in rule false-positives.*Field required"),
            (("false-positives:false_positive_ml=-1",), "greater than or equal to 0"),
            (("false-positives:false_positive_ml=1,per=patient",), "'per' in rule false-positives: got 'patient'"),
            (("false-positives:false_positive=1",), "unknown key.*perhaps 'false_positive_ml' is meant"),
            (("best-dice:per=scan",), "unknown key in rule best-dice: got 'per'"),
        ],
    )
    def test_bad_requests(self, rules: tuple[str, ...], sentence: str, tiny_cohort: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=sentence):
            calibrate(tmp_path / "none", tiny_cohort, out=tmp_path / "b", rules=rules)
