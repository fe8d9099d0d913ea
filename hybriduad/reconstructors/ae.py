"""Autoencoder with a dense code: what does not fit into a few numbers is not reproduced (arXiv 2004.03271).

A lesion is seldom among what the code has room for, and neither is fine healthy detail: its reconstructions are smooth.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from hybriduad.config.strict import PluginConfig
from hybriduad.core.types import Batch
from hybriduad.networks.losses import reconstruction_l1
from hybriduad.reconstructors._autoencoder import GROUPS, Decoder, Encoder
from hybriduad.reconstructors._base import ImageReconstructor


class Config(PluginConfig):
    """``width``: channels of the first level; ``depth``: how often a slice is halved; ``latent``: numbers of a code."""

    name: Literal["ae"]
    width: int = Field(32, ge=GROUPS, multiple_of=GROUPS)
    depth: int = Field(4, ge=1, le=6)
    latent: int = Field(128, ge=1)

    @property
    def method(self) -> str:
        return "an autoencoder with a dense code (arXiv:2004.03271)"


class Model(ImageReconstructor):
    """Image (B, C, H, W) -> code (B, latent) -> image."""

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        width, depth = config.width, config.depth
        self.encoder = Encoder(contrasts, size, width=width, depth=depth, numbers=config.latent)
        self.decoder = Decoder(contrasts, size, width=width, depth=depth, numbers=config.latent)

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        predicted = self.decoder(self.encoder(batch.image))
        return {"loss": reconstruction_l1(predicted, batch.healthy, batch.valid)}

    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        predicted: Tensor = self.decoder(self.encoder(image))
        return predicted.float().clamp(-1.0, 1.0)

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        code: Tensor = self.encoder(image)
        return code.float()
