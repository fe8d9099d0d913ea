"""What the layouts share: contrast names, manifest columns, BIDS file names, and the search for files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hybriduad.core.errors import DataError

CONTRASTS = ("FLAIR", "T1w", "T2w", "T1wCE", "PDw", "T2starw")
"""The contrasts that a case may have: BIDS suffixes, and T1wCE for T1w after a contrast agent."""
IDENTITY = ("dataset", "subject", "session", "run")
MASKS = ("brain", "lesion", "ignore")
LESION_FREE = {contrast: f"lesion_free_{contrast}" for contrast in CONTRASTS}
"""Contrast -> the column of the same brain without its lesion."""
COLUMNS = (*IDENTITY, *CONTRASTS, "reference", *MASKS, *LESION_FREE.values(), "health", "split")
"""Every manifest column that is not an attribute, in the order in which they are written."""

_IMAGE = re.compile(r"(?P<stem>.+)\.nii(\.gz)?")


def is_column(name: str) -> bool:
    """Whether a manifest uses ``name`` itself, in any spelling, so that no attribute may have it."""
    return name.casefold() in {column.casefold() for column in COLUMNS}


def label(text: str) -> str:
    """``text`` with letters and digits only, as BIDS wants its labels: ``"patient_01"`` becomes ``"patient01"``."""
    return re.sub(r"[^0-9A-Za-z]", "", text)


def entities(name: str) -> tuple[dict[str, str], str] | None:
    """``sub-01_ce-gad_T1w.nii.gz`` -> ``({"sub": "01", "ce": "gad"}, "T1w")``; None for a name that is not BIDS."""
    match = _IMAGE.fullmatch(name)
    *pairs, suffix = match["stem"].split("_") if match else [""]
    labels = dict(pair.partition("-")[::2] for pair in pairs)
    return (labels, suffix) if "sub" in labels and all(labels.values()) else None


def contrast_of(labels: Mapping[str, str], suffix: str) -> str:
    """The contrast that BIDS labels and a suffix stand for; "" for what is no usable scan (phase, contrast FLAIR)."""
    if suffix not in CONTRASTS or labels.get("part", "mag") != "mag" or "desc" in labels:
        return ""
    if "ce" in labels:
        return "T1wCE" if suffix == "T1w" else ""
    return suffix


def dataset_name(root: Path) -> str:
    """``Name`` in ``dataset_description.json``, else the folder's name, in which what is no UTF-8 is replaced.

    Raises:
        DataError: the description is not a JSON object.
    """
    description = root / "dataset_description.json"
    folder = os.fsencode(root.absolute().name).decode(errors="replace")
    if not description.is_file():
        return folder
    try:
        name = json.loads(description.read_text(encoding="utf-8-sig")).get("Name")
    except (ValueError, AttributeError, OSError) as error:
        raise DataError("cannot read data set description", where=description, got=error, expected="JSON") from error
    return str(name or folder)


def listing(items: Iterable[object]) -> str:
    """Items in a row for an error sentence, the first ten by name."""
    shown = [str(item) for item in items]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def files(root: str | Path, *patterns: str) -> list[Path]:
    """The files under ``root`` that match any glob pattern, sorted, without hidden files (macOS leaves ``._x.nii.gz``).

    Links to nothing are among them (content of git-annex that was not fetched): whoever reads one says so.

    Raises:
        DataError: ``root`` is no folder that can be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("no such folder", got=root, expected="the folder of a data set")
    if reason := closed(root):
        raise DataError("cannot read folder", where=root, got=reason)
    found = {path for pattern in patterns for path in root.glob(pattern) if not path.name.startswith(".")}
    return sorted(path for path in found if not os.path.isdir(path))


def closed(folder: Path) -> str:
    """Why a folder cannot be read, "" if it can: what is in such a folder a glob passes over without a word."""
    try:
        with os.scandir(folder):
            os.stat(os.path.join(folder, os.curdir))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def is_broken(path: Path) -> bool:
    """Whether a file is a link to nothing."""
    return os.path.islink(path) and not os.path.exists(path)


def refuse_broken(paths: Iterable[Path], where: Path) -> None:
    """Make sure that no file is a link to nothing.

    Raises:
        DataError: some are; the sentence names them.
    """
    if broken := [path for path in paths if is_broken(path)]:
        raise DataError("links to nothing", where=where, got=listing(broken), mend="fetch them, as with 'datalad get'")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case: ``labels`` from their names, ``images`` by contrast, and every file by its part."""

    labels: Mapping[str, str]
    images: Mapping[str, Path]
    parts: Mapping[str, Path]


def gather(root: str | Path, pattern: str, contrasts: Mapping[str, str], layout: str) -> list[CaseFiles]:
    """Group the NIfTI files under ``root`` by the named groups of ``pattern``, a regular expression for their relative
    paths, all but the group ``part``, which ``contrasts`` translates to a contrast where it is a scan.

    Raises:
        DataError: as :func:`files`; a folder below cannot be read, or a file is a link to nothing; nothing matches (the
            sentence names ``layout``); two files are the same part of the same case; masks without any scan.
    """
    root = Path(root)
    groups: dict[tuple[tuple[str, str], ...], dict[str, Path]] = {}
    found = files(root, "**/*.nii", "**/*.nii.gz")
    refuse_broken(found, root)
    for folder, names, _ in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in names:
            if reason := closed(Path(folder, name)):
                raise DataError("cannot read folder", where=Path(folder, name), got=reason)
    for path in found:
        match = re.fullmatch(r"(?:.*?/)??" + pattern, path.relative_to(root).as_posix())
        if match is None:
            continue
        labels = {key: value or "" for key, value in match.groupdict().items()}
        part = labels.pop("part")
        parts = groups.setdefault(tuple(labels.items()), {})
        if part in parts:
            raise DataError(
                f"two files for {part} of one case",
                where=root,
                got=f"{parts[part]} and {path}",
                mend="name the folder that holds one of the two",
            )
        parts[part] = path
    if not groups:
        raise DataError("no case of this layout", where=root, expected=layout)
    gathered = []
    for key, parts in sorted(groups.items()):
        images = {contrast: parts[part] for part, contrast in contrasts.items() if part in parts}
        if not images:
            raise DataError("mask without a scan", got=listing(parts.values()), expected=layout)
        gathered.append(CaseFiles(dict(key), images, parts))
    return gathered
