"""Where the time of a case goes: steps that name themselves, timed only while somebody listens."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_open: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


class Stopwatch:
    """Seconds by the name of a step; a step within another is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    @contextmanager
    def listening(self) -> Iterator[Stopwatch]:
        """While open, steps of this thread are added to it."""
        token = _open.set(self)
        try:
            yield self
        finally:
            _open.reset(token)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time until the end to ``name``, without that of the steps in it."""
        self._inside.append(0.0)
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.seconds[name] += took - self._inside.pop()
            if self._inside:
                self._inside[-1] += took


@contextmanager
def step(name: str) -> Iterator[None]:
    """A step of a case; as a decorator, every call of a function."""
    watch = _open.get()
    if watch is None:
        yield
        return
    with watch.timed(name):
        yield
