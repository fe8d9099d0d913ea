"""``conformal-lesions``: of healthy people a share ``alpha`` at most gets any false lesion; needs no lesion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hybriduad.config.strict import PluginConfig
from hybriduad.evaluation.rules._base import Finding, Observation
from hybriduad.evaluation.rules._conformal import Alpha, LeastMl, parts_and_controls, peak_finding
from hybriduad.metrics.scans import LEAST_ML

NEEDS_PEAKS = True


class Config(PluginConfig):
    """``alpha``: the share of healthy people, at least 1 / (n + 1) with n controls; ``least_ml``: a smaller cluster of
    voxels is no lesion, and in no mask."""

    name: Literal["conformal-lesions"] = "conformal-lesions"
    alpha: Alpha
    least_ml: LeastMl = LEAST_ML


def find(config: Config, observed: Sequence[Observation]) -> Finding:
    """The threshold just above the conformal quantile of the controls' peaks.

    A peak is the highest threshold that a cluster of at least ``least_ml`` connected voxels reaches: a scan has a
    lesion in its mask if and only if its peak is above the quantile. The share of people with a false lesion, and not
    their number, is what is bounded; so is the chance that any lesion of a healthy person has a p of ``alpha`` or less.

    Raises:
        DataError: no control, or too few people for ``alpha``.
    """
    parts, controls = parts_and_controls(observed, config.alpha)
    peaks = {part: [case.peaks[config.least_ml][part] for case in controls] for part in parts}
    return peak_finding(controls, peaks, alpha=config.alpha, least_ml=config.least_ml, level="lesion")
