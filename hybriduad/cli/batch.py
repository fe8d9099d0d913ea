"""The verb ``predict``: a cohort by a runner, with its log, its bar, its end, and the pages of what it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from hybriduad.cli import outcomes
from hybriduad.cli.log import bar, json_log
from hybriduad.cli.options import FAILED_CASES
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Case
from hybriduad.prediction import cohort as prediction
from hybriduad.prediction.files import DEFAULT_MAPS


def predict(
    bundle: Path,
    cohort: str | Sequence[Case],
    *,
    out: Path,
    dry_run: bool,
    log_json: Path | None,
    maps: Sequence[str],
    report: Path | None,
    shown: Sequence[Case] | None = None,
    **options: Any,
) -> None:
    """As :func:`hybriduad.prediction.cohort.predict_cohort`, or with ``dry_run`` only what it would do.

    ``report`` is the folder of the pages that are written at the end, failed cases or not; ``shown`` are the cases that
    they look for scans in, by default those predicted.

    Raises:
        ConfigError: pages of a shard, or pages that cannot be written there; before anything is predicted.
        Exit: with 3, if some cases failed or would.
    """
    maps = maps or DEFAULT_MAPS
    if report is not None:
        from hybriduad.report.build import check_place, write_report

        if options.get("shard") is not None:
            mend = "write them once all shards are done: 'hybriduad report', or 'hybriduad-bids ... group'"
            raise ConfigError("--report in a shard, which would write the pages of other shards too", mend=mend)
        check_place(report, out)
    if dry_run:
        from hybriduad.prediction.plan import plan_cohort

        asked = {name: value for name, value in options.items() if name not in ("address", "cache")}
        plan = plan_cohort(bundle, cohort, out=out, maps=maps, log_file=log_json, **asked)
        typer.echo(str(plan))
        if plan.wrong:
            raise typer.Exit(FAILED_CASES)
        return
    pages = None
    with json_log(log_json):
        with bar() as watch:
            outcome = prediction.predict_cohort(
                bundle, cohort, out=out, maps=maps, log_file=log_json, watch=watch, **options
            )
        if report is not None:
            if shown is None:
                shown = prediction.cases_of(cohort, options["split"], options["contrast"], None)
            pages = write_report(out, out=report, cohort=shown)
    outcomes.say_outcome(outcome, pages=pages)
