"""What every rule is given and gives back.

The contract of ``evaluation/rules/<name>.py``, the rule ``name`` (hyphens on the command line and in bundles)::

    class Config(PluginConfig):
        name: Literal["<name>"]            # and the rule's options, if any, checked here
    def find(config, observed) -> Finding:

``find`` is given an :class:`Observation` of each validation case, on the grid of its scan, and returns a
:class:`Finding`: for each part of the prediction what a mask is cut by, a number or a calibration from which every scan
gets a threshold (:mod:`hybriduad.detector.thresholds`). It is a pure function that does not depend on the order of the
cases, weights every subject alike however many cases they have unless its figure says otherwise, and

Raises:
    DataError: the cases hold nothing that the rule can use, such as no lesion.

A rule that says ``NEEDS_PEAKS = True`` has an option ``least_ml``: the observations of controls then hold the
peaks of clusters of that size. What it promises in words it puts into ``facts`` as ``guarantee``, and the controls that
lesions and scans can be compared with as ``controls`` (:class:`hybriduad.detector.controls.Controls`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.detector.thresholds import Cutoff, encoded
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.histogram import BINS, dice_curve, key_edges

Per = Literal["slice", "scan"]
DICE_FIGURE = "mean over subjects with a lesion of the Dice of their cases"


@dataclass(frozen=True)
class Observation:
    """What calibration keeps of a case: for each part its scores against the truth, and on lesion-free slices alone.

    ``whole`` counts the voxels of the region of :mod:`hybriduad.cohort.truth`, ``clear`` those in its lesion-free
    slices, which are ``slices`` many; ``voxel_ml`` is the volume of a voxel of the scan. ``peaks``: for each least
    volume in ml that a rule needs, and each part, the highest score that a cluster of at least so much reaches.
    ``distance``: of the scan from the training, over its limit; None where the bundle knows none. ``set_aside``: no
    lesion to be found, but no healthy person either (:class:`hybriduad.cohort.truth.Truth`); its lesion-free slices,
    away from all that is ignored, count like those of the ill.
    """

    subject: tuple[str, str]
    voxel_ml: float
    slices: int
    whole: Mapping[str, ScoreHistogram]
    clear: Mapping[str, ScoreHistogram]
    peaks: Mapping[float, Mapping[str, float]] = field(default_factory=dict)
    distance: float | None = None
    set_aside: bool = False

    @property
    def has_lesion(self) -> bool:
        """Whether the truth holds a lesion voxel."""
        return any(histogram.positives for histogram in self.whole.values())

    @property
    def control(self) -> bool:
        """Whether it is a lesion-free scan of a person who is not known to be ill."""
        return not self.has_lesion and not self.set_aside


@dataclass(frozen=True)
class Finding:
    """The result of a rule: for each part its ``cutoffs``, and how good they are on the cases of the calibration.

    ``reached`` is the value of ``figure`` for each part, over ``cases`` of ``subjects``; ``limit`` the options that the
    rule was bound by; ``facts`` whatever else the bundle is to say of it, as JSON.
    """

    cutoffs: Mapping[str, Cutoff]
    figure: str
    reached: Mapping[str, float]
    cases: int
    subjects: int
    limit: Mapping[str, float | str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The entry in ``bundle.json``, of which :func:`hybriduad.detector.thresholds.cutoffs_of` is the way back."""
        return {
            **encoded(self.cutoffs),
            "figure": self.figure,
            "reached": dict(self.reached),
            "limit": None if self.limit is None else dict(self.limit),
            "cases": self.cases,
            "subjects": self.subjects,
            **self.facts,
        }


def with_lesion(observed: Sequence[Observation]) -> list[Observation]:
    """The cases with a lesion.

    Raises:
        DataError: no case has a lesion.
    """
    sick = [case for case in observed if case.has_lesion]
    if not sick:
        raise DataError(
            "no lesion to calibrate on",
            got=f"{len(observed)} lesion-free cases",
            mend="add cases with lesions, or use a rule that needs none",
        )
    return sick


def parts_of(observed: Sequence[Observation]) -> list[str]:
    """The parts that every case has, in the order of the first: not every scan allows every baseline."""
    return [part for part in observed[0].whole if all(part in case.whole for case in observed)]


def subjects_of(observed: Sequence[Observation]) -> list[tuple[str, str]]:
    """The people, sorted."""
    return sorted({case.subject for case in observed})


def case_weights(observed: Sequence[Observation]) -> list[float]:
    """The share of each case in its subject: of two cases of a subject each counts half."""
    cases = Counter(case.subject for case in observed)
    return [1.0 / cases[case.subject] for case in observed]


def dice_curves(observed: Sequence[Observation], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Bins (K,) from the highest down and the Dice of each subject (S, K) of ``score >= edge``.

    Only bins that hold a score, since between two of them nothing changes. Without the bin of score 0, at which all
    that is no brain would be lesion. A subject's Dice is the mean of their cases'; all of them have a lesion.
    """
    subjects = subjects_of(observed)
    arrays = [case.whole[part].to_arrays() for case in observed]
    occupied = np.unique(np.concatenate([[0, BINS - 1], *(counts["keys"] for counts in arrays)]).astype(np.int64))
    curves = np.zeros((len(subjects), len(occupied) - 1))
    for case, counts, weight in zip(observed, arrays, case_weights(observed), strict=True):
        dense = np.zeros((2, len(occupied)), dtype=np.int64)
        dense[:, np.searchsorted(occupied, counts["keys"])] = counts["positives"], counts["negatives"]
        curves[subjects.index(case.subject)] += dice_curve(*dense[:, ::-1])[:-1] * weight
    return occupied[:0:-1], curves


def edge(key: int) -> float:
    """The smallest score of a bin."""
    return float(key_edges(np.array([key]))[0])
