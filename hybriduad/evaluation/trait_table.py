"""What painted and real lesions are like, a row a painter: medians with quartiles, as CSV and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from scipy import stats

from hybriduad.evaluation.traits import RING_MM, Traits

QUARTILES = ("area_cm2", "diameter_mm", "parts", "change", "contrast", "contrast_sd", "edge_mm", "height", "visibility")
"""Traits whose median and quartiles are given."""
COMPARED = ("area_cm2", "contrast_sd", "edge_mm")
"""Traits of which the distance from those of real lesions is given."""
MOSTLY = 0.9
"""The share of a lesion that lies on one side of the brain, or else it lies on both."""
HEADINGS = {
    "area_cm2": ("area in cm²", 1),
    "diameter_mm": ("diameter in mm", 0),
    "parts": ("parts", 0),
    "change": ("change", 2),
    "contrast": ("contrast", 2),
    "contrast_sd": ("contrast in SD", 1),
    "edge_mm": ("mm from the edge", 0),
    "height": ("height", 2),
    "visibility": ("visibility", 2),
}
"""Trait -> its heading, and its digits after the point."""


def trait_row(name: str, measured: Sequence[Traits], slices: int, real: Sequence[Traits] = ()) -> dict[str, Any]:
    """What lesions are like: a row of the table.

    Args:
        name: of the painter, or of the real lesions.
        measured: of each slice with a lesion.
        slices: how many were drawn, or are labelled.
        real: of the slices with real lesions; from them the Kolmogorov-Smirnov distances ``ks_<trait>``, in [0, 1].

    Returns:
        Medians as ``<trait>``, quartiles as ``<trait>_q25`` and ``<trait>_q75``, nan where there are none;
        ``with_lesion``, ``brighter``, ``left``, ``right`` and ``both_sides`` are shares of slices, the last four of
        those with a lesion.
    """
    columns = {
        field.name: np.array([getattr(traits, field.name) for traits in measured], float) for field in fields(Traits)
    }
    row: dict[str, Any] = {"lesions": name, "slices": slices, "with_lesion": len(measured) / slices}
    for trait in QUARTILES:
        defined = columns[trait][~np.isnan(columns[trait])]
        quartiles = np.percentile(defined, (50, 25, 75)).tolist() if len(defined) else [math.nan] * 3
        row |= dict(zip((trait, f"{trait}_q25", f"{trait}_q75"), quartiles, strict=True))
    row["brighter"] = _share(columns["contrast"], columns["contrast"] > 0)
    row["left"] = _share(columns["left"], columns["left"] >= MOSTLY)
    row["right"] = _share(columns["left"], columns["left"] <= 1 - MOSTLY)
    row["both_sides"] = 1 - row["left"] - row["right"]
    for trait in COMPARED:
        theirs = np.array([getattr(traits, trait) for traits in real], float)
        ours = columns[trait]
        ours, theirs = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
        both = len(ours) and len(theirs)
        row[f"ks_{trait}"] = float(stats.ks_2samp(ours, theirs).statistic) if both else math.nan
    return row


def _share(values: np.ndarray, chosen: np.ndarray) -> float:
    defined = ~np.isnan(values)
    return float(chosen[defined].mean()) if defined.any() else math.nan


def trait_markdown(rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """The table for a person to read; ``notes`` stand above it."""
    heads = ["lesions", "slices with a lesion", *(heading for heading, _ in HEADINGS.values())]
    heads += ["brighter", "left / both / right"]
    compared = [trait for trait in COMPARED if any(not math.isnan(row[f"ks_{trait}"]) for row in rows)]
    heads += [f"KS {HEADINGS[trait][0]}" for trait in compared]
    lines = ["# Painted lesions beside real ones" if compared else "# Painted lesions", "", *notes, ""]
    lines += [
        "Median [quartiles] over the slices with a lesion. Diameter: of the disc as large as the largest part. Change: "
        "mean inside, on the range [-1, 1]. "
        f"Contrast: median minus that of the brain up to {RING_MM:g} mm around, on that range and in standard "
        "deviations of the slice's brain outside the lesion; brighter: share above 0. Height: 0 the lowest slice, 1 "
        f"the highest. Left, right: at least {MOSTLY:.0%} of it there.",
        *(["KS: distance from the real lesions, 0 alike, 1 apart."] if compared else []),
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for row in rows:
        cells = [row["lesions"], f"{row['with_lesion']:.0%} of {row['slices']}"]
        for trait, (_, digits) in HEADINGS.items():
            middle, low, high = (_number(row[f"{trait}{end}"], digits) for end in ("", "_q25", "_q75"))
            cells.append(middle if middle == "–" else f"{middle} [{low}, {high}]")
        cells.append(_number(row["brighter"], 2))
        cells.append(" / ".join(_number(row[side], 2) for side in ("left", "both_sides", "right")))
        cells += [_number(row[f"ks_{trait}"], 2) for trait in compared]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
