"""Denoising autoencoder with coarse noise: the cheap and strong baseline (Kascenas et al. 2022, MIDL, PMLR 172).

A UNet removes noise drawn on a coarse grid, upsampled to the slice and rolled at random; at test it gets the scan as it
is. The noise is coarse because noise at the scale of pixels teaches it to remove only noise.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.types import BACKGROUND, Batch
from hybriduad.reconstructors._base import ImageReconstructor

GROUPS = 8
"""Groups of every GroupNorm."""


class Config(PluginConfig):
    """``cells``: the noise grid's side; ``deviation``: of the noise, in units of a [0, 1] image."""

    name: Literal["dae"]
    width: int = Field(64, ge=GROUPS, multiple_of=GROUPS)
    depth: int = Field(4, ge=1, le=6)
    cells: int = Field(16, ge=2)
    deviation: float = Field(0.2, gt=0)

    @property
    def method(self) -> str:
        return "a denoising autoencoder with coarse noise (Kascenas et al., MIDL 2022, PMLR 172)"


class Model(ImageReconstructor):
    """UNet with skip connections, image (B, C, H, W) -> clean image."""

    config: Config

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        widths = [config.width * 2**level for level in range(config.depth)]
        self.down = nn.ModuleList(_block(i, o) for i, o in zip([contrasts, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(i + o, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=False))
        self.head = nn.Conv2d(widths[0], contrasts, 1)

    def forward(self, image: Tensor) -> Tensor:
        skips = self._encode(image)
        hidden = skips.pop()
        for block in self.up:
            skip = skips.pop()
            hidden = F.interpolate(hidden, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            hidden = block(torch.cat([hidden, skip], dim=1))
        predicted: Tensor = self.head(hidden)
        return predicted

    def _encode(self, image: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for level, block in enumerate(self.down):
            image = block(F.avg_pool2d(image, 2) if level else image)
            features.append(image)
        return features

    def corrupt(self, image: Tensor, keys: Tensor) -> Tensor:
        """Add coarse noise to the foreground of each slice: image (B, C, H, W)."""
        batch, channels, height, width = image.shape
        coarse = rng.normal(keys, (channels, self.config.cells, self.config.cells))
        noise = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        shift = (rng.uniform(rng.fold_keys(keys, "roll"), (2,)) * torch.tensor([height, width])).long()
        rolled = [torch.roll(noise[i], (int(shift[i, 0]), int(shift[i, 1])), dims=(1, 2)) for i in range(batch)]
        foreground = image > BACKGROUND + 1e-3
        # The image spans [-1, 1], so a deviation given for [0, 1] counts twice.
        return image + 2.0 * self.config.deviation * torch.stack(rolled).to(image) * foreground

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        predicted = self(self.corrupt(batch.image, rng.fold_keys(keys, "noise"))).float()
        error = F.mse_loss(predicted, batch.healthy, reduction="none") * batch.valid
        return {"loss": error.sum() / batch.valid.sum().clamp(min=1)}

    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        predicted: Tensor = self(image).float()
        return predicted.clamp(-1.0, 1.0)

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        return self._encode(image)[-1].float().mean(dim=(2, 3))


def _block(before: int, after: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((before, after), (after, after)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(GROUPS, o), nn.SiLU()]
    return nn.Sequential(*layers)
