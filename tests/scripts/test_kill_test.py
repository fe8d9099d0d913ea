"""Predictions that are killed twice come to their end: the script at a small size."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.prediction.cohort import predict_cohort

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


@pytest.mark.parametrize("engine", ["local", "processes", "ray"])
def test_killed_twice(
    engine: str,
    kill_test: ModuleType,
    scans: tuple[Path, dict[str, str]],
    tiny_detector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder, faults = scans
    assert sorted(faults.values()) == sorted([*kill_test.BREAKS, kill_test.MISSING])
    run = kill_test.Run(tiny_detector, folder / "cohort.csv", tmp_path / engine, engine, 2)
    told = kill_test.kill_twice(run, faults, limit_s=600)
    assert (told["scans"], told["broken"]) == (14, 8)
    assert 2 <= told["done at the kills"][0] <= told["done at the kills"][1] <= 6
    before = kill_test.records(run.out)
    again = predict_cohort(tiny_detector, run.cohort, out=run.out, device="cpu")  # whichever runner goes on, in-process
    assert (again.done, sorted(again.kept), sorted(again.failed)) == ([], sorted(before), sorted(faults))
    assert kill_test.records(run.out) == before


def test_memory_does_not_grow_over_a_longer_run(
    kill_test: ModuleType, scans: tuple[Path, dict[str, str]], tiny_detector: Path, tmp_path: Path
) -> None:
    """24 cases in one process: four times the good scans."""
    folder, faults = scans
    good = [case for case in read_manifest(folder / "cohort.csv") if case.name not in faults]
    many = [replace(good[number % len(good)], subject=f"{number:02d}") for number in range(24)]
    write_manifest(many, tmp_path / "cohort.csv")
    run = kill_test.Run(tiny_detector, tmp_path / "cohort.csv", tmp_path / "out", "local", 1)
    assert run.finish(300) == 0
    results = run.results()
    assert len({result["worker"] for result in results if result["status"] == "done"}) == 1
    assert len(results) == 24
    assert len(kill_test.growth(results)) == 1


def held(worker: str, *memory_mb: float) -> list[dict[str, object]]:
    return [{"status": "done", "worker": worker, "memory_mb": mb} for mb in memory_mb]


def test_growth_is_of_each_worker_from_its_fifth_case_on(kill_test: ModuleType) -> None:
    results = held("a", 300, 200, 150, 120, 100, 101, 102, 108, 104)
    results += [{"status": "failed", "worker": "a", "memory_mb": 0.0}, *held("b", 9)]
    assert kill_test.growth(results) == [pytest.approx(1.08)]


@pytest.mark.parametrize(
    ("memory_mb", "sentence"),
    [
        ((100, 100, 100, 100, 100, 100, 100), "too few cases to tell whether memory grows: 7 of one process, not 8"),
        ((), "too few cases to tell whether memory grows: 0 of one process"),
        ((100, 100, 100, 100, 100, 104, 108, 112), "memory grew by 1.120"),
    ],
)
def test_too_few_cases_tell_nothing_and_a_leak_is_caught(
    memory_mb: tuple[float, ...], sentence: str, kill_test: ModuleType
) -> None:
    with pytest.raises(AssertionError, match=sentence):
        kill_test.growth(held("a", *memory_mb))
