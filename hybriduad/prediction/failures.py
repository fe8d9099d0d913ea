"""Cases that failed, remembered a file each, so that runs at the same time never write the same file.

A failure that lies in the files of the case is not tried again while they are the same and hybriduad's version is; for
want of memory or disk, or by a fault of the package, a case failed for a reason that may have gone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from hybriduad import __version__
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.prediction.files import FAILURES
from hybriduad.scan.digests import file_digest
from hybriduad.scan.volumes import write_atomically


@dataclass(frozen=True)
class Failure:
    """Why a case failed and when (UTC); ``files`` is the digest of its files if the fault lies in them, else ""."""

    case: str
    reason: str
    time: str
    version: str
    files: str


def remember(folder: Path, case: Case, reason: str, *, lies_in_files: bool) -> None:
    """Write down that a case failed now."""
    path = _place(folder, case.name)
    path.parent.mkdir(exist_ok=True)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    failure = Failure(case.name, reason, time, __version__, _files(case) if lies_in_files else "")
    write_atomically(path, json.dumps(asdict(failure), indent=1).encode())


def forget(folder: Path, case: Case) -> None:
    """The case is done."""
    _place(folder, case.name).unlink(missing_ok=True)


def failed_for_good(folder: Path, case: Case) -> Failure | None:
    """The failure of a case that would only fail again: by the same version of hybriduad, for its unchanged files."""
    failure = _read(_place(folder, case.name))
    if failure is None or not failure.files or failure.version != __version__:
        return None
    return failure if failure.files == _files(case) else None


def failures_in(folder: Path) -> list[Failure]:
    """All that are remembered, by the name of the case."""
    read = (_read(path) for path in sorted((folder / FAILURES).glob("sub-*.json")))
    return [failure for failure in read if failure is not None]


def _place(folder: Path, name: str) -> Path:
    return folder / FAILURES / f"{name}.json"


def _read(path: Path) -> Failure | None:
    """None where there is none, or none that can be read: the case is then tried again."""
    try:
        return Failure(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _files(case: Case) -> str:
    """The digest of all that a case is made of: contents of its files, and what names its reference and labels."""
    contents: dict[str, str | None] = {}
    for kind, path in {**case.images, "brain": case.brain}.items():
        try:
            contents[kind] = file_digest(path) if path is not None else None
        except DataError:
            contents[kind] = "unreadable"
    stated = [case.reference, case.attributes.get("brain_labels", ""), contents]
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
