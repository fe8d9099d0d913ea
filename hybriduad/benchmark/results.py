"""The figures of a trial as a small file (some 6 KB a case), by which a benchmark is continued on any machine.

What an older file lacks is undefined: its other figures stand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.evaluation.case import RECONSTRUCTION, CaseScores
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.coarse import coarsened
from hybriduad.scan.volumes import write_atomically

DIGITS = 6
DIGEST = 16
"""Hexadecimal digits that are kept of a digest: enough to tell the cases of a cohort apart."""
FACTS = ("lesion_ml", "lesions", "lesion_free_slices", *RECONSTRUCTION)
"""What is kept of a case beside its figures, where it is known."""
HEALTHY_DICE = "dice_healthy_rule"
"""The Dice of the mask by :data:`hybriduad.benchmark.plan.HEALTHY_RULE`."""
Curve = Mapping[int, float]
"""Step -> AUPRC on validation slices, of a training."""


@dataclass(frozen=True)
class TestedCase:
    """A test case: who, and for each part of the prediction its figures; undefined is nan.

    ``lesions`` and ``coverage`` are those of :class:`hybriduad.evaluation.case.CaseScores`; ``histograms`` has for each
    part its scores in the region, coarsened. ``set_aside``: neither a case with a lesion nor a control, as there.
    ``truth`` and ``region`` are digests of what it was compared with and over which voxels, ``brain`` says how its
    brain was found; "" in results from before they were kept.
    """

    subject: tuple[str, str]
    name: str
    has_lesion: bool
    facts: Mapping[str, float]
    parts: Mapping[str, Mapping[str, float]]
    lesions: tuple[float, ...] = ()
    coverage: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    histograms: Mapping[str, ScoreHistogram] = field(default_factory=dict)
    set_aside: bool = False
    truth: str = ""
    region: str = ""
    brain: str = ""

    @staticmethod
    def of(scores: CaseScores, healthy: Mapping[str, float] | None = None) -> TestedCase:
        """What a benchmark keeps of an evaluated case: of its facts :data:`FACTS`, of its histograms few bins.

        ``healthy``: for each part the threshold of the healthy-only rule, where it found one.
        """
        facts = {name: float(scores.facts[name]) for name in FACTS if scores.facts.get(name) is not None}
        parts = {
            part: {name: float(value) for name, value in figures.items()} for part, figures in scores.systems.items()
        }
        for part, threshold in (healthy or {}).items():
            if part in parts:
                parts[part][HEALTHY_DICE] = scores.histograms[part].dice_at(threshold)
        histograms = {part: coarsened(histogram) for part, histogram in scores.histograms.items()}
        return TestedCase(
            scores.subject,
            scores.name,
            scores.has_lesion,
            facts,
            parts,
            scores.lesions,
            scores.coverage,
            histograms,
            scores.set_aside,
            truth=str(scores.facts.get("truth", ""))[:DIGEST],
            region=str(scores.facts.get("region", ""))[:DIGEST],
            brain=str(scores.facts.get("brain_method", "")),
        )


class Result(NamedTuple):
    """The cases of a trial, and the validation curve of each training behind it: (stage, curve), the first first."""

    cases: tuple[TestedCase, ...]
    curves: tuple[tuple[str, Curve], ...] = ()


def write_result(path: Path, about: Mapping[str, Any], cases: Sequence[TestedCase]) -> None:
    """Write a trial's result; ``about`` says for a reader what it came from, its ``chain`` of trainings with the
    ``validation`` curve of each, as [step, AUPRC]. ``figures`` names the columns of parts.

    ``bins`` are three columns: how much each key is above the one before, lesion and other voxels.
    """
    names = sorted({name for case in cases for figures in case.parts.values() for name in figures})
    listed = [
        {
            "dataset": case.subject[0],
            "subject": case.subject[1],
            "case": case.name,
            "has_lesion": case.has_lesion,
            "control": not case.has_lesion and not case.set_aside,
            "truth": case.truth,
            "region": case.region,
            "brain": case.brain,
            "facts": {name: _rounded(value) for name, value in case.facts.items()},
            "parts": {
                part: [_rounded(figures.get(name, math.nan)) for name in names] for part, figures in case.parts.items()
            },
            "lesions": [_rounded(ml) for ml in case.lesions],
            "coverage": {part: [_rounded(share) for share in shares] for part, shares in case.coverage.items()},
            "bins": {part: _columns(histogram) for part, histogram in case.histograms.items()},
        }
        for case in cases
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n ".join(json.dumps(case, separators=(",", ":")) for case in listed)
    head = f'{{"about": {json.dumps(dict(about))},\n"figures": {json.dumps(names)},\n'
    write_atomically(path, f'{head}"cases": [\n {lines}\n]}}\n'.encode())


def read_result(path: Path) -> Result:
    """The result of a trial.

    Raises:
        DataError: the file cannot be read, or is no result.
    """
    try:
        content = json.loads(path.read_text())
        names = content["figures"]
        cases = tuple(
            TestedCase(
                (case["dataset"], case["subject"]),
                case["case"],
                case["has_lesion"],
                {name: _number(value) for name, value in case["facts"].items()},
                {part: dict(zip(names, map(_number, values), strict=True)) for part, values in case["parts"].items()},
                tuple(map(float, case.get("lesions", ()))),
                {part: tuple(map(float, shares)) for part, shares in case.get("coverage", {}).items()},
                {part: _histogram(*columns) for part, columns in case.get("bins", {}).items()},
                not case["has_lesion"] and not case.get("control", True),
                *(str(case.get(name, "")) for name in ("truth", "region", "brain")),
            )
            for case in content["cases"]
        )
        chain = content["about"].get("chain", ())
        curves = [(fit["stage"], {step: float(value) for step, value in fit.get("validation", ())}) for fit in chain]
        return Result(cases, tuple((stage, curve) for stage, curve in curves if curve))
    except (OSError, DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("unreadable result", where=path, got=repr(error), mend="delete it, it is made anew") from error


def _columns(histogram: ScoreHistogram) -> list[list[int]]:
    arrays = histogram.to_arrays()
    steps = np.diff(arrays["keys"].astype(np.int64), prepend=0)
    return [steps.tolist(), arrays["positives"].tolist(), arrays["negatives"].tolist()]


def _histogram(steps: Sequence[int], positives: Sequence[int], negatives: Sequence[int]) -> ScoreHistogram:
    columns = {"keys": np.cumsum(steps, dtype=np.int64), "positives": positives, "negatives": negatives}
    return ScoreHistogram.from_arrays({name: np.asarray(values, np.int64) for name, values in columns.items()})


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{DIGITS}g}")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
