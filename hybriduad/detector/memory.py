"""Slices through a network in batches that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Result = TypeVar("Result")
WANTS = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says of a processor's or a device's memory in an error that has no type of its own."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is for want of memory, of the machine or of the device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(want in text for want in WANTS)


def in_batches(indices: Sequence[int], batch: int, work: Callable[[Sequence[int]], Result]) -> tuple[list[Result], int]:
    """The results of ``work`` on ``indices`` in order, at most ``batch`` at once; half as many after each want of
    memory, which is what is returned beside them.

    Raises:
        MemoryError: not even one at once fits.
    """
    results: list[Result] = []
    begun = 0
    while begun < len(indices):
        try:
            results.append(work(indices[begun : begun + batch]))
            begun += batch
            continue
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            if batch == 1:
                raise MemoryError("out of memory for a single slice; use a machine or device with more") from error
            # The error holds the tensors of the failed batch through its traceback: halve outside of this clause.
        batch = (batch + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results, batch
