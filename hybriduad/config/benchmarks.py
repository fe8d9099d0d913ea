"""What a benchmark's config holds: cohorts, systems, and what all of them share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hybriduad.config.strict import Strict

PartName = Literal["score", "probability", "map", "intensity"]
"""A map of a prediction that lesions can be found by."""


class Phantoms(Strict):
    """A cohort of phantoms that the benchmark makes itself, as :func:`hybriduad.phantom.cohort.write_cohort` does."""

    pathology: str
    subjects: int = Field(ge=9)
    share_healthy: float = Field(0.0, ge=0, lt=1)
    contrasts: tuple[str, ...] = ("FLAIR",)
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 5.0)
    seed: int = 0


class BenchmarkCohort(Strict):
    """``phantoms``, or nothing: then the user names the cohort's folder or manifest on the command line."""

    phantoms: Phantoms | None = None


class Training(Strict):
    """A run config, by path or shipped name, and ``dotted.key=value`` for it."""

    config: str
    set: tuple[str, ...] = ()


class FewLabels(Training):
    """Fine-tuning on the masks of ``limit`` training patients, of all where it is not stated."""

    limit: int | None = Field(None, ge=1)


class Common(Strict):
    """``dotted.key=value`` for every training of a stage, before those of the training itself."""

    reconstructor: tuple[str, ...] = ()
    detector: tuple[str, ...] = ()
    few_labels: tuple[str, ...] = ()


class BenchmarkSystem(Strict):
    """A row: which trainings follow each other, and which part of the last model's prediction is the row's score."""

    reconstructor: Training | None = None
    detector: Training | None = None
    few_labels: FewLabels | None = None
    part: PartName = "score"

    @model_validator(mode="after")
    def _chain(self) -> BenchmarkSystem:
        if self.reconstructor is None and self.detector is None:
            raise ValueError("a system needs a reconstructor, a detector, or both")
        if self.few_labels is not None and self.detector is None:
            raise ValueError("few_labels continue a detector: state it")
        return self


class BenchmarkRun(Strict):
    """``benchmark``: every system trained on each of ``trained_on`` and tested on each of ``tested_on``.

    Subjects are dealt into ``folds``; those of a fold are tested by models that were fitted on 80 % and calibrated on
    20 % of the others. A cohort that a model was not trained on is tested on the subjects of the same fold.
    ``reference`` is the system that the others are compared with, ``rule`` the threshold rule of every mask.
    """

    kind: Literal["benchmark"]
    cohorts: dict[str, BenchmarkCohort] = Field(min_length=1)
    trained_on: tuple[str, ...] = Field(min_length=1)
    tested_on: tuple[str, ...] = Field(min_length=1)
    folds: int = Field(3, ge=2)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    rule: str = "expected-dice"
    common: Common = Common()
    systems: dict[str, BenchmarkSystem] = Field(min_length=1)
    reference: str

    @model_validator(mode="after")
    def _known(self) -> BenchmarkRun:
        if unknown := sorted({*self.trained_on, *self.tested_on} - set(self.cohorts)):
            raise ValueError(f"{unknown} not among the cohorts {sorted(self.cohorts)}")
        if self.reference not in self.systems:
            raise ValueError(f"reference {self.reference!r} is none of the systems")
        return self
