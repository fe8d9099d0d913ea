"""Holes in brains: those that a network learns to fill, those that cover a brain, and what surrounds a hole."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hybriduad.core import rng

SHARES = (0.01, 0.25)
"""Least and largest share of a slice's brain that a hole of training takes, even in its logarithm."""
CENTRES = 4
"""A hole of training has up to so many parts."""
ROUGHNESS = 0.5
"""How far the border of a part departs from a circle, in its radii."""
CELLS = 8
"""Side of the lattice on which that is drawn: bays and capes as long as an eighth of the slice."""


def drawn_holes(keys: Tensor, brain: Tensor) -> Tensor:
    """A hole for each slice, drawn by its key alone: brain (B, H, W) bool -> (B, H, W) bool on the CPU, in the brain.

    A hole is the part of the brain that is nearest to a few points of it, distance disturbed by smooth noise, and takes
    a share drawn from :data:`SHARES`, exact to a voxel.
    """
    brain = brain.cpu()
    batch, height, width = brain.shape
    low, high = SHARES
    share = low * (high / low) ** rng.uniform(rng.fold_keys(keys, "share"))
    size = (share * brain.sum(dim=(1, 2))).ceil().long()
    count = 1 + (rng.uniform(rng.fold_keys(keys, "count")) * CENTRES).long()
    place = rng.uniform(rng.fold_keys(keys, "centres"), (height, width)).masked_fill(~brain, -1.0)
    centres = place.flatten(1).topk(CENTRES).indices
    rows = torch.arange(height).reshape(1, 1, -1, 1) - (centres // width).reshape(batch, CENTRES, 1, 1)
    columns = torch.arange(width).reshape(1, 1, 1, -1) - (centres % width).reshape(batch, CENTRES, 1, 1)
    distance = (rows**2 + columns**2).float().sqrt()
    unused = torch.arange(CENTRES) >= count.unsqueeze(1)
    nearest = distance.masked_fill(unused.reshape(batch, CENTRES, 1, 1), torch.inf).amin(dim=1)
    radius = (size / (math.pi * count)).sqrt().clamp_min(1.0).reshape(-1, 1, 1)
    lattice = rng.normal(rng.fold_keys(keys, "border"), (1, CELLS, CELLS))
    noise = F.interpolate(lattice, size=(height, width), mode="bicubic", align_corners=False)[:, 0]
    rank = (nearest / radius + ROUGHNESS * noise).masked_fill(~brain, torch.inf).flatten(1)
    limit = rank.sort(dim=1).values.gather(1, (size - 1).clamp_min(0).unsqueeze(1))
    return (rank <= limit).reshape(brain.shape) & brain


def covers(size: int, parts: int) -> Iterator[Tensor]:
    """Four patterns of squares (size, size) bool that together cover a slice, every voxel once.

    The squares have the side of the slice divided by ``parts``; in a pattern they lie as far apart as they are wide.
    """
    number = torch.arange(size) // max(1, size // parts)
    for row in (0, 1):
        for column in (0, 1):
            yield ((number % 2 == row).unsqueeze(1)) & ((number % 2 == column).unsqueeze(0))


def drawn_covers(keys: Tensor, brain: Tensor, parts: tuple[int, ...]) -> Tensor:
    """A pattern of :func:`covers` for each slice and where it lies, drawn by its key alone: brain (B, H, W) bool ->
    (B, H, W) bool on the CPU, in the brain."""
    size = brain.shape[-1]
    numbers = rng.uniform(rng.fold_keys(keys, "cover"), (3,))
    patterns = [next(covers(size, part)) for part in parts]
    drawn = []
    for which, row, column in numbers.tolist():
        part = int(which * len(parts))
        period = 2 * max(1, size // parts[part])
        drawn.append(patterns[part].roll((int(row * period), int(column * period)), dims=(0, 1)))
    return torch.stack(drawn) & brain.cpu()


def widened(mask: Tensor, margin: int) -> Tensor:
    """``mask`` (B, H, W) bool and what lies within ``margin`` pixels of it along each axis."""
    spread = F.max_pool2d(mask.float().unsqueeze(1), 2 * margin + 1, stride=1, padding=margin)
    return spread.squeeze(1) > 0


def surroundings(image: Tensor, known: Tensor) -> Tensor:
    """``image`` (B, C, H, W) where it is ``known`` (B, 1, H, W) bool, elsewhere a smooth guess from there, 0 if nothing
    is known. What the image holds where it is not known has no influence, whatever it is.

    From coarse to fine ("pull-push", Gortler et al. 1996, DOI 10.1145/237170.237200).
    """
    weight = known.to(image.dtype)
    kept = torch.where(known, image, 0.0)
    if min(image.shape[-2:]) <= 1:
        return kept
    share = F.avg_pool2d(weight, 2, ceil_mode=True)
    mean = F.avg_pool2d(kept, 2, ceil_mode=True) / share.clamp_min(1e-6)
    coarse = surroundings(mean, share > 0)
    guess = F.interpolate(coarse, size=image.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known, image, guess)


def places(brain: Tensor) -> Tensor:
    """Where every voxel lies, as seen from the middle of the brain (B, H, W) bool: (B, 2, H, W), along H and along W,
    in twice the standard deviation of the brain's voxels. In a disc they run from -1 to 1."""
    batch, height, width = brain.shape
    along_rows = torch.arange(height, device=brain.device).float().reshape(1, -1, 1).expand(batch, height, width)
    along_columns = torch.arange(width, device=brain.device).float().reshape(1, 1, -1).expand(batch, height, width)
    position = torch.stack([along_rows, along_columns], dim=1)
    weight = brain.unsqueeze(1).float()
    count = weight.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
    middle = (position * weight).sum(dim=(2, 3), keepdim=True) / count
    variance = ((position - middle) ** 2 * weight).sum(dim=(2, 3), keepdim=True) / count
    return (position - middle) / (2.0 * variance.clamp_min(1.0).sqrt())
