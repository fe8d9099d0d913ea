"""The command line: a verb is a function of the package, and this file adds only parsing, logging and exit codes.

Nothing heavy is imported before a verb runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from hybriduad import __version__
from hybriduad.errors import ConfigError, HybridUADError

USER_ERROR, FAILED_CASES = 2, 3
"""Exit codes: something that the user can mend; some cases of a cohort failed and the others are done."""


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HybridUADError as error:
            typer.echo(f"hybriduad: {error}", err=True)
            raise typer.Exit(USER_ERROR) from error


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="CONFIG: a path or the name of a shipped config. COHORT: a manifest CSV, a BIDS folder or one image. "
    "Exit codes: 0 done, 2 something to mend (one sentence says what), 3 some cases failed.",
)


def main() -> None:
    """The entry point of the ``hybriduad`` command."""
    app()


def _set_up_logging(verbose: bool) -> bool:
    """Log to stderr: readable in a terminal, plain lines elsewhere. Names of cases are the only personal data in it."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log = logging.getLogger("hybriduad")
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    return verbose


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


Config = Annotated[str, typer.Argument(metavar="CONFIG", help="Path of a YAML file, or the name of a shipped config.")]
Cohort = Annotated[str, typer.Argument(metavar="COHORT", help="Manifest CSV, BIDS folder, or one image.")]
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Model folder.")]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes; what is there already is continued.")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", default_factory=list, show_default=False, help="As train.lr=3.0e-4; repeat."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what another request left in --out.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Folder for prepared volumes, shared by runs.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
SplitName = Annotated[
    Literal["train", "validation", "test"] | None, typer.Option("--split", help="Only the cases of this split.")
]
Contrast = Annotated[
    str | None, typer.Option("--contrast", help="Contrast of a single image whose name does not tell.")
]
Licence = Annotated[str, typer.Option("--data-licence", help="Licence of the training data, stated in the bundle.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_up_logging, help="Log more, to standard error.")
]


@app.callback()
def hybriduad(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find and outline lesions in brain MRI.

    Research use only: not a medical device, not for diagnosis or treatment.
    """


@app.command()
def index(
    layout: Annotated[str, typer.Argument(help="Layout of the data set: bids, atlas2, brats2021, ...")],
    dataset: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The manifest CSV to write.")],
    split: Annotated[
        list[str],
        typer.Option(
            "--split",
            metavar="NAME=SHARE",
            default_factory=list,
            show_default=False,
            help="train=32 (subjects) or train=0.8; repeat.",
        ),
    ],
    stratify: Annotated[str, typer.Option("--stratify", help="Column that the splits are balanced by.")] = "site",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Write the manifest of a data set, split by subject if asked."""
    from hybriduad import manifest

    cases = manifest.index(
        layout, dataset, out, split=_shares(split), seed=seed, stratify=stratify, overwrite=overwrite
    )
    typer.echo(f"{len(cases)} cases in {out}")


@app.command("fit-reconstructor")
def fit_reconstructor(
    config: Config,
    cohort: Cohort,
    *,
    out: Out,
    overrides: Overrides,
    data_licence: Licence = "not stated",
    device: Device = "auto",
    cache: Cache = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Stage 1: learn healthy anatomy from healthy or lesion-free slices."""
    from hybriduad import fitting

    place: dict[str, Any] = {"device": device, "cache": cache, "overwrite": overwrite, "data_licence": data_licence}
    _say_bundle(fitting.fit_reconstructor(config, cohort, out=out, overrides=overrides, **place))


@app.command("fit-detector")
def fit_detector(
    config: Config,
    cohort: Cohort,
    *,
    out: Out,
    overrides: Overrides,
    reconstructor: Annotated[Path | None, typer.Option("--reconstructor", help="Bundle of stage 1.")] = None,
    init: Annotated[Path | None, typer.Option("--init", help="Detector's bundle to continue from.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="How many labelled cases may be used.")] = None,
    data_licence: Licence = "not stated",
    device: Device = "auto",
    cache: Cache = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Stage 2 and few-label fine-tuning: learn to outline lesions, synthetic, labelled or both."""
    from hybriduad import fitting

    place: dict[str, Any] = {"device": device, "cache": cache, "overwrite": overwrite, "data_licence": data_licence}
    parents: dict[str, Any] = {"reconstructor": reconstructor, "init": init, "limit": limit}
    _say_bundle(fitting.fit_detector(config, cohort, out=out, overrides=overrides, **parents, **place))


@app.command()
def predict(
    bundle: BundleFolder,
    cohort: Cohort,
    *,
    out: Out,
    maps: Annotated[
        list[str] | None,
        typer.Option("--maps", help="score, probability, map, intensity, mask, brain, reconstruction or all; repeat."),
    ] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Calibrated rule that makes the mask.")] = None,
    split: SplitName = None,
    contrast: Contrast = None,
    device: Device = "auto",
    cache: Cache = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Find lesions in every case of a cohort; exits with 3 if some failed."""
    from hybriduad import prediction

    outcome = prediction.predict_cohort(
        bundle,
        cohort,
        out=out,
        maps=maps or prediction.DEFAULT_MAPS,
        rule=rule,
        device=device,
        split=split,
        cache=cache,
        overwrite=overwrite,
        contrast=contrast,
    )
    counts = f"{len(outcome.done)} done, {len(outcome.kept)} kept, {len(outcome.failed)} failed"
    typer.echo(f"{counts}, in {out}")
    if outcome.failed:
        for case, reason in outcome.failed.items():
            typer.echo(f"failed: {case}: {reason}", err=True)
        raise typer.Exit(FAILED_CASES)


@app.command()
def anomalies(
    config: Config,
    scan: Annotated[Path, typer.Argument(help="One image.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    overrides: Overrides,
    count: Annotated[int, typer.Option("--count", min=1, help="How many samples.")] = 8,
    contrast: Contrast = None,
    verbose: Verbose = False,
) -> None:
    """Draw synthetic anomalies in a scan, as training sees them."""
    from hybriduad.anomaly_pictures import draw_anomalies

    typer.echo(draw_anomalies(config, scan, out, count=count, overrides=overrides, contrast=contrast))


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="CONFIG|BUNDLE", help="Run config or model folder.")],
    *,
    overrides: Overrides,
) -> None:
    """Print a resolved config, or what a bundle says of itself."""
    from hybriduad.description import describe

    typer.echo(describe(what, overrides), nl=False)


@app.command()
def doctor(
    bundles: Annotated[list[Path] | None, typer.Argument(metavar="[BUNDLE]...", help="Bundles to check.")] = None,
) -> None:
    """Report versions, device, threads, memory and precision, and check bundles; exits with 2 if something is wrong."""
    from hybriduad.doctor import examine

    findings = examine(bundles or ())
    for finding in findings:
        typer.echo(f"{'ok ' if finding.good else 'BAD'} {finding.name}: {finding.value}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(USER_ERROR)


def _shares(assignments: list[str]) -> Any:
    """``["train=32", "test=10"]`` -> counts, or fractions where a number has a point."""
    shares: dict[str, Any] = {}
    for assignment in assignments:
        name, _, number = assignment.partition("=")
        try:
            shares[name] = float(number) if "." in number else int(number)
        except ValueError as error:
            raise ConfigError("bad share", got=repr(assignment), expected="NAME=32 or NAME=0.8") from error
    return shares or None


def _say_bundle(bundle: Any) -> None:
    typer.echo(f"{bundle.kind} {bundle.digest[:12]} in {bundle.folder}")
