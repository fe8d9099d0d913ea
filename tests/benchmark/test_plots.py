"""Figures, tables and plots of made-up results, against scikit-learn and by what is handed to the charts."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import made_entries, voxels
from sklearn.metrics import average_precision_score, roc_auc_score

from hybriduad.benchmark import plots, tables
from hybriduad.benchmark.costs import system_gflops
from hybriduad.benchmark.figures import Entry, TrialCurve, mean_curve, row_figures, trial_curves
from hybriduad.benchmark.pictures import row_pictures
from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.core.charts import Panel
from hybriduad.evaluation.figures import MEAN, POOLED
from hybriduad.metrics import ScoreHistogram

COSTS = {"intensity": 0.0, "map": 2.0, "fused": 8.0, "2 labels": 8.0, "labels": 8.0}


def benchmark(**changes: Any) -> BenchmarkRun:
    stage1, stage2, few = ({"config": name} for name in ("restoration", "synthetic", "few-labels"))
    both = {"reconstructor": stage1, "detector": [stage2]}
    content = {
        "kind": "benchmark",
        "cohorts": {"a": {}},
        "tables": {"a": ["a"]},
        "folds": 2,
        "reference": "fused",
        "systems": {
            "intensity": {"reconstructor": stage1, "part": "intensity"},
            "map": {"reconstructor": stage1, "part": "map"},
            "fused": both,
            "labels": both | {"detector": [stage2, few]},
            "2 labels": both | {"detector": [stage2, few | {"limit": 2}]},
        },
    }
    return BenchmarkRun.model_validate(content | changes)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[list[Panel], dict[str, Any]]]:
    """File -> the panels and options that were handed over to be drawn."""
    handed: dict[str, tuple[list[Panel], dict[str, Any]]] = {}
    monkeypatch.setattr(plots, "charts", lambda path, panels, **options: handed.update({path.name: (panels, options)}))
    return handed


def all_voxels(system: int, folds: tuple[int, ...] = (1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth of all ill people of both folds."""
    pairs = [voxels(system, fold, person, ill=True) for fold in folds for person in range(2, 6)]
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def pooled_by_fold(system: int) -> float:
    """The mean over the folds, which have four ill people each, of the AUPRC over all voxels of a fold."""
    return float(np.mean([average_precision_score(*all_voxels(system, (fold,))[::-1]) for fold in (1, 2)]))


def test_figures_of_a_row_agree_with_scikit_learn() -> None:
    run = benchmark()
    for number, (row, done) in enumerate(made_entries(run).items()):
        figures = row_figures(row, done)
        scores, truth = all_voxels(number)
        assert figures["auprc", POOLED].value == pytest.approx(pooled_by_fold(number), abs=0.005)
        mask = scores >= 0.5
        assert figures["dice", POOLED].value == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
        assert figures["lesion_recall", POOLED].value == figures["lesion_recall_under_1ml", POOLED].value == 0.25
        assert figures["lesion_precision", POOLED].value == 0.5
        assert figures["auprc", MEAN].subjects == figures["dice", POOLED].subjects == 8
        ranked = []
        for fold in (1, 2):
            people = [np.sort(voxels(number, fold, person, ill=person > 1)[0])[-5] for person in range(6)]
            ranked.append(roc_auc_score([0, 0, 1, 1, 1, 1], people))
        assert figures["scan_auroc", POOLED].value == pytest.approx(np.mean(ranked))
        assert (("ssim_healthy", MEAN) in figures) == (row.part in ("map", "score"))
        assert ("lesion_f1", MEAN) not in figures, "no subject has it"


def test_models_trained_apart_share_no_scale() -> None:
    """Of two folds alike one model scores far lower: neither the pooled AUPRC nor the curve may depend on that."""
    run = benchmark()
    row, (first, second) = next((row, done) for row, done in made_entries(run).items() if row.system == "fused")
    first = first._replace(cases=first.cases[:4])  # of its four ill people two
    figures, curve = row_figures(row, [first, second]), mean_curve(trial_curves(row, [first, second]))
    bins = [case.histograms["score"].to_arrays() for case in second.cases]
    lowest = min(int(arrays["keys"].min()) for arrays in bins)
    lower = [ScoreHistogram.from_arrays(arrays | {"keys": arrays["keys"] - lowest}) for arrays in bins]
    quiet = [replace(case, histograms={"score": low}) for case, low in zip(second.cases, lower, strict=True)]
    lowered = [first, second._replace(cases=tuple(quiet))]
    assert row_figures(row, lowered)["auprc", POOLED].value == figures["auprc", POOLED].value
    np.testing.assert_array_equal(mean_curve(trial_curves(row, lowered)), curve)
    alone = [row_figures(row, [entry])["auprc", POOLED].value for entry in (first, second)]
    assert figures["auprc", POOLED].value == pytest.approx((2 * alone[0] + 4 * alone[1]) / 6), "by subjects"
    assert np.trapezoid(curve[1], curve[0]) == pytest.approx((2 * alone[0] + 4 * alone[1]) / 6, abs=0.01)


def test_the_ill_without_a_lesion_to_be_found_are_not_ranked_as_healthy() -> None:
    run = benchmark()
    row, (first, *_) = next(iter(made_entries(run).items()))
    well, rest = first.cases[0], first.cases[1:]
    loud = replace(well, parts={row.part: {**well.parts[row.part], "scan_score": 1.0}})
    ranked = [row_figures(row, [Entry(1, cases)])["scan_auroc", POOLED].value for cases in (rest, (loud, *rest))]
    assert ranked[1] < ranked[0]
    aside = Entry(1, (replace(loud, set_aside=True), *rest))
    assert row_figures(row, [aside])["scan_auroc", POOLED].value == ranked[0]


def test_a_curve_ends_where_all_lesions_are_found() -> None:
    """Not at the share of lesion in the brain, which is where the lowest scores of healthy tissue would draw it."""
    curve = TrialCurve(np.array([0.0, 0.5, 1.0, 1.0]), np.array([1.0, 1.0, 0.8, 0.1]), 3)
    recall, precision = mean_curve([curve, curve._replace(precision=curve.precision / 2, subjects=1)])
    assert (recall[0], recall[-1], len(recall)) == (0, 1, 101)
    assert precision[[0, 50, 100]] == pytest.approx([0.875, 0.875, 0.7])
    assert [len(values) for values in mean_curve([])] == [0, 0]


def test_results_from_before_have_no_curve_and_no_rank_of_scans() -> None:
    run = benchmark()
    row, (entry, *_) = next(iter(made_entries(run).items()))
    old = []
    for case in entry.cases:
        figures = {name: value for name, value in case.parts[row.part].items() if name != "scan_score"}
        old.append(replace(case, parts={row.part: figures}, histograms={}))
    figures = row_figures(row, [Entry(1, tuple(old))])
    assert ("auprc", MEAN) in figures
    assert not {("auprc", POOLED), ("scan_auroc", POOLED)} & figures.keys()


def test_the_tables_hold_every_figure_once(tmp_path: Path, drawn: Mapping[str, Any]) -> None:
    run = benchmark()
    entries = made_entries(run)
    tables.write_tables(tmp_path, run, entries, COSTS)
    text = (tmp_path / "table.md").read_text()
    main, differences, rest, *_ = (block for block in text.split("\n\n") if block.startswith("|"))
    assert main.splitlines()[0].startswith("| system | AUPRC | Dice | [Dice]")
    assert differences.startswith("| difference |")
    heads = [head.strip() for head in rest.splitlines()[0].strip("|").split("|")]
    assert heads == [
        "system",
        "AUPRC pooled",
        "Dice pooled",
        "HD95, mm",
        "recall < 1 ml",
        "precision < 1 ml",
        "F1 < 1 ml",
        "AUROC of scans",
        "SSIM, healthy tissue",
        "L1 in lesions / healthy",
        "error in lesions / healthy",
    ]
    assert main.count("| 8 of 12 | 2 of 2 |") == 5, "AUPRC and Dice are of the ill alone"
    assert "intervals, but for the pooled AUPRC, are in table.csv" in text
    fused = next(line for line in rest.splitlines() if line.startswith("| fused |"))
    assert "| 8.000 (8) | 0.250 | 0.500 | 0.333 |" in fused
    assert "| 0.750 | 2.500 | 1.250 |" in fused
    assert rest.count("| – | – |") == 1, "plain intensity has no pseudo-healthy scan"
    for name in ("auprc", "precision_recall", "dice_by_volume", "label_efficiency", "auprc_by_operations"):
        assert f"({name}.png)" in text
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    keys = [(row["system"], row["figure"], row["how"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert ("map", "auprc", "pooled") in keys


def test_curves_of_precision_are_pooled_in_a_trial_and_ordered_as_the_systems_are(
    tmp_path: Path, drawn: dict[str, tuple[list[Panel], dict[str, Any]]]
) -> None:
    run = benchmark()
    tables.write_tables(tmp_path, run, made_entries(run), COSTS)
    (panel,), options = drawn["precision_recall.png"]
    assert panel.title == "a → a"
    assert [series.name for series in panel.series] == list(run.systems) == options["names"]
    for number, series in enumerate(panel.series):
        assert np.trapezoid(series.y, series.x) == pytest.approx(pooled_by_fold(number), abs=0.01)
        assert len(series.x) == len(series.y) == 101


def test_dice_by_volume_is_over_groups_of_equal_size(
    tmp_path: Path, drawn: dict[str, tuple[list[Panel], dict[str, Any]]]
) -> None:
    run = benchmark()
    entries = made_entries(run)
    tables.write_tables(tmp_path, run, entries, COSTS)
    (panel,), _ = drawn["dice_by_volume.png"]
    for series, (row, done) in zip(panel.series, entries.items(), strict=True):
        cases = [case for entry in done for case in entry.cases if case.has_lesion]
        # Eight people are two groups of four: the smallest first.
        ranked = sorted(cases, key=lambda case: case.facts["lesion_ml"])
        for x, y, group in zip(series.x, series.y, (ranked[:4], ranked[4:]), strict=True):
            assert x == pytest.approx(np.median([case.facts["lesion_ml"] for case in group]))
            assert y == pytest.approx(np.mean([case.parts[row.part]["dice"] for case in group]))
    assert plots.volume_groups([5.0, 1.0, 9.0, 2.0, 7.0, 3.0]).tolist() == [1, 0, 1, 0, 1, 0]
    assert plots.volume_groups([5.0]).tolist() == [0]
    assert np.bincount(plots.volume_groups(np.arange(50.0).tolist())).tolist() == [13, 12, 13, 12]


def test_systems_that_differ_in_their_labels_alone_are_a_family(
    tmp_path: Path, drawn: dict[str, tuple[list[Panel], dict[str, Any]]]
) -> None:
    run = benchmark()
    assert list(plots.label_families(run)) == [{0: "fused", 2: "2 labels", None: "labels"}]
    systems = dict(run.systems)
    other = systems["labels"].model_copy(update={"part": "probability"})
    assert list(plots.label_families(run.model_copy(update={"systems": {"fused": systems["fused"], "x": other}}))) == []
    entries = made_entries(run)
    tables.write_tables(tmp_path, run, entries, COSTS)
    (panel,), options = drawn["label_efficiency.png"]
    (series,) = panel.series
    assert (series.name, list(series.x)) == ("fused", [0.0, 1.0, 2.0])
    assert options["ticks"] == {0.0: "0", 1.0: "2", 2.0: "all"}
    means = {row.system: row_figures(row, done)["auprc", MEAN] for row, done in entries.items()}
    assert list(series.y) == [means[name].value for name in ("fused", "2 labels", "labels")]
    assert list(series.high) == [means[name].high for name in ("fused", "2 labels", "labels")]


def test_what_runs_no_network_is_a_level_across_the_plot_of_operations(
    tmp_path: Path, drawn: dict[str, tuple[list[Panel], dict[str, Any]]]
) -> None:
    run = benchmark()
    tables.write_tables(tmp_path, run, made_entries(run), {name: COSTS[name] for name in ("intensity", "map")})
    (panel,), options = drawn["auprc_by_operations.png"]
    assert [(series.name, list(series.x)) for series in panel.series] == [("intensity", []), ("map", [2.0])]
    assert options["logarithmic"]


def test_operations_of_systems_and_one_that_cannot_be_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = benchmark(common={"reconstructor": ["model.repeats=2"], "detector": ["mirror=false"]})
    seen = []

    def count(part: str, reconstructor: Any, detector: Any, *, mirror: bool) -> float:
        seen.append((part, reconstructor.model.repeats, detector is not None, mirror))
        if part == "map":
            raise ValueError("no such network")
        return float(len(seen))

    monkeypatch.setattr("hybriduad.benchmark.costs.count_slice_gflops", count)
    assert system_gflops(run) == {"intensity": 1.0, "fused": 3.0, "labels": 4.0, "2 labels": 5.0}
    assert seen == [
        ("intensity", 2, False, True),
        ("map", 2, False, True),
        ("score", 2, True, False),
        ("score", 2, True, False),
        ("score", 2, True, False),
    ]
    assert "operations of map not counted" in caplog.text
    assert configs.load("synthetic", [], kind="detector").mirror


def test_pictures_of_a_row_are_the_best_and_the_worst_of_all_its_trials(
    tmp_path: Path, drawn: Mapping[str, Any]
) -> None:
    run = benchmark()
    row, done = next((row, done) for row, done in made_entries(run).items() if row.system == "map")
    done = [entry._replace(pictures=f"pictures/{entry.fold}") for entry in done]
    dice = {case.name: case.parts["map"]["dice"] for entry in done for case in entry.cases if case.has_lesion}
    assert row_pictures(tmp_path, row, done) == {}
    for entry in done:
        (tmp_path / entry.pictures).mkdir(parents=True)
        for label in ("best", "median", "worst"):
            (tmp_path / entry.pictures / f"map-{label}.png").touch()
    shown = row_pictures(tmp_path, row, done)
    for label, name in (("best", max(dice, key=dice.get)), ("worst", min(dice, key=dice.get))):
        fold = name.removeprefix("sub-")[0]
        assert shown[label] == (dice[name], f"pictures/{fold}/map-{label}.png")
    assert shown["worst"][0] < shown["median"][0] < shown["best"][0]
    tables.write_tables(tmp_path, run, {row: done}, COSTS)
    assert f"]({shown['best'][1]}) | [" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        ("best-dice", True),
        ("false-positives:per=slice,false_positive_ml=0.10", True),
        ("false-positives:false_positive_ml=2", False),
    ],
)
def test_a_rule_with_other_limits_is_not_shown_as_the_healthy_only_rule(
    rule: str, shown: bool, tmp_path: Path, drawn: Mapping[str, Any]
) -> None:
    """A bundle holds a rule once: results from before hold the Dice by the other limits under that name."""
    run = benchmark(rule=rule)
    entries = {}
    for row, done in made_entries(run).items():
        entries[row] = []
        for entry in done:
            cases = [
                replace(case, parts={row.part: {**case.parts[row.part], "dice_healthy_rule": 0.25}})
                for case in entry.cases
            ]
            entries[row].append(entry._replace(cases=tuple(cases)))
    tables.write_tables(tmp_path, run, entries, COSTS)
    text = (tmp_path / "table.md").read_text()
    assert ("Dice, healthy-only rule" in text) == ("which sees no lesion" in text) == shown
    assert ("dice_healthy_rule" in (tmp_path / "table.csv").read_text()) == shown
    assert f"by the rule {rule}" in text


def test_before_anything_is_done_there_is_no_plot(tmp_path: Path) -> None:
    run = benchmark()
    tables.write_tables(tmp_path, run, {row: [] for row in made_entries(run)}, COSTS)
    assert not list(tmp_path.glob("*.png"))
    assert (tmp_path / "table.md").read_text().count("not run") == 5 * 2
