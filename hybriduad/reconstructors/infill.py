"""Filling: anatomy is guessed from what is around a hole, so that a lesion in the hole cannot show in the guess.

Mask, fill, compare: AutoDDPM, arXiv 2305.19643; PHANES, arXiv 2303.08452; a mask that shrinks and grows: IterMask2,
arXiv 2406.02422. The network is that of the diffusion model, at the level where nothing is left of the hole's content:
under L1 one step from pure noise is the conditional median of the hole given its surroundings, whatever the noise, so
none is drawn and the same slice always gets the same filling.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.types import BACKGROUND, Batch
from hybriduad.reconstructors._base import ImageReconstructor
from hybriduad.reconstructors._holes import covers, drawn_holes, surroundings, widened
from hybriduad.reconstructors._unet import DeepestFeatures, apply_unet, check_widths, make_unet

COVERS = (8, 4)
"""Into how many squares along a side a slice is cut for the first map, once for each."""
ROUNDS = 3
"""How often the region is filled, and shrunk or grown by what that shows."""
MARGIN = 1 / 32
"""Of the region, as a share of the slice's side: it is filled with so much around it."""
OUTSIDE_WEIGHT = 0.1
"""In the loss, what the slice outside its hole weighs."""
USUAL_SPREAD = 0.1
"""Spread of fillings, in units of a [-1, 1] image, that an untrained network states; no spread is under a tenth."""


class Config(PluginConfig):
    """``threshold``: where a scan departs from its filling by more than so many times what is usual there, the region
    to fill begins."""

    name: Literal["infill"]
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = Field(1, ge=1)
    unshuffle: int = Field(2, ge=1, le=4)
    threshold: float = Field(2.5, gt=0)

    @model_validator(mode="after")
    def _widths(self) -> Config:
        check_widths(self.widths)
        return self


class Model(ImageReconstructor):
    """F(slice without its hole, hole) -> the hole's filling, and how far tissue there usually lies from it."""

    config: Config
    network: Any

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        self.network = make_unet(
            size,
            contrasts + 1,
            2 * contrasts,
            widths=config.widths,
            blocks=config.blocks,
            unshuffle=config.unshuffle,
        )

    def fill(self, image: Tensor, brain: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """The slice (B, C, H, W) as it is guessed from outside ``hole`` (B, H, W) bool, and the spread of the guess.

        Inside the hole the image has no influence on either. The spread (B, C, H, W) is the mean |scan - filling| to be
        expected there in a healthy brain, the scale of a Laplace distribution.
        """
        guess = self._guess(image, brain, hole)
        change, spread = self._apply(guess, hole).float().chunk(2, dim=1)
        return guess + change, USUAL_SPREAD * spread.clamp(-math.log(10.0), math.log(10.0)).exp()

    def _guess(self, image: Tensor, brain: Tensor, hole: Tensor) -> Tensor:
        """The image outside ``hole``, in it a smooth guess from the brain around it."""
        outside = ~hole.unsqueeze(1)
        smooth = surroundings(image, (brain & ~hole).unsqueeze(1))
        return torch.where(outside, image, smooth)

    def _apply(self, guess: Tensor, hole: Tensor) -> Tensor:
        level = torch.zeros(len(guess), dtype=torch.int64, device=guess.device)
        return apply_unet(
            self.network, torch.cat([guess, hole.unsqueeze(1).to(guess)], dim=1), level, self.config.unshuffle
        )

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        hole = drawn_holes(rng.fold_keys(keys, "hole"), batch.brain).to(batch.image.device)
        filled, spread = self.fill(batch.image, batch.brain, hole)
        error = (filled - batch.healthy).abs()
        inside = hole.unsqueeze(1) & batch.valid
        filling = _mean_of_slices(error, inside)
        # The error is a fact to the spread, not something to be traded for a wider spread.
        likelihood = _mean_of_slices(error.detach() / spread + spread.log(), inside)
        outside = _mean_of_slices(error, batch.valid)
        total = filling + OUTSIDE_WEIGHT * outside + USUAL_SPREAD * likelihood
        return {"loss": total, "filling": filling, "outside": outside, "likelihood": likelihood}

    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        filled, surprise = self.first_map(image, brain)
        margin = max(1, round(MARGIN * self.size))
        region = self.region(surprise, brain)
        for _ in range(ROUNDS):
            hole = widened(region, margin) & brain
            filling, spread = self.fill(image, brain, hole)
            filled = torch.where(hole.unsqueeze(1), filling, filled)
            region = self.region(torch.where(hole, self.surprise(image, brain, filling, spread), 0.0), hole)
        return filled.clamp(-1.0, 1.0)

    def first_map(self, image: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        """Every part of the brain filled from around it (B, C, H, W), and the surprise that the scan is (B, H, W)."""
        filled, surprise = [], []
        for parts in COVERS:
            whole, departure = image.float(), torch.zeros_like(brain, dtype=torch.float32)
            for pattern in covers(self.size, parts):
                hole = brain & pattern.to(brain.device)
                filling, spread = self.fill(image, brain, hole)
                whole = torch.where(hole.unsqueeze(1), filling, whole)
                departure = torch.where(hole, self.surprise(image, brain, filling, spread), departure)
            filled.append(whole)
            surprise.append(departure)
        return torch.stack(filled).mean(dim=0), torch.stack(surprise).mean(dim=0)

    def surprise(self, image: Tensor, brain: Tensor, filling: Tensor, spread: Tensor) -> Tensor:
        """|scan - filling| in units of what is usual, mean over the contrasts that a slice has: (B, H, W)."""
        there = ((image > BACKGROUND + 1e-3) & brain.unsqueeze(1)).flatten(2).any(dim=2)[:, :, None, None].float()
        departure = (image.float() - filling).abs() / spread * there
        return departure.sum(dim=1) / there.sum(dim=1).clamp_min(1.0)

    def region(self, surprise: Tensor, judged: Tensor) -> Tensor:
        """Where the mean surprise of 3 x 3 voxels is above the threshold, of those that are ``judged``: (B, H, W)."""
        weight = judged.float().unsqueeze(1)
        total = functional.avg_pool2d(surprise.unsqueeze(1) * weight, 3, stride=1, padding=1)
        mean = total / functional.avg_pool2d(weight, 3, stride=1, padding=1).clamp_min(1e-6)
        return (mean.squeeze(1) > self.config.threshold) & judged

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        with DeepestFeatures(self.network) as features:
            self._apply(image, torch.zeros_like(brain))
        return features.pooled


def _mean_of_slices(values: Tensor, counted: Tensor) -> Tensor:
    """The mean over slices of the mean of ``values`` (B, C, H, W) where ``counted``; 0 in a slice without any."""
    total = torch.where(counted, values, 0.0).sum(dim=(1, 2, 3))
    return (total / counted.sum(dim=(1, 2, 3)).clamp_min(1)).mean()
