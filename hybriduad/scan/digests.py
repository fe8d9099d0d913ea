"""Digests of a case's files: work is recognised by the content of its files, whatever their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hybriduad.core.errors import DataError, ToolError
from hybriduad.core.types import Case
from hybriduad.datasets._layout import MASKS, is_broken


def file_digest(path: Path) -> str:
    """The sha256 (hex) of a file's bytes.

    Raises:
        DataError: the file cannot be read; a :class:`~hybriduad.core.errors.ToolError` if its disk or network fails.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(Path(path), error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """What is wrong with a file that the system does not read: no fault of its content, unless it is missing."""
    if isinstance(error, FileNotFoundError) and is_broken(path):
        return DataError("link to nothing", where=path, mend="fetch its content, as with 'datalad get'")
    if isinstance(error, FileNotFoundError):
        return DataError("missing file", where=path)
    kind = DataError if isinstance(error, IsADirectoryError | NotADirectoryError | PermissionError) else ToolError
    return kind("cannot read file", where=path, got=error.strerror or error)


def mask_files(case: Case) -> dict[str, Path]:
    """The masks that a case has: brain, lesion, ignore."""
    return {kind: path for kind in MASKS if (path := getattr(case, kind)) is not None}
