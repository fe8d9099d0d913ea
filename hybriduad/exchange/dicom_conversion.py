"""dcm2niix on the files of one series: NIfTI volumes with the facts of their acquisition."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybriduad.core.errors import DataError
from hybriduad.exchange.dicom_extra import dicom_module

TIMEOUT_S = 600
"""A series takes a second or two; one that takes longer than this never ends."""
FAILURES = {
    2: "no image in its files",
    3: "another version of dcm2niix was needed",
    4: "damaged files",
    5: "an unreadable folder",
    6: "a folder that cannot be written",
    8: "slices are missing",
}
"""Exit code of dcm2niix -> what it means (its page ERRORS.md)."""
NO_MAGNITUDE = ("_ph", "_real", "_imaginary", "_ROI", "_mask")
FACTS = (
    "MagneticFieldStrength",
    "Manufacturer",
    "ManufacturersModelName",
    "MRAcquisitionType",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "SliceThickness",
    "SpacingBetweenSlices",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "EchoTrainLength",
    "PixelBandwidth",
    "ConversionSoftware",
    "ConversionSoftwareVersion",
)
"""What of dcm2niix's sidecar is kept: numbers and names of the scanner. Its anonymous sidecar still holds the
institution, serial numbers, times of day and free text."""


@dataclass(frozen=True)
class Converted:
    """A volume that dcm2niix wrote: its file, what is added to its series' name ("", "_e2"), and its sidecar."""

    path: Path
    suffix: str
    sidecar: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """The part of the sidecar that may be kept."""
        return {name: self.sidecar[name] for name in FACTS if name in self.sidecar}


def convert_series(files: Sequence[Path], folder: Path) -> list[Converted]:
    """Convert the files of one series into ``folder``, which is empty; magnitude volumes only.

    What dcm2niix prints names files and series, so it is not passed on.

    Raises:
        ConfigError: dcm2niix is not installed.
        DataError: dcm2niix fails, takes too long, or gives no volume.
    """
    program = dicom_module("dcm2niix").bin
    source, target = folder / "dicom", folder / "nifti"
    source.mkdir(parents=True)
    target.mkdir()
    for number, path in enumerate(files):
        (source / f"{number:06d}.dcm").symlink_to(path.absolute())
    options = ["-g", "i", "-b", "y", "-ba", "y", "-z", "n", "-f", "volume"]
    command = [str(program), *options, "-o", str(target), str(source)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False, shell=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError("dcm2niix takes too long", got=f"over {TIMEOUT_S} s", mend="leave the series out") from error
    except OSError as error:
        raise DataError("dcm2niix cannot be run", got=error.strerror, mend="install it again") from error
    if done.returncode != 0:
        meaning = FAILURES.get(done.returncode, "an error without a name")
        mend = "export the series again, or convert it by hand"
        raise DataError("dcm2niix failed", got=f"exit code {done.returncode} ({meaning})", mend=mend)
    volumes = []
    for path in sorted(target.glob("*.nii")):
        suffix = path.stem.removeprefix("volume")
        sidecar = path.with_suffix(".json")
        if not any(mark in suffix for mark in NO_MAGNITUDE) and sidecar.is_file():
            volumes.append(Converted(path, suffix, json.loads(sidecar.read_text(encoding="utf-8", errors="replace"))))
    if not volumes:
        raise DataError("dcm2niix gave no volume", mend="export the series again, or convert it by hand")
    return volumes
