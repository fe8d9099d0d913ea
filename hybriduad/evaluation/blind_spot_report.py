"""What blind spots are said in: tables, a picture, the curve over thresholds, and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from hybriduad.core.charts import Panel, Series, charts
from hybriduad.core.drawing import new_figure, save_figure
from hybriduad.evaluation.real_lesions import real_words
from hybriduad.evaluation.recall_comparison import comparison_rows, comparison_words
from hybriduad.evaluation.recall_map import write_recall_map
from hybriduad.evaluation.tables import write_json
from hybriduad.evaluation.threshold_curve import LEAST_ML, Curve, curve_of
from hybriduad.scan.places import PLACES, place_at
from hybriduad.scan.volumes import write_atomically
from hybriduad.training.planned_lesions import CONTRASTS, FRONT, HEIGHT, SIZES_ML

REPORT, CURVE, RECALL, LESIONS = "blind-spots.md", "curve", "recall", "lesions.tsv"
COMPARED = "painted-real.tsv"
SIZES = tuple(f"{low:g}-{high:g}" for low, high in SIZES_ML)
KEYS = ("size_ml", "contrast", "front", "height", "side")
PLACE = "coarse_place"
"""Further key in template space, where a painted lesion has one of :data:`~hybriduad.scan.places.PLACES`."""
GROUPS: tuple[tuple[str, ...], ...] = (
    (),
    ("size_ml",),
    ("contrast",),
    ("size_ml", "contrast"),
    ("size_ml", "front"),
    ("size_ml", "height"),
    ("size_ml", "side"),
    ("front", "height"),
    ("size_ml", "front", "height"),
)
"""What recall is counted by, and in template space by :data:`PLACES_GROUPS` too."""
PLACES_GROUPS: tuple[tuple[str, ...], ...] = ((PLACE,), ("size_ml", PLACE))
ALMOST_NOTHING = 0.1
"""A recall under this is said loudly."""
FEWEST = 5
"""A recall of fewer lesions is in the table, but in no sentence."""
WORST = 5
"""How many of the worst places are named, of sizes of which something is found."""
UNCALIBRATED = 1.0
"""False lesions a healthy scan at which a bundle without a threshold is looked at."""
NOT_REAL = (
    "Painted lesions are one focus each, brighter than their tissue (darker on T1w and T2starw), plainer than real "
    "ones, and in contrasts that the lesions that you look for may not have: weigh them by annotated cases (--like), "
    "or, unless those lesions stand out, take the figures of the faint ones."
)


def write_report(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    rule: str,
    calibrated_on: int,
    real: Sequence[Mapping[str, Any]] = (),
    like: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write everything about ``records`` beside them, and return ``blind-spots.md``.

    ``rule`` cut the masks, "" where the bundle has no threshold: then the figures are at the lowest threshold with
    :data:`UNCALIBRATED` false lesions a healthy scan. ``calibrated_on``: so many records are of people whom the bundle
    was calibrated on. ``real``: the records of labelled cases, of :mod:`hybriduad.evaluation.real_lesions`,
    and ``like`` those whose lesions' contrasts weigh the painted ones.
    """
    curve = curve_of(records)
    found, marked, where, false, at = _at_threshold(records, curve, rule)
    lesions = [
        {"case": record["case"], **lesion, **_place(lesion), "found": bool(hit), "marked_before": bool(before)}
        for (record, lesion), hit, before in zip(
            ((record, lesion) for record in records for lesion in record["lesions"]), found, marked, strict=True
        )
    ]
    rows = recall_rows(lesions)
    sentences = _sentences(rows, where, false, len(records), lesions)
    sentences += write_recall_map(folder, lesions)
    if real:
        sentences.append(real_words(real, at))
    (folder / COMPARED).unlink(missing_ok=True)  # of an earlier call, with other annotated cases
    if not rule and (real or like):
        sentences.append("The bundle is not calibrated: painted lesions are not compared with real ones.")
    if rule and (real or like):
        compared = comparison_rows(records, real, like or real)
        source = f"the lesions of {len(like or real)} annotated cases" + ("" if like else ", the same")
        sentences += comparison_words(compared, source)
        _write_tsv(folder / COMPARED, compared)
    if calibrated_on:
        sentences.append(
            f"The bundle was calibrated on {calibrated_on} of these scans: expect more false lesions in other healthy "
            "scans. What is found of lesions hardly depends on that."
        )
    _write_tsv(folder / LESIONS, [_flat(lesion) for lesion in lesions])
    _write_tsv(folder / f"{RECALL}.tsv", rows)
    _write_tsv(folder / f"{CURVE}.tsv", curve_rows(curve, lesions))
    figures = {"threshold": where, "false_lesions": false, "said": sentences, "recall": rows}
    write_json(folder / f"{RECALL}.json", figures)
    _draw_places(folder / f"{RECALL}.png", rows)
    draw_curve(folder / f"{CURVE}.png", curve, lesions)
    text = "\n\n".join(["# Blind spots", *sentences]) + "\n"
    write_atomically(folder / REPORT, text.encode())
    return text


def _place(lesion: Mapping[str, Any]) -> dict[str, str]:
    """The coarse place of a lesion's centroid, nothing in native space."""
    return {PLACE: place_at(np.array(lesion["template_mm"]))} if "template_mm" in lesion else {}


def _flat(lesion: Mapping[str, Any]) -> dict[str, Any]:
    """A lesion for a line of the table: without its sections, and places in three columns."""
    line = {name: value for name, value in lesion.items() if not isinstance(value, list)}
    line |= dict(zip(("across", "along", "up"), lesion["place"], strict=True))
    in_template = lesion.get("template_mm", ())
    return line | {f"{axis}_template_mm": value for axis, value in zip("xyz", in_template, strict=False)}


def recall_rows(lesions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each group of :data:`GROUPS` that has lesions: how many are ``found``, and a 95 % interval.

    The interval is Wilson's; it takes lesions as independent, though those of a scan are not quite. Where all lesions
    have a :data:`PLACE`, rows have that key too.
    """
    placed = all(PLACE in lesion for lesion in lesions)
    named = (*KEYS, PLACE) if placed else KEYS
    rows = []
    for keys in GROUPS + (PLACES_GROUPS if placed else ()):
        counted: dict[tuple[str, ...], list[bool]] = {}
        for lesion in lesions:
            counted.setdefault(tuple(str(lesion[key]) for key in keys), []).append(bool(lesion["found"]))
        for names in sorted(counted, key=lambda names: [_rank(name) for name in names]):
            hits, total = sum(counted[names]), len(counted[names])
            interval = binomtest(hits, total).proportion_ci(method="wilson")
            group = dict(zip(keys, names, strict=True))
            figures = {"lesions": total, "found": hits, "recall": round(hits / total, 4)}
            bounds = {"low": round(float(interval.low), 4), "high": round(float(interval.high), 4)}
            rows.append({**{key: group.get(key, "all") for key in named}, **figures, **bounds})
    return rows


def _rank(name: str) -> int:
    order = (*SIZES, *CONTRASTS, *FRONT, *HEIGHT, "left", "both", "right", *PLACES)
    return order.index(name)


def curve_rows(curve: Curve, lesions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a threshold at which anything changes: false lesions a healthy scan, recall of all and by size."""
    sizes = np.array([lesion["size_ml"] for lesion in lesions])
    rows: list[dict[str, Any]] = []
    for index, threshold in enumerate(curve.thresholds):
        recall = {f"recall_{size}_ml": _mean(curve.found[sizes == size, index]) for size in SIZES}
        false = round(float(curve.false[:, index].mean()), 4)
        row = {"false_lesions": false, "recall": _mean(curve.found[:, index]), **recall}
        if not rows or row != {key: value for key, value in rows[-1].items() if key != "threshold"}:
            rows.append({"threshold": round(float(threshold), 6), **row})
        else:
            rows[-1]["threshold"] = round(float(threshold), 6)  # the highest of those that do the same
    return rows


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _at_threshold(
    records: Sequence[Mapping[str, Any]], curve: Curve, rule: str
) -> tuple[np.ndarray, np.ndarray, str, float, float | None]:
    """Which lesions are found, which places were marked before, at which threshold in words; false lesions a scan, and
    the threshold where it is not that of the masks."""
    lesions = [lesion for record in records for lesion in record["lesions"]]
    if rule:
        thresholds = sorted({float(record["threshold"]) for record in records})
        span = f"{thresholds[0]:.4g}" + (f" to {thresholds[-1]:.4g} by scan" if len(thresholds) > 1 else "")
        found, marked = (np.array([lesion[key] for lesion in lesions]) for key in ("found", "marked_before"))
        false = float(np.mean([record["false_in_mask"] for record in records]))
        return found, marked, f"the threshold of the rule {rule} ({span})", false, None
    everyone = np.ones(len(curve.false), bool)
    index = curve.lowest(UNCALIBRATED, everyone)
    at = float(curve.thresholds[-1 if index is None else index])
    marked = np.array([lesion["marked_at"] >= at for lesion in lesions])
    false = float(curve.false[:, -1 if index is None else index].mean())
    words = f"{at:.4g}, for want of a calibration the lowest with {UNCALIBRATED:g} false lesion a healthy scan"
    return curve.found[:, -1 if index is None else index], marked, words, false, at


def _sentences(
    rows: Sequence[Mapping[str, Any]], where: str, false: float, controls: int, lesions: Sequence[Mapping[str, Any]]
) -> list[str]:
    def chosen(*keys: str) -> list[Mapping[str, Any]]:
        return [row for row in rows if {key for key in (*KEYS, PLACE) if row.get(key, "all") != "all"} == set(keys)]

    (total,) = chosen()
    scans = "scans" if controls > 1 else "scan"
    said = [
        f"{total['lesions']} lesions painted into {controls} {scans}, at {where}; as it is, a scan has {false:.2g} "
        "false lesions."
    ]
    if total["recall"] < ALMOST_NOTHING:
        said.insert(0, f"**THIS DETECTOR WOULD FIND ALMOST NOTHING: {_share(total)} of the painted lesions.**")
    for row in chosen("size_ml"):
        parts = [part for part in chosen("size_ml", "contrast") if part["size_ml"] == row["size_ml"]]
        listed = ", ".join(f"{part['contrast']} {_share(part)}" for part in parts)
        loud = "**Almost none found.** " if row["recall"] < ALMOST_NOTHING <= total["recall"] else ""
        said.append(f"{loud}{row['size_ml']} ml: {_share(row)}; {listed}.")
    usual = {row["size_ml"]: row["recall"] for row in chosen("size_ml")}
    placed = any(PLACE in row for row in rows)
    places = [
        row
        for row in (chosen("size_ml", PLACE) if placed else chosen("size_ml", "front", "height"))
        if row["lesions"] >= FEWEST and row["recall"] < usual[row["size_ml"]] >= ALMOST_NOTHING
    ]
    said += [
        f"At this threshold, {row['size_ml']} ml lesions {_where(row)}: {_share(row)}."
        for row in sorted(places, key=lambda row: (row["recall"], -row["lesions"]))[:WORST]
    ]
    if placed:
        shares = ", ".join(f"{row[PLACE]} {_share(row)}" for row in chosen(PLACE))
        said.append(f"By coarse place in the template: {shares}.")
    already = sum(bool(lesion["marked_before"]) for lesion in lesions)
    if already:
        said.append(f"{already} lesions lie where the mask was before they were painted; they count as not found.")
    return [*said, NOT_REAL]


def _where(row: Mapping[str, Any]) -> str:
    """Where the lesions of a row lie: a coarse place of the template, else thirds of the box around the brain."""
    if row.get(PLACE, "all") == "all":
        return f"in the {row['front']} {row['height']} third"
    name = str(row[PLACE])
    return name if name == "periventricular" else f"in the {name}"


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['recall']:.0%} found ({row['found']} of {row['lesions']})"


def _write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(rows[0])
    lines = ["\t".join(columns)]
    lines += ["\t".join("n/a" if row[name] is None else str(row[name]) for name in columns) for row in rows]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _draw_places(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Recall by place, a panel a size: the brain from the left side, its front to the right."""
    figure = new_figure(2.3 * len(SIZES), 2.6)
    axes = figure.subplots(1, len(SIZES), squeeze=False)[0]
    for axis, size in zip(axes, SIZES, strict=True):
        table = {(row["front"], row["height"]): row for row in rows if row["size_ml"] == size and row["side"] == "all"}
        shares = np.full((len(HEIGHT), len(FRONT)), np.nan)
        for line, height in enumerate(HEIGHT[::-1]):
            for column, front in enumerate(FRONT):
                if row := table.get((front, height)):
                    shares[line, column] = row["recall"]
                    colour = "white" if row["recall"] < 0.5 else "black"
                    text = f"{row['recall']:.0%}\n{row['found']} of {row['lesions']}"
                    axis.text(column, line, text, ha="center", va="center", fontsize=6, color=colour)
        axis.imshow(shares, vmin=0, vmax=1, cmap="viridis")
        axis.set_xticks(range(len(FRONT)), FRONT, fontsize=6)
        axis.set_yticks(range(len(HEIGHT)), HEIGHT[::-1], fontsize=6)
        axis.set_title(f"{size} ml", fontsize=8)
    figure.tight_layout()
    save_figure(figure, path)


def draw_curve(path: Path, curve: Curve, lesions: Sequence[Mapping[str, Any]]) -> None:
    """Recall by size against false lesions a healthy scan, over thresholds."""
    sizes = np.array([lesion["size_ml"] for lesion in lesions])
    false = curve.false.mean(axis=0)
    names = [f"{size} ml" for size in SIZES]
    series = [
        Series(name, false.tolist(), curve.found[sizes == size].mean(axis=0).tolist())
        for size, name in zip(SIZES, names, strict=True)
        if (sizes == size).any()
    ]
    charts(
        path,
        [Panel(f"clusters of at least {LEAST_ML:g} ml", series)],
        x="false lesions a healthy scan",
        y="recall of painted lesions",
        names=names,
        marked=False,
    )
