#!/usr/bin/env python3
"""Whether a lesion is gone from a pseudo-healthy scan: what another detector finds in the scan and in that.

The other detector should stand on no reconstruction, such as synthetic-image, with few labels or without, and must be
calibrated. It sees both alike: one contrast, and the brain that the predictions hold. OUT/still_seen.md is the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import ConfigError, DataError, HybridUADError
from hybriduad.core.types import Case, Split
from hybriduad.detector.bundle import verify
from hybriduad.detector.thresholds import Thresholds
from hybriduad.evaluation.case import load_case
from hybriduad.evaluation.evaluate import CASES, evaluate
from hybriduad.evaluation.tables import number, write_table
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.files import record_of
from hybriduad.scan.volumes import write_atomically

KINDS = {"scan": "scan", "pseudohealthy": "pseudo-healthy"}
FIGURES = {
    "mask_ml": "mask, ml",
    "dice": "Dice",
    "sensitivity": "share of lesion in mask",
    "lesion_recall": "lesion recall",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the other detector, calibrated")
    parser.add_argument("predictions", type=Path, help="folder of predict --maps all, with pseudo-healthy scans")
    parser.add_argument("cohort", type=Path, help="manifest or BIDS folder of these scans, with lesion masks")
    parser.add_argument("out", type=Path, help="a second call continues there")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="default: all")
    parser.add_argument("--rule", help="which calibrated rule cuts the masks; default: the model's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    arguments = parser.parse_args()
    try:
        print(compare(**vars(arguments)))
    except HybridUADError as error:
        sys.exit(f"still_seen: {error}")


def compare(
    model: Path, predictions: Path, cohort: Path, out: Path, split: Split | None, rule: str | None, device: str
) -> str:
    """Write ``still_seen.csv`` and ``still_seen.md`` under ``out``; the text of the latter.

    Raises:
        ConfigError: the model is not calibrated, or not by that rule.
        DataError: no scan with both a lesion mask and a pseudo-healthy scan, or none that could be evaluated.
        LeakageError: a scan was used to make the model.
    """
    if "score" not in Thresholds.from_json(verify(model).record["thresholds"]).by_part(rule):
        raise ConfigError("model without a threshold", got=model, expected="a calibrated detector")
    pairs = list(_pairs(predictions, read_cohort(cohort, split=split)))
    if not pairs:
        raise DataError("no scan with a lesion mask and a pseudo-healthy scan", where=predictions)
    figures = {}
    for place, (kind, title) in enumerate(KINDS.items()):
        manifest, folder = out / f"{kind}.csv", out / kind
        write_manifest([pair[place] for pair in pairs], manifest)
        predict_cohort(model, manifest, out=folder / "predictions", rule=rule, device=device)
        evaluation = evaluate(folder / "predictions", manifest, out=folder / "scores", rule=rule)
        names = sorted([*evaluation.done, *evaluation.kept])
        figures[title] = {name: load_case(evaluation.out / CASES, name, {}) for name in names}
    both = sorted(set.intersection(*map(set, figures.values())))
    failed = len(pairs) - len(both)
    rows: list[dict[str, str | float]] = []
    for name in (name for name in both if figures["scan"][name].has_lesion):
        seen = {title: scores[name].systems["score"] for title, scores in figures.items()}
        values = {f"{title}: {label}": seen[title][figure] for figure, label in FIGURES.items() for title in seen}
        rows.append({"case": name, "lesion, ml": figures["scan"][name].facts["lesion_ml"], **values})
    if not rows:
        raise DataError("no lesion that could be looked for in both", where=out, got=f"{failed} cases failed")
    write_table(out / "still_seen.csv", rows)
    text = _table(rows) + (f"\n{failed} cases failed and are left out.\n" if failed else "")
    write_atomically(out / "still_seen.md", text.encode())
    return text


def _pairs(predictions: Path, cases: list[Case]) -> Iterator[tuple[Case, Case]]:
    """Each case with a lesion mask as its scan and as its pseudo-healthy scan, both of that contrast alone."""
    for case in cases:
        record = record_of(predictions, case)
        if case.lesion is None or not record.is_file():
            continue
        try:
            stated = json.loads(record.read_text())
            dataset, parts, notes = stated["dataset"], stated["parts"], stated["notes"]
            shown = notes.get("shown", notes["reference"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("unreadable record", where=record, mend="predict with --overwrite") from error
        if dataset != case.dataset or shown not in case.images or not {"reconstruction", "brain"} <= parts.keys():
            continue
        attributes = {name: value for name, value in case.attributes.items() if name != "brain_labels"}
        scan = replace(
            case,
            images={shown: case.images[shown]},
            reference="",
            brain=predictions / parts["brain"],
            attributes=attributes,
            lesion_free={},
        )
        yield scan, replace(scan, images={shown: predictions / parts["reconstruction"]})


def _table(rows: Sequence[Mapping[str, str | float]]) -> str:
    """Markdown: a line for each case, and their mean."""
    heads = list(rows[0])
    values = np.array([[float(row[head]) for head in heads[1:]] for row in rows])
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, line in zip([*(row["case"] for row in rows), "mean"], [*values, values.mean(axis=0)], strict=True):
        lines.append(f"| {name} | " + " | ".join(number(value) for value in line) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
