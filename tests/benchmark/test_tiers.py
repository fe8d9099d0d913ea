"""The shipped benchmarks: tiers of one table, whose rows are the same."""

from __future__ import annotations

import pytest

from hybriduad.benchmark.costs import system_gflops
from hybriduad.benchmark.plan import Fit, rows_of
from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun

TIERS = ("benchmark-quick", "benchmark-core", "benchmark-full")


def tier(name: str) -> BenchmarkRun:
    run: BenchmarkRun = configs.load(name, [], kind="benchmark")
    return run


@pytest.mark.parametrize("name", TIERS)
def test_every_training_of_a_tier_has_a_config(name: str) -> None:
    for row in rows_of(tier(name)):
        fit: Fit | None = row.trials[0].model
        while fit is not None:
            configs.load(fit.config, fit.overrides, kind=fit.stage)
            fit = fit.parent


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


@pytest.mark.parametrize(("system", "config"), [("default", "synthetic"), ("default (7 labels)", "labels-alone")])
@pytest.mark.parametrize("name", TIERS)
def test_the_row_of_the_default_fuses_as_the_shipped_config_does(name: str, system: str, config: str) -> None:
    (row, *_) = (row for row in rows_of(tier(name)) if row.system == system)
    model = row.trials[0].model
    fitted = configs.load(model.config, model.overrides, kind="detector")
    assert fitted.train.steps == 0
    assert fitted.fusion == configs.load(config, [], kind="detector").fusion


@pytest.mark.parametrize("name", [*TIERS, "benchmark-t1w"])
def test_rows_of_the_paper_keep_the_mean_of_the_maps_of_their_results(name: str) -> None:
    """The keys of stored results are of it, whatever the shipped configs of the paper's models state."""
    combined = set()
    for row in rows_of(tier(name)):
        fit: Fit | None = row.trials[0].model
        while fit is not None:
            residual = configs.load(fit.config, fit.overrides, kind=fit.stage).residual
            combined |= {(fit.config, residual.combine)} if residual is not None else set()
            fit = fit.parent
    assert {("paper-score", "arithmetic"), ("cddpm", "arithmetic")} <= combined
    assert "reconstruction" not in {combine for _, combine in combined}
    assert configs.load("paper-score", [], kind="detector").residual.combine == "reconstruction"
