"""The verbs beside the main chain: pictures of anomalies, speed, demo, and what configs, bundles, machine say."""

from __future__ import annotations

import typer

from hybriduad.cli import options


def anomalies(
    config: options.Config,
    scan: options.Scan,
    *,
    out: options.OutFile,
    overrides: options.Overrides,
    count: options.Count = 8,
    contrast: options.Contrast = None,
    verbose: options.Verbose = False,
) -> None:
    """Draw synthetic anomalies in a scan.

    Augmented and painted as a training with CONFIG sees them.
    """
    from hybriduad.training.anomaly_sheet import draw_anomalies

    typer.echo(draw_anomalies(config, scan, out, count=count, overrides=overrides, contrast=contrast))


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
