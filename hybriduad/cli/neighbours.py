"""The verbs of what comes from other programs and goes to them: DICOM in and out, files for the next tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hybriduad.cli import options
from hybriduad.cli.outcomes import say_outcome
from hybriduad.core.errors import ConfigError, DataError


def _folder(what: str) -> Any:
    def check(path: Path) -> Path:
        if not path.is_dir():
            raise DataError(f"no such {what}", got=path, expected="a folder of DICOM files", mend="check the path")
        return path

    return check


DicomFolder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", callback=_folder("folder"), help="DICOM files of one or more patients."),
]
DicomSeries = Annotated[
    Path,
    typer.Argument(metavar="SERIES", callback=_folder("series"), help="Folder of the series that was predicted."),
]
CaseName = Annotated[str, typer.Argument(metavar="CASE", help="As sub-01 or sub-01_ses-02.")]
Subject = Annotated[str | None, typer.Option("--subject", help="What to call the patient. [default: 01, 02 ...]")]
SeriesContrasts = Annotated[
    list[str],
    typer.Option(
        "--contrast",
        default_factory=list,
        metavar="SERIES=CONTRAST",
        show_default=False,
        help="Number or description of a series, and FLAIR, T1w, T1wCE, T2w, PDw, T2starw or none; repeat.",
    ),
]
SeriesNumber = Annotated[str | None, typer.Option("--series", help="Its number, where several are on the same grid.")]
Seam = Annotated[float, typer.Option("--seam-mm", help="How far from the mask voxels may change.")]


def import_dicom(
    folder: DicomFolder,
    *,
    out: options.Out,
    contrasts: SeriesContrasts,
    subject: Subject = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Convert DICOM series to BIDS, by dcm2niix.

    Contrasts are guessed and said; series that are no anatomy of a brain are named and left out. Nothing that names a
    patient is written. Exits with 3 if a series could not be converted.
    """
    from hybriduad.exchange.dicom_import import import_dicom as run

    named: dict[str, str] = {}
    for assignment in contrasts:
        name, equals, contrast = assignment.rpartition("=")  # a description may hold the sign
        if not (name and equals and contrast):
            raise ConfigError("series without a contrast", got=repr(assignment), expected="SERIES=CONTRAST")
        named[name] = contrast
    imported = run(folder, out=out, subject=subject, contrasts=named, overwrite=overwrite)
    for row in imported.rows:
        who = f"sub-{row.subject}{f' ses-{row.session}' if row.session else ''}, series {row.series}"
        result = f"{row.contrast} in {row.file}: {row.why}" if row.file else f"left out: {row.why}"
        typer.echo(f"{who}: {result}")
    typer.echo(f"{sum(bool(row.file) for row in imported.rows)} scans, in {imported.out}")
    if imported.failed:
        raise typer.Exit(options.FAILED_CASES)


def dicom_seg(
    predictions: options.Predictions,
    case: CaseName,
    series: DicomSeries,
    *,
    out: options.OutFile,
    number: SeriesNumber = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a predicted mask as DICOM SEG.

    On the grid of the series that the scan was converted from, under the name of its patient.
    """
    from hybriduad.exchange.dicom_segmentation import write_dicom_seg

    voxels = write_dicom_seg(predictions, case, series, out=out, number=number, overwrite=overwrite)
    typer.echo(f"{voxels} voxels of lesion in {out}")


def fill(
    predictions: options.Predictions,
    cohort: options.Cohort,
    *,
    out: options.Out,
    seam_mm: Seam = 6.0,
    split: options.SplitName = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Fill predicted lesions, for the next tool.

    Scans of every contrast that the model takes with the pseudo-healthy reconstruction in place of the lesion, and the
    mask as fMRIPrep reads it. Exits with 3 if some cases failed; they are named at the end.
    """
    from hybriduad.exchange.filled_cohort import fill_cohort

    say_outcome(fill_cohort(predictions, cohort, out=out, seam_mm=seam_mm, split=split, overwrite=overwrite))
