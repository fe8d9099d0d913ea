"""What a page says of a case in words: quality, calibration, provenance, and what its score is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hybriduad.core.errors import BundleError
from hybriduad.detector.thresholds import Calibration, cutoffs_of, said
from hybriduad.prediction.flags import out_of_distribution
from hybriduad.report.records import SYSTEM, Record

HEADINGS = {
    "number": "no.",
    "volume_ml": "volume (ml)",
    "x_mm": "x (mm)",
    "y_mm": "y (mm)",
    "z_mm": "z (mm)",
    "mean_score": "mean score",
    "maximum_score": "highest score",
    "mni_x": "MNI x (mm)",
    "mni_y": "MNI y (mm)",
    "mni_z": "MNI z (mm)",
}
FIGURES = {
    "auprc": "AUPRC",
    "dice": "Dice",
    "best_dice": "best possible Dice",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "lesion_recall": "lesions hit, share",
    "lesion_precision": "components on a lesion, share",
    "lesion_ml": "true volume (ml)",
    "false_positive_ml": "false positives (ml)",
    "hd95": "95 % Hausdorff distance (mm)",
}
"""The figures of an evaluation that a case's page shows."""


def number(value: Any, digits: int = 3) -> str:
    """A number for a reader; what is none as it stands, and a dash for nothing."""
    if value is None or value == "":
        return "–"
    try:
        read = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(read):
        return "–"
    if abs(read) >= 10**digits or read == 0:
        return f"{read:.0f}"
    return f"{read:.{digits}g}"


def heading(column: str) -> str:
    """The heading of a column of the table of lesions."""
    if column in HEADINGS:
        return HEADINGS[column]
    words = column.replace("_", " ").strip()
    for unit in ("ml", "mm"):
        if words.endswith(f" {unit}"):
            words = f"{words.removesuffix(unit).strip()} ({unit})"
    return words


def distance(record: Record) -> str:
    """How far the scan is from those of the training, against the limit; "" where that was not measured."""
    measured = out_of_distribution(record.content)
    return "" if measured is None else f"{number(measured[0])} (limit {number(measured[1])})"


def predicted_dice(confidence: Any) -> tuple[float, str] | None:
    """The Dice that the mask may be expected to have, and its interval in words; None where there is none."""
    stated = confidence.get("predicted_dice") if isinstance(confidence, Mapping) else None
    try:
        value, (low, high) = float(stated["value"]), stated["interval"]  # type: ignore[index]
        share, cases = float(stated["coverage"]), stated["cases"]  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return value, f"{number(low, 2)} to {number(high, 2)} ({share:.0%} interval, {number(cases)} annotated cases)"


def rule_of(record: Record, thresholds: Any) -> Mapping[str, Any]:
    """What the bundle says of the rule that cut the mask; nothing where it says nothing."""
    rules = thresholds.get("rules") if isinstance(thresholds, Mapping) else None
    entry = rules.get(record.content.get("rule")) if isinstance(rules, Mapping) else None
    return entry if isinstance(entry, Mapping) else {}


def least_volume(entry: Mapping[str, Any]) -> tuple[float, bool]:
    """The least volume in ml of a component of a rule's masks, or where the second is true of all of it; 0 for any."""
    sized = (entry.get("sized") or {}).get(SYSTEM)
    if not isinstance(sized, Mapping) or not isinstance(least := sized.get("least_ml"), int | float):
        return 0.0, False
    return float(least), sized.get("per") == "scan"


def left_out(entry: Mapping[str, Any]) -> list[str]:
    """A sentence of what a rule leaves out of masks for its size; none where it leaves out nothing."""
    least_ml, per_scan = least_volume(entry)
    what = "Masks" if per_scan else "Components"
    return [f"{what} of less than {number(least_ml)} ml are left out."] if least_ml else []


def calibration(record: Record, thresholds: Mapping[str, Any]) -> list[str]:
    """Sentences: the rule, the threshold it gave this scan, what it was set on, and how good it was there."""
    rule, threshold, entry = record.content.get("rule"), record.content.get("threshold"), rule_of(record, thresholds)
    if threshold is None or not entry:
        return ["Not calibrated: there is no mask, and no score is a threshold. 'hybriduad calibrate' sets one."]
    by_scan = SYSTEM in (entry.get("calibrations") or {})
    sentences = [
        f"The mask holds the voxels of the brain whose score reaches {number(threshold, 4)}, by the rule “{rule}”"
        + (", which finds the threshold of each scan from its own scores." if by_scan else ", the same for all scans."),
        *left_out(entry),
        f"The rule was set on {number(entry.get('cases'))} cases of {number(entry.get('subjects'))} subjects, "
        "on the voxels of their brains.",
    ]
    reached = entry.get("reached")
    if isinstance(reached, Mapping) and SYSTEM in reached:
        sentences.append(f"There it reached {number(reached[SYSTEM])} ({entry.get('figure', 'figure not stated')}).")
    limit = entry.get("limit")
    bounds = {key: value for key, value in (limit if isinstance(limit, Mapping) else {}).items() if key != "below"}
    if bounds:
        stated = ", ".join(f"{str(key).replace('_', ' ')} {number(value)}" for key, value in bounds.items())
        sentences.append(f"Options of the rule: {stated}.")
    if isinstance(line := _line(entry), str):
        sentences.append(line)
    return sentences


def _line(entry: Mapping[str, Any]) -> str | None:
    """The line from score to probability, where the rule has one."""
    try:
        cutoff = cutoffs_of(entry).get(SYSTEM)
    except BundleError:
        return None
    return f"Probability of a lesion: {said(cutoff)}." if isinstance(cutoff, Calibration) else None


def provenance(record: Record) -> list[tuple[str, str]]:
    """Name and value of everything that identifies the result; digests in full."""
    content = record.content
    rows = [("model (sha256)", str(content["bundle"]))]
    inputs = content["inputs"] if isinstance(content["inputs"], Mapping) else {}
    for name, stated in inputs.items():
        if isinstance(stated, Mapping):
            reference = ", reference" if stated.get("reference") else ""
            rows.append((f"{name}{reference} (sha256)", str(stated.get("sha256", "–"))))
    versions = content.get("versions")
    rows += [(str(name), str(value)) for name, value in (versions if isinstance(versions, Mapping) else {}).items()]
    rows.append(("format of the record", str(content.get("format"))))
    if "seconds" in content:
        rows.append(("computing time", f"{number(content['seconds'])} s"))
    return rows


def score_of(model: Mapping[str, Any]) -> str:
    """What a model's score is made of, in words; less of predictions from before ``model.json`` held its ``fusion``."""
    parts, fusion = model.get("parts"), model.get("fusion")
    if parts in (["map"], ["probability"]):
        name = "anomaly map of the reconstruction of healthy anatomy" if parts == ["map"] else "segmenter's probability"
        return f"the {name} alone"
    if parts != ["map", "probability"] or not isinstance(fusion, Mapping):
        return "that of the model, whose parts these predictions do not state"
    if fusion.get("form") == "sum":
        weight = number(_size(fusion, "weight"))
        return f"the mean of the reconstruction's anomaly map (weight {weight}) and of the segmenter's probability"
    floor = f"behind a floor of {number(_size(fusion, 'floor'))}" if _size(fusion, "floor") else ""
    witnesses = ["the segmenter's probability" + (f" ({floor})" if floor else "")]
    if exponent := _size(fusion, "intensity"):
        other_side = " or a departure to the other side of pseudo-healthy tissue" if _size(fusion, "opposite") else ""
        step = _size(fusion, "departure")
        plain = f"a step in intensity at {number(step)} beyond the brain's median" if step else "plain intensity"
        witnesses.append(f"{plain}{other_side} (exponent {number(exponent)})")
    if exponent := _size(fusion, "asymmetry"):
        witnesses.append(f"left-right asymmetry (exponent {number(exponent)}{floor and f', {floor}'})")
    map_ = f"the reconstruction's anomaly map (exponent {number(_size(fusion, 'weight'))})"
    return f"the product of {', '.join([map_, *witnesses[:-1]])} and {witnesses[-1]}"


def _size(fusion: Mapping[str, Any], name: str) -> float:
    """A weight, an exponent or a floor; 0 where it is not stated or no number."""
    try:
        return float(fusion.get(name, 0.0))
    except (TypeError, ValueError):
        return 0.0
