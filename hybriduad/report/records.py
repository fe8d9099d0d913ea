"""What a predictions folder and an evaluation say of each case, read as if someone else had written them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybriduad.core.errors import ConfigError, DataError
from hybriduad.prediction.files import LESIONS, MODEL, READABLE, SUFFIXES
from hybriduad.prediction.group import FAILED

RECORD_END = f"_{SUFFIXES['score']}.json"
NEEDED = {"bundle", "parts", "notes", "inputs"}
"""What a record must hold."""
SYSTEM = "score"
"""The rows of an evaluation that are shown: those of the fused score."""


@dataclass(frozen=True)
class Record:
    """A predicted case: ``path`` of its record below the ``folder`` of predictions, and what the record holds."""

    folder: Path
    path: Path
    content: Mapping[str, Any]

    @property
    def case(self) -> str:
        """The name of the case, as its files have it."""
        return self.path.name.removesuffix(RECORD_END)

    @property
    def notes(self) -> Mapping[str, Any]:
        """What inference noted of the scan."""
        return _mapping(self.content["notes"])

    @property
    def brain(self) -> Mapping[str, Any]:
        """How the brain mask was made, and its volume."""
        return _mapping(self.content.get("brain")) or _mapping(self.notes.get("brain"))

    @property
    def contrast(self) -> str:
        """The contrast that is shown: that of the pseudo-healthy scan, else the reference."""
        return str(self.notes.get("shown") or self.notes.get("reference") or "")

    def part(self, name: str) -> Path | None:
        """The file of a part of the prediction; None where it was not written.

        Raises:
            DataError: the record names a file outside the predictions folder.
        """
        stated = _mapping(self.content["parts"]).get(name)
        if stated is None:
            return None
        path = (self.folder / str(stated)).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            what = "record that names a file outside the predictions"
            raise DataError(what, where=self.path, got=stated, mend="predict with --overwrite")
        return path

    def lesions(self) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and rows of the table of lesions; nothing where no mask was written."""
        path = self.path.with_name(f"{self.case}_{LESIONS}")
        return table(path, "\t") if path.is_file() else ([], [])


def read_records(folder: Path, failed: dict[str, str]) -> list[Record]:
    """Every case of a predictions folder, by name; a record that cannot be read goes to ``failed`` with why.

    Raises:
        DataError: no predictions there.
    """
    if not (folder / MODEL).is_file():
        raise DataError("no predictions", where=folder, got=f"no {MODEL}", expected="a folder made by predict")
    records = []
    for path in sorted(folder.rglob(f"*{RECORD_END}")):
        try:
            content = read_json(path)
            if lacking := sorted(NEEDED - content.keys()):
                mend = "predict with --overwrite"
                raise DataError("incomplete record", where=path, got=f"no {lacking}", mend=mend)
            if (number := content.get("format")) not in READABLE:
                what, expected = "predictions of another version", READABLE[-1]
                raise DataError(what, where=path, got=f"format {number}", expected=expected)
            records.append(Record(folder, path, content))
        except DataError as error:
            failed[path.name.removesuffix(RECORD_END)] = str(error)
    return records


def failures(folder: Path) -> dict[str, str]:
    """Case -> why, of the cases that the run itself reported as failed."""
    path = folder / FAILED
    if not path.is_file():
        return {}
    columns, rows = table(path, "\t")
    if not columns:
        return {}
    name = "case" if "case" in columns else columns[0]
    why = ["reason"] if "reason" in columns else [column for column in columns if column != name]
    return {row[name]: "; ".join(row[column] for column in why if row[column]) for row in rows}


def read_scores(folder: Path, bundle: str) -> dict[str, dict[str, str]]:
    """Case -> the figures of its fused score, from an evaluation of predictions by the same bundle.

    Raises:
        DataError: no evaluation there.
        ConfigError: it is of another bundle.
    """
    path = folder / "cases.csv"
    if not path.is_file():
        raise DataError("no evaluation", where=folder, got="no cases.csv", expected="a folder made by evaluate")
    request = read_json(folder / "request.json") if (folder / "request.json").is_file() else {}
    if (stated := request.get("bundle", bundle)) != bundle:
        raise ConfigError("evaluation of another bundle", where=folder, got=stated, expected=bundle)
    _, rows = table(path, ",")
    return {row["case"]: row for row in rows if row.get("system") == SYSTEM and row.get("case")}


def table(path: Path, delimiter: str) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a table; a row that is too short has "" where cells lack.

    Raises:
        DataError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        dialect = csv.excel_tab if delimiter == "\t" else csv.excel
        lines: Sequence[list[str]] = list(csv.reader(io.StringIO(text), dialect))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("unreadable table", where=path, got=error) from error
    columns = lines[0] if lines else []
    return columns, [dict(zip(columns, [*cells, *[""] * len(columns)], strict=False)) for cells in lines[1:] if cells]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError("unreadable record", where=path, got=error, mend="predict with --overwrite") from error
    if not isinstance(content, dict):
        raise DataError("unreadable record", where=path, got=type(content).__name__, expected="a JSON object")
    return content


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
