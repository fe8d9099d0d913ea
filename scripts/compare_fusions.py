#!/usr/bin/env python3
"""Other ways to fuse the maps of a detector, on predictions that are there: AUPRC of each, beside the stored score.

What has to be learnt is learnt on the cases of FIT: the share of lesion-free voxels that are as high (p values), and a
logistic regression. Intensity is that of the written map, whose filter is wider than that inside the stored score.
OUT/fusions.md is the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from hybriduad.cohort.manifest import read_cohort
from hybriduad.cohort.truth import has_truth, read_truth
from hybriduad.core.errors import DataError, HybridUADError
from hybriduad.core.types import Split
from hybriduad.detector.thresholds import score_logit
from hybriduad.evaluation.tables import number, write_table
from hybriduad.metrics import ScoreHistogram, bootstrap
from hybriduad.metrics.intervals import paired_difference
from hybriduad.prediction.files import record_of
from hybriduad.scan.volumes import read_mask, read_volume, write_atomically

WITNESSES = ("map", "probability", "intensity", "asymmetry")
SAMPLES = 20_000
"""Voxels of a case of FIT that are learnt from, drawn evenly over the sorted order of each witness."""
FLOOR = 0.05

Maps = Mapping[str, np.ndarray]
"""Part -> its values (N,) at the voxels of the region."""


class Scan(NamedTuple):
    """A case with a lesion: who, ``maps`` and ``lesion`` (N,) bool at the voxels of its region."""

    subject: tuple[str, str]
    maps: Maps
    lesion: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fit", type=Path, help="predictions (--maps all) of the cases to learn from")
    parser.add_argument("fit_cohort", type=Path, help="their manifest or BIDS folder")
    parser.add_argument("predictions", type=Path, help="predictions (--maps all) of the cases to compare on")
    parser.add_argument("cohort", type=Path, help="their manifest or BIDS folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--fit-split", default="validation", help="of the first cohort; 'all' for every case")
    parser.add_argument("--split", default="test", help="of the second cohort; 'all' for every case")
    arguments = parser.parse_args()
    try:
        print(compare(**vars(arguments)))
    except HybridUADError as error:
        sys.exit(f"compare_fusions: {error}")


def compare(fit: Path, fit_cohort: Path, predictions: Path, cohort: Path, out: Path, fit_split: Any, split: Any) -> str:
    """Write ``fusions.csv`` and ``fusions.md`` under ``out``; the text of the latter.

    Raises:
        DataError: no case with a lesion and all maps, or a person on both sides.
    """
    learnt = scans(fit, fit_cohort, None if fit_split == "all" else fit_split)
    tested = scans(predictions, cohort, None if split == "all" else split)
    if shared := {scan.subject for scan in learnt} & {scan.subject for scan in tested}:
        raise DataError("the same people on both sides", got=sorted(shared), mend="name other splits")
    forms = fusions(learnt)
    figures = {name: _by_subject(tested, form) for name, form in forms.items()}
    stored = np.array(list(figures["as stored"].values()))
    rows: list[dict[str, str | float]] = []
    for name, by_subject in figures.items():
        values = np.array(list(by_subject.values()))
        own, difference = bootstrap(values), paired_difference(values, stored)
        rows.append(
            {"fusion": name, "auprc": own.value, "low": own.low, "high": own.high}
            | {"difference": difference.value, "difference_low": difference.low, "difference_high": difference.high}
        )
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "fusions.csv", rows)
    text = _table(rows, len(learnt), len(tested))
    write_atomically(out / "fusions.md", text.encode())
    return text


def scans(predictions: Path, cohort: Path, split: Split | None) -> list[Scan]:
    """The predicted cases with a lesion, whose maps are all there.

    Raises:
        DataError: there is none.
    """
    listed = []
    for case in read_cohort(cohort, split=split):
        record = record_of(predictions, case)
        if not record.is_file() or not has_truth(case):
            continue
        content = json.loads(record.read_text())
        parts = content["parts"]
        if not {"brain", "score", *WITNESSES} <= parts.keys():
            continue
        brain = read_mask(predictions / parts["brain"])
        truth = read_truth(case, brain.data, brain.grid, content["notes"])
        if not truth.lesion.any():
            continue
        maps = {
            part: truth.scores(read_volume(predictions / parts[part], constant_ok=True).data)[truth.region]
            for part in ("score", *WITNESSES)
        }
        listed.append(Scan((case.dataset, case.subject), maps, truth.lesion[truth.region]))
    if not listed:
        raise DataError("no case with a lesion and all maps", where=predictions, mend="predict with --maps all")
    return listed


def fusions(learnt: list[Scan]) -> dict[str, Callable[[Maps], np.ndarray]]:
    """Name -> from the maps of a scan to its fused score (N,); higher is more abnormal."""
    rare, chance = _rarity(learnt), _logistic(learnt)

    def weighed(values: np.ndarray) -> np.ndarray:
        return FLOOR + (1 - FLOOR) * values

    return {
        "as stored": lambda maps: maps["score"],
        **{name: (lambda maps, name=name: maps[name]) for name in WITNESSES},
        "sum of map and probability": lambda maps: maps["map"] + maps["probability"],
        "product without a floor": lambda maps: np.sqrt(maps["map"]) * maps["probability"],
        "product with a floor": lambda maps: np.sqrt(maps["map"]) * weighed(maps["probability"]),
        "noisy-or": lambda maps: 1 - (1 - maps["map"]) * (1 - maps["probability"]),
        "noisy-or x intensity": lambda maps: maps["intensity"] * (1 - (1 - maps["map"]) * (1 - maps["probability"])),
        "rarest of all": lambda maps: np.max([rare[name](maps[name]) for name in WITNESSES], axis=0),
        "rarity, summed (Fisher)": lambda maps: np.sum([rare[name](maps[name]) for name in WITNESSES], axis=0),
        "logistic regression": chance,
    }


def _rarity(learnt: list[Scan]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """For each witness from its values to -log of the share of lesion-free voxels of FIT that are as high."""

    def of(name: str) -> Callable[[np.ndarray], np.ndarray]:
        free = np.sort(np.concatenate([_evenly(scan.maps[name][~scan.lesion]) for scan in learnt]))

        def rarity(values: np.ndarray) -> np.ndarray:
            higher = len(free) - np.searchsorted(free, values, side="left")
            return -np.log((1 + higher) / (1 + len(free))) + 1e-6 * values  # above all that were seen, by the value

        return rarity

    return {name: of(name) for name in WITNESSES}


def _logistic(learnt: list[Scan]) -> Callable[[Maps], np.ndarray]:
    """The log-odds by a logistic regression on the logits of the witnesses; every scan has the same weight."""
    inputs, truths = [], []
    for scan in learnt:
        chosen = _evenly(np.argsort(scan.maps["score"], kind="stable"))
        inputs.append(_logits(scan.maps)[chosen])
        truths.append(scan.lesion[chosen])
    model = LogisticRegression(max_iter=1000).fit(np.concatenate(inputs), np.concatenate(truths))
    return lambda maps: np.asarray(_logits(maps) @ model.coef_[0])


def _logits(maps: Maps) -> np.ndarray:
    """(N, witnesses)."""
    return np.stack([score_logit(maps[name]) for name in WITNESSES], axis=1)


def _evenly(values: np.ndarray) -> np.ndarray:
    """At most :data:`SAMPLES` of the sorted values, or of an order, at equal distances."""
    ordered = np.sort(values) if values.dtype.kind == "f" else values
    return ordered[np.linspace(0, len(ordered) - 1, min(SAMPLES, len(ordered))).round().astype(int)]


def _by_subject(tested: list[Scan], form: Callable[[Maps], np.ndarray]) -> dict[tuple[str, str], float]:
    """Mean AUPRC of the scans of each person."""
    values: dict[tuple[str, str], list[float]] = {}
    for scan in tested:
        counted = ScoreHistogram()
        fused = np.asarray(form(scan.maps), dtype=np.float64)
        # The histogram takes scores in [0, 1]: ranks have the same AUPRC.
        ranks = np.unique(fused, return_inverse=True)[1] / max(1, len(fused) - 1)
        counted.add(ranks.astype(np.float32), scan.lesion)
        values.setdefault(scan.subject, []).append(counted.average_precision())
    return {person: float(np.mean(listed)) for person, listed in sorted(values.items())}


def _table(rows: list[dict[str, str | float]], learnt: int, tested: int) -> str:
    lines = [f"Learnt on {learnt} scans, compared on {tested}; 95 % intervals over subjects.", ""]
    lines += ["| fusion | AUPRC | - as stored |", "|---|---|---|"]
    for row in rows:
        value, low, high, gain, gain_low, gain_high = (float(row[name]) for name in list(row)[1:])
        lines.append(
            f"| {row['fusion']} | {number(value)} [{number(low)}, {number(high)}] | "
            f"{number(gain, sign=True)} [{number(gain_low, sign=True)}, {number(gain_high, sign=True)}] |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
