"""The demo: what it must show, and a whole one on a few coarse phantoms, run twice."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from tiny import DETECTOR, RECONSTRUCTOR

from hybriduad.config import files as configs
from hybriduad.demo.chain import ALARM_ML, LEAST_DICE, PLAN, SUMMARY, DemoError, Plan, run_demo, shortcomings
from hybriduad.demo.report import TELL, Count, Healthy, Outcome, Patient, Spent, summary
from hybriduad.evaluation.figures import Figure


def figure(value: float) -> Figure:
    return Figure("", "score", "auprc", "mean over subjects", value, value - 0.1, value + 0.1, 6, 6, 2000, 0)


def outcome(
    score: float = 0.8,
    intensity: float = 0.3,
    map: float = 0.5,
    masks: tuple[float, ...] = (0, 0),
    dice: float = 0.6,
    dices: tuple[float, ...] = (0.7, 0.5),
) -> Outcome:
    values = {"score": score, "probability": 0.7, "map": map, "intensity": intensity, "asymmetry": 0.2}
    return Outcome(
        figures={system: figure(value) for system, value in values.items()},
        dice=dict.fromkeys(values, figure(dice)),
        patients=[Patient(f"sub-p{n}", 10.0 + n, value, value > 0) for n, value in enumerate(dices)],
        healthy=[Healthy(f"sub-h{n}", ml) for n, ml in enumerate(masks)],
        alarm_ml=ALARM_ML,
    )


def test_a_good_outcome_has_no_shortcoming() -> None:
    assert shortcomings(outcome(masks=(0.0, ALARM_ML, 5.0))) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (outcome(score=0.3), "plain intensity"),  # equal is not above
        (outcome(map=0.9), "reconstruction alone"),
        (outcome(score=float("nan")), "plain intensity"),
        (outcome(intensity=float("nan")), "plain intensity"),
        (outcome(masks=(1.1, 1.1, 0, 0, 0, 0)), "2 of 6 healthy"),
        (outcome(dice=LEAST_DICE - 0.01), "mean Dice of the mask 0.440 is under"),
        (outcome(dice=float("nan")), "mean Dice of the mask nan"),
    ],
)
def test_each_shortcoming_is_told(bad: Outcome, words: str) -> None:
    sentences = shortcomings(bad)
    assert words in " ".join(sentences)


def test_the_summary_tells_of_a_shortcoming(tmp_path: Path) -> None:
    spent = dict.fromkeys(TELL, Spent(1.0, 2.0))
    bad = outcome(score=0.1, masks=(2.0,))
    text = summary(tmp_path, PLAN.splits, bad, shortcomings(bad), spent, "AVX2, float32")
    assert "It fell short: AUPRC of the fused score 0.100 is not above" in text
    assert "1 of 1 have an alarm" in text
    assert "| all | on AVX2, float32 | 8 | 16 |" in text
    assert "It fell short" not in summary(tmp_path, PLAN.splits, outcome(), [], spent, "AVX2, float32")


def test_one_sentence_says_what_was_found_and_what_was_missed() -> None:
    assert outcome(dices=(0.7, 0.0, 0.5), masks=(2.0, 0.0)).sentence() == (
        "Of 3 new patients the mask finds the tumour of 2 (Dice from 0.00, sub-p1, to 0.70, sub-p0) and misses "
        "sub-p1 (11.0 ml); 1 of 2 healthy brains have an alarm."
    )
    assert "misses none;" in outcome().sentence()


def test_the_shipped_plan() -> None:
    assert PLAN.test == (6, 6)
    reconstructor, detector, few = (configs.load(name) for name in (PLAN.reconstructor, PLAN.detector, PLAN.few))
    assert reconstructor.kind == "reconstructor"
    assert reconstructor.mix.labelled == detector.mix.labelled == 0
    assert few.mix.labelled > 0


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("configs")
    few = {name: value for name, value in DETECTOR.items() if name != "segmenter"} | {"mix": {"labelled": 1.0}}
    few["fusion"] = {"form": "product", "weight": 0.5, "floor": 0.05, "intensity": 1.0}  # two steps rank no lesion
    for name, run in (("reconstructor", RECONSTRUCTOR), ("detector", DETECTOR), ("few", few)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(run))
    return Plan(
        train=Count(2, 1),
        validation=Count(1, 1),
        test=Count(2, 2),
        spacing_mm=(5.0, 5.0, 8.0),
        reconstructor=str(folder / "reconstructor.yaml"),
        detector=str(folder / "detector.yaml"),
        few=str(folder / "few.yaml"),
    )


def run(out: Path, plan: Plan) -> list[str]:
    """Run a demo; what fell short, since two steps of training promise nothing."""
    try:
        assert run_demo(out, plan=plan, device="cpu") == out / SUMMARY
    except DemoError as error:
        return [str(error)]
    return []


def test_whole_demo_twice(tmp_path: Path, plan: Plan) -> None:
    out = tmp_path / "demo"
    failures = run(out, plan)
    text = (out / SUMMARY).read_text()
    assert ("It fell short" in text) == bool(failures)
    with (out / "cohort.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert Counter((row["split"], row["health"]) for row in rows) == {
        ("train", "healthy"): 2,
        ("train", "lesion"): 1,
        ("validation", "healthy"): 1,
        ("validation", "lesion"): 1,
        ("test", "healthy"): 2,
        ("test", "lesion"): 2,
    }
    assert len({row["subject"] for row in rows}) == len(rows)
    record = json.loads((out / "detector" / "bundle.json").read_text())
    assert record["thresholds"]["default"] == "expected-dice"
    assert record["training"]["labelled_cases"] == 1
    assert len(list((out / "predictions").rglob("*_desc-anomaly_probseg.nii.gz"))) == 4
    assert (out / "overview.png").stat().st_size > 10_000
    kept = [out / name / "bundle.json" for name in ("reconstructor", "detector-synthetic", "detector-few", "detector")]
    kept += list((out / "predictions").rglob("*.nii.gz"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert run(out, plan) == failures
    assert (out / SUMMARY).read_text() == text
    assert {path: path.stat().st_mtime_ns for path in kept} == before
