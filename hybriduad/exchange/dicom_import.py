"""A folder of DICOM series to a BIDS folder with a manifest, without what names a patient.

Subjects are called by running numbers or as the user says, sessions by running numbers; of the header only numbers and
names of the scanner are kept. Faces are kept as they are: a scan of a head still shows who it is of.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hybriduad import __version__
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import ConfigError, DataError, reason_of
from hybriduad.core.requests import refuse_strangers
from hybriduad.datasets._layout import CONTRASTS, label
from hybriduad.exchange.contrast_guess import FEWEST_SLICES, Guess, guess_contrast, no_anatomy
from hybriduad.exchange.dicom_conversion import Converted, convert_series
from hybriduad.exchange.dicom_extra import dicom_module, quiet
from hybriduad.exchange.dicom_series import DicomSeries, find_series
from hybriduad.scan.volumes import Image, read_volume, write_atomically, write_json, write_volume

MANIFEST, TABLE = "cohort.csv", "series.tsv"
NONE = "none"
"""In place of a contrast: leave the series out."""
COLUMNS = ("subject", "session", "series", "description", "contrast", "file", "why")
ABOUT = """# Scans converted from DICOM by hybriduad

`series.tsv` says of every series what it was taken for and why, or why it was left out; `cohort.csv` is the manifest.
Nothing in the files names a patient, but the heads are not defaced.
"""


@dataclass(frozen=True)
class Row:
    """What became of a series or of a volume in it: ``file`` is "" where it was left out, and ``why`` says so."""

    subject: str
    session: str
    series: str
    description: str
    contrast: str = ""
    file: str = ""
    why: str = ""


@dataclass
class Imported:
    """The BIDS folder, a row for each series, and those that could not be converted with the reason."""

    out: Path
    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def import_dicom(
    folder: str | Path,
    *,
    out: str | Path,
    subject: str | None = None,
    contrasts: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Imported:
    """Convert the anatomical series below ``folder`` by dcm2niix (DOI 10.1016/j.jneumeth.2016.03.001) into BIDS.

    Of several series of one contrast in a session that with the most voxels is taken.

    Args:
        folder: DICOM files, in any depth, of one patient or of several. Each is a subject, and each study a session.
        out: the BIDS folder: scans, ``cohort.csv``, and ``series.tsv`` with a row a series. With ``subject`` it may
            hold other subjects already.
        subject: what to call the patient, where there is one; by default subjects are 01, 02 and so on.
        contrasts: series number or description -> contrast, or "none" to leave it out; instead of the guess.
        overwrite: empty a folder of such scans first.

    Raises:
        ConfigError: the extra ``dicom`` is not installed, an unknown contrast, several patients under one name, or
            something else in ``out``.
        DataError: no DICOM image, an override for no series, or no usable scan at all.
    """
    for module in ("pydicom", "dcm2niix"):
        dicom_module(module)
    stated = {name.casefold(): contrast for name, contrast in (contrasts or {}).items()}
    if unknown := sorted(set(stated.values()) - {*CONTRASTS, NONE}):
        raise ConfigError("unknown contrast", got=unknown, expected=f"some of {[*CONTRASTS, NONE]}")
    if subject is not None:
        subject = label(subject.removeprefix("sub-"))
        if not subject:
            raise ConfigError("subject without a letter or digit", expected="a label such as 01")
    with quiet():
        found = find_series(folder)
    people = sorted({series.patient for series in found})
    if subject is not None and len(people) > 1:
        mend = "import each from its own folder, or leave --subject out"
        raise ConfigError("several patients under one name", got=f"{len(people)} patients in the folder", mend=mend)
    known = {name.casefold() for series in found for name in (series.label, series.description)}
    if strange := sorted(set(stated) - known):
        there = sorted({series.label for series in found})
        raise DataError("contrast of a series that is not there", got=strange, expected=f"some of {there}")
    target = Path(out)
    rows_before = _begin(target, subject, overwrite)
    names = {person: subject or f"{person:02d}" for person in people}
    imported = Imported(target)
    with tempfile.TemporaryDirectory(dir=target, prefix=".import-") as scratch:
        for person in people:
            studies = sorted({series.study for series in found if series.patient == person})
            for study in studies:
                session = f"{study:02d}" if len(studies) > 1 else ""
                of_session = [series for series in found if (series.patient, series.study) == (person, study)]
                _import_session(of_session, names[person], session, stated, imported, Path(scratch))
    if not any(row.file for row in imported.rows):
        listed = "; ".join(f"series {row.series}: {row.why}" for row in imported.rows[:8])
        _drop_empty(target, rows_before)
        mend = f"name what it is, as in --contrast {imported.rows[0].series}=FLAIR"
        raise DataError("no usable scan", where=folder, got=listed, mend=mend)
    _finish(target, [*rows_before, *imported.rows])
    return imported


def _begin(out: Path, subject: str | None, overwrite: bool) -> list[Row]:
    """Make the folder, or check that a subject may be added to it; the rows of those that are there."""
    table = out / TABLE
    if overwrite and table.is_file():
        shutil.rmtree(out)
    if not table.is_file():
        refuse_strangers(out)
    else:
        mend = "choose another name or folder, or --overwrite"
        if subject is None:
            raise ConfigError("imported scans in the same place", where=out, mend="name the patient by --subject")
        if (out / f"sub-{subject}").exists():
            raise ConfigError("subject already there", where=out, got=f"sub-{subject}", mend=mend)
    out.mkdir(parents=True, exist_ok=True)
    if not table.is_file():
        return []
    lines = table.read_text(encoding="utf-8").splitlines()[1:]
    return [Row(*("" if cell == "n/a" else cell for cell in line.split("\t"))) for line in lines]


def _import_session(
    found: list[DicomSeries],
    subject: str,
    session: str,
    stated: Mapping[str, str],
    imported: Imported,
    scratch: Path,
) -> None:
    """Convert what may be anatomy, keep the best volume of each contrast, and say why of every series."""
    usable: dict[str, list[tuple[Row, Image, Converted]]] = defaultdict(list)
    for series in found:
        row = Row(subject, session, series.label, series.description)
        override = stated.get(series.label.casefold()) or stated.get(series.description.casefold())
        reason = no_anatomy(series) if override is None else "left out as stated" if override == NONE else ""
        if reason:
            imported.rows.append(replace(row, why=reason))
            continue
        place = Path(tempfile.mkdtemp(dir=scratch))
        try:
            volumes = convert_series(series.files, place)
        except DataError as error:
            name = f"sub-{subject}{f' ses-{session}' if session else ''} series {series.label}"
            imported.failed[name] = reason_of(error)
            imported.rows.append(replace(row, why=reason_of(error)))
            continue
        for volume in volumes:
            part = replace(row, series=f"{series.label}{volume.suffix}")
            guess = Guess(override, "as stated") if override else guess_contrast(series, volume.sidecar)
            image, fault = _read(volume.path, forced=override is not None)
            if image is None or not guess.contrast:
                imported.rows.append(replace(part, why=fault or guess.why))
            else:
                chosen = replace(part, contrast=guess.contrast, why=guess.why)
                usable[guess.contrast].append((chosen, image, volume))
        shutil.rmtree(place)
    for contrast, candidates in usable.items():
        best = max(candidates, key=lambda candidate: candidate[1].data.size)
        for row, image, volume in candidates:
            if row is not best[0]:
                row = replace(row, why=f"{row.why}, but series {best[0].series} is kept, which has no fewer voxels")
            else:
                path = _write(imported.out, subject, session, contrast, image, volume)
                row = replace(row, file=path.relative_to(imported.out).as_posix())
            imported.rows.append(row)


def _read(path: Path, *, forced: bool) -> tuple[Image | None, str]:
    """The volume, or why it is none."""
    try:
        image = read_volume(path)
    except DataError:  # whose sentence names a file that will not be there
        return None, "no single volume of numbers: several in time, or a damaged image"
    if min(image.data.shape) < FEWEST_SLICES and not forced:
        return None, f"{min(image.data.shape)} slices, fewer than {FEWEST_SLICES}"
    return image, ""


def _write(out: Path, subject: str, session: str, contrast: str, image: Image, volume: Converted) -> Path:
    """Scan and sidecar in their BIDS place, with a fresh header: that of dcm2niix holds the time of day."""
    folder = out / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    agent, suffix = ("_ce-gadolinium", "T1w") if contrast == "T1wCE" else ("", contrast)
    path = folder / f"sub-{subject}{f'_ses-{session}' if session else ''}{agent}_{suffix}.nii.gz"
    limits = np.iinfo(np.int16)
    whole = np.array_equal(image.data, np.rint(image.data)) and limits.min <= image.data.min() <= image.data.max()
    write_volume(path, image.data, image.grid, np.int16 if whole and image.data.max() <= limits.max else np.float32)
    write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), volume.facts)
    return path


def _drop_empty(out: Path, rows_before: list[Row]) -> None:
    if not rows_before and not any(out.iterdir()):
        out.rmdir()


def _finish(out: Path, rows: list[Row]) -> None:
    """The files about the whole folder, and last the table of the series."""
    about = {"BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "hybriduad", "Version": __version__}]}
    about |= {"Name": out.absolute().name, "DatasetType": "raw"}
    write_json(out / "dataset_description.json", about)
    write_atomically(out / "README.md", ABOUT.encode())
    write_atomically(out / ".bidsignore", f"{MANIFEST}\n{TABLE}\n".encode())
    write_manifest(read_cohort(out), out / MANIFEST)
    lines = [list(COLUMNS), *([getattr(row, name) for name in COLUMNS] for row in rows)]
    text = "\n".join("\t".join(" ".join(cell.split()) or "n/a" for cell in line) for line in lines)
    write_atomically(out / TABLE, (text + "\n").encode())
