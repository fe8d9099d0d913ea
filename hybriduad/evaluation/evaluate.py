"""Predictions against the truth: figures by case and cohort, intervals, paired differences, pictures.

Thresholds are those of the bundle's calibration and never set here; lesion-free cases are undefined in AUPRC and Dice
and enter only the figures of false positives. What the region is: :data:`hybriduad.cohort.truth.REGION`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybriduad.cohort.leakage import check_unseen
from hybriduad.cohort.manifest import read_cohort
from hybriduad.cohort.truth import REGION, SET_ASIDE, has_truth
from hybriduad.core.errors import (
    ConfigError,
    DataError,
    LeakageError,
    reason_of,
)
from hybriduad.core.requests import is_another
from hybriduad.core.types import Case, Split
from hybriduad.detector.thresholds import Cutoff, Thresholds
from hybriduad.evaluation.case import (
    RECORD_END,
    CaseScores,
    attributes_of,
    case_key,
    evaluate_case,
    load_case,
    save_case,
    stored_key,
)
from hybriduad.evaluation.comparison import compare
from hybriduad.evaluation.figures import Figure, summarise
from hybriduad.evaluation.pictures import chosen_cases, draw_case, picture_name
from hybriduad.evaluation.tables import (
    LEAKED,
    case_rows,
    figure_rows,
    markdown,
    write_json,
    write_table,
)
from hybriduad.metrics.intervals import DRAWS
from hybriduad.prediction.files import MODEL, READABLE
from hybriduad.scan.volumes import write_atomically

__all__ = ["Evaluation", "compare", "evaluate", "evaluate_cases"]

log = logging.getLogger(__name__)

REQUEST, CASES, SUMMARY, PICTURES = "request.json", "cases", "summary", "pictures"
NEEDED = {"dataset", "case", "bundle", "parts", "notes"}
"""What the record of a predicted case must hold."""


@dataclass
class Evaluation:
    """What became of an evaluation in ``out``: cases ``done`` now, ``kept`` from before, and ``failed`` with why.

    ``missing``: cases of the cohort with a truth but without a prediction; ``unknown``: without a truth. ``figures``:
    the rows of ``summary.csv``.
    """

    out: Path
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def value(self, system: str, figure: str, how: str = "mean over subjects", group: str = "") -> Figure:
        """One row of the summary.

        Raises:
            ConfigError: there is no such figure.
        """
        for row in self.figures:
            if (row.system, row.figure, row.how, row.group) == (system, figure, how, group):
                return row
        raise ConfigError("no such figure", where=self.out, got=f"{figure} of {system}, {how}")


def evaluate(
    predictions: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    by: Sequence[str] = (),
    rule: str | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    split: Split | None = None,
    allow_leakage: bool = False,
    overwrite: bool = False,
    pictured: Sequence[str] = ("score",),
) -> Evaluation:
    """Compare a predictions folder with the truth of its cohort; writes tables, a summary and pictures into ``out``.

    Evaluated are the cases of both that have a lesion mask or are healthy. The fused score, the probability, the map
    and the baselines are separate systems, each with its calibrated threshold; without calibration there
    are no figures of a mask. A case that fails is named and left out; a case that was evaluated before is kept.

    Args:
        predictions: a folder written by ``predict --maps all``.
        cohort: manifest CSV, BIDS folder or one image.
        out: where ``cases.csv``, ``summary.csv``, ``summary.json``, ``summary.md`` and ``pictures/`` go.
        by: attributes (``site``), each value of which gets separate figures.
        rule: the calibrated rule whose thresholds are used; the bundle's default rule by default.
        seed: of the bootstrap over subjects.
        draws: how many draws it takes.
        split: only the cases of that split.
        allow_leakage: go on where cases were used to make the model, and say so in the summary.
        overwrite: replace what another request left in ``out``.
        pictured: the parts of the prediction whose best, median and worst cases are drawn.

    Raises:
        LeakageError: a case was used to fit or calibrate the model.
        ConfigError: an unknown attribute or rule, or another evaluation in ``out``.
        DataError: no predictions there, or no case that can be evaluated.
    """
    asked = {"by": list(by), "seed": seed, "draws": draws}
    scored = _scored(Path(predictions), cohort, Path(out), asked, rule, split, allow_leakage, overwrite)
    result = scored.result
    result.figures = summarise(scored.scores, by, seed, draws)
    pictures = scored.draw(pictured)
    _write(result, scored.scores, scored.request, [*scored.leaked, *_notes(result, seed, draws)], pictures)
    return result


def evaluate_cases(
    predictions: str | Path, cohort: str | Path, *, out: str | Path, split: Split | None = None, pictured: Sequence[str]
) -> Evaluation:
    """As :func:`evaluate`, the figures of each case and the pictures alone, which ``out`` then holds: no tables, and
    no intervals, whose draws take longer than the cases.

    Raises:
        LeakageError, ConfigError, DataError: as :func:`evaluate`.
    """
    scored = _scored(Path(predictions), cohort, Path(out), {}, None, split)
    scored.draw(pictured)
    return scored.result


@dataclass(frozen=True)
class _Scored:
    """The figures of the cases of predictions in ``source``, by ``cutoffs``, and what of them ``leaked``; ``shown``:
    what each is."""

    result: Evaluation
    source: Path
    request: Mapping[str, Any]
    scores: Sequence[CaseScores]
    cutoffs: Mapping[str, Cutoff]
    leaked: Sequence[str]
    shown: Mapping[str, tuple[Case, Mapping[str, Any]]]

    def draw(self, parts: Sequence[str]) -> list[str]:
        """The names of the pictures of the ``parts``, which are drawn now."""
        out = self.result.out
        return [
            name
            for part in parts
            for name in _draw(out, self.source, self.scores, self.shown, part, self.cutoffs.get(part))
        ]


def _scored(
    source: Path,
    cohort: str | Path,
    folder: Path,
    asked: Mapping[str, Any],
    rule: str | None,
    split: Split | None,
    allow_leakage: bool = False,
    overwrite: bool = False,
) -> _Scored:
    """Every case is compared with its truth; ``asked`` is what else the request of the evaluation holds."""
    model = _read_json(source / MODEL)
    _check_format(model, source / MODEL)
    thresholds = Thresholds.from_json(model["thresholds"])
    chosen = rule or thresholds.default
    cutoffs = thresholds.by_part(rule)
    result = Evaluation(folder)
    records = _records(source, result.failed)
    cases = []
    for case in read_cohort(cohort, split=split):
        if not has_truth(case):
            result.unknown.append(case.name)
        elif (case.dataset, case.name) not in records and case.name not in result.failed:
            result.missing.append(case.name)
        elif case.name not in result.failed:
            cases.append(case)
    if not cases:
        counts = f"{len(result.missing)} without prediction, {len(result.unknown)} without truth"
        raise DataError("no case to evaluate", where=source, got=counts)
    leaked = _leakage(cases, model, allow_leakage, result.failed)
    request = {"bundle": model["bundle"], "rule": chosen, **asked, "split": split}
    _begin(folder, request, overwrite)
    scores = []
    for case in [case for case in cases if case.name not in result.failed]:
        path, record = records[case.dataset, case.name]
        try:
            _check_format(record, path)
            if record["bundle"] != model["bundle"]:
                raise DataError("prediction of another bundle", where=path, mend="predict with --overwrite")
            scores.append(_case_scores(source, path, record, case, cutoffs, folder / CASES, result))
        except Exception as error:  # no error of a case ends the others
            result.failed[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, result.failed[case.name])
            log.debug("traceback of %s", case.name, exc_info=True)
    if not scores:
        raise DataError(
            "no case could be evaluated", where=source, got=f"the first: {next(iter(result.failed.items()))}"
        )
    if aside := sum(case.set_aside for case in scores):
        log.warning(SET_ASIDE, aside)
    shown = {case.name: (case, records[case.dataset, case.name][1]) for case in cases}
    return _Scored(result, source, request, scores, cutoffs, leaked, shown)


def _case_scores(
    source: Path,
    path: Path,
    record: Mapping[str, Any],
    case: Case,
    cutoffs: Mapping[str, Cutoff],
    folder: Path,
    result: Evaluation,
) -> CaseScores:
    key = case_key(path, case, cutoffs)
    if stored_key(folder, case.name) == key:
        scores = load_case(folder, case.name, attributes_of(case))
        result.kept.append(case.name)
        return scores
    scores = evaluate_case(source, record, case, cutoffs)
    save_case(folder, key, scores)
    result.done.append(case.name)
    log.info("%s evaluated", case.name)
    return scores


def _leakage(cases: Sequence[Case], model: Mapping[str, Any], allowed: bool, failed: dict[str, str]) -> list[str]:
    try:
        unread = check_unseen(cases, model["used"], model["contrasts"])
        failed |= {name: reason for (_, name), reason in unread.items()}
    except LeakageError as error:
        if not allowed:
            raise
        log.warning("%s", error)
        return [f"{LEAKED} {error}"]
    return []


def _records(source: Path, failed: dict[str, str]) -> dict[tuple[str, str], tuple[Path, dict[str, Any]]]:
    """(dataset, case) -> the path and the content of its record; what cannot be read goes to ``failed``."""
    records = {}
    for path in sorted(source.rglob(f"*{RECORD_END}")):
        try:
            record = _read_json(path)
            if not isinstance(record, dict) or (lacking := sorted(NEEDED - record.keys())):
                got = f"no {lacking}" if isinstance(record, dict) else "no record at all"
                raise DataError("incomplete record", where=path, got=got, mend="predict with --overwrite")
            records[record["dataset"], record["case"]] = path, record
        except DataError as error:
            failed[path.name.removesuffix(RECORD_END)] = str(error)
    return records


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(
            "no predictions", where=path.parent, got=f"no {path.name}", expected="a folder made by predict"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError("unreadable record", where=path, got=str(error), mend="predict with --overwrite") from error
    return content


def _check_format(stated: Mapping[str, Any], path: Path) -> None:
    if (number := stated.get("format")) not in READABLE:
        mend = "predict again with --overwrite"
        raise DataError(
            "predictions of another version", where=path, got=f"format {number}", expected=READABLE[-1], mend=mend
        )


def _begin(folder: Path, request: Mapping[str, Any], overwrite: bool) -> None:
    """Make the folder, or check that what is there is of the same request."""
    is_another(folder, REQUEST, request, "evaluation", overwrite)
    for name in (CASES, PICTURES) if overwrite else ():
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    write_json(folder / REQUEST, request)


def _draw(
    folder: Path,
    source: Path,
    scores: Sequence[CaseScores],
    shown: Mapping[str, tuple[Case, Mapping[str, Any]]],
    part: str,
    cutoff: Cutoff | None,
) -> list[str]:
    names = []
    for label, figures in chosen_cases(scores, part).items():
        case, record = shown[figures.name]
        name = f"{PICTURES}/{picture_name(label, part)}"
        try:
            draw_case(folder / name, source, record, case, figures, label, part, cutoff)
        except Exception as error:  # the maps of figures kept from before may be gone
            log.warning("no picture of the %s case: %s", label, reason_of(error))
            log.debug("traceback of %s", figures.name, exc_info=True)
            continue
        names.append(name)
    return names


def _notes(result: Evaluation, seed: int, draws: int) -> list[str]:
    notes = [
        f"Region: {REGION}",
        f"Intervals: 95 %, bootstrap over subjects, {draws} draws, seed {seed}; paired systems share the draws.",
    ]
    for kind, names in (
        ("failed", [*result.failed]),
        ("without a prediction", result.missing),
        ("without a truth", result.unknown),
    ):
        if names:
            notes.append(f"Left out, {kind} ({len(names)}): {', '.join(names)}.")
    return notes


def _write(
    result: Evaluation, scores: Sequence[CaseScores], request: Mapping[str, Any], notes: list[str], pictures: list[str]
) -> None:
    write_table(result.out / "cases.csv", case_rows(scores))
    write_table(result.out / f"{SUMMARY}.csv", figure_rows(result.figures))
    write_json(
        result.out / f"{SUMMARY}.json",
        {
            "request": request,
            "notes": notes,
            "cases": [{"case": case.name, "attributes": case.attributes} for case in scores],
            "failed": result.failed,
            "missing": result.missing,
            "unknown": result.unknown,
            "pictures": pictures,
            "figures": figure_rows(result.figures),
        },
    )
    text = markdown(
        scores,
        result.figures,
        title="Evaluation",
        notes=notes,
        rule=request["rule"],
        pictures=pictures,
        missing=len(result.missing),
    )
    write_atomically(result.out / f"{SUMMARY}.md", text.encode())
