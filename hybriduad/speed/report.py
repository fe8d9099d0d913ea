"""Measured speed as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def markdown(record: Mapping[str, Any]) -> str:
    """What ``speed.json`` holds, for a person to read."""
    machine, case, beside = record["machine"], record["case"], record["beside"]
    busy = "" if not machine["busy"] else " **The machine was busy: times are too long.**"
    lines = [
        f"# Benchmark of {record['config']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, device {machine['device']}, "
        f"torch {machine['torch']}, {record['precision']}. Load average {machine['load_before']:.1f} before and "
        f"{machine['load_after']:.1f} after.{busy}",
        "",
        "Untrained networks; every time is a median, in brackets the shortest and the longest. Matrix products: "
        + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in record["products"].items())
        + ".",
        "",
        "## A whole scan, from file to file, the model loaded",
        "",
        f"{' x '.join(map(str, case['shape']))} voxels, {case['levels']} levels, head with skull, brain looked for: "
        f"**{case['seconds']:.2f} s** ({case['shape'][2] / case['seconds']:.1f} slices a second; the first of "
        f"{case['scans']} took {case['first_seconds']:.2f} s), peak memory of the process **{case['peak_mb']:.0f} "
        f"MB**; {case['process_seconds']:.1f} s for all from start to end of the command.",
        "",
        *(f"- target {name}: {'reached' if reached else 'missed'}" for name, reached in case["targets"].items()),
        "",
        "## Networks",
        "",
        f"The last column is their rate over that of {record['precision']} matrix products.",
        "",
        "| what | slices | seconds | slices a second | GFLOPs | of the machine |",
        "|---|---|---|---|---|---|",
    ]
    for name, measure in record["measures"].items():
        span = f"{measure['seconds']:.3f} [{measure['least']:.3f}, {measure['most']:.3f}]"
        work = ("–", "–")
        if not math.isnan(measure["gflops"]):
            work = f"{measure['gflops']:.1f}", f"{measure['fraction']:.0%}"
        throughput = f"{measure['slices_per_second']:.1f}"
        lines.append(f"| {name} | {measure['slices']} | {span} | {throughput} | {' | '.join(work)} |")
    lines += [
        "",
        f"## Beside {beside['config']}, one level, the same {beside['slices']} slices",
        "",
        "| config | parameters | seconds a slice | GFLOPs a slice | of the machine |",
        "|---|---|---|---|---|",
    ]
    for name in ("this", "larger"):
        model = beside[name]
        lines.append(
            f"| {model['config']} | {model['parameters'] / 1e6:.1f} M | {model['seconds']:.4f} | "
            f"{model['gflops']:.2f} | {model['fraction']:.0%} |"
        )
    ratios = f"{beside['time_ratio']:.1f} times as long, {beside['flop_ratio']:.1f} times the operations"
    lines += ["", f"{beside['config']} takes {ratios}.", ""]
    return "\n".join(lines)
