"""The command line: a verb is a function of the package, and this file adds only parsing and exit codes.

Nothing heavy is imported before a verb runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from hybriduad.cli import neighbours, operating, options, outcomes, tools
from hybriduad.core.errors import HybridUADError, unusable


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (HybridUADError, OSError) as error:  # also an --out that is a file, a disk that is full or read-only
            typer.echo(f"hybriduad: {error if isinstance(error, HybridUADError) else unusable(error)}", err=True)
            raise typer.Exit(options.USER_ERROR) from error


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,  # its import would take as long as all the rest
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="CONFIG: a path or the name of a shipped config. COHORT: a manifest CSV, a BIDS folder or one image. "
    "Exit codes: 0 done, 2 something to mend (one sentence says what), 3 some cases failed or are missing.",
)


def main() -> None:
    """The entry point of the ``hybriduad`` command."""
    app()


@app.callback()
def hybriduad(version: options.Version = False) -> None:
    """Find and outline lesions in brain MRI.

    Research use only: not a medical device, not for diagnosis or treatment.
    """


@app.command()
def phantom(
    *,
    out: options.Out,
    subjects: options.Subjects,
    contrasts: options.Contrasts,
    pathology: options.Pathology = None,
    share_healthy: options.ShareHealthy = 0.0,
    spacing_mm: options.Spacing = (1.0, 1.0, 4.0),
    slice_thickness_mm: options.SliceThickness = None,
    labelmaps: options.LabelMaps = None,
    maps: options.TissueMaps = False,
    seed: options.Seed = 0,
    picture: options.Picture = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a cohort of made-up brains as BIDS."""
    from hybriduad.phantom.cohort import write_cohort

    manifest = write_cohort(
        out,
        subjects=subjects,
        pathology=pathology,
        share_healthy=share_healthy,
        seed=seed,
        contrasts=tuple(contrasts),
        spacing_mm=spacing_mm,
        slice_thickness_mm=slice_thickness_mm,
        labelmaps=labelmaps,
        maps=maps,
        overwrite=overwrite,
        progress=lambda done, of: options.log.info("phantom %d of %d", done, of),
    )
    if picture is not None:
        from hybriduad.cohort.manifest import read_manifest
        from hybriduad.phantom.picture import draw_cohort

        draw_cohort(read_manifest(manifest)[: options.PICTURED], contrasts, picture)
    typer.echo(f"{subjects} subjects in {manifest}")


@app.command()
def index(
    layout: options.Layout,
    dataset: options.Dataset,
    *,
    out: options.OutFile,
    shares: options.Shares,
    stratify: options.Stratify,
    fold: options.Fold = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Write the manifest of a data set."""
    from hybriduad.cohort import manifest
    from hybriduad.cohort.splits import split_summary, split_warnings

    cases = manifest.index(
        layout,
        dataset,
        out,
        split=options.numbers(shares) or None,
        fold=options.part(fold, "bad fold", "K/N, as 1/3"),
        stratify=stratify or None,
        seed=seed,
        overwrite=overwrite,
    )
    typer.echo("\n".join([f"{len(cases)} cases in {out}", *split_summary(cases)]))
    for warning in split_warnings(cases):
        options.log.warning(warning)


@app.command("fit-reconstructor")
def fit_reconstructor(
    config: options.Config,
    cohort: options.Cohort,
    *,
    out: options.Out,
    overrides: options.Overrides,
    data_licence: options.Licence = "not stated",
    brain: options.FittedBrain = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Stage 1: learn healthy anatomy.

    From healthy scans, and from lesion-free slices of annotated scans.
    """
    from hybriduad.training import fitting

    outcomes.say_bundle(
        fitting.fit_reconstructor(
            config,
            cohort,
            out=out,
            overrides=overrides,
            brain=brain,
            device=device,
            cache=cache,
            overwrite=overwrite,
            data_licence=data_licence,
        )
    )


@app.command("fit-detector")
def fit_detector(
    config: options.Config,
    cohort: options.Cohort,
    *,
    out: options.Out,
    overrides: options.Overrides,
    reconstructor: options.Reconstructor = None,
    init: options.Init = None,
    limit: options.Limit = None,
    data_licence: options.Licence = "not stated",
    brain: options.FittedBrain = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Stage 2: learn to outline lesions.

    From synthetic anomalies, labelled cases (few-label fine-tuning) or both, as CONFIG mixes them.
    """
    from hybriduad.training import fitting

    outcomes.say_bundle(
        fitting.fit_detector(
            config,
            cohort,
            out=out,
            reconstructor=reconstructor,
            init=init,
            limit=limit,
            overrides=overrides,
            brain=brain,
            device=device,
            cache=cache,
            overwrite=overwrite,
            data_licence=data_licence,
        )
    )


@app.command()
def calibrate(
    bundle: options.BundleFolder,
    cohort: options.Cohort,
    *,
    out: options.Out,
    rules: options.Rules,
    split: options.CalibrationSplit = None,
    brain: options.Brain = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Find the thresholds of a bundle's masks."""
    from hybriduad.evaluation import calibration

    calibrated = calibration.calibrate(
        bundle, cohort, out=out, rules=rules, split=split, brain=brain, device=device, cache=cache, overwrite=overwrite
    )
    outcomes.say_bundle(calibrated)


@app.command()
def predict(
    bundle: options.BundleFolder,
    cohort: options.Cohort,
    *,
    out: options.Out,
    maps: options.Maps,
    rule: options.Rule = None,
    split: options.SplitName = None,
    contrast: options.Contrast = None,
    brain: options.Brain = None,
    atlas: options.AtlasFile = None,
    atlas_names: options.AtlasNames = None,
    device: options.Device = "auto",
    engine: options.Engine = None,
    nprocs: options.Nprocs = None,
    address: options.Address = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    dry_run: options.DryRun = False,
    cache: options.Cache = None,
    overwrite: options.Overwrite = False,
    report: options.Report = None,
    log_json: options.LogJson = None,
    verbose: options.Verbose = False,
) -> None:
    """Find lesions in every case of a cohort.

    Exits with 3 if some cases failed; they are named at the end. Stopped, the same command goes on: a case is done when
    its record is there. One that failed for what is in its files is tried again when they change, or by --retry-failed.
    """
    from hybriduad.cli import batch

    batch.predict(
        bundle,
        cohort,
        dry_run=dry_run,
        log_json=log_json,
        report=report,
        out=out,
        maps=maps,
        rule=rule,
        contrast=contrast,
        split=split,
        brain=brain,
        atlas=atlas,
        atlas_names=atlas_names,
        device=device,
        engine=engine,
        nprocs=nprocs,
        address=address,
        shard=options.part(shard, "bad shard", "I/N, as 1/8"),
        retry_failed=retry_failed,
        cache=cache,
        overwrite=overwrite,
    )


@app.command()
def evaluate(
    predictions: options.Predictions,
    cohort: options.Cohort,
    *,
    out: options.Out,
    by: options.By,
    rule: options.Rule = None,
    split: options.SplitName = None,
    seed: options.Seed = 0,
    draws: options.Draws = 2000,
    allow_leakage: options.AllowLeakage = False,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Compare predictions with the truth.

    Exits with 3 if some cases failed or have no prediction; they are named at the end.
    """
    from hybriduad.evaluation import evaluate as evaluation

    outcome = evaluation.evaluate(
        predictions,
        cohort,
        out=out,
        by=by,
        rule=rule,
        split=split,
        seed=seed,
        draws=draws,
        allow_leakage=allow_leakage,
        overwrite=overwrite,
    )
    outcomes.say_outcome(outcome, outcome.missing)


@app.command()
def compare(
    evaluations: options.Evaluations,
    *,
    out: options.OutTables,
    seed: options.Seed = 0,
    draws: options.Draws = 2000,
    verbose: options.Verbose = False,
) -> None:
    """Compare evaluations with the first of them.

    Each is NAME=FOLDER, the folder made by evaluate; folders under the same name are folds of one evaluation.
    """
    from hybriduad.evaluation import comparison as evaluation_comparison

    named: dict[str, list[str]] = {}
    for evaluation in evaluations:
        name, folder = options.assigned(evaluation, "evaluation without a name", "NAME=FOLDER")
        named.setdefault(name, []).append(folder)
    figures = evaluation_comparison.compare(list(named.items()), out=out, seed=seed, draws=draws)
    typer.echo(f"{len(figures)} differences in {out}")


@app.command()
def paint(
    config: options.Config,
    cohort: options.Cohort,
    *,
    out: options.Out,
    overrides: options.Overrides,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Paint lesions into healthy scans, as BIDS.

    An anomaly of CONFIG in 3D into every case of COHORT whose health is "healthy", on the scan's own voxels, with its
    mask. Exits with 3 if some cases failed; they are named at the end.
    """
    from hybriduad.training.painted_cohort import paint_cohort

    outcomes.say_outcome(paint_cohort(config, cohort, out=out, overrides=overrides, overwrite=overwrite))


for verb in (
    *(neighbours.import_dicom, neighbours.fill, neighbours.dicom_seg),
    *(operating.blind_spots, operating.operating_point),
    *(tools.report, tools.anomalies, tools.benchmark, tools.speed, tools.demo, tools.show, tools.doctor),
):
    app.command()(verb)
