"""What the conformal rules share: who is a control, the threshold above a rank of them, and the promise in words.

Split-conformal: the model has never seen the controls, so the next healthy person is one of n + 1 that could be told
apart by nothing but chance (:mod:`hybriduad.metrics.conformal`). Of a person with several scans the highest counts, so
that the promise is of people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from hybriduad.core.errors import DataError
from hybriduad.detector.controls import Controls, Level
from hybriduad.detector.thresholds import Sized
from hybriduad.evaluation.rules._base import Finding, Observation, edge, parts_of, subjects_of
from hybriduad.metrics.conformal import allowed_above, conformal_quantile, share_bound
from hybriduad.metrics.histogram import score_keys

Alpha = Annotated[float, Field(gt=0, lt=1)]
LeastMl = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CERTAINTY = 0.95
"""With which the share of healthy people above a threshold is said for the very controls that set it."""
ALIKE = "drawn, scanned and prepared like the {people} controls (exchangeable with them), whom the model has not seen"
SILENT = "It does not say how many lesions are found, and nothing of scanners or people unlike the controls."


def parts_and_controls(observed: Sequence[Observation], alpha: float) -> tuple[list[str], list[Observation]]:
    """The parts that every case has, and the controls, of as many people as ``alpha`` needs.

    Raises:
        DataError: no such case, or too few people for ``alpha``.
    """
    healthy = [case for case in observed if case.control]
    if not healthy:
        got = f"{len(observed)} cases, all of them ill" if observed else "no case"
        raise DataError("no healthy control to calibrate on", got=got, expected="cases without a lesion")
    allowed_above(alpha, len(subjects_of(healthy)))
    return parts_of(observed), healthy


def peak_finding(
    observed: Sequence[Observation],
    peaks: Mapping[str, Sequence[float]],
    *,
    alpha: float,
    least_ml: float,
    level: Level,
) -> Finding:
    """A threshold for each part just above the peak that a share ``alpha`` of healthy people exceeds at most.

    ``observed`` are the controls, ``peaks`` for each part the highest score that ``least_ml`` of each of them reach, as
    :class:`~hybriduad.detector.controls.Controls` has it at that ``level``.

    Raises:
        DataError: too few people for ``alpha``.
    """
    people = subjects_of(observed)
    by_person = {
        part: tuple(
            max(peak for case, peak in zip(observed, values, strict=True) if case.subject == person)
            for person in people
        )
        for part, values in peaks.items()
    }
    cutoffs = {}
    for part, values in by_person.items():
        beyond = conformal_quantile(values, alpha)
        cutoffs[part] = Sized(edge(int(score_keys(np.array([beyond]))[0]) + 1), least_ml, level)
    reached = {
        part: float(np.mean([value >= cutoffs[part].threshold for value in values]))
        for part, values in by_person.items()
    }
    what = "a lesion" if level == "lesion" else "anything"
    bound = share_bound(alpha, len(people), CERTAINTY)
    guarantee = (
        f"Of healthy people {ALIKE.format(people=len(people))}, a share of {alpha:.3g} at most, on average over draws "
        f"of controls, gets a mask that holds {what} (of at least {least_ml:g} ml); with these very controls the share "
        f"is under {bound:.3g} with {CERTAINTY:.0%} certainty. {SILENT}"
    )
    return Finding(
        cutoffs,
        f"share of the controls whose mask holds {what}",
        reached,
        cases=len(observed),
        subjects=len(people),
        limit={"alpha": alpha, "least_ml": least_ml},
        facts={"guarantee": guarantee, "controls": Controls(level, least_ml, by_person).to_json()},
    )
