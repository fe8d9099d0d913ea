"""The verb ``predict``: a cohort by a runner, with its log, its bar and its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from hybriduad.cli import outcomes
from hybriduad.cli.log import bar, json_log
from hybriduad.prediction import cohort as prediction
from hybriduad.prediction.files import DEFAULT_MAPS


def predict(
    bundle: Path, cohort: str, *, dry_run: bool, log_json: Path | None, maps: Sequence[str], **options: Any
) -> None:
    """As :func:`hybriduad.prediction.cohort.predict_cohort`, or with ``dry_run`` only what it would do.

    Raises:
        Exit: with 3, if some cases failed or would.
    """
    maps = maps or DEFAULT_MAPS
    if dry_run:
        from hybriduad.prediction.plan import plan_cohort

        asked = {name: value for name, value in options.items() if name not in ("address", "cache")}
        plan = plan_cohort(bundle, cohort, maps=maps, log_file=log_json, **asked)
        typer.echo(str(plan))
        if plan.wrong:
            raise typer.Exit(3)
        return
    with json_log(log_json), bar() as watch:
        outcome = prediction.predict_cohort(bundle, cohort, maps=maps, log_file=log_json, watch=watch, **options)
    outcomes.say_outcome(outcome)
