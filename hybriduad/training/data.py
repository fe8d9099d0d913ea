"""A cohort prepared for training: its cases on the model grid, which of them are labelled, and their digests."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybriduad.cohort.leakage import identities
from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.runs import NATIVE, Anatomy
from hybriduad.core import rng
from hybriduad.core.errors import DataError, reason_of
from hybriduad.core.types import Case
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.grid import DIRECTIONS, direction_of
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.volumes import read_grid
from hybriduad.training.samples import SlicePool, labelled_slices

log = logging.getLogger(__name__)

MOST_UNUSABLE = 0.25
"""The share of the training cases that may be left out without an error."""
REASONS = 3
"""How many reasons the error names where too many cases cannot be used."""
MEASURED = (
    "age",
    "ageyears",
    "agemonths",
    "height",
    "heightcm",
    "weight",
    "weightkg",
    "fieldstrength",
    "magneticfieldstrength",
    "slicethickness",
    "echotime",
    "repetitiontime",
    "inversiontime",
    "flipangle",
)
"""Columns of numbers whose range a bundle states; compared without case, spaces and signs."""
CODED = ("site", "scanner", "sex", "gender")
"""Columns whose values are names even where they are numbers."""
MISSING = ("", "n/a", "na", "nan")


@dataclass(frozen=True)
class TrainingData:
    """The cases that could be prepared, on the model grid and of one acquisition ``direction``; how many ``failed``.

    ``identities`` is what a bundle keeps of them, see :func:`identities`; read before the training, since an image
    that cannot be read would waste all of it afterwards.
    """

    cases: tuple[Case, ...]
    prepared: tuple[Prepared, ...]
    direction: str
    failed: int
    identities: Mapping[str, str] = field(default_factory=dict)


def training_cases(cohort: str | Path) -> list[Case]:
    """The "train" cases of a cohort with splits, all cases of a cohort without.

    Raises:
        DataError: the cohort cannot be read, or has splits but no "train" case.
    """
    cases = read_cohort(cohort)
    if not any(case.split for case in cases):
        return cases
    chosen = [case for case in cases if case.split == "train"]
    if not chosen:
        raise DataError("no training case", where=cohort, got="other splits only", expected="cases with split 'train'")
    return chosen


def prepare_training_data(
    cases: Sequence[Case], anatomy: Anatomy, cache: str | Path, direction: str | None = None
) -> TrainingData:
    """Prepare every case; a case that cannot be used is named in the log and left out.

    ``direction`` is the acquisition direction required; ``None`` takes that of most cases (:func:`usual_direction`).

    Raises:
        DataError: no case can be used, or more than :data:`MOST_UNUSABLE` of them cannot; with the first reasons.
    """
    if not any(contrast in case.images for case in cases for contrast in anatomy.contrasts):
        there = sorted({contrast for case in cases for contrast in case.images})
        raise DataError(
            "no case has a contrast to learn from",
            got=f"{there} in the cohort",
            expected=f"one of {list(anatomy.contrasts)}",
            mend="set anatomy.contrasts, as in --set 'anatomy.contrasts=[T1w]'",
        )
    if anatomy.space != NATIVE:
        direction = "axial"  # the slices of the template, however the scans were acquired
    direction = direction or usual_direction(cases, anatomy.contrasts)
    store = PreparedCache(cache)
    log.info("preparing %d cases", len(cases))
    kept: list[tuple[Case, Prepared]] = []
    faults: list[str] = []
    known: dict[str, str] = {}
    for case in cases:
        try:
            prepared = store.get(case, anatomy, direction)
            known |= identities([case], "fit", anatomy.contrasts)
        except Exception as error:  # no error of a case ends the others
            faults.append(reason_of(error))
            log.warning("%s left out of training: %s", case.name, faults[-1])
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        if case.health == "lesion" and prepared.has_lesion_mask and not prepared.lesion.any():
            log.warning("%s is stated to have a lesion, but its mask is empty: its slices count as healthy", case.name)
        kept.append((case, prepared))
    if not kept:
        raise DataError("no case can be used for training", got=f"{len(faults)} failures, the first: {faults[0]}")
    if len(faults) > MOST_UNUSABLE * len(cases):
        first = "; ".join(fault.rstrip(".") for fault in faults[:REASONS])
        raise DataError(
            "too many cases that cannot be used for training",
            got=f"{len(faults)} of {len(cases)}, the first: {first}",
            expected=f"at most {MOST_UNUSABLE:.0%}",
            mend="correct those that the log names, or take them out of the cohort",
        )
    if faults:
        log.warning("%d of %d cases were left out of training", len(faults), len(cases))
    return TrainingData(tuple(c for c, _ in kept), tuple(p for _, p in kept), direction, len(faults), known)


def usual_direction(cases: Sequence[Case], contrasts: tuple[str, ...]) -> str:
    """The acquisition direction of most cases, by the headers of their reference scans that can be read.

    Of directions that are equally frequent axial comes before coronal before sagittal, and without any header it is
    axial.
    """
    counts: Counter[str] = Counter()
    for case in cases:
        try:
            counts[direction_of(read_grid(case.images[case.reference_contrast(contrasts)]))] += 1
        except (DataError, KeyError):  # told when the case is prepared
            continue
    return max(reversed(DIRECTIONS), key=lambda direction: counts[direction])


def labelled_cases(data: TrainingData, limit: int | None, seed: int) -> tuple[int, ...]:
    """Indices of the cases with a slice to learn lesions from: all those of ``limit`` patients, or of all patients.

    The patients, (dataset, subject), are drawn by the seed and who they are; all sessions of a patient stay together.

    Raises:
        DataError: fewer patients than ``limit``, or none.
    """
    of_patient: dict[tuple[str, str], list[int]] = {}
    for index, (case, prepared) in enumerate(zip(data.cases, data.prepared, strict=True)):
        if labelled_slices(prepared).any():
            of_patient.setdefault((case.dataset, case.subject), []).append(index)
    wanted = len(of_patient) if limit is None else limit
    if wanted < 1 or len(of_patient) < wanted:
        raise DataError("too few labelled patients", got=len(of_patient), expected=max(1, wanted), mend="lower --limit")
    # Every patient has a separate draw: a further patient in the cohort replaces at most one chosen patient.
    drawn = sorted(of_patient, key=lambda patient: rng.fold(seed, "labelled", *patient))[:wanted]
    return tuple(sorted(index for patient in drawn for index in of_patient[patient]))


def training_summary(data: TrainingData, pool: SlicePool, labelled: Sequence[int]) -> dict[str, Any]:
    """The training set in numbers, for the bundle: sizes and attribute ranges, without names."""
    names = sorted({name for case in data.cases for name in case.attributes})
    stated = {name: [(case.attributes.get(name, ""), case.subject) for case in data.cases] for name in names}
    ranges = {name: span for name, values in stated.items() if (span := _range(name, values)) is not None}
    return {
        "cases": len(data.cases),
        "subjects": _subjects(data.cases),
        "failed_cases": data.failed,
        "healthy_slices": len(pool.healthy),
        "labelled_cases": len(labelled),
        "labelled_subjects": _subjects([data.cases[index] for index in labelled]),
        "labelled_slices": len(pool.labelled),
        "attributes": ranges,
        "spacing_mm": _spread([prepared.spacing_mm for prepared in data.prepared]),
    }


def contrast_summary(data: TrainingData, contrasts: Sequence[str], dropout: float) -> dict[str, Any]:
    """Whether a training met slices without some of its contrasts: by chance (``dropout``), or as its cases were.

    ``lacking_cases``: contrast -> how many cases lack it. :attr:`hybriduad.detector.bundle.Bundle.needed` reads it.
    """
    present = [case.present for case in data.prepared]
    lacking = {name: sum(not here[index] for here in present) for index, name in enumerate(contrasts)}
    return {"dropout": dropout, "lacking_cases": lacking}


def _subjects(cases: Sequence[Case]) -> int:
    return len({(case.dataset, case.subject) for case in cases})


def _range(name: str, values: Sequence[tuple[str, str]]) -> Any:
    """[lowest, highest] of numbers, else how many cases have each value that several subjects share; None for nothing.

    ``values`` are (value, subject). A value of one subject alone may be a name or a file, which no bundle holds, and a
    number may be that of a patient: only columns of :data:`MEASURED` have a range, and those of :data:`CODED` are
    counted as words are; other numbers are left out.
    """
    column = re.sub(r"[^a-z0-9]", "", name.lower())
    stated = [value for value, _ in values if value.lower() not in MISSING]
    try:
        numbers = [float(value) for value in stated]
    except ValueError:
        numbers = None
    if numbers is not None and column not in CODED:
        finite = [number for number in numbers if math.isfinite(number)]
        return [min(finite), max(finite)] if finite and column in MEASURED else None
    shared = [v for v in sorted(set(stated)) if len({who for value, who in values if value == v}) > 1]
    counts = {value: stated.count(value) for value in shared}
    rare = len(stated) - sum(counts.values())
    return (counts | ({"(others)": rare} if rare else {})) or None


def _spread(spacings: Sequence[tuple[float, float, float]]) -> list[list[float]]:
    return [[round(pick(axis), 3) for axis in zip(*spacings, strict=True)] for pick in (min, max)]
