"""Work on several processor cores: a pool of processes of one thread each, started afresh and without fork."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from hybriduad.core.errors import ConfigError
from hybriduad.core.processes import clean_start, end_with_parent, limit_threads

Job = TypeVar("Job")
MEND = "put the call under if __name__ == '__main__', or ask for one worker"


def work_through(work: Callable[[Job], object], jobs: Sequence[Job], workers: int) -> Iterator[Job]:
    """Do ``work`` on all ``jobs`` in ``workers`` processes (1: in this process); yield each, in order, when it is done.

    ``work`` and the jobs are sent to the processes, so ``work`` has to be a function of a module; their exceptions are
    raised here unchanged. When the iteration ends early, jobs that have not begun are dropped; a pool ends with this
    process, also when that is killed.

    Raises:
        ConfigError: a process could not start or was killed, or a process of such a pool asks for a pool.
    """
    if workers == 1:
        for job in jobs:
            with _one_thread():
                work(job)
            yield job
        return
    if multiprocessing.parent_process() is not None:  # most likely a script that a worker imports and so runs again
        raise ConfigError("a process of a pool asks for a pool of its own", mend=MEND)
    pool = ProcessPoolExecutor(workers, mp_context=clean_start([work.__module__]), initializer=_start)
    try:
        for job, future in [(job, pool.submit(work, job)) for job in jobs]:
            future.result()
            yield job
    except BrokenProcessPool as error:
        what = "a worker could not start, or was killed (for memory?)"
        raise ConfigError(what, got=f"{workers} workers", expected="fewer", mend=MEND) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for BLAS and torch, whatever they had before: results are the same in a pool and without."""
    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _start() -> None:
    limit_threads()
    end_with_parent()
