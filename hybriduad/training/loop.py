"""How a task is run: optimiser steps, resumable checkpoints, averaged weights, progress, curves and sample pictures."""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from hybriduad.config.runs import Precision, Train
from hybriduad.core.drawing import Chart, curves
from hybriduad.training.samples import RemainingSteps, SampleStream
from hybriduad.training.tasks import Task
from hybriduad.training.unseen import UNSEEN, UNSEEN_MAP, UNSEEN_SCORE
from hybriduad.training.validation import AUPRC

log = logging.getLogger(__name__)
CHECKPOINT = "resume.ckpt"
LOG = "log"
TENSORBOARD = "tensorboard"
PICTURES = "pictures"
RANKS = (AUPRC, UNSEEN, UNSEEN_MAP, UNSEEN_SCORE)
"""The figures of validation that are no losses."""
FINAL = "final"
"""The picture of the averaged weights. It is drawn after their figures are in the log: where it is, they are."""


def ema_decay(steps: int) -> float:
    """Decay of the averaged weights: slow enough to smooth, fast enough to forget the start in a tenth of training.

    Where a training has phases, ``steps`` are those of the shortest. The average of weights that a phase does not
    change tends to these weights, so at the end that of an earlier phase's is where that phase left them, which is what
    the later phase learnt beside, and that of the last phase's has forgotten its start.
    """
    return max(0.0, min(0.999, 1.0 - 10.0 / steps))


def run_training(
    task: Task,
    stream: SampleStream,
    train: Train,
    folder: Path,
    *,
    device: torch.device,
    precision: Precision,
    draw: Callable[[Path], None],
    validate: Callable[[], dict[str, float]],
) -> None:
    """Train ``task`` for ``train.steps`` steps in ``folder``, from the folder's checkpoint, if it holds any.

    Afterwards the task holds the averaged weights; with 0 steps its initial weights. A training that was stopped leaves
    the log of an uninterrupted training, some rows of it twice. ``draw(path)`` draws samples of the current weights,
    ``validate()`` returns their figures; neither may change anything that is trained.

    Raises:
        HybridUADError: the loss or its gradient is not finite; the last good checkpoint stays.
    """
    if train.steps == 0:
        return draw(folder / PICTURES / f"{FINAL}.png")
    checkpoint = folder / CHECKPOINT
    start = _reached(checkpoint)
    progress = Progress(folder, train.steps, train.picture_every, draw, validate)
    if start >= train.steps:
        # Stopped between the last step and the finished bundle: the checkpoint holds the averaged weights.
        task.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
        return progress.end(task, train.steps, device)
    loader: DataLoader[Any] = DataLoader(
        stream,
        batch_size=None,
        sampler=RemainingSteps(start, train.steps),
        num_workers=min(train.workers, os.cpu_count() or 1),  # no sample depends on their number
        # Workers are seeded from it, in place of the global generator; no sample depends on either.
        generator=torch.Generator().manual_seed(0),
    )
    interactive = _is_terminal()
    callbacks: list[Callback] = [
        # Buffers are constants here, and averaging would round them anew at every step.
        EMAWeightAveraging(decay=ema_decay(task.shortest_phase), use_buffers=False),
        ModelCheckpoint(
            folder,
            filename=Path(CHECKPOINT).stem,
            every_n_train_steps=train.checkpoint_every,
            save_top_k=1,
            enable_version_counter=False,
        ),
        progress,
        RichProgressBar(leave=True) if interactive else MinuteLines(train.steps),
    ]
    task.to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        # Lightning advises on data loaders and on restarts within an epoch; both are as intended here.
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_epochs=1,
            callbacks=callbacks,
            logger=_loggers(folder),
            log_every_n_steps=1,
            enable_progress_bar=interactive,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(task, loader, ckpt_path=checkpoint if start else None, weights_only=True)


def _loggers(folder: Path) -> list[Logger]:
    """A CSV always; for TensorBoard where it is installed, in the working folder alone: its files name the machine."""
    loggers: list[Logger] = [CSVLogger(folder, name=LOG, flush_logs_every_n_steps=20)]
    if importlib.util.find_spec("tensorboard"):
        loggers.append(TensorBoardLogger(folder, name=TENSORBOARD, version=""))
    return loggers


def validation_curve(folder: Path) -> dict[int, float]:
    """Step -> AUPRC on validation slices, of a finished training's bundle or one that runs; none without a log.

    Each is of the weights as they were then, the last of the averaged ones.
    """
    along, values = _logged(folder).get(AUPRC, ([], []))
    return dict(sorted(zip(map(int, along), values, strict=True)))


def _logged(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Name -> the steps and the values in the logs of all sittings, in the order in which they were written."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for path in sorted((folder / LOG).glob("version_*/metrics.csv"), key=lambda table: table.stat().st_mtime):
        with path.open() as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if name not in ("step", "epoch") and value:
                        along, values = series.setdefault(name, ([], []))
                        along.append(float(row["step"]) + 1)  # as everywhere: the first step is step 1
                        values.append(float(value))
    return series


def draw_curve(folder: Path) -> None:
    """Draw losses and AUPRC over the steps of all sittings into ``pictures/loss.png``."""
    series = _logged(folder)
    ranks = {name: series.pop(name) for name in RANKS if name in series}
    signed = {name: curve for name, curve in series.items() if min(curve[1]) < 0}
    losses = {name: curve for name, curve in series.items() if name not in signed}
    charts = [Chart("loss", losses, logarithmic=True), Chart("loss of either sign", signed), Chart("AUPRC", ranks)]
    if series or ranks:
        curves(folder / PICTURES / "loss.png", [chart for chart in charts if chart.series], x="step")


class Progress(Callback):
    """Figures on slices that are never learnt from, sample pictures and the curves, every so many steps; the figures
    alone also after each quarter of the ``steps``, so that a short training shows whether it still learns."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        every: int,
        draw: Callable[[Path], None],
        validate: Callable[[], dict[str, float]],
    ) -> None:
        self.folder, self.every, self.draw, self.validate = folder, every, draw, validate
        self.quarters = {steps * quarter // 4 for quarter in (1, 2, 3)}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.fit_loop.epoch_loop.batch_idx + 1
        if step % self.every == 0:
            self._show(trainer.loggers, pl_module, step, f"step-{step:06d}")
        elif step in self.quarters:
            self._judge(trainer.loggers, pl_module, step)

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        """Write the log before the checkpoint: a continued training logs only the steps after it."""
        for logger in trainer.loggers:
            logger.save()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._show(trainer.loggers, pl_module, trainer.fit_loop.epoch_loop.batch_idx + 1, FINAL)

    def end(self, task: Task, step: int, device: torch.device) -> None:
        """What of :meth:`on_train_end` is still to be done where a training stopped after its last step."""
        if (self.folder / PICTURES / f"{FINAL}.png").is_file():
            return draw_curve(self.folder)
        loggers = _loggers(self.folder)
        task.to(memory_format=torch.channels_last).to(device)
        task.on_fit_start()
        self._show(loggers, task, step, FINAL)
        task.cpu()  # as Lightning leaves it
        for logger in loggers:
            logger.finalize("success")

    def _show(self, loggers: Sequence[Logger], module: L.LightningModule, step: int, name: str) -> None:
        self._judge(loggers, module, step)
        self.draw(self.folder / PICTURES / f"{name}.png")
        draw_curve(self.folder)

    def _judge(self, loggers: Sequence[Logger], module: L.LightningModule, step: int) -> None:
        was_training = module.training
        module.eval()
        values = self.validate()
        module.train(was_training)
        for logger in loggers:
            logger.log_metrics(values, step - 1)  # counted as the losses are
            logger.save()
        log.info("step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))


class MinuteLines(Callback):
    """Where there is no terminal: a line a minute with loss and estimate."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.spoke = time.monotonic()
        self.first = trainer.fit_loop.epoch_loop.batch_idx + 1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        now, step = time.monotonic(), trainer.fit_loop.epoch_loop.batch_idx + 1
        if now - self.spoke >= 60.0 or step == self.steps:
            self.spoke = now
            rate = (now - self.began) / max(1, step - self.first)
            shown = ", ".join(f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items())
            left = rate * (self.steps - step) / 60.0
            log.info("step %d of %d, %s, %.2f s a step, %.1f minutes left", step, self.steps, shown, rate, left)


def _reached(checkpoint: Path) -> int:
    """The step a checkpoint had reached, 0 without a checkpoint."""
    if not checkpoint.is_file():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    # It is written at the end of a step that is processed, but that counts as completed only afterwards.
    return int(state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"])


def _is_terminal() -> bool:
    import sys

    return sys.stderr.isatty()
