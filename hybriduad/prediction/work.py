"""One case from its files to its record: a pure function of bundle, case and request, whichever runner calls it."""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hybriduad.config.runs import Anatomy
from hybriduad.core.errors import ConfigError, DataError, ToolError, reason_of
from hybriduad.core.processes import resident_mb
from hybriduad.core.stopwatch import Stopwatch, step
from hybriduad.core.types import Case, Prediction
from hybriduad.detector.bundle import verify
from hybriduad.detector.loading import load_detector
from hybriduad.prediction import failures
from hybriduad.prediction.case import predict_case, prepare_case
from hybriduad.prediction.case_files import write_case
from hybriduad.prediction.files import check_same_scan, record_of, remove_case
from hybriduad.prediction.flags import LACKING
from hybriduad.prediction.quality import with_quality
from hybriduad.scan.atlas import read_atlas
from hybriduad.scan.brain_ways import brain_name, chosen
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.preparation import Prepared

log = logging.getLogger("hybriduad")


@dataclass(frozen=True)
class Request:
    """What is asked of every case: a detector's ``bundle``, the folder ``out``, the parts to write, the rule of the
    mask; ``overwrite`` does cases again that are done, ``retry_failed`` those that failed; ``brain`` is how brains are
    found, by default as the bundle says, and ``way`` the name of that on the machine that asks, with its version;
    ``atlas`` the files of an atlas, its labels and their names."""

    bundle: Path
    out: Path
    maps: tuple[str, ...]
    rule: str | None = None
    device: str = "auto"
    cache: Path | None = None
    overwrite: bool = False
    retry_failed: bool = False
    brain: str | None = None
    way: str | None = None
    atlas: tuple[Path, Path | None] | None = None


@dataclass(frozen=True)
class Result:
    """What became of a case, and at what cost.

    ``seconds`` by step: read, prepare, network, maps (filters and fusion), restore (back to the scan), write, other.
    ``memory_mb`` is what the process held after it, ``worker`` which process that was.
    """

    case: str
    status: Literal["done", "kept", "failed"]
    reason: str = ""
    traceback: str = ""
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: float = 0.0
    worker: str = ""


class Worker:
    """A request with its model in memory, for any number of cases; ``unfit`` says why this machine finds no brains.

    Raises:
        BundleError: an unusable bundle.
        ConfigError: an unusable device.
        DataError: an unusable atlas.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.bundle = verify(request.bundle)
        self.detector = load_detector(request.bundle, request.device)
        self.unfit = fault_of_machine(self.detector.anatomy, request)
        if self.unfit is None:
            self.detector.anatomy = chosen(self.detector.anatomy, request.brain)
        self.cache = PreparedCache(request.cache) if request.cache is not None else None
        self.atlas = None if request.atlas is None else read_atlas(*request.atlas)
        self.name = f"{platform.node()}:{os.getpid()}"

    def ahead(self, case: Case) -> Ahead | None:
        """What can be made of a case before its turn; None where it is done, failed before or will fail."""
        request = self.request
        if self.unfit is not None and case.brain is None:
            return None
        if not request.overwrite and record_of(request.out, case).is_file():
            return None
        if not (request.retry_failed or request.overwrite) and failures.failed_for_good(request.out, case):
            return None
        watch = Stopwatch()
        with watch.listening():
            prepared = prepare_case(self.detector, case, self.cache)
        return Ahead(prepared, dict(watch.seconds))


@dataclass(frozen=True)
class Ahead:
    """A case prepared before its turn, and the seconds of that."""

    prepared: Prepared
    seconds: dict[str, float]


def complete(worker: Worker, case: Case, ahead: Ahead | None = None) -> Result:
    """Predict a case and write its files, the record last, unless it is done; a failure is remembered in the folder.

    No error of the case is raised.
    """
    request = worker.request
    record = record_of(request.out, case)
    watch = Stopwatch()
    began = time.perf_counter() - sum(ahead.seconds.values() if ahead else ())
    try:
        if request.overwrite:
            remove_case(request.out, case)
        if record.is_file():
            case.check((*worker.detector.anatomy.contrasts, case.reference, "brain"))
            check_same_scan(record, case, worker.detector.anatomy.contrasts)
            return Result(case.name, "kept", worker=worker.name)
    except Exception as error:  # what is done in its place is of another scan: nothing to remember
        return Result(case.name, "failed", reason_of(error), traceback.format_exc(), worker=worker.name)
    again = request.retry_failed or request.overwrite
    if not again and (before := failures.failed_for_good(request.out, case)):
        known = f"failed on {before.time} already, its files are the same; --retry-failed tries it again"
        return Result(case.name, "failed", f"{before.reason} ({known})", worker=worker.name)
    try:
        if worker.unfit is not None and case.brain is None:
            raise worker.unfit
        with watch.listening():
            prediction = predict_case(
                worker.detector,
                case,
                rule=request.rule,
                cache=worker.cache,
                prepared=ahead.prepared if ahead else None,
            )
            prediction = with_quality(prediction, case, worker.bundle.anatomy.contrasts)
            rule = request.rule or worker.detector.thresholds.default
            with step("write"):
                write_case(request.out, case, prediction, request.maps, worker.bundle, rule, began, worker.atlas)
        failures.forget(request.out, case)
    except Exception as error:  # no error of a case ends the others
        reason = reason_of(error)
        failures.remember(request.out, case, reason, lies_in_files=lies_in_files(error))
        return Result(case.name, "failed", reason, traceback.format_exc(), worker=worker.name)
    seconds = {**(ahead.seconds if ahead else {})}
    for name, took in watch.seconds.items():
        seconds[name] = seconds.get(name, 0.0) + took
    seconds["other"] = max(time.perf_counter() - began - sum(seconds.values()), 0.0)
    return Result(
        case.name,
        "done",
        warnings=_warnings(case, prediction),
        seconds={name: round(took, 4) for name, took in seconds.items()},
        memory_mb=round(resident_mb(), 1),
        worker=worker.name,
    )


def lies_in_files(error: Exception) -> bool:
    """Whether a case failed for what is in its files: not for a tool that failed on them, a package that its machine
    lacks, or want of memory, which may be otherwise the next time or elsewhere."""
    return isinstance(error, DataError) and not isinstance(error, ToolError)


def fault_of_machine(anatomy: Anatomy, request: Request) -> ConfigError | None:
    """Why this machine cannot find brains as the one that asked can: a package that is not installed, or that is there
    in another version, whose brains are others. None where it can.

    The machines of a cluster may differ. Cases with a brain mask do not need it.
    """
    try:
        here = brain_name(chosen(anatomy, request.brain))
    except ConfigError as error:
        return error
    if request.way in (None, here):
        return None
    mend = "install the same packages on every machine"
    return ConfigError("brains by another package than was asked for", got=here, expected=request.way, mend=mend)


def lost(request: Request, case: Case, what: str) -> Result:
    """The result of a case whose process ended in it; remembered."""
    reason = f"{what}; give each worker more memory or ask for fewer, or leave the case out."
    failures.remember(request.out, case, reason, lies_in_files=False)
    return Result(case.name, "failed", reason)


def _warnings(case: Case, prediction: Prediction) -> tuple[str, ...]:
    notes, warnings = prediction.notes, []
    if absent := notes["absent_contrasts"]:
        warnings.append(f"{case.name} lacks {', '.join(absent)}: less sure, and thresholds may not fit")
    if parts := [f"{name} in {share:.0%}" for name, share in notes["lacking"].items() if share > LACKING]:
        warnings.append(f"{case.name} lacks {', '.join(parts)} of the brain: less sure there")
    if not notes["orientation_stated"]:
        warnings.append(f"{case.name} states no orientation in its header: taken as running left, forward, up")
    if few := notes.get("slices_at_once"):
        warnings.append(f"{case.name} wanted memory: {few} slices at once")
    return tuple(warnings)


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def warnings_collected() -> Iterator[_Collected]:
    """While open, warnings of this process are kept instead of shown: a worker hands them over with its results."""
    handler, before, propagate = _Collected(), log.handlers[:], log.propagate
    log.handlers[:], log.propagate = [handler], False
    try:
        yield handler
    finally:
        log.handlers[:], log.propagate = before, propagate


def with_warnings(result: Result, collected: _Collected) -> Result:
    """A result with what was logged since the last."""
    more = tuple(collected.messages)
    collected.messages.clear()
    return replace(result, warnings=(*more, *result.warnings))
