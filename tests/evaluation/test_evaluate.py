from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity
from sklearn.metrics import average_precision_score, roc_auc_score

from hybriduad.cohort.leakage import identities, identity_digests
from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.cohort.truth import read_truth
from hybriduad.core.errors import ConfigError, DataError, LeakageError
from hybriduad.core.types import Case
from hybriduad.evaluation import case as evaluation_case
from hybriduad.evaluation import evaluate as evaluation
from hybriduad.evaluation import pictures
from hybriduad.evaluation.case import CaseScores
from hybriduad.evaluation.evaluate import compare, evaluate
from hybriduad.evaluation.figures import differences
from hybriduad.evaluation.pictures import chosen_cases
from hybriduad.evaluation.tables import difference_table
from hybriduad.metrics import ScoreHistogram, surface_figures
from hybriduad.prediction.files import FORMAT, SUFFIXES
from hybriduad.scan.volumes import VolumeGrid, write_volume

SHAPE = (16, 14, 12)
SPACING_MM = (4.0, 4.0, 5.0)
GRID = VolumeGrid.make(SHAPE, np.diag([*SPACING_MM, 1.0]))
AXIAL = {"direction": "axial"}
VOXEL_ML = 0.08
THRESHOLDS = {"score": 0.5, "probability": 0.6, "map": 0.4, "intensity": 0.7, "asymmetry": 0.8}
QUALITY = {"score": 2.0, "probability": 1.5, "map": 1.0, "intensity": 0.3, "asymmetry": 0.4}


def brain_mask() -> np.ndarray:
    brain = np.zeros(SHAPE, dtype=bool)
    brain[2:14, 2:12, 1:11] = True
    return brain


def lesion_mask(subject: int) -> np.ndarray:
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[4 : 7 + subject, 4:8, 2:4] = True
    return lesion


def maps_of(subject: int, lesion: np.ndarray, brain: np.ndarray) -> dict[str, np.ndarray]:
    """Random maps, the better the higher in QUALITY; a constant 0.9 outside the brain, where scores must not count."""
    rng = np.random.default_rng(subject)
    maps = {}
    for part, quality in QUALITY.items():
        logit = rng.normal(-1.5, 1, SHAPE) + quality * lesion
        maps[part] = np.where(brain, 1 / (1 + np.exp(-logit)), 0.9).astype(np.float32)
    return maps


class Study:
    """A cohort and its predictions folder, written by hand."""

    def __init__(self, root: Path, thresholds: Mapping[str, float] | None = THRESHOLDS) -> None:
        self.root, self.predictions = root, root / "predictions"
        self.cases: list[Case] = []
        self.maps: dict[str, dict[str, np.ndarray]] = {}
        self.lesions: dict[str, np.ndarray] = {}
        rules = {} if thresholds is None else {"best-dice": {"values": dict(thresholds)}}
        self.model = {
            "format": FORMAT,
            "bundle": "b" * 64,
            "kind": "detector",
            "contrasts": ["FLAIR"],
            "used": {},
            "thresholds": {"default": "best-dice" if rules else "", "rules": rules},
        }
        self.write_model()

    def write_model(self) -> None:
        self.predictions.mkdir(parents=True, exist_ok=True)
        (self.predictions / "model.json").write_text(json.dumps(self.model))

    def add(
        self,
        number: int,
        *,
        lesion: np.ndarray | None = None,
        healthy: bool = False,
        session: str = "",
        ignore: np.ndarray | None = None,
        brain: np.ndarray | None = None,
        maps: Mapping[str, np.ndarray] | None = None,
        site: str = "A",
    ) -> Case:
        subject = f"{number:02d}"
        brain = brain_mask() if brain is None else brain
        truth = np.zeros(SHAPE, dtype=bool) if healthy else lesion_mask(number) if lesion is None else lesion
        seed = number + (100 if session else 0)
        scan = np.random.default_rng(seed).uniform(50, 150, SHAPE).astype(np.float32)
        name = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        folder = self.root / "raw" / name
        folder.mkdir(parents=True)
        files = {"FLAIR": folder / f"{name}_FLAIR.nii.gz", "lesion": folder / "lesion.nii.gz"}
        write_volume(files["FLAIR"], scan, GRID)
        write_volume(files["lesion"], truth, GRID, np.uint8)
        if ignore is not None:
            write_volume(folder / "ignore.nii.gz", ignore, GRID, np.uint8)
        case = Case(
            "hand",
            subject,
            {"FLAIR": files["FLAIR"]},
            session=session,
            lesion=None if healthy else files["lesion"],
            ignore=None if ignore is None else folder / "ignore.nii.gz",
            health="healthy" if healthy else "lesion",
            attributes={"site": site},
        )
        self.cases.append(case)
        self.lesions[name], self.maps[name] = truth, dict(maps or maps_of(seed, truth, brain))
        images = {**self.maps[name], "brain": brain, "reconstruction": scan - np.where(truth & brain, 50, 5)}
        parts = {}
        place = self.predictions / f"sub-{subject}" / "anat"
        place.mkdir(parents=True, exist_ok=True)
        for part, values in images.items():
            end = SUFFIXES[part] + ("_FLAIR" if part == "reconstruction" else "")
            path = place / f"{name}_{end}.nii.gz"
            write_volume(path, values, GRID, np.uint8 if values.dtype == bool else np.float32)
            parts[part] = path.relative_to(self.predictions).as_posix()
        record = {
            "format": FORMAT,
            "case": name,
            "dataset": "hand",
            "subject": subject,
            "bundle": self.model["bundle"],
            "parts": parts,
            "seconds": 1.0,
            "notes": {
                "direction": "axial",
                "reference": "FLAIR",
                "brain": {"method": "by hand", "volume_ml": 1.0},
                "intensity_median": {"FLAIR": 100.0},
            },
        }
        (place / f"{name}_desc-anomaly_probseg.json").write_text(json.dumps(record))
        return case

    @property
    def cohort(self) -> Path:
        write_manifest(self.cases, self.root / "cohort.csv")
        return self.root / "cohort.csv"

    def evaluate(self, out: str = "scores", **options: object):
        return evaluate(self.predictions, self.cohort, out=self.root / out, draws=50, **options)


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else here; one test looks at it."""
    if "pictures" not in request.node.name:
        monkeypatch.setattr(evaluation, "draw_case", lambda *_: None)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    cohort = Study(tmp_path)
    for number in (1, 2, 3):
        cohort.add(number, site="B" if number == 3 else "A")
    cohort.add(4, healthy=True)
    return cohort


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def region_of(study: Study, name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores that count, by numpy alone."""
    brain, lesion = brain_mask(), study.lesions[name]
    counted = brain | lesion
    return lesion[counted], np.where(brain, study.maps[name][part], 0)[counted]


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


class TestFigures:
    def test_means_and_pooled_figures_agree_with_an_independent_reference(self, study: Study) -> None:
        result = study.evaluate()
        for part, threshold in THRESHOLDS.items():
            pairs = [region_of(study, f"sub-0{number}", part) for number in (1, 2, 3)]
            mean = np.mean([average_precision_score(truth, scores) for truth, scores in pairs])
            assert result.value(part, "auprc").value == pytest.approx(mean, abs=2e-3)
            outlined = np.mean([dice(scores >= threshold, truth) for truth, scores in pairs])
            assert result.value(part, "dice").value == pytest.approx(outlined, abs=1e-12)
            truth, scores = (np.concatenate(values) for values in zip(*pairs, strict=True))
            pooled = result.value(part, "auprc", "pooled").value
            assert pooled == pytest.approx(average_precision_score(truth, scores), abs=2e-3)
            assert pooled != pytest.approx(mean, abs=1e-4), "pooled and per case are two figures"
            assert result.value(part, "auroc", "pooled").value == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
            alarms = scores >= threshold
            assert result.value(part, "dice", "pooled").value == pytest.approx(dice(alarms, truth))
            assert result.value(part, "precision", "pooled").value == pytest.approx(truth[alarms].mean())
            assert result.value(part, "sensitivity", "pooled").value == pytest.approx(alarms[truth].mean())
            oracle = max(dice(scores >= value, truth) for value in np.unique(scores))
            assert result.value(part, "best_dice", "pooled").value == pytest.approx(oracle, abs=2e-3)

    def test_false_positive_rate_is_no_false_discovery_rate(self, study: Study) -> None:
        names = [f"sub-0{number}" for number in (1, 2, 3, 4)]
        alarms = healthy = 0
        for name in names:
            truth, scores = region_of(study, name, "score")
            alarms += int((scores[~truth] >= 0.5).sum())
            healthy += int((~truth).sum())
        result = study.evaluate()
        assert result.value("score", "fpr", "pooled").value == pytest.approx(alarms / healthy)
        assert result.value("score", "fpr").subjects == 4

    def test_lesion_free_cases_enter_only_the_figures_of_false_positives(self, study: Study) -> None:
        result = study.evaluate()
        for figure in ("auprc", "dice", "best_dice", "precision", "lesion_f1"):
            assert (result.value("score", figure).subjects, result.value("score", figure).left_out) == (3, 1)
        false_ml = (study.maps["sub-04"]["score"][brain_mask()] >= 0.5).sum() * VOXEL_ML
        scan = result.value("score", "false_positive_ml_per_lesion_free_scan")
        assert (scan.value, scan.subjects, scan.left_out) == (pytest.approx(false_ml), 1, 3)
        assert result.value("score", "lesion_free_scans_with_alarm").value == 1.0
        # Lesions lie in slices 2 and 3, and 10 mm are 2 slices: 6 to 10 are clear; the brain of the healthy has 10.
        clear = [(f"sub-0{number}", slice(6, 11)) for number in (1, 2, 3)] + [("sub-04", slice(1, 11))]
        false_mls = [
            (study.maps[name]["score"][..., at][brain_mask()[..., at]] >= 0.5).sum() * VOXEL_ML for name, at in clear
        ]
        per_slice = result.value("score", "false_positive_ml_per_lesion_free_slice")
        assert per_slice.value == pytest.approx(np.mean(np.array(false_mls) / [5, 5, 5, 10]))
        pooled = result.value("score", "false_positive_ml_per_lesion_free_slice", "pooled")
        assert pooled.value == pytest.approx(sum(false_mls) / 25)

    def test_slices_run_along_the_axis_of_acquisition_and_those_without_brain_are_none(self, tmp_path: Path) -> None:
        """Published mistake 3: "per slice" over another axis, and empty slices counted as free of alarms."""
        study = Study(tmp_path)
        alarm = np.zeros(SHAPE, np.float32)
        alarm[5, 3:6, 4:8] = 0.9
        study.add(1, healthy=True, maps=dict.fromkeys(QUALITY, alarm))
        place = study.predictions / "sub-01" / "anat" / "sub-01_desc-anomaly_probseg.json"
        for direction, slices in (("sagittal", 12), ("coronal", 10), ("axial", 10)):
            record = json.loads(place.read_text())
            record["notes"]["direction"] = direction
            place.write_text(json.dumps(record))
            study.evaluate(direction)
            row = rows_of(tmp_path / direction / "cases.csv")[0]
            assert int(row["lesion_free_slices"]) == slices
            assert float(row["false_positive_ml_per_lesion_free_slice"]) == pytest.approx(12 * VOXEL_ML / slices)
        # A lesion takes its own slices and their neighbours out: from the left, along x, others than from below.
        study.add(2)  # x 4 to 8, z 2 and 3
        place = study.predictions / "sub-02" / "anat" / "sub-02_desc-anomaly_probseg.json"
        record = json.loads(place.read_text())
        record["notes"]["direction"] = "sagittal"
        place.write_text(json.dumps(record))
        study.evaluate("both")
        # Of x from 2 to 13 all that keep 10 mm, 3 slices of 4 mm, from 4 to 8.
        assert rows_of(tmp_path / "both" / "cases.csv")[len(QUALITY)]["lesion_free_slices"] == "2"

    def test_pooled_lesions_are_the_sums_over_cases(self, study: Study) -> None:
        result = study.evaluate()
        rows = [row for row in rows_of(study.root / "scores" / "cases.csv") if row["system"] == "score"][:3]
        lesions, hit, components, false = (
            sum(int(row[name]) for row in rows) for name in ("lesions", "lesions_hit", "components", "false_components")
        )
        assert result.value("score", "lesion_recall", "pooled").value == pytest.approx(hit / lesions)
        precision = (components - false) / components
        assert result.value("score", "lesion_precision", "pooled").value == pytest.approx(precision)
        # Lesions of 32 to 48 voxels of 0.08 ml: all from 1 to 10 ml, while false alarms are small.
        for size, share in (("1_to_10ml", hit / lesions), ("under_1ml", math.nan)):
            recall = result.value("score", f"lesion_recall_{size}", "pooled").value
            assert recall == pytest.approx(share, nan_ok=True)
        small = sum(int(row["false_components_under_1ml"]) for row in rows)
        assert 0 < small <= false
        components = sum(int(row["components_under_1ml"]) for row in rows)
        stated = result.value("score", "lesion_precision_under_1ml", "pooled").value
        assert stated == pytest.approx(1 - small / components)
        assert "< 1 ml" in (study.root / "scores" / "summary.md").read_text()

    def test_systems_are_compared_by_the_lesions_they_find_at_one_volume_of_false_positives(self, study: Study) -> None:
        """12 voxels of 0.08 ml are 1 ml: whatever the thresholds of the bundle, and without any."""
        result = study.evaluate()
        for part in THRESHOLDS:
            lesions = hit = 0
            for number in (1, 2, 3):
                truth, values = region_of(study, f"sub-0{number}", part)
                allowed = [at for at in np.unique(values) if ((values >= at) & ~truth).sum() <= 12]
                mask = brain_mask() & (study.maps[f"sub-0{number}"][part] >= min(allowed))
                labels, count = ndimage.label(lesion_mask(number), structure=np.ones((3, 3, 3)))
                lesions += count
                hit += sum(mask[labels == each].mean() >= 0.1 for each in range(1, count + 1))
            figure = result.value(part, "lesion_recall_at_1ml_1_to_10ml", "pooled")
            assert figure.value == pytest.approx(hit / lesions)
            assert figure.subjects == 3
            assert math.isnan(result.value(part, "lesion_recall_at_1ml_under_1ml", "pooled").value)
        assert "where 1 ml of each scan is false positives" in (study.root / "scores" / "summary.md").read_text()

    def test_scans_are_ranked_by_what_a_tenth_of_a_millilitre_reaches(self, study: Study) -> None:
        result = study.evaluate()
        scores = {}
        for row in rows_of(study.root / "scores" / "cases.csv"):
            _, values = region_of(study, row["case"], row["system"])
            scores[row["case"], row["system"]] = np.sort(values)[-2]  # 0.1 ml are two voxels
            assert float(row["scan_score"]) == pytest.approx(np.sort(values)[-2])
        for part in THRESHOLDS:
            ranked = [scores[f"sub-0{number}", part] for number in (1, 2, 3, 4)]
            expected = roc_auc_score([1, 1, 1, 0], ranked)
            assert result.value(part, "scan_auroc", "pooled").value == pytest.approx(expected)
        study.cases = study.cases[:3]
        assert math.isnan(study.evaluate("ill").value("score", "scan_auroc", "pooled").value)

    def test_outlines_of_healthy_scans_are_counted_and_those_of_lesions_measured(self, study: Study) -> None:
        result = study.evaluate()
        row = next(row for row in rows_of(study.root / "scores" / "cases.csv") if row["case"] == "sub-04")
        mask = (study.maps["sub-04"]["score"] >= 0.5) & brain_mask()
        count = ndimage.label(mask, structure=np.ones((3, 3, 3)))[1]
        assert float(row["false_lesions_per_lesion_free_scan"]) == count > 0
        assert row["surface_dice"] == row["hd95"] == ""
        figures = []
        for number in (1, 2, 3):
            mask = (study.maps[f"sub-0{number}"]["score"] >= 0.5) & brain_mask()
            figures.append(surface_figures(mask, lesion_mask(number), SPACING_MM))
        for name, values in zip(("surface_dice", "hd95"), zip(*figures, strict=True), strict=True):
            assert result.value("score", name).value == pytest.approx(np.mean(values))
            assert result.value("score", name).subjects == 3

    def test_the_ill_without_a_lesion_to_be_found_are_no_controls(
        self, study: Study, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A lesion that is wholly ignored; an empty mask, and a healthy person's ignored scar, are controls."""
        before = study.evaluate("before")
        assert "controls" not in caplog.text
        nothing = np.zeros(SHAPE, dtype=bool)
        study.add(5, ignore=lesion_mask(5))
        study.add(6, lesion=nothing)
        study.add(7, lesion=lesion_mask(7), ignore=lesion_mask(7))
        study.cases[-1] = replace(study.cases[-1], health="healthy")
        result = study.evaluate()
        assert "no healthy controls either, as all that is marked is ignored: 1;" in caplog.text
        assert caplog.text.count("no healthy controls") == 1
        rows = {row["case"]: row for row in rows_of(study.root / "scores" / "cases.csv") if row["system"] == "score"}
        assert [row["control"] for row in rows.values()] == ["False"] * 3 + ["True", "False", "True", "True"]
        free = ("false_positive_ml_per_lesion_free_scan", "lesion_free_scans_with_alarm")
        for figure in (*free, "false_lesions_per_lesion_free_scan"):
            assert [name for name, row in rows.items() if row[figure]] == ["sub-04", "sub-06", "sub-07"]
            assert result.value("score", figure).subjects == 3
        assert result.value("score", "scan_auroc", "pooled").subjects == 6
        assert result.value("score", "dice") == before.value("score", "dice")._replace(left_out=4)
        text = (study.root / "scores" / "summary.md").read_text()
        assert (
            "3 cases with a lesion, median 3.2 ml of lesion, 3 without, 1 neither ill nor known to be healthy" in text
        )

    def test_empty_mask_on_an_empty_truth_is_undefined_and_no_alarm(self, tmp_path: Path) -> None:
        study = Study(tmp_path)
        silent = {part: np.zeros(SHAPE, np.float32) for part in QUALITY}
        study.add(1, maps=silent)
        study.add(2, healthy=True, maps=silent)
        result = study.evaluate()
        sick, well = (row for row in rows_of(tmp_path / "scores" / "cases.csv") if row["system"] == "score")
        assert float(sick["dice"]) == float(sick["surface_dice"]) == 0.0
        assert sick["hd95"] == well["surface_dice"] == ""
        assert well["dice"] == well["auprc"] == well["precision"] == ""
        assert result.value("score", "dice").value == 0.0
        assert result.value("score", "lesion_free_scans_with_alarm").value == 0.0
        assert math.isnan(result.value("score", "precision").value), "no alarm, no precision"

    def test_lesion_outside_the_brain_counts_as_missed(self, tmp_path: Path) -> None:
        study = Study(tmp_path)
        lesion = lesion_mask(1)
        small = brain_mask() & ~np.indices(SHAPE)[0].__lt__(6)  # cuts through the lesion
        perfect = {part: np.where(lesion, 0.8, 0.1).astype(np.float32) for part in QUALITY}
        study.add(1, lesion=lesion, brain=small, maps=perfect)
        result = study.evaluate()
        (row,) = (row for row in rows_of(tmp_path / "scores" / "cases.csv") if row["system"] == "score")
        outside = int((lesion & ~small).sum())
        assert 0 < outside < lesion.sum()
        assert int(row["lesion_voxels_outside_brain"]) == int(row["fn"]) == outside
        assert int(row["lesion_voxels"]) == lesion.sum()
        assert result.value("score", "sensitivity").value == pytest.approx(1 - outside / lesion.sum())
        assert result.value("score", "auprc").value < 0.8, "a small brain mask must not make a perfect score"
        assert f"Lesion voxels outside it: {outside}" in (tmp_path / "scores" / "summary.md").read_text()

    def test_ignored_voxels_are_neither_right_nor_wrong(self, tmp_path: Path) -> None:
        lesion = lesion_mask(1)
        ignore = np.zeros(SHAPE, dtype=bool)
        ignore[10:13, 8:11, 5:7] = ignore[4:6, 4:8, 2:4] = True
        perfect = np.where(lesion | ignore, 0.8, 0.1).astype(np.float32)
        inverted = np.where(ignore, 0.9 - perfect, perfect)
        rows = []
        for name, values in (("a", perfect), ("b", inverted)):
            study = Study(tmp_path / name)
            study.add(1, lesion=lesion, ignore=ignore, maps=dict.fromkeys(QUALITY, values))
            study.evaluate()
            rows.append(rows_of(tmp_path / name / "scores" / "cases.csv")[0])
        assert {name: value for name, value in rows[0].items() if name != "key"} == rows[1]
        assert float(rows[0]["auprc"]) == float(rows[0]["dice"]) == 1.0
        assert int(rows[0]["lesion_voxels"]) == (lesion & ~ignore).sum()

    def test_l1_of_the_reconstruction_on_the_unit_scale(self, study: Study) -> None:
        result = study.evaluate()
        assert result.value("reconstruction", "l1_healthy").value == pytest.approx(5 / 250, rel=1e-4)
        assert result.value("reconstruction", "l1_lesion").value == pytest.approx(50 / 250, rel=1e-2)
        assert result.value("reconstruction", "l1_ratio").value == pytest.approx(10, rel=1e-2)
        assert result.value("reconstruction", "l1_lesion").left_out == 1
        similar = []
        for number in (1, 2, 3, 4):
            scan = np.random.default_rng(number).uniform(50, 150, SHAPE).astype(np.float32)
            lesion = study.lesions[f"sub-0{number}"]
            pair = np.clip(scan / 250, 0, 1), np.clip((scan - np.where(lesion, 50, 5)) / 250, 0, 1)
            box = (slice(2, 14), slice(2, 12), slice(1, 11))
            settings = {"gaussian_weights": True, "sigma": 1.0, "truncate": 4, "use_sample_covariance": False}
            maps = [
                structural_similarity(a, b, data_range=1, full=True, K1=0.01, K2=0.03, **settings)[1]
                for a, b in zip(*(np.moveaxis(volume[box], -1, 0) for volume in pair), strict=True)
            ]
            similar.append(np.stack(maps, -1)[~lesion[box]].mean())
        assert result.value("reconstruction", "ssim_healthy").value == pytest.approx(np.mean(similar), abs=1e-3)

    def test_errors_against_the_same_brain_without_its_lesion(self, study: Study) -> None:
        before = study.evaluate()
        assert not any(row.figure.startswith("error") for row in before.figures)
        assert "ratio of errors" not in (study.root / "scores" / "summary.md").read_text()
        errors = {}
        for place, number in ((0, 1), (1, 2)):
            twin = np.random.default_rng(90 + number).uniform(0, 400, SHAPE).astype(np.float32)  # some above the scale
            write_volume(study.root / f"twin-{number}.nii.gz", twin, GRID)
            study.cases[place] = replace(
                study.cases[place], lesion_free={"FLAIR": study.root / f"twin-{number}.nii.gz"}
            )
            lesion = study.lesions[f"sub-0{number}"]
            scan = np.random.default_rng(number).uniform(50, 150, SHAPE).astype(np.float32)
            away = np.abs(np.minimum(twin / 250, 1) - (scan - np.where(lesion, 50, 5)) / 250)
            errors[number] = away[lesion].mean(), away[brain_mask() & ~lesion].mean()
        result = study.evaluate()
        assert (result.done, result.kept) == (["sub-01", "sub-02"], ["sub-03", "sub-04"])
        inside, healthy = np.array(list(errors.values())).T
        for figure, expected in {"lesion": inside, "healthy": healthy, "ratio": inside / healthy}.items():
            row = result.value("reconstruction", f"error_{figure}")
            assert row.value == pytest.approx(expected.mean(), rel=1e-5)
            assert (row.subjects, row.left_out) == (2, 2)
        for figure in ("l1_healthy", "l1_ratio", "ssim_healthy"):
            assert result.value("reconstruction", figure) == before.value("reconstruction", figure)
        assert "| ratio of errors, n = 2 |" in (study.root / "scores" / "summary.md").read_text()
        rows = rows_of(study.root / "scores" / "cases.csv")[:: len(QUALITY)]
        assert [row["error_ratio"] == "" for row in rows] == [False, False, True, True]
        assert float(rows[0]["error_lesion"]) == pytest.approx(inside[0], rel=1e-5)
        write_volume(study.root / "twin-1.nii.gz", np.zeros((4, 4, 4)), VolumeGrid.make((4, 4, 4), np.eye(4)))
        result = study.evaluate()
        assert "file on another grid" in result.failed["sub-01"]
        assert "twin-1.nii.gz" in result.failed["sub-01"]

    def test_two_sessions_are_one_subject(self, tmp_path: Path) -> None:
        study = Study(tmp_path)
        for number, session in ((1, ""), (2, "a"), (2, "b")):
            study.add(number, session=session)
        result = study.evaluate()
        auprc = {
            row["case"]: float(row["auprc"]) for row in rows_of(tmp_path / "scores" / "cases.csv")[:: len(QUALITY)]
        }
        assert len(auprc) == 3
        expected = (auprc["sub-01"] + (auprc["sub-02_ses-a"] + auprc["sub-02_ses-b"]) / 2) / 2
        figure = result.value("score", "auprc")
        assert (figure.value, figure.subjects) == (pytest.approx(expected), 2)

    def test_paired_differences_share_the_draws_and_say_whether_they_are_more_than_chance(self, study: Study) -> None:
        few = study.evaluate("few").value("score - intensity", "auprc")
        assert few.low > 0
        assert few.p == 2 / 2**3
        assert not few.more_than_chance, "three subjects of one sign are no evidence"
        for number in (5, 6, 7):
            study.add(number)
        result = study.evaluate()
        difference = result.value("score - intensity", "auprc")
        expected = result.value("score", "auprc").value - result.value("intensity", "auprc").value
        assert difference.value == pytest.approx(expected)
        assert difference.p == 2 / 2**6
        assert difference.more_than_chance
        assert difference.low > 0
        row = next(row for row in rows_of(study.root / "scores" / "summary.csv") if row["system"] == difference.system)
        assert (row["more_than_chance"], row["p"], row["seed"], row["draws"]) == ("True", "0.03125", "0", "50")
        text = (study.root / "scores" / "summary.md").read_text()
        assert re.search(r"^\| score - intensity \| AUPRC, mean.*\| 6 \| 0\.031 \| yes \|$", text, re.MULTILINE)
        # Of pooled voxels no subject has a difference.
        assert math.isnan(result.value("score - intensity", "auprc", "pooled").p)
        assert re.search(r"^\| score - intensity \| AUPRC, pooled .*\| 6 \| – \| – \|$", text, re.MULTILINE)

    def test_an_interval_of_few_subjects_is_no_evidence(self, study: Study) -> None:
        """It excludes 0 where the permutation test of six subjects, one of them against the others, does not."""
        scores = []
        for number, (a, b) in enumerate(((0.6, 0.5), (0.6, 0.5), (0.7, 0.5), (0.7, 0.5), (0.6, 0.5), (0.48, 0.5))):
            facts = {"dataset": "d", "subject": str(number), "case": str(number), "lesion_voxels": 1}
            histogram = ScoreHistogram()
            histogram.add(np.array([0.9, 0.1]), np.array([True, False]))
            both = dict.fromkeys(("score", "map"), histogram)
            scores.append(CaseScores(facts, {"score": {"auprc": a}, "map": {"auprc": b}}, both, {}))
        (row, _) = differences(scores, "score", scores, "map", "score - map", seed=0, draws=500)
        assert row.low > 0
        assert row.p == 4 / 2**6
        assert not row.more_than_chance
        assert "| 0.062 | no |" in "\n".join(difference_table([row]))

    def test_by_attribute(self, study: Study) -> None:
        result = study.evaluate(by=("site",))
        assert result.value("score", "auprc", group="site=A").subjects == 2
        alone = result.value("score", "auprc", group="site=B")
        assert alone.subjects == 1
        assert math.isnan(alone.low)
        with pytest.raises(ConfigError, match=r"unknown attribute.*'scaner'.*site"):
            study.evaluate("other", by=("scaner",))


class TestThresholds:
    def test_uncalibrated_detector_gives_no_figure_of_a_mask(self, tmp_path: Path) -> None:
        study = Study(tmp_path, thresholds=None)
        study.add(1)
        study.add(2)
        result = study.evaluate()
        assert {figure.figure for figure in result.figures if figure.system == "score"} == {
            "auprc",
            "auroc",
            "best_dice",
            "scan_auroc",
        }
        assert "threshold" not in rows_of(tmp_path / "scores" / "cases.csv")[0]
        assert "Not calibrated" in (tmp_path / "scores" / "summary.md").read_text()

    def test_thresholds_never_come_from_the_evaluated_data(self, study: Study) -> None:
        result = study.evaluate()
        assert result.value("score", "dice").value < result.value("score", "best_dice").value - 1e-3
        for row in rows_of(study.root / "scores" / "cases.csv"):
            assert float(row["threshold"]) == THRESHOLDS[row["system"]]

    def test_rule_must_be_calibrated(self, study: Study) -> None:
        with pytest.raises(ConfigError, match="uncalibrated rule"):
            study.evaluate(rule="false-positives")


class TestFolders:
    def test_continues_and_recomputes_only_what_changed(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        first = study.evaluate()
        assert (len(first.done), first.kept) == (4, [])
        tables = {name: (study.root / "scores" / name).read_bytes() for name in ("cases.csv", "summary.csv")}
        again = study.evaluate()
        assert (again.done, len(again.kept)) == ([], 4)
        assert {name: (study.root / "scores" / name).read_bytes() for name in tables} == tables
        lesion = lesion_mask(2)
        lesion[..., 3] = False
        write_volume(study.root / "raw" / "sub-02" / "lesion.nii.gz", lesion, GRID, np.uint8)
        changed = study.evaluate()
        assert (changed.done, len(changed.kept)) == (["sub-02"], 3)

    def test_another_request_in_the_same_place(self, study: Study) -> None:
        study.evaluate()
        with pytest.raises(ConfigError, match=r"got seed 0 there and 1 now; .*--overwrite"):
            study.evaluate(seed=1)
        assert study.evaluate(seed=1, overwrite=True).value("score", "auprc").seed == 1

    def test_bad_and_missing_cases_are_named_and_end_nothing(self, study: Study) -> None:
        (study.predictions / "sub-02" / "anat" / "sub-02_desc-segmenter_probseg.nii.gz").write_bytes(b"\x1f\x8bno")
        (study.predictions / "sub-03" / "anat" / "sub-03_desc-anomaly_probseg.json").unlink()
        (study.predictions / "sub-01" / "anat" / "sub-01_desc-anomaly_probseg.json").write_text("{")
        result = study.evaluate()
        assert set(result.failed) == {"sub-01", "sub-02"}
        assert "unreadable record" in result.failed["sub-01"]
        assert "sub-02_desc-segmenter_probseg.nii.gz" in result.failed["sub-02"]
        assert (result.missing, result.done) == (["sub-03"], ["sub-04"])
        text = (study.root / "scores" / "summary.md").read_text()
        assert "failed (2): sub-01, sub-02" in text
        assert "without a prediction (1): sub-03" in text
        assert re.search(r"^- Data: hand; 1 cases of .*\*\*Not in these figures: 1 cases without", text, re.MULTILINE)

    def test_unexpected_errors_are_named_and_end_nothing(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails_on(name: str, function: Callable[..., Any], position: int) -> Callable[..., Any]:
            return lambda *args: [][0] if args[position].name == name else function(*args)

        monkeypatch.setattr(evaluation, "evaluate_case", fails_on("sub-02", evaluation.evaluate_case, 2))
        monkeypatch.setattr(evaluation, "draw_case", fails_on("sub-01", lambda *_: None, 3))
        place = study.predictions / "sub-03" / "anat" / "sub-03_desc-anomaly_probseg.json"
        place.write_text("[]")
        result = study.evaluate()
        assert result.done == ["sub-01", "sub-04"]
        assert result.failed["sub-02"].startswith("unexpected IndexError: list index out of range")
        assert f"incomplete record in {place}" in result.failed["sub-03"]

    def test_unknown_health_without_a_mask_is_never_healthy(self, study: Study) -> None:
        study.cases = [*study.cases[:3], Case("hand", "04", study.cases[3].images)]
        assert study.evaluate().unknown == ["sub-04"]

    def test_leakage(self, study: Study) -> None:
        digests = identity_digests(read_manifest(study.cohort)[1])
        study.model["used"] = {digests["voxels"][0]: "calibrate"}
        study.write_model()
        with pytest.raises(LeakageError, match=r"sub-02.*same voxels, role calibrate"):
            study.evaluate()
        assert not (study.root / "scores").exists()
        study.evaluate(allow_leakage=True)
        assert "Leakage" in (study.root / "scores" / "summary.md").read_text()

    def test_other_labels_of_a_mask_are_another_truth(self, study: Study) -> None:
        study.evaluate()
        assert len(study.evaluate().kept) == 4
        before = evaluation_case.truth_key(study.cases[0])
        study.cases[0] = replace(study.cases[0], attributes={"site": "A", "lesion_labels": "2", "ignore_labels": "1"})
        again = study.evaluate()
        assert (again.done, len(again.kept)) == (["sub-01"], 3)
        assert rows_of(study.root / "scores" / "cases.csv")[0]["lesion_voxels"] == "0"
        assert evaluation_case.truth_key(study.cases[0]) != before
        study.cases[1] = replace(study.cases[1], reference="FLAIR")
        again = study.evaluate()
        assert (again.done, len(again.kept)) == (["sub-02"], 3)

    def test_an_unreadable_contrast_drops_a_case_only_where_it_is_used(self, study: Study) -> None:
        broken = study.root / "broken.nii.gz"
        broken.write_bytes(b"nothing")
        study.cases[0] = replace(study.cases[0], images={**study.cases[0].images, "T1w": broken})
        study.model["used"] = {"a" * 64: "fit"}
        study.write_model()
        assert study.evaluate().failed == {}
        study.model["contrasts"] = ["FLAIR", "T1w"]
        study.write_model()
        assert list(study.evaluate("again").failed) == ["sub-01"]
        study.model["used"] = {identity_digests(study.cases[0], ["FLAIR"])["voxels"][0]: "fit"}
        study.model["contrasts"] = ["FLAIR"]
        study.write_model()
        with pytest.raises(LeakageError, match=r"sub-01.*same voxels"):
            study.evaluate("leaked")

    def test_predictions_of_another_version_are_refused(self, study: Study) -> None:
        place = study.predictions / "sub-02" / "anat" / "sub-02_desc-anomaly_probseg.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"format": FORMAT + 1}))
        result = study.evaluate()
        assert len(result.done) == 3
        mended = rf"of another version.*expected {FORMAT}; predict again with --overwrite"
        assert re.search(mended, result.failed["sub-02"])
        del study.model["format"]
        study.write_model()
        with pytest.raises(DataError, match=r"predictions of another version in .*model\.json: got format None"):
            study.evaluate("again")

    def test_predictions_of_the_first_format_have_no_asymmetry_and_are_evaluated(self, study: Study) -> None:
        whole = study.evaluate("whole")
        assert whole.value("asymmetry", "auprc").subjects == 3
        assert whole.value("score - asymmetry", "auprc").value > 0
        assert "| left-right asymmetry (learns nothing) | 0." in (study.root / "whole" / "summary.md").read_text()
        del study.model["thresholds"]["rules"]["best-dice"]["values"]["asymmetry"]
        study.model["format"] = 1
        study.write_model()
        for record in study.predictions.rglob("*_desc-anomaly_probseg.json"):
            stated = json.loads(record.read_text()) | {"format": 1}
            (study.predictions / stated["parts"].pop("asymmetry")).unlink()
            record.write_text(json.dumps(stated))
        old = study.evaluate("old")
        assert (len(old.done), old.failed) == (4, {})
        assert "asymmetry" not in (study.root / "old" / "summary.md").read_text()
        for part in ("score", "intensity"):
            assert old.value(part, "dice") == whole.value(part, "dice")

    def test_a_bundle_without_a_threshold_for_the_asymmetry_gives_it_no_dice(self, study: Study) -> None:
        del study.model["thresholds"]["rules"]["best-dice"]["values"]["asymmetry"]
        study.write_model()
        result = study.evaluate()
        assert result.failed == {}
        assert result.value("asymmetry", "auprc").subjects == 3
        with pytest.raises(ConfigError, match="dice of asymmetry"):
            result.value("asymmetry", "dice")

    def test_a_part_that_not_every_case_has_is_in_no_table(self, study: Study) -> None:
        """As the asymmetry of a cohort of sagittal scans, some of a few slices."""
        place = study.predictions / "sub-02" / "anat" / "sub-02_desc-anomaly_probseg.json"
        record = json.loads(place.read_text())
        del record["parts"]["asymmetry"]
        place.write_text(json.dumps(record))
        result = study.evaluate()
        assert (len(result.done), result.failed) == (4, {})
        assert "asymmetry" not in (study.root / "scores" / "summary.md").read_text()
        assert [
            row["case"] for row in rows_of(study.root / "scores" / "cases.csv") if row["system"] == "asymmetry"
        ] == [
            "sub-01",
            "sub-03",
            "sub-04",
        ]

    def test_not_a_predictions_folder(self, study: Study) -> None:
        with pytest.raises(DataError, match=r"no predictions.*model\.json"):
            evaluate(study.root / "raw", study.cohort, out=study.root / "scores")

    def test_pictures_and_summary(self, study: Study) -> None:
        study.evaluate()
        folder = study.root / "scores"
        assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["best.png", "median.png", "worst.png"]
        text = (folder / "summary.md").read_text()
        for stated in ("hand; 4 cases of 4 subjects, 3 cases with a lesion", "Region:", "seed 0", "rule best-dice"):
            assert stated in text
        summary = json.loads((folder / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
        assert len(summary["cases"]) == 4

    def test_pictures_show_the_mask_that_was_evaluated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By a rule that leaves specks out, and without what is ignored."""
        lesion, ignore = lesion_mask(1), np.zeros(SHAPE, dtype=bool)
        ignore[4, 4:6, 2] = True
        loud = np.where(lesion, 0.9, 0.1).astype(np.float32)
        loud[10, 8, 2:4] = loud[12, 4, 3] = 0.9  # specks of 0.16 and 0.08 ml
        study = Study(tmp_path)
        sized = {"threshold": 0.5, "least_ml": 0.2, "per": "lesion"}
        study.model["thresholds"]["rules"] = {"best-dice": {"sized": dict.fromkeys(QUALITY, sized)}}
        study.write_model()
        study.add(1, lesion=lesion, ignore=ignore, maps=dict.fromkeys(QUALITY, loud))
        drawn: list[list[np.ndarray]] = []
        monkeypatch.setattr(pictures, "slice_grid", lambda path, rows, titles, **options: drawn.extend(rows))
        result = study.evaluate()
        assert len(drawn) == 2
        assert any(mask.any() for *_, mask, _ in drawn)
        assert all(np.array_equal(mask, truth) for *_, mask, truth in drawn)
        assert result.value("score", "dice").value == 1

    def test_pictures_of_another_part(self, study: Study) -> None:
        result = study.evaluate(pictured=("map", "uncertainty"))
        folder = study.root / "scores" / "pictures"
        assert sorted(path.name for path in folder.iterdir()) == ["map-best.png", "map-median.png", "map-worst.png"]
        assert "(pictures/map-best.png)" in (study.root / "scores" / "summary.md").read_text()
        dice = {}
        for row in rows_of(study.root / "scores" / "cases.csv"):
            if row["system"] == "map" and row["dice"]:
                dice[row["case"]] = float(row["dice"])
        cases = [evaluation_case.load_case(study.root / "scores" / "cases", name, {}) for name in result.done]
        chosen = chosen_cases(cases, "map")
        assert [chosen[label].name for label in ("best", "worst")] == [max(dice, key=dice.get), min(dice, key=dice.get)]


class TestCompare:
    def test_folds_together_against_a_better_model(self, tmp_path: Path) -> None:
        folders: dict[str, list[Path]] = {"plain": [], "better": []}
        for fold, numbers in enumerate(((1, 2, 3), (4, 5, 6))):
            for name in folders:
                study = Study(tmp_path / f"{name}{fold}")
                for number in numbers:
                    lesion = lesion_mask(number)
                    maps = maps_of(number, lesion, brain_mask())
                    if name == "better":
                        maps["score"] = np.where(lesion, np.maximum(maps["score"], 0.6), maps["score"])
                    study.add(number, maps=maps)
                study.evaluate()
                folders[name].append(study.root / "scores")
        rows = compare(list(folders.items()), out=tmp_path / "comparison", draws=50)
        figures = {(row.system, row.figure, row.how): row for row in rows}
        gain = figures["better - plain (score)", "auprc", "mean over subjects"]
        assert gain.subjects == 6
        assert gain.p == 2 / 2**6
        assert gain.more_than_chance
        same = figures["better - plain (map)", "auprc", "mean over subjects"]
        assert (same.value, same.p, same.more_than_chance) == (0.0, 1.0, False)
        better = figures["better: score - map", "auprc", "mean over subjects"]
        assert better.subjects == 6
        assert better.value > figures["plain: score - map", "auprc", "mean over subjects"].value
        assert better.value - figures["plain: score - map", "auprc", "mean over subjects"].value == pytest.approx(
            gain.value
        )
        text = (tmp_path / "comparison" / "comparison.md").read_text()
        assert "better - plain (score)" in text
        # Scores of two models share no scale, those of one fold do.
        assert not any(how == "pooled" for *_, how in figures)
        assert "- No pooled difference of plain, better: scores of models trained apart" in text
        one = compare([(name, listed[:1]) for name, listed in folders.items()], out=tmp_path / "one", draws=50)
        assert {row.system for row in one if row.how == "pooled"} == {row.system for row in one}
        assert "No pooled difference" not in (tmp_path / "one" / "comparison.md").read_text()
        with pytest.raises(DataError, match="case in two folds"):
            compare([("a", [folders["plain"][0]] * 2), ("b", folders["better"])], out=tmp_path / "x")

    def test_leakage_that_was_allowed_is_told_again(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            study = Study(tmp_path / name)
            study.add(1)
            study.model["used"] = identities(study.cases, "fit") if name == "b" else {}
            study.write_model()
            study.evaluate(allow_leakage=True)
        compare([(name, tmp_path / name / "scores") for name in ("a", "b")], out=tmp_path / "comparison")
        text = (tmp_path / "comparison" / "comparison.md").read_text()
        assert "- b: **Leakage, allowed on request" in text
        assert "- a: **Leakage" not in text

    def test_other_truths_cannot_be_compared(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            study = Study(tmp_path / name)
            study.add(1, lesion=lesion_mask(1 if name == "a" else 2))
            study.evaluate()
        evaluations = [(name, tmp_path / name / "scores") for name in ("a", "b")]
        with pytest.raises(DataError, match="different truths"):
            compare(evaluations, out=tmp_path / "comparison")

    def test_other_regions_cannot_be_compared(self, tmp_path: Path) -> None:
        for name in ("a", "b", "same"):
            study = Study(tmp_path / name)
            brain = brain_mask()
            brain[2, 5, 5] = name != "b"
            study.add(1, brain=brain)
            study.evaluate()
        scores = {name: tmp_path / name / "scores" for name in ("a", "b", "same")}
        with pytest.raises(DataError, match=r"evaluations over different voxels in sub-01.*evaluate anew"):
            compare([("a", scores["a"]), ("b", scores["b"])], out=tmp_path / "comparison")
        compare([("a", scores["a"]), ("same", scores["same"])], out=tmp_path / "comparison")
        for name in ("a", "same"):  # as an earlier version left them
            path = scores[name] / "cases" / "sub-01.json"
            content = json.loads(path.read_text())
            del content["facts"]["region"]
            path.write_text(json.dumps(content))
        with pytest.raises(DataError, match="evaluations over different voxels"):
            compare([("a", scores["a"]), ("same", scores["same"])], out=tmp_path / "comparison")


class TestTruth:
    def test_mask_in_another_orientation_and_on_another_contrast(self, tmp_path: Path) -> None:
        lesion = lesion_mask(2)
        flipped = VolumeGrid.make(SHAPE, np.array([[-4.0, 0, 0, 60], [0, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]]))
        fine = VolumeGrid.make(
            (32, 28, 24), np.array([[2.0, 0, 0, -1], [0, 2, 0, -1], [0, 0, 2.5, -1.25], [0, 0, 0, 1]])
        )
        files = {name: tmp_path / f"{name}.nii.gz" for name in ("FLAIR", "T1w", "turned", "fine")}
        write_volume(files["FLAIR"], np.arange(math.prod(SHAPE)).reshape(SHAPE), GRID)
        write_volume(files["T1w"], np.arange(math.prod(fine.shape)).reshape(fine.shape), fine)
        write_volume(files["turned"], lesion[::-1], flipped, np.uint8)
        write_volume(files["fine"], lesion.repeat(2, 0).repeat(2, 1).repeat(2, 2), fine, np.uint8)
        images = {"FLAIR": files["FLAIR"], "T1w": files["T1w"]}
        for name in ("turned", "fine"):
            truth = read_truth(Case("d", "1", images, lesion=files[name]), brain_mask(), GRID, AXIAL)
            assert np.array_equal(truth.lesion, lesion[truth.box])
        alone = Case("d", "1", {"FLAIR": files["FLAIR"]}, lesion=files["fine"])
        with pytest.raises(DataError, match="lesion mask on none of the case's grids"):
            read_truth(alone, brain_mask(), GRID, AXIAL)

    def test_a_slice_that_is_not_judged_is_no_lesion_free_slice(self, tmp_path: Path) -> None:
        brain = brain_mask()
        brain[8:, :, 10] = False  # 9.6 cm2 are left of 19
        path = tmp_path / "FLAIR.nii.gz"
        write_volume(path, np.arange(math.prod(SHAPE)).reshape(SHAPE), GRID)
        truth = read_truth(Case("d", "1", {"FLAIR": path}, health="healthy"), brain, GRID, AXIAL)
        assert truth.clear.tolist() == [True] * 9 + [False]

    def test_who_is_a_control(self, tmp_path: Path) -> None:
        files = {name: tmp_path / f"{name}.nii.gz" for name in ("FLAIR", "empty", "lesion")}
        write_volume(files["FLAIR"], np.arange(math.prod(SHAPE)).reshape(SHAPE), GRID)
        write_volume(files["empty"], np.zeros(SHAPE, bool), GRID, np.uint8)
        write_volume(files["lesion"], lesion_mask(1), GRID, np.uint8)

        def control(health: str, lesion: str | None, *, ignored: bool = False) -> bool:
            masks = {"lesion": lesion and files[lesion], "ignore": files["lesion"] if ignored else None}
            case = Case("d", "1", {"FLAIR": files["FLAIR"]}, health=health, **masks)
            return read_truth(case, brain_mask(), GRID, AXIAL).control

        assert control("healthy", None)
        assert control("healthy", "empty")
        assert control("healthy", "lesion", ignored=True)
        assert control("unknown", "empty")
        assert not control("unknown", "lesion", ignored=True)
        assert control("lesion", "empty")
        assert not control("lesion", "lesion", ignored=True)
        assert not control("healthy", "lesion")

    def test_stored_figures_come_back(self, study: Study) -> None:
        study.evaluate()
        folder = study.root / "scores" / "cases"
        scores = evaluation_case.load_case(folder, "sub-04", {})
        assert math.isnan(scores.systems["score"]["dice"])
        assert scores.histograms["score"].negatives == brain_mask().sum()
        sick = evaluation_case.load_case(folder, "sub-02", {})
        assert sick.lesions == (pytest.approx(lesion_mask(2).sum() * VOXEL_ML),)
        for part, threshold in THRESHOLDS.items():
            share = (study.maps["sub-02"][part] >= threshold)[lesion_mask(2)].mean()
            assert sick.coverage[part] == (pytest.approx(share),)
        (folder / "sub-04.npz").write_bytes(b"PK\x03\x04no")
        with pytest.raises(DataError, match="unreadable histograms"):
            evaluation_case.load_case(folder, "sub-04", {})
