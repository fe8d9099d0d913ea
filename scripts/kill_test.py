#!/usr/bin/env python3
"""Kill a prediction twice on the way, and see whether it comes to its end: nothing lost, nothing done twice.

Phantom scans, some of them broken in a way of their own, are predicted with a small untrained network by ``hybriduad
predict``, which is killed with SIGKILL after a third and after two thirds of the scans. Then:

- every good scan is done, every broken one named, and nothing else failed;
- what was done before a kill was not done again (inode and time of its record);
- every map can be read, and a further run does nothing;
- a process holds at most 1.1 times as much memory after any of its last three cases as after its fifth; of one that did
  fewer than eight nothing is said, and where all did fewer the test fails, as it cannot tell.

    scripts/kill_test.py --out /tmp/kill --scans 200 --broken 10 --engine local processes ray
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.scan.volumes import VolumeGrid, read_volume, write_volume

SUFFIX = "desc-anomaly_probseg"
GROWTH, EARLY, LATE = 1.1, 5, 3
"""By how much memory may grow, from the how-manieth case of a process to its how many last ones."""
SPACING_MM = (4.0, 4.0, 7.0)


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _flat(path: Path) -> None:
    _altered(path, lambda data: data[:, :, :1])


def _empty(path: Path) -> None:
    _altered(path, np.zeros_like)


def _with_nan(path: Path) -> None:
    _altered(path, lambda data: np.where(data == data.max(), np.nan, data))


def _text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"no scan at all"))


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _huge(path: Path) -> None:
    """A header that declares more voxels than the file holds."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([30_000, 3_000, 300], dtype="<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def _altered(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = read_volume(path)
    data = change(image.data)
    write_volume(path, data, VolumeGrid.make(data.shape, image.affine), np.float32)


BREAKS: dict[str, Callable[[Path], None]] = {
    "truncated gzip": _truncated,
    "wrong dimensions": _flat,
    "empty image": _empty,
    "NaN": _with_nan,
    "no NIfTI": _text,
    "no byte": _nothing,
    "header that lies": _huge,
}
"""Way of breaking the scan of a case; of one more the contrast that the model knows is missing."""
MISSING = "missing contrast"


def write_scans(folder: Path, scans: int, broken: int, spacing_mm: tuple[float, float, float]) -> dict[str, str]:
    """Write ``folder/cohort.csv``, spread the ``broken`` ones evenly, and return them: case -> what is wrong."""
    from hybriduad.phantom.cohort import write_cohort

    manifest = write_cohort(
        folder / "phantoms", subjects=scans, seed=5, contrasts=("FLAIR",), pathology="mixed", spacing_mm=spacing_mm
    )
    cases = [replace(case, lesion=None, health="unknown", lesion_free={}) for case in read_manifest(manifest)]
    faults: dict[str, str] = {}
    for turn in range(broken):
        place = (turn * scans + scans // 2) // broken
        kind = [*BREAKS, MISSING][turn % (len(BREAKS) + 1)]
        case = cases[place]
        copy = folder / "broken" / f"{case.name}_FLAIR.nii.gz"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(case.images["FLAIR"], copy)
        if kind == MISSING:
            cases[place] = replace(case, images={"T2w": copy})
        else:
            BREAKS[kind](copy)
            cases[place] = replace(case, images={"FLAIR": copy})
        faults[case.name] = kind
    write_manifest(cases, folder / "cohort.csv")
    return faults


def records(out: Path) -> dict[str, tuple[int, int]]:
    """Case -> inode and time of its record."""
    states = {path.name.partition(f"_{SUFFIX}")[0]: path.stat() for path in out.rglob(f"sub-*_{SUFFIX}.json")}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states.items()}


@dataclass
class Run:
    """A prediction by the command line that may be killed."""

    bundle: Path
    cohort: Path
    out: Path
    engine: str
    nprocs: int

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "hybriduad", "predict", self.bundle, self.cohort, "--out", self.out]
        command += ["--device", "cpu", "--engine", self.engine, "--log-json", self.log]
        command += ["--nprocs", str(self.nprocs)] if self.engine != "local" else []
        with self.log.with_suffix(".txt").open("ab") as stream:
            return subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)

    @property
    def log(self) -> Path:
        return self.out.with_name(f"{self.out.name}.jsonl")

    def until(self, count: int, limit_s: float) -> dict[str, tuple[int, int]]:
        """Kill it once so many cases are done; what was done by then."""
        process = self.start()
        began = time.monotonic()
        while len(records(self.out)) < count:
            assert process.poll() is None, f"it ended before it could be killed: {self.log.with_suffix('.txt')}"
            assert time.monotonic() - began < limit_s, "too slow"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1.0)  # its workers end with it; a record that they were writing may still come
        return records(self.out)

    def finish(self, limit_s: float) -> int:
        return self.start().wait(limit_s)

    def results(self) -> list[dict[str, Any]]:
        entries = (json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}"))
        return [entry["result"] for entry in entries if "result" in entry]


def kill_twice(run: Run, faults: dict[str, str], limit_s: float = 7200) -> dict[str, Any]:
    """Kill after a third and two thirds, and finish; what is to be told of it.

    Raises:
        AssertionError: something was lost, done twice or left half written.
    """
    names = [case.name for case in read_manifest(run.cohort)]
    good = sorted(set(names) - set(faults))
    began = time.monotonic()
    first = run.until(len(good) // 3, limit_s)
    second = run.until(2 * len(good) // 3, limit_s)
    code = run.finish(limit_s)
    last = records(run.out)
    seconds = time.monotonic() - began
    assert code == 3, f"exit code {code}, expected 3: some cases failed"
    assert sorted(last) == good, f"not done: {sorted(set(good) - set(last))}, wrongly done: {set(last) - set(good)}"
    for before in (first, second):
        again = [name for name, state in before.items() if last[name] != state]
        assert not again, f"done again: {again}"
    named = {line.split("\t")[0] for line in (run.out / "failures.tsv").read_text().splitlines()[1:]}
    assert named == set(faults), f"failures.tsv names {sorted(named)}"
    rows = [line.split("\t") for line in (run.out / "desc-anomaly_cases.tsv").read_text().splitlines()[1:]]
    assert sorted(row[0] for row in rows) == sorted(names)
    for name in good:
        read_volume(run.out / name / "anat" / f"{name}_{SUFFIX}.nii.gz", constant_ok=True)
    return {
        "engine": run.engine,
        "scans": len(names),
        "broken": len(faults),
        "done at the kills": [len(first), len(second)],
        "seconds": round(seconds),
        "seconds_a_case": round(
            statistics.median(sum(r["seconds"].values()) for r in run.results() if r["seconds"]), 3
        ),
    }


def finish_again(run: Run, limit_s: float = 7200) -> None:
    """A further run of what is done.

    Raises:
        AssertionError: it did something.
    """
    before = records(run.out)
    assert run.finish(limit_s) == 3
    assert records(run.out) == before, "a further run did something"


def growth(results: Sequence[dict[str, Any]]) -> list[float]:
    """Of each process with enough cases: the most memory after one of its last :data:`LATE` cases over that after its
    :data:`EARLY`-th.

    Raises:
        AssertionError: memory grew by more than :data:`GROWTH`, or no process did enough cases to tell.
    """
    held: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if result["status"] == "done":
            held[result["worker"]].append(result["memory_mb"])
    most = max(map(len, held.values()), default=0)
    assert most >= EARLY + LATE, (
        f"too few cases to tell whether memory grows: {most} of one process, not {EARLY + LATE}"
    )
    grown = [max(after[-LATE:]) / after[EARLY - 1] for after in held.values() if len(after) >= EARLY + LATE]
    assert max(grown) <= GROWTH, f"memory grew by {max(grown):.3f}"
    return grown


def untrained_detector(folder: Path, size: int) -> Path:
    """A small detector that learnt nothing; memory, time and files are those of one that did."""
    import torch

    from hybriduad.config import files as configs
    from hybriduad.core import plugins
    from hybriduad.detector import bundle
    from hybriduad.detector.bundle import Description
    from hybriduad.networks.segmenter import Segmenter

    train = {"steps": 1, "lr": 1.0e-3, "batch": 1}
    stage1 = {"kind": "reconstructor", "anatomy": {"contrasts": ["FLAIR"], "size": size}, "train": train}
    stage1["model"] = {"name": "ddpm", "widths": [16, 16], "blocks": 1, "unshuffle": 2, "levels": [250, 500]}
    stage2 = {"kind": "detector", "segmenter": {"encoder": "tu-test_resnet", "decoder_channels": [16, 8]}}
    stage2 |= {"mix": {"healthy": 1.0, "synthetic": 1.0}, "anomalies": [{"name": "perlin"}], "train": train}
    first = configs.parse(stage1, "kill test", "reconstructor")
    second = configs.parse(stage2, "kill test", "detector")
    torch.manual_seed(0)
    model = plugins.load("reconstructors", "ddpm").Model(first.model, 1, size)
    segmenter = Segmenter(second.segmenter, 1)
    thresholds = {"default": "best-dice", "rules": {"best-dice": {"values": {"score": 0.6}}}}
    description = Description(first.anatomy, "axial", "float32", {"cases": 0}, {})
    edges = {"histogram_edges": torch.linspace(0, 1, 82)}
    parent = bundle.save(folder / "reconstructor", first, model.state_dict(), edges, description)
    calibrated = replace(description, thresholds=thresholds)
    bundle.save(folder / "detector", second, segmenter.state_dict(), edges, calibrated, parent)
    return folder / "detector"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--broken", type=int, default=10)
    parser.add_argument("--engine", nargs="+", default=["local", "processes", "ray"])
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--size", type=int, default=64, help="pixels of the model grid")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    bundle = untrained_detector(arguments.out, arguments.size)
    faults = write_scans(arguments.out, arguments.scans, arguments.broken, SPACING_MM)
    told = []
    for engine in arguments.engine:
        run = Run(bundle, arguments.out / "cohort.csv", arguments.out / engine, engine, arguments.nprocs)
        told.append(kill_twice(run, faults))
        finish_again(run)
        told[-1]["memory_late_over_early"] = [round(ratio, 3) for ratio in growth(run.results())]
        print(json.dumps(told[-1]), flush=True)
    (arguments.out / "kill_test.json").write_text(json.dumps({"broken": faults, "runs": told}, indent=1))


if __name__ == "__main__":
    main()
