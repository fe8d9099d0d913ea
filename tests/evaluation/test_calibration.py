from __future__ import annotations

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
from hybriduad.evaluation import calibration
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.rules import (
    DRAWS,
    Observation,
    best_dice,
    false_positives,
)
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.histogram import key_edges, score_keys
from hybriduad.metrics.intervals import draw_subjects
from hybriduad.prediction.case import predict_case


def histogram(scores: np.ndarray, truth: np.ndarray) -> ScoreHistogram:
    counted = ScoreHistogram()
    counted.add(scores, truth)
    return counted


def observation(
    subject: str, scores: np.ndarray, truth: np.ndarray, clear: np.ndarray, *, slices: int = 1, voxel_ml: float = 0.01
) -> Observation:
    alone = histogram(clear, np.zeros(clear.shape, dtype=bool))
    whole = {"score": histogram(scores, truth)}
    return Observation(("hand", subject), voxel_ml, slices, whole, {"score": alone})


def dice(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    mask = scores >= threshold
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def voxels(seed: int, count: int, share: float, base: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < share
    return np.clip(rng.normal(base + 0.25 * truth, 0.12), 0, 1).astype(np.float32), truth


class TestBestDice:
    def test_mean_over_subjects_against_every_threshold(self) -> None:
        # A large lesion, a small one seen twice, and a healthy case: pooled voxels or means over cases give others.
        sets = {"a": [voxels(1, 4000, 0.4, base=0.2)], "b": [voxels(2, 900, 0.02), voxels(3, 900, 0.03)]}
        observed = [observation(name, *one, np.zeros(1)) for name, all_of in sets.items() for one in all_of]
        observed.append(observation("c", np.full(50, 0.9, np.float32), np.zeros(50, bool), np.zeros(1)))
        candidates = np.unique(np.concatenate([scores for all_of in sets.values() for scores, _ in all_of]))
        figures = np.array(
            [[np.mean([dice(*one, at) for one in all_of]) for all_of in sets.values()] for at in candidates]
        )
        best = [candidates[figures[:, drawn].mean(axis=1).argmax()] for drawn in draw_subjects(2, DRAWS, seed=0)]
        entry = best_dice(observed)
        found = entry["values"]["score"]
        assert len(set(best)) > 1
        assert found == pytest.approx(key_edges(np.array([score_keys(np.array(best)).mean()]))[0], rel=2e-3)
        assert best_dice(observed[::-1])["values"] == entry["values"]
        assert np.mean([np.mean([dice(*one, found) for one in all_of]) for all_of in sets.values()]) == pytest.approx(
            entry["reached"]["score"], abs=1e-12
        )
        assert (entry["cases"], entry["subjects"]) == (3, 2)
        scores, truth = (
            np.concatenate(one) for one in zip(*[one for all_of in sets.values() for one in all_of], strict=True)
        )
        pooled = max(candidates, key=lambda at: dice(scores, truth, at))
        assert abs(found - pooled) > 0.01

    def test_of_equal_thresholds_the_highest(self) -> None:
        # At 0.75: 1 of 2 found, no alarm: 2/3. At 0.5: both found, two false: 2/3 as well.
        scores = np.array([0.75, 0.5, 0.5, 0.5, 0.125], np.float32)
        truth = np.array([True, True, False, False, False])
        entry = best_dice([observation("a", scores, truth, np.zeros(1))])
        assert (entry["values"]["score"], entry["reached"]["score"]) == (0.75, pytest.approx(2 / 3))

    def test_subjects_who_agree_get_the_best_threshold_itself(self) -> None:
        scores = np.array([0.75, 0.5, 0.25, 0.125], np.float32)
        truth = np.array([True, True, False, False])
        entry = best_dice([observation(name, scores, truth, np.zeros(1)) for name in "abc"])
        assert (entry["values"]["score"], entry["reached"]["score"]) == (0.5, 1.0)

    def test_never_zero(self) -> None:
        scores, truth = np.zeros(10, np.float32), np.ones(10, dtype=bool)
        assert best_dice([observation("a", scores, truth, scores)])["values"]["score"] > 0

    def test_without_a_lesion(self) -> None:
        with pytest.raises(DataError, match="no lesion to calibrate on"):
            best_dice([observation("a", np.zeros(4), np.zeros(4, bool), np.zeros(4))])


class TestFalsePositives:
    def test_lowest_threshold_within_the_limit_over_voxels_of_different_size(self) -> None:
        rng = np.random.default_rng(0)
        sets = [(rng.random(3000).astype(np.float32), 3, 0.01), (rng.random(500).astype(np.float32) ** 2, 2, 0.05)]
        observed = [
            observation(str(i), scores, np.zeros(scores.shape, bool), scores, slices=slices, voxel_ml=voxel_ml)
            for i, (scores, slices, voxel_ml) in enumerate(sets)
        ]

        def volume(threshold: float) -> float:
            return sum((scores >= threshold).sum() * voxel_ml for scores, _, voxel_ml in sets)

        for per, units in (("slice", 5), ("scan", 2)):
            entry = false_positives(observed, 0.8, per)
            found = entry["values"]["score"]
            assert volume(found) / units <= 0.8
            assert volume(found * (1 - 1 / 2048)) / units > 0.8
            assert entry["reached"]["score"] == pytest.approx(volume(found) / units)
            assert entry[f"{per}s"] == units
            assert entry["limit"] == {"false_positive_ml": 0.8, "per": per}

    def test_lesions_and_the_slices_near_them_do_not_matter(self) -> None:
        clear = np.linspace(0, 0.5, 100, dtype=np.float32)
        bright = np.full(1000, 0.99, np.float32)
        with_lesion = observation("a", np.r_[clear, bright], np.r_[clear < 0, bright > 0], clear)
        without = observation("a", clear, np.zeros(100, bool), clear)
        found = [false_positives([one], 0.1)["values"]["score"] for one in (with_lesion, without)]
        assert found[0] == found[1]
        assert clear[89] < found[0] <= clear[90], "ten voxels of 0.01 ml are left"

    def test_no_false_positive_at_all(self) -> None:
        ones = np.ones(5, np.float32)
        entry = false_positives([observation("a", ones, np.zeros(5, bool), ones)], 0.0)
        assert entry["values"]["score"] > 1
        assert entry["reached"]["score"] == 0.0

    def test_nothing_free_of_lesions(self) -> None:
        scores, truth = voxels(0, 100, 0.5)
        sick = observation("a", scores, truth, np.zeros(0), slices=0)
        for per in ("slice", "scan"):
            with pytest.raises(DataError, match=f"no lesion-free {per}"):
                false_positives([sick], 0.1, per)


@pytest.fixture(scope="module")
def calibrated(tiny_detector: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("calibrated") / "bundle"
    limit = {"false_positive_ml": 2.0, "per": "slice"}
    return calibrate(tiny_detector, tiny_cohort, out=out, rules=("false-positives", "best-dice"), device="cpu", **limit)


class TestCalibrate:
    def test_new_bundle_with_a_threshold_for_each_part_and_rule(
        self, calibrated: Bundle, tiny_detector: Path, tiny_cohort: Path
    ) -> None:
        old = bundles.verify(tiny_detector)
        new = bundles.verify(calibrated.folder)
        assert new.digest != old.digest
        assert new.record["checksums"]["weights.safetensors"] == old.record["checksums"]["weights.safetensors"]
        assert new.thresholds.default == "false-positives"
        for rule in calibration.RULES:
            assert set(new.thresholds.values[rule]) == {"score", "probability", "map", "intensity"}
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
            found = predict_case(detector, case, rule="best-dice")
            truth = calibration.read_truth(case, found.brain, found.grid)
            mask, region = truth.crop(found.mask), truth.region
            figures.append(2 * (mask & truth.lesion & region).sum() / ((mask & region).sum() + truth.lesion.sum()))
        assert np.mean(figures) == pytest.approx(entry["reached"]["score"], abs=1e-9)

    def test_same_request_returns_it_and_another_is_refused(
        self, calibrated: Bundle, tiny_detector: Path, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calibration, "predict_case", lambda *_, **__: pytest.fail("predicted again"))
        place = {"out": calibrated.folder, "device": "cpu", "false_positive_ml": 2.0}
        again = calibrate(tiny_detector, tiny_cohort, rules=("false-positives", "best-dice"), **place)
        assert again.digest == calibrated.digest
        with pytest.raises(ConfigError, match="--overwrite"):
            calibrate(tiny_detector, tiny_cohort, rules=("best-dice",), **place)

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
        made = calibrate(tiny_detector, tiny_cohort, out=tmp_path / "b", device="cpu")
        assert asked == ["sub-01", "sub-02", "sub-03"]
        assert not list(made.folder.glob("cases*"))
        assert not (tmp_path / "b.partial").exists()
        # The rule of the parent that was named is replaced, and a second calibration keeps it.
        old = bundles.verify(tiny_detector)
        assert made.thresholds.values["best-dice"] != old.thresholds.values["best-dice"]
        second = calibrate(
            made.folder,
            tiny_cohort,
            out=tmp_path / "c",
            device="cpu",
            rules=("false-positives",),
            false_positive_ml=1.0,
        )
        assert second.thresholds.values["best-dice"] == made.thresholds.values["best-dice"]
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
        made = calibrate(tiny_detector, tiny_cohort, out=tmp_path / "b", device="cpu")
        assert "sub-02 left out of the calibration: unexpected IndexError: list index out of range" in caplog.text
        cases = read_cohort(tiny_cohort)
        assert made.used == identities([cases[0], cases[2]], "calibrate")

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
        made = calibrate(used, tmp_path / "c.csv", out=tmp_path / "b", device="cpu")
        assert made.record["thresholds"]["rules"]["best-dice"]["provenance"]["failed_cases"] == 1
        assert made.used == {"a" * 64: "fit"} | identities([second], "calibrate")

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
        made = calibrate(tiny_detector, tmp_path / "c.csv", out=tmp_path / "b", device="cpu")
        assert made.used == identities(cases[1:2], "calibrate")

    def test_a_contrast_that_the_bundle_does_not_use_need_not_be_readable(
        self, tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        case = read_cohort(tiny_cohort)[0]
        broken = tmp_path / "broken.nii.gz"
        broken.write_bytes(case.images["T1w"].read_bytes()[:2000])
        write_manifest([replace(case, images={**case.images, "T1w": broken})], tmp_path / "c.csv")
        made = calibrate(tiny_detector, tmp_path / "c.csv", out=tmp_path / "b", device="cpu")
        assert made.used == identities([replace(case, images={"FLAIR": case.images["FLAIR"]})], "calibrate")

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
        ("options", "sentence"),
        [
            ({"rules": ("best",)}, "unusable rules"),
            ({"rules": ()}, "unusable rules"),
            ({"rules": ("false-positives",)}, "rule without its limit"),
            ({"per": "patient"}, "unknown unit"),
        ],
    )
    def test_bad_requests(self, options: dict, sentence: str, tiny_cohort: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=sentence):
            calibrate(tmp_path / "none", tiny_cohort, out=tmp_path / "b", **options)
