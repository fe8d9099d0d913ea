"""Noise fields for the forward process: one field a slice, standardised to mean 0 and variance 1, drawn by its key."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hybriduad.core import rng

Noise = Literal["simplex", "gaussian", "pyramid"]

_SKEW = 0.5 * (3.0**0.5 - 1.0)
_UNSKEW = (3.0 - 3.0**0.5) / 6.0


def noise_fields(kind: Noise, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Noise of ``shape`` (C, H, W) for each of ``keys`` (B,): (B, C, H, W) float32 on the CPU, mean 0, variance 1."""
    fields = {"simplex": _simplex, "gaussian": rng.normal, "pyramid": _pyramid}[kind](keys, shape)
    mean = fields.mean(dim=(2, 3), keepdim=True)
    deviation = fields.std(dim=(2, 3), keepdim=True, correction=0)
    return (fields - mean) / deviation.clamp_min(1e-6)


def _pyramid(keys: Tensor, shape: tuple[int, ...], discount: float = 0.8) -> Tensor:
    """Gaussian noise at every dyadic scale, damped by ``discount`` relative to the next finer scale."""
    channels, height, width = shape
    total = torch.zeros((len(keys), *shape))
    side = max(height, width)
    octave = 0
    while side >= 2:
        cells = (channels, max(2, height * side // max(height, width)), max(2, width * side // max(height, width)))
        field = rng.normal(rng.fold_keys(keys, "octave", octave), cells)
        total += F.interpolate(field, size=(height, width), mode="bilinear", align_corners=False) * discount**-octave
        side //= 2
        octave += 1
    return total


def _simplex(
    keys: Tensor, shape: tuple[int, ...], octaves: int = 6, persistence: float = 0.8, wavelength: float = 64.0
) -> Tensor:
    """Fractal 2D simplex noise, longest ``wavelength`` in pixels (AnoDDPM, DOI 10.1109/CVPRW56347.2022.00080)."""
    channels, height, width = shape
    batch = len(keys)
    order = rng.uniform(keys, (channels, 256)).argsort(dim=-1).reshape(batch * channels, 256)
    shift = rng.uniform(rng.fold_keys(keys, "shift"), (channels, octaves, 2)).reshape(batch * channels, octaves, 2)
    rows = torch.arange(height, dtype=torch.float32)[None, :, None]
    columns = torch.arange(width, dtype=torch.float32)[None, None, :]
    total = torch.zeros((batch * channels, height, width))
    for octave in range(octaves):
        frequency = 2.0**octave / wavelength
        offset = shift[:, octave] * 256.0
        x = rows * frequency + offset[:, 0, None, None]
        y = columns * frequency + offset[:, 1, None, None]
        total += persistence**octave * _simplex_2d(x.expand_as(total), y.expand_as(total), order)
    return total.reshape(batch, channels, height, width)


def _simplex_2d(x: Tensor, y: Tensor, order: Tensor) -> Tensor:
    """One octave: x, y (N, H, W) coordinates, ``order`` (N, 256) a permutation a field; values within about [-1, 1]."""
    skew = (x + y) * _SKEW
    i, j = torch.floor(x + skew), torch.floor(y + skew)
    unskew = (i + j) * _UNSKEW
    x0, y0 = x - (i - unskew), y - (j - unskew)
    lower = (x0 > y0).to(x.dtype)
    total = torch.zeros_like(x)
    corners = (
        (torch.zeros_like(lower), torch.zeros_like(lower)),
        (lower, 1.0 - lower),
        (torch.ones_like(lower), torch.ones_like(lower)),
    )
    for step_i, step_j in corners:
        weight_shift = (step_i + step_j) * _UNSKEW
        dx, dy = x0 - step_i + weight_shift, y0 - step_j + weight_shift
        angle = _gradient_angle(i + step_i, j + step_j, order)
        falloff = (0.5 - dx * dx - dy * dy).clamp_min(0.0) ** 4
        total += falloff * (torch.cos(angle) * dx + torch.sin(angle) * dy)
    return 70.0 * total


def _gradient_angle(i: Tensor, j: Tensor, order: Tensor) -> Tensor:
    """The gradient direction at lattice points, by hashing them through the field's permutation."""
    row = order.gather(1, i.reshape(len(order), -1).long() & 255)
    hashed = order.gather(1, (row + j.reshape(len(order), -1).long()) & 255)
    return (hashed.to(torch.float32) * (2.0 * torch.pi / 256.0)).reshape(i.shape)
