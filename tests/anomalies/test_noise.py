"""Random fields against their formulas and moments."""

from __future__ import annotations

import numpy as np
import pytest

from hybriduad.anomalies._noise import fractal, smooth
from hybriduad.anomalies._noise import perlin as perlin_noise
from hybriduad.core import rng


@pytest.mark.parametrize("shape", [(96, 96), (40, 48, 20)])
def test_smooth_and_fractal_noise_are_standardised(shape: tuple[int, ...]) -> None:
    for field in (
        lambda draw: smooth(shape, [5.0, 4.0, 0.5][: len(shape)], draw),
        lambda draw: fractal(shape, [8.0] * len(shape), 4, 0.6, draw),
    ):
        drawn = np.stack([field(rng.numpy_rng(0, key)) for key in range(40)])
        assert drawn.dtype == np.float32
        assert drawn.shape[1:] == shape
        assert abs(drawn.mean()) < 0.05
        assert drawn.std() == pytest.approx(1, abs=0.06)


def test_smooth_noise_is_smooth_at_its_scale() -> None:
    coarse = smooth((96, 96), (12.0, 12.0), rng.numpy_rng(0))
    fine = smooth((96, 96), (2.0, 2.0), rng.numpy_rng(0))
    assert np.abs(np.diff(coarse, axis=0)).mean() < 0.4 * np.abs(np.diff(fine, axis=0)).mean()


def reference_perlin(point: np.ndarray, gradients: np.ndarray) -> float:
    """Perlin's 2D noise at one point of the lattice, written out corner by corner."""
    cells = gradients.shape[1:]
    base = np.floor(point).astype(int)
    inside = point - base
    values = {}
    for i in (0, 1):
        for j in (0, 1):
            gradient = gradients[:, (base[0] + i) % cells[0], (base[1] + j) % cells[1]]
            values[i, j] = gradient @ (inside - (i, j))
    u, v = 6 * inside**5 - 15 * inside**4 + 10 * inside**3
    left, right = (values[i, 0] + v * (values[i, 1] - values[i, 0]) for i in (0, 1))
    return float(left + u * (right - left)) * np.sqrt(2)


def test_perlin_noise_agrees_with_the_formula() -> None:
    cells = (4, 8)
    gradients = rng.numpy_rng(5).standard_normal((2, 32), dtype=np.float32)
    gradients = (gradients / np.linalg.norm(gradients, axis=0)).reshape(2, *cells)
    points = rng.numpy_rng(6).uniform(-1, 2, (2, 50)).astype(np.float32)
    got = perlin_noise(points, cells, rng.numpy_rng(5))
    expected = [reference_perlin(point * cells, gradients) for point in points.T]
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("axes", [2, 3])
def test_perlin_noise_is_bounded_and_zero_on_the_lattice(axes: int) -> None:
    points = rng.numpy_rng(1).random((axes, 20000)).astype(np.float32)
    values = perlin_noise(points, (4,) * axes, rng.numpy_rng(2))
    assert 0.5 < np.abs(values).max() <= 1
    lattice = np.indices((4,) * axes, np.float32) / 4
    assert np.abs(perlin_noise(lattice, (4,) * axes, rng.numpy_rng(2))).max() < 1e-5
