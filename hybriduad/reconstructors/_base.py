"""The contract of a reconstruction family: healthy anatomy is learnt, lesions are not reproduced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from hybriduad.config.runs import Residual, TrainingLevels
from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.types import Batch
from hybriduad.networks.scoring import combine_levels, residual_map


@dataclass(frozen=True)
class Player:
    """A part of a family that is optimised apart from the rest, by a separate optimiser and schedule.

    ``updates``: how many updates of the optimiser it gets a step, all on the batch of the step, with keys for
    each update; ``lr_scale``: its learning rate over the run's; ``betas``: of its AdamW; ``float32``: its loss and
    gradients are computed in float32 whatever the run's precision, as the gradient of a gradient asks for.
    """

    name: str
    updates: int = 1
    lr_scale: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    float32: bool = False


class Reconstructor(nn.Module, ABC):
    """A network that learnt healthy anatomy and says of slices how far they are from it.

    A family is one file with ``Config(PluginConfig)`` and ``Model``, built as ``Model(config, contrasts, size)``, which
    is an :class:`ImageReconstructor` where it makes pseudo-healthy slices and a :class:`FeatureReconstructor` where
    it compares features and has no image.

    ``phases`` are trained one after the other, each for its share (``shares``, which add up to 1) of the run's steps;
    the players of a phase get their updates in turn at every step (a GAN has a critic and a generator). Most families
    have one phase with one player. ``parameters_of`` says which weights belong to a player; those of the players of
    other phases are frozen meanwhile.
    """

    phases: ClassVar[tuple[tuple[Player, ...], ...]] = ((Player("model"),),)
    shares: ClassVar[tuple[float, ...]] = (1.0,)

    def __init__(self, config: PluginConfig, contrasts: int, size: int) -> None:
        super().__init__()
        self.config = config
        self.contrasts = contrasts
        self.size = size

    @property
    def members(self) -> int:
        """K: how many reconstructions a slice gets (levels x repeats for a diffusion model, 1 for an autoencoder)."""
        return 1

    @classmethod
    def players(cls) -> tuple[Player, ...]:
        """The players of all phases, in the order of the phases."""
        return tuple(chain.from_iterable(cls.phases))

    @classmethod
    def phase_steps(cls, steps: int) -> tuple[range, ...]:
        """The steps of each phase in a training of ``steps`` steps: adjoining ranges that begin at 0."""
        ends = [round(share * steps) for share in accumulate(cls.shares)]
        return tuple(range(first, last) for first, last in pairwise([0, *ends]))

    @abstractmethod
    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        """Named scalar losses of one player; ``"loss"`` is minimised.

        The input is ``batch.image`` and the target ``batch.healthy``, which count where ``batch.valid``; ``keys`` (B,)
        int64 are the only source of randomness.
        """

    @property
    def pretrained(self) -> Path | None:
        """A file of weights that the config names, None where a family takes none."""
        return None

    def load_pretrained(self, path: Path) -> None:
        """Take the weights of :attr:`pretrained`, when a training begins: a bundle holds all weights itself."""
        raise NotImplementedError(f"{self.config.name} takes no weights")

    def features(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor | None:
        """The deepest features of each slice, pooled over space: (B, D) float32; None where a family gives none."""
        return None

    def parameters_of(self, player: str) -> list[nn.Parameter]:
        """The weights that ``player`` optimises; where there is one player, all that are not frozen."""
        return [weight for weight in self.parameters() if weight.requires_grad]

    @contextmanager
    def learning(self, player: str) -> Iterator[None]:
        """Within it gradients are of the weights of ``player`` alone: the other players' are frozen."""
        learnt = {id(weight) for weight in self.parameters_of(player)}
        others = [weight for weight in self.parameters() if weight.requires_grad and id(weight) not in learnt]
        for weight in others:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in others:
                weight.requires_grad_(True)


class FeatureReconstructor(Reconstructor):
    """A family that reconstructs features, not images: no pseudo-healthy slice, and nothing beside which a segmenter
    could see its image.

    Of the run's residual only the median filter is used: ``kind`` and ``combine`` are of images.
    """

    @abstractmethod
    def anomaly_map(self, image: Tensor, valid: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        """The anomaly map before the median filter: (B, H, W) in [0, 1], 0 outside the brain.

        Args:
            image: (B, C, H, W) in [-1, 1].
            valid: (B, C, H, W) bool, the voxels that each contrast covers; a map says nothing where none does.
            brain: (B, H, W) bool.
            keys: (B,) int64. A slice's map depends on its image and key alone.
        """


class ImageReconstructor(Reconstructor):
    """A family that turns slices into pseudo-healthy slices."""

    @abstractmethod
    def reconstruct_member(self, image: Tensor, brain: Tensor, keys: Tensor, member: Tensor) -> Tensor:
        """Reconstruct each slice by its member: image (B, C, H, W) in [-1, 1], member (B,) in [0, K).

        Returns (B, C, H, W) in [-1, 1]. A slice's result depends on its image, key and member alone.
        """

    def reconstruct(self, image: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        """Every member's reconstruction: (K, B, C, H, W) in [-1, 1]."""
        count = image.shape[0]
        members = [torch.full((count,), k, dtype=torch.int64, device=image.device) for k in range(self.members)]
        return torch.stack([self.reconstruct_member(image, brain, keys, member) for member in members])

    def reconstruct_for_training(
        self, image: Tensor, brain: Tensor, keys: Tensor, levels: TrainingLevels = "inference"
    ) -> Tensor:
        """The reconstruction beside which a segmenter learns, drawn for each slice by its key.

        Returns (B, C, H, W) in [-1, 1], by default that of one of the members. Where ``levels`` is "all", a family with
        noise levels draws from all levels that it was trained on; a family without levels ignores it.
        """
        drawn = rng.uniform(rng.fold_keys(keys, "member")) * self.members
        member = drawn.long().clamp_max(self.members - 1).to(image.device)
        return self.reconstruct_member(image, brain, keys, member)

    def anomaly_map(
        self, image: Tensor, valid: Tensor, brain: Tensor, reconstructions: Tensor, residual: Residual
    ) -> Tensor:
        """The unsupervised anomaly map before the median filter: (B, H, W) in [0, 1], 0 outside the brain.

        Args:
            image: (B, C, H, W) in [-1, 1].
            valid: (B, C, H, W) bool, the voxels that each contrast covers.
            brain: (B, H, W) bool.
            reconstructions: (K, B, C, H, W) in [-1, 1].
            residual: which residual and how the members combine.
        """
        if residual.combine == "reconstruction":
            return residual_map(image, reconstructions.float().mean(dim=0), residual.kind, valid) * brain
        maps = torch.stack([residual_map(image, member, residual.kind, valid) for member in reconstructions])
        return combine_levels(maps, residual.combine) * brain
