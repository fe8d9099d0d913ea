"""What a table says beside its figures: why rows were not run, and which cases were left out of a difference."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made import made_benchmark, made_entries

from hybriduad.benchmark import tables
from hybriduad.benchmark.figures import Entries


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables without plots."""
    monkeypatch.setattr(tables, "write_plots", lambda *_: [])


def test_a_row_without_enough_labels_says_how_many_there_are(tmp_path: Path) -> None:
    run = made_benchmark()
    entries = {row: [] if row.system == "2 labels" else done for row, done in made_entries(run).items()}
    lacking = {row: "only 1 labelled patients" for row in entries if row.system == "2 labels"}
    tables.write_tables(tmp_path, run, entries, {}, lacking)
    assert "| 2 labels | not run: only 1 labelled patients | not run | not run |" in (tmp_path / "table.md").read_text()


def test_the_table_of_a_whole_cohort_is_called_another_hospital(tmp_path: Path) -> None:
    run = made_benchmark(cohorts={"a": {}, "b": {"whole": True}}, tables={"a": ["a", "b"]})
    tables.write_tables(tmp_path, run, made_entries(run), {})
    headings = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == [
        "## Trained on a, tested on a",
        "## Trained on a, tested on b (other hospital, other pathology)",
    ]


def changed(entries: Entries, system: str, person: str, **changes: Any) -> Entries:
    """The entries, in which a system has other facts about a person."""
    known = {"truth": "t", "region": "r", "brain": "given mask"}
    return {
        row: [
            entry._replace(
                cases=tuple(
                    replace(case, **known | (changes if (row.system, case.subject[1]) == (system, person) else {}))
                    for case in entry.cases
                )
            )
            for entry in done
        ]
        for row, done in entries.items()
    }


@pytest.mark.parametrize(("kind", "apart"), [("truth", True), ("region", True), ("brain", False)])
def test_a_difference_leaves_out_whom_its_rows_judged_apart(kind: str, apart: bool, tmp_path: Path) -> None:
    run = made_benchmark()
    entries = changed(made_entries(run), "map", "13", **{kind: "other"})
    tables.write_tables(tmp_path, run, entries, {})
    with (tmp_path / "differences.csv").open() as stream:
        subjects = {row["system"]: int(row["subjects"]) for row in csv.DictReader(stream) if row["figure"] == "auprc"}
    assert subjects == {"intensity": 8, "map": 7 if apart else 8, "labels": 8, "2 labels": 8}
    text = (tmp_path / "table.md").read_text()
    assert ("Left out of map - fused: 1 subjects whose two rows were judged against different truths" in text) == apart
    ways = "(given mask: intensity, fused, labels, 2 labels; other: map)"
    assert (f"The brains of the same scans were found in different ways {ways}" in text) == (kind == "brain")


def test_results_from_before_are_paired_though_nobody_knows_how_they_were_judged(tmp_path: Path) -> None:
    run = made_benchmark()
    entries = changed(made_entries(run), "map", "13", truth="", region="", brain="")
    tables.write_tables(tmp_path, run, entries, {})
    text = (tmp_path / "table.md").read_text()
    assert "Left out" not in text
    assert "different ways" not in text
