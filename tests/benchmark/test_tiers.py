"""The shipped benchmarks: tiers of one table, whose rows are the same."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from hybriduad.benchmark.costs import system_gflops
from hybriduad.benchmark.plan import Fit, rows_of
from hybriduad.benchmark.run import SHARES, labelled_patients
from hybriduad.cohort.manifest import split_cases
from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.config.runs import DetectorRun, Segmenter
from hybriduad.core.types import Case
from hybriduad.phantom.cohort import pathology_of

TIERS = ("benchmark-quick", "benchmark-core", "benchmark-full")
"""Each has the rows of the one before."""
T1W = "benchmark-t1w"


@functools.cache
def tier(name: str) -> BenchmarkRun:
    run: BenchmarkRun = configs.load(name, [], kind="benchmark")
    return run


def loaded(fit: Fit) -> Any:
    """The config of a training; many rows share one."""
    return _loaded(fit.config, tuple(fit.overrides), fit.stage)


@functools.cache
def _loaded(config: str, overrides: tuple[str, ...], stage: Literal["reconstructor", "detector"]) -> Any:
    return configs.load(config, overrides, kind=stage)


def trainings(model: Fit | None) -> Iterator[Fit]:
    """A training and those that it continues."""
    while model is not None:
        yield model
        model = model.parent


def fitted(name: str, system: str) -> DetectorRun:
    """The config of the last step of a system, as a tier fits it."""
    model = next(row for row in rows_of(tier(name)) if row.system == system).trials[0].model
    run: DetectorRun = configs.load(model.config, model.overrides, kind="detector")
    return run


@pytest.mark.parametrize("name", [*TIERS, T1W])
def test_every_training_of_a_tier_has_a_config(name: str) -> None:
    for row in rows_of(tier(name)):
        for fit in trainings(row.trials[0].model):
            loaded(fit)


def compared(run: BenchmarkRun) -> dict[str, set[str]]:
    """System -> what it is compared with, whichever of the two names the other."""
    others: dict[str, set[str]] = {name: set() for name in run.systems}
    for name, other in run.pairs():
        others[name].add(other)
        others[other].add(name)
    return others


def test_a_larger_tier_has_the_rows_of_the_smaller() -> None:
    quick, core, full = (tier(name) for name in TIERS)
    assert quick.systems == core.systems
    bare = [{name: row.model_copy(update={"against": ()}) for name, row in run.systems.items()} for run in (core, full)]
    assert bare[0].items() <= bare[1].items()
    wider = compared(full)
    assert all(others <= wider[name] for name, others in compared(core).items())
    assert quick.common == core.common == full.common
    for small, large in ((quick, core), (core, full)):
        assert all(set(tested) <= set(large.tables[name]) for name, tested in small.tables.items())
        assert small.cohorts.items() <= large.cohorts.items()


def test_what_tiers_share_is_trained_once_for_both() -> None:
    quick, core, full = (set(rows_of(tier(name).model_copy(update={"seeds": (0,)}))) for name in TIERS)
    assert quick <= core <= full


def test_the_operations_of_the_quick_tier_can_be_counted() -> None:
    run = tier("benchmark-quick")
    assert set(system_gflops(run)) == set(run.systems)


DEFAULTS = [(tier, system) for tier in TIERS for system in ("default", "default (7 labels)")]


@pytest.mark.parametrize(("name", "system"), [*DEFAULTS, (T1W, "default"), (T1W, "default (synthetic + 3 labels)")])
def test_the_row_of_the_default_fuses_as_the_shipped_config_does(name: str, system: str) -> None:
    config = {"default": "synthetic", "default (7 labels)": "labels-alone"}.get(system, "few-labels")
    run = fitted(name, system)
    assert run.train.steps == 0
    assert run.fusion == configs.load(config, [], kind="detector").fusion


@pytest.mark.parametrize("name", ["benchmark-full", T1W])
def test_the_row_without_intensity_lacks_nothing_else(name: str) -> None:
    whole = fitted(name, "default").fusion
    assert fitted(name, "without intensity").fusion == whole.model_copy(
        update={"intensity": 0.0, "opposite": 0.0, "departure": 0.0}
    )


@pytest.mark.parametrize("name", [*TIERS, T1W])
def test_every_default_is_compared_with_its_parts_and_with_the_segmenter_of_the_same_labels(name: str) -> None:
    run = tier(name)
    pairs = list(run.pairs())
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    others = compared(run)
    of_labels = r"default( \((synthetic \+ )?(\d+|all) labels?\))?"
    defaults = {row: row.removeprefix("default").strip(" ()") for row in run.systems if re.fullmatch(of_labels, row)}
    assert len(defaults) == (2 if name == T1W else 9 if name == "benchmark-full" else 3)
    for row, labels in defaults.items():
        assert others[row] >= {"default", f"Unet ({labels or 'synthetic'})"} - {row}
        if labels in ("", "7 labels", "synthetic + 7 labels", "synthetic + 3 labels"):
            assert others[row] >= {"intensity", "asymmetry", "restoration"}


def test_a_row_of_n_labels_is_compared_with_the_default_of_as_many() -> None:
    others = compared(tier("benchmark-full"))
    for labels in ("1 label", "2 labels", "5 labels", "10 labels", "20 labels", "all labels"):
        assert {f"Unet ({labels})", f"Unet (synthetic + {labels})"} <= others[f"default (synthetic + {labels})"]
        assert (f"Unet ({labels})" in others["default"]) == (labels == "all labels")  # it is a row of the core tier


def test_each_step_from_the_row_of_the_paper_to_the_default_has_a_difference() -> None:
    pairs = list(tier("benchmark-full").pairs())
    path = ["paper", *(f"step {number}" for number in range(1, 7)), "default"]
    assert [pair for pair in pairs if {*pair} <= {*path}] == [
        ("default", "step 6"),
        ("paper", "default"),
        *((path[number], path[number - 1]) for number in range(1, 7)),
    ]


@pytest.mark.parametrize("name", [*TIERS, T1W])
def test_phantoms_have_the_patients_that_rows_learn_from_but_for_those_of_twenty(name: str) -> None:
    """Those say in their tables that they are not run."""
    run = tier(name)
    short = set()
    for cohort, phantoms in ((cohort, run.cohorts[cohort].phantoms) for cohort in run.tables):
        if phantoms is not None:
            people = [pathology_of(n, phantoms.pathology, phantoms.share_healthy) for n in range(phantoms.subjects)]
            cases = [
                Case(
                    "phantom",
                    f"{n:04}",
                    {},
                    lesion=Path("mask.nii") if ill else None,
                    health="lesion" if ill else "healthy",
                )
                for n, ill in enumerate(people)
            ]
            folds = range(1, run.folds + 1)
            few = min(labelled_patients(split_cases(cases, SHARES, 0, fold=(fold, run.folds))) for fold in folds)
            assert 15 <= few <= 17
            rows = (row for row in rows_of(run) if row.trained_on == cohort)
            short |= {row.system for row in rows if row.trials[0].model.labels > few}
    twenty = {f"{first} + 20 labels)" for first in ("default (synthetic", "Unet (synthetic")} | {"Unet (20 labels)"}
    assert short == (twenty if name == "benchmark-full" else set())


def test_every_lesion_that_the_t1w_tier_learns_from_is_mostly_dark() -> None:
    runs = [loaded(fit) for row in rows_of(tier(T1W)) for fit in trainings(row.trials[0].model)]
    painted = [each for run in runs if run.train.steps > 0 for each in run.anomalies if each.name == "lesion"]
    assert {each.bright for each in painted} == {0.1}


@pytest.mark.parametrize("name", [*TIERS, T1W])
def test_rows_of_the_paper_score_keep_the_mean_of_the_maps_of_their_results(name: str) -> None:
    """The keys of stored results are of it, whatever the shipped configs of the paper's models state."""
    combined = set()
    for row in rows_of(tier(name)):
        for fit in trainings(row.trials[0].model):
            residual = loaded(fit).residual
            combined |= {(fit.config, residual.combine)} if residual is not None and fit.config != "cddpm" else set()
    assert ("paper-score", "arithmetic") in combined
    assert "reconstruction" not in {combine for _, combine in combined}
    assert configs.load("paper-score", [], kind="detector").residual.combine == "reconstruction"


@pytest.mark.parametrize("name", [*TIERS, T1W])
def test_the_row_of_the_paper_is_that_of_the_paper_but_for_its_size(name: str) -> None:
    detector, reconstructor = trainings(
        next(row for row in rows_of(tier(name)) if row.system == "paper").trials[0].model
    )
    first = configs.load(reconstructor.config, reconstructor.overrides, kind="reconstructor")
    second = configs.load(detector.config, detector.overrides, kind="detector")
    assert (first.model.noise, first.model.train_levels, first.model.levels) == ("simplex", (0, 1000), (250, 500, 750))
    assert (first.model.condition != "none", first.model.skip, first.model.outside_weight) == (True, False, 1.0)
    assert (first.residual.kind, first.residual.combine) == ("ssim", "reconstruction")
    assert (first.mix.synthetic, first.anomalies) == (0, ())
    assert [anomaly.name for anomaly in second.anomalies] == ["perlin"]
    assert (second.loss.dice, second.loss.false_alarm) == (0, 0)
    assert (second.fusion.form, second.fusion.weight, second.fusion.smooth_mm) == ("sum", 1.0, 0.0)
    for run in (first, second):
        assert (run.mirror, run.train.warmup, run.augmentation.flip, run.augmentation.affine) == (False, 0, 0, 0)


@pytest.mark.parametrize("name", ["FAE", "RD"])
def test_a_witness_without_an_image_stands_beside_a_segmenter_of_the_scan_alone(name: str) -> None:
    run = fitted("benchmark-full", f"default on {name}")
    default = fitted("benchmark-full", "default")
    assert run.fusion == default.fusion
    assert run.segmenter.inputs == ("image",)


def test_the_painters_of_stage_1_may_be_others_than_those_of_stage_2() -> None:
    row = next(row for row in rows_of(tier("benchmark-full")) if row.system == "other painters in stage 1")
    painters = {
        fit.stage: {anomaly.name for anomaly in loaded(fit).anomalies} for fit in trainings(row.trials[0].model)
    }
    assert len(painters["reconstructor"]) >= 3
    assert not painters["reconstructor"] & painters["detector"]


def test_the_row_of_the_paper_with_few_labels_learns_from_masks_alone_and_shares_stage_1() -> None:
    """As the paper's few labels: no painted slice among them."""
    rows = {row.system: row for row in rows_of(tier("benchmark-full")) if row.system in ("paper", "paper (7 labels)")}
    few, alone = (rows[name].trials[0].model for name in ("paper (7 labels)", "paper"))
    assert few.limit == 7
    assert few.parent == alone.parent
    run, painted = (configs.load(fit.config, fit.overrides, kind="detector") for fit in (few, alone))
    assert (run.mix.synthetic, run.anomalies) == (0, ())
    assert run.mix.labelled > 0
    kept = {"mix": painted.mix, "anomalies": painted.anomalies}
    assert run.model_copy(update=kept) == painted


@pytest.mark.parametrize("name", [*TIERS, T1W])
def test_no_step_of_a_system_states_another_segmenter_than_the_step_before(name: str) -> None:
    """It would be refused, but only where the row is run: a step that states none has that of the step before."""
    for row in rows_of(tier(name)):
        segmenter: Segmenter | None = None
        for fit in reversed(list(trainings(row.trials[0].model))):
            if fit.stage == "detector":
                run: DetectorRun = loaded(fit)
                if "segmenter" in run.model_fields_set:
                    assert segmenter in (None, run.segmenter), row.system
                    segmenter = run.segmenter


def test_the_row_of_small_lesions_paints_as_the_shipped_config_does() -> None:
    row = next(row for row in rows_of(tier("benchmark-full")) if row.system == "small lesions")
    _, detector, reconstructor = trainings(row.trials[0].model)
    assert loaded(detector).anomalies == configs.load("synthetic", [], kind="detector").anomalies
    assert loaded(reconstructor).anomalies == configs.load("restoration", [], kind="reconstructor").anomalies
