"""Paired differences between evaluations of the same cases: whether a model is better than another."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from hybriduad.core.errors import ConfigError, DataError
from hybriduad.evaluation.case import CaseScores, load_case
from hybriduad.evaluation.figures import (
    Figure,
    by_subject,
    differences,
    fusion_differences,
    subject_means,
    systems_of,
)
from hybriduad.evaluation.tables import (
    LEAKED,
    difference_table,
    figure_rows,
    number,
    write_table,
)
from hybriduad.metrics.intervals import DRAWS
from hybriduad.scan.volumes import write_atomically

log = logging.getLogger(__name__)

Folders = str | Path | Sequence[str | Path]


def compare(
    evaluations: Sequence[tuple[str, Folders]], *, out: str | Path, seed: int = 0, draws: int = DRAWS
) -> list[Figure]:
    """Compare evaluations by name with the first of them, system by system, over the cases that all of them have.

    Differences are "other - first" in AUPRC, [Dice] and Dice, by a bootstrap over subjects with shared draws; beside
    them those of each evaluation's fused score and its other systems, over all folds together. Differences of pooled
    figures are left out where an evaluation has several folds: scores of models trained apart share no scale. Writes
    ``comparison.csv`` and ``comparison.md`` into ``out`` and returns the differences.

    Args:
        evaluations: names with folders written by :func:`hybriduad.evaluation.evaluate`; several folders under one name
            are folds, whose cases together are one evaluation.

    Raises:
        ConfigError: under two evaluations, or a name twice.
        DataError: no evaluation there, a case in two folds, no common case, or cases with different truths or
            regions.
    """
    names = [name for name, _ in evaluations]
    if len(names) < 2 or len(set(names)) != len(names):
        raise ConfigError("evaluations that cannot be compared", got=names, expected="two different names or more")
    stored = {name: _load(folders) for name, folders in evaluations}
    loaded = {name: cases for name, (cases, _) in stored.items()}
    leaked = {name: note for name, (_, note) in stored.items() if note}
    common = sorted(set.intersection(*(set(cases) for cases in loaded.values())))
    if not common:
        raise DataError("no case that all evaluations have", got={name: len(cases) for name, cases in loaded.items()})
    for key in common:
        facts = [loaded[name][key].facts for name in names]
        if len({case_facts["truth"] for case_facts in facts}) > 1:
            raise DataError("evaluations against different truths", where=key[1], got=names)
        if len({case_facts.get("region") for case_facts in facts}) > 1 or "region" not in facts[0]:
            mend = "predict with the same brain mask and reference contrast, and evaluate anew"
            raise DataError("evaluations over different voxels", where=key[1], got=names, mend=mend)
    paired = {name: [loaded[name][key] for key in common] for name in names}
    left_out = {name: len(loaded[name]) - len(common) for name in names}
    folds = {name: 1 if isinstance(folders, str | Path) else len(folders) for name, folders in evaluations}
    rows: list[Figure] = []
    first = names[0]
    for name in names[1:]:
        for system in systems_of(paired[first]):
            if system in systems_of(paired[name]):
                title = f"{name} - {first} ({system})"
                pooled = folds[name] == folds[first] == 1
                rows += differences(paired[name], system, paired[first], system, title, seed, draws, pooled=pooled)
    for name in names:
        rows += fusion_differences(paired[name], seed, draws, name, pooled=folds[name] == 1)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "comparison.csv", figure_rows(rows))
    text = _markdown(paired, left_out, leaked, rows, seed, draws, [name for name in names if folds[name] > 1])
    write_atomically(folder / "comparison.md", text.encode())
    return rows


def _load(folders: Folders) -> tuple[dict[tuple[str, str], CaseScores], str]:
    """The cases of an evaluation by (dataset, case), and the note of a leakage that was allowed, "" without any."""
    listed = [folders] if isinstance(folders, str | Path) else list(folders)
    cases: dict[tuple[str, str], CaseScores] = {}
    leaked = ""
    for folder in map(Path, listed):
        path = folder / "summary.json"
        try:
            summary = json.loads(path.read_text())
            stated = summary["cases"]
            leaked = next((note for note in summary["notes"] if note.startswith(LEAKED)), leaked)
        except (OSError, ValueError, KeyError) as error:
            raise DataError("no evaluation", where=folder, got=repr(error), expected="a folder of evaluate") from error
        for entry in stated:
            case = load_case(folder / "cases", entry["case"], entry["attributes"])
            key = (case.subject[0], case.name)
            if key in cases:
                raise DataError("case in two folds", where=folder, got=case.name)
            cases[key] = case
    return cases, leaked


def _markdown(
    paired: dict[str, list[CaseScores]],
    left_out: dict[str, int],
    leaked: dict[str, str],
    rows: list[Figure],
    seed: int,
    draws: int,
    folded: list[str],
) -> str:
    cases = next(iter(paired.values()))
    lines = [
        f"# {' and '.join(paired)}",
        "",
        f"- {len(cases)} cases of {len(by_subject(cases))} subjects, {sum(case.has_lesion for case in cases)} with a "
        "lesion; cases of one evaluation alone, left out: "
        + ", ".join(f"{name} {count}" for name, count in left_out.items())
        + ".",
        *(f"- {name}: {note}" for name, note in leaked.items()),
        f"- Mean over subjects with a lesion [95 % interval, bootstrap over subjects, {draws} draws, seed {seed}].",
        "- [Dice] is the best possible Dice of each case, an upper bound. Dice is at the model's calibrated threshold.",
        *(
            [f"- No pooled difference of {', '.join(folded)}: scores of models trained apart share no scale."]
            if folded
            else []
        ),
        "",
        "| evaluation | system | AUPRC | [Dice] | Dice |",
        "|---|---|---|---|---|",
    ]
    for name, scores in paired.items():
        means = {(row.system, row.figure): row for row in subject_means("", scores, seed, draws)}
        for system in systems_of(scores):
            cells = []
            for figure in ("auprc", "best_dice", "dice"):
                row = means.get((system, figure))
                cells.append("–" if row is None else f"{number(row.value)} [{number(row.low)}, {number(row.high)}]")
            lines.append(f"| {name} | {system} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *difference_table(rows)])
