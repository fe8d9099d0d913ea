"""What verbs say at their end, and with which exit code they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from hybriduad.cli import options


def say_bundle(bundle: Any) -> None:
    """Print what was made of a model."""
    typer.echo(f"{bundle.kind} {bundle.digest[:12]} in {bundle.folder}")


def say_outcome(outcome: Any, missing: Sequence[str] = (), *, pages: Any = None) -> None:
    """Print how many cases are done, those without a prediction, and those that failed with their reasons.

    ``pages``: what became of the report of these cases, if one was written.

    Raises:
        Exit: with :data:`hybriduad.cli.options.FAILED_CASES`, if some failed or are missing.
    """
    counts = [f"{len(outcome.done)} done", f"{len(outcome.kept)} kept", f"{len(outcome.failed)} failed"]
    counts += [f"{len(missing)} without a prediction"] if missing else []
    typer.echo(f"{', '.join(counts)}, in {outcome.out}")
    if missing:
        typer.echo(f"without a prediction: {', '.join(missing)}", err=True)
    _name(outcome.failed)
    if pages is not None:
        _count_pages(pages)
        _name(pages.failed)
    if outcome.failed or missing or (pages is not None and pages.failed):
        raise typer.Exit(options.FAILED_CASES)


def say_pages(pages: Any) -> None:
    """Print how many pages of a report were written, and those that failed with their reasons.

    Raises:
        Exit: with :data:`hybriduad.cli.options.FAILED_CASES`, if any did.
    """
    _count_pages(pages)
    say_failures(pages.failed)


def say_failures(failed: Mapping[str, str]) -> None:
    """Print what failed, each with its reason.

    Raises:
        Exit: with :data:`hybriduad.cli.options.FAILED_CASES`, if any did.
    """
    _name(failed)
    if failed:
        raise typer.Exit(options.FAILED_CASES)


def _count_pages(pages: Any) -> None:
    from hybriduad.report.build import INDEX

    typer.echo(f"{len(pages.done)} pages, {len(pages.failed)} failed, in {pages.out / INDEX}")


def _name(failed: Mapping[str, str]) -> None:
    for name, reason in failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
