"""What networks made of slices before: detectors that stand on the same network, as in a benchmark, run it once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

BYTES = 2**29
"""Of results that are kept; those that were asked for longest ago go."""
Result = TypeVar("Result")


class Results:
    """Results of pure functions, each under the content of all that it was given."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0

    def of(self, function: str, given: Sequence[Tensor | np.ndarray | None], make: Callable[[], Result]) -> Result:
        """The result of ``function``, a name that says all but the arrays ``given`` to it: kept, or made now.

        It is shared: whoever gets it must not change it.
        """
        digest = hashlib.sha256(function.encode())
        for array in given:
            _add(digest, array)
        key = digest.hexdigest()
        if key in self._kept:
            self._kept.move_to_end(key)
            kept: Result = self._kept[key]
            return kept
        result = make()
        self._kept[key] = result
        self._bytes += _size(result)
        while self._bytes > BYTES:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return result


_open: ContextVar[Results | None] = ContextVar("results", default=None)


@contextmanager
def shared(results: Results) -> Iterator[None]:
    """While open, every detector takes from ``results`` what it holds, and adds to them."""
    token = _open.set(results)
    try:
        yield
    finally:
        _open.reset(token)


def result_of(
    function: Callable[[], str], given: Sequence[Tensor | np.ndarray | None], make: Callable[[], Result]
) -> Result:
    """As :meth:`Results.of` where some are :func:`shared`; else made now."""
    results = _open.get()
    return make() if results is None else results.of(function(), given, make)


def network_digest(network: torch.nn.Module) -> str:
    """The sha256 of a network: its kind, its ``config`` and its weights."""
    digest = hashlib.sha256(f"{type(network).__module__} {network.config!r}".encode())
    for name, weights in sorted(network.state_dict().items()):
        digest.update(name.encode())
        _add(digest, weights)
    return digest.hexdigest()


def _add(digest: Any, array: Tensor | np.ndarray | None) -> None:
    if array is None:
        digest.update(b"-")
        return
    plain = np.ascontiguousarray(array.detach().cpu().numpy() if isinstance(array, Tensor) else array)
    digest.update(f"{plain.dtype} {plain.shape}".encode())
    digest.update(plain.tobytes())


def _size(result: Any) -> int:
    if isinstance(result, Mapping):
        return sum(_size(part) for part in result.values())
    return int(getattr(result, "nbytes", 0))
