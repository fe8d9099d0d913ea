"""Folders in which something is made aside before it is renamed into place, so that it appears complete or not at all.

They are named after the machine and the process that makes them: what a killed process left is told from what is in
work.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DAY_S = 24 * 3600


@contextmanager
def folder_aside(place: Path, mark: str) -> Iterator[Path]:
    """A new folder in ``place`` whose name begins with ``mark``, removed at the end unless it was renamed by then.

    Its mode is that of any folder of this user: one of tempfile would stay closed to others where it is renamed.
    """
    folder = place / f"{mark}{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path, mark: str) -> None:
    """Remove the folders of :func:`folder_aside` in ``place`` that nobody works in any more."""
    for folder in place.glob(f"{mark}*"):
        if _abandoned(folder, mark):
            shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    """This machine in a few characters: process ids of another machine that shares the folder mean nothing here."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _abandoned(folder: Path, mark: str) -> bool:
    """Whether its process on this machine has ended, or it is a day old."""
    try:
        if time.time() - folder.stat().st_mtime > _DAY_S:
            return True
        machine, process, _ = folder.name.removeprefix(mark).split("-")
        if machine == _machine() and os.name == "posix":  # on Windows this call would end the process
            os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # gone by now, another user's, or a name of an earlier version
        return False
    return False
