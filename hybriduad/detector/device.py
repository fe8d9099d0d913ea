"""Which device and which precision networks run in."""

from __future__ import annotations

import torch

from hybriduad.config.runs import Precision
from hybriduad.core.errors import ConfigError


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
    """``auto`` is bfloat16 where the device multiplies it faster than float32, else float32."""
    if precision != "auto":
        return "bfloat16" if precision == "bfloat16" else "float32"
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"
