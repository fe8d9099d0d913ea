"""The figures of a trial as a small file (1 KB a case), by which a benchmark is continued on any machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybriduad.core.errors import DataError
from hybriduad.evaluation.case import CaseScores
from hybriduad.scan.volumes import write_atomically

DIGITS = 6
FACTS = ("lesion_ml", "lesion_free_slices", "l1_healthy", "l1_lesion", "l1_ratio")
"""What is kept of a case beside its figures, where it is known."""


@dataclass(frozen=True)
class TestedCase:
    """A test case: who, and for each part of the prediction its figures; undefined is nan."""

    subject: tuple[str, str]
    name: str
    has_lesion: bool
    facts: Mapping[str, float]
    parts: Mapping[str, Mapping[str, float]]

    @staticmethod
    def of(scores: CaseScores) -> TestedCase:
        """What a benchmark keeps of an evaluated case: no histogram, and of its facts :data:`FACTS`."""
        facts = {name: float(scores.facts[name]) for name in FACTS if scores.facts.get(name) is not None}
        parts = {
            part: {name: float(value) for name, value in figures.items()} for part, figures in scores.systems.items()
        }
        return TestedCase(scores.subject, scores.name, scores.has_lesion, facts, parts)


def write_result(path: Path, about: Mapping[str, Any], cases: Sequence[TestedCase]) -> None:
    """Write a trial's result; ``about`` says for a reader what it came from. ``figures`` names the columns of parts."""
    names = sorted({name for case in cases for figures in case.parts.values() for name in figures})
    listed = [
        {
            "dataset": case.subject[0],
            "subject": case.subject[1],
            "case": case.name,
            "has_lesion": case.has_lesion,
            "facts": {name: _rounded(value) for name, value in case.facts.items()},
            "parts": {
                part: [_rounded(figures.get(name, math.nan)) for name in names] for part, figures in case.parts.items()
            },
        }
        for case in cases
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n ".join(json.dumps(case, separators=(",", ":")) for case in listed)
    head = f'{{"about": {json.dumps(dict(about))},\n"figures": {json.dumps(names)},\n'
    write_atomically(path, f'{head}"cases": [\n {lines}\n]}}\n'.encode())


def read_result(path: Path) -> tuple[TestedCase, ...]:
    """The cases of a trial.

    Raises:
        DataError: the file cannot be read, or is no result.
    """
    try:
        content = json.loads(path.read_text())
        names = content["figures"]
        return tuple(
            TestedCase(
                (case["dataset"], case["subject"]),
                case["case"],
                case["has_lesion"],
                {name: _number(value) for name, value in case["facts"].items()},
                {part: dict(zip(names, map(_number, values), strict=True)) for part, values in case["parts"].items()},
            )
            for case in content["cases"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("unreadable result", where=path, got=repr(error), mend="delete it, it is made anew") from error


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{DIGITS}g}")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
