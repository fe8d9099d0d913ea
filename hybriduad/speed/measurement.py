"""How fast this machine trains and predicts, how much memory it takes, and how close that comes to what it can do.

Networks are untrained: their speed does not depend on what they learnt.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybriduad.cohort.manifest import read_manifest
from hybriduad.config import files as configs
from hybriduad.config.runs import DetectorRun, Precision, ReconstructorRun
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import Bundle, Description
from hybriduad.detector.device import resolve_device, resolve_precision
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import Reconstructor
from hybriduad.scan.preparation import Prepared, prepare
from hybriduad.scan.slices import slices_of
from hybriduad.scan.volumes import write_atomically
from hybriduad.speed.networks import (
    Bench,
    Measure,
    build_reconstructor,
    build_segmenter,
    matrix_rate,
    parameters,
    reconstruction,
    reconstruction_step,
    segmentation,
    segmentation_step,
)
from hybriduad.speed.report import markdown
from hybriduad.speed.scans import predict_scans, write_scans
from hybriduad.training.samples import SampleStream, build_pool, for_contrasts

log = logging.getLogger(__name__)
DETECTOR, BESIDE = "synthetic", "cddpm"
"""Shipped configs: of stage 2, and of the paper-size reconstructor that is measured beside the chosen reconstructor."""
TARGET_SECONDS, TARGET_MB = 4.0, 2000.0
"""For a scan of 256 x 256 x 36 at three levels, from file to file on two cores, once the model is loaded."""
BUSY = 0.3
"""Load average a core, before anything was measured, from which on the machine is called busy."""
CHUNK = 16
"""Slices a batch in prediction."""


@dataclass(frozen=True)
class Workload:
    """What is measured and how often: the scan, scans in a row, repeats, side of matrices, slices of the comparison."""

    shape: tuple[int, int, int] = (256, 256, 36)
    spacing_mm: tuple[float, float, float] = (0.9, 0.9, 5.0)
    scans: int = 7
    repeats: int = 7
    matrix: int = 2048
    compared_slices: int = 4


WORKLOAD = Workload()


@dataclass(frozen=True)
class Speed:
    """What :func:`measure_speed` measured; as text, the Markdown it wrote.

    ``machine``: facts and load; ``products``: GFLOP/s of matrix products by precision; ``measures`` by name;
    ``case``: whole scans from file to file; ``beside``: this and the larger reconstructor on the same slices.
    """

    config: str
    machine: Mapping[str, Any]
    precision: Precision
    products: Mapping[str, float]
    measures: Mapping[str, Measure]
    case: Mapping[str, Any]
    beside: Mapping[str, Any]

    def __str__(self) -> str:
        return markdown(self.record())

    def record(self) -> dict[str, Any]:
        """As it is written to ``speed.json``, but for nan, which is null there."""
        measures = {
            name: measure._asdict() | {"slices_per_second": measure.slices_per_second}
            for name, measure in self.measures.items()
        }
        return asdict(self) | {"measures": measures}


def measure_speed(
    config: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    device: str = "auto",
    detector: str | Path = DETECTOR,
    beside: str | Path = BESIDE,
    workload: Workload = WORKLOAD,
) -> Speed:
    """Measure training steps, reconstruction and whole scans with a config; write ``speed.json`` and ``.md``.

    Args:
        config: path or name of a shipped config of kind ``reconstructor``.
        out: the folder of the two files; measured anew on each call.
        overrides: ``dotted.key=value`` for ``config``.
        device: "auto", "cpu", "cuda", "cuda:1".
        detector: config of stage 2.
        beside: config of a larger reconstructor, whose time and operations are compared on the same slices.
        workload: what is measured, and how often.

    Raises:
        ConfigError: an unusable config or device.
        DataError: the scans could not be predicted.
    """
    run: ReconstructorRun = configs.load(config, list(overrides), kind="reconstructor")
    stage2: DetectorRun = configs.load(detector, kind="detector")
    larger: ReconstructorRun = configs.load(beside, kind="reconstructor")
    place = resolve_device(device)
    precision = resolve_precision(run.train.precision, place)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    machine = _machine(place)
    reconstructor, segmenter = build_reconstructor(run), build_segmenter(stage2, run.anatomy)
    # Bundle and scans are removed after the measurement, lest an untrained model be taken for a trained model.
    with tempfile.TemporaryDirectory(dir=out, prefix="work-") as folder:
        work = Path(folder)
        manifest = write_scans(
            work / "scans", run.anatomy.contrasts, workload.shape, workload.spacing_mm, workload.scans
        )
        prepared = prepare(read_manifest(manifest)[0], run.anatomy)
        untrained = _untrained(work, run, stage2, reconstructor, segmenter, prepared, precision)
        log.info("whole scans")
        case = predict_scans(untrained.folder, manifest, work / "predictions", device)
    log.info("matrix products")
    products = {
        name: matrix_rate(dtype, place, workload.matrix, workload.repeats)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    bench = Bench(place, precision, products[precision], workload.repeats)
    log.info("networks")
    result = Speed(
        config=str(config),
        machine=machine,
        precision=precision,
        products=products,
        measures=_measures(bench, run, stage2, reconstructor, segmenter, prepared),
        case=case | _against_targets(case, workload, reconstructor.members),
        beside=_beside(bench, (str(config), run), (str(beside), larger), prepared, workload.compared_slices),
    )
    machine["load_after"] = os.getloadavg()[0]
    write_atomically(out / "speed.json", json.dumps(_without_nan(result.record()), indent=1).encode())
    write_atomically(out / "speed.md", str(result).encode())
    return result


def _untrained(
    work: Path,
    run: ReconstructorRun,
    stage2: DetectorRun,
    reconstructor: Reconstructor,
    segmenter: Segmenter,
    prepared: Prepared,
    precision: Precision,
) -> Bundle:
    """A detector's bundle with a threshold, so that a mask is written as well."""
    thresholds = {"default": "best-dice", "rules": {"best-dice": {"values": {"score": 0.5}}}}
    description = Description(
        anatomy=run.anatomy,
        direction=str(prepared.notes["direction"]),
        precision=precision,
        training={"cases": 0},
        identities={},
    )
    edges = {"histogram_edges": torch.linspace(0, 1, 2)}
    stage1 = bundles.save(work / "reconstructor", run, reconstructor.state_dict(), edges, description)
    description = replace(description, thresholds=thresholds)
    return bundles.save(work / "detector", stage2, segmenter.state_dict(), edges, description, stage1)


def _measures(
    bench: Bench,
    run: ReconstructorRun,
    stage2: DetectorRun,
    reconstructor: Reconstructor,
    segmenter: Segmenter,
    prepared: Prepared,
) -> dict[str, Measure]:
    pool = build_pool([prepared], ["healthy"], lesion_margin_mm=0.0)

    def stream(stage: ReconstructorRun | DetectorRun) -> SampleStream:
        return SampleStream(
            pool,
            seed=stage.seed,
            batch=stage.train.batch,
            steps=1,
            mix=stage.mix,
            augmentation=stage.augmentation,
            anomalies=for_contrasts(stage.anomalies, run.anatomy.contrasts),
        )

    first, second = stream(run), stream(stage2)
    batch1, batch2 = first[0], second[0]
    indices = np.flatnonzero(prepared.brain.any(axis=(0, 1))).tolist()
    chunks = [slices_of(prepared, indices[i : i + CHUNK], run.seed) for i in range(0, len(indices), CHUNK)]
    levels = reconstructor.members
    return {
        "samples of a step, stage 1": bench.measure(lambda: first[0], len(batch1), network=False),
        "training step, stage 1": bench.measure(reconstruction_step(bench, reconstructor, batch1), len(batch1)),
        "samples of a step, stage 2": bench.measure(lambda: second[0], len(batch2), network=False),
        "training step, stage 2": bench.measure(
            segmentation_step(bench, stage2, segmenter, reconstructor, batch2), len(batch2)
        ),
        f"reconstruction, {levels} levels": bench.measure(reconstruction(bench, reconstructor, chunks), len(indices)),
        f"segmentation, {levels} levels": bench.measure(segmentation(bench, segmenter, chunks, levels), len(indices)),
    }


def _beside(
    bench: Bench,
    this: tuple[str, ReconstructorRun],
    larger: tuple[str, ReconstructorRun],
    prepared: Prepared,
    slices: int,
) -> dict[str, Any]:
    """Both reconstructors on the same slices and grid, one level each, in numbers a slice."""
    indices = np.flatnonzero(prepared.brain.any(axis=(0, 1)))
    middle = indices[max(0, (len(indices) - slices) // 2) :][:slices].tolist()
    record: dict[str, Any] = {"config": larger[0], "slices": len(middle)}
    anatomy = this[1].anatomy
    for role, (name, run) in {"this": this, "larger": larger}.items():
        model = build_reconstructor(run.model_copy(update={"anatomy": anatomy}))
        work = reconstruction(bench, model, [slices_of(prepared, middle, 0)])
        measured = bench.measure(work, len(middle), repeats=min(bench.repeats, 3))
        share = len(middle) * model.members
        record[role] = {
            "config": name,
            "parameters": parameters(model),
            "seconds": measured.seconds / share,
            "gflops": measured.gflops / share,
            "fraction": measured.fraction,
        }
    record["time_ratio"] = record["larger"]["seconds"] / record["this"]["seconds"]
    record["flop_ratio"] = record["larger"]["gflops"] / record["this"]["gflops"]
    return record


def _against_targets(case: Mapping[str, Any], workload: Workload, levels: int) -> dict[str, Any]:
    targets = {
        f"under {TARGET_SECONDS:g} s a scan": case["seconds"] < TARGET_SECONDS,
        f"under {TARGET_MB / 1000:g} GB": case["peak_mb"] < TARGET_MB,
    }
    return {"shape": list(workload.shape), "levels": levels, "targets": targets}


def _machine(device: torch.device) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "device": name,
        "torch": torch.__version__,
        "load_before": load,
        "busy": load >= BUSY * cores,
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
