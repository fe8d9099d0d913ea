"""An anomaly of a run config painted in 3D into a whole volume: lesions with known truth in scans of healthy people."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from hybriduad.anomalies._base import Donor, present
from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.config.runs import DetectorRun, ReconstructorRun
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core import plugins, rng
from hybriduad.core.errors import ConfigError, DataError, HybridUADError, reason_of
from hybriduad.core.types import Corruption
from hybriduad.training.samples import covered, needs_labels

log = logging.getLogger(__name__)

TRIES = 8
"""Draws of a generator and an anomaly before a volume is given up: a draw may be too faint to be a lesion."""


class Volume(Protocol):
    """What is painted into, as :class:`hybriduad.scan.preparation.Prepared` is: ``image`` (C, X, Y, Z) in [-1, 1],
    ``valid`` (C, X, Y, Z) and ``brain`` (X, Y, Z) bool, and the voxel size along the three axes."""

    @property
    def image(self) -> np.ndarray: ...
    @property
    def valid(self) -> np.ndarray: ...
    @property
    def brain(self) -> np.ndarray: ...
    @property
    def spacing_mm(self) -> tuple[float, float, float]: ...


class Painted(NamedTuple):
    """A volume with its anomaly, and the name of the generator."""

    corruption: Corruption
    generator: str


def run_with_anomalies(
    config: str | Path, overrides: Sequence[str] = ()
) -> tuple[ReconstructorRun | DetectorRun, list[AnomalyConfig]]:
    """A run config, and those of its anomalies that can be painted into a scan without labels.

    Raises:
        ConfigError: an unusable config, the config of a benchmark, or no such anomaly.
    """
    run = configs.load(config, list(overrides))
    if isinstance(run, BenchmarkRun):
        raise ConfigError("config of many trainings", where=config, mend="name the config of one of them")
    anomalies = [anomaly for anomaly in run.anomalies if not needs_labels(anomaly)]
    if not anomalies:
        mend = "name a generator under 'anomalies' that needs no labelled slices"
        raise ConfigError("config without anomalies to paint", where=config, mend=mend)
    return run, anomalies


def paint_volume(
    volume: Volume,
    anomalies: Sequence[AnomalyConfig],
    *,
    seed: int,
    identity: Sequence[str],
    others: Sequence[Callable[[], Volume]] = (),
) -> Painted:
    """Paint an anomaly into a volume, in 3D; a pure function of its arguments.

    Args:
        volume: where; a lesion that it has is not looked at.
        anomalies: the generators, drawn by their weights; none that needs labels.
        seed, identity: all random numbers are of them; ``identity`` says whose scan it is, as data set and case.
        others: each gives a lesion-free volume of another person, of any shape, to take foreign tissue from; without,
            it is of another place of the volume. They are called where a generator draws them, and passed over where
            they raise an error of this package.

    Returns:
        A corruption as of a painted training slice: background where a contrast is not valid, and nothing changed
        outside lesion and ignore.

    Raises:
        DataError: no lesion came of several draws, or none of the others can be used.
    """
    generator = rng.numpy_rng(seed, "paint", *identity)
    image, valid, brain = np.array(volume.image), np.asarray(volume.valid), np.asarray(volume.brain)
    brain = brain & valid.any(axis=0)
    weights = np.array([anomaly.weight for anomaly in anomalies])

    def donors(generator: np.random.Generator, *, labelled: bool) -> Donor:
        for index in generator.permutation(len(others)):
            try:
                return _donor(others[int(index)]())
            except HybridUADError as error:
                log.warning("no tissue is taken from a scan that cannot be used: %s", reason_of(error))
        raise DataError("no other scan to take tissue from", got=f"{len(others)}, none of which can be used")

    for _ in range(TRIES):
        anomaly = anomalies[int(generator.choice(len(anomalies), p=weights / weights.sum()))]
        corrupt = plugins.load("anomalies", anomaly.name).corrupt
        corruption = corrupt(
            anomaly, image, brain, generator, spacing_mm=volume.spacing_mm, donors=donors if others else None
        )
        painted = covered(corruption, image, valid)
        if painted.lesion.any():
            return Painted(painted, anomaly.name)
    raise DataError(
        "no lesion could be painted", got=f"{TRIES} draws that hardly show", mend="paint stronger anomalies"
    )


def _donor(volume: Volume) -> Donor:
    """A lesion-free volume as generators want it: its brain ends where a contrast that it has does not cover it."""
    image, valid = np.asarray(volume.image), np.asarray(volume.valid)
    brain = np.asarray(volume.brain) & np.logical_and.reduce(valid[present(image)], axis=0)
    return Donor(image, brain, np.zeros_like(brain), volume.spacing_mm)
