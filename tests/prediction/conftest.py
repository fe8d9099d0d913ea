"""What tests of predictions share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import fake_deepbet, forget_packages


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where deepbet is installed, until it is removed."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    fake_deepbet(folder)
    yield folder
    forget_packages()
