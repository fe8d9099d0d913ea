"""What a system costs in prediction, counted with untrained networks before anything is trained."""

from __future__ import annotations

import logging

from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun, BenchmarkSystem
from hybriduad.config.runs import DetectorRun, ReconstructorRun
from hybriduad.core.errors import reason_of
from hybriduad.speed.operations import count_slice_gflops

log = logging.getLogger(__name__)


def system_gflops(run: BenchmarkRun) -> dict[str, float]:
    """System -> operations (1e9) of one slice, for the part that is its score; systems that cannot be counted are
    named in the log and left out."""
    costs = {}
    for name, system in run.systems.items():
        try:
            costs[name] = _gflops(run, system)
        except Exception as error:  # no error of a system ends the others
            log.warning("operations of %s not counted: %s", name, reason_of(error))
            log.debug("traceback of %s", name, exc_info=True)
    return costs


def _gflops(run: BenchmarkRun, system: BenchmarkSystem) -> float:
    first, common = system.reconstructor, run.common
    stage1: ReconstructorRun | None = None
    if first is not None:
        changes = [*common.of("reconstructor", first.config), *first.set]
        stage1 = configs.load(first.config, changes, kind="reconstructor")
    chain: list[DetectorRun] = [
        configs.load(training.config, [*common.of("detector", training.config), *training.set], kind="detector")
        for training in system.detector
    ]
    last = chain[-1] if chain else stage1
    assert last is not None  # a system without any training is refused by its config
    # The network is that of the first detector, whatever continues it.
    return count_slice_gflops(system.part, stage1, chain[0] if chain else None, mirror=last.mirror)
