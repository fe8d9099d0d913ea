"""In this process, one case after the other, in as many threads as torch has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hybriduad.core.types import Case
from hybriduad.prediction.work import Request, Result, Worker, complete


def run(request: Request, cases: Sequence[Case], nprocs: int | None, address: str | None) -> Iterator[Result]:
    """As :func:`hybriduad.prediction.runners.results`."""
    worker = Worker(request)
    for case in cases:
        yield complete(worker, case)
