"""Blind spots: what is counted as found, what is said of it, and the operating point that is chosen from it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from hybriduad.cli.app import app
from hybriduad.cohort.leakage import identities
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import ConfigError, DataError, LeakageError
from hybriduad.core.types import Case, Prediction
from hybriduad.detector import bundle as bundles
from hybriduad.detector.thresholds import Sized
from hybriduad.evaluation import blind_spot_report, blind_spots, real_lesions
from hybriduad.evaluation.blind_spots import find_blind_spots
from hybriduad.evaluation.operating_point import choose_operating_point
from hybriduad.evaluation.threshold_curve import LEVELS, WIDEST, curve_of, heights
from hybriduad.prediction.case import predict_case
from hybriduad.scan.places import place_at
from hybriduad.scan.volumes import VolumeGrid, read_mask, read_volume

Predict = Callable[..., Prediction]


@pytest.fixture(scope="module")
def controls(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, said to be healthy; the voxels of 0.2 ml make the smallest lesions single voxels."""
    path = tmp_path_factory.mktemp("controls") / "controls.csv"
    cases = [replace(case, lesion=None, health="healthy") for case in read_cohort(tiny_cohort)[1:]]
    write_manifest([*cases, read_cohort(tiny_cohort)[0]], path)
    return path


MATRIX = [[0.9, 0.1, 0, 3], [-0.1, 1.1, 0, -7], [0, 0, 1.2, 12], [0, 0, 0, 1]]
"""From millimetres of a scan to those of the template."""


def oracle(controls: Path, *, sees: bool, before: bool = False, registered: bool = False) -> Predict:
    """Predicts the change against the scan as it was, or nothing; with ``before``, everything in every scan."""
    notes = {"template": {"matrix": MATRIX}} if registered else {}

    def predict(detector: Any, case: Case, **_: Any) -> Prediction:
        (healthy,) = (other for other in read_cohort(controls) if other.name == case.name)
        was, now = (read_volume(one.images["FLAIR"]) for one in (healthy, case))
        brain = read_mask(case.brain).data
        score = ((np.abs(now.data - was.data) > 1e-3) & brain).astype(np.float32) * np.float32(0.8 if sees else 0.0)
        score = np.maximum(score, np.float32(0.7) * brain) if before else score
        return Prediction(brain, score=score, mask=score >= 0.6, threshold=0.6, grid=now.grid, notes=notes)

    return predict


def table(path: Path) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_detector_that_sees_every_lesion_and_one_that_sees_none(
    tiny_detector: Path, controls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {}
    for name, sees in (("all", True), ("none", False)):
        monkeypatch.setattr(blind_spots, "predict_case", oracle(controls, sees=sees, registered=sees))
        outcome = find_blind_spots(tiny_detector, controls, out=tmp_path / name, versions=3, device="cpu")
        assert (outcome.done, outcome.failed) == (["sub-02", "sub-03"], {})  # sub-01 is not healthy
        lesions = table(tmp_path / name / "lesions.tsv")
        assert {lesion["size_ml"] for lesion in lesions} >= {"0.3-1", "1-3", "3-10"}
        for lesion in lesions:
            low, high = map(float, lesion["size_ml"].split("-"))
            assert low <= float(lesion["volume_ml"]) < high
            assert ("x_template_mm" in lesion) == sees
            place = [float(lesion[f"{axis}_mm"]) for axis in "xyz"]
            moved = [float(lesion.get(f"{axis}_template_mm", "nan")) for axis in "xyz"]
            assert not sees or moved == pytest.approx((np.array(MATRIX) @ [*place, 1])[:3], abs=0.15)
            assert lesion.get("coarse_place") == (place_at(np.array(moved)) if sees else None)
        rows = table(tmp_path / name / "recall.tsv")
        shares[name] = {row["recall"] for row in rows}
        assert all(float(row["low"]) <= float(row["recall"]) <= float(row["high"]) for row in rows)
        total = next(row for row in rows if {row[key] for key in ("size_ml", "contrast", "front")} == {"all"})
        assert int(total["lesions"]) == len(lesions)
        by_place = {
            row["coarse_place"]: int(row["lesions"])
            for row in rows
            if row.get("coarse_place", "all") != "all" and row["size_ml"] == "all"
        }
        assert by_place == (Counter(lesion["coarse_place"] for lesion in lesions) if sees else {})
        assert not (tmp_path / name / "work").exists()
        for picture in ("recall.png", "curve.png"):
            assert (tmp_path / name / picture).stat().st_size > 5000
    assert shares == {"all": {"1.0"}, "none": {"0.0"}}
    loud = "THIS DETECTOR WOULD FIND ALMOST NOTHING: 0% found (0 of "
    assert loud in (tmp_path / "none" / "blind-spots.md").read_text()
    assert "By coarse place" not in (tmp_path / "none" / "blind-spots.md").read_text()
    text = (tmp_path / "all" / "blind-spots.md").read_text()
    assert "By coarse place in the template: " in text
    assert "ALMOST" not in text
    assert "at the threshold of the rule best-dice (0.6)" in text
    curve = table(tmp_path / "all" / "curve.tsv")
    assert float(curve[-1]["threshold"]) == pytest.approx(0.999, abs=1e-3)
    assert [row["recall"] for row in curve] == ["1.0", "0.0"]
    assert float(curve[0]["threshold"]) == pytest.approx(float(LEVELS[LEVELS <= 0.8][-1]), abs=1e-6)


@pytest.mark.parametrize("registered", [False, True])
def test_the_worst_places_are_named_by_the_template_where_scans_are_registered(registered: bool) -> None:
    """Nothing is found in the posterior fossa, which is part of a third of the box where there is no template."""
    places = [(20.0, -65.0, -40.0), (20.0, -75.0, 15.0), (26.0, -20.0, 40.0)]
    lesions: list[dict[str, Any]] = [
        {
            "size_ml": "1-3",
            "contrast": "clear",
            "front": "posterior" if y < -47 else "central",
            "height": "lower" if z < 20 else "middle",
            "side": "right",
            "found": place[2] > 0,
            "marked_before": False,
            **({"coarse_place": place_at(np.array(place))} if registered else {}),
        }
        for place in places
        for _ in range(6)
        for _, y, z in [place]
    ]
    said = blind_spot_report._sentences(blind_spot_report.recall_rows(lesions), "a threshold", 0.0, 2, lesions)
    worst = [sentence for sentence in said if sentence.startswith("At this threshold")]
    where, share = ("in the posterior fossa", "0% found (0 of 6)")
    if not registered:
        where, share = "in the posterior lower third", "50% found (6 of 12)"
    assert worst == [f"At this threshold, 1-3 ml lesions {where}: {share}."]


def test_what_was_marked_before_is_not_found(
    tiny_detector: Path, controls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blind_spots, "predict_case", oracle(controls, sees=True, before=True))
    find_blind_spots(tiny_detector, controls, out=tmp_path / "b", versions=1, device="cpu")
    lesions = table(tmp_path / "b" / "lesions.tsv")
    assert {(lesion["found"], lesion["marked_before"]) for lesion in lesions} == {("False", "True")}
    assert "THIS DETECTOR WOULD FIND ALMOST NOTHING" in (tmp_path / "b" / "blind-spots.md").read_text()


def test_continued_and_the_same_whatever_was_kept(
    tiny_detector: Path, controls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real detector: a run that was stopped gives what a run in one piece gives."""
    place = {"versions": 1, "device": "cpu", "seed": 3}
    find_blind_spots(tiny_detector, controls, out=tmp_path / "a", **place)
    count = 0

    def stops(*arguments: Any, **options: Any) -> Prediction:
        nonlocal count
        count += 1
        if count == 4:  # of the first: as it is, with small lesions, with large ones
            raise KeyboardInterrupt
        return predict_case(*arguments, **options)

    monkeypatch.setattr(blind_spots, "predict_case", stops)
    with pytest.raises(KeyboardInterrupt):
        find_blind_spots(tiny_detector, controls, out=tmp_path / "b", **place)
    monkeypatch.setattr(blind_spots, "predict_case", predict_case)
    outcome = find_blind_spots(tiny_detector, controls, out=tmp_path / "b", **place)
    assert (outcome.kept, outcome.done) == (["sub-02"], ["sub-03"])
    for name in ("lesions.tsv", "recall.tsv", "recall.json", "curve.tsv", "blind-spots.md", "cases/sub-03.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    with pytest.raises(ConfigError, match=r"other blind spots in the same place.*seed 3 there and 4 now"):
        find_blind_spots(tiny_detector, controls, out=tmp_path / "b", **place | {"seed": 4})
    record = json.loads((tmp_path / "a" / "cases" / "sub-02.json").read_text())
    case = read_cohort(controls)[0]
    assert record["identities"] == identities([replace(case, images={"FLAIR": case.images["FLAIR"]})], "calibrate")
    curve = curve_of([record])
    lesions = record["lesions"]
    np.testing.assert_array_equal(
        curve.found[:, -1], [lesion["found_at"] >= LEVELS[-1] > lesion["marked_at"] for lesion in lesions]
    )


def test_controls_that_will_not_do(tiny_detector: Path, tiny_cohort: Path, controls: Path, tmp_path: Path) -> None:
    sick = read_cohort(tiny_cohort)[:1]
    write_manifest(sick, tmp_path / "sick.csv")
    with pytest.raises(DataError, match="no healthy case to paint into"):
        find_blind_spots(tiny_detector, tmp_path / "sick.csv", out=tmp_path / "b", device="cpu")
    shutil.copytree(tiny_detector, tmp_path / "fitted")
    record = dict(bundles.verify(tmp_path / "fitted").record)
    record["identities"] = identities(read_cohort(controls)[:1], "fit")
    bundles.write_record(tmp_path / "fitted", record)
    with pytest.raises(LeakageError, match=r"sub-02.*role fit"):
        find_blind_spots(tmp_path / "fitted", controls, out=tmp_path / "c", device="cpu")
    labelled = {"labelled": tmp_path / "fitted.csv", "out": tmp_path / "e", "device": "cpu", "versions": 1}
    write_manifest(sick, tmp_path / "fitted.csv")
    scan = read_cohort(controls)[0].images["FLAIR"]
    record["identities"] = identities(sick, "calibrate")
    bundles.write_record(tmp_path / "fitted", record)
    with pytest.raises(LeakageError, match=r"sub-01.*role calibrate"):  # else its recall would be no honest figure
        find_blind_spots(tmp_path / "fitted", controls, **labelled)
    with pytest.raises(DataError, match="no labelled case"):
        find_blind_spots(tiny_detector, controls, **labelled | {"labelled": scan, "out": tmp_path / "f"})
    with pytest.raises(ConfigError, match="uncalibrated rule"):
        find_blind_spots(tiny_detector, controls, out=tmp_path / "d", rule="expected-dice", device="cpu")


def test_real_lesions_are_said_beside_and_chose_nothing(
    tiny_detector: Path, tiny_cohort: Path, controls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the verb: of a lesion of two, by a detector that marks the place of the first at .8."""
    first = read_cohort(tiny_cohort)[0]
    truth = read_mask(first.lesion).data
    seen = oracle(controls, sees=True)
    calls: list[str] = []

    def predict(detector: Any, case: Case, **options: Any) -> Prediction:
        if case.health == "healthy":
            return seen(detector, case, **options)
        calls.append(case.name)
        brain = read_mask(case.brain)
        score = np.where(truth & brain.data, np.float32(0.8), np.float32(0.0))
        return Prediction(brain.data, score=score, mask=score >= 0.6, threshold=0.6, grid=brain.grid)

    monkeypatch.setattr(blind_spots, "predict_case", predict)
    monkeypatch.setattr(real_lesions, "predict_case", predict)
    write_manifest([first], tmp_path / "labelled.csv")
    arguments = ["blind-spots", tiny_detector, controls, "--out", tmp_path / "b", "--versions", 1, "--device", "cpu"]
    plain = CliRunner().invoke(app, [str(part) for part in arguments])
    assert plain.exit_code == 0, plain.output
    assert "real lesions" not in plain.stdout
    for _ in range(2):
        result = CliRunner().invoke(app, [str(part) for part in [*arguments, "--labelled", tmp_path / "labelled.csv"]])
        assert result.exit_code == 0, result.output
        assert "2 kept, 0 failed" in result.stdout
        said = next(line for line in result.stdout.splitlines() if line.startswith("Found of the real lesions"))
        volume = truth.sum() * 0.2
        assert f"of 1 labelled cases, which chose no threshold: {real_lesions.size_of(volume)} ml 100% (1 of 1)" in said
    assert calls == ["sub-01"]  # kept
    _, text = choose_operating_point(tiny_detector, tmp_path / "b", out=tmp_path / "n", false_lesions=0)
    assert said in text
    assert [real_lesions.size_of(ml) for ml in (0.1, 0.29, 0.3, 9.9, 100.0)] == [
        *("0.1-0.3", "0.1-0.3", "0.3-1", "3-10", "over 100")
    ]


def test_each_lesion_is_judged_as_if_it_were_the_only_one(tmp_path: Path) -> None:
    """By a threshold that falls the more there is to find: with both lesions it would be low enough for the faint."""

    class Thresholds:
        def mask(self, part: str, score: np.ndarray, brain: np.ndarray, *_: Any) -> tuple[np.ndarray, float]:
            threshold = 1.0 - 0.7 * float((score[brain] > 0.3).mean() > 0.1)
            return score >= threshold, threshold

    class Fake:
        thresholds = Thresholds()

    brain, clean, score = np.ones((30, 20, 10), bool), np.zeros((30, 20, 10), np.float32), np.zeros((30, 20, 10))
    faint, strong = np.zeros(brain.shape, bool), np.zeros(brain.shape, bool)
    faint[2:5, 5:9, 3:6], strong[15:28, 2:18, 1:9] = True, True
    clean[2, 2, 2] = 0.2
    score[faint], score[strong] = 0.4, 0.5
    grid = VolumeGrid.make(brain.shape, np.eye(4))
    trial = blind_spots._Trial(None, Fake(), None, 1, 0, tmp_path)
    after, before = (Prediction(brain, score=values, grid=grid) for values in (score, clean))
    alone = list(trial._alone(after, before, [faint, strong]))
    assert Thresholds().mask("score", score, brain)[0][faint].all()
    assert not alone[0].any()
    np.testing.assert_array_equal(alone[1], strong)
    assert list(trial._alone(after, before, [])) == []


def test_beside_the_lesions_of_patients_for_want_of_healthy_people(
    tiny_detector: Path, tiny_cohort: Path, controls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the verb: painted lesions keep apart from the patient's own, whose contrasts weigh them, and no operating
    point can be chosen from such blind spots."""
    monkeypatch.setattr(blind_spots, "predict_case", oracle(tiny_cohort, sees=True))
    cohort = tmp_path / "patients.csv"
    write_manifest(read_cohort(tiny_cohort)[:2], cohort)
    options = ["--out", tmp_path / "b", "--versions", 2, "--like", cohort, "--device", "cpu"]
    arguments = [str(part) for part in ["blind-spots", tiny_detector, cohort, *options]]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "no healthy case to paint into" in refused.output
    assert "--beside-lesions" in refused.output
    result = CliRunner().invoke(app, [*arguments, "--beside-lesions"])
    assert result.exit_code == 0, result.output
    for case in read_cohort(cohort):
        own = read_mask(case.lesion)
        record = json.loads((tmp_path / "b" / "cases" / f"{case.name}.json").read_text())
        away = ndimage.distance_transform_edt(~own.data, sampling=np.abs(np.diag(own.grid.affine))[:3])
        assert record["lesions"]
        for lesion in record["lesions"]:
            place = np.linalg.inv(own.grid.affine) @ [*(lesion[f"{axis}_mm"] for axis in "xyz"), 1.0]
            assert away[tuple(np.rint(place[:3]).astype(int))] > 5
        look = json.loads((tmp_path / "b" / "like" / f"{case.name}.json").read_text())
        assert [lesion["volume_ml"] for lesion in look["lesions"]] == pytest.approx([own.data.sum() * 0.2])
        assert look["lesions"][0]["to_tissue"] > 0
    compared = table(tmp_path / "b" / "painted-real.tsv")
    assert {row["real"] for row in compared} == {"0"}
    assert {row["painted_recall"] for row in compared if row["of"] == "lesion"} == {"1.0"}
    with pytest.raises(ConfigError, match="blind spots of patients"):
        choose_operating_point(tiny_detector, tmp_path / "b", out=tmp_path / "n", false_lesions=0)


@pytest.mark.parametrize("voxels", [1, 8])
def test_heights_against_every_level(voxels: int) -> None:
    rng = np.random.default_rng(voxels)
    field = ndimage.gaussian_filter(rng.normal(size=(20, 22, 18)), 1.2)
    score = ((field - field.min()) / np.ptp(field)).astype(np.float32)
    brain = np.indices(score.shape).sum(axis=0) > 12
    lesions = [np.zeros(score.shape, bool) for _ in range(3)]
    highest = np.unravel_index(np.where(brain, score, 0).argmax(), score.shape)
    lesions[0][tuple(slice(max(0, place - 2), place + 2) for place in highest)] = True
    lesions[1][3:5, 8:10, 8:10] = lesions[2][:3, :3, :3] = True
    reached, clusters = heights(score, brain, lesions, voxels)
    first = next(k for k, at in enumerate(LEVELS[::-1]) if ((score >= at) & brain).mean() > WIDEST * brain.mean())
    assert len(clusters) == first
    expected = [0.0] * 3
    for index, at in enumerate(LEVELS[::-1][:first]):
        labels, count = ndimage.label((score >= at) & brain, np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        kept = (sizes >= voxels) & (np.arange(count + 1) > 0)
        assert clusters[index] == kept.sum()
        for number, lesion in enumerate(lesions):
            if kept[labels][lesion].mean() >= 0.1 and not expected[number]:
                expected[number] = float(at)
    assert reached == expected
    assert expected[0] > 0 == expected[2]  # the last lies outside the brain


class TestOperatingPoint:
    PEOPLE = 12

    @pytest.fixture
    def folder(self, tiny_detector: Path, tmp_path: Path) -> Path:
        """Blind spots as blind-spots writes them: people whose false lesions fall with the threshold, not evenly."""
        digest = bundles.verify(tiny_detector).digest
        (tmp_path / "spots" / "cases").mkdir(parents=True)
        request = {"format": 1, "bundle": digest, "rule": None, "versions": 3, "seed": 0, "cohort": "0"}
        (tmp_path / "spots" / "request.json").write_text(json.dumps(request))
        rng = np.random.default_rng(0)
        for person in range(self.PEOPLE):
            peaks = np.sort(rng.beta(2, 5, 6))
            false = [int((peaks >= level).sum()) for level in LEVELS[::-1][: 130 + person]]
            lesions = [
                {"size_ml": size, "found_at": float(rng.beta(3 + number, 4)), "marked_at": float(rng.beta(1, 20))}
                for number, size in enumerate(("0.1-0.3", "0.3-1", "1-3", "3-10"))
                for _ in range(3)
            ]
            record = {"case": f"sub-{person}", "person": ["d", str(person)], "false": false, "peak": float(peaks[-1])}
            record |= {"lesions": lesions, "identities": {f"{person:064d}": "calibrate"}}
            (tmp_path / "spots" / "cases" / f"sub-{person:02d}.json").write_text(json.dumps(record))
        return tmp_path / "spots"

    def records(self, folder: Path) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((folder / "cases").iterdir())]

    def lowest(self, records: list[dict[str, Any]], limit: float) -> float:
        """By the definition: from the top down as long as the mean keeps to the limit."""
        at = 1.0
        for index in range(130):
            if np.mean([record["false"][index] for record in records]) > limit:
                break
            at = float(LEVELS[::-1][index])
        return at

    def test_the_threshold_the_curve_and_the_honest_figure(
        self, tiny_detector: Path, folder: Path, tmp_path: Path
    ) -> None:
        new, text = choose_operating_point(tiny_detector, folder, out=tmp_path / "b", false_lesions=0.5)
        records = self.records(folder)
        at = self.lowest(records, 0.5)
        assert new.thresholds.default == "operating-point"
        assert new.thresholds.of("score") == Sized(pytest.approx(at), 0.1, "lesion")
        entry = new.record["thresholds"]["rules"]["operating-point"]
        index = int(np.flatnonzero(LEVELS[::-1] == np.float32(at))[0])
        assert entry["reached"]["score"] == pytest.approx(np.mean([record["false"][index] for record in records]))
        assert entry["reached"]["score"] <= 0.5
        lesions = [lesion for record in records for lesion in record["lesions"]]
        found = [lesion["found_at"] >= at > lesion["marked_at"] for lesion in lesions]
        assert entry["painted_recall"][""] == pytest.approx(np.mean(found))
        large = [hit for hit, lesion in zip(found, lesions, strict=True) if lesion["size_ml"] == "3-10"]
        assert entry["painted_recall"]["3-10"] == pytest.approx(np.mean(large))
        false, hits = [], []
        for person, record in enumerate(records):
            others = records[:person] + records[person + 1 :]
            fold = self.lowest(others, 0.5)
            false.append(record["false"][int(np.flatnonzero(LEVELS[::-1] == np.float32(fold))[0])])
            hits += [lesion["found_at"] >= fold > lesion["marked_at"] for lesion in record["lesions"]]
        assert entry["cross_fitted"]["false_lesions"] == pytest.approx(np.mean(false))
        assert entry["cross_fitted"][""] == pytest.approx(np.mean(hits))
        assert "<- chosen" in text
        assert "cross-fit" in text
        assert "evaluate" in text
        assert entry["controls"]["peaks"]["score"] == sorted((r["peak"] for r in records), reverse=True)
        # What was chosen on counts as used, and the rules of before stay.
        assert {f"{person:064d}" for person in range(self.PEOPLE)} <= set(new.used)
        assert "best-dice" in new.thresholds.values

    def test_the_verb_and_requests_that_cannot_be_met(
        self, tiny_detector: Path, folder: Path, tmp_path: Path, tiny_reconstructor: Path
    ) -> None:
        arguments = ["operating-point", str(tiny_detector), str(folder), "--out", str(tmp_path / "b")]
        result = CliRunner().invoke(app, [*arguments, "--false-lesions", "1"])
        assert result.exit_code == 0, result.output
        assert result.stdout.count("<- chosen") == 1
        assert f"in {tmp_path / 'b'}" in result.stdout
        again = CliRunner().invoke(app, [*arguments, "--false-lesions", "1"])
        assert again.stdout == result.stdout
        assert CliRunner().invoke(app, [*arguments, "--false-lesions", "2"]).exit_code == 2
        with pytest.raises(ConfigError, match="blind spots of another bundle"):
            choose_operating_point(tiny_reconstructor, folder, out=tmp_path / "c", false_lesions=1)
        with pytest.raises(ConfigError, match="a number of false lesions"):
            choose_operating_point(tiny_detector, folder, out=tmp_path / "c", false_lesions=-1)
        with pytest.raises(DataError, match="no blind spots"):
            choose_operating_point(tiny_detector, tmp_path / "b", out=tmp_path / "c", false_lesions=1)
        for record in self.records(folder):
            path = folder / "cases" / f"sub-{int(record['person'][1]):02d}.json"
            path.write_text(json.dumps(record | {"false": [3 for _ in record["false"]]}))
        with pytest.raises(DataError, match=r"no threshold with so few false lesions.*got 3 at 0.999, expected 2"):
            choose_operating_point(tiny_detector, folder, out=tmp_path / "c", false_lesions=2)
