"""What is found of painted lesions beside what is found of real ones, lesion by lesion and section by section.

Both are counted alike: by size, and by how much they stand out from the tissue around them. Painted lesions come in
other contrasts and places than real ones; weighed by those of real lesions their recall says more. Sections are those
of large lesions, of which there are few: the smaller sections are near the ends of a lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from hybriduad.evaluation.lesion_contrast import CONTRASTS, LEAST_CM2, contrast_class
from hybriduad.evaluation.real_lesions import SIZES, size_of
from hybriduad.metrics.intervals import bootstrap_sums
from hybriduad.training.planned_lesions import HEIGHT, LARGE, SIZES_ML

AREA_EDGES = (0.5, 1.5, 5.0, 15.0)
AREAS = (f"{LEAST_CM2:g}-0.5", "0.5-1.5", "1.5-5", "5-15", "over 15")
"""Classes of the area of a section, in square centimetres."""
CLASSES = {"lesion": SIZES, "section": AREAS}
"""What is counted -> its classes of size, lesions in millilitres."""
TRAITS = ("contrast", "height")
"""What painted lesions are weighed by."""
FEWEST = 5
"""A class with fewer painted or real ones counts in no mean difference, and gives no weights of its own."""
COVERED = 0.8
"""The share of real lesions whose contrasts must have been painted, or else painted recall is not weighed."""

Records = Sequence[Mapping[str, Any]]


class Counted(NamedTuple):
    """A lesion or section: its classes of size and contrast, in which third of the brain the lesion lies from bottom to
    top, whose it is, and whether it is found, None if unknown."""

    size: str
    contrast: str
    height: str
    person: tuple[str, ...]
    found: bool | None


def counted(records: Records, what: str) -> list[Counted]:
    """All that records hold of ``what``: "lesion", those with tissue around to compare with, or "section", those of
    lesions from class :data:`~hybriduad.training.planned_lesions.LARGE` on."""
    every = []
    for record in records:
        person = tuple(record["person"])
        for lesion in record["lesions"]:
            height = HEIGHT[min(2, max(0, int(3 * lesion["place"][2])))]
            if what == "section" and lesion["volume_ml"] >= SIZES_ML[LARGE][0]:
                every += [
                    Counted(area_class(area), contrast_class(contrast), height, person, found)
                    for area, contrast, found in lesion["sections"]
                ]
            elif what == "lesion" and lesion["to_tissue"] is not None:
                size, contrast = size_of(lesion["volume_ml"]), contrast_class(lesion["to_tissue"])
                every.append(Counted(size, contrast, height, person, lesion.get("found")))
    return every


def area_class(area_cm2: float) -> str:
    """The class of :data:`AREAS` that an area is in."""
    return AREAS[int(np.searchsorted(AREA_EDGES, area_cm2, side="right"))]


def comparison_rows(painted: Records, real: Records, like: Records) -> list[dict[str, Any]]:
    """A row for each class of size, of all contrasts and of each, in which there is anything painted or real.

    ``like`` are the records whose lesions weigh the painted ones. Columns: how many were painted, found, their recall
    with a 95 % interval, the same of the real ones, and ``painted_weighed``, the recall of painted ones at the
    contrasts and heights of ``like``, in rows of all contrasts. Intervals are Wilson's for lesions and, for sections,
    which come many to a person, from a bootstrap over people.
    """
    rows = []
    for what, sizes in CLASSES.items():
        of_painted, of_real, weights = (counted(records, what) for records in (painted, real, like))
        for size in sizes:
            for contrast in ("all", *CONTRASTS):
                ours, theirs = (
                    [one for one in every if one.size == size and contrast in ("all", one.contrast)]
                    for every in (of_painted, of_real)
                )
                if not ours and not theirs:
                    continue
                row: dict[str, Any] = {"of": what, "size": size, "contrast": contrast}
                for name, chosen in (("painted", ours), ("real", theirs)):
                    row |= {f"{name}{end}": value for end, value in _share(chosen, what).items()}
                row["painted_weighed"] = weighed(ours, weights, size) if contrast == "all" else None
                rows.append(row)
    return rows


def _share(chosen: Sequence[Counted], what: str) -> dict[str, Any]:
    hits, total = sum(bool(one.found) for one in chosen), len(chosen)
    if not total:
        return {"": 0, "_found": 0, "_recall": None, "_low": None, "_high": None}
    if what == "lesion":
        interval = binomtest(hits, total).proportion_ci(method="wilson")
        low, high = float(interval.low), float(interval.high)
    else:
        people = sorted({one.person for one in chosen})
        sums = np.zeros((len(people), 2))
        for one in chosen:
            sums[people.index(one.person)] += (bool(one.found), 1)
        low, high = bootstrap_sums(sums, lambda found, all_of_them: found / all_of_them)[1:3]
    bounds = [None if np.isnan(bound) else round(bound, 4) for bound in (low, high)]
    return {"": total, "_found": hits, "_recall": round(hits / total, 4), "_low": bounds[0], "_high": bounds[1]}


def weighed(painted: Sequence[Counted], like: Sequence[Counted], size: str) -> float | None:
    """Recall of painted ones of a class of size at the contrasts and heights in the brain of others.

    Each painted one weighs as much as its contrast, and its height, is more frequent among the others than among the
    painted. The others are of that size or, where they are fewer than :data:`FEWEST`, of every size. None where fewer
    than :data:`COVERED` of them have a contrast and a height that were painted.
    """
    own = [one for one in like if one.size == size]
    theirs = own if len(own) >= FEWEST else like
    there = [{getattr(one, trait) for one in painted} for trait in TRAITS]
    covered = [one for one in theirs if one.contrast in there[0] and one.height in there[1]]
    if not theirs or len(covered) < COVERED * len(theirs):
        return None
    weights = np.ones(len(painted))
    for trait in TRAITS:
        values = np.array([getattr(one, trait) for one in painted])
        wanted = np.array([getattr(one, trait) for one in covered])
        weights *= [(wanted == value).mean() / (values == value).mean() for value in values]
    if not weights.any():
        return None
    return round(float(np.average([bool(one.found) for one in painted], weights=weights)), 4)


def mean_difference(rows: Sequence[Mapping[str, Any]], what: str, by: str) -> tuple[float | None, int]:
    """The mean absolute difference between painted and real recall, and over how many classes it is.

    Args:
        rows: of :func:`comparison_rows`.
        what: "lesion" or "section".
        by: "contrast", over classes of size and contrast; "size", over those of size; "weighed", over those of size,
            with painted ones weighed. Only classes with :data:`FEWEST` painted and real ones count.
    """
    column = "painted_weighed" if by == "weighed" else "painted_recall"
    apart = [
        abs(row[column] - row["real_recall"])
        for row in rows
        if (row["of"], row["contrast"] == "all") == (what, by != "contrast")
        and min(row["painted"], row["real"]) >= FEWEST
        and row[column] is not None
    ]
    return (float(np.mean(apart)) if apart else None), len(apart)


def comparison_words(rows: Sequence[Mapping[str, Any]], like: str) -> list[str]:
    """What the rows say, in sentences; ``like`` says whose contrasts weigh the painted ones, "" for nobody's."""
    said = []
    for what in CLASSES:
        parts = []
        for by, words in (("contrast", "size and contrast"), ("size", "size"), ("weighed", f"size, weighed by {like}")):
            apart, number = mean_difference(rows, what, by)
            if apart is not None:
                parts.append(f"{apart:.2f} over {number} {'class' if number == 1 else 'classes'} of {words}")
        if parts:
            said.append(f"Mean absolute difference of painted and real recall of {what}s: {'; '.join(parts)}.")
    listed = ", ".join(
        f"{row['size']} ml {row['painted_weighed']:.0%}"
        for row in rows
        if row["of"] == "lesion" and row["painted_weighed"] is not None
    )
    if like and listed:
        said.append(f"Weighed by contrasts and heights of {like}, of the painted lesions would be found: {listed}.")
    return said
