"""An operating point: the threshold with so many false lesions a healthy scan, and what of painted lesions it finds.

It is chosen on the controls that blind spots were looked for in. How good it is on them is no result: the honest figure
here is cross-fitted, each person judged at the threshold that the others choose, and of real lesions that of
``hybriduad evaluate`` on other cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.config.runs import Anatomy
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import Bundle, verify
from hybriduad.detector.controls import Controls
from hybriduad.detector.thresholds import Sized, encoded
from hybriduad.evaluation.blind_spots import read_records
from hybriduad.evaluation.calibration import write_calibrated
from hybriduad.evaluation.real_lesions import read_real, real_words
from hybriduad.evaluation.threshold_curve import LEAST_ML, Curve, curve_of
from hybriduad.scan import brain_ways
from hybriduad.training.planned_lesions import SIZES_ML
from hybriduad.training.resuming import Workshop

RULE = "operating-point"
"""What the threshold is called among the rules of a bundle."""
SIZES = tuple(f"{low:g}-{high:g}" for low, high in SIZES_ML)
SHOWN = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0)
"""False lesions a healthy scan at which the curve is printed."""


@dataclass(frozen=True)
class Point:
    """A threshold, ``false_lesions`` a healthy scan there, and the ``recall`` of painted lesions by size, "" for all;
    of a size that was not painted it is None."""

    threshold: float
    false_lesions: float
    recall: Mapping[str, float | None]


def choose_operating_point(
    bundle: str | Path,
    blind_spots: str | Path,
    *,
    out: str | Path,
    false_lesions: float,
    brain: str | None = None,
    overwrite: bool = False,
) -> tuple[Bundle, str]:
    """Write a bundle whose masks have so many false lesions a healthy scan; returns it, and the curve in words.

    The threshold is the lowest from which on the mean over people keeps to the limit; a lesion is a cluster of at least
    :data:`~hybriduad.evaluation.threshold_curve.LEAST_ML`. The controls count as used for calibration, so that no
    figure is reported on them; the bundle remembers how high each of them scores, for the p of scans and lesions.

    Args:
        bundle: the one that the blind spots are of.
        blind_spots: a folder made by :func:`hybriduad.evaluation.blind_spots.find_blind_spots`.
        out: the new bundle's folder.
        false_lesions: the mean over healthy scans, at least 0.
        brain: how the brains of heads were found in the blind spots, as there; the new bundle states it, and does not
            keep rules of other brains.
        overwrite: replace the bundle of another request in ``out``.

    Raises:
        ConfigError: blind spots beside the lesions of patients, another bundle or other brains than those of the blind
            spots, a way to the brain that is not installed, a limit under 0, or other work in ``out``.
        DataError: no blind spots, or no threshold keeps to the limit.
    """
    parent = verify(bundle)
    request, records = read_records(blind_spots)
    if false_lesions < 0:
        raise ConfigError("a number of false lesions", got=false_lesions, expected="0 or more")
    if request.get("beside_lesions"):
        mend = "run blind-spots on healthy controls"
        raise ConfigError("blind spots of patients, which do not tell false lesions", where=blind_spots, mend=mend)
    if request["bundle"] != parent.digest:
        mend = "name the bundle that blind-spots was run with"
        raise ConfigError("blind spots of another bundle", where=blind_spots, got=request["bundle"][:12], mend=mend)
    anatomy = _same_brains(parent, request, brain, blind_spots)
    asked = {"parents": [parent.digest], "blind_spots": request, RULE: {"false_lesions": false_lesions}}
    workshop = Workshop(Path(out), asked, overwrite=overwrite)
    curve, sizes = curve_of(records), np.array([lesion["size_ml"] for r in records for lesion in r["lesions"]])
    people = len(curve.false)
    index = curve.lowest(false_lesions, np.ones(people, bool))
    if index is None:
        got = f"{curve.false[:, -1].mean():.2g} at {curve.thresholds[-1]:.3g}"
        raise DataError("no threshold with so few false lesions", where=blind_spots, got=got, expected=false_lesions)
    chosen, honest = _point(curve, sizes, index), _cross_fitted(curve, sizes, false_lesions)
    text = _said(curve, sizes, chosen, honest, false_lesions)
    if real := read_real(Path(blind_spots)):
        text += f"\n{real_words(real, chosen.threshold)}"
    if (finished := workshop.finished) is not None:
        return finished, text
    peaks = [max(r["peak"] for r in records if r["person"] == list(who)) for who in sorted(_people(records))]
    guarantee = (
        f"Chosen for {false_lesions:g} false lesions (of at least {LEAST_ML:g} ml) a healthy scan on {people} people; "
        f"{_honest_words(honest, people)} No bound is promised: conformal-lesions of 'hybriduad calibrate' gives one."
    )
    entry = {
        **encoded({"score": Sized(chosen.threshold, LEAST_ML, "lesion")}),
        "figure": "mean over people of false lesions in a healthy scan, on the controls that chose the threshold",
        "reached": {"score": chosen.false_lesions},
        "limit": {"false_lesions": false_lesions, "least_ml": LEAST_ML},
        "cases": len(records),
        "subjects": people,
        "guarantee": guarantee,
        "controls": Controls("lesion", LEAST_ML, {"score": tuple(peaks)}).to_json(),
        "painted_recall": dict(chosen.recall),
        "cross_fitted": None if honest is None else {"false_lesions": honest.false_lesions, **honest.recall},
        "provenance": {"parent": parent.digest, "versions": bundles.versions(), "seed": request["seed"]},
    }
    workshop.open()
    used = {digest: role for record in records for digest, role in record["identities"].items()}
    changes = None if anatomy is None else {"anatomy": anatomy.model_dump(mode="json")}
    return write_calibrated(workshop, parent, {RULE: entry}, RULE, used, changes), text


def _same_brains(
    parent: Bundle, request: Mapping[str, Any], brain: str | None, blind_spots: str | Path
) -> Anatomy | None:
    """The anatomy of the new bundle, None where it is that of ``parent``.

    Raises:
        ConfigError: the brains of the blind spots were found in another way than ``brain`` says.
    """
    anatomy = None if brain is None else brain_ways.chosen(parent.anatomy, brain)
    asked = None if anatomy is None else brain_ways.brain_name(anatomy)
    if asked != (stated := request.get("brain")):
        got, expected = (name or "as the bundle says" for name in (asked, stated))
        mend = "give the --brain that blind-spots was run with"
        raise ConfigError("blind spots of other brains", where=blind_spots, got=got, expected=expected, mend=mend)
    return anatomy


def _people(records: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {(record["person"][0], record["person"][1]) for record in records}


def _point(curve: Curve, sizes: np.ndarray, index: int) -> Point:
    false = float(curve.false[:, index].mean())
    return Point(float(curve.thresholds[index]), false, _by_size(curve.found[:, index], sizes))


def _by_size(found: np.ndarray, sizes: np.ndarray) -> dict[str, float | None]:
    chosen = {"": np.ones(len(sizes), bool)} | {size: sizes == size for size in SIZES}
    return {size: float(found[which].mean()) if which.any() else None for size, which in chosen.items()}


def _cross_fitted(curve: Curve, sizes: np.ndarray, false_lesions: float) -> Point | None:
    """Every person at the threshold that all others choose, None of one person; ``threshold`` is their mean."""
    people = np.arange(len(curve.false))
    at = [curve.lowest(false_lesions, people != who) for who in people] if len(people) > 1 else []
    if not at or any(index is None for index in at):
        return None
    index = np.array(at, dtype=int)
    found = curve.found[np.arange(len(sizes)), index[curve.person]]
    false = float(curve.false[people, index].mean())
    return Point(float(curve.thresholds[index].mean()), false, _by_size(found, sizes))


def _honest_words(honest: Point | None, people: int) -> str:
    if honest is None:
        return "one person cannot say how it does on others."
    return f"each of the {people} at the threshold of the others: {honest.false_lesions:.2g} false lesions a scan."


def _said(curve: Curve, sizes: np.ndarray, chosen: Point, honest: Point | None, false_lesions: float) -> str:
    """The curve as a table, the point, and where an honest figure comes from."""
    everyone = np.ones(len(curve.false), bool)
    limits = sorted({*SHOWN, false_lesions})
    indices = dict.fromkeys(index for limit in limits if (index := curve.lowest(limit, everyone)) is not None)
    lines = ["threshold  false lesions  " + "  ".join(f"{size:>10}" for size in ("all", *(f"{s} ml" for s in SIZES)))]
    for index in indices:
        point = _point(curve, sizes, index)
        mark = "  <- chosen" if point.threshold == chosen.threshold else ""
        lines.append(f"{point.threshold:9.4g}  {point.false_lesions:13.3g}  {_cells(point)}{mark}")
    if honest is not None:
        lines.append(f"{'cross-fit':>9}  {honest.false_lesions:13.3g}  {_cells(honest)}")
    lines += [
        "Columns: false lesions a healthy scan, and the recall of painted lesions, all and by size.",
        f"The marked line was chosen on these {len(curve.false)} people and is no result. "
        + ("" if honest is None else "cross-fit: every person at the threshold that the others choose. ")
        + "Of real lesions the honest figure is that of 'hybriduad evaluate' on cases that the bundle has not used; "
        "these controls now count as used.",
    ]
    return "\n".join(lines)


def _cells(point: Point) -> str:
    return "  ".join("       n/a" if value is None else f"{value:10.0%}" for value in point.recall.values())
