"""The arguments and options of the command line: how each is called, what it takes, and its line of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hybriduad import __version__
from hybriduad.cli.log import log as log
from hybriduad.cli.log import set_up
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.evaluation.rules import DEFAULT

USER_ERROR, FAILED_CASES = 2, 3
"""Exit codes: something that the user can mend; some cases of a cohort failed or are missing, the others are done."""
PICTURED = 6
"""How many subjects of a cohort the picture of phantoms shows."""
COHORT = ("cohort", "a manifest .csv, a BIDS folder, or an image .nii or .nii.gz")
BUNDLE = ("bundle", "a folder made by fit-reconstructor or fit-detector")
PREDICTED = ("predictions", "a folder made by predict")
"""What an argument names, and what is expected there."""


def _set_up_logging(verbose: bool) -> bool:
    set_up(verbose)
    return verbose


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _there(what: str, expected: str) -> Any:
    """A check that a path exists, made before anything heavy is imported; what is in it is checked later."""

    def check(path: Any) -> Any:
        if path is not None and not Path(path).exists():
            raise DataError(f"no such {what}", got=path, expected=expected, mend="check the path")
        return path

    return check


def _repeated(*names: str, default: tuple[str, ...] = (), **more: Any) -> Any:
    """An option that may be given several times."""
    return typer.Option(*names, default_factory=lambda: list(default), show_default=", ".join(default) or False, **more)


def assigned(text: str, fault: str, expected: str) -> tuple[str, str]:
    """``"NAME=VALUE"`` as its two parts.

    Raises:
        ConfigError: ``fault``, where either is missing.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(fault, got=repr(text), expected=expected)
    return name, value


def numbers(assignments: list[str]) -> dict[str, float]:
    """``["train=32", "test=10"]`` -> {name: number}, a fraction where it is written with a point.

    Raises:
        ConfigError: no number.
    """
    shares: dict[str, float] = {}
    for assignment in assignments:
        name, _, number = assignment.partition("=")
        try:
            shares[name] = float(number) if "." in number else int(number)
        except ValueError as error:
            raise ConfigError("bad share", got=repr(assignment), expected="NAME=32 or NAME=0.8") from error
    return shares


def part(text: str | None, fault: str, expected: str) -> tuple[int, int] | None:
    """``"1/3"`` -> (1, 3).

    Raises:
        ConfigError: ``fault``, where it is not of that form.
    """
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit()):
        raise ConfigError(fault, got=repr(text), expected=expected)
    return int(number), int(count)


Config = Annotated[str, typer.Argument(metavar="CONFIG", help="Path of a YAML file, or the name of a shipped config.")]
Cohort = Annotated[
    str, typer.Argument(metavar="COHORT", callback=_there(*COHORT), help="Manifest CSV, BIDS folder, or one image.")
]
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", callback=_there(*BUNDLE), help="Model folder.")]
Bundles = Annotated[list[Path] | None, typer.Argument(metavar="BUNDLE", help="Bundles to check.")]
Predictions = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS",
        callback=_there(*PREDICTED),
        help="Folder made by predict; with --maps all every map is evaluated beside the score.",
    ),
]
Shown = Annotated[Path, typer.Argument(metavar="PREDICTIONS", callback=_there(*PREDICTED), help="Made by predict.")]
ShownCohort = Annotated[
    str | None,
    typer.Argument(metavar="COHORT", callback=_there(*COHORT), help="The predicted scans; without it none is shown."),
]
Scores = Annotated[
    Path | None,
    typer.Option("--scores", callback=_there("scores", "a folder made by evaluate"), help="Folder made by evaluate."),
]
BlindSpots = Annotated[
    Path,
    typer.Argument(
        metavar="BLIND_SPOTS", callback=_there("blind spots", "a folder made by blind-spots"), help="Of that bundle."
    ),
]
Layout = Annotated[
    str, typer.Argument(metavar="LAYOUT", help=f"csv (a manifest) or {', '.join(plugins.names('datasets'))}.")
]
Dataset = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET",
        callback=_there("data set", "a folder, or a manifest .csv"),
        help="Folder of the data set, or manifest CSV.",
    ),
]
Scan = Annotated[
    Path, typer.Argument(metavar="SCAN", callback=_there("scan", "an image .nii or .nii.gz"), help="One image.")
]
ConfigOrAll = Annotated[
    str, typer.Argument(metavar="CONFIG|all", help="Run config, or all: every generator of the library, measured.")
]
LesionCohort = Annotated[
    str | None,
    typer.Option(
        "--cohort",
        callback=_there(*COHORT),
        help="Of all: annotated cases, whose lesions are measured beside; of a cohort with splits those of train.",
    ),
]
ConfigOrBundle = Annotated[str, typer.Argument(metavar="CONFIG|BUNDLE", help="Run config or model folder.")]

Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", callback=_set_up_logging, help="Log more to standard error.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the result; what is there already is continued.")]
OutPages = Annotated[Path, typer.Option("--out", help="Folder of the pages; those that are there are replaced.")]
OutTables = Annotated[Path, typer.Option("--out", help="Folder of the tables; those that are there are replaced.")]
OperationsOnly = Annotated[
    bool, typer.Option("--operations", help="Only count the operations of CONFIG, of either stage; nothing is timed.")
]
OutFile = Annotated[Path, typer.Option("--out", help="The file to write.")]
Overrides = Annotated[list[str], _repeated("--set", metavar="KEY=VALUE", help="As train.lr=3.0e-4; repeat.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do it anew, in place of what is there.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Folder for prepared volumes, shared by runs.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]


def _brain(default: str) -> Any:
    """The option that says how brains are found, with what holds where it is left out."""
    ways = "estimate, deepbet, hd-bet, auto (what is installed), or a command with {in} and {out}"
    text = f"How the brain of a head without a mask is found: {ways}. [default: {default}]"
    return typer.Option("--brain", metavar="WAY", help=text)


Brain = Annotated[str | None, _brain("as BUNDLE says")]
FittedBrain = Annotated[str | None, _brain("as CONFIG or the bundle it starts from says, else auto")]
AtlasFile = Annotated[
    Path | None,
    typer.Option(
        "--atlas",
        callback=_there("atlas", "a label image .nii or .nii.gz"),
        help="Label image in the bundle's template space: the table of lesions names their regions.",
    ),
]
AtlasNames = Annotated[
    Path | None,
    typer.Option(
        "--atlas-names",
        callback=_there("names of an atlas", "a table .tsv with the columns index and name"),
        help="Names of its labels. [default: the .tsv beside it]",
    ),
]
SplitName = Annotated[
    Literal["train", "validation", "test"] | None, typer.Option("--split", help="Only the cases of this split.")
]
CalibrationSplit = Annotated[
    Literal["train", "validation", "test"] | None,
    typer.Option(
        "--split", help="Only the cases of this split. [default: validation where there are splits, else all]"
    ),
]
Contrast = Annotated[str | None, typer.Option("--contrast", help="Of a single image whose name does not tell.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]

Subjects = Annotated[int, typer.Option("--subjects", min=1, help="How many; a larger number adds to a cohort.")]
Contrasts = Annotated[
    list[str], _repeated("--contrast", default=("T1w", "FLAIR"), help="A contrast of every subject's scans; repeat.")
]
Pathology = Annotated[
    Literal[
        "glioma",
        "stroke",
        "ms",
        "mixed",
        "wmh",
        "haemorrhage",
        "resection",
        "atrophy",
        "stroke-acute",
        "stroke-chronic",
    ]
    | None,
    typer.Option(
        "--pathology", help="Without it all are healthy; mixed: glioma, stroke and ms in turn; a stroke is of any age."
    ),
]
TissueMaps = Annotated[
    bool, typer.Option("--maps", help="Also maps of T1, T2 and proton density, in derivatives/maps.")
]
ShareHealthy = Annotated[float, typer.Option("--share-healthy", min=0, max=1, help="Share of healthy subjects.")]
Spacing = Annotated[tuple[float, float, float], typer.Option("--spacing-mm", metavar="X Y Z", help="Voxel size.")]

LabelMaps = Annotated[
    Path | None,
    typer.Option(
        "--labelmaps",
        callback=_there("folder of label maps", "files *dseg.nii.gz with FreeSurfer's labels"),
        help="Folder of label maps *dseg.nii.gz whose people lend their anatomy, instead of the template.",
    ),
]
Picture = Annotated[Path | None, typer.Option("--picture", help=f"PNG of the first {PICTURED} subjects.")]

SliceThickness = Annotated[
    float | None, typer.Option("--slice-thickness-mm", help="Where slices overlap or leave gaps; else the spacing.")
]

Shares = Annotated[
    list[str], _repeated("--split", metavar="NAME=SHARE", help="train=32 (subjects) or train=0.8; repeat.")
]
Fold = Annotated[
    str | None,
    typer.Option("--fold", metavar="K/N", help="The k-th of n folds is the test split; shares are of the rest."),
]
Stratify = Annotated[
    list[str],
    _repeated("--stratify", metavar="COLUMN", help="Balance the splits by it; repeat. [default: site and health]"),
]

Reconstructor = Annotated[
    Path | None, typer.Option("--reconstructor", callback=_there(*BUNDLE), help="Bundle of stage 1.")
]
Init = Annotated[
    Path | None, typer.Option("--init", callback=_there(*BUNDLE), help="Detector's bundle to continue from.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="How many labelled patients may be learnt from.")]
Licence = Annotated[str, typer.Option("--data-licence", help="Of the training data, stated in the bundle.")]

Rules = Annotated[
    list[str],
    _repeated(
        "--rule",
        metavar="RULE[:KEY=VALUE,...]",
        default=(DEFAULT,),
        help=f"{', '.join(plugins.names('rules'))}, with its options if it has any; repeat, the first is the default.",
    ),
]

Maps = Annotated[
    list[str],
    _repeated(
        "--maps",
        help="score, probability, map, uncertainty, intensity, asymmetry, mask, brain, reconstruction or all; repeat. "
        "[default: score, mask, brain]",
    ),
]
Rule = Annotated[str | None, typer.Option("--rule", help="Calibrated rule that makes the mask.")]

Engine = Annotated[
    Literal["local", "processes", "ray"] | None,
    typer.Option(
        "--engine",
        help="local: this process; processes: workers of one thread each; ray: a Ray cluster. "
        "[default: processes where --nprocs is above 1, else local]",
    ),
]
Nprocs = Annotated[
    int | None, typer.Option("--nprocs", min=1, help="How many workers. [default: one a core; of ray one a device]")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of a Ray cluster. [default: RAY_ADDRESS, else one is started on this machine]"),
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Every n-th case from the i-th on; shards may run at the same time."),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Also try cases again that failed and whose files are unchanged.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be done, what is wrong with cases, and what it takes.")
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Folder of pages, written at the end as 'hybriduad report' does."),
]
LogJson = Annotated[
    Path | None, typer.Option("--log-json", help="File that the log is added to, a JSON object a line.")
]

By = Annotated[list[str], _repeated("--by", metavar="COLUMN", help="Also the figures by this column; repeat.")]
Draws = Annotated[int, typer.Option("--draws", min=1, help="Of the bootstrap over subjects.")]

Versions = Annotated[
    int,
    typer.Option(
        "--versions",
        min=1,
        help="Painted versions of each scan; of large lesions a third as many more.",
    ),
]
Labelled = Annotated[
    str | None,
    typer.Option("--labelled", callback=_there(*COHORT), help="Cases whose real lesions are looked for beside."),
]
Like = Annotated[
    str | None,
    typer.Option(
        "--like",
        callback=_there(*COHORT),
        help="Annotated cases, those of the training too: contrasts and heights of their lesions weigh the painted.",
    ),
]
BesideLesions = Annotated[
    bool, typer.Option("--beside-lesions", help="Paint into annotated cases too, apart from their lesions.")
]
FalseLesions = Annotated[float, typer.Option("--false-lesions", min=0, help="Of a healthy scan, on average.")]

AllowLeakage = Annotated[
    bool, typer.Option("--allow-leakage", help="Go on where cases were used to make the model, and say so.")
]
NamedCohorts = Annotated[
    list[str],
    _repeated("--cohort", metavar="NAME=PATH", help="A cohort of CONFIG: manifest, BIDS folder, label maps; repeat."),
]
Folds = Annotated[list[int], _repeated("--fold", metavar="K", help="Only this fold; repeat. [default: all]")]
Systems = Annotated[
    list[str], _repeated("--system", metavar="NAME", help="Only this system of CONFIG; repeat. [default: all]")
]
TablesOnly = Annotated[bool, typer.Option("--tables-only", help="Run nothing: write the tables of what is done.")]
Evaluations = Annotated[list[str], typer.Argument(metavar="NAME=FOLDER", help="Two or more.")]

Count = Annotated[
    int | None, typer.Option("--count", min=1, help="How many samples; of all, of each. [default: 8; of all 4]")
]
