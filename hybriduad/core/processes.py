"""What worker processes share: a clean start without fork, one thread each, an end with their parent, their memory.

A fork would copy the locks of torch's threads; forkserver (spawn where there is none) starts from a clean process.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.context import BaseContext
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits


def usable_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def clean_start(preloaded: Sequence[str]) -> BaseContext:
    """How processes are started; ``preloaded`` modules, whose imports take seconds, are imported once for all."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(list(preloaded))  # spawn ignores it
    return context


def limit_threads() -> None:
    """One thread for BLAS, torch and SimpleITK in this thread and in those that it starts."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # read when SimpleITK is imported, at the first scan
    threadpool_limits(1)
    torch.set_num_threads(1)


def end_with_parent() -> None:
    """End this process when its parent ends, also when that is killed.

    A worker waits for jobs on a pipe that it may hold open itself: it would outlive its parent.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def resident_mb() -> float:
    """Memory that this process holds now, in MB (10^6 bytes); where the system does not tell, the most it ever held."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return peak_mb()


def peak_mb() -> float:
    """The most memory that this process ever held, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
