"""Denoising diffusion with one-step reconstruction: DDPM, AnoDDPM and, with a condition, cDDPM.

DDPM: arXiv 2006.11239. Simplex noise: AnoDDPM, DOI 10.1109/CVPRW56347.2022.00080. Condition: cDDPM, arXiv 2312.04215.
The network predicts the clean slice x0 from the noised slice; a reconstruction is one step at a configured level.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hybriduad.config.runs import TrainingLevels
from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.types import Batch
from hybriduad.networks.losses import reconstruction_l1
from hybriduad.reconstructors._base import ImageReconstructor
from hybriduad.reconstructors._condition import ConditionEncoder
from hybriduad.reconstructors._noise import Noise, noise_fields
from hybriduad.reconstructors._unet import DeepestFeatures, apply_unet, check_widths, make_unet

LEVELS = 1000
OUTSIDE_WEIGHT = 0.25


class Diffusion(PluginConfig):
    """What every family of diffusion states.

    ``train_levels`` is the half-open range of t in training; ``levels`` are those of a reconstruction.

    ``skip``: the network's output is added to the noised slice, of which it learns the change and not the picture, as
    c_skip of EDM does (arXiv 2206.00364); its last convolution starts at zero, so untrained it changes nothing.

    ``outside_weight``: what a voxel outside the brain counts in the loss beside one inside, 1 for all alike as in the
    paper. It is not written where it is left out: trainings from before it was there are continued.
    """

    widths: tuple[int, ...] = (128, 256, 256)
    blocks: int = Field(3, ge=1)
    unshuffle: int = Field(1, ge=1, le=4)
    noise: Noise = "simplex"
    betas: Literal["cosine", "linear"] = "cosine"
    train_levels: tuple[int, int] = (0, LEVELS)
    levels: tuple[int, ...] = (250, 500, 750)
    repeats: int = Field(1, ge=1)
    condition: Literal["none", "small", "resnet50"] = "none"
    skip: bool = False
    outside_weight: float = Field(OUTSIDE_WEIGHT, ge=0, le=1, exclude_if=lambda weight: weight == OUTSIDE_WEIGHT)

    @model_validator(mode="after")
    def _levels(self) -> Diffusion:
        low, high = self.train_levels
        if not 0 <= low < high <= LEVELS:
            raise ValueError(f"train_levels must satisfy 0 <= low < high <= {LEVELS}")
        if not self.levels or not all(low <= level < high for level in self.levels):
            raise ValueError(f"levels must lie in the range that is trained, train_levels [{low}, {high})")
        check_widths(self.widths)
        return self


class Config(Diffusion):
    """Without a condition, DDPM by Gaussian noise and AnoDDPM by simplex noise; with a condition, cDDPM."""

    name: Literal["ddpm"]

    @property
    def method(self) -> str:
        if self.condition != "none":
            return "a conditioned diffusion model (cDDPM, Behrendt et al. 2023, arXiv:2312.04215)"
        if self.noise == "simplex":
            return "a diffusion model with simplex noise (AnoDDPM, doi:10.1109/CVPRW56347.2022.00080)"
        return "a diffusion model (DDPM, arXiv:2006.11239)"


class Model(ImageReconstructor):
    """F(x_t, t[, code]) -> x0, with x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n."""

    config: Diffusion
    signal: Tensor
    network: Any

    def __init__(self, config: Diffusion, contrasts: int, size: int) -> None:
        from diffusers import DDPMScheduler

        super().__init__(config, contrasts, size)
        self.network = make_unet(
            size,
            contrasts,
            contrasts,
            widths=config.widths,
            blocks=config.blocks,
            unshuffle=config.unshuffle,
            coded=config.condition != "none",
            from_zero=config.skip,
        )
        width = 4 * config.widths[0]
        self.encoder = ConditionEncoder(config.condition, contrasts, width) if config.condition != "none" else None
        schedule = "squaredcos_cap_v2" if config.betas == "cosine" else "linear"
        scheduler: Any = DDPMScheduler(num_train_timesteps=LEVELS, beta_schedule=schedule, prediction_type="sample")
        self.register_buffer("signal", scheduler.alphas_cumprod.float(), persistent=False)

    @property
    def members(self) -> int:
        return len(self.config.levels) * self.config.repeats

    def add_noise(self, image: Tensor, level: Tensor, keys: Tensor) -> Tensor:
        """x_t of each slice: image (B, C, H, W), level (B,), keys (B,)."""
        noise = noise_fields(self.config.noise, keys, tuple(image.shape[1:])).to(image)
        signal = self.signal.to(image)[level].reshape(-1, 1, 1, 1)
        return signal.sqrt() * image + (1.0 - signal).sqrt() * noise

    def denoise(self, noised: Tensor, level: Tensor, image: Tensor) -> Tensor:
        """x0 predicted from x_t; ``image`` is the slice that a condition encodes."""
        code = self.encoder(image) if self.encoder is not None else None
        predicted = apply_unet(self.network, noised, level, self.config.unshuffle, code)
        return predicted + noised if self.config.skip else predicted

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        level = self._drawn_level(keys).to(batch.image.device)
        noised = self.add_noise(batch.image, level, rng.fold_keys(keys, "noise"))
        predicted = self.denoise(noised, level, batch.image)
        return {
            "loss": reconstruction_l1(predicted.float(), batch.healthy, loss_weight(batch, self.config.outside_weight))
        }

    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        levels = torch.tensor(self.config.levels, device=image.device)
        return self._one_step(image, keys, levels[member // self.config.repeats], member % self.config.repeats)

    def reconstruct_for_training(
        self, image: Tensor, brain: Tensor, keys: Tensor, levels: TrainingLevels = "inference"
    ) -> Tensor:
        if levels == "inference":
            return super().reconstruct_for_training(image, brain, keys, levels)
        level = self._drawn_level(keys).to(image.device)
        return self._one_step(image, keys, level, torch.zeros_like(level))

    def _drawn_level(self, keys: Tensor) -> Tensor:
        """A level of training for each of ``keys`` (B,), evenly from the trained range: (B,) int64 on the CPU."""
        low, high = self.config.train_levels
        drawn = low + rng.uniform(rng.fold_keys(keys, "level")) * (high - low)
        return drawn.long().clamp_max(high - 1)

    def _one_step(self, image: Tensor, keys: Tensor, level: Tensor, repeat: Tensor) -> Tensor:
        """x0 of each slice from its x_t, in [-1, 1]; the noise is keyed by slice, level and repeat."""
        noise_keys = torch.cat(
            [rng.fold_keys(keys[i : i + 1], "level", int(level[i]), "repeat", int(repeat[i])) for i in range(len(keys))]
        )
        return self._from_noised(self.add_noise(image, level, noise_keys), level, image).float().clamp(-1.0, 1.0)

    def _from_noised(self, noised: Tensor, level: Tensor, image: Tensor) -> Tensor:
        """x0 of whole slices, (B, C, H, W), from their x_t."""
        return self.denoise(noised, level, image)

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        first = torch.zeros(len(keys), dtype=torch.int64, device=image.device)
        with DeepestFeatures(self.network) as features:
            self.reconstruct_member(image, brain, keys, first)
        return features.pooled


def loss_weight(batch: Batch, outside: float) -> Tensor:
    """What each voxel counts in the loss: (B, C, H, W) in [0, 1], 0 where a contrast covers nothing.

    Scores count inside the brain, where it is 1: the rest of the head keeps the share ``outside``, in [0, 1], so that
    the context stays readable.
    """
    weight = outside + (1.0 - outside) * batch.brain.float()
    return weight.unsqueeze(1) * batch.valid
