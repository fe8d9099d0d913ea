"""What a benchmark's config holds: cohorts, systems, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hybriduad.config.strict import Strict
from hybriduad.core.types import Part


class Phantoms(Strict):
    """A cohort of phantoms that the benchmark makes itself, as :func:`hybriduad.phantom.cohort.write_cohort` does.

    ``labelmaps``: on the anatomy of people, whose label maps are in the folder that the user names for the cohort.
    """

    pathology: str
    subjects: int = Field(ge=9)
    share_healthy: float = Field(0.0, ge=0, lt=1)
    contrasts: tuple[str, ...] = ("FLAIR",)
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 5.0)
    seed: int = 0
    labelmaps: bool = False


class BenchmarkCohort(Strict):
    """``phantoms``, or nothing: then the user names the cohort's folder or manifest on the command line, as the folder
    of label maps where the phantoms have any. Without it nothing of the cohort is run.

    ``whole``: nothing is trained on the cohort, and the models of every fold are tested on all its subjects.
    """

    phantoms: Phantoms | None = None
    whole: bool = False

    @property
    def is_named(self) -> bool:
        """Whether it needs a path of the user's."""
        return self.phantoms is None or self.phantoms.labelmaps


class Training(Strict):
    """A run config, by path or shipped name, ``dotted.key=value`` for it, and of how many patients the masks are learnt
    from, where the config learns from masks: all where ``limit`` is not stated."""

    config: str
    set: tuple[str, ...] = ()
    limit: int | None = Field(None, ge=1)


class Common(Strict):
    """``dotted.key=value`` for every training of a stage, then those for each by a config of that name, before those of
    the training itself."""

    reconstructor: tuple[str, ...] = ()
    detector: tuple[str, ...] = ()
    configs: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def of(self, stage: Literal["reconstructor", "detector"], config: str) -> tuple[str, ...]:
        """Those of a training."""
        return (*(self.reconstructor if stage == "reconstructor" else self.detector), *self.configs.get(config, ()))


class BenchmarkSystem(Strict):
    """A row: which trainings follow each other, and which part of the last model's prediction is the row's score.

    The first of the ``detector`` trainings stands on the ``reconstructor``, if there is one, each of the others
    continues the one before it. ``against``: the system, or the systems, that this one is compared with, instead of
    the ``reference``.
    """

    reconstructor: Training | None = None
    detector: tuple[Training, ...] = ()
    part: Part = "score"
    against: tuple[str, ...] = ()

    @field_validator("against", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _chain(self) -> BenchmarkSystem:
        if self.reconstructor is None and not self.detector:
            raise ValueError("a system needs a reconstructor, a detector, or both")
        if self.reconstructor is not None and self.reconstructor.limit is not None:
            raise ValueError("a reconstructor learns from no mask: leave out its limit")
        return self


class BenchmarkRun(Strict):
    """``benchmark``: every system trained on the cohorts that ``tables`` names, each tested on those listed there.

    Subjects are dealt into ``folds``; those of a fold are tested by models that were fitted on 80 % and calibrated on
    20 % of the others. Of a cohort that a model was not trained on the subjects of the same fold are tested, or all
    of one that is ``whole``.
    ``reference`` is the system that the others are compared with, ``rule`` the threshold rule of every mask.
    """

    kind: Literal["benchmark"]
    cohorts: dict[str, BenchmarkCohort] = Field(min_length=1)
    tables: dict[str, tuple[str, ...]] = Field(min_length=1)
    folds: int = Field(3, ge=2)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    rule: str = "expected-dice"
    common: Common = Common()
    systems: dict[str, BenchmarkSystem] = Field(min_length=1)
    reference: str

    @model_validator(mode="after")
    def _known(self) -> BenchmarkRun:
        named = {*self.tables, *(name for tested in self.tables.values() for name in tested)}
        if unknown := sorted(named - set(self.cohorts)):
            raise ValueError(f"{unknown} not among the cohorts {sorted(self.cohorts)}")
        if not all(self.tables.values()):
            raise ValueError("a cohort to train on without one to test on")
        if trained := sorted(name for name in self.tables if self.cohorts[name].whole):
            raise ValueError(f"{trained} whole, and yet to be trained on")
        trainings = [each for system in self.systems.values() for each in (system.reconstructor, *system.detector)]
        if unknown := sorted(self.common.configs.keys() - {each.config for each in trainings if each is not None}):
            raise ValueError(f"common.configs: {unknown} used by no system")
        against = {name for system in self.systems.values() for name in system.against}
        if unknown := sorted({self.reference, *against} - set(self.systems)):
            raise ValueError(f"{unknown}, to compare with, is none of the systems")
        if alone := sorted(name for name, system in self.systems.items() if name in system.against):
            raise ValueError(f"{alone} compared with itself")
        return self

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(system, what it is compared with), in the order of the config. Two systems are compared once: where both
        name the other, as the first of them does."""
        listed: set[frozenset[str]] = set()
        stated = {frozenset((name, other)) for name, system in self.systems.items() for other in system.against}
        for name, system in self.systems.items():
            for other in system.against or (self.reference,):
                pair = frozenset((name, other))
                by_default = not system.against and pair in stated
                if name != other and pair not in listed and not by_default:
                    listed.add(pair)
                    yield name, other
