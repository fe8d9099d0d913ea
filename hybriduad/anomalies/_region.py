"""Where an anomaly lies: a box, an ellipsoid or a blob of a size in millimetres, inside the brain, with a soft edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from hybriduad.anomalies._noise import fractal
from hybriduad.anomalies._painting import OUTLINE_OCTAVES, outline_steps, ramp

Form = Literal["box", "ellipsoid", "blob"]
LARGEST_SHARE = 0.35
"""A region covers no more of the brain than this."""
LEAST_VOXELS = 6
BLOB_ROUGHNESS = 0.35
"""How far noise moves the outline of a blob, relative to its radius."""
EDGE = 0.5
"""The share of anomaly in a voxel from which it belongs to the extent."""


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("must be two numbers, lowest <= highest")
    return pair


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
"""(lowest, highest), both above 0."""
IntervalFrom0 = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_ordered)]
Opacity = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], Share], AfterValidator(_ordered)]
"""(lowest, highest) factor of blending, above 0 and at most 1."""


@dataclass(frozen=True)
class Region:
    """``weight`` (*space) float32 in [0, 1], 0 outside the brain; ``centre`` (axes,) in voxels; ``diameter_mm`` of the
    disc or ball of equal area or volume."""

    weight: np.ndarray
    centre: np.ndarray
    diameter_mm: float

    @property
    def extent(self) -> np.ndarray:
        """Where the anomaly is: (*space) bool."""
        inside: np.ndarray = self.weight >= EDGE
        return inside


def draw_region(
    brain: np.ndarray,
    rng: np.random.Generator,
    spacing_mm: tuple[float, ...],
    *,
    diameter_mm: tuple[float, float],
    softness_mm: tuple[float, float] = (0.0, 0.0),
    forms: Sequence[Form] = ("ellipsoid", "blob"),
    places: np.ndarray | None = None,
) -> Region:
    """Draw a region of the brain, whatever the image shows there.

    Args:
        brain: (*space) bool, not empty.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        diameter_mm: (lowest, highest) equivalent diameter, drawn evenly in its logarithm.
        softness_mm: (lowest, highest) width of the edge, beside the width of a voxel.
        forms: drawn evenly.
        places: (N, axes) voxels to draw the centre from; any of the brain without.
    """
    axes = brain.ndim
    form = forms[int(rng.integers(len(forms)))]
    diameter = float(np.exp(rng.uniform(*np.log(diameter_mm))))
    border_mm = rng.uniform(*softness_mm) + min(spacing_mm)
    candidates = np.argwhere(brain) if places is None else places
    centre = candidates[rng.integers(len(candidates))]
    stretch = np.exp(0.25 * rng.standard_normal(axes))
    stretch /= stretch.prod() ** (1 / axes)
    rotation = np.linalg.qr(rng.standard_normal((axes, axes)))[0] / stretch[:, None]
    offset = distance_mm(brain.shape, centre, spacing_mm)
    turned = np.tensordot(rotation.astype(np.float32), offset, 1)
    level = np.abs(turned).max(axis=0) if form == "box" else np.sqrt((turned**2).sum(axis=0))
    if form == "blob":
        noise = fractal(brain.shape, outline_steps(diameter / 2, spacing_mm), OUTLINE_OCTAVES, 0.5, rng)
        level += np.float32(diameter / 2 * BLOB_ROUGHNESS) * noise
    size = np.pi / 4 * diameter**2 if axes == 2 else np.pi / 6 * diameter**3
    within = np.count_nonzero(brain)
    voxels = int(min(max(round(size / float(np.prod(spacing_mm))), LEAST_VOXELS), max(LARGEST_SHARE * within, 1)))
    level -= np.partition(level[brain], voxels - 1)[voxels - 1]
    weight = np.where(brain, ramp(0.5 - level / border_mm), 0)
    return Region((weight / weight.max()).astype(np.float32), centre, diameter)


def distance_mm(shape: tuple[int, ...], centre: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """How far every voxel lies from ``centre`` (axes,) along each axis: (axes, *shape) float32."""
    column = (-1, *[1] * len(shape))
    spacing = np.asarray(spacing_mm, np.float32).reshape(column)
    return (np.indices(shape, np.float32) - centre.reshape(column).astype(np.float32)) * spacing


def signed(shift: float, mean: float, bright: bool) -> float:
    """A ``shift`` brighter or darker than ``mean``; the other way where the range [-1, 1] ends before."""
    if (1 - mean if bright else 1 + mean) < shift:
        bright = mean < 0
    return shift if bright else -shift
