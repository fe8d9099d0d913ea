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
from torch.nn.functional import avg_pool2d

from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.types import BACKGROUND, Batch
from hybriduad.reconstructors._base import ImageReconstructor
from hybriduad.reconstructors._holes import covers, drawn_covers, drawn_holes, places, surroundings, widened
from hybriduad.reconstructors._unet import DeepestFeatures, apply_unet, check_widths, make_unet

COVERS = (8, 4)
"""Into how many squares along a side a slice is cut for the first map, once for each."""
ROUNDS = 3
"""How often the region is filled, and shrunk or grown by what that shows."""
MARGIN = 1 / 16
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
    threshold: float = Field(2.0, gt=0)

    @property
    def method(self) -> str:
        return "filling of suspicious regions (after AutoDDPM, arXiv:2305.19643)"

    @model_validator(mode="after")
    def _widths(self) -> Config:
        check_widths(self.widths)
        return self


class Model(ImageReconstructor):
    """F(slice without its hole, hole, place in the brain) -> the hole's filling, and how far tissue usually lies from
    it: where the ventricles should be is not to be seen from inside the white matter beside them."""

    config: Config
    network: Any

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        self.network = make_unet(
            size,
            contrasts + 3,
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
        change, spread = self._predicted(guess, brain, hole).float().chunk(2, dim=1)
        return guess + change, USUAL_SPREAD * spread.clamp(-math.log(10.0), math.log(10.0)).exp()

    def _guess(self, image: Tensor, brain: Tensor, hole: Tensor) -> Tensor:
        """The image outside ``hole``, in it a smooth guess from the brain around it."""
        outside = ~hole.unsqueeze(1)
        smooth = surroundings(image, (brain & ~hole).unsqueeze(1))
        return torch.where(outside, image, smooth)

    def _predicted(self, guess: Tensor, brain: Tensor, hole: Tensor) -> Tensor:
        seen = torch.cat([guess, hole.unsqueeze(1).to(guess), places(brain).to(guess)], dim=1)
        level = torch.zeros(len(guess), dtype=torch.int64, device=guess.device)
        return apply_unet(self.network, seen, level, self.config.unshuffle)

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        hole = self._drawn(keys, batch.brain).to(batch.image.device)
        filled, spread = self.fill(batch.image, batch.brain, hole)
        error = (filled - batch.healthy).abs()
        inside = hole.unsqueeze(1) & batch.valid
        filling = _mean_of_slices(error, inside)
        # Without the error's gradient: the spread is fitted to the error, and no error is traded for a wider spread.
        likelihood = _mean_of_slices(error.detach() / spread + spread.log(), inside)
        outside = _mean_of_slices(error, batch.valid)
        total = filling + OUTSIDE_WEIGHT * outside + USUAL_SPREAD * likelihood
        return {"loss": total, "filling": filling, "outside": outside, "likelihood": likelihood}

    def _drawn(self, keys: Tensor, brain: Tensor) -> Tensor:
        """Holes of training (B, H, W): half of them like lesions, half of them like those of the first map."""
        like_lesions = rng.uniform(rng.fold_keys(keys, "kind")) < 0.5
        lesions, squares = drawn_holes(keys, brain), drawn_covers(keys, brain, COVERS)
        return torch.where(like_lesions.reshape(-1, 1, 1), lesions, squares)

    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        return self.fillings(image, brain)[0].clamp(-1.0, 1.0)

    def fillings(self, image: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        """The whole brain filled, and the spread, (B, C, H, W) both: a region that stands out at once, from beyond it,
        the rest square by square from around each."""
        filled, spread = self.first_map(image, brain)
        hole = brain
        margin = max(1, round(MARGIN * self.size))
        for _ in range(ROUNDS):
            region = self.surprise(image, brain, filled, spread, hole) > self.config.threshold
            hole = widened(region, margin) & brain
            filling, scale = self.fill(image, brain, hole)
            # Where the region shrinks, the last filling stays: the scan agrees with it.
            filled = torch.where(hole.unsqueeze(1), filling, filled)
            spread = torch.where(hole.unsqueeze(1), scale, spread)
        return filled, spread

    def first_map(self, image: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        """Every part of the brain filled from around it, and the spread: (B, C, H, W), means over :data:`COVERS`."""
        filled = torch.where(brain.unsqueeze(1), 0.0, image.float())
        spread = torch.zeros_like(filled)
        for parts in COVERS:
            for pattern in covers(self.size, parts):
                hole = brain & pattern.to(brain.device)
                filling, scale = self.fill(image, brain, hole)
                filled = filled + torch.where(hole.unsqueeze(1), filling, 0.0) / len(COVERS)
                spread = spread + torch.where(hole.unsqueeze(1), scale, 0.0) / len(COVERS)
        return filled, spread

    def surprise(self, image: Tensor, brain: Tensor, filled: Tensor, spread: Tensor, judged: Tensor) -> Tensor:
        """|scan - filling| in units of what is usual, mean over 3 x 3 of the voxels that are ``judged`` (B, H, W) bool,
        and over the contrasts that a slice has: (B, H, W), 0 elsewhere."""
        there = ((image > BACKGROUND + 1e-3) & brain.unsqueeze(1)).flatten(2).any(dim=2)[:, :, None, None]
        counted = (there & judged.unsqueeze(1)).float()
        departure = torch.where(counted > 0, (image.float() - filled).abs() / spread, 0.0)
        total, count = (avg_pool2d(part.sum(dim=1), 3, 1, 1) for part in (departure, counted))
        return torch.where(judged, total / count.clamp_min(1e-6), 0.0)

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        with DeepestFeatures(self.network) as features:
            self._predicted(image, brain, torch.zeros_like(brain))
        return features.pooled


def _mean_of_slices(values: Tensor, counted: Tensor) -> Tensor:
    """The mean over slices of the mean of ``values`` (B, C, H, W) where ``counted``; 0 in a slice without any."""
    total = torch.where(counted, values, 0.0).sum(dim=(1, 2, 3))
    return (total / counted.sum(dim=(1, 2, 3)).clamp_min(1)).mean()
