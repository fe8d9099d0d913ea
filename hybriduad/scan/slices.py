"""Which slices of a case are judged, and slices as inference sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hybriduad.config.runs import Anatomy
from hybriduad.core import rng
from hybriduad.core.types import BACKGROUND, Batch
from hybriduad.scan.preparation import Prepared

SMALLEST_BRAIN_MM2 = 1500.0
"""Slices with less brain than that (under 4 cm across) teach nothing about anatomy, and are not judged either."""


def enough_brain(brain: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Which slices of a brain (H, W, S) bool hold enough of it to be learnt from and to be judged: (S,) bool."""
    area: np.ndarray = brain.sum(axis=(0, 1)) * spacing_mm[0] * spacing_mm[1]
    return area >= SMALLEST_BRAIN_MM2


def slices_of(prepared: Prepared, indices: Sequence[int], seed: int) -> Batch:
    """Slices of one case as inference sees them: nothing altered, keyed by the seed and the slice's index alone."""
    count = len(indices)
    chosen = list(indices)

    def cut(mask: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(mask[..., chosen], -1, 0)))

    image = cut(prepared.image)
    return Batch(
        image=image,
        healthy=image,
        valid=cut(prepared.valid),
        brain=cut(prepared.brain),
        lesion=cut(prepared.lesion),
        ignore=cut(prepared.ignore),
        target=cut(prepared.lesion).float(),
        spacing_mm=torch.tensor([prepared.spacing_mm[:2]] * count, dtype=torch.float32).reshape(count, 2),
        keys=torch.tensor([rng.slice_key(seed, index) for index in chosen], dtype=torch.int64),
        case_index=torch.zeros(count, dtype=torch.int64),
        slice_index=torch.tensor(chosen, dtype=torch.int64),
    )


def blank_slices(anatomy: Anatomy, slices: int) -> Batch:
    """Slices without content, all of them brain: to count or time what depends on shapes alone."""
    plane = (slices, anatomy.size, anatomy.size)
    image = torch.full((slices, len(anatomy.contrasts), anatomy.size, anatomy.size), BACKGROUND)
    inside, outside = torch.ones(plane, dtype=torch.bool), torch.zeros(plane, dtype=torch.bool)
    return Batch(
        image=image,
        healthy=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        brain=inside,
        lesion=outside,
        ignore=outside,
        target=outside.float(),
        spacing_mm=torch.ones(slices, 2),
        keys=torch.arange(slices),
        case_index=torch.zeros(slices, dtype=torch.int64),
        slice_index=torch.arange(slices),
    )
