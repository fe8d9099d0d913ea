"""Speed of the networks alone: steps of training, reconstruction, segmentation, beside plain matrix products."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hybriduad.config.runs import Anatomy, DetectorRun, Precision, ReconstructorRun
from hybriduad.core import plugins, rng
from hybriduad.core.types import Batch
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import FeatureReconstructor, Reconstructor
from hybriduad.training.tasks import SegmentationTask

WARM_UP = 2


class Measure(NamedTuple):
    """Seconds (median, least, most) of ``repeats`` calls on ``slices`` slices, and what of the machine they use.

    ``gflops``: floating-point operations of the convolutions and matrix products of one call, in 1e9; ``fraction``:
    their rate over that of plain matrix products in the same precision. Both nan where no network runs.
    """

    seconds: float
    least: float
    most: float
    repeats: int
    slices: int
    gflops: float = math.nan
    fraction: float = math.nan

    @property
    def slices_per_second(self) -> float:
        """Throughput at the median."""
        return self.slices / self.seconds


@dataclass(frozen=True)
class Bench:
    """Where and how calls are measured; ``product`` is the GFLOP/s of plain matrix products there."""

    device: torch.device
    precision: Precision
    product: float
    repeats: int

    def measure(self, call: Callable[[], Any], slices: int, *, network: bool = True, repeats: int = 0) -> Measure:
        """Time a call, after calls that are not counted; with ``network`` also count its operations."""
        gflops = count_gflops(call) if network else math.nan
        seconds = timed(call, self.device, repeats or self.repeats)
        median = statistics.median(seconds)
        fraction = gflops / median / self.product
        return Measure(median, min(seconds), max(seconds), len(seconds), slices, gflops, fraction)

    def autocast(self, *, enabled: bool = True) -> torch.autocast:
        """The precision, as trainings and detectors set it; float32 where it is not ``enabled``."""
        bfloat16 = enabled and self.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16)


def timed(call: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` calls, after :data:`WARM_UP` calls that are not counted."""
    seconds = []
    for number in range(WARM_UP + repeats):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    return seconds


def count_gflops(call: Callable[[], Any]) -> float:
    """Floating-point operations of one call, in 1e9: convolutions and matrix products, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e9


def matrix_rate(dtype: torch.dtype, device: torch.device, side: int, repeats: int) -> float:
    """GFLOP/s of the product of two square matrices: what the machine reaches when nothing is in the way."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
    return 2 * side**3 / 1e9 / statistics.median(timed(lambda: a @ b, device, repeats))


def build_reconstructor(run: ReconstructorRun) -> Reconstructor:
    """The untrained network of a config, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(run.seed, "speed"))
        family = plugins.load("reconstructors", run.model.name)
        model: Reconstructor = family.Model(run.model, len(run.anatomy.contrasts), run.anatomy.size)
    return model


def build_segmenter(run: DetectorRun, anatomy: Anatomy) -> Segmenter:
    """The untrained network of a config, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(run.seed, "speed"))
        return Segmenter(run.segmenter, len(anatomy.contrasts))


def reconstruction_step(bench: Bench, model: Reconstructor, batch: Batch) -> Callable[[], None]:
    """A training step of stage 1, of the longest phase: every update of each player, its loss and its gradient."""
    moved = batch.to(bench.device)
    trained = _placed(model, bench).train()
    _, players = max(zip(trained.shares, trained.phases, strict=True), key=lambda phase: phase[0])
    optimisers = {player: _optimiser(trained.parameters_of(player.name)) for player in players}

    def step() -> None:
        for player, optimiser in optimisers.items():
            for _ in range(player.updates):
                with trained.learning(player.name):
                    with bench.autocast(enabled=not player.float32):
                        loss = trained.loss(moved, moved.keys, player.name)["loss"]
                    _descend(loss, optimiser)

    return step


def segmentation_step(
    bench: Bench, run: DetectorRun, segmenter: Segmenter, reconstructor: Reconstructor | None, batch: Batch
) -> Callable[[], None]:
    """A training step of stage 2: the frozen reconstruction if there is one, the loss, its gradient, the optimiser."""
    moved = batch.to(bench.device)
    frozen = None if reconstructor is None else _placed(reconstructor, bench).eval().requires_grad_(False)
    trained = _placed(segmenter, bench).train().requires_grad_(True)
    optimiser = _optimiser(list(trained.parameters()))
    task = SegmentationTask(run, trained, frozen)

    def step() -> None:
        with bench.autocast():
            loss = task.losses(moved)["loss"]
        _descend(loss, optimiser)

    return step


def reconstruction(bench: Bench, model: Reconstructor, batches: list[Batch]) -> Callable[[], list[Tensor]]:
    """All reconstructions of the slices, as in prediction: every level and repeat, batch by batch.

    Of a family without an image it is the maps.
    """
    frozen = _placed(model, bench).eval().requires_grad_(False)
    moved = [batch.to(bench.device) for batch in batches]

    @torch.no_grad()
    def reconstruct() -> list[Tensor]:
        with bench.autocast():
            if isinstance(frozen, FeatureReconstructor):
                return [frozen.anomaly_map(_image(batch), batch.valid, batch.brain, batch.keys) for batch in moved]
            return [frozen.reconstruct(_image(batch), batch.brain, batch.keys).float() for batch in moved]

    return reconstruct


def segmentation(bench: Bench, segmenter: Segmenter, batches: list[Batch], members: int) -> Callable[[], list[Tensor]]:
    """The segmenter on the slices with each of ``members`` reconstructions, as in prediction."""
    frozen = _placed(segmenter, bench).eval().requires_grad_(False)
    moved = [batch.to(bench.device) for batch in batches]

    @torch.no_grad()
    def segment() -> list[Tensor]:
        with bench.autocast():
            # Any slice serves as the reconstruction, except for a network that computes a restored slice itself.
            beside = [batch.healthy if frozen.needs_reconstruction else None for batch in moved]
            return [frozen(_image(b), r) for b, r in zip(moved, beside, strict=True) for _ in range(members)]

    return segment


def parameters(module: nn.Module) -> int:
    """How many weights."""
    return sum(weight.numel() for weight in module.parameters())


def _placed(module: Any, bench: Bench) -> Any:
    # A copy, since one measurement trains the network that another measurement freezes.
    return copy.deepcopy(module).to(bench.device, memory_format=torch.channels_last)


def _image(batch: Batch) -> Tensor:
    return batch.image.contiguous(memory_format=torch.channels_last)


def _optimiser(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    # A rate of 0 costs the same and keeps the weights of every repeat alike.
    return torch.optim.AdamW(weights, lr=0.0, fused=True)


def _descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([weight for group in optimiser.param_groups for weight in group["params"]], 1.0)
    optimiser.step()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
