"""The verbs beside the main chain: anomalies, benchmark, reports, speed, demo; what configs, bundles, machine say."""

from __future__ import annotations

import typer

from hybriduad.cli import options, outcomes
from hybriduad.core.errors import ConfigError


def anomalies(
    config: options.ConfigOrAll,
    scan: options.Scan,
    *,
    out: options.OutFile,
    overrides: options.Overrides,
    cohort: options.LesionCohort = None,
    count: options.Count = None,
    contrast: options.Contrast = None,
    verbose: options.Verbose = False,
) -> None:
    """Draw synthetic anomalies in a scan.

    Augmented and painted as a training with CONFIG sees them. Of all: a row each generator, with a table of size,
    contrast and place, .csv and .md beside the picture, and printed.
    """
    if config == "all":
        from hybriduad.evaluation.anomaly_library import draw_library

        table = draw_library(scan, out, cohort=cohort, count=count or 4, overrides=overrides, contrast=contrast)
        typer.echo(table, nl=False)
        return
    from hybriduad.training.anomaly_sheet import draw_anomalies

    if cohort is not None:
        raise ConfigError("option of another sheet", got="--cohort", mend="it belongs to 'hybriduad anomalies all'")
    typer.echo(draw_anomalies(config, scan, out, count=count or 8, overrides=overrides, contrast=contrast))


def benchmark(
    config: options.Config,
    *,
    out: options.Out,
    cohorts: options.NamedCohorts,
    folds: options.Folds,
    systems: options.Systems,
    tables_only: options.TablesOnly = False,
    overrides: options.Overrides,
    device: options.Device = "auto",
    cache: options.Cache = None,
    verbose: options.Verbose = False,
) -> None:
    """Train and test many systems; make their table.

    Exits with 3 if some failed; they are named at the end.
    """
    from hybriduad.benchmark.run import run_benchmark

    named = dict(options.assigned(cohort, "cohort without a name", "NAME=PATH") for cohort in cohorts)
    if tables_only and (folds or systems):
        raise ConfigError("options that exclude each other", got="--tables-only with --fold or --system")
    outcome = run_benchmark(
        config,
        out=out,
        cohorts=named,
        folds=() if tables_only else folds or None,
        systems=systems or None,
        overrides=overrides,
        device=device,
        cache=cache,
    )
    counts = f"{len(outcome.done)} trials done, {len(outcome.kept)} kept, {len(outcome.failed)} failed"
    typer.echo(f"{counts}, {len(outcome.not_run)} not run, in {out / 'table.md'}")
    outcomes.say_failures(outcome.failed)


def report(
    predictions: options.Shown,
    cohort: options.ShownCohort = None,
    *,
    out: options.OutPages,
    scores: options.Scores = None,
    verbose: options.Verbose = False,
) -> None:
    """Write pages to read predictions by.

    An HTML file a case and index.html, each to be opened in a browser without a network. They hold the scan and the
    maps inside the brain mask alone. Exits with 3 if some cases failed; they are named at the end.
    """
    from hybriduad.report.build import write_report

    outcomes.say_pages(write_report(predictions, out=out, cohort=cohort, scores=scores))


def speed(
    config: options.Config,
    *,
    out: options.OutTables,
    overrides: options.Overrides,
    operations: options.OperationsOnly = False,
    device: options.Device = "auto",
    verbose: options.Verbose = False,
) -> None:
    """Measure speed and memory, or count operations."""
    if operations:
        from hybriduad.speed.operations import count_operations

        typer.echo(count_operations(config, out=out, overrides=overrides))
        return
    from hybriduad.speed.measurement import measure_speed

    typer.echo(measure_speed(config, out=out, overrides=overrides, device=device))


def demo(
    *,
    out: options.Out,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Run the whole chain on made-up brains.

    Exits with 2 if what it has to show did not come true.
    """
    from hybriduad.demo.chain import run_demo

    typer.echo(run_demo(out, seed=seed, device=device, overwrite=overwrite))


def show(what: options.ConfigOrBundle, *, overrides: options.Overrides) -> None:
    """Print a config, or what a bundle says."""
    from hybriduad.cli.description import describe

    typer.echo(describe(what, overrides), nl=False)


def doctor(bundles: options.Bundles = None) -> None:
    """Check the machine, versions and bundles.

    Exits with 2 if something is wrong.
    """
    from hybriduad.cli.doctor import examine

    findings = examine(bundles or ())
    for finding in findings:
        typer.echo(f"{'ok ' if finding.good else 'BAD'} {finding.name}: {finding.value}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(options.USER_ERROR)
