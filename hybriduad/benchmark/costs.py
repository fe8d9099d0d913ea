"""What a system costs in prediction, counted with untrained networks before anything is trained."""

from __future__ import annotations

import logging

from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun, BenchmarkSystem, Training
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
    def read(kind: str, training: Training | None, common: tuple[str, ...]) -> ReconstructorRun | DetectorRun | None:
        return None if training is None else configs.load(training.config, [*common, *training.set], kind=kind)

    reconstructor = read("reconstructor", system.reconstructor, run.common.reconstructor)
    detector = read("detector", system.detector, run.common.detector)
    tuned = read("detector", system.few_labels, run.common.few_labels)  # of the network of the detector before it
    last = tuned or detector or reconstructor
    assert last is not None  # a system without any training is refused by its config
    assert not isinstance(reconstructor, DetectorRun)
    assert not isinstance(detector, ReconstructorRun)
    return count_slice_gflops(system.part, reconstructor, detector, mirror=last.mirror)
