"""The Dice that the mask of a scan may be expected to have, with an interval, from what the prediction itself shows.

A ridge regression of Dice on a few figures of a mask, learnt on annotated cases that the model has not seen. Its
interval is the jackknife+ of Barber, Candes, Ramdas and Tibshirani 2021, arXiv:1905.02928, doi:10.1214/20-AOS1965: of
further scans with a lesion, exchangeable with those, it covers about the stated share, and at least 1 - 2 (1 - share)
whatever the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybriduad.core.errors import BundleError
from hybriduad.metrics.conformal import allowed_above
from hybriduad.metrics.histogram import key_edges, score_keys

COVERAGE = 0.8
"""Nominal share of further scans whose Dice the interval holds: four cases allow no more."""
FIGURES = ("expected", "log_ml", "distance")
"""Of a mask: its expected Dice were its scores probabilities, the logarithm of its volume, and the distance of the scan
from the training over its limit."""


def bin_edge(threshold: float) -> float:
    """The lower edge of the bin that holds a threshold; of one above 1, which no score reaches, itself."""
    return threshold if threshold > 1 else float(key_edges(score_keys(np.array([max(threshold, 0.0)])))[0])


def mask_figures(
    scores: np.ndarray, counts: np.ndarray, threshold: float, voxel_ml: float, distance: float | None
) -> dict[str, float] | None:
    """:data:`FIGURES` of ``score >= threshold``; None of an empty mask, no ``distance`` where that is None.

    ``scores`` (K,) in [0, 1], lower edges of bins, and how many voxels of the brain are in each, ``counts`` (K,). A
    threshold inside a bin takes the whole bin.
    """
    inside = scores >= bin_edge(threshold)
    voxels = int(counts[inside].sum())
    if voxels == 0:
        return None
    total, held = float(counts @ scores.astype(np.float64)), float(counts[inside] @ scores[inside].astype(np.float64))
    figures = {"expected": 2 * held / (voxels + total), "log_ml": math.log(voxels * voxel_ml)}
    return figures if distance is None else figures | {"distance": distance}


@dataclass(frozen=True)
class DiceEstimate:
    """``line`` (P + 1,) over the named ``figures``, intercept last; ``others`` (N, P + 1), the same learnt without each
    of the cases, and ``residuals`` (N,), how far that was off for the case."""

    figures: tuple[str, ...]
    line: np.ndarray
    others: np.ndarray
    residuals: np.ndarray

    @property
    def cases(self) -> int:
        """How many annotated cases it rests on."""
        return len(self.residuals)

    def value(self, figures: Mapping[str, float]) -> float:
        """The Dice of a mask of these figures, in [0, 1]."""
        return float(np.clip(self.line @ self._point(figures), 0, 1))

    def interval(self, figures: Mapping[str, float], coverage: float = COVERAGE) -> tuple[float, float]:
        """The jackknife+ interval of a mask of these figures, within [0, 1].

        Raises:
            DataError: too few cases for ``coverage``.
        """
        rank = allowed_above(1 - coverage, self.cases)
        beside = self.others @ self._point(figures)
        low = np.sort(beside - self.residuals)[rank]
        high = np.sort(beside + self.residuals)[::-1][rank]
        return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))

    def _point(self, figures: Mapping[str, float]) -> np.ndarray:
        return np.array([*(figures[name] for name in self.figures), 1.0])

    def to_json(self) -> dict[str, Any]:
        """As in ``bundle.json``; cases descend by residual, so that no one can be told from it."""
        order = np.argsort(-self.residuals)
        lines = {"line": self.line.tolist(), "others": self.others[order].tolist()}
        return {"figures": list(self.figures), **lines, "residuals": self.residuals[order].tolist()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> DiceEstimate:
        """The way back.

        Raises:
            BundleError: it holds something else.
        """
        try:
            figures = tuple(str(name) for name in content["figures"])
            line, others, residuals = (np.array(content[k], dtype=float) for k in ("line", "others", "residuals"))
            width = len(figures) + 1
            if not set(figures) <= set(FIGURES) or line.shape != (width,) or others.shape != (len(residuals), width):
                raise ValueError(f"figures {figures}, shapes {line.shape}, {others.shape}")
        except (KeyError, TypeError, ValueError) as error:
            mend = "calibrate the bundle anew"
            raise BundleError("estimate of Dice that cannot be read", got=repr(error), mend=mend) from error
        return DiceEstimate(figures, line, others, residuals)


def learnt(figures: tuple[str, ...], points: np.ndarray, dice: np.ndarray) -> DiceEstimate:
    """From ``points`` (N, P), the figures of masks, and their ``dice`` (N,); N is 2 or more."""
    whole, kept = np.arange(len(dice)), []
    for left_out in whole:
        rest = whole != left_out
        kept.append(_ridge(points[rest], dice[rest]))
    others = np.array(kept)
    residuals = np.abs(dice - (others[:, :-1] * points).sum(axis=1) - others[:, -1])
    return DiceEstimate(figures, _ridge(points, dice), others, residuals)


def _ridge(points: np.ndarray, dice: np.ndarray) -> np.ndarray:
    """(P + 1,) the line of a ridge regression on standardised figures; a figure alone would have its slope halved."""
    mean, scale = points.mean(axis=0), np.maximum(points.std(axis=0), 1e-9)
    unit = (points - mean) / scale
    slopes = np.linalg.solve(unit.T @ unit + len(dice) * np.eye(points.shape[1]), unit.T @ (dice - dice.mean())) / scale
    return np.append(slopes, dice.mean() - slopes @ mean)
