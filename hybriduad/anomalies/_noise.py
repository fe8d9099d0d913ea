"""Random fields in two and three dimensions, each a pure function of its arguments and of the generator it is given."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np

from hybriduad.core.errors import ConfigError

# The integral of the squared cubic B-spline: the variance per axis of a spline field with unit-variance coefficients.
_SPLINE_VARIANCE = 151 / 315


def _spline_weights(position: np.ndarray) -> np.ndarray:
    """Cubic B-spline weights (voxels, knots) of an axis; ``position`` (voxels,) counts knots."""
    knot = position.astype(np.int64)
    t = position - knot
    u = 1 - t
    weights = np.zeros((len(position), int(knot[-1]) + 4), np.float32)
    rows = np.arange(len(position))
    weights[rows, knot] = u * u * u / 6
    weights[rows, knot + 1] = 2 / 3 - t * t * (1 - t / 2)
    weights[rows, knot + 2] = 2 / 3 - u * u * (1 - u / 2)
    weights[rows, knot + 3] = t * t * t / 6
    return weights


def smooth(shape: Sequence[int], steps: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """A smooth Gaussian field of mean 0 and variance 1: a cubic B-spline through normal numbers.

    Args:
        shape: one size an axis.
        steps: distance of the knots along each axis, in voxels; under 1 counts as 1. Structures are about two steps
            wide.
        rng: the only source of randomness.

    Returns:
        ``shape`` float32.
    """
    positions, field = _coefficients(shape, steps, rng)
    weights = [_spline_weights(position) for position in positions]
    for weight in weights:  # each pass takes the first axis and appends it, so that the order is restored at the end
        field = np.tensordot(field, weight, axes=(0, 1))
    return field / np.float32(_SPLINE_VARIANCE ** (len(shape) / 2))


def _coefficients(
    shape: Sequence[int], steps: Sequence[float], rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """All that :func:`smooth` draws: where the voxels of each axis lie in units of knots, and the knots' numbers."""
    phases = rng.random(len(shape))
    positions = [
        np.arange(size, dtype=np.float32) / np.float32(max(float(step), 1.0)) + np.float32(phase)
        for size, step, phase in zip(shape, steps, phases, strict=True)
    ]
    return positions, rng.standard_normal([int(position[-1]) + 4 for position in positions], dtype=np.float32)


def fractal(
    shape: Sequence[int], steps: Sequence[float], octaves: int, persistence: float, rng: np.random.Generator
) -> np.ndarray:
    """A sum of :func:`smooth` fields of mean 0 and variance 1; each octave halves the steps and shrinks the amplitude.

    Octaves finer than a voxel along every axis are left out.

    Args:
        shape: one size an axis.
        steps: knot distance of the coarsest octave, in voxels along each axis.
        octaves: how many at most, at least 1.
        persistence: amplitude of an octave relative to the octave before.
        rng: the only source of randomness.

    Returns:
        ``shape`` float32.
    """
    total = np.zeros(tuple(shape), np.float32)
    power = 0.0
    for octave, scale in enumerate(_scales(steps, octaves)):
        amplitude = persistence**octave
        total += np.float32(amplitude) * smooth(shape, [step * scale for step in steps], rng)
        power += amplitude**2
    return total / np.float32(np.sqrt(power))


def record_fractal(shape: Sequence[int], steps: Sequence[float], octaves: int, rng: np.random.Generator) -> str:
    """The state of ``rng`` as text for :func:`replay`, which then gives :func:`fractal` the numbers it would draw here.

    ``rng`` is left where :func:`fractal` would leave it; the field itself, the costly part, is not computed.
    """
    before = rng.bit_generator.state
    for scale in _scales(steps, octaves):
        _coefficients(shape, [step * scale for step in steps], rng)
    return json.dumps(before)


def replay(record: str) -> np.random.Generator:
    """A generator in the state of :func:`record_fractal`.

    Raises:
        ConfigError: ``record`` is no such state.
    """
    bits = np.random.PCG64(0)
    try:
        bits.state = json.loads(record)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError("damaged noise of a lesion", got=repr(record), expected="the state of a PCG64") from error
    return np.random.Generator(bits)


def _scales(steps: Sequence[float], octaves: int) -> list[float]:
    scales = [2.0**-octave for octave in range(octaves)]
    return [scale for scale in scales if scale == 1 or max(steps) * scale >= 1]


def perlin(points: np.ndarray, cells: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Perlin's gradient noise at ``points``, repeated beyond its canvas.

    Perlin, An image synthesizer, doi:10.1145/325165.325247, with the quintic fade of doi:10.1145/566654.566636.

    Args:
        points: (D, *space), coordinates in units of the canvas: one period an axis is the interval [0, 1).
        cells: D numbers, how many lattice cells the canvas has along each axis.
        rng: the only source of randomness.

    Returns:
        (*space) float32, scaled so that the bound is 1: by sqrt(2) in 2D, 2 / sqrt(3) in 3D.
    """
    axes = len(cells)
    gradients = rng.standard_normal((axes, int(np.prod(cells))), dtype=np.float32)
    gradients /= np.maximum(np.linalg.norm(gradients, axis=0), 1e-6)
    scaled = points * np.asarray(cells, np.float32).reshape(-1, *[1] * (points.ndim - 1))
    low = np.floor(scaled)
    inside = (scaled - low).astype(np.float32)
    fade = inside**3 * (inside * (inside * 6 - 15) + 10)
    corner = low.astype(np.int64)
    wrapped = [[(corner[a] + side) % cells[a] for side in (0, 1)] for a in range(axes)]
    total = np.zeros(points.shape[1:], np.float32)
    for sides in itertools.product((0, 1), repeat=axes):
        index = wrapped[0][sides[0]]
        for a in range(1, axes):
            index = index * cells[a] + wrapped[a][sides[a]]
        weight, slope = np.float32(1), np.float32(0)
        for a, side in enumerate(sides):
            weight = weight * (fade[a] if side else 1 - fade[a])
            slope = slope + gradients[a].take(index) * (inside[a] - side)
        total += weight * slope
    return total * np.float32(2 / np.sqrt(axes))
