"""f-AnoGAN: a generator of healthy slices, then an encoder into its latent (DOI 10.1016/j.media.2019.01.010).

First a generator of slices learns from random codes, against a critic whose distance is Wasserstein's, with a gradient
penalty (WGAN-GP, arXiv 1704.00028). Then both are frozen and an encoder learns the code of a slice, by the differences
between the slice and what the generator makes of the code, of voxels and of the critic's features ("izi_f"). What the
generator never generates, such as a lesion, has no code.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.types import BACKGROUND, Batch
from hybriduad.reconstructors._autoencoder import GROUPS, Decoder, Encoder
from hybriduad.reconstructors._base import ImageReconstructor, Player

PENALTY = 10.0
"""Weight of the gradient penalty, as in WGAN-GP."""
KAPPA = 1.0
"""Weight of the difference of the critic's features beside that of voxels, as in f-AnoGAN."""
CRITIC_UPDATES = 5
"""Updates of the critic for an update of the generator. They share the batch of the step, not its codes."""
ADVERSARIAL_LR, ADVERSARIAL_BETAS = 0.4, (0.0, 0.9)
"""Of the critic and the generator: the share of the run's learning rate, and what AdamW remembers."""


class Config(PluginConfig):
    """``width``: channels of the first level; ``depth``: how often a slice is halved; ``latent``: numbers of a code."""

    name: Literal["fanogan"]
    width: int = Field(32, ge=GROUPS, multiple_of=GROUPS)
    depth: int = Field(4, ge=1, le=6)
    latent: int = Field(128, ge=1)

    @property
    def method(self) -> str:
        return "a generative adversarial network with an encoder (f-AnoGAN, doi:10.1016/j.media.2019.01.010)"


class Model(ImageReconstructor):
    """Code (B, latent) -> image (generator), image -> number (critic), image -> code (encoder)."""

    config: Config
    phases = (
        (
            Player("critic", updates=CRITIC_UPDATES, lr_scale=ADVERSARIAL_LR, betas=ADVERSARIAL_BETAS, float32=True),
            Player("generator", lr_scale=ADVERSARIAL_LR, betas=ADVERSARIAL_BETAS, float32=True),
        ),
        (Player("encoder"),),
    )
    shares = (0.6, 0.4)

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        width, depth = config.width, config.depth
        self.generator = Decoder(contrasts, size, width=width, depth=depth, numbers=config.latent)
        self.critic = Encoder(contrasts, size, width=width, depth=depth, numbers=1)
        self.encoder = Encoder(contrasts, size, width=width, depth=depth, numbers=config.latent)

    def generate(self, code: Tensor) -> Tensor:
        """Slices (B, C, H, W) in [-1, 1] of codes (B, latent)."""
        return self.generator(code).tanh()

    def parameters_of(self, player: str) -> list[nn.Parameter]:
        parts = {"critic": self.critic, "generator": self.generator, "encoder": self.encoder}
        return list(parts[player].parameters())

    def loss(self, batch: Batch, keys: Tensor, player: str = "encoder") -> dict[str, Tensor]:
        losses = {"critic": self._critic_loss, "generator": self._generator_loss, "encoder": self._encoder_loss}
        return losses[player](batch, keys)

    def _critic_loss(self, batch: Batch, keys: Tensor) -> dict[str, Tensor]:
        """Wasserstein's distance between healthy and generated slices, which is maximised, and the gradient penalty."""
        real = _covered(batch.healthy, batch)
        with torch.no_grad():
            generated = self._generated(batch, keys)
        distance = (self.critic(real) - self.critic(generated)).mean()
        penalty = self._gradient_penalty(real, generated, keys)
        return {"loss": PENALTY * penalty - distance, "distance": distance, "penalty": penalty}

    def _generator_loss(self, batch: Batch, keys: Tensor) -> dict[str, Tensor]:
        return {"loss": -self.critic(self._generated(batch, keys)).mean()}

    def _encoder_loss(self, batch: Batch, keys: Tensor) -> dict[str, Tensor]:
        generated = _covered(self.generate(self.encoder(batch.image)), batch)
        healthy = _covered(batch.healthy, batch)
        voxels = (generated.float() - healthy).square().sum() / batch.valid.sum().clamp(min=1)
        features = (self._critic_features(generated) - self._critic_features(healthy)).float().square().mean()
        return {"loss": voxels + KAPPA * features, "voxels": voxels, "features": features}

    def _generated(self, batch: Batch, keys: Tensor) -> Tensor:
        """A slice of a random code for each slice of the batch, with background where that has no voxels."""
        code = rng.normal(rng.fold_keys(keys, "code"), (self.config.latent,)).to(batch.image)
        return _covered(self.generate(code), batch)

    def _gradient_penalty(self, real: Tensor, generated: Tensor, keys: Tensor) -> Tensor:
        """How far the critic's slope is from 1, at a random point between each real and generated slice."""
        share = rng.uniform(rng.fold_keys(keys, "share"), (1, 1, 1)).to(real)
        with torch.enable_grad():  # also where the loss alone is asked for, as in validation
            # No leaf of the graph, since torch's counter of operations cannot follow a gradient to a leaf.
            between = torch.lerp(real, generated, share.requires_grad_())
            (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1.0).square().mean()

    def _critic_features(self, image: Tensor) -> Tensor:
        """What the critic's last layer sees: (B, numbers)."""
        return self.critic.layers[:-1](image)

    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        return self.generate(self.encoder(image)).float()

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        return self.encoder(image).float()


def _covered(image: Tensor, batch: Batch) -> Tensor:
    """``image`` where a contrast covers the voxel, background elsewhere, as in every input."""
    return torch.where(batch.valid, image, BACKGROUND)
