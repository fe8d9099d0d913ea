"""``false-positives``: the lowest threshold whose mask of lesion-free material keeps to a volume; needs no lesion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from hybriduad.config.strict import PluginConfig
from hybriduad.core.errors import DataError
from hybriduad.evaluation.rules._base import (
    Finding,
    Observation,
    Per,
    edge,
    parts_of,
    subjects_of,
)
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.histogram import BINS


class Config(PluginConfig):
    """``false_positive_ml``: millilitres that the mask may hold on average ``per`` lesion-free slice (of healthy scans,
    and of annotated scans away from lesions) or lesion-free scan."""

    name: Literal["false-positives"] = "false-positives"
    false_positive_ml: float = Field(ge=0)
    per: Per = "slice"


def find(config: Config, observed: Sequence[Observation]) -> Finding:
    """The lowest bin edge that keeps to the limit; the mean is over all lesion-free slices, or scans, alike.

    Raises:
        DataError: no lesion-free slice, or scan.
    """
    per = config.per
    usable = [case for case in observed if (case.slices > 0 if per == "slice" else case.control)]
    units = sum(case.slices for case in usable) if per == "slice" else len(usable)
    if not units:
        wanted = "healthy scans" + ("" if per == "scan" else ", or slices away from lesions")
        raise DataError(f"no lesion-free {per} to calibrate on", got=f"{len(observed)} cases", expected=wanted)
    values, reached = {}, {}
    for part in parts_of(usable):
        volume = np.zeros(BINS)
        for case in sorted(usable, key=lambda case: case.subject):
            volume += case.voxel_ml * _negatives(case.clear[part] if per == "slice" else case.whole[part])
        alarms = np.cumsum(volume[::-1])[::-1] / units  # at bin k: millilitres a unit of score >= its edge
        # The volume falls with k, so the first bin is the lowest; rounding must not refuse a volume equal to the limit.
        allowed = np.flatnonzero(alarms[1:] <= config.false_positive_ml * (1 + 1e-9))
        key = int(allowed[0]) + 1 if len(allowed) else BINS
        values[part], reached[part] = edge(key), float(alarms[key]) if key < BINS else 0.0
    return Finding(
        values,
        f"mean over lesion-free {per}s of the mask's volume in ml",
        reached,
        cases=len(usable),
        subjects=len(subjects_of(usable)),
        limit={"false_positive_ml": config.false_positive_ml, "per": per},
        facts={f"{per}s": units},
    )


def _negatives(histogram: ScoreHistogram) -> np.ndarray:
    """Counts (BINS,) int64 of the voxels without a lesion, the lowest score first."""
    arrays = histogram.to_arrays()
    dense = np.zeros(BINS, dtype=np.int64)
    dense[arrays["keys"]] = arrays["negatives"]
    return dense
