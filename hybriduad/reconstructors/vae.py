"""Variational autoencoder with a dense code (arXiv 1312.6114), as a model of healthy anatomy (arXiv 2004.03271).

In training the code is drawn around its mean, by the key of the slice; a reconstruction is that of the mean.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.types import Batch
from hybriduad.networks.losses import reconstruction_l1
from hybriduad.reconstructors._autoencoder import GROUPS, Decoder, Encoder
from hybriduad.reconstructors._base import ImageReconstructor

LOG_VARIANCES = (-20.0, 10.0)
"""Range of the logarithm of a code's variance, so that its exponential stays finite."""


class Config(PluginConfig):
    """``width``: channels of the first level; ``depth``: how often a slice is halved; ``latent``: numbers of a code;
    ``kl``: weight of a code's Kullback-Leibler divergence, summed over its numbers, beside the mean L1.
    """

    name: Literal["vae"]
    width: int = Field(32, ge=GROUPS, multiple_of=GROUPS)
    depth: int = Field(4, ge=1, le=6)
    latent: int = Field(128, ge=1)
    kl: float = Field(1e-3, ge=0)

    @property
    def method(self) -> str:
        return "a variational autoencoder (arXiv:1312.6114)"


class Model(ImageReconstructor):
    """Image (B, C, H, W) -> Gaussian of codes (B, latent) -> image."""

    config: Config

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        width, depth = config.width, config.depth
        self.encoder = Encoder(contrasts, size, width=width, depth=depth, numbers=2 * config.latent)
        self.decoder = Decoder(contrasts, size, width=width, depth=depth, numbers=config.latent)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of each slice's code, (B, latent) float32 each."""
        mean, log_variance = self.encoder(image).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        mean, log_variance = self.encode(batch.image)
        noise = rng.normal(rng.fold_keys(keys, "code"), (self.config.latent,)).to(mean)
        predicted = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        l1 = reconstruction_l1(predicted, batch.healthy, batch.valid)
        divergence = 0.5 * (log_variance.exp() + mean.square() - 1.0 - log_variance).sum(dim=1).mean()
        return {"loss": l1 + self.config.kl * divergence, "l1": l1, "divergence": divergence}

    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        predicted: Tensor = self.decoder(self.encode(image)[0])
        return predicted.float().clamp(-1.0, 1.0)

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        return self.encode(image)[0]
