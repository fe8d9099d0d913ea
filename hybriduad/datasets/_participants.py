"""``participants.tsv`` of a BIDS data set: what it says of each subject, and which of its rows cannot be used."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from hybriduad.core.errors import DataError
from hybriduad.core.types import Health, Split
from hybriduad.datasets._layout import MASKS, is_column, listing

TABLE, WHO = "participants.tsv", "participant_id"
ALLOWED: Mapping[str, tuple[str, ...]] = {"health": get_args(Health), "split": get_args(Split)}
"""The columns that are fields of a case, and their values."""
ONLY_PREDICTED = "can be predicted, but not learnt from or evaluated"


@dataclass(frozen=True)
class Participants:
    """What the table says.

    ``people``: column -> value of each subject, without empty values. ``faults``: why what it says of a subject cannot
    be used, or with "" why nothing of it can. ``parts``: what of a case cannot be used then. ``warning``: all that in
    a sentence, "" if there is no fault.
    """

    people: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ("lesion",)
    warning: str = ""

    def faults_of(self, subject: str) -> dict[str, str]:
        """The faults of the cases of a subject, as a case has them.

        Whether a subject has a lesion, and which values of a mask count, cannot be told without its row. So its truth
        cannot be used, and its other masks only where no column speaks of them. It can be predicted.
        """
        fault = self.faults.get("") or self.faults.get(subject)
        return dict.fromkeys(self.parts, fault) if fault else {}


def read_participants(root: Path) -> Participants:
    """The table of a data set, empty where there is none. It is never an error: not everyone needs what it says."""
    path = root / TABLE
    if not os.path.lexists(path):
        return Participants()
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")  # what is no UTF-8 spoils its row alone
        lines = list(csv.reader(io.StringIO(text, newline=None), delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, csv.Error) as error:
        return _unreadable(path, error.strerror if isinstance(error, OSError) else error)
    if not lines:
        return Participants()
    header = [name.strip() for name in lines[0]]
    if WHO not in header or not _is_text(header):
        return _unreadable(path, f"columns {', '.join(map(ascii, header))}"[:200])
    return _read(path, header, lines[1:])


def _unreadable(path: Path, got: object) -> Participants:
    fault = _sentence("unreadable participants", path, got, f"tab-separated UTF-8 with a column {WHO}")
    return Participants(faults={"": fault}, warning=f"participants {ONLY_PREDICTED}: {fault}")


def _sentence(what: str, path: Path, got: object, expected: str | None = None) -> str:
    """The text of a fault, to which whoever needs the part adds the full stop."""
    return str(DataError(what, where=path, got=got, expected=expected, mend="correct it")).removesuffix(".")


def _read(path: Path, header: list[str], lines: Sequence[list[str]]) -> Participants:
    people: dict[str, dict[str, str]] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    first: dict[str, tuple[int, dict[str, str]]] = {}
    nobody = []
    for number, line in enumerate(lines, start=2):  # the header is row 1, as in a spreadsheet
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        if not any(cells[len(header) :]):
            cells = cells[: len(header)]
        facts = {key: value for key, value in zip(header, cells, strict=False) if key and value not in ("", "n/a")}
        subject = facts.pop(WHO, "").removeprefix("sub-")
        if not subject:
            nobody.append(f"row {number}: no {WHO}")
            continue
        before, known = first.setdefault(subject, (number, facts))
        if known != facts:
            wrong[subject].append(f"row {number}: another is row {before}")
        elif len(cells) != len(header):
            wrong[subject].append(f"row {number}: {len(cells)} cells, but the header has {len(header)}")
        elif not _is_text(cells):
            wrong[subject].append(f"row {number}: no UTF-8")
        facts = people[subject] = {} if subject in wrong else dict(facts)
        for key, values in ALLOWED.items():
            if facts.get(key, values[0]) not in values:
                wrong[subject].append(
                    f"row {number}: {key} is {facts.pop(key)!r}, not one of {[v for v in values if v]}"
                )
    return Participants(
        {subject: {_attribute(key): value for key, value in facts.items()} for subject, facts in people.items()},
        {subject: _sentence("bad row of a participant", path, "; ".join(rows)) for subject, rows in wrong.items()},
        ("lesion", *(kind for kind in MASKS if kind != "lesion" and f"{kind}_labels" in header)),
        _warning(path, wrong, nobody),
    )


def _warning(path: Path, wrong: Mapping[str, Sequence[str]], nobody: Sequence[str]) -> str:
    said = [f"sub-{ascii(subject)[1:-1]} ({'; '.join(rows)})" for subject, rows in wrong.items()] + [*nobody]
    return f"bad rows in {path}, whose participants {ONLY_PREDICTED}: {listing(said)}" if said else ""


def _attribute(name: str) -> str:
    """What an attribute is called that is stated in the column ``name``: those of a manifest mean something else."""
    return f"participant_{name}" if is_column(name) and name not in ALLOWED else name


def _is_text(cells: Sequence[str]) -> bool:
    """Whether all of these were UTF-8, and without NUL."""
    text = "".join(cells)
    return "\0" not in text and text == text.encode(errors="replace").decode()
