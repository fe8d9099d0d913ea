"""The only LightningModules, thin: what a step does; how it is run stands in :mod:`hybriduad.training.loop`."""

from __future__ import annotations

import math
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hybriduad.config.runs import DetectorRun, ReconstructorRun, Train
from hybriduad.core import rng
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.types import Batch
from hybriduad.networks.losses import restoration_loss, segmentation_loss
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import ImageReconstructor, Player, Reconstructor

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

    @property
    @abstractmethod
    def shortest_phase(self) -> int:
        """Steps of the shortest phase of the training; of the whole training where it has a single phase."""

    def _optimiser(self, weights: list[torch.nn.Parameter], player: Player, steps: int) -> tuple[Any, Any]:
        """The optimiser of a player and its schedule, which runs over the ``steps`` steps of the player's phase."""
        config = self.train_config
        optimiser = torch.optim.AdamW(
            weights, lr=config.lr * player.lr_scale, betas=player.betas, weight_decay=config.weight_decay, fused=True
        )

        def share_of_lr(update: int) -> float:
            return _share_of_lr(update // player.updates, config.warmup, steps)

        return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, share_of_lr)

    def _step(self, index: int, loss: Tensor, *, counted: bool = True) -> None:
        """An update by the optimiser of that index; exactly one a step is ``counted``.

        Lightning counts the updates of the optimisers that it wraps, and takes them for steps where it saves
        checkpoints and averages weights.
        """
        _finite("loss", loss)
        optimiser = _listed(self.optimizers(use_pl_optimizer=counted))[index]
        optimiser.zero_grad()
        self.manual_backward(loss)
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        # Before the step: gradients clipped by a norm of nan would make every weight nan.
        _finite("gradient", torch.nn.utils.clip_grad_norm_(weights, CLIP))
        optimiser.step()
        _listed(self.lr_schedulers())[index].step()

    def _show(self, losses: dict[str, Tensor], step: int) -> None:
        """Write a step's losses to the log and show them.

        The loggers are called here, since Lightning would write the last losses of a phase at every step after it.
        """
        self.log_dict({name: value.detach() for name, value in losses.items()}, prog_bar=True, logger=False)
        values = {name: float(value.detach()) for name, value in losses.items()}
        for logger in self.loggers:
            logger.log_metrics(values, step)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)


class ReconstructionTask(Task):
    """Stage 1: the phases of the family one after the other, by the step alone; an optimiser for each player.

    Raises:
        ConfigError: so few steps that a phase has none.
    """

    def __init__(self, run: ReconstructorRun, model: Reconstructor) -> None:
        super().__init__(run.train)
        self.model = model
        self.phase_steps = model.phase_steps(run.train.steps)
        if run.train.steps and not self.shortest_phase:
            got, expected = f"train.steps {run.train.steps}", f"enough for each of {len(self.phase_steps)}"
            raise ConfigError(f"phase of {model.config.name!r} without a step", got=got, expected=expected)

    @property
    def shortest_phase(self) -> int:
        return min(len(steps) for steps in self.phase_steps)

    def configure_optimizers(self) -> Any:
        pairs = [
            self._optimiser(self.model.parameters_of(player.name), player, len(steps))
            for players, steps in zip(self.model.phases, self.phase_steps, strict=True)
            for player in players
        ]
        return [optimiser for optimiser, _ in pairs], [schedule for _, schedule in pairs]

    def training_step(self, batch: Batch, step: int) -> None:
        phase = next(number for number, steps in enumerate(self.phase_steps) if step in steps)
        players = self.model.phases[phase]
        before = sum(len(others) for others in self.model.phases[:phase])
        learnt: dict[str, Tensor] = {}
        for index, player in enumerate(players, start=before):
            for update in range(player.updates):
                last = update == player.updates - 1
                with self.model.learning(player.name), self._precision_of(player):
                    losses = self._losses_of(player, batch, update)
                    self._step(index, losses[f"{player.name}_loss"], counted=last and player == players[-1])
            learnt |= losses
        self._show(learnt, step)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Those of the players of all phases: of a player whose phase is still to come, by its weights at the start."""
        losses: dict[str, Tensor] = {}
        for player in self.model.players():
            with self._precision_of(player):
                losses |= self._losses_of(player, batch)
        return losses

    def _losses_of(self, player: Player, batch: Batch, update: int = 0) -> dict[str, Tensor]:
        keys = rng.fold_keys(batch.keys, player.name)
        if update:
            keys = rng.fold_keys(keys, "update", update)
        losses = self.model.loss(batch, keys, player.name)
        return {f"{player.name}_{name}": value for name, value in losses.items()}

    def _precision_of(self, player: Player) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, enabled=False) if player.float32 else nullcontext()


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
        optimiser, schedule = self._optimiser(
            list(self.segmenter.parameters()), Player("segmenter"), self.train_config.steps
        )
        return [optimiser], [schedule]

    @property
    def shortest_phase(self) -> int:
        return self.train_config.steps

    def on_fit_start(self) -> None:
        if (reconstructor := self.frozen[0]) is not None:  # no part of this module, so nobody else moves it
            reconstructor.to(self.device)

    def training_step(self, batch: Batch, step: int) -> None:
        # Some encoders drop paths at random, by the global generator: seeded by the samples, and put back.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(batch.keys[0]))
            losses = self.losses(batch)
        self._step(0, losses["loss"])
        self._show(losses, step)

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


def _share_of_lr(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def _finite(what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        mend = "the last good checkpoint is kept; lower train.lr or set train.precision to float32"
        raise DataError(f"{what} is not finite", where="training", got=float(value), mend=mend)


def _listed(item: Any) -> list[Any]:
    return list(item) if isinstance(item, list | tuple) else [item]
