"""The shipped benchmarks: tiers of one table, whose rows are the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hybriduad.benchmark.costs import system_gflops
from hybriduad.benchmark.plan import Fit, rows_of
from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.config.runs import DetectorRun, Segmenter

TIERS = ("benchmark-quick", "benchmark-core", "benchmark-full")
"""Each has the rows of the one before."""
T1W = "benchmark-t1w"


def tier(name: str) -> BenchmarkRun:
    run: BenchmarkRun = configs.load(name, [], kind="benchmark")
    return run


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
            configs.load(fit.config, fit.overrides, kind=fit.stage)


def test_a_larger_tier_has_the_rows_of_the_smaller() -> None:
    quick, core, full = (tier(name) for name in TIERS)
    assert quick.systems == core.systems
    assert core.systems.items() <= full.systems.items()
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


def test_every_lesion_that_the_t1w_tier_learns_from_is_mostly_dark() -> None:
    runs = [
        configs.load(fit.config, fit.overrides, kind=fit.stage)
        for row in rows_of(tier(T1W))
        for fit in trainings(row.trials[0].model)
    ]
    painted = [each for run in runs if run.train.steps > 0 for each in run.anomalies if each.name == "lesion"]
    assert {each.bright for each in painted} == {0.1}


@pytest.mark.parametrize("name", [*TIERS, T1W])
def test_rows_of_the_paper_score_keep_the_mean_of_the_maps_of_their_results(name: str) -> None:
    """The keys of stored results are of it, whatever the shipped configs of the paper's models state."""
    combined = set()
    for row in rows_of(tier(name)):
        for fit in trainings(row.trials[0].model):
            residual = configs.load(fit.config, fit.overrides, kind=fit.stage).residual
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
        fit.stage: {anomaly.name for anomaly in configs.load(fit.config, fit.overrides, kind=fit.stage).anomalies}
        for fit in trainings(row.trials[0].model)
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
                run: DetectorRun = configs.load(fit.config, fit.overrides, kind="detector")
                if "segmenter" in run.model_fields_set:
                    assert segmenter in (None, run.segmenter), row.system
                    segmenter = run.segmenter
