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
from typing import Any

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
    parser.add_argument("bids_dir", type=Path, help="folder of the data set")
    parser.add_argument("output_dir", type=Path, help="folder of the BIDS derivative; what is there is continued")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant predicts, group makes table and pages of all",
    )
    parser.add_argument("--bundle", type=Path, help="model folder; needed by participant")
    for name, what in (("participant", "subjects"), ("session", "sessions")):
        parser.add_argument(
            f"--{name}-label",
            f"--{name}_label",
            nargs="+",
            metavar="LABEL",
            help=f"only these {what}, with or without prefix",
        )
    parser.add_argument("-w", "--work-dir", "--work_dir", type=Path, help="folder for prepared volumes")
    parser.add_argument(
        "--skip-bids-validation", "--skip_bids_validation", action="store_true", help="do not call the BIDS validator"
    )
    parser.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="JSON",
        help='which files of a suffix, as {"flair": {"session": "01", "acquisition": null}}; null: without that entity',
    )
    parser.add_argument("--maps", nargs="+", metavar="MAP", help="what to write beside score, mask and brain, or 'all'")
    parser.add_argument("--rule", help="calibrated rule that cuts the masks; by default the model's")
    parser.add_argument("--brain", metavar="WAY", help="how brains of heads are found; by default as the model says")
    parser.add_argument("--atlas", type=Path, metavar="LABELS", help="label image that names where lesions lie")
    parser.add_argument("--atlas-names", type=Path, metavar="TSV", help="its names, with the columns index and name")
    parser.add_argument("--nprocs", "--n_cpus", type=int, metavar="N", help="worker processes of one thread each")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument(
        "--overwrite", action="store_true", help="do it anew, in place of what another model left there"
    )
    parser.add_argument("--retry-failed", action="store_true", help="try cases again that failed, files unchanged")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more to standard error")
    parser.add_argument("--version", action="version", version=f"hybriduad-bids {__version__}")
    return parser


def run(stated: argparse.Namespace) -> None:
    """The level that is asked for.

    Raises:
        HybridUADError: something to mend.
        Exit: with 3, if some cases failed.
    """
    if not stated.bids_dir.is_dir():
        raise DataError("no such data set", got=stated.bids_dir, expected="a BIDS folder", mend="check the path")
    if stated.analysis_level == "group":
        return group(stated.output_dir, _cases(stated))
    if stated.bundle is None:
        raise ConfigError("participant level without a model", expected="--bundle DIR")
    if stated.output_dir.resolve() == stated.bids_dir.resolve():
        mend = "choose another folder, as BIDS_DIR/derivatives/hybriduad"
        raise ConfigError("output folder is the data set itself", got=stated.output_dir, mend=mend)
    if not stated.skip_bids_validation:
        validate(stated.bids_dir)
    from hybriduad.prediction.cohort import predict_cohort
    from hybriduad.prediction.files import DEFAULT_MAPS

    cases = _cases(stated)
    for kind, prefix in (("participant", "sub-"), ("session", "ses-")):
        if labels := getattr(stated, f"{kind}_label"):
            cases = _chosen(cases, {"participant": "subject"}.get(kind, kind), [x.removeprefix(prefix) for x in labels])
    with log.bar() as watch:
        outcome = predict_cohort(
            stated.bundle,
            cases,
            out=stated.output_dir,
            maps=tuple(dict.fromkeys([*DEFAULT_MAPS, *(stated.maps or ())])),
            rule=stated.rule,
            brain=stated.brain,
            atlas=stated.atlas,
            atlas_names=stated.atlas_names,
            device=stated.device,
            cache=stated.work_dir,
            nprocs=stated.nprocs,
            overwrite=stated.overwrite,
            retry_failed=stated.retry_failed,
            watch=watch,
        )
    outcomes.say_outcome(outcome)


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
    outcomes.say_outcome(write_report(folder, out=folder / PAGES, cohort=cases))


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
