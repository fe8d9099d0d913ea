"""``conformal-scans``: of healthy people a share ``alpha`` at most gets a mask that is not empty; needs no lesion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hybriduad.config.strict import PluginConfig
from hybriduad.evaluation.rules._base import Finding, Observation
from hybriduad.evaluation.rules._conformal import Alpha, LeastMl, parts_and_controls, peak_finding
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.clusters import least_voxels
from hybriduad.metrics.histogram import key_edges
from hybriduad.metrics.scans import LEAST_ML


class Config(PluginConfig):
    """``alpha``: the share of healthy people, at least 1 / (n + 1) with n controls; ``least_ml``: what must reach the
    threshold, connected or not, for a scan to have a mask at all."""

    name: Literal["conformal-scans"] = "conformal-scans"
    alpha: Alpha
    least_ml: LeastMl = LEAST_ML


def find(config: Config, observed: Sequence[Observation]) -> Finding:
    """The threshold just above the conformal quantile of the controls' peaks.

    A peak is the highest score that at least ``least_ml`` of the brain reach: whether a scan's mask is empty depends on
    its peak alone.

    Raises:
        DataError: no control, or too few people for ``alpha``.
    """
    parts, controls = parts_and_controls(observed, config.alpha)
    peaks = {
        part: [_peak(case.whole[part], least_voxels(config.least_ml, case.voxel_ml)) for case in controls]
        for part in parts
    }
    return peak_finding(controls, peaks, alpha=config.alpha, least_ml=config.least_ml, level="scan")


def _peak(histogram: ScoreHistogram, voxels: int) -> float:
    """The smallest score of the highest bin that, with those above, holds so many voxels; 0 if none does."""
    keys, _, negatives = histogram.descending()
    enough = np.flatnonzero(np.cumsum(negatives) >= voxels)
    return float(key_edges(keys[enough[:1]])[0]) if len(enough) else 0.0
