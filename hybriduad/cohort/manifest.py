"""Cohorts: manifest CSV, BIDS folder or one image -> cases; and the index that makes a manifest of a known layout.

Which rows may be used together: :mod:`hybriduad.cohort.splits` and :mod:`hybriduad.cohort.leakage`.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from hybriduad.cohort.leakage import check_leakage, identity_digests
from hybriduad.cohort.splits import folds, split_cases
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.types import Case, Health, Split
from hybriduad.datasets._layout import (
    COLUMNS,
    CONTRASTS,
    IDENTITY,
    LESION_FREE,
    MASKS,
    contrast_of,
    dataset_name,
    entities,
    is_column,
    label,
    refuse_broken,
)

__all__ = [
    "COLUMNS",
    "CONTRASTS",
    "check_leakage",
    "folds",
    "identity_digests",
    "index",
    "read_case",
    "read_cohort",
    "read_manifest",
    "split_cases",
    "write_manifest",
]

PREFIXES = {"subject": "sub-", "session": "ses-", "run": "run-"}


def read_cohort(cohort: str | Path, *, split: Split | None = None, contrast: str | None = None) -> list[Case]:
    """The cases of a manifest CSV, a BIDS folder or one image; with ``split``, those of that split only.

    ``contrast`` names the contrast of an image whose file name does not.

    Raises:
        DataError: ``cohort`` is none of the three, cannot be used, or has no case (of that split).
    """
    path = Path(os.path.abspath(cohort))
    if contrast is not None and not _is_image(path.name):
        raise ConfigError("contrast without an image", got=f"{contrast!r} for {path}", expected="one image")
    if path.is_dir():
        cases = _distinct(plugins.load("datasets", "bids").cases(path), path)
    elif _is_image(path.name):
        cases = [read_case(path, contrast)]
    elif path.suffix.lower() == ".csv":
        cases = read_manifest(path)
    else:
        what = "no such cohort" if not path.exists() else "cohort of unknown kind"
        kinds = "a manifest .csv, a BIDS folder, or an image .nii or .nii.gz"
        raise DataError(what, got=path, expected=kinds, mend="'hybriduad index' makes a manifest of a data set")
    if split is None:
        return cases
    chosen = [case for case in cases if case.split == split]
    if not chosen:
        there = sorted({case.split for case in cases} - {""}) or "none"
        raise DataError("no case of the split", where=path, got=f"splits {there}", expected=split, mend="index --split")
    return chosen


def read_case(image: str | Path, contrast: str | None = None) -> Case:
    """One image as a case. Subject, session, run and contrast come from its BIDS name (``sub-01_FLAIR.nii.gz``), else
    the subject from the file's name without its contrast (``scan7_FLAIR.nii.gz``) or, if nothing is left, its folder's.

    Raises:
        DataError: no such file, or a contrast that is unknown.
    """
    path = Path(os.path.abspath(image))
    if not path.is_file():
        raise DataError("missing file", where=path)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    labels, suffix = entities(path.name) or ({}, stem.rpartition("_")[2])
    contrast = contrast or contrast_of(labels, suffix)
    if contrast not in CONTRASTS:
        spelt = {name.lower(): name for name in CONTRASTS}
        near = difflib.get_close_matches((contrast or suffix).lower(), spelt, n=1) or ["flair"]
        raise DataError(
            "unknown contrast",
            where=path,
            got=repr(contrast or suffix),
            expected=f"one of {list(CONTRASTS)}",
            mend=f"name it, as in --contrast {spelt[near[0]]}, or rename to sub-X_FLAIR.nii.gz",
        )
    root = next((p.parent for p in path.parents if labels and p.name == f"sub-{labels['sub']}"), path.parent)
    subject = labels.get("sub", stem.removesuffix(suffix) if suffix in CONTRASTS else stem)
    subject = label(subject) or label(path.parent.name) or "scan"
    return Case(dataset_name(root), subject, {contrast: path}, labels.get("ses", ""), labels.get("run", ""))


def read_manifest(path: str | Path, *, root: str | Path | None = None) -> list[Case]:
    """Read a manifest: UTF-8, comma-separated, one row a case.

    Columns: ``dataset`` and ``subject`` (required), ``session``, ``run``; the contrasts (:data:`CONTRASTS`), at
    least one of them filled in each row; ``reference``; ``brain``, ``lesion``, ``ignore``; ``lesion_free_FLAIR`` and so
    on, the same brain without its lesion; ``health`` (healthy, lesion or unknown); ``split`` (train, validation or
    test). Every other column is an attribute. Subjects, sessions and runs are reduced to letters and digits, as BIDS
    names want. A row with a lesion mask that states no health has health "lesion".

    Paths: a relative path is below the manifest's folder and may not leave it, by ``..`` or by a link; an absolute path
    may be anywhere. With ``root``, relative paths start there and *every* path, absolute paths too, must end inside it:
    for a manifest that someone else wrote.

    Raises:
        DataError: not a readable table, a missing or misspelt column, no row, or bad rows, all of them with their
            number (the header is row 1, as in a spreadsheet) and everything wrong with each row.
    """
    path = Path(path)
    header, rows = _table(path)
    folder = Path(os.path.abspath(root if root is not None else path.parent))
    cases: list[Case] = []
    problems = [f"column {name!r} holds images, but is none of {list(CONTRASTS)}" for name in _strays(header, rows)]
    seen: dict[tuple[str, ...], int] = {}
    spelt: dict[tuple[str, str], str] = {}
    for number, cells in rows:
        if len(cells) != len(header):
            problems.append(f"row {number}: {len(cells)} cells, but the header has {len(header)}")
            continue
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        case, faults = _case(row, folder, confine=root is not None)
        person, raw = (case.dataset, case.subject), row["subject"].removeprefix("sub-")
        if all(person):
            if spelt.setdefault(person, raw) != raw:
                faults.append(f"subjects {spelt[person]!r} and {raw!r} both become {case.subject!r}")
            if (first := seen.setdefault((*person, case.session, case.run), number)) != number:
                faults.append(f"duplicate case {case.name} of {case.dataset!r}, first in row {first}")
        problems += [f"row {number}: {fault}" for fault in faults]
        cases.append(case)
    if problems:
        raise DataError(f"{len(problems)} problems", where=path, mend="; ".join(problems))
    if not cases:
        raise DataError("empty cohort", where=path, got="a header and no row", expected="one row a case")
    return cases


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and numbered rows of a CSV; rows without any content are skipped but counted."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise DataError("cannot read manifest", where=path, got=error.strerror) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("manifest is not a CSV", where=path, got=error, expected="UTF-8, comma-separated") from error
    if "\0" in text or not lines:
        raise DataError("manifest is empty or not text", where=path, expected="UTF-8, comma-separated")
    header = [name.strip() for name in lines[0]]
    right = {column.casefold(): column for column in COLUMNS}
    wrong = ["columns are separated by semicolons, not commas"] if len(header) == 1 and ";" in header[0] else []
    wrong += [f"{n!r} must be {right[n.casefold()]!r}" for n in header if right.get(n.casefold(), n) != n]
    wrong += [
        f"{name!r} is missing" for name in ("dataset", "subject") if name.casefold() not in map(str.casefold, header)
    ]
    wrong += [f"{name!r} stands twice" for name in sorted(set(header)) if name and header.count(name) > 1]
    wrong += [f"column {place} has no name" for place, name in enumerate(header, start=1) if not name]
    if not any(name.casefold() in map(str.casefold, CONTRASTS) for name in header):
        wrong.append(f"no image column, one of {list(CONTRASTS)}")
    if wrong:
        raise DataError("bad columns", where=path, got=", ".join(map(repr, header)), mend="; ".join(wrong))
    return header, [(number, cells) for number, cells in enumerate(lines[1:], start=2) if any(map(str.strip, cells))]


def _strays(header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Columns that hold images and nothing else under a name that nothing reads: a contrast misnamed, T1 for T1w."""
    values = {name: {cells[i] for _, cells in rows if i < len(cells) and cells[i]} for i, name in enumerate(header)}
    return [n for n, v in values.items() if n not in COLUMNS and v and all(map(_is_image, v))]


def _is_image(name: str) -> bool:
    return name.strip().endswith((".nii", ".nii.gz"))


def _case(row: Mapping[str, str], folder: Path, confine: bool) -> tuple[Case, list[str]]:
    """The case of a row, and everything that is wrong with the row."""
    faults = [f"no {name}" for name in ("dataset", "subject") if not row[name]]
    names = {key: label(row.get(key, "").removeprefix(prefix)) for key, prefix in PREFIXES.items()}
    faults += [f"{k} {row[k]!r} has no letter or digit" for k, name in names.items() if row.get(k) and not name]
    located: dict[str, Path] = {}
    for column in (*CONTRASTS, *MASKS, *LESION_FREE.values()):
        if text := row.get(column, ""):
            located[column] = Path(os.path.normpath(folder / text))
            if fault := _fault(located[column], folder, confine or not Path(text).is_absolute()):
                faults.append(f"{column}: {fault}")
    images = {contrast: located[contrast] for contrast in CONTRASTS if contrast in located}
    if not images:
        faults.append(f"no image in any of the columns {[c for c in CONTRASTS if c in row]}")
    twins = {contrast: located[column] for contrast, column in LESION_FREE.items() if column in located}
    faults += [f"{LESION_FREE[contrast]}, but no {contrast}" for contrast in twins if contrast not in images]
    reference = row.get("reference", "")
    if reference and reference not in images:
        faults.append(f"reference {reference!r} is not an image of the row, which has {list(images)}")
    for key, allowed in (("health", get_args(Health)), ("split", get_args(Split))):
        if row.get(key, "") not in ("", *allowed):
            faults.append(f"{key} {row[key]!r} is not one of {[value for value in allowed if value]}")
    health = row.get("health", "")
    if health in ("", "unknown"):
        health = "lesion" if "lesion" in located else "unknown"
    case = Case(
        row["dataset"],
        names["subject"],
        images,
        names["session"],
        names["run"],
        reference,
        located.get("brain"),
        located.get("lesion"),
        located.get("ignore"),
        cast(Health, health),
        cast(Split, row.get("split", "")),
        {key: value for key, value in row.items() if key not in COLUMNS and value},
        twins,
    )
    return case, faults


def _fault(path: Path, folder: Path, inside: bool) -> str:
    try:
        if inside and not path.resolve().is_relative_to(folder.resolve()):
            return f"path outside its root: {path} is not below {folder}; write it absolute if that is meant"
    except (OSError, RuntimeError) as error:
        return f"links that lead nowhere: {path} ({error})"
    return "" if path.is_file() else f"missing file {path}"


def write_manifest(cases: Iterable[Case], path: str | Path) -> None:
    """Write a manifest that :func:`read_manifest` reads back as the same cases; it appears complete or not at all.

    Paths below the manifest's folder are written relative to it, so that folder can be moved; others absolute.

    Raises:
        DataError: no case, the same case twice, a case with a fault, a link to nothing, a file name that is no UTF-8,
            or an attribute with the name of a manifest column.
    """
    path = Path(path)
    text = _text(_distinct(cases, path), path)
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        got = ascii(error.object[: error.start].rpartition("\n")[2][-60:] + error.object[error.start])
        mend = "rename those files or folders, or write the manifest below them"
        raise DataError("file name that is no UTF-8", where=path, got=f"a row with {got}", mend=mend) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _text(cases: Sequence[Case], path: Path) -> str:
    folder = Path(os.path.abspath(path.parent))
    for case in cases:
        case.check(case.faults)
    used = [image for case in cases for image in (*case.images.values(), case.brain, case.lesion, case.ignore)]
    refuse_broken([image for image in used if image is not None], path)
    contrasts = [name for name in CONTRASTS if any(name in case.images for case in cases)]
    attributes = list(dict.fromkeys(key for case in cases for key in case.attributes))
    if clash := [key for key in attributes if is_column(key)]:
        raise DataError("attributes with the name of a manifest column", where=path, got=clash, mend="rename them")
    twins = [LESION_FREE[name] for name in CONTRASTS if any(name in case.lesion_free for case in cases)]
    header = [*IDENTITY, *contrasts, "reference", *MASKS, *twins, "health", "split", *attributes]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for case in cases:
        paths = {**case.images, "brain": case.brain, "lesion": case.lesion, "ignore": case.ignore}
        paths |= {LESION_FREE[name]: path for name, path in case.lesion_free.items()}
        row = {key: getattr(case, key) for key in (*IDENTITY, "reference", "health", "split")}
        row |= {key: _written(image, folder) for key, image in paths.items() if image is not None}
        writer.writerow([row.get(key, "") if key in COLUMNS else case.attributes.get(key, "") for key in header])
    return out.getvalue()


def _written(image: Path, folder: Path) -> str:
    image = Path(os.path.abspath(image))
    inside = image.is_relative_to(folder) and image.resolve().is_relative_to(folder.resolve())
    return (image.relative_to(folder) if inside else image).as_posix()


def _distinct(cases: Iterable[Case], where: Path) -> list[Case]:
    listed = list(cases)
    if not listed:
        raise DataError("empty cohort", where=where, expected="at least one case")
    seen: set[tuple[str, ...]] = set()
    for case in listed:
        identity = (case.dataset, case.subject, case.session, case.run)
        if identity in seen:
            raise DataError("duplicate case", where=where, got=f"{case.name} of {case.dataset!r} twice")
        seen.add(identity)
    return listed


def index(
    layout: str,
    dataset_folder: str | Path,
    out_csv: str | Path,
    *,
    split: Mapping[str, int] | Mapping[str, float] | None = None,
    seed: int = 0,
    stratify: Sequence[str] | None = None,
    fold: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> list[Case]:
    """Write the manifest of a data set in a known ``layout`` (a plug-in of ``hybriduad/datasets``), split if asked.

    With the layout ``csv`` the data set is a manifest, and only its splits are new.
    ``split``, ``seed``, ``stratify`` and ``fold`` as in :func:`split_cases`. An equal manifest there stays.

    Raises:
        ConfigError: unknown layout or impossible split.
        DataError: nothing of that layout in the folder, a case with a fault, or ``out_csv`` exists and holds something
            else.
    """
    out_csv = Path(out_csv)
    source = Path(os.path.abspath(dataset_folder))
    cases = read_manifest(source) if layout == "csv" else plugins.load("datasets", layout).cases(source)
    cases = _distinct(cases, Path(dataset_folder))
    if split or fold:
        cases = split_cases(cases, split or {}, seed, stratify, fold)
    if out_csv.exists() and not overwrite and out_csv.read_text(encoding="utf-8") != _text(cases, out_csv):
        raise DataError("another manifest is there", where=out_csv, mend="choose another --out, or use --overwrite")
    write_manifest(cases, out_csv)
    return cases
