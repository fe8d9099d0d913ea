"""Digests of a case's files: work is recognised by the content of its files, whatever their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.datasets._layout import MASKS, refuse_broken


def file_digest(path: Path) -> str:
    """The sha256 (hex) of a file's bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        refuse_broken([Path(path)], Path(path).parent)
        raise DataError("cannot read file", where=path, got=error.strerror) from error


def mask_files(case: Case) -> dict[str, Path]:
    """The masks that a case has: brain, lesion, ignore."""
    return {kind: path for kind in MASKS if (path := getattr(case, kind)) is not None}
