"""A whole benchmark on tiny networks: what is shared is made once, what is done is kept, what fails is named."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import DETECTOR, RECONSTRUCTOR

from hybriduad.benchmark import run as running
from hybriduad.benchmark import tables
from hybriduad.benchmark.figures import Entry
from hybriduad.benchmark.plan import Fit, Row, rows_of
from hybriduad.benchmark.results import read_result
from hybriduad.benchmark.run import Bench, Outcome, run_benchmark
from hybriduad.config import files as configs
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.evaluation.figures import MEAN
from hybriduad.phantom.cohort import write_cohort

STEPS = {"steps": 1, "lr": 1.0e-3, "batch": 2}
FEW = {
    "kind": "detector",
    "mix": {"healthy": 1.0, "synthetic": 1.0, "labelled": 1.0},
    "anomalies": [{"name": "perlin"}],
    "train": STEPS,
}


def phantoms(pathology: str, seed: int) -> dict:
    spacing = [6.0, 6.0, 10.0]
    return {"phantoms": {"pathology": pathology, "subjects": 9, "spacing_mm": spacing, "seed": seed}}


def config_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("stage1", RECONSTRUCTOR | {"train": STEPS}),
        ("stage2", DETECTOR | {"train": STEPS}),
        ("few", FEW),
    ):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    stage1, stage2, few = ({"config": str(folder / f"{name}.yaml")} for name in ("stage1", "stage2", "few"))
    content = {
        "kind": "benchmark",
        "cohorts": {"glioma": phantoms("glioma", 1), "stroke": phantoms("stroke", 2), "named": {}},
        "tables": {"glioma": ["glioma", "stroke"], "named": ["glioma", "stroke"]},
        "reference": "fused",
        "rule": "best-dice",
        "systems": {
            "intensity": {"reconstructor": stage1, "part": "intensity"},
            "asymmetry": {"reconstructor": stage1, "part": "asymmetry"},
            "map": {"reconstructor": stage1, "part": "map"},
            "fused": {"reconstructor": stage1, "detector": [stage2]},
            "UNet": {"reconstructor": stage1, "detector": [stage2], "part": "probability", "against": "map"},
            "two labels": {"reconstructor": stage1, "detector": [stage2, few | {"limit": 2}]},
            "too many labels": {"reconstructor": stage1, "detector": [stage2, few | {"limit": 99}]},
        },
    }
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The config, and the outcome of its first fold."""
    folder = tmp_path_factory.mktemp("benchmark")
    config = config_in(folder / "configs")
    return config, run_benchmark(config, out=folder / "out", folds=[1], device="cpu")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_every_system_is_there_and_says_what_became_of_it(finished: tuple[Path, Outcome]) -> None:
    _, outcome = finished
    assert not outcome.failed
    short = [title for title in outcome.not_run if "only" in title]
    assert len(short) == 3 * 2
    assert short[0] == "too many labels, glioma -> glioma, fold 1, seed 0: only 5 labelled patients"
    # All but six systems of the two tables of the phantoms in the first fold.
    assert len(outcome.not_run) == 7 * 4 * 3 - 6 * 2
    text = (outcome.out / "table.md").read_text()
    _, seen, other, named, *_ = text.split("## ")
    assert seen.startswith("Trained on glioma, tested on glioma")
    assert other.startswith("Trained on glioma, tested on stroke")
    assert "| fused | 0." in seen
    assert "| too many labels | not run: only 5 labelled patients | not run |" in seen
    assert seen.count("| 3 | 1 of 3 |") == 6
    assert named.count("not run") == 7 * 2
    values = rows(outcome.out / "table.csv")
    assert {row["system"] for row in values} == {"intensity", "asymmetry", "map", "fused", "UNet", "two labels"}
    assert all(0 <= float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in values if row["low"])
    assert (outcome.out / "auprc.png").is_file()
    assert (outcome.out / "auprc_by_operations.png").is_file()
    links = re.findall(r"\]\((pictures/[^)]+)\)", seen)
    assert all((outcome.out / link).is_file() for link in links)
    assert {Path(link).name for link in links} >= {
        "best.png",
        "map-best.png",
        "intensity-worst.png",
        "probability-median.png",
    }
    assert r"two labels & 0." in (outcome.out / "table.tex").read_text()


def test_what_rows_share_is_trained_once(finished: tuple[Path, Outcome]) -> None:
    _, outcome = finished
    models = [path for path in (outcome.out / "models").iterdir() if (path / "bundle.json").is_file()]
    assert len([path for path in models if "best-dice" not in path.name]) == 3
    calibrated = [
        path for path in models if path.name.endswith("-best-dice-false-positives-false-positive-ml-0.1-per-slice")
    ]
    assert len(calibrated) == 3
    assert len(outcome.done) == 6  # map and baselines, fused and UNet, two labels; on two cohorts
    assert len(list((outcome.out / "results").iterdir())) == 6
    assert not list((outcome.out / "work").iterdir())


def test_differences_are_from_the_reference_and_corrected(finished: tuple[Path, Outcome]) -> None:
    _, outcome = finished
    differences = [row for row in rows(outcome.out / "differences.csv") if row["tested_on"] == "glioma"]
    compared = {row["system"]: row["reference"] for row in differences}
    assert compared == dict.fromkeys(["intensity", "asymmetry", "map", "two labels"], "fused") | {"UNet": "map"}
    assert all(float(row["p"]) <= float(row["p_holm"]) <= 1 for row in differences)
    table = [row for row in rows(outcome.out / "table.csv") if row["tested_on"] == "glioma"]
    means = {row["system"]: float(row["value"]) for row in table if row["figure"] == "auprc" and "mean" in row["how"]}
    for row in differences:
        if row["figure"] == "auprc":
            assert float(row["value"]) == pytest.approx(means[row["system"]] - means[row["reference"]], abs=1e-5)


def test_rows_of_different_folds_have_no_difference(
    finished: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a benchmark runs: so far one row stands under the first fold, another under the second."""
    run = configs.load(finished[0], [], kind="benchmark")
    here = [row for row in rows_of(run) if (row.trained_on, row.tested_on) == ("glioma", "glioma")]
    chosen = {row: [Entry(1, ())] for row in here}
    monkeypatch.setattr(tables, "subject_figures", lambda row, done, name: {("set", row.system): 0.5})
    assert tables._differences(run, chosen) == []
    monkeypatch.setattr(tables, "subject_figures", lambda row, done, name: {("set", str(n)): 0.5 for n in range(3)})
    assert tables._differences(run, chosen)


def test_a_difference_is_over_the_folds_that_both_rows_have(
    finished: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole cohort every fold has all subjects, and some folds are better than others."""
    run = configs.load(finished[0], [], kind="benchmark")
    here = [row for row in rows_of(run) if (row.trained_on, row.tested_on) == ("glioma", "stroke")]
    chosen = {row: [Entry(fold, ()) for fold in ((1, 2, 3) if row.system == "fused" else (1,))] for row in here}

    def by_fold(row: Row, done: Sequence[Entry], name: str) -> dict[tuple[str, str], float]:
        return {("set", str(n)): float(np.mean([entry.fold for entry in done])) for n in range(3)}

    monkeypatch.setattr(tables, "subject_figures", by_fold)
    differences = tables._differences(run, chosen)
    assert {difference.interval.value for difference in differences} == {0.0}


def test_results_are_continued_from_without_models(
    finished: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, outcome = finished
    shutil.copytree(outcome.out / "results", tmp_path / "out" / "results")
    shutil.copytree(outcome.out / "phantoms", tmp_path / "out" / "phantoms")

    monkeypatch.setattr(running, "_fitted", lambda *_: pytest.fail("trained again"))
    again = run_benchmark(config, out=tmp_path / "out", folds=[1], device="cpu")
    assert not again.done
    assert sorted(again.kept) == sorted(outcome.done)
    assert (again.out / "table.csv").read_text() == (outcome.out / "table.csv").read_text()


def test_a_result_says_how_a_case_was_judged_and_how_its_trainings_went(finished: tuple[Path, Outcome]) -> None:
    _, outcome = finished
    for path in (outcome.out / "results").iterdir():
        result = read_result(path)
        assert all(len(case.truth) == len(case.region) == 16 for case in result.cases)
        assert {case.brain for case in result.cases} == {"given mask"}
        stages = [stage for stage, _ in result.curves]
        assert stages in (["reconstructor"], ["reconstructor", "detector"], ["reconstructor", "detector", "detector"])
        assert all(set(curve) == {1} and 0 < curve[1] < 1 for _, curve in result.curves)
    assert "](validation.png)" in (outcome.out / "table.md").read_text()


def test_what_is_done_of_other_folds_stays_in_the_tables(
    finished: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, outcome = finished
    shutil.copytree(outcome.out / "results", tmp_path / "out" / "results")
    shutil.copytree(outcome.out / "phantoms", tmp_path / "out" / "phantoms")

    def refuse(_: Bench, fit: Fit) -> Path:
        assert fit.fold == 2
        raise ConfigError("no time for the second fold")

    monkeypatch.setattr(running, "_fitted", refuse)
    again = run_benchmark(config, out=tmp_path / "out", folds=[2], device="cpu")
    assert set(again.failed.values()) == {"no time for the second fold."}
    assert sorted(again.kept) == sorted(outcome.done)
    assert (again.out / "table.csv").read_text() == (outcome.out / "table.csv").read_text()


def test_only_the_systems_asked_for_are_run_and_what_is_done_stays(
    finished: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, outcome = finished
    shutil.copytree(outcome.out / "results", tmp_path / "out" / "results")
    shutil.copytree(outcome.out / "phantoms", tmp_path / "out" / "phantoms")

    def refuse(_: Bench, fit: Fit) -> Path:
        assert fit.limit == 2
        raise ConfigError("no time")

    monkeypatch.setattr(running, "_fitted", refuse)
    some = run_benchmark(config, out=tmp_path / "out", folds=[1, 2], systems=["two labels"], device="cpu")
    assert {title.partition(",")[0] for title in some.failed} == {"two labels"}
    assert sorted(some.kept) == sorted(outcome.done)
    nothing = run_benchmark(config, out=tmp_path / "out", folds=[], device="cpu")
    assert not nothing.failed
    assert (nothing.out / "table.csv").read_text() == (outcome.out / "table.csv").read_text()


def test_phantoms_are_made_for_a_table_alone(tmp_path: Path) -> None:
    config = config_in(tmp_path / "configs")
    run_benchmark(config, out=tmp_path / "out", folds=(), overrides=["tables={glioma: [glioma]}"])
    assert [path.name for path in (tmp_path / "out" / running.PHANTOMS).iterdir()] == ["glioma"]


def test_phantoms_of_label_maps_wait_for_the_folder_that_the_user_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def noted(out: Path, *, labelmaps: Path | None, **options: Any) -> Path:
        asked.append(labelmaps)
        return write_cohort(out, **options)

    monkeypatch.setattr(running, "write_cohort", noted)
    config = config_in(tmp_path / "configs")
    changes = ["cohorts.glioma.phantoms.labelmaps=true", "tables={glioma: [glioma, stroke]}"]
    without = run_benchmark(config, out=tmp_path / "out", folds=(), overrides=changes)
    assert not any("glioma" in path.name for path in (without.out / running.COHORTS).iterdir())
    assert len(without.not_run) == 7 * 2 * 3
    assert asked == [None]
    maps = {"glioma": tmp_path / "maps"}
    run_benchmark(config, out=tmp_path / "out", cohorts=maps, folds=(), overrides=changes)
    assert asked[1:] == [tmp_path / "maps", None]
    with pytest.raises(ConfigError, match=r"unknown cohort: got \['glioma'\], expected some of \['named'\]"):
        run_benchmark(config, out=tmp_path / "other", cohorts=maps, folds=())


def test_a_whole_cohort_is_tested_in_every_fold(tmp_path: Path) -> None:
    config, changes = config_in(tmp_path / "configs"), ["tables={glioma: [stroke]}", "cohorts.stroke.whole=true"]
    run_benchmark(config, out=tmp_path / "out", folds=(), overrides=changes)
    for fold in (1, 2, 3):
        trained, tested = (
            [row["split"] for row in rows(tmp_path / "out" / running.COHORTS / f"{name}-fold-{fold}.csv")]
            for name in ("glioma", "stroke")
        )
        assert set(trained) == {"train", "validation", "test"}
        assert tested == ["test"] * 9


def test_a_system_is_compared_with_several_and_each_pair_once(tmp_path: Path) -> None:
    config = config_in(tmp_path / "configs")
    changes = ["systems.map.against=[fused, two labels]", "systems.two labels.against=[map, UNet, asymmetry]"]
    run = configs.load(config, [*changes, "systems.fused.against=intensity"], kind="benchmark")
    assert list(run.pairs()) == [  # in the order of the file
        ("UNet", "map"),
        ("asymmetry", "fused"),
        ("fused", "intensity"),  # which names none, and would be compared with the reference
        ("map", "fused"),
        ("map", "two labels"),
        ("too many labels", "fused"),
        ("two labels", "UNet"),
        ("two labels", "asymmetry"),
    ]


def test_seeds_are_trials_of_a_row() -> None:
    run = configs.load("benchmark-quick", ["seeds=[0, 7]", "folds=2"], kind="benchmark")
    row = next(row for row in rows_of(run) if row.system == "Unet_res (synthetic + 7 labels)")
    assert [(trial.model.fold, trial.model.seed) for trial in row.trials] == [(1, 0), (1, 7), (2, 0), (2, 7)]
    digests = {(name, fold): f"{name} {fold}" for name in run.cohorts for fold in (1, 2)}
    assert len({trial.key(digests) for trial in row.trials}) == 4
    fit = row.trials[1].model
    assert (fit.stage, fit.limit, fit.config) == ("detector", 7, "few-labels")
    assert fit.overrides[-1] == "seed=7"
    assert fit.parent is not None
    assert (fit.parent.stage, fit.parent.limit, fit.parent.config) == ("detector", None, "synthetic")
    assert fit.parent.parent is not None
    assert fit.parent.parent.stage == "reconstructor"
    assert fit.parent.overrides[-1] == fit.parent.parent.overrides[-1] == "seed=7"


def test_a_killed_benchmark_continues(finished: tuple[Path, Outcome], tmp_path: Path) -> None:
    config, outcome = finished
    shutil.copytree(outcome.out, tmp_path / "out")
    lost = sorted((tmp_path / "out" / "results").iterdir())[0]
    before = lost.read_text()
    lost.unlink()
    again = run_benchmark(config, out=tmp_path / "out", folds=[1], device="cpu")
    assert len(again.done) == 1
    assert lost.read_text() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cohorts": {"lgg": "x"}}, "unknown cohort"),
        ({"folds": [4]}, "no such fold"),
        ({"systems": ["fused", "fuse"]}, "no such system.*fuse"),
        ({"overrides": ["cohorts.glioma.phantoms.pathology=flu"]}, "unknown pathology"),
        ({"overrides": ["reference=none of them"]}, "is none of the systems"),
        ({"overrides": ["systems.map.against=nothing"]}, "'nothing'.*is none of the systems"),
        ({"overrides": ["systems.map.against=map"]}, "compared with itself"),
        ({"overrides": ["systems.map.against=[fused, map]"]}, "compared with itself"),
        ({"overrides": ["tables={lgg: [lgg]}"]}, "not among the cohorts"),
        ({"overrides": ["tables={glioma: []}"]}, "without one to test on"),
        ({"overrides": ["cohorts.glioma.whole=true"]}, "'glioma'.*yet to be trained on"),
        ({"overrides": ["systems.map.reconstructor.config=cddpm-smal"]}, "perhaps 'cddpm-small' is meant"),
        ({"overrides": ["systems.map.reconstructor.limit=7"]}, "a reconstructor learns from no mask"),
        ({"overrides": ["systems.map={part: map}"]}, "a system needs a reconstructor, a detector, or both"),
    ],
)
def test_a_bad_request_is_refused_before_anything_is_made(options: dict, sentence: str, tmp_path: Path) -> None:
    config = config_in(tmp_path / "configs")
    with pytest.raises(ConfigError, match=sentence):
        run_benchmark(config, out=tmp_path / "out", device="cpu", **options)
    assert not (tmp_path / "out").exists()


def test_one_dice_is_by_a_rule_that_sees_no_lesion(finished: tuple[Path, Outcome]) -> None:
    _, outcome = finished
    values = {
        (row["system"], row["figure"]): float(row["value"])
        for row in rows(outcome.out / "table.csv")
        if row["tested_on"] == "glioma" and row["how"] == MEAN
    }
    for system in ("fused", "map", "intensity"):
        assert 0 <= values[system, "dice_healthy_rule"] <= values[system, "best_dice"] + 1e-9
    differing = [
        system
        for system, figure in values
        if figure == "dice" and values[system, "dice_healthy_rule"] != values[system, "dice"]
    ]
    assert differing, "another rule, other masks"
    assert "Dice, healthy-only rule" in (outcome.out / "table.md").read_text()


def test_without_a_lesion_free_slice_there_is_no_healthy_only_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def calibrate(model: Path, manifest: Path, *, out: Path, rules: tuple[str, ...], **_: object) -> str:
        asked.append((out.name, rules))
        if len(rules) > 1:
            raise DataError("no lesion-free slice to calibrate on")
        return "bundle"

    monkeypatch.setattr(running, "calibrate", calibrate)
    monkeypatch.setattr(running, "_fitted", lambda *_: tmp_path / "model")
    run = configs.load("benchmark-quick", [], kind="benchmark")
    trial = next(rows_of(run)).trials[0]
    bench = Bench(tmp_path, {("lgg", 1): tmp_path}, {}, {}, (1,), frozenset(), tmp_path, "cpu")
    assert running._calibrated(bench, trial) == "bundle"
    assert asked[1] == ("model-expected-dice", ("expected-dice",))
    assert "no lesion-free slice" in caplog.text
    own = replace(trial, rule="false-positives:false_positive_ml=2")
    assert running._calibrated(bench, own) == "bundle"
    assert asked[2] == ("model-false-positives-false-positive-ml-2", ("false-positives:false_positive_ml=2",))
