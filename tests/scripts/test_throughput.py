"""Cases an hour of the runners: from a log, and measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "throughput.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("throughput", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["throughput"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def entry(second: int, worker: str, status: str = "done", **seconds: float) -> dict[str, Any]:
    result = {"status": status, "worker": worker, "seconds": seconds, "memory_mb": 100.0 + second}
    return {"time": f"2026-01-01T00:00:{second:02d}.000+00:00", "result": result}


def test_rates_and_steps_of_a_log(script: ModuleType) -> None:
    entries = [
        {"time": "2026-01-01T00:00:00.000+00:00", "message": "no case"},
        entry(20, "a", network=2.0, read=1.0),
        entry(10, "b", network=4.0),
        entry(12, "b", "failed"),
        entry(30, "b", network=3.0),
    ]
    rate = script.throughput("processes", entries, 60.0)
    assert (rate.cases, rate.workers, rate.working_s, rate.memory_mb) == (3, 2, 20.0, 130.0)
    assert (rate.cases_an_hour, rate.steady) == (180.0, 360.0)
    assert rate.steps_s["network"] == 3.0
    assert rate.steps_s["read"] == pytest.approx(1 / 3)
    table = script.markdown([rate], 1.5)
    assert "| processes | 2 | 3 | 180 | 360 | 0.33 | 0.00 | 3.00 |" in table
    assert "Instruction set " in table
    with pytest.raises(SystemExit, match="no case was done by ray"):
        script.throughput("ray", entries[:1], 1.0)


def test_a_measurement(script: ModuleType, tiny_cohort: Path, tiny_detector: Path, tmp_path: Path) -> None:
    rate = script.measure(str(tiny_detector), str(tiny_cohort), tmp_path / "local", "local", 2, "cpu")
    assert (rate.cases, rate.workers) == (3, 1)
    assert rate.steps_s["network"] > 0
    assert sum(rate.steps_s.values()) * 3 < rate.wall_s
