"""Cases an hour of the runners: from a log, and measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hybriduad.cohort.manifest import read_manifest

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


def entry(memory: int, worker: str, status: str = "done", **seconds: float) -> dict[str, Any]:
    return {"result": {"status": status, "worker": worker, "seconds": seconds, "memory_mb": 100.0 + memory}}


def test_rates_and_steps_of_a_log(script: ModuleType) -> None:
    entries = [
        {"message": "no case"},
        entry(20, "a", network=2.0, read=1.0),
        entry(10, "b", network=4.0),
        entry(12, "b", "failed"),
        entry(30, "b", network=3.0),
    ]
    rate = script.throughput("processes", entries, [1030.0, 1010.0, 1020.0], 60.0, 2)
    assert (rate.cases, rate.workers, rate.working_s, rate.memory_mb) == (3, 2, 10.0, 130.0)
    assert (rate.cases_an_hour, rate.steady) == (180.0, 360.0)
    assert rate.steps_s["network"] == 3.0
    assert rate.steps_s["read"] == pytest.approx(1 / 3)
    assert "| processes | 2 | 3 | 180 | 360 | - | - | 0.33 | 0.00 | 3.00 |" in script.markdown([rate], 1.5)
    alone = script.throughput("local", [entry(5, "a", network=9.0)] * 3, [5.0, 21.0, 37.0], 54.0, 1)
    assert (alone.cases_an_hour, alone.steady) == (200.0, 225.0)
    table = script.markdown([alone, rate], 1.5)
    assert "| local | 1 | 3 | 200 | 225 | 1.00 | 1.00 | 0.00 | 0.00 | 9.00 |" in table
    assert "| processes | 2 | 3 | 180 | 360 | 0.80 | 0.45 |" in table
    assert "Instruction set " in table
    fewer = script.throughput("ray", entries, [10.0, 20.0, 30.0], 60.0, 4)
    assert "| ray | 2 of 4 | 3 | 180 | 360 | 0.40 |" in script.markdown([alone, fewer], 1.5)
    with pytest.raises(SystemExit, match="no case was done by ray"):
        script.throughput("ray", entries[:1], [], 1.0, 2)


def test_a_measurement(script: ModuleType, tiny_cohort: Path, tiny_detector: Path, tmp_path: Path) -> None:
    rate = script.measure(str(tiny_detector), str(tiny_cohort), tmp_path / "local", "local", 2, "cpu")
    assert (rate.cases, rate.workers) == (3, 1)
    assert rate.steps_s["network"] > 0
    assert sum(rate.steps_s.values()) * 3 < rate.wall_s
    with pytest.raises(SystemExit, match="no case was done by local"):
        script.measure(str(tmp_path / "no bundle"), str(tiny_cohort), tmp_path / "none", "local", 2, "cpu")
    assert "no bundle" in (tmp_path / "none.txt").read_text()


def test_phantoms_of_what_the_bundle_knows(script: ModuleType, tiny_detector: Path, tmp_path: Path) -> None:
    (case,) = read_manifest(script.write_phantoms(str(tiny_detector), 1, tmp_path / "phantoms"))
    assert list(case.images) == ["FLAIR"]
    assert case.brain is not None
