"""What became of a cohort whose cases are worked on one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Outcome:
    """What became of a cohort: case names that were ``done`` now, ``kept`` from before, and ``failed`` with why."""

    out: Path
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
