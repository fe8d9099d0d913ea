"""Patched diffusion, pDDPM: a box of the slice is noised and denoised beside the clean rest (arXiv 2303.03758).

The clean rest tells where and how bright the anatomy of the box is, so that more noise can be removed with less loss of
healthy detail. The boxes are the quarters of the slice: in training one of them, drawn by the key of the slice, and at
test each in turn, stitched to the reconstruction. The denoiser is that of :mod:`hybriduad.reconstructors.ddpm`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hybriduad.core import rng
from hybriduad.core.types import Batch
from hybriduad.networks.losses import reconstruction_l1
from hybriduad.reconstructors import ddpm

SIDE = 2
"""Boxes along each side of a slice."""


class Config(ddpm.Diffusion):
    """A whole slice is that many boxes, so a reconstruction costs four times that of a ddpm."""

    name: Literal["pddpm"]

    @property
    def method(self) -> str:
        return "a patched diffusion model (pDDPM, arXiv:2303.03758)"


class Model(ddpm.Model):
    """F(x_t inside a box, x0 outside, t[, code]) -> x0, of which the box counts."""

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        level = self._drawn_level(keys).to(batch.image.device)
        drawn = (rng.uniform(rng.fold_keys(keys, "box")) * SIDE**2).long().clamp_max(SIDE**2 - 1)
        box = _boxes(batch.image)[drawn.to(batch.image.device)]
        noised = self.add_noise(batch.image, level, rng.fold_keys(keys, "noise"))
        predicted = self.denoise(torch.where(box, noised, batch.image), level, batch.image)
        weight = ddpm.loss_weight(batch, self.config.outside_weight) * box
        return {"loss": reconstruction_l1(predicted.float(), batch.healthy, weight)}

    def _from_noised(self, noised: Tensor, level: Tensor, image: Tensor) -> Tensor:
        stitched = torch.zeros_like(image)
        for box in _boxes(image):
            denoised = self.denoise(torch.where(box, noised, image), level, image)
            stitched = torch.where(box, denoised.to(stitched), stitched)
        return stitched


def _boxes(image: Tensor) -> Tensor:
    """The boxes of slices (B, C, H, W), row by row: (4, 1, H, W) bool; every voxel is in one of them."""
    row, column = (torch.arange(side, device=image.device) * SIDE // side for side in image.shape[-2:])
    number = row[:, None] * SIDE + column[None, :]
    return torch.stack([number == box for box in range(SIDE**2)]).unsqueeze(1)
