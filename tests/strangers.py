"""What is closed to the user of the machine: to root, as whom tests may run, nothing is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def as_another_user() -> Iterator[None]:
    """While open, root is a user to whom nothing belongs; others stay who they are, from whom a mode may take all."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that every user may look into, as pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in [path for path in folder.rglob("*") if path.is_dir()]:
            path.chmod(0o755)
        shutil.rmtree(folder)
