"""The volumes of a case as a page holds them: of the brain alone, coarser than the scan, in whole numbers."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.report.records import Record
from hybriduad.scan.digests import file_digest
from hybriduad.scan.preparation import scan_on_grid
from hybriduad.scan.volumes import Image, VolumeGrid, nifti_bytes, read_mask, read_volume, same_grid, to_ras

TARGETS_MM = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
MOST_VOXELS = 550_000
"""The embedded spacing is the first of ``TARGETS_MM`` at which the brain has at most so many voxels: with this many,
five layers and the viewer make a page of about 3 MB."""
LEVELS = {"score": 1000, "uncertainty": 250}
"""In how many steps the values of a map are kept, from 0 to its highest."""


@dataclass(frozen=True)
class Layers:
    """Volumes of a case on one grid (X, Y, Z), in RAS order, around the brain.

    ``values``: "scan" and "reconstruction" in the scan's units, "score" and "uncertainty" in [0, 1], "mask" bool; all
    are 0 outside ``brain``. ``factors``: how many voxels of the scan, along each axis, a voxel here is the mean of.
    ``peak``: the highest score on the scan's own grid.
    """

    values: Mapping[str, np.ndarray]
    brain: np.ndarray
    affine: np.ndarray
    factors: tuple[int, int, int]
    peak: float

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the three axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing_mm) / 1000.0

    def window(self) -> tuple[float, float]:
        """Darkest and brightest value to show of the scan (of the pseudo-healthy one where there is no scan)."""
        shown = self.values.get("scan", self.values.get("reconstruction"))
        if shown is None or not self.brain.any():
            return 0.0, 1.0
        low, high = (float(value) for value in np.percentile(shown[self.brain], [0.5, 99.5]))
        return low, max(high + 0.15 * (high - low), low + 1e-6)


def read_layers(record: Record, case: Case | None) -> Layers:
    """Read what was written of a case, and its scan where ``case`` says where that is.

    Raises:
        DataError: the scan of ``case`` is not the one that was predicted, a map is on another grid than the score,
            or a file cannot be read.
    """
    score = _read(record, "score")
    if score is None:
        raise DataError("record without a score", where=record.path, mend="predict with --overwrite")
    grid = score.grid
    brain_path = record.part("brain")
    # Without a brain mask the score says where it is: it is 0 outside.
    brain = read_mask(brain_path).data if brain_path else score.data > 0
    volumes = {"score": score.data}
    for part in ("reconstruction", "uncertainty", "mask"):
        image = _read(record, part)
        if image is not None:
            if not same_grid(image.grid, grid):
                raise DataError("map on another grid than the score", where=record.part(part))
            volumes[part] = image.data > 0.5 if part == "mask" else image.data
    if brain.shape != score.data.shape:
        raise DataError("map on another grid than the score", where=brain_path)
    if case is not None:
        volumes["scan"] = _scan(record, case, grid)
    return coarse_layers(volumes, brain, grid)


def coarse_layers(volumes: Mapping[str, np.ndarray], brain: np.ndarray, grid: VolumeGrid) -> Layers:
    """Cut (X, Y, Z) volumes in the orientation of ``grid`` to the brain, and make them as coarse as a page wants them.

    A voxel is the mean of the scan's voxels in it that lie in the brain, so that nothing outside the brain enters; it
    counts as brain, and as mask, where at least half of it is.
    """
    inside, affine, _ = to_ras(Image(brain, grid))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    factors = _factors(spacing, int(inside.sum()))
    window, start = _box(inside, factors)
    cut = {name: to_ras(Image(values, grid))[0] for name, values in volumes.items()}
    counted = _summed(_cut(inside, window), factors)
    whole = counted >= math.prod(factors) / 2
    coarse = {}
    for name, values in cut.items():
        weights = _cut(np.where(inside, values, 0).astype(np.float64), window)
        mean = np.where(whole, _summed(weights, factors) / np.maximum(counted, 1), 0.0)
        coarse[name] = mean >= 0.5 if name == "mask" else mean.astype(np.float32)
    placed = affine.copy()
    placed[:3, 3] += affine[:3, :3] @ (np.array(start) + (np.array(factors) - 1) / 2)
    placed[:3, :3] = affine[:3, :3] * np.array(factors)
    return Layers(coarse, whole, placed, factors, float(volumes["score"].max()))


def encoded(layers: Layers) -> dict[str, dict[str, object]]:
    """Name -> {"data": NIfTI file, compressed, in base64; "scale": what a step of its whole numbers means}.

    Scan and pseudo-healthy scan share 1 to 255 over :meth:`Layers.window`, with 0 outside the brain.
    """
    low, high = layers.window()
    shape = layers.brain.shape
    grid = VolumeGrid.make((shape[0], shape[1], shape[2]), layers.affine)
    content: dict[str, dict[str, object]] = {}
    for name, values in layers.values.items():
        scale = 1.0
        if name in LEVELS:
            scale = float(values.max()) / LEVELS[name] or 1.0
            whole = np.rint(values / scale).astype(np.int16 if LEVELS[name] > 255 else np.uint8)
        elif name == "mask":
            whole = values.astype(np.uint8)
        else:
            scale = (high - low) / 254
            whole = np.where(layers.brain, np.clip(np.rint((values - low) / scale), 0, 254) + 1, 0).astype(np.uint8)
        packed = gzip.compress(nifti_bytes(whole, grid, whole.dtype), compresslevel=9, mtime=0)
        content[name] = {"data": base64.b64encode(packed).decode(), "scale": scale}
    return content


def _read(record: Record, part: str) -> Image | None:
    path = record.part(part)
    return None if path is None else read_volume(path, constant_ok=True)


def _scan(record: Record, case: Case, grid: VolumeGrid) -> np.ndarray:
    """The scan on the grid of the score, if it is the file that was predicted."""
    contrast = record.contrast
    path = case.images.get(contrast)
    stated = record.content["inputs"].get(contrast, {}).get("sha256")
    if path is None or stated is None:
        got = f"{sorted(case.images)} in the cohort, {sorted(record.content['inputs'])} in the record"
        raise DataError("no scan of the contrast that is shown", where=case.name, got=got, expected=contrast)
    if (digest := file_digest(path)) != stated:
        raise DataError(
            "scan that is not the predicted one",
            where=f"{case.name}, {contrast}",
            got=f"sha256 {digest[:12]}",
            expected=f"{str(stated)[:12]} as in its record",
            mend="name the cohort that was predicted, or predict again",
        )
    return scan_on_grid(case.images, contrast, grid, record.content["notes"])


def _factors(spacing: np.ndarray, brain_voxels: int) -> tuple[int, int, int]:
    """How many voxels along each axis become one."""
    factors = (1, 1, 1)
    for target in TARGETS_MM:
        x, y, z = (max(1, round(target / float(size))) for size in spacing)
        factors = (x, y, z)
        if brain_voxels <= MOST_VOXELS * x * y * z:
            break
    return factors


def _box(inside: np.ndarray, factors: tuple[int, int, int]) -> tuple[list[tuple[int, int]], list[int]]:
    """First and last voxel + 1 along each axis around the brain, with a coarse voxel beyond, in whole coarse voxels;
    they may lie outside the volume."""
    window = []
    for axis, factor in enumerate(factors):
        there = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = (int(there[0]), int(there[-1])) if len(there) else (0, inside.shape[axis] - 1)
        begin = (first // factor - 1) * factor
        window.append((begin, begin + -(-(last + 1 + factor - begin) // factor) * factor))
    return window, [begin for begin, _ in window]


def _cut(values: np.ndarray, window: list[tuple[int, int]]) -> np.ndarray:
    """The part of a volume in ``window``, 0 where that reaches beyond it."""
    kept = values[tuple(slice(max(begin, 0), end) for begin, end in window)]
    around = [(max(-begin, 0), max(end - length, 0)) for (begin, end), length in zip(window, values.shape, strict=True)]
    return np.pad(kept, around)


def _summed(values: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Sums over blocks of ``factors`` voxels."""
    (x, y, z), (a, b, c) = values.shape, factors
    return np.asarray(values.reshape(x // a, a, y // b, b, z // c, c).sum(axis=(1, 3, 5), dtype=np.float64))
