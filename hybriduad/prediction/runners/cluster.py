"""A Ray cluster, or one started on this machine: actors that hold the model, places of cases in, results out.

Every machine of the cluster must see bundle, scans and the folder of the predictions under the same paths. Ray is never
asked what is done: the records in that folder say it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hybriduad.core.errors import ConfigError, HybridUADError, unusable
from hybriduad.core.processes import limit_threads, usable_cores
from hybriduad.core.types import Case
from hybriduad.prediction.files import FAILURES
from hybriduad.prediction.work import (
    Request,
    Result,
    Worker,
    complete,
    lost,
    warnings_collected,
    with_warnings,
)

log = logging.getLogger(__name__)
STORE_BYTES = 2**27
"""Of the object store of a cluster started here: no scan goes through it."""
TRIES = 2
"""How often a case may take its actor with it: Ray alone would try it for ever."""


def run(request: Request, cases: Sequence[Case], nprocs: int | None, address: str | None) -> Iterator[Result]:
    """As :func:`hybriduad.prediction.runners.results`; ``address`` or RAY_ADDRESS, else a cluster of this machine.

    By default an actor a core or, with a CUDA device, an actor a device of the cluster.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at ``address``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError("Ray is not installed", got=error, mend="pip install '.[cluster]' in the checkout") from error
    begun = not ray.is_initialized()
    if begun:
        _begin(ray, address or os.environ.get("RAY_ADDRESS"), nprocs)
    try:
        yield from _through(ray, request, cases, nprocs)
    finally:
        if begun:
            ray.shutdown()


def _begin(ray: Any, address: str | None, nprocs: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address and address != "local":
            ray.init(address=address, **quiet)
        else:
            cores = nprocs or usable_cores()
            ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        mend = "'ray start --head' there, or leave --address out for a cluster of this machine"
        raise ConfigError("no Ray cluster", got=text, expected=address or "one on this machine", mend=mend) from error


def _through(ray: Any, request: Request, cases: Sequence[Case], nprocs: int | None) -> Iterator[Result]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a case whose actor was killed is named below, and ends no other
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    there = ray.cluster_resources()
    devices = int(there.get("GPU", 0)) if request.device.startswith(("auto", "cuda")) else 0
    actors = min(nprocs or devices or max(int(there.get("CPU", 1)), 1), len(cases))
    device = {"num_gpus": devices / actors if actors > devices else 1} if devices else {}
    rows = [{"place": place} for place in range(len(cases))]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_args=(request, tuple(cases), time.time_ns()),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        **device,
    )
    missing = dict(enumerate(cases))
    for row in results.iter_rows():
        if row["place"] < 0:
            raise row["result"]
        del missing[row["place"]]
        yield row["result"]
    for case in missing.values():
        yield lost(request, case, "its Ray actor ended")


class _Actor:
    """Loads the model once; a fault of bundle, device or atlas comes with the first case, not raised for ever."""

    def __init__(self, request: Request, cases: tuple[Case, ...], run_number: int) -> None:
        limit_threads()
        self.request, self.cases, self.run_number = request, cases, run_number
        self.fault: HybridUADError | None = None
        try:
            self.worker = Worker(request)
        except (HybridUADError, OSError) as error:
            self.fault = error if isinstance(error, HybridUADError) else unusable(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (place,) = (int(number) for number in batch["place"])
        if self.fault is not None:
            return {"place": [-1], "result": [self.fault]}
        with warnings_collected() as collected, self._begun(self.cases[place]) as tries:
            if tries > TRIES:
                gone = lost(self.request, self.cases[place], f"its actor ended {TRIES} times")
                return {"place": [place], "result": [gone]}
            result = complete(self.worker, self.cases[place])
            return {"place": [place], "result": [with_warnings(result, collected)]}

    @contextmanager
    def _begun(self, case: Case) -> Iterator[int]:
        """The how-manieth time this run begins a case: a file says so, which stays where the actor ends in it.

        Named as what is half written, it is removed some day after the run was killed.
        """
        folder = self.request.out / FAILURES
        folder.mkdir(exist_ok=True)
        tries = 1 + len(list(folder.glob(f".{case.name}.{self.run_number}.*")))
        (folder / f".{case.name}.{self.run_number}.{tries}").touch()
        try:
            yield tries
        finally:
            for marker in folder.glob(f".{case.name}.{self.run_number}.*"):
                marker.unlink(missing_ok=True)
