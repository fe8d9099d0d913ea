"""A row of a reader's own: the family's file, its config and the line as docs/own_row.md has them."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tiny import RECONSTRUCTOR

import hybriduad.reconstructors
from hybriduad.benchmark.run import run_benchmark
from hybriduad.config import files as configs
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError

PAGE = (Path(__file__).parents[2] / "docs" / "own_row.md").read_text()
STEP = {"steps": 1, "lr": 1.0e-3, "batch": 2}


def block(language: str, marked: str) -> str:
    """The code of that language on the page that holds ``marked``."""
    (code,) = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if marked in code]
    return code


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's family, as if its file lay in the folder of the families."""
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "coarse.py").write_text(block("python", "class Model"))
    monkeypatch.setattr(
        hybriduad.reconstructors, "__path__", [*hybriduad.reconstructors.__path__, str(tmp_path / "families")]
    )
    yield
    sys.modules.pop("hybriduad.reconstructors.coarse", None)


def test_a_family_is_found_in_the_folder_of_the_families_alone() -> None:
    with pytest.raises(ConfigError, match=r"unknown plug-in of kind recon.*'coarse'.*add hybriduad/.*coarse\.py"):
        plugins.load("reconstructors", "coarse")


def test_the_row_of_the_page_stands_in_the_table(family: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coarse.yaml").write_text(block("yaml", "kind: reconstructor"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECONSTRUCTOR | {"train": STEP}))
    phantoms = {"pathology": "glioma", "subjects": 9, "spacing_mm": [6.0, 6.0, 10.0], "seed": 1}
    ours = {"tiny": {"reconstructor": {"config": "tiny.yaml"}, "part": "map"}}
    content = {
        "kind": "benchmark",
        "cohorts": {"glioma": {"phantoms": phantoms}},
        "tables": {"glioma": ["glioma"]},
        "reference": "tiny",
        "rule": "best-dice",
        "common": {"reconstructor": ["train.steps=1", "train.batch=2", "anatomy.size=32"]},
        "systems": ours | yaml.safe_load(block("yaml", "systems:"))["systems"],
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(content))
    outcome = run_benchmark("benchmark.yaml", out="out", folds=[1], systems=["coarse"], device="cpu")
    assert not outcome.failed
    with (tmp_path / "out" / "table.csv").open() as stream:
        assert {row["system"] for row in csv.DictReader(stream)} == {"coarse"}
    text = (tmp_path / "out" / "table.md").read_text()
    assert re.search(r"\| coarse \| 0?\.\d+ ", text)
    assert "| tiny | not run" in text


def test_the_lines_of_the_page_are_rows_of_the_shipped_tier(
    family: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coarse.yaml").write_text(block("yaml", "kind: reconstructor"))
    lines = re.findall(r"--set '(systems\.[^']*)'", PAGE)
    assert len(lines) == 2
    run = configs.load("benchmark-quick", lines, kind="benchmark")
    assert {"AE of 16 numbers", "coarse"} <= run.systems.keys()
    for name, row in run.systems.items():
        if name in ("AE of 16 numbers", "coarse"):
            changes = [*run.common.of("reconstructor", row.reconstructor.config), *row.reconstructor.set]
            fitted = configs.load(row.reconstructor.config, changes, kind="reconstructor")
            assert (fitted.train.steps, fitted.anatomy.size) == (400, 64)
