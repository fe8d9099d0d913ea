"""The pages: they build, with every link between them, and ask the network for nothing."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import hybriduad
from hybriduad.cli.app import app

ROOT = Path(__file__).parent.parent
LOADED = re.compile(
    r"<(?:script|img|iframe|link rel=.?(?:stylesheet|icon|preconnect))[^>]*(?:src|href)=.?https?://[^ >]+"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``make docs`` does: strict, and not quiet, since mkdocs counts no warnings where it shows none."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", ".mkdocs.yml", "--site-dir", out]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return out


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 6
    assert not [match for page in pages for match in LOADED.findall(page.read_text())]


def test_what_the_readme_tells_of_use_and_files_is_on_a_page(site: Path) -> None:
    page = (site / "use" / "index.html").read_text()
    headings = re.findall(r"^## ((?:Use \d|What every).*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(headings) == 4
    assert [heading for heading in headings if f">{heading}<" not in page] == []
    assert [path.name for path in site.rglob("*.html") if "--8&lt;--" in path.read_text()] == []


def test_the_reference_has_every_public_function(site: Path) -> None:
    text = (site / "reference" / "index.html").read_text()
    missing = [name for name in hybriduad.__all__ if name not in ("__version__", "phantom") and f'.{name}"' not in text]
    assert not missing


def test_every_name_of_the_reference_is_public() -> None:
    documented = re.findall(
        r"^::: hybriduad\.([\w.]+)\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE
    )
    assert len(documented) >= len(hybriduad.__all__) - 2
    for module, name in documented:
        home = hybriduad.phantom if module == "phantom.cohort" else hybriduad
        assert getattr(home, name) is getattr(importlib.import_module(f"hybriduad.{module}"), name), name


def test_every_verb_has_a_function_but_those_that_the_reference_names() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    (aside,) = re.findall(r" here but (.*?);", page, re.DOTALL)
    verbs = set(typer.main.get_command(app).commands)
    assert set(re.findall(r"`([\w-]+)`", aside)) <= verbs
    functions = {"predict": "predict_cohort", "paint": "paint_cohort", "fill": "fill_cohort", "report": "write_report"}
    functions |= {"benchmark": "run_benchmark", "blind-spots": "find_blind_spots", "dicom-seg": "write_dicom_seg"}
    functions |= {"operating-point": "choose_operating_point"}
    rest = verbs - set(re.findall(r"`([\w-]+)`", aside))
    assert [verb for verb in rest if not hasattr(hybriduad, functions.get(verb, verb.replace("-", "_")))] == []
