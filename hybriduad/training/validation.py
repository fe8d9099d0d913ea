"""Loss and AUPRC while a training runs, on painted slices that it never learns from.

They are shown, never acted upon: a training ends after its steps, and its weights are the same with or without them.
The same cases are also painted by generators that the training does not use (:mod:`hybriduad.training.unseen`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.runs import Anatomy, Augmentation, DetectorRun, Mix, ReconstructorRun
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core import plugins, rng
from hybriduad.core.errors import reason_of
from hybriduad.core.types import Batch, Case
from hybriduad.detector.inference import Detector
from hybriduad.metrics import ScoreHistogram
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.preparation import Prepared
from hybriduad.training.samples import SampleStream, SlicePool, build_pool, for_contrasts, needs_labels
from hybriduad.training.tasks import Task
from hybriduad.training.unseen import UnseenSlices, held_out

log = logging.getLogger(__name__)

CASES = 8
"""Validation cases that are prepared, at most: each costs a second or two."""
BATCHES, BATCH = 2, 16
"""The painted slices, the same whatever the batch of the training."""
PREFIX = "validation_"
AUPRC = f"{PREFIX}auprc"
"""The figures in the log: those of the losses, with the prefix before their names, and the AUPRC."""
STILL = Augmentation(flip=0, affine=0, gamma=0, bias=0, blur=0, noise=0, ghosting=0, absent=0)


class PaintedSlices(NamedTuple):
    """Slices that nothing is learnt from, painted with the run's anomalies; ``unseen``, of the same cases, painted with
    others; which cases they are of; and the validation cases among them."""

    batches: tuple[Batch, ...]
    unseen: UnseenSlices
    source: str
    cases: tuple[Prepared, ...] = ()


def painted_slices(
    cohort: str | Path,
    run: ReconstructorRun | DetectorRun,
    anatomy: Anatomy,
    cache: str | Path,
    direction: str,
    training: SlicePool,
    inherited: Collection[str] = (),
) -> PaintedSlices:
    """Painted slices of the cohort's "validation" cases; without a usable case, of the ``training`` slices.

    They are drawn and painted by the run's seed under keys that no training draws, with the run's anomalies except
    those that carry annotated lesions; where none is left, with the paper's. Those unseen are drawn apart, and painted
    by :func:`hybriduad.training.unseen.held_out`: by generators that are neither among the run's anomalies nor
    ``inherited``, among those of the bundles that the training starts from.
    """
    # The bundle keeps no identity of these cases, and they do not count as used for fitting where it is calibrated or
    # evaluated: neither weights nor a threshold nor the number of steps depend on them, only from which distance on
    # a scan is unlike those of the training (hybriduad.training.statistics).
    cases = [case for case in read_cohort(cohort) if case.split == "validation"]
    usable = _usable(cases, run.seed, anatomy, cache, direction)
    source = f"{len(usable)} of {len(cases)} validation cases"
    pool = training
    if usable:
        prepared, health = [volume for _, volume in usable], [case.health for case, _ in usable]
        pool = build_pool(prepared, health, lesion_margin_mm=anatomy.lesion_margin_mm)
    else:
        source = f"training cases, as none of {len(cases)} validation cases can be used"

    def batches(key: str, anomalies: Sequence[AnomalyConfig]) -> tuple[Batch, ...]:
        stream = SampleStream(
            SlicePool(pool.prepared, pool.healthy),
            seed=rng.fold(run.seed, key),
            batch=BATCH,
            steps=BATCHES,
            mix=Mix(healthy=0.0, synthetic=1.0),
            augmentation=STILL,
            anomalies=for_contrasts(anomalies, anatomy.contrasts),
            target=run.loss.target if isinstance(run, DetectorRun) else "mask",
        )
        return tuple(stream.samples(step, BATCH) for step in range(BATCHES))

    seen = [anomaly for anomaly in run.anomalies if not needs_labels(anomaly)]
    others = held_out({*inherited, *(anomaly.name for anomaly in run.anomalies)})
    return PaintedSlices(
        batches("validation", seen or [plugins.load("anomalies", "perlin").Config(name="perlin")]),
        UnseenSlices(batches("unseen", others) if others else (), [anomaly.name for anomaly in others]),
        source,
        tuple(volume for _, volume in usable),
    )


@torch.no_grad()
def figures(task: Task, detector: Detector, batches: Sequence[Batch]) -> dict[str, float]:
    """The task's losses, each as ``validation_<name>``, and ``validation_auprc``, by the weights as they are now.

    The AUPRC is over the voxels of all slices, brain without what is marked ignore, against the mask: of the
    segmenter's probability, or without a segmenter of the reconstruction's map. ``task`` has to be in evaluation mode,
    ``detector`` built from it.
    """
    histogram = ScoreHistogram()
    losses: list[dict[str, float]] = []
    for batch in batches:
        bfloat16 = detector.precision == "bfloat16"
        with torch.autocast(detector.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            losses.append({name: float(value) for name, value in task.losses(batch.to(detector.device)).items()})
        maps = detector.slice_maps(batch)
        values = maps.map if maps.probability is None else maps.probability
        assert values is not None  # a detector has a map or a probability
        counted = batch.brain & ~batch.ignore
        histogram.add(values.float().cpu()[counted].numpy(), batch.lesion[counted].numpy())
    means = {f"{PREFIX}{name}": float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
    return means | {AUPRC: histogram.average_precision()}


def _usable(
    cases: Sequence[Case], seed: int, anatomy: Anatomy, cache: str | Path, direction: str
) -> list[tuple[Case, Prepared]]:
    """The first :data:`CASES` cases, in an order drawn by the seed, that can be prepared and have a healthy slice."""
    store = PreparedCache(cache)
    usable: list[tuple[Case, Prepared]] = []
    for case in sorted(cases, key=lambda case: rng.fold(seed, "validation", case.dataset, case.name)):
        if len(usable) == CASES:
            break
        try:
            prepared = store.get(case, anatomy, direction)
            build_pool([prepared], [case.health], lesion_margin_mm=anatomy.lesion_margin_mm)
        except Exception as error:  # no error of a case ends the others
            log.warning("%s left out of the validation: %s", case.name, reason_of(error))
            continue
        usable.append((case, prepared))
    return usable
