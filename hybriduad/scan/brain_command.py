"""The brain by an external command, such as ``mri_synthstrip -i {in} -m {out}``: no shell, a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import DataError, ToolError
from hybriduad.scan.volumes import Image, read_volume, same_grid, to_ras, write_volume

TIMEOUT_S = 1800
"""HD-BET takes 10 minutes on a slow processor."""
MEND = "try the command by hand on this scan, name a brain mask (the manifest's column 'brain'), or --brain estimate"


def brain_by_command(command: Sequence[str], image: Image, where: str) -> np.ndarray:
    """The brain (X, Y, Z) bool in RAS: what is not 0 in the file that the command writes.

    Args:
        command: program and arguments; ``{in}`` in them becomes the scan's file, ``{out}`` the file that is expected, a
            mask or the stripped scan, on the scan's grid. Both are ``.nii.gz`` in a temporary folder, without a name of
            the case; the folder is where the command runs, and is removed with all that it leaves there.
        image: the scan as it lies in its file.
        where: the case's name, for errors.

    Raises:
        ToolError: the command cannot be started, takes over :data:`TIMEOUT_S`, ends with an error (the sentence has the
            last line of its standard error), or writes no image, or none on the scan's grid.
    """
    with tempfile.TemporaryDirectory() as folder:
        scan, out = Path(folder) / "scan.nii.gz", Path(folder) / "brain.nii.gz"
        write_volume(scan, image.data, image.grid)
        arguments = [part.replace("{in}", str(scan)).replace("{out}", str(out)) for part in command]
        fault = _run(arguments, Path(folder))
        if not fault and not out.is_file():
            fault = "wrote no file in place of {out}"
        if fault:
            raise ToolError(f"brain command {command[0]!r} failed", where=where, got=fault, mend=MEND)
        try:
            found = read_volume(out, constant_ok=True)
        except DataError as error:
            got = f"wrote no image: {str(error).removesuffix('.')}"
            raise ToolError(f"brain command {command[0]!r} failed", where=where, got=got, mend=MEND) from error
    if not same_grid(found.grid, image.grid):
        raise ToolError(
            f"brain command {command[0]!r} wrote another grid",
            where=where,
            got=f"shape {found.grid.shape}",
            expected=f"the scan's, {image.grid.shape}",
            mend="let it write the mask on the grid of {in}",
        )
    brain = to_ras(found)[0] != 0
    # A stripped scan may be 0 inside the brain as well.
    return brain if found.data.max() == 1 else np.asarray(ndimage.binary_fill_holes(brain))


def _run(arguments: list[str], folder: Path) -> str:
    """Run the command to its end; what went wrong, "" for nothing."""
    errors = folder / "stderr.txt"
    with errors.open("wb") as stream:
        try:
            process = subprocess.Popen(
                arguments,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
            )
        except OSError as error:
            return f"{error.strerror}"
        try:
            code = process.wait(TIMEOUT_S)
        except BaseException as error:  # also of Ctrl-C: the session of its own does not get it
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"no end after {TIMEOUT_S:g} s"
            raise
    if code == 0:
        return ""
    lines = [line.strip() for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit code {code}" + (f", {lines[-1][:300].rstrip('.')}" if lines else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command with what it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
