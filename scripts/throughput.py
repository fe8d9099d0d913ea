"""Cases an hour of every runner side by side, and where the time of a case goes.

Each runner predicts the same cohort into a folder of its own by ``hybriduad predict``, started afresh, so that starting
is part of it. Says the processor's instruction set, for which a rate holds.

    python scripts/throughput.py BUNDLE COHORT --out DIR --engine local processes ray --nprocs 2
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

STEPS = ("read", "prepare", "network", "maps", "restore", "write", "other")


@dataclass(frozen=True)
class Throughput:
    """``wall_s`` from start to end of the command, ``working_s`` from the first to the last case that was through;
    ``steps_s`` a case; ``memory_mb`` the most of a worker."""

    engine: str
    cases: int
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
        """Cases an hour once all runs: after the first case of the cohort."""
        return 3600 * (self.cases - 1) / self.working_s if self.cases > 1 and self.working_s > 0 else float("nan")


def throughput(engine: str, entries: Sequence[Mapping], wall_s: float) -> Throughput:
    """From the entries of a JSON log.

    Raises:
        SystemExit: no case was done.
    """
    from datetime import datetime

    done = [entry for entry in entries if entry.get("result", {}).get("status") == "done"]
    if not done:
        raise SystemExit(f"no case was done by {engine}")
    results = [entry["result"] for entry in done]
    times = sorted(datetime.fromisoformat(entry["time"]).timestamp() for entry in done)
    return Throughput(
        engine,
        len(done),
        len({result["worker"] for result in results}),
        wall_s,
        times[-1] - times[0],
        {name: sum(result["seconds"].get(name, 0.0) for result in results) / len(results) for name in STEPS},
        max(result["memory_mb"] for result in results),
    )


def measure(bundle: str, cohort: str, out: Path, engine: str, nprocs: int, device: str) -> Throughput:
    """Predict a cohort into ``out``, a new folder, by a runner."""
    log = out.with_name(f"{out.name}.jsonl")
    command = [sys.executable, "-m", "hybriduad", "predict", bundle, cohort, "--out", out, "--device", device]
    command += ["--engine", engine, "--log-json", log, *(["--nprocs", str(nprocs)] if engine != "local" else [])]
    began = time.monotonic()
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall_s = time.monotonic() - began
    lines = log.read_text().splitlines() if log.is_file() else []
    return throughput(engine, [json.loads(line) for line in lines], wall_s)


def markdown(rates: Sequence[Throughput], load: float) -> str:
    """The table of all runners."""
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", "as many threads as cores")
    lines = [
        f"Instruction set {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, load average {load:.1f} "
        f"before, OMP_NUM_THREADS {threads} for local, one thread a worker for the others. Steps in seconds a case; "
        "those of workers add up beside each other.",
        "",
        f"| engine | workers | cases | cases an hour | after the first | {' | '.join(STEPS)} | MB |",
        f"|---|{'---|' * (5 + len(STEPS))}",
    ]
    for rate in rates:
        steps = " | ".join(f"{rate.steps_s[name]:.2f}" for name in STEPS)
        numbers = f"{rate.workers} | {rate.cases} | {rate.cases_an_hour:.0f} | {rate.steady:.0f}"
        lines.append(f"| {rate.engine} | {numbers} | {steps} | {rate.memory_mb:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("cohort")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--engine", nargs="+", default=["local", "processes", "ray"])
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    load = os.getloadavg()[0]
    rates = [
        measure(given.bundle, given.cohort, given.out / engine, engine, given.nprocs, given.device)
        for engine in given.engine
    ]
    table = markdown(rates, load)
    (given.out / "throughput.md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()
