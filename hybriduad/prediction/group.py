"""The cases of a predictions folder in a table: a row each, with what was found and what failed.

The table is made of the records in the folder, never continued, so that it holds what several runs did there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hybriduad.prediction.failures import Failure, failures_in
from hybriduad.prediction.files import LESIONS, SUFFIXES
from hybriduad.prediction.flags import flags_of, out_of_distribution
from hybriduad.prediction.lesion_table import DESCRIPTIONS
from hybriduad.scan.volumes import write_atomically

TABLE, FAILED = "desc-anomaly_cases.tsv", "failures.tsv"
NONE = "n/a"
"""What BIDS writes for no value."""
COLUMNS = {
    "case": "Name of the case: its BIDS entities",
    "participant_id": "Subject",
    "session_id": "Session",
    "run_id": "Run",
    "status": "done or failed",
    "lesions": "Number of components of the mask (26 neighbours)",
    "volume_ml": "Volume of the mask in millilitres",
    "peak_score": "Highest anomaly score in the brain, in [0, 1]",
    "brain_ml": "Volume of the brain in millilitres",
    "brain_method": "How the brain was found",
    "threshold": "Score from which on a voxel is in the mask",
    "rule": "Calibrated rule that gave the threshold",
    "predicted_dice": "Dice that the mask may be expected to have if the scan has a lesion, in [0, 1]",
    "predicted_dice_low": "Lower end of its interval",
    "predicted_dice_high": "Upper end of its interval",
    "scan_p": "Conformal p of the scan among the bundle's healthy controls: of people like them at most a share of p "
    "has one as low",
    "out_of_distribution": "Distance of the scan from those of the training; above the limit it is flagged",
    "out_of_distribution_limit": "Limit of that distance, set when the bundle was fitted",
    "mean_uncertainty": "Mean over the brain of the standard deviation of the probability between the reconstructions, "
    "in [0, 0.5]",
    "flags": "Names of the flags of the scan, separated by commas: of its quality, of its distance from the training, "
    "of what it lacks",
    "reason": "Why the case failed",
}
"""Column of the table -> what it holds."""


def write_group_tables(folder: Path) -> list[dict[str, str]]:
    """Write :data:`TABLE` and :data:`FAILED`, and what the columns of the first and of the tables of lesions are.

    Returns the rows of the first, by the name of the case.

    Runs at the same time may write them: each looks again after it has written, so that the last one left is complete.
    """
    cases = {name: {"Description": what} for name, what in COLUMNS.items()}
    for name, columns in ((TABLE, cases), (LESIONS, DESCRIPTIONS)):
        write_atomically(folder / name.replace(".tsv", ".json"), json.dumps(columns, indent=1).encode())
    written: tuple[bytes, bytes] | None = None
    while True:
        failures = failures_in(folder)
        rows = _rows(folder, failures)
        failed = [{"case": f.case, "reason": f.reason, "time": f.time, "version": f.version} for f in failures]
        tables = (_tsv(COLUMNS, rows), _tsv(("case", "reason", "time", "version"), failed))
        if tables == written:
            return rows
        write_atomically(folder / TABLE, tables[0])
        write_atomically(folder / FAILED, tables[1])
        written = tables


def _rows(folder: Path, failures: Iterable[Failure]) -> list[dict[str, str]]:
    rows = {
        failure.case: _identity(failure.case) | {"status": "failed", "reason": failure.reason} for failure in failures
    }
    for path in folder.glob(f"sub-*/**/anat/*_{SUFFIXES['score']}.json"):
        try:
            record = json.loads(path.read_text())
            case = str(record["case"])
            rows[case] = _identity(case) | {"status": "done"} | _figures(folder, path, record)
        except (OSError, ValueError, KeyError, TypeError):  # removed by now, or damaged: the next run says so
            continue
    return [{column: row.get(column, NONE) for column in COLUMNS} for _, row in sorted(rows.items())]


def _identity(case: str) -> dict[str, str]:
    labels = dict(part.partition("-")[::2] for part in case.split("_"))
    names = {"sub": "participant_id", "ses": "session_id", "run": "run_id"}
    return {"case": case} | {column: f"{key}-{labels[key]}" for key, column in names.items() if key in labels}


def _figures(folder: Path, path: Path, record: dict[str, Any]) -> dict[str, str]:
    brain, confidence = record["notes"]["brain"], record.get("confidence") or {}
    figures: dict[str, Any] = {
        "peak_score": record.get("peak_score"),
        "brain_ml": brain.get("volume_ml"),
        "brain_method": brain.get("method"),
        "threshold": record["threshold"],
        "rule": record["rule"],
        "scan_p": confidence.get("scan_p"),
        "mean_uncertainty": record.get("mean_uncertainty"),
        "flags": ",".join(flag.name for flag in flags_of(record)) or None,
    }
    if measured := out_of_distribution(record):
        figures["out_of_distribution"], figures["out_of_distribution_limit"] = measured
    dice = confidence.get("predicted_dice") or {}
    if dice.get("interval"):
        figures["predicted_dice"] = dice["value"]
        figures["predicted_dice_low"], figures["predicted_dice_high"] = dice["interval"]
    table = path.with_name(path.name.replace(f"{SUFFIXES['score']}.json", LESIONS))
    if "mask" in record["parts"] and table.is_file():
        lesions = list(csv.DictReader(table.read_text().splitlines(), delimiter="\t"))
        figures["lesions"] = len(lesions)
        figures["volume_ml"] = round(sum(float(lesion["volume_ml"]) for lesion in lesions), 3)
    return {name: str(value) for name, value in figures.items() if value is not None}


def _tsv(columns: Iterable[str], rows: Iterable[dict[str, str]]) -> bytes:
    """A table without quotes, as BIDS has them: values lose their tabs and line breaks, and what is no UTF-8 in the
    name of a file becomes an escape."""
    names = list(columns)
    lines = [names, *([" ".join(row[name].split()) for name in names] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines).encode(errors="backslashreplace")
