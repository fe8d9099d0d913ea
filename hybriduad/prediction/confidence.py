"""How far to trust a prediction: p-values against the bundle's healthy controls, and what it promises, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hybriduad.core.types import Prediction
from hybriduad.detector.controls import controls_of
from hybriduad.detector.dice_estimate import COVERAGE, DiceEstimate, mask_figures
from hybriduad.metrics.histogram import key_edges, score_keys
from hybriduad.scan.volumes import VolumeGrid, spacing_of

ENTRY = "predicted_dice"
"""Of a rule in a bundle, and of the confidence in a record."""


def confidence_of(thresholds: Mapping[str, Any], rule: str, prediction: Prediction) -> dict[str, Any]:
    """The entry ``confidence`` of a case's record.

    Args:
        thresholds: those of ``bundle.json``.
        rule: which of them cut the mask.
        prediction: on the grid of the scan.

    Returns:
        ``scan_p``, the conformal p of the scan's score among the healthy controls, None without any; how many
        ``controls`` that are; a ``statement`` of what the rule promises, or that it promises nothing; and
        ``predicted_dice`` of :func:`predicted_dice`.

    Raises:
        BundleError: controls that cannot be read.
    """
    controls = controls_of(thresholds, "score", ("scan", "lesion"))
    promise = thresholds["rules"].get(rule, {}).get("guarantee")
    statement = promise or (
        f"No promise: {f'the rule {rule} gives' if rule else 'without a threshold there is'} none of false alarms in "
        "healthy people; the conformal rules of 'hybriduad calibrate' do, from healthy controls."
    )
    estimate = {ENTRY: predicted_dice(thresholds["rules"].get(rule, {}), prediction)}
    if controls is None or prediction.score is None:
        return {"scan_p": None, "controls": 0, "statement": statement} | estimate
    p = controls.scan_p("score", prediction.score, prediction.brain, _voxel_ml(prediction.grid))
    connected = "connected " if controls.level == "lesion" else ""
    meaning = (
        f" scan_p: (1 + controls whose highest {connected}{controls.least_ml:g} ml score as high) / (1 + controls); of "
        "healthy people exchangeable with them a share of p at most has one as low."
    )
    return {"scan_p": p, "controls": controls.people, "statement": statement + meaning} | estimate


def predicted_dice(entry: Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
    """The Dice that the mask of a scan may be expected to have, if the scan has a lesion.

    Args:
        entry: of the rule that cut the mask, in ``bundle.json``.
        prediction: on the grid of the scan.

    Returns:
        ``value`` in [0, 1], ``interval`` (two of them), the nominal ``coverage`` of it, how many annotated ``cases`` it
        rests on (:class:`hybriduad.detector.dice_estimate.DiceEstimate`). Where there is none, value and interval are
        None and ``reason`` says why.

    Raises:
        BundleError: an estimate that cannot be read.
    """
    stated = entry.get(ENTRY) or {"reason": "not learnt: calibrate the bundle anew on annotated cases"}
    if "reason" in stated:
        return {"value": None, "interval": None, "coverage": COVERAGE, "cases": 0, "reason": stated["reason"]}
    known = DiceEstimate.from_json(stated)
    none = {"value": None, "interval": None, "coverage": COVERAGE, "cases": known.cases}
    if prediction.score is None or prediction.threshold is None:
        return none | {"reason": "no mask"}
    keys, counts = np.unique(score_keys(prediction.score[prediction.brain]), return_counts=True)
    voxel_ml = _voxel_ml(prediction.grid)
    figures = mask_figures(key_edges(keys), counts, prediction.threshold, voxel_ml, scan_distance(prediction))
    if figures is None:
        return none | {"reason": "the mask is empty"}
    if lacking := [name for name in known.figures if name not in figures]:
        return none | {"reason": f"the scan has no {', '.join(lacking)}"}
    low, high = known.interval(figures)
    return none | {"value": round(known.value(figures), 3), "interval": [round(low, 3), round(high, 3)]}


def scan_distance(prediction: Prediction) -> float | None:
    """The distance of a scan from the training over its limit; None where the bundle knows none."""
    notes = prediction.notes
    stated = (notes.get("quality") or notes).get("out_of_distribution")
    return None if not stated else float(stated["distance"]) / float(stated["limit"])


def _voxel_ml(grid: VolumeGrid) -> float:
    return math.prod(spacing_of(grid.affine)) / 1000
