"""Predictions that are killed twice come to their end: the script at a small size."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"


@pytest.fixture(scope="module")
def kill_test() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_test"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scans(kill_test: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("kill")
    return folder, kill_test.write_scans(folder, 14, 8, (6.0, 6.0, 8.0))


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_killed_twice(
    engine: str, kill_test: ModuleType, scans: tuple[Path, dict[str, str]], tiny_detector: Path, tmp_path: Path
) -> None:
    folder, faults = scans
    assert sorted(faults.values()) == sorted([*kill_test.BREAKS, kill_test.MISSING])
    run = kill_test.Run(tiny_detector, folder / "cohort.csv", tmp_path / engine, engine, 2)
    told = kill_test.kill_twice(run, faults, limit_s=300, once_more=False)
    assert (told["scans"], told["broken"]) == (14, 8)
    assert 2 <= told["done at the kills"][0] <= told["done at the kills"][1] <= 6


def test_growth_is_of_each_worker_from_its_fifth_case_on(kill_test: ModuleType) -> None:
    held = [300, 200, 150, 120, 100, 101, 102, 108, 104]
    results = [{"status": "done", "worker": "a", "memory_mb": mb} for mb in held]
    results += [
        {"status": "failed", "worker": "a", "memory_mb": 0.0},
        {"status": "done", "worker": "b", "memory_mb": 9},
    ]
    assert kill_test.growth(results) == [pytest.approx(1.08)]
