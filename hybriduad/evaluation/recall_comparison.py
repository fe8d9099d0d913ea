"""What is found of painted lesions beside what is found of real ones, lesion by lesion and section by section.

Both are counted alike: by size, and by how much they stand out from the tissue around them. Painted lesions come in
other contrasts than real ones; weighed by the contrasts of real lesions their recall says more (post-stratification).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from hybriduad.evaluation.lesion_contrast import CONTRASTS, LEAST_CM2, contrast_class
from hybriduad.evaluation.real_lesions import SIZES, size_of
from hybriduad.metrics.intervals import bootstrap_sums

AREA_EDGES = (0.5, 1.5, 5.0, 15.0)
AREAS = (f"{LEAST_CM2:g}-0.5", "0.5-1.5", "1.5-5", "5-15", "over 15")
"""Classes of the area of a section, in square centimetres."""
CLASSES = {"lesion": SIZES, "section": AREAS}
"""What is counted -> its classes of size, lesions in millilitres."""
FEWEST = 5
"""A class with fewer painted or real ones counts in no mean difference, and gives no weights of its own."""
COVERED = 0.8
"""The share of real lesions whose contrasts must have been painted, or else painted recall is not weighed."""

Records = Sequence[Mapping[str, Any]]


class Counted(NamedTuple):
    """A lesion or section: its classes of size and contrast, whose it is, and whether it is found, None if unknown."""

    size: str
    contrast: str
    person: tuple[str, ...]
    found: bool | None


def counted(records: Records, what: str) -> list[Counted]:
    """All that records hold of ``what``, "lesion" or "section"; of lesions those with tissue around to compare with."""
    every = []
    for record in records:
        person = tuple(record["person"])
        for lesion in record["lesions"]:
            if what == "section":
                every += [
                    Counted(area_class(area), contrast_class(contrast), person, found)
                    for area, contrast, found in lesion["sections"]
                ]
            elif lesion["to_tissue"] is not None:
                size = size_of(lesion["volume_ml"])
                every.append(Counted(size, contrast_class(lesion["to_tissue"]), person, lesion.get("found")))
    return every


def area_class(area_cm2: float) -> str:
    """The class of :data:`AREAS` that an area is in."""
    return AREAS[int(np.searchsorted(AREA_EDGES, area_cm2, side="right"))]


def comparison_rows(painted: Records, real: Records, like: Records) -> list[dict[str, Any]]:
    """A row for each class of size, of all contrasts and of each, in which there is anything painted or real.

    ``like`` are the records whose lesions' contrasts weigh the painted ones. Columns: how many were painted, found,
    their recall with a 95 % interval, the same of the real ones, and ``painted_weighed``, the recall of painted ones
    at the contrasts of ``like``, in rows of all contrasts. Intervals are Wilson's for lesions and, for sections, which
    come many to a person, from a bootstrap over people.
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
    """Recall of painted ones of a class of size at the contrasts of others.

    These are of that size or, where they are fewer than :data:`FEWEST`, of every size. None where the contrasts of
    fewer than :data:`COVERED` of them were painted.
    """
    own = [one for one in like if one.size == size]
    theirs = own if len(own) >= FEWEST else like
    total = share = 0.0
    for contrast in CONTRASTS:
        weight = sum(one.contrast == contrast for one in theirs)
        found = [bool(one.found) for one in painted if one.contrast == contrast]
        if found:
            total += weight
            share += weight * float(np.mean(found))
    return round(share / total, 4) if theirs and total >= COVERED * len(theirs) else None


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
        cells, sizes, fair = (mean_difference(rows, what, by) for by in ("contrast", "size", "weighed"))
        if cells[0] is not None and sizes[0] is not None:
            weighing = "" if fair[0] is None else f", and by {fair[0]:.2f} weighed by the contrasts of {like}"
            said.append(
                f"Painted and real recall of {what}s differ by {cells[0]:.2f} on average over {cells[1]} classes of "
                f"size and contrast, by {sizes[0]:.2f} over {sizes[1]} classes of size{weighing}."
            )
    listed = ", ".join(
        f"{row['size']} ml {row['painted_weighed']:.0%}"
        for row in rows
        if row["of"] == "lesion" and row["painted_weighed"] is not None
    )
    if like and listed:
        said.append(f"Weighed by the contrasts of {like}, of the painted lesions would be found: {listed}.")
    return said
