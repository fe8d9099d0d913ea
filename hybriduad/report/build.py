"""A report: a page a case, and the page of all, from a predictions folder and what is known beside it."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import ConfigError, reason_of
from hybriduad.core.outcome import Outcome
from hybriduad.core.requests import refuse_strangers
from hybriduad.core.types import Case
from hybriduad.prediction.files import MODEL, PAGES
from hybriduad.prediction.flags import flags_of, out_of_distribution
from hybriduad.report import facts
from hybriduad.report.embedding import Layers, encoded, read_layers
from hybriduad.report.group import HEIGHT, WIDTH, Row, distribution
from hybriduad.report.methods import methods
from hybriduad.report.mosaic import draw_mosaic, draw_thumbnail
from hybriduad.report.records import Record, failures, read_json, read_records, read_scores
from hybriduad.report.rendering import render
from hybriduad.scan.volumes import write_atomically

log = logging.getLogger(__name__)
INDEX = "index.html"
MARK = b"<!-- hybriduad report -->"
"""In every page, so that only a report is ever replaced."""
COLUMNS = {
    "lesions": "lesions",
    "volume_ml": "volume (ml)",
    "largest_ml": "largest (ml)",
    "highest": "highest score",
    "threshold": "threshold",
    "brain_ml": "brain (ml)",
    "scan_p": "p of the scan",
    "predicted_dice": "predicted Dice",
    "mean_uncertainty": "mean uncertainty",
    "distance": "distance from training",
    "dice": "Dice",
    "auprc": "AUPRC",
}
CHARTS = {
    "volume_ml": ("lesion volume (ml)", True),
    "highest": ("highest score", False),
    "brain_ml": ("brain volume (ml)", False),
    "dice": ("Dice against the truth", False),
}
"""Column -> the title of its chart, and whether it is logarithmic."""


def write_report(
    predictions: str | Path,
    *,
    out: str | Path,
    cohort: str | Path | Sequence[Case] | None = None,
    scores: str | Path | None = None,
) -> Outcome:
    """Write ``<case>.html`` for every predicted case, and ``index.html``; pages that are there are replaced.

    A page is one file that needs no network and no other file. Of the volumes it holds what lies inside the brain mask
    alone: no face can be seen. A case that fails, among them one whose scan is not the predicted one, gets no page;
    it and why stand in ``index.html``.

    Args:
        predictions: a folder made by predict.
        out: the folder of the pages.
        cohort: manifest CSV, BIDS folder, one image or cases: the scans that were predicted; without it pages show the
            pseudo-healthy scan alone, if that was written.
        scores: a folder made by evaluate.

    Raises:
        DataError: no predictions or evaluation there, or a cohort that cannot be read.
        ConfigError: an evaluation of another bundle, or as :func:`check_place`.
    """
    source, folder = Path(predictions), Path(out)
    failed: dict[str, str] = {}
    records = read_records(source, failed)
    model = read_json(source / MODEL)
    figures = {} if scores is None else read_scores(Path(scores), str(model.get("bundle")))
    cases = read_cohort(cohort) if isinstance(cohort, str | Path) else list(cohort or ())
    pages = page_names([record.case for record in records])
    _begin(folder, source, {INDEX, *pages.values()})
    outcome, rows = Outcome(folder, failed=failed), []
    for place, record in enumerate(records):
        name = record.case
        try:
            case = None if cohort is None else _case(cases, record)
            layers = read_layers(record, case)
            content = case_content(record, layers, model, figures.get(name, {}))
            beside = [records[other].case if 0 <= other < len(records) else None for other in (place - 1, place + 1)]
            page = render(
                "case.html",
                **content,
                neighbours=[(near, pages[near]) if near is not None else None for near in beside],
            )
            write_atomically(folder / pages[name], page.encode())
            rows.append(_row(record, layers, content, pages[name], figures.get(name, {})))
        except Exception as error:  # no error of a case ends the others
            outcome.failed[name] = reason_of(error)
            log.error("%s failed: %s", name, outcome.failed[name])
            log.debug("traceback of %s", name, exc_info=True)
            (folder / pages[name]).unlink(missing_ok=True)
            continue
        outcome.done.append(name)
        log.info("%s written (%d of %d)", name, len(outcome.done), len(records))
    known = {record.case for record in records}
    absent = sorted({case.name for case in cases} - known)
    reported = failures(source)
    index = group_content(rows, model, {**reported, **outcome.failed}, [n for n in absent if n not in reported])
    write_atomically(folder / INDEX, render("index.html", **index).encode())
    return outcome


def case_content(
    record: Record, layers: Layers, model: Mapping[str, Any], figures: Mapping[str, str]
) -> dict[str, Any]:
    """What the template of a case's page is given."""
    threshold = _float(record.content.get("threshold"))
    columns, lesions = record.lesions()
    volumes = encoded(layers)
    thresholds = model.get("thresholds")
    least_ml, per_scan = facts.least_volume(facts.rule_of(record, thresholds))
    confidence = record.content.get("confidence")
    space = record.content.get("space")
    return {
        "case": record.case,
        "dataset": str(record.content.get("dataset", "")),
        "contrast": record.contrast,
        "scan_there": "scan" in volumes,
        "page_data": {
            "layers": volumes,
            "threshold": threshold,
            "highest": float(layers.values["score"].max()),
            "voxelMl": layers.voxel_ml,
            "leastMl": least_ml,
            "perScan": per_scan,
            "shape": list(layers.brain.shape),
            "extent": [length * size for length, size in zip(layers.brain.shape, layers.spacing_mm, strict=True)],
        },
        "columns": [(column, facts.heading(column)) for column in columns],
        "lesions": [{key: facts.number(value, 4) for key, value in row.items()} | {"_": row} for row in lesions],
        "placed": "place" in columns,
        "has_mask": "mask" in layers.values,
        "total_ml": _total(lesions),
        "highest": layers.peak,
        "threshold": threshold,
        "rule": record.content.get("rule"),
        "spacing": " × ".join(f"{size:.3g}" for size in layers.spacing_mm),
        "coarser": max(layers.factors) > 1,
        "brain": record.brain,
        "brain_written": record.part("brain") is not None,
        "flags": flags_of(record.content),
        "checked": isinstance(record.content.get("quality"), Mapping),
        "distance": facts.distance(record),
        "not_judged": record.notes.get("slices_not_judged"),
        "space": space if isinstance(space, Mapping) else {},
        "confidence": confidence if isinstance(confidence, Mapping) else {},
        "dice": facts.predicted_dice(confidence),
        "calibration": facts.calibration(record, thresholds if isinstance(thresholds, Mapping) else {}),
        "provenance": facts.provenance(record),
        "methods": methods(record, model),
        "figures": [(title, facts.number(figures[key])) for key, title in facts.FIGURES.items() if figures.get(key)],
        "mosaic": base64.b64encode(draw_mosaic(layers, threshold)).decode(),
        "number": facts.number,
    }


def group_content(
    rows: Sequence[Row], model: Mapping[str, Any], failed: Mapping[str, str], absent: Sequence[str]
) -> dict[str, Any]:
    """What the template of the page of all cases is given."""
    charts = [
        chart
        for column, (title, logarithmic) in CHARTS.items()
        if (chart := distribution(title, rows, column, logarithmic=logarithmic)) is not None
    ]
    used = [column for column in COLUMNS if any(row.values.get(column) is not None for row in rows)]
    # Ratings belong to these predictions: another model's, of cases of the same names, have others.
    cases = "\n".join(row.case for row in rows)
    key = hashlib.sha256(f"{model.get('bundle')}\n{cases}".encode()).hexdigest()[:16]
    return {
        "rows": rows,
        "columns": [(column, COLUMNS[column]) for column in used],
        "charts": charts,
        "chart_size": (WIDTH, HEIGHT),
        "failed": {name: without_paths(reason) for name, reason in failed.items()},
        "absent": list(absent),
        "bundle": str(model.get("bundle", "")),
        "kind": str(model.get("kind", "model")),
        "page_data": {"key": f"hybriduad-report-{key}"},
        "number": facts.number,
    }


def page_names(cases: Sequence[str]) -> dict[str, str]:
    """Case -> the name of its page: letters, digits, hyphens and underscores alone, no two alike in any spelling."""
    names: dict[str, str] = {}
    taken = {INDEX}
    for case in cases:
        stem = re.sub(r"[^A-Za-z0-9_-]", "-", case)[:120] or "case"
        name, count = f"{stem}.html", 1
        while name.lower() in taken:
            count += 1
            name = f"{stem}-{count}.html"
        taken.add(name.lower())
        names[case] = name
    return names


def without_paths(sentence: str) -> str:
    """A sentence in which only the last part of every absolute path is left: folders may name people."""
    # A folder's name may hold anything but what the sentences of errors put after a path.
    return re.sub(r"(?<![\w.<])/(?:(?:(?!: got |: expected |, expected |; )[^/\n])*/)+", "", sentence)


def check_place(folder: Path, predictions: Path) -> None:
    """Check that the pages of these predictions may be written to a folder; neither has to be there yet.

    Raises:
        ConfigError: the folder holds something else than pages, or is the folder of the predictions or around it.
    """
    if folder.resolve() in (predictions.resolve(), *predictions.resolve().parents):
        mend = f"name a folder of their own, as {predictions / PAGES}"
        raise ConfigError("pages in a folder that holds the predictions", got=folder, mend=mend)
    refuse_strangers(folder, lambda path: path.name.startswith(".") or _is_page(path))


def _begin(folder: Path, predictions: Path, kept: set[str]) -> None:
    """Make the folder, or check that it holds a report; pages of it that are not ``kept`` go."""
    check_place(folder, predictions)
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.startswith(".") and path.name not in kept:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _is_page(path: Path) -> bool:
    return path.is_file() and path.suffix == ".html" and MARK in path.read_bytes()[:200]


def _case(cases: Sequence[Case], record: Record) -> Case:
    """The case of a record; of several of its name, in different data sets, that of the record's data set."""
    named = [case for case in cases if case.name == record.case]
    chosen = [case for case in named if case.dataset == record.content.get("dataset")] or named
    if not chosen:
        raise ConfigError("case that the cohort lacks", got=record.case, mend="name the cohort that was predicted")
    return chosen[0]


def _row(record: Record, layers: Layers, content: Mapping[str, Any], page: str, figures: Mapping[str, str]) -> Row:
    _, lesions = record.lesions()
    volumes = [volume for row in lesions if (volume := _float(row.get("volume_ml"))) is not None]
    masked = content["has_mask"]
    measured = out_of_distribution(record.content)
    values = {
        "lesions": float(len(lesions)) if masked else None,
        "volume_ml": sum(volumes) if masked else None,
        "largest_ml": max(volumes, default=0.0) if masked else None,
        "highest": content["highest"],
        "threshold": content["threshold"],
        "brain_ml": _float(record.brain.get("volume_ml")),
        "scan_p": _float(content["confidence"].get("scan_p")),
        "predicted_dice": _float(content["dice"][0]) if content["dice"] else None,
        "mean_uncertainty": _float(record.content.get("mean_uncertainty")),
        "distance": None if measured is None else _float(measured[0]),
        "dice": _float(figures.get("dice")),
        "auprc": _float(figures.get("auprc")),
    }
    flags = tuple(flag.name for flag in content["flags"])
    return Row(record.case, page, draw_thumbnail(layers, content["threshold"]), values, flags, content["checked"])


def _total(lesions: Sequence[Mapping[str, str]]) -> float:
    return sum(volume for row in lesions if (volume := _float(row.get("volume_ml"))) is not None)


def _float(value: Any) -> float | None:
    try:
        read = float(value)
    except (TypeError, ValueError):
        return None
    return read if read == read and abs(read) != float("inf") else None
