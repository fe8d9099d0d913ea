"""The cutoffs of a bundle's masks: for each part of a prediction and each rule, a threshold or a calibration.

A rule gives one threshold for all scans, with or without a least volume of what reaches it, or a calibration from score
to the probability of a lesion, from which each scan gets the threshold of the mask that maximises its expected Dice
(RankSEG, Dai and Li, JMLR 24, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit, logit

from hybriduad.core.errors import BundleError, ConfigError
from hybriduad.core.types import Part
from hybriduad.metrics.clusters import large_clusters, least_voxels

PARTS: tuple[str, ...] = get_args(Part)
"""The maps of a prediction that a threshold can be calibrated for."""
SMALLEST_SCORE = 1e-6
"""Scores nearer to 0 or 1 are taken as this near, where their logit is calibrated."""
EMPTY = float(np.nextafter(np.float32(1), np.float32(2)))
"""A threshold that no score reaches."""


def score_logit(scores: np.ndarray) -> np.ndarray:
    """The logit, float64, of scores in [0, 1] that keep :data:`SMALLEST_SCORE` from both ends."""
    return np.asarray(logit(np.clip(np.asarray(scores, dtype=np.float64), SMALLEST_SCORE, 1 - SMALLEST_SCORE)))


@dataclass(frozen=True)
class Calibration:
    """The probability of a lesion is expit(``slope`` logit(score) + ``intercept``), ``slope`` > 0.

    This holds in a scan with lesions. A scan whose largest expected Dice (in [0, 1]) is not above ``floor`` may have
    none: it is cut at ``below``, by default a threshold that no score reaches, so that its mask stays empty.
    """

    slope: float
    intercept: float
    floor: float = 0.0
    below: float = EMPTY

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """The calibrated probability, float64, of scores in [0, 1]."""
        return np.asarray(expit(self.slope * score_logit(scores) + self.intercept))

    def best_mask(self, scores: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
        """The threshold of the mask with the largest expected Dice, and that Dice, whatever the floor.

        ``scores`` (K,) are distinct and descend, ``counts`` (K,) are the voxels of each score. Since the probability
        rises with the score, the best mask is ``score >= threshold``; voxels are taken as independent. The expected
        Dice of the k highest voxels is then the sum over them of 2 p E[1 / (k + 1 + lesion voxels among the others)].
        The number among the others is replaced by its mean m - p, m the sum of all p: in scans of many voxels its
        spread is small beside the mean. A score of 0 is in no mask.
        """
        p = self.probability(scores)
        k, total = np.cumsum(counts, dtype=np.float64), float(counts @ p)
        # 1 / (a - p) = 1/a + p/a² + p²/a³ + ..., and a is at least 2, mostly thousands: four terms are plenty.
        a = k + 1 + total
        terms = [2 * np.cumsum(counts * p**power) / a**power for power in range(1, 5)]
        expected = np.sum(terms, axis=0)
        usable = scores > 0
        if not usable.any():
            return EMPTY, 0.0
        best = int(np.argmax(np.where(usable, expected, -np.inf)))
        return float(scores[best]), float(expected[best])

    def threshold(self, scores: np.ndarray, counts: np.ndarray | None = None) -> float:
        """The threshold of a scan from the scores of its brain's voxels, in any order; with ``counts`` as above."""
        if counts is None:
            scores, counts = (values[::-1] for values in np.unique(scores, return_counts=True))
        value, expected = self.best_mask(scores, counts)
        return value if expected > self.floor else self.below

    def to_json(self) -> dict[str, float]:
        """As in ``bundle.json``, without what is left at its default."""
        stated = {"slope": self.slope, "intercept": self.intercept, "floor": self.floor}
        return stated if self.below == EMPTY else stated | {"below": self.below}


@dataclass(frozen=True)
class Sized:
    """The ``threshold`` of all scans, and the least volume in ml, per lesion or per scan, that must reach it.

    Of what reaches it a mask keeps the components of at least ``least_ml`` (``per`` "lesion"), or all if it is as much
    together, else nothing (``per`` "scan").
    """

    threshold: float
    least_ml: float
    per: Literal["lesion", "scan"]

    def kept(self, mask: np.ndarray, voxel_ml: float) -> np.ndarray:
        """What is left of a mask (X, Y, Z) of voxels of ``voxel_ml``."""
        voxels = least_voxels(self.least_ml, voxel_ml)
        if self.per == "lesion":
            return large_clusters(mask, voxels)
        return mask if mask.sum() >= voxels else np.zeros_like(mask)

    def to_json(self) -> dict[str, float | str]:
        """As in ``bundle.json``."""
        return {"threshold": self.threshold, "least_ml": self.least_ml, "per": self.per}


Cutoff = float | Calibration | Sized
"""What a mask is cut by: the threshold of all scans, what gives each scan its threshold, or one with a least volume."""


def said(cutoff: Cutoff) -> str:
    """A cutoff in a few characters, for logs and tables."""
    if isinstance(cutoff, Calibration):
        line = f"expit({cutoff.slope:.3g} logit(score) {cutoff.intercept:+.3g})"
        kept = "empty" if cutoff.below == EMPTY else f"at {cutoff.below:.3g}"
        return f"{line}, {kept} up to an expected Dice of {cutoff.floor:.3g}"
    if isinstance(cutoff, Sized):
        return f"{cutoff.threshold:.4g}, at least {cutoff.least_ml:g} ml a {cutoff.per}"
    return f"{cutoff:.4g}"


def scan_threshold(cutoff: Cutoff, scores: np.ndarray) -> float:
    """The threshold of a scan; ``scores`` are those of its brain's voxels, in any order and shape."""
    if isinstance(cutoff, Sized):
        return cutoff.threshold
    return cutoff.threshold(scores) if isinstance(cutoff, Calibration) else cutoff


def scan_mask(cutoff: Cutoff, scores: np.ndarray, brain: np.ndarray, voxel_ml: float) -> tuple[np.ndarray, float]:
    """The mask (X, Y, Z) bool of a scan and its threshold; ``scores`` (X, Y, Z) count inside ``brain`` alone."""
    threshold = scan_threshold(cutoff, scores[brain])
    mask = (scores >= threshold) & brain
    return (cutoff.kept(mask, voxel_ml) if isinstance(cutoff, Sized) else mask), threshold


def cutoffs_of(entry: Mapping[str, Any]) -> dict[str, Cutoff]:
    """The cutoffs of a rule by part, from its entry in ``bundle.json``: ``values``, ``calibrations``, ``sized``.

    Raises:
        BundleError: an entry that holds something else.
    """
    try:
        cutoffs: dict[str, Cutoff] = {part: float(value) for part, value in entry.get("values", {}).items()}
        for part, values in entry.get("calibrations", {}).items():
            slope, intercept, floor = (float(values[name]) for name in ("slope", "intercept", "floor"))
            below = float(values.get("below", EMPTY))
            if not (slope > 0 and math.isfinite(intercept) and below > 0):  # a score of 0 is in no mask
                raise ValueError(f"slope {slope}, intercept {intercept}, below {below}")
            cutoffs[part] = Calibration(slope, intercept, floor, below)
        for part, values in entry.get("sized", {}).items():
            sized = Sized(float(values["threshold"]), float(values["least_ml"]), values["per"])
            if not (sized.threshold > 0 and sized.least_ml >= 0 and sized.per in ("lesion", "scan")):
                raise ValueError(f"{sized}")
            cutoffs[part] = sized
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            "thresholds that cannot be read", got=repr(error), mend="calibrate the bundle anew"
        ) from error
    return cutoffs


def encoded(cutoffs: Mapping[str, Cutoff]) -> dict[str, dict[str, Any]]:
    """What :func:`cutoffs_of` reads, as JSON."""
    constant = {part: cutoff for part, cutoff in cutoffs.items() if not isinstance(cutoff, Calibration | Sized)}
    calibrations = {part: cutoff.to_json() for part, cutoff in cutoffs.items() if isinstance(cutoff, Calibration)}
    sized = {part: cutoff.to_json() for part, cutoff in cutoffs.items() if isinstance(cutoff, Sized)}
    entries: dict[str, dict[str, Any]] = {"values": constant, "calibrations": calibrations, "sized": sized}
    return {name: entry for name, entry in entries.items() if entry}


@dataclass(frozen=True)
class Thresholds:
    """Calibrated cutoffs: ``values[rule][part]``; ``default`` is the rule that a mask uses unless told otherwise."""

    values: Mapping[str, Mapping[str, Cutoff]] = field(default_factory=dict)
    default: str = ""

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Thresholds:
        """From the ``thresholds`` of ``bundle.json``.

        Raises:
            BundleError: they cannot be read.
        """
        return Thresholds({rule: cutoffs_of(entry) for rule, entry in record["rules"].items()}, record["default"])

    def by_part(self, rule: str | None = None) -> Mapping[str, Cutoff]:
        """The cutoffs of a rule, without ``rule`` those of the default rule; none without any calibration.

        Raises:
            ConfigError: a rule that was not calibrated.
        """
        if rule is not None and rule not in self.values:
            mend = "calibrate the bundle by that rule"
            raise ConfigError("uncalibrated rule", got=repr(rule), expected=f"one of {sorted(self.values)}", mend=mend)
        return self.values.get(rule or self.default, {})

    def of(self, part: str, rule: str | None = None) -> Cutoff | None:
        """The cutoff of a part by a rule; ``None`` without any calibration.

        Raises:
            ConfigError: a rule that was not calibrated.
        """
        return self.by_part(rule).get(part)

    def mask(
        self, part: str, scores: np.ndarray, brain: np.ndarray, voxel_ml: float, rule: str | None = None
    ) -> tuple[np.ndarray, float] | tuple[None, None]:
        """The mask of a part and its threshold, as :func:`scan_mask`; ``None`` twice without any calibration.

        Raises:
            ConfigError: a rule that was not calibrated.
        """
        cutoff = self.of(part, rule)
        return (None, None) if cutoff is None else scan_mask(cutoff, scores, brain, voxel_ml)
