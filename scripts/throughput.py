#!/usr/bin/env python3
"""Cases an hour of every runner side by side, how near that is to the ideal, and where the time of a case goes.

Each runner predicts the same cohort into a folder of its own by ``hybriduad predict``, started afresh, so that starting
is part of it. All work in one thread a process: ideal are as many times the cases of one process as there are workers.
Says the processor's instruction set, for which a rate holds. Without a cohort, phantoms of what the bundle knows are
made first.

    scripts/throughput.py BUNDLE --phantoms 24 --out DIR --engine local processes ray --nprocs 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
RECORD = "desc-anomaly_probseg.json"
"""How the file ends that is written last of a case."""
SPACING_MM = (2.0, 2.0, 5.0)
STEPS = ("read", "prepare", "network", "maps", "restore", "write", "other")


@dataclass(frozen=True)
class Throughput:
    """``asked`` workers of which ``workers`` did cases; ``wall_s`` from start to end of the command, ``working_s`` from
    when as many cases were through as there are workers to the last; ``steps_s`` a case; ``memory_mb`` the most of a
    worker."""

    engine: str
    cases: int
    asked: int
    workers: int
    wall_s: float
    working_s: float
    steps_s: Mapping[str, float]
    memory_mb: float

    @property
    def cases_an_hour(self) -> float:
        """Starting included."""
        return 3600 * self.cases / self.wall_s

    @property
    def steady(self) -> float:
        """Cases an hour once all runs: after the first case of each worker."""
        later = self.cases - self.workers
        return 3600 * later / self.working_s if later > 0 and self.working_s > 0 else float("nan")

    def of_ideal(self, alone: Throughput) -> tuple[float, float]:
        """Share of what ``asked`` times one process would do: once all runs, and with starting."""
        running, whole = alone.steady * self.asked, alone.cases_an_hour * self.asked
        return self.steady / running, self.cases_an_hour / whole


def throughput(
    engine: str, entries: Sequence[Mapping], finished: Sequence[float], wall_s: float, asked: int
) -> Throughput:
    """From the entries of a JSON log, and the times at which the records were written: a log hears of cases in bursts.

    Raises:
        SystemExit: no case was done.
    """
    done = [entry for entry in entries if entry.get("result", {}).get("status") == "done"]
    if not done:
        raise SystemExit(f"no case was done by {engine}")
    results = [entry["result"] for entry in done]
    times = sorted(finished)
    workers = len({result["worker"] for result in results})
    return Throughput(
        engine,
        len(done),
        asked,
        workers,
        wall_s,
        times[-1] - times[workers - 1],
        {name: sum(result["seconds"].get(name, 0.0) for result in results) / len(results) for name in STEPS},
        max(result["memory_mb"] for result in results),
    )


def measure(bundle: str, cohort: str, out: Path, engine: str, nprocs: int, device: str) -> Throughput:
    """Predict a cohort into ``out``, a new folder, by a runner; one thread a process.

    Raises:
        SystemExit: no case was done; what the command said stands in ``out`` with .txt at its end.
    """
    log = out.with_name(f"{out.name}.jsonl")
    command = [sys.executable, "-m", "hybriduad", "predict", bundle, cohort, "--out", out, "--device", device]
    command += ["--engine", engine, "--log-json", log, *(["--nprocs", str(nprocs)] if engine != "local" else [])]
    with out.with_name(f"{out.name}.txt").open("wb") as said:
        began = time.monotonic()
        subprocess.run(command, check=False, stdout=said, stderr=said, env=os.environ | dict.fromkeys(THREADS, "1"))
        wall_s = time.monotonic() - began
    lines = log.read_text().splitlines() if log.is_file() else []
    finished = [path.stat().st_mtime for path in out.rglob(f"sub-*_{RECORD}")]
    asked = 1 if engine == "local" else nprocs
    return throughput(engine, [json.loads(line) for line in lines], finished, wall_s, asked)


def write_phantoms(bundle: str, count: int, folder: Path) -> Path:
    """The manifest of so many phantoms, of 2 x 2 x 5 mm, in the contrasts of the bundle, with their brain masks."""
    from hybriduad.detector.bundle import verify
    from hybriduad.phantom.cohort import write_cohort

    contrasts = verify(bundle).anatomy.contrasts
    return write_cohort(folder, subjects=count, seed=11, contrasts=contrasts, pathology="mixed", spacing_mm=SPACING_MM)


def markdown(rates: Sequence[Throughput], load: float) -> str:
    """The table of all runners."""
    import torch

    alone = next((rate for rate in rates if rate.asked == 1), None)
    lines = [
        f"Instruction set {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, load average {load:.1f} "
        "before, one thread a process. Of ideal: of as many times one process as there are workers, once all runs and "
        "with starting. Steps in seconds a case; those of workers add up beside each other.",
        "",
        "| engine | workers | cases | cases an hour | after the first | of ideal | with starting "
        f"| {' | '.join(STEPS)} | MB |",
        f"|---|{'---|' * (7 + len(STEPS))}",
    ]
    for rate in rates:
        steps = " | ".join(f"{rate.steps_s[name]:.2f}" for name in STEPS)
        shares = " | ".join(f"{share:.2f}" for share in rate.of_ideal(alone)) if alone is not None else "- | -"
        workers = f"{rate.workers}" if rate.workers == rate.asked else f"{rate.workers} of {rate.asked}"
        numbers = f"{workers} | {rate.cases} | {rate.cases_an_hour:.0f} | {rate.steady:.0f} | {shares}"
        lines.append(f"| {rate.engine} | {numbers} | {steps} | {rate.memory_mb:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("cohort", nargs="?", help="manifest CSV or BIDS folder; by default phantoms")
    parser.add_argument("--phantoms", type=int, default=24, help="how many, where there is no cohort")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--engine", nargs="+", default=["local", "processes", "ray"])
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    cohort = given.cohort or write_phantoms(given.bundle, given.phantoms, given.out / "phantoms")
    load = os.getloadavg()[0]
    rates = [
        measure(given.bundle, str(cohort), given.out / engine, engine, given.nprocs, given.device)
        for engine in given.engine
    ]
    table = markdown(rates, load)
    (given.out / "throughput.md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()
