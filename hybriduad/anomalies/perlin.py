"""The anomalies of the paper: thresholded Perlin noise as shape, altered Perlin noise as texture.

DRAEM (Zavrtanik, Kristan, Skočaj, arXiv 2108.07610) as Behrendt et al. (MIDL 2024, PMLR 250:87-102) use it on brain
MRI: x' = (1 - M) x + (1 - g) M x + g M A, with g ~ U(0.2, 1). Here M is restricted to the brain, and the noise is
evaluated at turned coordinates, which rotates it without interpolation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy import ndimage

from hybriduad.anomalies._base import (
    MINIMUM_BRAIN_VOXELS,
    Donors,
    finish,
    present,
    unchanged,
)
from hybriduad.anomalies._looks import TurningConfig, inverted_by_looks, listed
from hybriduad.anomalies._noise import perlin
from hybriduad.core.types import Corruption

_ATTEMPTS = 8  # a coarse field often stays under the threshold in the whole brain


class Config(TurningConfig):
    """``most_cells``: the largest k of 2^k cells an axis (fewer where a cell would be under two voxels); ``threshold``
    on the noise in [-1, 1]; ``opacity``: bounds of g; ``operations``: how many alter the texture;
    ``inverted``: where it is dark for bright, as :class:`~hybriduad.anomalies._looks.TurningConfig` says.
    """

    name: Literal["perlin"] = "perlin"
    most_cells: int = Field(6, ge=0, le=8)
    threshold: Annotated[float, Field(gt=0, lt=0.9)] = 0.5
    opacity: tuple[float, float] = (0.2, 1.0)
    operations: int = Field(3, ge=0, le=8)

    @model_validator(mode="after")
    def _ordered(self) -> Config:
        if not 0 < self.opacity[0] <= self.opacity[1] <= 1:
            raise ValueError("opacity must be two numbers, 0 < lowest <= highest <= 1")
        return self


for_contrasts = inverted_by_looks


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Blend a Perlin texture into the image where other Perlin noise exceeds a threshold.

    Every contrast gets the same texture by the same g, dark for bright where that is inverted.

    Args:
        config: resolution, threshold and opacity.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: not used; the paper's noise is in voxels.
        donors: not used.

    Returns:
        The corrupted image, its lesion and visibility; nothing is ignored. A draw whose mask misses the brain or whose
        texture hardly differs from the tissue is repeated, up to eight times; then the image is unchanged.

    Raises:
        ConfigError: ``inverted`` lists another number of contrasts than the image has.
    """
    here = present(image)
    if np.count_nonzero(brain) < MINIMUM_BRAIN_VOXELS or not here.any():
        return unchanged(image)
    inverted = listed(config, here)
    nothing = np.zeros(brain.shape, bool)
    for _ in range(_ATTEMPTS):
        mask = (_noise(config, brain.shape, rng) > config.threshold) & brain
        if not mask.any():
            continue
        opacity = np.float32(rng.uniform(*config.opacity))
        changed = image.astype(np.float32)
        texture = 2 * _texture(config, brain.shape, rng) - 1
        for contrast, turned in inverted.items():
            changed[contrast][mask] += opacity * ((-texture if turned else texture) - changed[contrast])[mask]
        corruption = finish(image, changed, mask, nothing, brain)
        if corruption.lesion.any():
            return corruption
    return unchanged(image)


def _noise(config: Config, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Perlin noise (*space) in [-1, 1]: 2^k cells an axis of a power-of-two canvas, cropped, turned in the plane."""
    canvas = [1 << max(int(size - 1).bit_length(), 1) for size in shape]
    cells = [1 << int(rng.integers(0, min(config.most_cells, side.bit_length() - 2) + 1)) for side in canvas]
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    offset = [rng.uniform(0, side - size + 1) for side, size in zip(canvas, shape, strict=True)]
    points = np.indices(shape, np.float32)
    first, second = points[0] - shape[0] / 2, points[1] - shape[1] / 2
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    points[0] = cosine * first - sine * second + shape[0] / 2
    points[1] = sine * first + cosine * second + shape[1] / 2
    for axis, side in enumerate(canvas):
        points[axis] = (points[axis] + offset[axis]) / side
    return perlin(points, cells, rng)


def _texture(config: Config, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Perlin noise of another draw brought to [0, 1] (*space), then altered by operations drawn without repeat."""
    noise = _noise(config, shape, rng)
    low, high = float(noise.min()), float(noise.max())
    texture = (noise - low) / max(high - low, 1e-6)
    for index in rng.permutation(len(_OPERATIONS))[: config.operations]:
        texture = np.clip(_OPERATIONS[index](texture, rng), 0, 1)
    return texture


def _gamma(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return texture ** np.float32(rng.uniform(0.5, 2.0))


def _brightness(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return texture * np.float32(rng.uniform(0.8, 1.2)) + np.float32(rng.uniform(-0.12, 0.12))


def _sharpen(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return texture + np.float32(rng.uniform(0.5, 2.0)) * (texture - ndimage.gaussian_filter(texture, 1.0, truncate=2))


def _solarize(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(texture > np.float32(rng.uniform(0.125, 0.5)), 1 - texture, texture)


def _posterize(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    levels = np.float32(2 ** int(rng.integers(1, 5)))
    return np.floor(texture * (levels - np.float32(1e-3))) / (levels - 1)


def _invert(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 1 - texture


def _stretch(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = np.percentile(texture, (2, 98))
    return (texture - np.float32(low)) / np.float32(max(high - low, 1e-3))


def _equalize(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    counts = np.cumsum(np.bincount((texture * 255).astype(np.int64).ravel(), minlength=256))
    return (counts[(texture * 255).astype(np.int64)] / counts[-1]).astype(np.float32)


_OPERATIONS: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (
    _gamma,
    _brightness,
    _sharpen,
    _solarize,
    _posterize,
    _invert,
    _stretch,
    _equalize,
)
