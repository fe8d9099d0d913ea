"""Worker processes on this machine, each with its own model and in one thread, that prepare the next case ahead.

While the network works on a case, a second thread of the worker prepares the next. A worker that ends (killed for
memory, crashed in a library) takes no other case with it: another takes its place, and the cases it held are tried
once more, each alone, before they count as failed.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from hybriduad.core.errors import ConfigError, HybridUADError, unusable
from hybriduad.core.processes import clean_start, end_with_parent, limit_threads, usable_cores
from hybriduad.core.types import Case
from hybriduad.detector.bundle import verify
from hybriduad.prediction.work import (
    Ahead,
    Request,
    Result,
    Worker,
    complete,
    lost,
    warnings_collected,
    with_warnings,
)

log = logging.getLogger(__name__)
NO_START = "a worker could not start, or was killed (for memory?)"
MEND = "put the call under if __name__ == '__main__', or ask for fewer workers"
TRIES = 2
"""How often a case may take its worker with it."""


def run(request: Request, cases: Sequence[Case], nprocs: int | None, address: str | None) -> Iterator[Result]:
    """As :func:`hybriduad.prediction.runners.results`; by default a worker a usable core."""
    if multiprocessing.parent_process() is not None:  # most likely a script that a worker imports and so runs again
        raise ConfigError("a process of a pool asks for a pool of its own", mend=MEND)
    pool = _Pool(request, cases, min(nprocs or usable_cores(), len(cases)))
    try:
        yield from pool.results()
    finally:
        pool.close()


@dataclass
class _Hand:
    """A worker process, our end of its link, and the cases that it was given and has not finished."""

    process: Any
    link: Connection
    given: deque[Case] = field(default_factory=deque)
    ready: bool = False


class _Pool:
    def __init__(self, request: Request, cases: Sequence[Case], workers: int) -> None:
        self.request = request
        self.waiting, self.alone = deque(cases), deque[Case]()
        self.tries: Counter[str] = Counter()
        self.context: Any = clean_start(["hybriduad.prediction.work", *_libraries(request)])
        self.hands = [self._hire() for _ in range(workers)]

    def _hire(self) -> _Hand:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.request), daemon=True)
        try:
            process.start()
        except (OSError, EOFError) as error:  # the server that forks workers ended in an import, or there is no process
            raise ConfigError(NO_START, got=f"{type(error).__name__}: {error}", mend=MEND) from error
        theirs.close()
        return _Hand(process, ours)

    def results(self) -> Iterator[Result]:
        while self.waiting or self.alone or any(hand.given for hand in self.hands):
            for hand in self.hands:
                self._give(hand)
            heard = connection.wait([*(hand.link for hand in self.hands), *(h.process.sentinel for h in self.hands)])
            for hand in list(self.hands):
                if hand.link in heard:
                    yield from self._hear(hand)
                elif hand.process.sentinel in heard and not hand.link.poll():
                    yield from self._bury(hand)

    def _give(self, hand: _Hand) -> None:
        """Two cases at most: the one in work, and the next; one alone that took its worker with it before."""
        suspect = any(self.tries[case.name] for case in hand.given)
        with suppress(OSError):  # it has ended: its link says so
            if hand.ready and self.alone and not hand.given:
                self._send(hand, self.alone.popleft())
            while hand.ready and self.waiting and len(hand.given) < 2 and not suspect and not self.alone:
                self._send(hand, self.waiting.popleft())
                suspect = any(self.tries[case.name] for case in hand.given)

    def _send(self, hand: _Hand, case: Case) -> None:
        hand.given.append(case)
        hand.link.send(case)

    def _hear(self, hand: _Hand) -> Iterator[Result]:
        try:
            said = hand.link.recv()
        except (EOFError, OSError):
            yield from self._bury(hand)
            return
        if isinstance(said, HybridUADError):
            raise said
        if isinstance(said, Result):
            hand.given.popleft()
            yield said
        hand.ready = True

    def _bury(self, hand: _Hand) -> Iterator[Result]:
        hand.process.join(timeout=10)
        code = hand.process.exitcode
        if not hand.ready:
            got = f"exit code {code}"
            raise ConfigError(NO_START, got=got, mend=MEND)
        for case in hand.given:
            self.tries[case.name] += 1
            if self.tries[case.name] < TRIES:
                self.alone.append(case)
            else:
                yield lost(
                    self.request, case, f"its worker ended with exit code {hand.process.exitcode}, {TRIES} times"
                )
        log.warning("a worker ended with exit code %s: another takes its place", hand.process.exitcode)
        hand.link.close()
        self.hands[self.hands.index(hand)] = self._hire()

    def close(self) -> None:
        for hand in self.hands:
            hand.link.close()  # which ends the worker, unless it is in the middle of a case
        for hand in self.hands:
            if hand.given:
                hand.process.terminate()
            hand.process.join(timeout=30)
            if hand.process.is_alive():
                hand.process.kill()


def _libraries(request: Request) -> list[str]:
    """Modules that the networks of a bundle import when they are built, which takes seconds."""
    model = verify(request.bundle)
    stage1 = model if model.kind == "reconstructor" else model.reconstructor
    families = [f"hybriduad.reconstructors.{stage1.run.model.name}"] if stage1 is not None else []
    return [*families, "segmentation_models_pytorch"] if model.kind == "detector" else families


def _serve(link: Connection, request: Request) -> None:
    """The life of a worker: load the model, then take cases and hand their results over until the link is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the parent ends its workers
    limit_threads()
    end_with_parent()
    with warnings_collected() as collected, ThreadPoolExecutor(1, initializer=limit_threads) as preparer:
        try:
            worker = Worker(request)
        except (HybridUADError, OSError) as error:
            with suppress(OSError):  # another worker has said so, and the pool is closed
                link.send(error if isinstance(error, HybridUADError) else unusable(error))
            return
        queue: deque[tuple[Case, Future[Ahead | None]]] = deque()
        try:
            link.send(None)
            while True:
                while not queue or link.poll():
                    case = link.recv()
                    queue.append((case, preparer.submit(worker.ahead, case)))
                case, future = queue.popleft()
                failed = future.exception()  # it fails in its turn again, where failures are told
                link.send(with_warnings(complete(worker, case, None if failed else future.result()), collected))
                del future
        except (EOFError, OSError):
            return
