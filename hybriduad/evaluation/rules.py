"""The rules by which thresholds are found: from what is kept of each case to a threshold for each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.histogram import BINS, dice_curve, key_edges
from hybriduad.metrics.intervals import draw_subjects

Per = Literal["slice", "scan"]
DRAWS = 100
"""Of a bootstrap over the subjects, over which the best threshold is averaged."""
DICE_FIGURE = "mean over subjects with a lesion of the Dice of their cases"


@dataclass(frozen=True)
class Observation:
    """What calibration keeps of a case: for each part its scores against the truth, and on lesion-free slices alone.

    ``slices`` counts the lesion-free slices; ``voxel_ml`` is the volume of a voxel of the scan's own grid.
    """

    subject: tuple[str, str]
    voxel_ml: float
    slices: int
    whole: Mapping[str, ScoreHistogram]
    clear: Mapping[str, ScoreHistogram]

    @property
    def has_lesion(self) -> bool:
        """Whether the truth holds a lesion voxel."""
        return any(histogram.positives for histogram in self.whole.values())


def best_dice(observed: Sequence[Observation]) -> dict[str, Any]:
    """The entry of the rule ``best-dice``: the mean bin of the best thresholds of :data:`DRAWS` bootstrap draws.

    A few subjects have a mean of Dice that is flat with a peak here and there; averaged over draws of the subjects
    (bagging, Breiman 1996, doi:10.1007/BF00058655), the threshold hangs less on any one of them.

    Raises:
        DataError: no case has a lesion.
    """
    with_lesion = [one for one in observed if one.has_lesion]
    if not with_lesion:
        raise DataError(
            "no lesion to calibrate on",
            got=f"{len(observed)} lesion-free cases",
            mend="use the rule false-positives, or cases with lesions",
        )
    subjects = sorted({one.subject for one in with_lesion})
    draws = draw_subjects(len(subjects), DRAWS, seed=0)
    values, reached = {}, {}
    for part in with_lesion[0].whole:
        keys, curves = _dice_curves(with_lesion, part, subjects)
        best = [keys[sum(curves[subject] for subject in drawn).argmax()] for drawn in draws]
        key = round(float(np.mean(best)))
        values[part] = _edge(key)
        reached[part] = float(curves.mean(axis=0)[np.searchsorted(-keys, -key, side="right") - 1])
    return {
        "values": values,
        "figure": DICE_FIGURE,
        "reached": reached,
        "limit": None,
        "cases": len(with_lesion),
        "subjects": len(subjects),
        "draws": DRAWS,
    }


def _dice_curves(
    observed: Sequence[Observation], part: str, subjects: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Bins (K,) from the highest down and the Dice of each subject (S, K) of ``score >= edge``.

    Only bins that hold a score, since between two of them nothing changes: of equal means the first is the highest
    threshold. Without the bin of score 0, at which all that is no brain would be lesion.
    """
    arrays = [one.whole[part].to_arrays() for one in observed]
    occupied = np.unique(np.concatenate([[0, BINS - 1], *(one["keys"] for one in arrays)]).astype(np.int64))
    curves = np.zeros((len(subjects), len(occupied) - 1))
    cases = Counter(one.subject for one in observed)
    for one, counts in zip(observed, arrays, strict=True):
        dense = np.zeros((2, len(occupied)), dtype=np.int64)
        dense[:, np.searchsorted(occupied, counts["keys"])] = counts["positives"], counts["negatives"]
        curves[subjects.index(one.subject)] += dice_curve(*dense[:, ::-1])[:-1] / cases[one.subject]
    return occupied[:0:-1], curves


def false_positives(observed: Sequence[Observation], limit_ml: float, per: Per = "slice") -> dict[str, Any]:
    """The entry of the rule ``false-positives``; the mean is over all lesion-free slices, or scans, alike.

    Raises:
        DataError: no lesion-free slice, or scan.
    """
    usable = [one for one in observed if (one.slices > 0 if per == "slice" else not one.has_lesion)]
    units = sum(one.slices for one in usable) if per == "slice" else len(usable)
    if not units:
        wanted = "healthy scans" + ("" if per == "scan" else ", or slices away from lesions")
        raise DataError(f"no lesion-free {per} to calibrate on", got=f"{len(observed)} cases", expected=wanted)
    values, reached = {}, {}
    for part in usable[0].whole:
        volume = np.zeros(BINS)
        for one in usable:
            histogram = one.clear[part] if per == "slice" else one.whole[part]
            volume += one.voxel_ml * _dense(histogram, "negatives")
        alarms = np.cumsum(volume[::-1])[::-1] / units  # at bin k: millilitres a unit of score >= its edge
        # Rounding in the sum must not refuse a volume that equals the limit; it falls with k, so the first is lowest.
        allowed = np.flatnonzero(alarms[1:] <= limit_ml * (1 + 1e-9))
        key = int(allowed[0]) + 1 if len(allowed) else BINS
        values[part], reached[part] = _edge(key), float(alarms[key]) if key < BINS else 0.0
    return {
        "values": values,
        "figure": f"mean over lesion-free {per}s of the mask's volume in ml",
        "reached": reached,
        "limit": {"false_positive_ml": limit_ml, "per": per},
        "cases": len(usable),
        "subjects": len({one.subject for one in usable}),
        f"{per}s": units,
    }


def _dense(histogram: ScoreHistogram, kind: str) -> np.ndarray:
    """Counts (BINS,) int64, the lowest score first."""
    arrays = histogram.to_arrays()
    dense = np.zeros(BINS, dtype=np.int64)
    dense[arrays["keys"]] = arrays[kind]
    return dense


def _edge(key: int) -> float:
    return float(key_edges(np.array([key]))[0])
