"""How far to trust a prediction: p-values against healthy controls, their promise in the record, sides of lesions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from hybriduad.cohort.leakage import identities
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import BundleError, LeakageError
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import Bundle
from hybriduad.detector.controls import Controls, controls_of
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import scan_mask
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.evaluate import evaluate
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.files import SUFFIXES
from hybriduad.prediction.lesion_table import COLUMNS, UNCERTAINTY_COLUMNS, lesion_table
from hybriduad.scan.halves import left_half, side_of
from hybriduad.scan.volumes import VolumeGrid, read_volume

ALPHA = 0.34
"""What three controls can promise."""
RULES = (f"conformal-lesions:alpha={ALPHA},least_ml=0.5", f"conformal-scans:alpha={ALPHA}")


@pytest.fixture(scope="module")
def controls(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms as healthy people without a mask: networks that learnt nothing do not mind."""
    path = tmp_path_factory.mktemp("controls") / "controls.csv"
    write_manifest([replace(case, lesion=None, health="healthy") for case in read_cohort(tiny_cohort)], path)
    return path


@pytest.fixture(scope="module")
def calibrated(tiny_detector: Path, controls: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return calibrate(tiny_detector, controls, out=tmp_path_factory.mktemp("c") / "b", rules=RULES, device="cpu")


def score_and_brain(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, VolumeGrid]:
    score, brain = (
        read_volume(folder / name / "anat" / f"{name}_{SUFFIXES[part]}.nii.gz", constant_ok=True)
        for part in ("score", "brain")
    )
    return score.data, brain.data > 0, score.grid


def test_the_promise_is_stored_and_holds_on_the_controls(calibrated: Bundle, controls: Path, tmp_path: Path) -> None:
    entry = calibrated.record["thresholds"]["rules"]["conformal-lesions"]
    cutoff = calibrated.thresholds.of("score")
    assert (cutoff.least_ml, cutoff.per) == (0.5, "lesion")
    assert calibrated.record["thresholds"]["default"] == "conformal-lesions"
    outcome = predict_cohort(calibrated.folder, controls, out=tmp_path / "p", device="cpu")
    assert outcome.failed == {}
    peaks = []
    for case in read_cohort(controls):
        score, brain, grid = score_and_brain(tmp_path / "p", case.name)
        voxel_ml = abs(np.linalg.det(grid.affine)) / 1000

        def largest(at: float, score: np.ndarray = score, brain: np.ndarray = brain) -> int:
            labels, _ = ndimage.label((score >= at) & brain, np.ones((3, 3, 3)))
            return int(np.bincount(labels.ravel())[1:].max())

        peaks.append(next(at for at in np.unique(score[brain])[::-1] if largest(at) * voxel_ml >= 0.5))
    np.testing.assert_allclose(sorted(peaks, reverse=True), entry["controls"]["peaks"]["score"], rtol=1 / 2048)
    # A fourth of the next people are above the highest of three; of the three themselves none is.
    assert cutoff.threshold == pytest.approx(max(peaks), rel=1 / 1024)
    assert cutoff.threshold > max(peaks)
    for case in read_cohort(controls):
        record = json.loads((tmp_path / "p" / case.name / "anat" / f"{case.name}_{SUFFIXES['score']}.json").read_text())
        confidence = record["confidence"]
        assert confidence["controls"] == 3
        assert confidence["statement"].startswith(entry["guarantee"])
        scans = calibrated.record["thresholds"]["rules"]["conformal-scans"]["controls"]["peaks"]["score"]
        assert len(set(scans)) == 3
        score, brain, grid = score_and_brain(tmp_path / "p", case.name)
        highest = np.sort(score[brain])[::-1][0]  # a voxel of 0.2 ml is more than the 0.1 ml of a scan's peak
        assert confidence["scan_p"] == (1 + sum(value >= highest * (1 - 1 / 2048) for value in scans)) / 4
        table = (tmp_path / "p" / case.name / "anat" / f"{case.name}_desc-anomaly_lesions.tsv").read_text()
        assert table == "\t".join((*COLUMNS, *UNCERTAINTY_COLUMNS)) + "\n"


def test_a_mask_without_small_clusters_in_predict_in_the_api_and_in_evaluate(
    calibrated: Bundle, tiny_cohort: Path, tmp_path: Path
) -> None:
    """With a threshold that many clusters reach: those under 0.5 ml are in no mask."""
    bundle = Path(shutil.copytree(calibrated.folder, tmp_path / "b"))
    record = json.loads((bundle / "bundle.json").read_text())
    case = read_cohort(tiny_cohort)[0]
    score = predict_case(load_detector(bundle, "cpu"), case).score
    at = float(np.quantile(score[score > 0], 0.985))
    record["thresholds"]["rules"]["conformal-lesions"]["sized"]["score"]["threshold"] = at
    bundles.write_record(bundle, record)
    predict_cohort(bundle, tiny_cohort, out=tmp_path / "p", maps=("score", "brain", "mask"), device="cpu")
    score, brain, grid = score_and_brain(tmp_path / "p", case.name)
    plain = (score >= np.float32(at)) & brain
    labels, _ = ndimage.label(plain, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    least = 0.5 / (abs(np.linalg.det(grid.affine)) / 1000)
    expected = plain & (sizes >= least)[labels]
    assert 0 < expected.sum() < plain.sum()
    mask = read_volume(tmp_path / "p" / case.name / "anat" / f"{case.name}_{SUFFIXES['mask']}.nii.gz").data > 0
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(predict_case(load_detector(bundle, "cpu"), case).mask, expected)
    evaluation = evaluate(tmp_path / "p", tiny_cohort, out=tmp_path / "e", draws=5, allow_leakage=True)
    assert evaluation.failed == {}
    counted = json.loads((tmp_path / "e" / "cases" / f"{case.name}.json").read_text())["systems"]["score"]
    assert counted["components"] == len(np.unique(labels[expected]))
    rows = (tmp_path / "p" / case.name / "anat" / f"{case.name}_desc-anomaly_lesions.tsv").read_text().splitlines()
    assert len(rows) == 1 + counted["components"]
    kept = Controls.from_json(record["thresholds"]["rules"]["conformal-lesions"]["controls"])
    peaks = kept.lesion_p("score", score, expected, abs(np.linalg.det(grid.affine)) / 1000)
    p = [float(row.split("\t")[COLUMNS.index("p")]) for row in rows[1:]]
    assert sorted(p) == pytest.approx(sorted(peaks.values()))
    assert set(p) <= {0.25, 0.5, 0.75, 1.0}
    q = [float(row.split("\t")[COLUMNS.index("q")]) for row in rows[1:]]
    assert all(first >= second - 1e-9 for first, second in zip(q, p, strict=True))


def test_the_table_says_sides_p_and_q() -> None:
    affine = np.array([[-2.0, 0, 0, 40], [0, 2.0, 0, -50], [0, 0, 2.0, -20], [0, 0, 0, 1]])  # x from right to left
    grid = VolumeGrid.make((40, 50, 20), affine)
    brain = np.zeros(grid.shape, bool)
    brain[5:35, 5:45, 2:18] = True
    score, mask = np.full(grid.shape, 0.1, np.float32), np.zeros(grid.shape, bool)
    places = {"right": np.s_[6:12, 10:20, 5:10], "left": np.s_[30:34, 10:15, 5:9], "both": np.s_[19:22, 30:33, 5:8]}
    for number, (_, box) in enumerate(places.items()):
        mask[box], score[box] = True, 0.5 + 0.1 * number
    thresholds = {
        "default": "a",
        "rules": {
            "a": {"values": {"score": 0.4}},
            "b": {"controls": Controls("lesion", 0.1, {"score": (0.55, 0.3, 0.2, 0.65)}).to_json()},
        },
    }
    header, *rows = (row.split("\t") for row in lesion_table(thresholds, mask, score, brain, grid).splitlines())
    assert tuple(header) == COLUMNS
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["side"] for row in table] == ["right", "left", "both"]
    assert [float(row["p"]) for row in table] == [0.6, 0.4, 0.2]
    assert [float(row["q"]) for row in table] == [0.6, 0.6, 0.6]
    assert [float(table[0][f"{axis}_mm"]) for axis in "xyz"] == [40 - 2 * 8.5, -50 + 2 * 14.5, -20 + 2 * 7.0]
    thresholds["rules"].pop("b")
    assert lesion_table(thresholds, mask, score, brain, grid).splitlines()[1].endswith("\tright\tn/a\tn/a")


@pytest.mark.parametrize("turn", [-0.25, 0.0, 0.2])
def test_the_mid_plane_turns_and_tilts_with_the_head(turn: float) -> None:
    x, y, z = np.indices((60, 70, 40)) - np.array([31.0, 34.0, 20.0]).reshape(3, 1, 1, 1)
    across = x - turn * y - 0.3 * turn * z
    brain = (across / 25) ** 2 + (y / 32) ** 2 + (z / 18) ** 2 < 1
    brain &= ~((across > 15) & (y > 20))  # not quite symmetric
    wrong = (left_half(brain) != (across < 0)) & brain & (np.abs(across) > 1.5)
    assert wrong.sum() == 0
    assert left_half(np.zeros((3, 3, 3), bool)).sum() == 0
    assert [side_of(share) for share in (0.0, 0.09, 0.1, 0.9, 0.91, 1.0)] == ["right"] * 2 + ["both"] * 2 + ["left"] * 2


def test_without_controls_it_is_said_that_nothing_is_promised(
    tiny_detector: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    case = read_cohort(tiny_cohort)[0]
    write_manifest([case], tmp_path / "c.csv")
    predict_cohort(tiny_detector, tmp_path / "c.csv", out=tmp_path / "p", device="cpu")
    record = json.loads((tmp_path / "p" / case.name / "anat" / f"{case.name}_{SUFFIXES['score']}.json").read_text())
    confidence = record["confidence"]
    assert (confidence["scan_p"], confidence["controls"]) == (None, 0)
    assert confidence["statement"].startswith("No promise: the rule best-dice gives none")
    assert (confidence["predicted_dice"]["value"], confidence["predicted_dice"]["interval"]) == (None, None)
    assert "calibrate the bundle anew on annotated cases" in confidence["predicted_dice"]["reason"]


def test_controls_that_the_model_has_seen_are_refused(tiny_detector: Path, controls: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_detector, tmp_path / "fitted")
    record = dict(bundles.verify(tmp_path / "fitted").record)
    record["identities"] = identities(read_cohort(controls)[2:], "fit")
    bundles.write_record(tmp_path / "fitted", record)
    with pytest.raises(LeakageError, match=r"sub-03.*role fit"):
        calibrate(tmp_path / "fitted", controls, out=tmp_path / "b", rules=RULES, device="cpu")


def test_controls_come_back_from_json_and_the_default_rule_counts_first() -> None:
    first, second = Controls("lesion", 0.1, {"score": (0.2, 0.4)}), Controls("lesion", 0.3, {"score": (0.3,)})
    rules = {"a": {"controls": first.to_json()}, "b": {"controls": second.to_json()}, "c": {"values": {}}}
    assert controls_of({"default": "c", "rules": rules}, "score", ("scan", "lesion")).people == 2
    assert controls_of({"default": "b", "rules": rules}, "score", ("scan", "lesion")) == second
    assert controls_of({"default": "b", "rules": rules}, "map", ("lesion",)) is None
    assert controls_of({"default": "b", "rules": rules}, "score", ("scan",)) is None
    for damaged in ({"level": "slice", "least_ml": 0.1, "peaks": {}}, {"level": "scan", "peaks": {}}):
        with pytest.raises(BundleError, match="controls that cannot be read"):
            Controls.from_json(damaged)


def test_a_cutoff_and_its_p_agree(calibrated: Bundle, tiny_cohort: Path) -> None:
    """A fresh scan has a lesion in its mask if and only if its p among the controls is alpha at most."""
    cutoff = calibrated.thresholds.of("score")
    kept = controls_of(calibrated.record["thresholds"], "score", ("lesion",))
    prediction = predict_case(load_detector(calibrated.folder, "cpu"), read_cohort(tiny_cohort)[0])
    found = set()
    for factor in (0.9, 1.0, 1.01, 1.2):
        score = np.clip(prediction.score * np.float32(factor), 0, 1)
        mask, _ = scan_mask(cutoff, score, prediction.brain, 0.2)
        found.add(bool(mask.any()))
        assert mask.any() == (kept.scan_p("score", score, prediction.brain, 0.2) <= ALPHA)
    assert found == {True, False}
