"""Lesions of a wanted size, contrast and place, painted in 3D into a healthy scan: what a detector is tried on.

The shape is that of the generator ``lesion`` (:mod:`hybriduad.anomalies.lesion`), one focus, without core or mass
effect. A place is a third of the brain's bounding box from back to front and from bottom to top: no anatomy.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from hybriduad.anomalies._base import present
from hybriduad.anomalies._description import Lesion
from hybriduad.anomalies._painting import bounding_box, middle, paint
from hybriduad.core import plugins
from hybriduad.core.contrasts import LOOKS
from hybriduad.core.types import Corruption
from hybriduad.training.native_volume import NativeVolume
from hybriduad.training.samples import covered

log = logging.getLogger(__name__)

SIZES_ML = ((0.1, 0.3), (0.3, 1.0), (1.0, 3.0), (3.0, 10.0), (10.0, 30.0), (30.0, 100.0))
LARGE = 4
"""From this class of size on lesions come in versions of their own: a threshold set by scan rises with them."""
CONTRASTS = {"faint": 0.2, "clear": 0.4, "strong": 0.8}
"""How much the middle of a lesion departs from its tissue; 0.8 on the model range is the brain's median intensity."""
LEAST_CONTRAST = 0.1
"""With less room than this to the end of the range a lesion is dark instead of bright, or the other way."""
FRONT, HEIGHT = ("posterior", "central", "anterior"), ("lower", "middle", "upper")
APART_MM = 10.0
"""Between the lesions of a scan, taken for balls."""
TISSUE, LEAST_TISSUE = (0.5, 1.75), 0.75
"""Intensities of tissue in units of the brain's median, and the share of a lesion's voxels that must have had such:
masks of brains that are estimated hold fluid, sinuses and eyes too, where no lesion of the brain would be."""
TRIES = 6


class Wish(NamedTuple):
    """A lesion that is wanted: its class of :data:`SIZES_ML`, of :data:`CONTRASTS`, and the thirds of the brain."""

    size: int
    contrast: str
    front: int
    height: int


class Placed(NamedTuple):
    """A painted lesion: ``mask`` (X, Y, Z) bool in the volume, the thirds in which its centroid lies, ``volume_ml``,
    and ``change``, the mean over its voxels of the largest change of a contrast, on the model range."""

    wish: Wish
    mask: np.ndarray
    front: int
    height: int
    volume_ml: float
    change: float


def wishes(number: int, generator: np.random.Generator) -> list[list[Wish]]:
    """The lesions of so many versions of a scan, one of each size in each, contrasts and places in turn; after them
    those of a third as many versions, rounded up, with the large ones, from class :data:`LARGE` on."""
    cells = [(int(cell) % 3, int(cell) // 3) for cell in generator.permutation(9)]
    start, names = int(generator.integers(len(CONTRASTS))), list(CONTRASTS)
    versions = []
    for first, last, count in ((0, LARGE, number), (LARGE, len(SIZES_ML), -(-number // 3))):
        sizes = range(first, last)
        for version in range(count):
            taken = [cells[(len(sizes) * version + place) % 9] for place in range(len(sizes))]
            versions.append(
                [
                    Wish(size, names[(start + version + size) % len(names)], *taken[(size + version) % len(taken)])
                    for size in sizes
                ]
            )
    return versions


def paint_wishes(
    volume: NativeVolume,
    contrasts: Sequence[str],
    wanted: Sequence[Wish],
    generator: np.random.Generator,
    occupied: np.ndarray | None = None,
) -> tuple[Corruption, list[Placed]]:
    """Paint lesions into a volume, the largest first, apart from each other; a pure function of its arguments.

    A wish that cannot be painted in :data:`TRIES` draws (no room in that third, a lesion cut to another size, or one
    outside tissue) is left out. ``contrasts`` names those of the volume, in order. Nothing changes outside lesion and
    ignore. ``occupied`` (X, Y, Z) bool is where the scan has lesions of its own: painted ones keep apart from them as
    from each other.
    """
    image, valid = np.array(volume.image), np.asarray(volume.valid)
    brain = np.asarray(volume.brain) & valid.any(axis=0)
    lesion, ignore = np.zeros(brain.shape, bool), np.zeros(brain.shape, bool)
    voxels = np.argwhere(brain)
    thirds = _thirds(voxels, brain)
    tissue = _tissue(image, brain)
    own = np.zeros(brain.shape, bool) if occupied is None else occupied
    away = ndimage.distance_transform_edt(~own, sampling=volume.spacing_mm) if own.any() else None
    placed: list[Placed] = []
    taken: list[tuple[np.ndarray, float]] = []
    for wish in sorted(wanted, key=lambda wish: -wish.size):
        candidates = voxels[(thirds[:, 1] == wish.front) & (thirds[:, 2] == wish.height)]
        low, high = np.log(SIZES_ML[wish.size])
        for _ in range(TRIES):
            diameter = (6 / math.pi * 1000 * math.exp(generator.uniform(low, high))) ** (1 / 3)
            free = candidates if away is None else candidates[away[tuple(candidates.T)] >= diameter / 2 + APART_MM]
            place = _place(free, taken, diameter, volume.spacing_mm, generator)
            if place is None:
                break
            box = _around(place, brain.shape, diameter, volume.spacing_mm)
            part, centre = image[:, *box], place - [span.start for span in box]
            drawn = _drawn(wish, diameter, part, brain[box], centre, volume.spacing_mm, contrasts, generator)
            corruption = covered(paint(drawn, part, brain[box], spacing_mm=volume.spacing_mm), part, valid[:, *box])
            volume_ml = float(corruption.lesion.sum() * np.prod(volume.spacing_mm)) / 1000
            fits = SIZES_ML[wish.size][0] <= volume_ml < SIZES_ML[wish.size][1]
            fits = fits and tissue[box][corruption.lesion].mean() >= LEAST_TISSUE
            if not fits or (lesion | own)[box][corruption.lesion].any():
                continue
            change = np.abs(corruption.image - part).max(axis=0)[corruption.lesion].mean()
            image[:, *box] = corruption.image
            mask = np.zeros_like(lesion)
            mask[box] = corruption.lesion
            lesion |= mask
            ignore[box] |= corruption.ignore
            _, front, height = _thirds(np.argwhere(mask).mean(axis=0), brain).tolist()
            placed.append(Placed(wish, mask, front, height, volume_ml, float(change)))
            taken.append((place, diameter / 2))
            break
        else:
            log.debug("no lesion of %s ml could be painted there", SIZES_ML[wish.size])
    return Corruption(image, lesion, lesion.astype(np.float32), ignore & ~lesion), placed


def _tissue(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: where the first contrast (C, X, Y, Z) that is there has an intensity of tissue."""
    there = image[present(image)][0] + 1
    median = np.median(there[brain])
    return np.asarray(brain & (there >= TISSUE[0] * median) & (there <= TISSUE[1] * median))


def _thirds(places: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """(..., 3) int in 0 to 2: in which thirds of the brain's bounding box ``places`` (..., 3) in voxels lie."""
    box = bounding_box(brain)
    start, size = (np.array(values) for values in zip(*((s.start, s.stop - s.start) for s in box), strict=True))
    return np.minimum(2, (3 * (places - start + 0.5) / size).astype(int))


def _place(
    candidates: np.ndarray,
    taken: Sequence[tuple[np.ndarray, float]],
    diameter_mm: float,
    spacing_mm: Sequence[float],
    generator: np.random.Generator,
) -> np.ndarray | None:
    """One of ``candidates`` (N, 3) that keeps apart from the centres and radii ``taken``; None if none is drawn."""
    for _ in range(TRIES if len(candidates) else 0):
        place = candidates[generator.integers(len(candidates))]
        reach = [np.linalg.norm((place - other) * spacing_mm) - radius - diameter_mm / 2 for other, radius in taken]
        if min(reach, default=APART_MM) >= APART_MM:
            return np.asarray(place)
    return None


def _around(
    place: np.ndarray, shape: Sequence[int], diameter_mm: float, spacing_mm: Sequence[float]
) -> tuple[slice, ...]:
    """The box around a place in which its lesion is painted, a margin for irregular shapes included."""
    reach = [math.ceil((1.5 * diameter_mm + 8.0) / size) for size in spacing_mm]
    return tuple(
        slice(max(0, int(centre) - r), min(size, int(centre) + r + 1))
        for centre, r, size in zip(place, reach, shape, strict=True)
    )


def _drawn(
    wish: Wish,
    diameter_mm: float,
    image: np.ndarray,
    brain: np.ndarray,
    place: np.ndarray,
    spacing_mm: tuple[float, float, float],
    contrasts: Sequence[str],
    generator: np.random.Generator,
) -> Lesion:
    """The description of a wanted lesion with its centre at ``place`` (3,), a voxel of ``brain`` (X, Y, Z)."""
    plugin: Any = plugins.load("anomalies", "lesion")
    strength = CONTRASTS[wish.contrast]
    config = plugin.Config(
        median_mm=diameter_mm,
        ln_sigma=0.0,
        diameter_mm=(diameter_mm, diameter_mm),
        several=0.0,
        softness_mm=(0.0, 1.0),
        bright=tuple(float(LOOKS[name].bright_lesions) for name in contrasts),
        contrast=(strength, strength),
        texture=(0.0, 0.3),
        core=0.0,
        mass_effect=0.0,
    )
    drawn: Lesion = plugin.draw(config, present(image), brain, generator, spacing_mm=spacing_mm)
    box = bounding_box(brain)
    centre = (place - [span.start for span in box] - middle(brain[box])) * spacing_mm
    focus = drawn.foci[0].model_copy(update={"centre_mm": tuple(centre.tolist())})
    return drawn.model_copy(update={"foci": (focus,), "least_contrast": LEAST_CONTRAST})
