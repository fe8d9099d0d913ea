"""The command ``hybriduad-bids``: a BIDS App (https://bids-apps.neuroimaging.io, DOI 10.1371/journal.pcbi.1005209)."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from hybriduad import __version__
from hybriduad.cli import log, options, outcomes
from hybriduad.core.errors import ConfigError, DataError, HybridUADError, unusable

ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "run": "run",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "direction": "dir",
    "part": "part",
    "echo": "echo",
}
"""Names of PyBIDS, which filter files use, -> labels in file names."""
NUMBERS = ("run", "echo")
VALIDATORS = ("bids-validator-deno", "bids-validator")


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the ``hybriduad-bids`` command; exit codes as of ``hybriduad``."""
    stated = _parser().parse_args(arguments)
    log.set_up(stated.verbose)
    try:
        run(stated)
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from end
    except (HybridUADError, OSError) as error:
        typer.echo(f"hybriduad-bids: {error if isinstance(error, HybridUADError) else unusable(error)}", err=True)
        raise SystemExit(options.USER_ERROR) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hybriduad-bids",
        description="Find lesions in the brain MRI of a BIDS data set. Research use only: not a medical device, not "
        "for diagnosis or treatment.",
        epilog="Exit codes: 0 done, 2 something to mend, 3 some cases failed.",
    )
    parser.add_argument("bids_dir", type=Path, help="Folder of the data set.")
    parser.add_argument("output_dir", type=Path, help="Folder of the BIDS derivative; what is there is continued.")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant predicts; group makes the table of all cases and, in the folder 'report', their pages.",
    )
    parser.add_argument("--bundle", type=Path, help="Model folder; needed by participant.")
    for name, what in (("participant", "subjects"), ("session", "sessions")):
        parser.add_argument(
            f"--{name}-label",
            f"--{name}_label",
            nargs="+",
            metavar="LABEL",
            help=f"Only these {what}, with or without prefix.",
        )
    parser.add_argument("-w", "--work-dir", "--work_dir", type=Path, help="Folder for prepared volumes.")
    parser.add_argument(
        "--skip-bids-validation", "--skip_bids_validation", action="store_true", help="Do not call the BIDS validator."
    )
    parser.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="JSON",
        help='Which files of a suffix, as {"flair": {"session": "01", "acquisition": null}}; null: without it.',
    )
    parser.add_argument("--maps", nargs="+", metavar="MAP", help="To write beside score, mask and brain, or 'all'.")
    parser.add_argument("--report", action="store_true", help="Of participant: at its end also do what group does.")
    _add(parser, options.Rule)
    _add(parser, options.Brain)
    _add(parser, options.AtlasFile)
    _add(parser, options.AtlasNames)
    _add(parser, options.Engine)
    _add(parser, options.Nprocs, "--n_cpus")
    _add(parser, options.Device, default="auto")
    _add(parser, options.Address)
    _add(parser, options.Shard)
    _add(parser, options.RetryFailed)
    _add(parser, options.DryRun)
    _add(parser, options.Overwrite)
    _add(parser, options.LogJson)
    _add(parser, options.Verbose)
    parser.add_argument("--version", action="version", version=f"hybriduad-bids {__version__}")
    return parser


def _add(parser: argparse.ArgumentParser, option: Any, *aliases: str, default: Any = None) -> None:
    """Add an option of ``hybriduad predict`` under its own names, with its help and what it takes."""
    annotated, stated = get_args(option)
    names = (stated.default, *stated.param_decls, *aliases)  # inside Annotated the first name stands there
    (kind,) = [kind for kind in (get_args(annotated) or (annotated,)) if kind is not type(None)]
    if kind is bool:
        parser.add_argument(*names, action="store_true", help=stated.help)
    elif get_origin(kind) is Literal:
        parser.add_argument(*names, choices=get_args(kind), default=default, help=stated.help)
    else:
        parser.add_argument(*names, type=kind, metavar=stated.metavar, default=default, help=stated.help)


def run(stated: argparse.Namespace) -> None:
    """The level that is asked for.

    Raises:
        HybridUADError: something to mend.
        Exit: with 3, if some cases failed.
    """
    if not stated.bids_dir.is_dir():
        raise DataError("no such data set", got=stated.bids_dir, expected="a BIDS folder", mend="check the path")
    if stated.analysis_level == "group":
        if stated.shard or stated.dry_run:
            got, mend = "--shard or --dry-run", "leave it out: group is of all cases"
            raise ConfigError("option of the participant level alone", got=got, mend=mend)
        with log.json_log(stated.log_json):
            return group(stated.output_dir, _cases(stated))
    if stated.bundle is None:
        raise ConfigError("participant level without a model", expected="--bundle DIR")
    if stated.output_dir.resolve() == stated.bids_dir.resolve():
        mend = "choose another folder, as BIDS_DIR/derivatives/hybriduad"
        raise ConfigError("output folder is the data set itself", got=stated.output_dir, mend=mend)
    if not stated.skip_bids_validation:
        validate(stated.bids_dir)
    from hybriduad.cli import batch
    from hybriduad.prediction.files import DEFAULT_MAPS, PAGES

    shown = cases = _cases(stated)
    for kind, prefix in (("participant", "sub-"), ("session", "ses-")):
        if labels := getattr(stated, f"{kind}_label"):
            cases = _chosen(cases, {"participant": "subject"}.get(kind, kind), [x.removeprefix(prefix) for x in labels])
    batch.predict(
        stated.bundle,
        cases,
        out=stated.output_dir,
        dry_run=stated.dry_run,
        log_json=stated.log_json,
        maps=tuple(dict.fromkeys([*DEFAULT_MAPS, *(stated.maps or ())])),
        report=stated.output_dir / PAGES if stated.report else None,
        shown=shown,
        rule=stated.rule,
        brain=stated.brain,
        atlas=stated.atlas,
        atlas_names=stated.atlas_names,
        device=stated.device,
        engine=stated.engine,
        nprocs=stated.nprocs,
        address=stated.address,
        shard=options.part(stated.shard, "bad shard", "I/N, as 1/8"),
        cache=stated.work_dir,
        overwrite=stated.overwrite,
        retry_failed=stated.retry_failed,
    )


def _cases(stated: argparse.Namespace) -> list[Any]:
    """The cases of the data set, of the files that are wanted."""
    from hybriduad.core import plugins

    wanted = file_filter(stated.bids_filter_file)
    return list(plugins.load("datasets", "bids").cases(stated.bids_dir.absolute(), wanted=wanted))


def group(folder: Path, cases: Sequence[Any]) -> None:
    """Write the table of all cases, and in its folder ``report`` a page a case and one of all.

    Raises:
        DataError: no predictions there.
        Exit: with 3, if some cases failed.
    """
    from hybriduad.prediction.files import MODEL, PAGES
    from hybriduad.prediction.group import TABLE, write_group_tables
    from hybriduad.report.build import write_report

    if not (folder / MODEL).is_file():
        raise DataError("no predictions", where=folder, mend="run the participant level first")
    rows = write_group_tables(folder)
    typer.echo(f"{len(rows)} cases in {folder / TABLE}")
    outcomes.say_pages(write_report(folder, out=folder / PAGES, cohort=cases))


def _chosen(cases: Sequence[Any], part: str, labels: Sequence[str]) -> list[Any]:
    there = {getattr(case, part) for case in cases}
    if missing := sorted(set(labels) - there):
        raise DataError(f"no such {part} in the data set", got=missing, expected=f"some of {sorted(there - {''})[:20]}")
    return [case for case in cases if getattr(case, part) in labels]


def file_filter(path: Path | None) -> Callable[[dict[str, str], str], bool] | None:
    """Whether a filter file wants the file of these labels and suffix; None without a filter file.

    Raises:
        ConfigError: no JSON object of objects, or an entity that is none.
    """
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        filters = {suffix.lower(): dict(entities) for suffix, entities in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        expected = 'as {"flair": {"session": "01"}}'
        raise ConfigError("bad filter file", where=path, got=error, expected=expected) from error
    if unknown := sorted(
        {name for entities in filters.values() for name in entities} - {*ENTITIES, "suffix", "datatype"}
    ):
        raise ConfigError("unknown entities", where=path, got=unknown, expected=f"some of {sorted(ENTITIES)}")

    def wanted(labels: dict[str, str], suffix: str) -> bool:
        for name, value in filters.get(suffix.lower(), {}).items():
            if name not in ENTITIES:
                continue
            allowed = value if isinstance(value, list) else [value]
            if _entity(name, labels.get(ENTITIES[name])) not in [_entity(name, item) for item in allowed]:
                return False
        return True

    return wanted


def _entity(name: str, value: Any) -> str | int | None:
    """The value of an entity to be compared: runs and echoes are numbers in BIDS, so that 1 is 01."""
    text = None if value is None else str(value)
    return int(text) if text is not None and name in NUMBERS and text.isdecimal() else text


def validate(folder: Path) -> None:
    """Call the BIDS validator, if there is one on this machine.

    Raises:
        DataError: it finds errors.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = next((program for name in VALIDATORS if (program := shutil.which(name, path=path))), None)
    if program is None:
        log.log.warning("not validated: no %s here", " or ".join(VALIDATORS))
        return
    done = subprocess.run(
        [program, "--json", folder], capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
    )
    try:
        issues = json.loads(done.stdout)["issues"]
        listed = issues["issues"] if isinstance(issues, dict) and "issues" in issues else issues["errors"]
    except (ValueError, KeyError, TypeError):
        log.log.warning("not validated: %s said %s", program, (done.stderr or done.stdout).strip()[:200])
        return
    # Version 1 numbers its codes, and has their names as keys.
    errors = sorted(
        {str(issue.get("key") or issue.get("code")) for issue in listed if issue.get("severity", "error") == "error"}
    )
    if errors:
        mend = "mend the data set, or --skip-bids-validation"
        raise DataError("the BIDS validator finds errors", where=folder, got=", ".join(errors), mend=mend)
