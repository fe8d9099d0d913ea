"""A crude head for the tests of anomaly generators."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hybriduad.anomalies._noise import smooth
from hybriduad.core import rng

SPACING_MM = (2.2, 2.2)


def head(shape: tuple[int, ...], seed: int, contrasts: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A crude head: skull, cortex, white matter, ventricles; the last of three contrasts is absent."""
    draw = rng.numpy_rng(seed, "head")
    axes = [np.linspace(-1, 1, size) for size in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    radii = np.array([0.75, 0.9, 1.2][: len(shape)]) * draw.uniform(0.9, 1.05)
    distance = np.sqrt(((grid / radii.reshape(-1, *[1] * len(shape))) ** 2).sum(0))
    distance += 0.04 * smooth(shape, [6.0] * len(shape), draw)
    brain = distance < 0.85
    labels = np.select([distance < 0.2, distance < 0.65, brain, distance < 0.92, distance < 1], [1, 2, 3, 1, 4], 0)
    levels = [[-1, -0.8, -0.2, 0.1, 0.6], [-1, -0.7, 0.5, 0.1, 0.8], [-1] * 5]
    image = np.stack([np.asarray(level, np.float32)[labels] for level in levels])[:contrasts]
    noisy = image + 0.04 * draw.standard_normal(image.shape, dtype=np.float32)
    noisy = ndimage.gaussian_filter(noisy, (0, *[0.7] * len(shape)))
    return np.where(image == -1, -1, np.clip(noisy, -1, 1)).astype(np.float32), brain
