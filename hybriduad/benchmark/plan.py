"""What a benchmark has to make, as plain data: the rows of its tables, and the trainings behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun, BenchmarkSystem
from hybriduad.evaluation.calibration import read_rules

FORMAT = 2
"""Part of every key: raised whenever a training would come out different."""
TRIAL_FORMAT = 4
"""Part of a trial's key: raised whenever its result would come out different or holds something else."""

HEALTHY_RULE = "false-positives:false_positive_ml=0.1,per=slice"
"""Beside a trial's own rule: found on lesion-free slices alone, as one would without any mask of a lesion."""
Stage = Literal["reconstructor", "detector"]


def has_healthy_rule(rule: str) -> bool:
    """Whether :data:`HEALTHY_RULE` can stand beside the ``rule`` of a trial: a bundle holds a rule once, so not where
    that is the same with other options.

    Raises:
        ConfigError: an unusable rule.
    """
    own, healthy = read_rules([rule])[0], read_rules([HEALTHY_RULE])[0]
    return own.name != healthy.name or own.config == healthy.config


@dataclass(frozen=True)
class Fit:
    """A training: its ``stage``, config with what is set in it, and the training that it continues.

    ``cohort`` and ``fold`` (from 1) say whose subjects it learns from. Equal trainings run once.
    """

    stage: Stage
    config: str
    changes: tuple[str, ...]
    limit: int | None
    parent: Fit | None
    cohort: str
    fold: int
    seed: int

    @property
    def labels(self) -> int:
        """Labelled patients that it and the trainings before it need at least; 0 where none states a limit."""
        return max(self.limit or 0, self.parent.labels if self.parent is not None else 0)

    @property
    def overrides(self) -> list[str]:
        """``dotted.key=value`` of all that changes the config."""
        return [*self.changes, f"seed={self.seed}"]

    def key(self, digests: Mapping[tuple[str, int], str]) -> str:
        """The sha256 of all that the model comes from; ``digests``: of each (cohort, fold).

        Raises:
            ConfigError: an unusable config.
        """
        resolved = configs.dump(configs.load(self.config, self.overrides, kind=self.stage))
        parent = self.parent and self.parent.key(digests)
        return _digest([FORMAT, self.stage, resolved, self.limit, parent, digests[self.cohort, self.fold]])


@dataclass(frozen=True)
class Trial:
    """A model's figures on the test subjects of a cohort: several rows may read different parts of them."""

    model: Fit
    tested_on: str
    rule: str

    def key(self, digests: Mapping[tuple[str, int], str]) -> str:
        """The sha256 of all that the figures come from."""
        return _digest([TRIAL_FORMAT, self.model.key(digests), digests[self.tested_on, self.model.fold], self.rule])


@dataclass(frozen=True)
class Row:
    """A system in the table of (``trained_on``, ``tested_on``): its trials, over all folds and seeds."""

    system: str
    part: str
    trained_on: str
    tested_on: str
    trials: tuple[Trial, ...]


def rows_of(run: BenchmarkRun) -> Iterator[Row]:
    """The rows of all tables, table by table, systems in the order of the config."""
    for trained_on, tested in run.tables.items():
        for tested_on in tested:
            for name, system in run.systems.items():
                trials = tuple(
                    Trial(_chain(run, system, trained_on, fold, seed), tested_on, run.rule)
                    for fold in range(1, run.folds + 1)
                    for seed in run.seeds
                )
                yield Row(name, system.part, trained_on, tested_on, trials)


def _chain(run: BenchmarkRun, system: BenchmarkSystem, cohort: str, fold: int, seed: int) -> Fit:
    """The last training of a system, behind which stand the others."""
    last: Fit | None = None
    if (first := system.reconstructor) is not None:
        changes = (*run.common.of("reconstructor", first.config), *first.set)
        last = Fit("reconstructor", first.config, changes, None, None, cohort, fold, seed)
    for training in system.detector:
        changes = (*run.common.of("detector", training.config), *training.set)
        last = Fit("detector", training.config, changes, training.limit, last, cohort, fold, seed)
    assert last is not None  # a system without any training is refused by its config
    return last


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
