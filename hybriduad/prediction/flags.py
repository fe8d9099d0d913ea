"""What to know of a case before its prediction is believed, read from its record: for the table of all cases and for
the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

LACKING = 0.03
"""Share of the brain that a contrast may leave uncovered without a flag."""


class Flag(NamedTuple):
    """Something to know before a result is believed."""

    name: str
    sentence: str


def flags_of(record: Mapping[str, Any]) -> list[Flag]:
    """The flags of the input checks, a distance from the training beyond its limit, and what inference noted.

    ``record`` is the content of a case's record, of any version, and may have been written by someone else: what is
    not as it should be is passed over.
    """
    found = []
    quality = record.get("quality")
    if isinstance(quality, Mapping):
        stated = quality.get("flags")
        for flag in stated if isinstance(stated, list) else ():
            if isinstance(flag, Mapping):
                sentence = flag.get("sentence") or f"{flag.get('value', '–')}, limit {flag.get('limit', '–')}."
                found.append(Flag(str(flag.get("name", "flag")), str(sentence)))
    if (far := out_of_distribution(record)) is not None and far[0] > far[1]:
        text = f"Distance {far[0]:.3g} from the training scans, limit {far[1]:.3g}."
        found.append(Flag("unlike the training scans", text))
    notes = record.get("notes")
    return found + (_noted(notes) if isinstance(notes, Mapping) else [])


def out_of_distribution(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """The distance of a scan from those of the training and its limit; None where that was not measured."""
    quality = record.get("quality")
    stated = quality.get("out_of_distribution") if isinstance(quality, Mapping) else None
    try:
        return float(stated["distance"]), float(stated["limit"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None


def _noted(notes: Mapping[str, Any]) -> list[Flag]:
    found = []
    if isinstance(absent := notes.get("absent_contrasts"), list) and absent:
        found.append(Flag("contrasts absent", f"{', '.join(map(str, absent))}: less sure, thresholds may not fit."))
    lacking = notes.get("lacking")
    for name, share in (lacking if isinstance(lacking, Mapping) else {}).items():
        if isinstance(share, int | float) and share > LACKING:
            found.append(Flag("contrast does not cover the brain", f"{name} lacks {share:.0%} of it."))
    if notes.get("orientation_stated") is False:
        text = "The header states none: voxels were taken as running left, forward, up."
        found.append(Flag("orientation not stated", text))
    return found
