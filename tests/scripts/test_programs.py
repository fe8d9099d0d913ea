"""The scripts that pages call are programs: they can be started by their names."""

from __future__ import annotations

import re
import stat
from pathlib import Path

ROOT = Path(__file__).parents[2]


def called() -> set[str]:
    """Paths of the scripts that a page, a config or another script names, those that are sourced aside."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").glob("*.yaml")]
    pages += [ROOT / "CHANGELOG.md", *(ROOT / "scripts").iterdir()]
    text = "\n".join(page.read_text() for page in pages if page.is_file())
    named = set(re.findall(r"scripts/\w+\.(?:py|sh)", text))
    return {name for name in named if "\n# Sourced by" not in (ROOT / name).read_text()}


def test_a_script_that_a_page_calls_can_be_started() -> None:
    names = called()
    assert len(names) > 10
    starts = {name: (ROOT / name).read_text().partition("\n")[0] for name in names}
    shells = {".py": "#!/usr/bin/env python3", ".sh": "#!/usr/bin/env bash"}
    assert {name: start for name, start in starts.items() if start != shells[Path(name).suffix]} == {}
    assert [name for name in sorted(names) if not (ROOT / name).stat().st_mode & stat.S_IXUSR] == []
