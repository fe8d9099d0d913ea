"""What a config costs in floating-point operations, whatever the machine: counted, nothing is timed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hybriduad.config import files as configs
from hybriduad.config.runs import Anatomy, DetectorRun, ReconstructorRun
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Part
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import Reconstructor
from hybriduad.scan.slices import blank_slices
from hybriduad.scan.volumes import write_atomically
from hybriduad.speed.networks import (
    Bench,
    build_reconstructor,
    build_segmenter,
    count_gflops,
    parameters,
    reconstruction,
    reconstruction_step,
    segmentation,
    segmentation_step,
)

STAGE_1 = "restoration"
"""Shipped config of the reconstructor in front of a detector's segmenter."""


@dataclass(frozen=True)
class Operations:
    """Weights and operations (1e9, convolutions and matrix products) of the network that a config trains.

    ``step_gflops``: a training step of ``batch`` slices, in stage 2 with the frozen reconstruction before it;
    ``pass_gflops``: one slice through the network once; ``slice_gflops``: one slice in prediction, with every level,
    repeat and mirrored view.
    """

    config: str
    parameters: int
    batch: int
    step_gflops: float
    pass_gflops: float
    slice_gflops: float

    def __str__(self) -> str:
        return (
            f"{self.config}: {self.parameters / 1e6:.2f} million weights; {self.step_gflops:.1f} GFLOP a training step "
            f"of {self.batch} slices, {self.pass_gflops:.2f} a slice and pass, {self.slice_gflops:.2f} a slice in "
            "prediction"
        )


def count_operations(config: str | Path, *, out: str | Path, overrides: Sequence[str] = ()) -> Operations:
    """Count a config's operations with untrained networks; write ``operations.json`` into ``out``.

    Args:
        config: path or name of a shipped config. A detector's is counted behind the shipped ``restoration``.
        out: folder of the file, replaced on each call.
        overrides: ``dotted.key=value`` for ``config``.

    Raises:
        ConfigError: an unusable config, or a detector's without a segmenter of its own, as for fine-tuning.
    """
    run = configs.load(config, list(overrides))
    bench = _counter()
    if isinstance(run, ReconstructorRun):
        result = _of_reconstructor(bench, str(config), run)
    elif "segmenter" not in run.model_fields_set:
        mend = "count the config of the detector that it starts from"
        raise ConfigError("no network to count", where=config, expected="a config that states its segmenter", mend=mend)
    else:
        result = _of_detector(bench, str(config), run)
    Path(out).mkdir(parents=True, exist_ok=True)
    write_atomically(Path(out) / "operations.json", json.dumps(asdict(result), indent=1).encode())
    return result


def count_slice_gflops(
    part: Part, reconstructor: ReconstructorRun | None, detector: DetectorRun | None, *, mirror: bool
) -> float:
    """Operations (1e9) of one slice in prediction, for a part of it, with every level, repeat and mirrored view.

    Counted with untrained networks; only those that the part needs run. 0 for what learns nothing.

    Raises:
        ConfigError: a part that a detector of these networks does not have.
    """
    first = reconstructor or detector
    if part in ("intensity", "asymmetry"):
        return 0.0
    if first is None or first.anatomy is None or (part == "map" and reconstructor is None):
        raise ConfigError("no network to count", got=f"part {part}", expected="a reconstructor or a detector with it")
    model = build_reconstructor(reconstructor) if reconstructor is not None else None
    outlined = detector is not None and part != "map"
    segmenter = build_segmenter(detector, first.anatomy) if detector is not None and outlined else None
    if part == "probability" and segmenter is None:
        raise ConfigError("no network to count", got="part probability", expected="a detector")
    if part == "probability" and segmenter is not None and not segmenter.needs_reconstruction:
        model = None
    return _of_slice(_counter(), first.anatomy, model, segmenter) * (2 if mirror else 1)


def _counter() -> Bench:
    """Nothing is timed: neither the rate of matrix products nor repeats are used."""
    return Bench(torch.device("cpu"), "float32", math.nan, repeats=0)


def _of_slice(bench: Bench, anatomy: Anatomy, model: Reconstructor | None, segmenter: Segmenter | None) -> float:
    """Operations (1e9) of one view of a slice: the reconstructions, and the segmenter beside each that it needs."""
    total, slices = 0.0, [blank_slices(anatomy, 1)]
    if model is not None:
        total += count_gflops(reconstruction(bench, model, slices))
    if segmenter is not None:
        members = model.members if model is not None and segmenter.needs_reconstruction else 1
        total += count_gflops(segmentation(bench, segmenter, slices, members))
    return total


def _of_reconstructor(bench: Bench, config: str, run: ReconstructorRun) -> Operations:
    model = build_reconstructor(run)
    step = count_gflops(reconstruction_step(bench, model, blank_slices(run.anatomy, run.train.batch)))
    reconstructed = count_gflops(reconstruction(bench, model, [blank_slices(run.anatomy, 1)]))
    return Operations(
        config=config,
        parameters=parameters(model),
        batch=run.train.batch,
        step_gflops=step,
        pass_gflops=reconstructed / model.members,
        slice_gflops=reconstructed * _views(run),
    )


def _of_detector(bench: Bench, config: str, run: DetectorRun) -> Operations:
    if run.anatomy is not None:  # a segmenter that needs no reconstruction
        anatomy, reconstructor = run.anatomy, None
    else:
        stage1: ReconstructorRun = configs.load(STAGE_1, kind="reconstructor")
        anatomy, reconstructor = stage1.anatomy, build_reconstructor(stage1)
    segmenter = build_segmenter(run, anatomy)
    batch = blank_slices(anatomy, run.train.batch)
    return Operations(
        config=config,
        parameters=parameters(segmenter),
        batch=run.train.batch,
        step_gflops=count_gflops(segmentation_step(bench, run, segmenter, reconstructor, batch)),
        pass_gflops=_of_slice(bench, anatomy, None, segmenter),
        slice_gflops=_of_slice(bench, anatomy, reconstructor, segmenter) * _views(run),
    )


def _views(run: ReconstructorRun | DetectorRun) -> int:
    return 2 if run.mirror else 1
