"""The only LightningModules, thin: what a step does; how it is run stands in :mod:`hybriduad.training.loop`."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hybriduad.config.runs import DetectorRun, ReconstructorRun, Train
from hybriduad.core import rng
from hybriduad.core.errors import DataError
from hybriduad.core.types import Batch
from hybriduad.networks.losses import restoration_loss, segmentation_loss
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import ImageReconstructor, Reconstructor

CLIP = 1.0


class Task(L.LightningModule):
    """Manual optimisation, since a family may have several players: one optimiser and one schedule for each."""

    def __init__(self, train: Train) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.train_config = train

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a batch by the weights as they are, under the names of the log."""

    def _optimisers(self, players: list[list[torch.nn.Parameter]]) -> Any:
        config = self.train_config
        optimisers = [
            torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=True)
            for weights in players
        ]
        schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, self._share_of_lr) for optimiser in optimisers]
        return optimisers, schedules

    def _share_of_lr(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a hundredth."""
        warmup, steps = self.train_config.warmup, self.train_config.steps
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    def _step(self, index: int, loss: Tensor) -> None:
        _finite("loss", loss)
        optimiser = _listed(self.optimizers())[index]
        optimiser.zero_grad()
        self.manual_backward(loss)
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        # Before the step: gradients clipped by a norm of nan would make every weight nan.
        _finite("gradient", torch.nn.utils.clip_grad_norm_(weights, CLIP))
        optimiser.step()
        _listed(self.lr_schedulers())[index].step()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)


class ReconstructionTask(Task):
    """Stage 1."""

    def __init__(self, run: ReconstructorRun, model: Reconstructor) -> None:
        super().__init__(run.train)
        self.model = model

    def configure_optimizers(self) -> Any:
        return self._optimisers([self.model.parameters_of(player) for player in self.model.players])

    def training_step(self, batch: Batch, _: int) -> None:
        for index, player in enumerate(self.model.players):
            losses = self._losses_of(player, batch)
            self._step(index, losses[f"{player}_loss"])
            self.log_dict({name: value.detach() for name, value in losses.items()}, prog_bar=True)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {k: v for player in self.model.players for k, v in self._losses_of(player, batch).items()}

    def _losses_of(self, player: str, batch: Batch) -> dict[str, Tensor]:
        losses = self.model.loss(batch, rng.fold_keys(batch.keys, player), player)
        return {f"{player}_{name}": value for name, value in losses.items()}


class SegmentationTask(Task):
    """Stage 2 and few-label fine-tuning: the reconstructor is frozen, the masks are synthetic, labelled or both.

    A segmenter that restores slices itself learns that beside the outlines. Of a labelled slice nobody knows how it was
    before its lesion: there it learns to restore only what is neither lesion nor ignored.
    """

    def __init__(self, run: DetectorRun, segmenter: Segmenter, reconstructor: Reconstructor | None) -> None:
        super().__init__(run.train)
        self.segmenter, self.weights, self.levels = segmenter, run.loss, run.training_levels
        # In a tuple, so that it is no part of this module: never trained, averaged, saved or put in train mode.
        self.frozen = (reconstructor,)

    def configure_optimizers(self) -> Any:
        return self._optimisers([list(self.segmenter.parameters())])

    def on_fit_start(self) -> None:
        if (reconstructor := self.frozen[0]) is not None:  # no part of this module, so nobody else moves it
            reconstructor.to(self.device)

    def training_step(self, batch: Batch, _: int) -> None:
        # Some encoders drop paths at random, by the global generator: seeded by the samples, and put back.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(batch.keys[0]))
            losses = self.losses(batch)
        self._step(0, losses["loss"])
        self.log_dict({name: value.detach() for name, value in losses.items()}, prog_bar=True)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        restored = None if self.segmenter.restorer is None else self.segmenter.restored(batch.image)
        beside = self._reconstruction(batch) if restored is None else restored
        losses = segmentation_loss(
            self.segmenter(batch.image, beside).float(),
            batch.target,
            batch.ignore,
            batch.brain,
            dice=self.weights.dice,
            false_alarm=self.weights.false_alarm,
            focal=self.weights.focal,
        )
        if restored is None:
            return losses
        restoration = restoration_loss(restored, batch.healthy, _clean(batch))
        return losses | {"loss": losses["loss"] + restoration, "restoration": restoration}

    @torch.no_grad()
    def _reconstruction(self, batch: Batch) -> Tensor | None:
        """x̂ of the *anomalous* image at one level, drawn by the sample's key; the image where that is not valid."""
        reconstructor = self.frozen[0]
        if not isinstance(reconstructor, ImageReconstructor) or not self.segmenter.needs_reconstruction:
            return None
        drawn = reconstructor.reconstruct_for_training(batch.image, batch.brain, batch.keys, self.levels)
        return torch.where(batch.valid, drawn, batch.image)


def _clean(batch: Batch) -> Tensor:
    """Where ``batch.healthy`` is what a slice would be without its anomaly: (B, C, H, W) bool.

    In a slice that nothing was painted into that is not so in its lesion, a patient's, and where it is ignored.
    """
    unpainted = (batch.image == batch.healthy).flatten(1).all(dim=1)
    sick = (batch.lesion | batch.ignore) & unpainted[:, None, None]
    return batch.valid & ~sick[:, None]


def _finite(what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        mend = "the last good checkpoint is kept; lower train.lr or set train.precision to float32"
        raise DataError(f"{what} is not finite", where="training", got=float(value), mend=mend)


def _listed(item: Any) -> list[Any]:
    return list(item) if isinstance(item, list | tuple) else [item]
