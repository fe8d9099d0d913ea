"""Who works on the cases of a cohort: this process, worker processes, or a Ray cluster.

A runner is a generator of ``(request, cases, workers, address)`` that yields the
:class:`~hybriduad.prediction.work.Result` of every case as it comes, in any order. Results are the same bytes whichever
runner, as long as each works in one thread: sums are rounded in the order of the threads.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Case
from hybriduad.prediction.work import Request, Result

ENGINES = ("local", "processes", "ray")
MODULES = {"local": "local", "processes": "processes", "ray": "cluster"}


def chosen(engine: str | None, nprocs: int | None, address: str | None) -> str:
    """The runner that is meant: stated, or by the number of workers.

    Raises:
        ConfigError: an unknown runner, or options that do not go with it.
    """
    name = engine or ("processes" if (nprocs or 1) > 1 else "local")
    if name not in ENGINES:
        raise ConfigError("unknown engine", got=repr(name), expected=f"one of {list(ENGINES)}")
    if nprocs is not None and nprocs < 1:
        raise ConfigError("no worker", got=f"--nprocs {nprocs}", expected="at least 1")
    if name == "local" and (nprocs or 1) > 1:
        raise ConfigError("several workers in one process", got=f"--nprocs {nprocs}", mend="--engine processes or ray")
    if address is not None and name != "ray":
        raise ConfigError("address without a cluster", got=address, mend="--engine ray")
    return name


def results(
    engine: str, request: Request, cases: Sequence[Case], nprocs: int | None, address: str | None
) -> Iterator[Result]:
    """The result of every case from the runner of that name.

    Raises:
        BundleError: an unusable bundle.
        ConfigError: a worker that cannot start, an unusable device, no cluster at ``address``.
        DataError: an unusable atlas or cache.
    """
    runner = importlib.import_module(f"hybriduad.prediction.runners.{MODULES[engine]}")
    found: Iterator[Result] = runner.run(request, cases, nprocs, address)
    return found
