"""The log of a run: lines for a terminal or a file, the same as JSON for machines, and a bar of what is done."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger("hybriduad")


def set_up(verbose: bool) -> None:
    """Log to stderr: readable in a terminal, plain lines elsewhere.

    The log may hold personal data: names of cases and, in errors, paths of files and cells of a manifest.
    """
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


class JsonLines(logging.Formatter):
    """An entry of the log as an object in a line: time (UTC), level, message, and of a case its ``result``."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {"time": time, "level": record.levelname, "message": record.getMessage()}
        if result := getattr(record, "result", None):
            entry["result"] = result
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


@contextmanager
def json_log(path: Path | None) -> Iterator[None]:
    """While open, the log is also added to ``path``, a JSON object a line."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    level = log.level
    log.addHandler(handler)
    log.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


@contextmanager
def bar() -> Iterator[Callable[[object, int, int], None] | None]:
    """A function to call after every case, which moves a bar with the time to go; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    shown = [getattr(handler, "console", None) for handler in log.handlers]
    console = next((console for console in shown if console is not None), Console(stderr=True))
    columns = (TextColumn("cases"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("cases", total=None)
        yield lambda _, number, count: progress.update(task, completed=number, total=count)
