"""Whole scans for the measurement: made-up heads as files, predicted by the command line in a separate process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from hybriduad.cohort.manifest import write_manifest
from hybriduad.core.errors import DataError
from hybriduad.core.rng import numpy_rng
from hybriduad.core.types import Case
from hybriduad.phantom.subject import Phantom, make_subject
from hybriduad.prediction.files import SUFFIXES
from hybriduad.scan.volumes import VolumeGrid, write_volume

SKULL_MM, SCALP_MM = 7.0, 12.0
"""Outer borders of skull and scalp, from the brain."""
NOISE = 0.01


def write_scans(
    folder: Path,
    contrasts: Sequence[str],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    scans: int,
) -> Path:
    """Write ``scans`` heads of ``shape`` without any mask, alike but for their noise, and return their manifest.

    The heads have skull and scalp, so that predicting them includes looking for the brain.

    Raises:
        ConfigError: a contrast that phantoms do not have, or voxels that they cannot have.
    """
    phantom = make_subject(0, 0, contrasts=tuple(contrasts), spacing_mm=spacing_mm)
    affine = phantom.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [
        (wide - narrow) // 2 for wide, narrow in zip(shape, phantom.brain.shape, strict=True)
    ]
    grid = VolumeGrid.make(shape, affine)
    depth = ndimage.distance_transform_edt(~_fitted(phantom.brain, shape), sampling=spacing_mm)
    cases = []
    for number in range(scans):
        subject = f"{number + 1:02d}"
        images = {name: folder / f"sub-{subject}" / "anat" / f"sub-{subject}_{name}.nii.gz" for name in contrasts}
        for name, path in images.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = numpy_rng(number, "speed", name)
            write_volume(path, _head(phantom, name, depth, rng), grid, np.int16)
        cases.append(Case("speed", subject, images))
    write_manifest(cases, folder / "manifest.csv")
    return folder / "manifest.csv"


def predict_scans(bundle: Path, manifest: Path, out: Path, device: str) -> dict[str, Any]:
    """Predict the scans of a manifest as ``hybriduad predict`` does, and say how long a scan took and what memory.

    ``seconds`` (median) and ``first_seconds`` are from file to file, model loaded; ``peak_mb`` is the most memory that
    the process ever held, libraries and model included; ``process_seconds`` its whole life.

    Raises:
        DataError: the command failed; the sentence ends with what it said.
    """
    command = [sys.executable, "-m", "hybriduad", "predict", str(bundle), str(manifest), "--out", str(out)]
    output = out.with_name("said.txt")
    before = os.times()
    with output.open("wb") as stream:
        process = subprocess.Popen([*command, "--device", device], stdout=stream, stderr=stream)
        # wait4 tells the peak of this child alone, not of all children.
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise DataError(
            "the scans of the measurement could not be predicted", got=output.read_text(errors="replace")[-500:]
        )
    records = sorted(out.rglob(f"*_{SUFFIXES['score']}.json"))
    seconds = [float(json.loads(path.read_text())["seconds"]) for path in records]
    return {
        "scans": len(seconds),
        "seconds": statistics.median(seconds),
        "first_seconds": seconds[0],
        "peak_mb": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6,
        "process_seconds": os.times().elapsed - before.elapsed,
    }


def _head(phantom: Phantom, contrast: str, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(X, Y, Z) in 0 to about 1000: the phantom in a dark skull under a bright scalp, in noisy air."""
    image = phantom.images[contrast]
    white = float(np.percentile(image[phantom.brain], 95))
    head = _fitted(image, depth.shape) / white
    head[(depth > SKULL_MM) & (depth <= SCALP_MM)] = 1.0
    noise = NOISE * rng.standard_normal((2, *depth.shape), dtype=np.float32)
    return np.asarray(np.round(1000 * np.hypot(head + noise[0], noise[1])), dtype=np.int16)


def _fitted(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Padded with zeros or cropped to ``shape``; the middle stays the middle."""
    for axis, length in enumerate(shape):
        missing = length - image.shape[axis]
        before = missing // 2
        pads = [(0, 0)] * image.ndim
        pads[axis] = (max(before, 0), max(missing - before, 0))
        start = max(-before, 0)
        image = np.pad(image, pads)
        image = image.take(range(start, start + length), axis=axis)
    return image
