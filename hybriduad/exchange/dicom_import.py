"""A folder of DICOM series to a BIDS folder with a manifest, without what names a patient.

Subjects are called by running numbers or as the user says, sessions by running numbers; of the header only numbers and
names of the scanner are kept. Faces are kept as they are: a scan of a head still shows who it is of.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hybriduad import __version__
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.aside import folder_aside, remove_abandoned
from hybriduad.core.errors import ConfigError, DataError, reason_of
from hybriduad.core.requests import refuse_strangers
from hybriduad.datasets._layout import CONTRASTS, label, listing
from hybriduad.exchange.contrast_guess import FEWEST_SLICES, Guess, guess_contrast, no_anatomy
from hybriduad.exchange.dicom_conversion import Converted, convert_series
from hybriduad.exchange.dicom_extra import dicom_module, quiet
from hybriduad.exchange.dicom_series import DicomSeries, find_series
from hybriduad.scan.volumes import Image, read_volume, write_atomically, write_json, write_volume

MANIFEST, TABLE = "cohort.csv", "series.tsv"
ABOUT_FOLDER = ("dataset_description.json", "README.md", ".bidsignore", MANIFEST, TABLE)
"""What an import writes about the whole folder."""
_ASIDE, _FRESH = ".import-", "bids"
"""Begins the name of the folder in which scans are converted, and the part of it that is renamed into place."""
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
        overwrite: put the new scans in the place of the imported scans in ``out``: of those of ``subject``, or without
            it of all. Those stay until the new ones are converted, and nothing else is ever removed.

    Raises:
        ConfigError: the extra ``dicom`` is not installed, an unknown contrast, several patients under one name, or
            something else in ``out``, or among what ``overwrite`` would replace.
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
    _check(target, subject, overwrite)
    names = {person: subject or f"{person:02d}" for person in people}
    imported = Imported(target)
    target.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target, _ASIDE)
    with folder_aside(target, _ASIDE) as scratch:
        for person in people:
            studies = sorted({series.study for series in found if series.patient == person})
            for study in studies:
                session = f"{study:02d}" if len(studies) > 1 else ""
                of_session = [series for series in found if (series.patient, series.study) == (person, study)]
                _import_session(of_session, names[person], session, stated, imported, scratch)
        if any(row.file for row in imported.rows):
            _put_in_place(target, scratch, imported.rows, subject)
    if not any(row.file for row in imported.rows):
        listed = "; ".join(f"series {row.series}: {row.why}" for row in imported.rows[:8])
        if not any(target.iterdir()):
            target.rmdir()
        mend = f"name what it is, as in --contrast {imported.rows[0].series}=FLAIR"
        raise DataError("no usable scan", where=folder, got=listed, mend=mend)
    write_manifest(read_cohort(target), target / MANIFEST)
    return imported


def _check(out: Path, subject: str | None, overwrite: bool) -> None:
    """Make sure that scans may be put into the folder, of all subjects or of one."""
    if not (out / TABLE).is_file():
        return refuse_strangers(out, lambda entry: entry.name.startswith(_ASIDE) or _of_macos(entry))
    if overwrite:
        return _check_replaceable(out, subject)
    if subject is None:
        raise ConfigError("imported scans in the same place", where=out, mend="name the patient by --subject")
    if (out / f"sub-{subject}").exists() or any(row.subject == subject for row in _read_table(out)):
        mend = "choose another name or folder, or --overwrite"
        raise ConfigError("subject already there", where=out, got=f"sub-{subject}", mend=mend)


def _check_replaceable(out: Path, subject: str | None) -> None:
    """Make sure that nothing but imported scans would be replaced.

    Masks beside them would go, and where patients are numbered anew a mask in the derivatives may become another's.
    """
    scans = [out / row.file for row in _read_table(out) if row.file]
    ours = {*scans, *(_sidecar(scan) for scan in scans), *(out / name for name in ABOUT_FOLDER)}
    place = out if subject is None else out / f"sub-{subject}"
    files = [path for path in place.rglob("*") if path.is_symlink() or not path.is_dir()]
    hidden = (path for path in files if path.relative_to(out).parts[0].startswith("."))  # never touched
    if strangers := sorted(set(files) - ours - {*hidden, *filter(_of_macos, files)}):
        mend = "move that away first, or choose another folder"
        mend += "" if subject else ", or redo one patient alone by --subject"
        got = listing(path.relative_to(out) for path in strangers)
        raise ConfigError("what no import wrote among the scans to overwrite", where=out, got=got, mend=mend)


def _of_macos(path: Path) -> bool:
    return path.name == ".DS_Store" or path.name.startswith("._")


def _put_in_place(out: Path, scratch: Path, rows: list[Row], subject: str | None) -> None:
    """Exchange the scans of the same subjects, or without ``subject`` all, for those in the scratch folder.

    The table names old and new scans meanwhile, so that --overwrite knows them where this is stopped.
    """
    before = _read_table(out)
    kept = [] if subject is None else [row for row in before if row.subject != subject]
    _write_table(out, [*before, *rows])  # first of all: by it the folder is known as one of imports
    about = {"BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "hybriduad", "Version": __version__}]}
    about |= {"Name": out.absolute().name, "DatasetType": "raw"}
    write_json(out / "dataset_description.json", about)
    write_atomically(out / "README.md", ABOUT.encode())
    write_atomically(out / ".bidsignore", f"{MANIFEST}\n{TABLE}\n".encode())
    (scratch / "old").mkdir()
    for name in sorted({f"sub-{row.subject}" for row in before} - {f"sub-{row.subject}" for row in kept}):
        if (out / name).is_dir():
            os.rename(out / name, scratch / "old" / name)
    try:
        for folder in (scratch / _FRESH).iterdir():
            os.rename(folder, out / folder.name)
    except BaseException:
        for folder in (scratch / "old").iterdir():
            if not (out / folder.name).exists():
                os.rename(folder, out / folder.name)
        raise
    _write_table(out, [*kept, *rows])


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
                path = _write(scratch / _FRESH, subject, session, contrast, image, volume)
                row = replace(row, file=path.relative_to(scratch / _FRESH).as_posix())
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
    write_json(_sidecar(path), volume.facts)
    return path


def _sidecar(scan: Path) -> Path:
    return scan.with_name(scan.name.removesuffix(".nii.gz") + ".json")


def _read_table(out: Path) -> list[Row]:
    """The series that the table of a folder lists; none where there is no table."""
    if not (out / TABLE).is_file():
        return []
    lines = (out / TABLE).read_text(encoding="utf-8").splitlines()[1:]
    return [Row(*("" if cell == "n/a" else cell for cell in line.split("\t"))) for line in lines]


def _write_table(out: Path, rows: list[Row]) -> None:
    lines = [list(COLUMNS), *([getattr(row, name) for name in COLUMNS] for row in rows)]
    text = "\n".join("\t".join(" ".join(cell.split()) or "n/a" for cell in line) for line in lines)
    write_atomically(out / TABLE, (text + "\n").encode())
