"""The figures of a case's mask: voxels, lesions by size, outline, false alarms."""

from __future__ import annotations

import math

import numpy as np

from hybriduad.cohort.truth import Truth
from hybriduad.metrics import (
    Detection,
    LesionCounts,
    ScoreHistogram,
    confusion,
    dice,
    false_positive_rate,
    lesion_f1,
    lesion_precision,
    lesion_recall,
    match_lesions,
    precision,
    sensitivity,
    surface_figures,
)
from hybriduad.metrics.voxels import ratio

NAN = math.nan
EQUAL_ALARM_ML = 1.0
"""The volume of false positives in each scan at which systems are compared by the lesions that they find."""
EQUAL_ALARM_HITS = "lesions_hit_at_1ml"
"""Before the name of a size: how many lesions of it are found there."""


def outline_figures(mask: np.ndarray, detection: Detection, truth: Truth, threshold: float) -> dict[str, float]:
    """Figures of a mask (H, W, S) inside the region, whose lesions and components are matched in ``detection``.

    Without a lesion only those of false positives are defined, on a lesion-free scan if it is that of a control.
    """
    counts = confusion(mask, truth.lesion, truth.region)
    sick = bool(truth.lesion.any())
    lesions = detection.counts()
    slices = int(truth.clear.sum())
    false_ml = counts.fp * truth.voxel_ml
    on_clear_ml = float(mask[..., truth.clear].sum()) * truth.voxel_ml
    surface = surface_figures(mask, truth.lesion, truth.spacing_mm)
    figures = {
        "threshold": threshold,
        "dice": dice(counts) if sick else NAN,
        "sensitivity": sensitivity(counts),
        "precision": precision(counts) if sick else NAN,
        "fpr": false_positive_rate(counts),
        **_lesion_wise(lesions, sick),
        "lesions_hit": lesions.hit,
        "components": lesions.components,
        "false_components": lesions.false,
        "mask_ml": float(mask.sum()) * truth.voxel_ml,
        "false_positive_ml": false_ml,
        "false_positive_ml_per_lesion_free_scan": false_ml if truth.control else NAN,
        "lesion_free_scans_with_alarm": float(counts.fp > 0) if truth.control else NAN,
        "false_positive_ml_on_lesion_free_slices": on_clear_ml,
        "false_positive_ml_per_lesion_free_slice": ratio(on_clear_ml, slices),
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
        "false_lesions_per_lesion_free_scan": float(lesions.components) if truth.control else NAN,
        "surface_dice": surface.dice if sick else NAN,
        "hd95": surface.hd95,
    }
    for size, of_size in detection.counts_by_size(truth.voxel_ml).items():
        figures |= {f"{name}_{size}": value for name, value in _lesion_wise(of_size, sick).items()}
        figures |= {
            f"lesions_{size}": of_size.lesions,
            f"lesions_hit_{size}": of_size.hit,
            f"components_{size}": of_size.components,
            f"false_components_{size}": of_size.false,
        }
    return figures


def equal_alarm_figures(scores: np.ndarray, histogram: ScoreHistogram, truth: Truth) -> dict[str, float]:
    """Lesions of each size, and those found where :data:`EQUAL_ALARM_ML` of the scan are false positives or less.

    ``scores`` (H, W, S) are those of the region, which ``histogram`` counts. The threshold is that of the scan and its
    truth: it compares rankings at one price, as a point of an FROC curve does, and is no rule.
    """
    threshold = histogram.threshold_of(EQUAL_ALARM_ML / truth.voxel_ml)
    found = match_lesions((scores >= threshold) & truth.region, truth.lesion).counts_by_size(truth.voxel_ml)
    return {
        f"{name}_{size}": float(value)
        for size, counts in found.items()
        for name, value in (("lesions", counts.lesions), (EQUAL_ALARM_HITS, counts.hit))
    }


def _lesion_wise(counts: LesionCounts, sick: bool) -> dict[str, float]:
    return {
        "lesion_recall": lesion_recall(counts),
        "lesion_precision": lesion_precision(counts) if sick else NAN,
        "lesion_f1": lesion_f1(counts),
    }
