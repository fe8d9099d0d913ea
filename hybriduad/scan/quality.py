"""What is measured on a scan before its prediction is believed: noise, blur, ghosts, what is cut off, how it lies.

Every measure has a limit, set between clean scans of several hospitals and the same scans spoilt (scripts/
check_quality.py); a scan beyond it is predicted all the same, and flagged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from hybriduad.core.types import Case
from hybriduad.scan.brain import find_head
from hybriduad.scan.brain_ways import PLAUSIBLE_ML
from hybriduad.scan.grid import find_slice_axis, to_slices
from hybriduad.scan.preparation import resampled
from hybriduad.scan.template_space import APART_MM
from hybriduad.scan.volumes import Image, read_volume, spacing_of, to_ras

COARSE_MM = 3.0
"""Voxels of about this size show how a head lies and where it ends."""
SLICES = 12
"""Slices on which noise, blur and ghosts are measured, at most."""
BRIGHT = 0.35
"""Of the 98th percentile: tissue, which ghosts of it stay below."""
RIM_MM = 8.0
"""Around the tissue that is neither tissue nor air."""
LAPLACIAN = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], dtype=np.float32)[..., None]
"""Its response to noise of standard deviation s has 6 s (Immerkaer 1996, doi:10.1006/cviu.1996.0060)."""
DEPTH_POWER = 4
"""Weighs depth under the surface so that the deepest tissue counts, and no single voxel alone."""


class Measure(NamedTuple):
    """One measure of a scan: beyond ``limit`` (above it, or with ``below`` below it) ``sentence`` holds."""

    name: str
    value: float
    limit: float
    sentence: str
    below: bool = False

    @property
    def flagged(self) -> bool:
        """Whether the value is beyond the limit."""
        return self.value < self.limit if self.below else self.value > self.limit

    def to_json(self) -> dict[str, Any]:
        """As the record of a case has it."""
        value, limit = round(self.value, 4), round(self.limit, 4)
        return {"name": self.name, "value": value, "limit": limit, "sentence": self.sentence}


def case_measures(case: Case, brain: Image, contrasts: Sequence[str]) -> list[Measure]:
    """The measures of a case: how its reference scan lies, and the signal of each of ``contrasts`` that it has.

    ``brain`` is on the grid of the reference scan.

    Raises:
        DataError: a scan cannot be read (:func:`hybriduad.scan.volumes.read_volume`).
    """
    reference = case.reference_contrast(tuple(contrasts))
    found: list[Measure] = []
    for name in dict.fromkeys((reference, *contrasts)):
        if name not in case.images:
            continue
        scan = read_volume(case.images[name])
        inside = Image(resampled(brain, scan.grid, linear=False) > 0.5, scan.grid)
        data, mask, spacing = to_ras(scan)[0], to_ras(inside)[0], spacing_of(scan.grid.affine_ras)
        if name == reference:
            found += lie_measures(data, mask, spacing)
        if name in contrasts and mask.any():
            found += signal_measures(data, mask, spacing, name)
    return found


def lie_measures(data: np.ndarray, brain: np.ndarray, spacing_mm: Sequence[float]) -> list[Measure]:
    """How a head lies in its volume: ``data`` (X, Y, Z) in RAS, ``brain`` (X, Y, Z) bool.

    All but the cut at top and bottom are of the head, or of the brain in a stripped scan: the deepest tissue of either
    lies above and behind the middle.
    """
    factor = [max(1, round(COARSE_MM / size)) for size in spacing_mm]
    coarse = tuple(slice(step // 2, None, step) for step in factor)
    size_mm = [step * size for step, size in zip(factor, spacing_mm, strict=True)]
    axis = find_slice_axis((size_mm[0], size_mm[1], size_mm[2]))
    head = np.moveaxis(find_head(to_slices(np.ascontiguousarray(data[coarse]), axis)), -1, axis)
    cut = max([_at_the_faces(head, axis) for axis in (0, 1)] + [_at_the_faces(brain[coarse], 2)])
    forward, up = _deep_from_middle(head, size_mm)
    return [
        Measure("cropped", cut, 0.65, f"the scan ends within the head: {cut:.0%} of its width lies on the border"),
        Measure(
            "asymmetry",
            sides := _sides_alike(head),
            0.85,
            f"left and right differ: mirrored, the head overlaps itself by {sides:.2f}; part of it may be missing",
            below=True,
        ),
        Measure(
            "upside down",
            up,
            -1.5,
            f"the scan lies upside down by its header: its deepest tissue is {-up:.1f} mm under the middle of the head",
            below=True,
        ),
        Measure(
            "back to front",
            forward,
            0.5,
            f"front and back are swapped by its header: its deepest tissue is {forward:.1f} mm before the middle",
        ),
    ]


def signal_measures(data: np.ndarray, brain: np.ndarray, spacing_mm: Sequence[float], name: str) -> list[Measure]:
    """Noise, blur and ghosts of the contrast ``name``: ``data`` and ``brain`` (X, Y, Z) in RAS; in the acquired slices,
    at most 12 of them, spread over those with at least half as much brain as the fullest."""
    axis = find_slice_axis((spacing_mm[0], spacing_mm[1], spacing_mm[2]))
    area = to_slices(brain, axis).sum(axis=(0, 1))
    full = np.flatnonzero(area >= area.max() / 2)
    chosen = full[np.linspace(0, len(full) - 1, min(SLICES, len(full))).round().astype(int)]
    slices, inside = to_slices(data, axis)[..., chosen].astype(np.float32), to_slices(brain, axis)[..., chosen]
    pixel = [size for number, size in enumerate(spacing_mm) if number != axis]
    deep = ndimage.binary_erosion(inside, np.ones((3, 3, 1)), iterations=2)
    deep = deep if deep.sum() > inside.sum() / 4 else inside
    noise, detail, ghost = _noise(slices, deep), _detail(slices, deep, pixel), _ghost(slices, pixel)
    return [
        Measure("noise", noise, 0.1, f"{name} is noisy: the noise is {noise:.0%} of the brain's median"),
        Measure(
            "blur",
            detail,
            0.55,
            f"{name} is blurred: detail of 1 to 2 mm is {detail:.2f} of that of 2 to 4 mm",
            below=True,
        ),
        Measure("ghosting", ghost, 0.1, f"{name} has ghosts: in the air, shifted by half the image, {ghost:.0%} of it"),
    ]


def register_measure(space: Mapping[str, Any]) -> Measure:
    """How sure the way to the template is, from what :func:`hybriduad.scan.template_space.place` says of it."""
    apart = float(space["apart_mm"])
    sentence = f"two starts of the registration to the template end {apart:.1f} mm apart: look at where the maps lie"
    return Measure("registration", apart, APART_MM, sentence)


def brain_measure(brain: Mapping[str, Any]) -> Measure:
    """Whether a brain that nobody drew has the volume of a whole one, from what
    :func:`hybriduad.scan.preparation.prepare` says of it; the limit is the nearer one of
    :data:`~hybriduad.scan.brain_ways.PLAUSIBLE_ML`.

    A flag and no failure, other than for packages and commands: what is left of a stripped scan, or our estimate of a
    head, is that large too where the header states a nominal voxel size, as some of ``lgg`` do.
    """
    volume_ml, (low, high) = float(brain["volume_ml"]), PLAUSIBLE_ML
    small = volume_ml < (low + high) / 2
    sentence = (
        f"the brain has {volume_ml:.0f} ml, a whole one {low:.0f} to {high:.0f} ({brain['method']}): look at its mask "
        "and at the voxel size, or name a brain mask"
    )
    return Measure("brain volume", volume_ml, low if small else high, sentence, below=small)


def _at_the_faces(mask: np.ndarray, axis: int) -> float:
    """How much of a mask lies on the two faces across an axis, as a share of its largest cross-section along it."""
    area = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    return float(max(area[0], area[-1]) / max(area.max(), 1))


def _sides_alike(head: np.ndarray) -> float:
    """The Dice of a head and its mirror image about its middle from left to right."""
    across = np.flatnonzero(head.any(axis=(1, 2)))
    if across.size == 0:
        return 1.0
    box = head[across[0] : across[-1] + 1]
    return float((box & box[::-1]).sum() / box.sum())


def _deep_from_middle(head: np.ndarray, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """How far the deepest tissue lies before and above the middle of the head, in mm: centroids, of the head and of
    the head weighed by its depth to the fourth power."""
    depth = ndimage.distance_transform_edt(np.pad(head, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    if not head.any():
        return 0.0, 0.0
    deep, middle = (
        np.array(ndimage.center_of_mass(weight)) * spacing_mm for weight in (depth**DEPTH_POWER, head.astype(float))
    )
    _, forward, up = deep - middle
    return float(forward), float(up)


def _noise(slices: np.ndarray, deep: np.ndarray) -> float:
    """The standard deviation of the noise in the brain over its median, robustly."""
    response = ndimage.convolve(slices, LAPLACIAN)[deep]
    median = float(np.median(slices[deep]))
    return 1.4826 * float(np.median(np.abs(response))) / 6 / median if median > 0 else 0.0


def _detail(slices: np.ndarray, deep: np.ndarray, pixel_mm: Sequence[float]) -> float:
    """What the brain shows between Gaussians of 1 and 2 mm over that between 2 and 4 mm, as standard deviations; with
    pixels of more than 1 mm of 1, 2 and 4 pixels."""
    unit = max(1.0, *pixel_mm)
    levels = [
        ndimage.gaussian_filter(slices, (*(times * unit / size for size in pixel_mm), 0.0)) for times in (1, 2, 4)
    ]
    fine, coarse = (float(np.std((a - b)[deep])) for a, b in ((levels[0], levels[1]), (levels[1], levels[2])))
    return fine / coarse if coarse > 0 else 1.0


def _ghost(slices: np.ndarray, pixel_mm: Sequence[float]) -> float:
    """By how much air is brighter where the tissue lies when it is shifted by half the image, over the tissue's median;
    the larger of both axes (ghost-to-signal ratio). 0 where there is too little air of either kind."""
    smooth = ndimage.uniform_filter(slices, (3, 3, 1))
    tissue = smooth > BRIGHT * np.percentile(smooth, 98)
    tissue = ndimage.binary_opening(tissue, np.ones((3, 3, 1)))
    if not tissue.any():
        return 0.0
    away = ndimage.distance_transform_edt(~np.pad(tissue, ((0, 0), (0, 0), (1, 1))), sampling=(*pixel_mm, 1e3))
    air = away[..., 1:-1] > RIM_MM
    found, least = [0.0], 0.01 * slices.size
    for axis in (0, 1):
        shifted = np.roll(tissue, slices.shape[axis] // 2, axis=axis)
        there, elsewhere = air & shifted, air & ~shifted
        if there.sum() >= least and elsewhere.sum() >= least:
            rise = float(np.median(slices[there]) - np.median(slices[elsewhere]))
            found.append(rise / float(np.median(slices[tissue])))
    return max(found)
