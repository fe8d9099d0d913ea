"""What this machine offers, and whether the installation and the bundles on it are sound."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import torch

from hybriduad import __version__
from hybriduad.config import files as configs
from hybriduad.core.errors import HybridUADError
from hybriduad.detector.bundle import INTENDED_USE, verify
from hybriduad.detector.device import resolve_device, resolve_precision
from hybriduad.detector.loading import load_detector
from hybriduad.scan.strippers import STRIPPERS

FRAGILE = {"nilearn": "nilearn", "simpleitk": "SimpleITK", "torchio": "torchio", "torchvision": "torchvision"}
"""Distribution -> module; imported, not only looked up, since versions that do not fit together fail there."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and whether that is as it should be."""

    name: str
    value: str
    good: bool = True


def examine(bundles: Iterable[str | Path] = ()) -> list[Finding]:
    """Look at versions, device, threads, memory, precision, the shipped configs, and each of ``bundles``."""
    return [
        Finding("hybriduad", __version__),
        Finding("intended use", INTENDED_USE),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        *_packages(),
        *_machine(),
        _strippers(),
        *_shipped_configs(),
        *(_bundle(Path(folder)) for folder in bundles),
    ]


def _packages() -> list[Finding]:
    """Every dependency with its version; extras are left out."""
    stated = [line for line in metadata.requires("hybriduad") or () if "extra ==" not in line]
    findings = []
    for name in sorted({re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in stated}, key=str.lower):
        try:
            version = metadata.version(name)
            if name.lower() in FRAGILE:
                import_module(FRAGILE[name.lower()])
            findings.append(Finding(name, version))
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, "not installed", good=False))
        except (ImportError, RuntimeError) as error:
            findings.append(Finding(name, f"{version}, but it does not import: {error}", good=False))
    return findings


def _machine() -> list[Finding]:
    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [
        Finding("processor cores", f"{usable} usable of {os.cpu_count()}"),
        Finding("torch threads", str(torch.get_num_threads())),
        Finding("memory", _memory()),
    ]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        findings.append(Finding("device", f"{device}: {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    else:
        findings.append(Finding("device", "cpu (no CUDA device)"))
    wanted = "native" if precision == "bfloat16" else "not native: float32 is used"
    return [*findings, Finding("bfloat16", f"{wanted}; 'precision: auto' means {precision} here")]


def _memory() -> str:
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = (page * os.sysconf(name) / 2**30 for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    return f"{free:.1f} of {total:.1f} GiB free"


def _strippers() -> Finding:
    """What a new bundle finds the brains of heads by."""
    names = [f"{s.distribution} {s.version}" for s in STRIPPERS.values() if s.version]
    packages = ", ".join(names) or "none of " + ", ".join(s.distribution for s in STRIPPERS.values())
    return Finding(
        "brain extraction", f"{packages} installed; a new bundle uses {names[0] if names else 'our estimate'}"
    )


def _shipped_configs() -> list[Finding]:
    names = configs.shipped()
    if not names:
        return [Finding("shipped configs", f"none in {configs.shipped_folder()}", good=False)]
    for name in names:
        try:
            configs.load(name)
        except HybridUADError as error:
            return [Finding("shipped configs", str(error), good=False)]
    return [Finding("shipped configs", ", ".join(names))]


def _bundle(folder: Path) -> Finding:
    """Checksums, then whether the weights fit the network."""
    try:
        bundle = verify(folder)
        load_detector(folder, "cpu")
    except HybridUADError as error:
        return Finding(f"bundle {folder}", str(error), good=False)
    rules = ", ".join(sorted(bundle.thresholds.values)) or "none, so no masks"
    contrasts = "+".join(bundle.anatomy.contrasts)
    says = f"{bundle.kind} for {contrasts}, {bundle.digest[:12]}, complete; thresholds: {rules}"
    return Finding(f"bundle {folder}", says)
