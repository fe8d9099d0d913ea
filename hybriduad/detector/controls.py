"""What a calibrated bundle remembers of healthy controls: what they reached, and the promise that rests on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hybriduad.core.errors import BundleError
from hybriduad.metrics.clusters import cluster_peak, labelled, least_voxels
from hybriduad.metrics.conformal import conformal_p
from hybriduad.metrics.histogram import key_edges, score_keys
from hybriduad.metrics.scans import highest_reached

Level = Literal["scan", "lesion"]


@dataclass(frozen=True)
class Controls:
    """Healthy controls as a rule kept them: for each part the ``peaks`` of the people, one each.

    A peak is the highest score that at least ``least_ml`` of the brain reach, together (``level`` "scan") or connected
    ("lesion"); of several scans of a person the highest.
    """

    level: Level
    least_ml: float
    peaks: Mapping[str, tuple[float, ...]]

    @property
    def people(self) -> int:
        """How many controls there are."""
        return max((len(peaks) for peaks in self.peaks.values()), default=0)

    def scan_p(self, part: str, scores: np.ndarray, brain: np.ndarray, voxel_ml: float) -> float:
        """The conformal p of a scan: ``scores`` (X, Y, Z) in [0, 1] of a part, ``brain`` (X, Y, Z) bool."""
        voxels = least_voxels(self.least_ml, voxel_ml)
        peak = cluster_peak(scores, brain, voxels) if self.level == "lesion" else scan_peak(scores[brain], voxels)
        return conformal_p(peak, self.peaks[part])

    def lesion_p(self, part: str, scores: np.ndarray, mask: np.ndarray, voxel_ml: float) -> dict[int, float]:
        """The conformal p of each component of a mask (X, Y, Z), by its number in
        :func:`hybriduad.metrics.clusters.labelled`; 1 for one smaller than ``least_ml``."""
        from scipy import ndimage

        voxels = least_voxels(self.least_ml, voxel_ml)
        labels, _ = labelled(mask)
        return {
            number: conformal_p(cluster_peak(scores[box], labels[box] == number, voxels), self.peaks[part])
            for number, box in enumerate(ndimage.find_objects(labels), start=1)
        }

    def to_json(self) -> dict[str, Any]:
        """As in ``bundle.json``; the people cannot be told from it: peaks descend."""
        peaks = {part: sorted(values, reverse=True) for part, values in self.peaks.items()}
        return {"level": self.level, "least_ml": self.least_ml, "peaks": peaks}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Controls:
        """The way back.

        Raises:
            BundleError: it holds something else.
        """
        try:
            peaks = {part: tuple(float(value) for value in values) for part, values in content["peaks"].items()}
            if content["level"] not in ("scan", "lesion"):
                raise ValueError(f"level {content['level']}")
            return Controls(content["level"], float(content["least_ml"]), peaks)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            mend = "calibrate the bundle anew"
            raise BundleError("controls that cannot be read", got=repr(error), mend=mend) from error


def scan_peak(scores: np.ndarray, voxels: int) -> float:
    """The highest score that at least so many of ``scores`` (N,) reach, as the smallest score of its bin; 0 if none."""
    if len(scores) < voxels:
        return 0.0
    highest = np.array([highest_reached(scores, voxels)])
    return float(key_edges(score_keys(highest))[0])


def controls_of(thresholds: Mapping[str, Any], part: str, levels: tuple[Level, ...]) -> Controls | None:
    """The controls of the first of ``levels`` for which a rule of a bundle's ``thresholds`` has any of that part.

    Of several rules of a level the default counts first, and then the one with the most people.

    Raises:
        BundleError: they cannot be read.
    """
    rules = thresholds["rules"]
    kept = {rule: Controls.from_json(entry["controls"]) for rule, entry in rules.items() if entry.get("controls")}
    usable = {rule: controls for rule, controls in kept.items() if controls.peaks.get(part)}
    for level in levels:
        ranked = sorted(
            (rule == thresholds["default"], controls.people, rule)
            for rule, controls in usable.items()
            if controls.level == level
        )
        if ranked:
            return usable[ranked[-1][2]]
    return None
