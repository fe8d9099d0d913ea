"""Which device and which precision networks run in."""

from __future__ import annotations

import os

import torch

from hybriduad.config.runs import Precision
from hybriduad.core.errors import ConfigError

SLOW_ISA = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Limits of oneDNN's instructions that leave no instruction for bfloat16 products."""


def resolve_device(device: str) -> torch.device:
    """``auto`` is the first CUDA device, else the CPU.

    Raises:
        ConfigError: not a device of this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        usable = ["auto", "cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ConfigError("no such device on this machine", got=repr(device), expected=", ".join(usable)) from error


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """``auto`` is bfloat16 where the device multiplies it faster than float32, else float32.

    ATEN_CPU_CAPABILITY or DNNL_MAX_CPU_ISA may keep a capable processor from it: torch then emulates bfloat16, three to
    four times slower than float32 where it was measured (networks of the shipped size, AVX512).
    """
    if precision != "auto":
        return "bfloat16" if precision == "bfloat16" else "float32"
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    processor = torch.cpu.get_capabilities()
    able = bool(processor.get("avx512_bf16") or processor.get("amx_bf16"))
    return "bfloat16" if able and not _limited() else "float32"


def usable_precision(stored: Precision, device: torch.device) -> Precision:
    """The precision that a bundle states, but float32 in the place of bfloat16 that the device would only emulate."""
    return resolve_precision("auto", device) if stored == "bfloat16" else stored


def _limited() -> bool:
    """Whether torch or oneDNN was limited to instructions without bfloat16."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2") or limit.upper() in SLOW_ISA
