"""The runners: the same bytes from all three, and no case that ends another, not even by ending its process."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import BundleError, ConfigError, DataError
from hybriduad.core.types import Case
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.runners import processes
from hybriduad.prediction.runners.cluster import _Actor
from hybriduad.prediction.work import Request, Result

COSTS = ("seconds", "memory_mb")


@pytest.fixture(scope="module")
def cases(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Two good cases and a truncated one, in the middle."""
    good = read_cohort(tiny_cohort)[:2]
    broken = tmp_path_factory.mktemp("scans") / "sub-015_FLAIR.nii.gz"
    broken.write_bytes(good[0].images["FLAIR"].read_bytes()[:3000])
    return [good[0], Case("tiny", "015", {"FLAIR": broken}), good[1]]


@pytest.fixture(scope="module")
def alone(tiny_detector: Path, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runners") / "local"
    outcome = predict_cohort(tiny_detector, cases, out=out, maps=("all",), device="cpu")
    assert (outcome.done, list(outcome.failed)) == (["sub-01", "sub-02"], ["sub-015"])
    return out


def contents(folder: Path) -> dict[str, Any]:
    """All files but what a case cost and when it failed."""
    read: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.endswith("probseg.json"):
            read[name] = {key: value for key, value in json.loads(path.read_text()).items() if key not in COSTS}
        elif name.startswith("failures"):
            read[name] = "damaged or truncated file" in path.read_text()
        else:
            read[name] = path.read_bytes()
    return read


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_the_same_bytes_and_sentences_from_every_runner(
    engine: str,
    alone: Path,
    cases: list[Case],
    tiny_detector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    seen: list[Result] = []
    arguments: dict[str, Any] = {"out": tmp_path / "out", "maps": ("all",), "device": "cpu", "engine": engine}
    outcome = predict_cohort(tiny_detector, cases, **arguments, nprocs=2, watch=lambda result, *_: seen.append(result))
    assert (outcome.done, list(outcome.failed)) == (["sub-01", "sub-02"], ["sub-015"])
    assert contents(tmp_path / "out") == contents(alone)
    assert {result.worker.split(":")[1] for result in seen if result.worker} - {str(os.getpid())}
    done = [result for result in seen if result.status == "done"]
    assert all({"read", "prepare", "network", "restore", "write"} <= set(result.seconds) for result in done)
    assert all(result.memory_mb > 50 for result in done)


def test_a_worker_that_is_killed_takes_no_other_case_with_it(
    cases: list[Case], tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the processes themselves: one that is given sub-015 dies of it, as for memory."""
    monkeypatch.setattr(processes, "_serve", deadly)
    out = tmp_path / "out"
    outcome = predict_cohort(tiny_detector, cases, out=out, device="cpu", engine="processes", nprocs=1)
    assert (outcome.done, list(outcome.failed)) == (["sub-01", "sub-02"], ["sub-015"])
    assert "its worker ended with exit code -9, 2 times" in outcome.failed["sub-015"]
    assert "sub-015" in (out / "failures.tsv").read_text()
    monkeypatch.undo()
    again = predict_cohort(tiny_detector, cases, out=out, device="cpu", engine="processes", nprocs=1)
    assert again.kept == ["sub-01", "sub-02"]  # and the failure, no fault of its files as known so far, was tried again
    assert "damaged or truncated file" in again.failed["sub-015"]


serve = processes._serve


def deadly(link: Any, request: Any) -> None:
    from hybriduad.prediction.work import Worker

    ahead = Worker.ahead

    def killed(self: Worker, case: Case) -> Any:
        if case.name == "sub-015":
            os.kill(os.getpid(), signal.SIGKILL)
        return ahead(self, case)

    Worker.ahead = killed  # type: ignore[method-assign]
    serve(link, request)


def test_a_worker_that_cannot_start_is_one_sentence(
    cases: list[Case], tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"out": tmp_path / "out", "device": "cpu", "engine": "processes", "nprocs": 2}
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot read or write in .*file/c: got Not a directory"):
        predict_cohort(tiny_detector, cases, **arguments, cache=tmp_path / "file" / "c")
    actor = _Actor(Request(tiny_detector, tmp_path, ("score",), device="cpu", cache=tmp_path / "file/c"), (), 1)
    assert str(actor({"place": [0]})["result"][0]).startswith("cannot read or write in")
    monkeypatch.setattr(processes, "_serve", dying)
    with pytest.raises(ConfigError, match=r"a worker could not start.*exit code 3.*__main__"):
        predict_cohort(tiny_detector, cases, **arguments)
    monkeypatch.setattr(processes, "_serve", refusing)
    with pytest.raises(BundleError, match="no bundle in there"):
        predict_cohort(tiny_detector, cases, **arguments)
    with monkeypatch.context() as broken:  # what forks the workers ends in importing a library
        broken.setattr("multiprocessing.popen_forkserver.Popen._launch", unforked)
        with pytest.raises(ConfigError, match=r"a worker could not start.*got EOFError: unexpected EOF"):
            predict_cohort(tiny_detector, cases, **arguments)
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    with pytest.raises(ConfigError, match="asks for a pool of its own"):
        predict_cohort(tiny_detector, cases, **arguments)


def dying(link: Any, request: Any) -> None:
    os._exit(3)


def unforked(self: Any, process: Any) -> None:
    raise EOFError("unexpected EOF")


def refusing(link: Any, request: Any) -> None:
    serve(link, replace(request, bundle=Path("there")))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "slurm"}, r"unknown engine: got 'slurm', expected one of \['local', 'processes', 'ray'\]"),
        ({"nprocs": 0}, "no worker: got --nprocs 0"),
        ({"engine": "local", "nprocs": 2}, "several workers in one process"),
        ({"address": "auto"}, "address without a cluster"),
        ({"shard": (3, 2)}, "no such shard: got 3/2"),
        ({"shard": (1, 2), "overwrite": True}, "--overwrite in a shard"),
    ],
)
def test_options_that_do_not_go_together(
    options: dict[str, Any], sentence: str, cases: list[Case], tiny_detector: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        predict_cohort(tiny_detector, cases, out=tmp_path / "out", device="cpu", **options)
    assert not (tmp_path / "out").exists()
