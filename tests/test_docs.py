"""The pages: they build, with every link between them, and ask the network for nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hybriduad

ROOT = Path(__file__).parent.parent
LOADED = re.compile(
    r"<(?:script|img|iframe|link rel=.?(?:stylesheet|icon|preconnect))[^>]*(?:src|href)=.?https?://[^ >]+"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", ".mkdocs.yml", "--site-dir", out]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return out


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 6
    assert not [match for page in pages for match in LOADED.findall(page.read_text())]


def test_the_reference_has_every_public_function(site: Path) -> None:
    text = (site / "reference" / "index.html").read_text()
    missing = [name for name in hybriduad.__all__ if name not in ("__version__", "phantom") and f'.{name}"' not in text]
    assert not missing
