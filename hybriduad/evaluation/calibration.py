"""Thresholds, found on cases that the model has never seen, stored in a new bundle with the rule that made them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hybriduad.cohort.digest import cohort_digest
from hybriduad.cohort.leakage import check_unseen, identities
from hybriduad.cohort.manifest import read_cohort
from hybriduad.cohort.truth import REGION, has_truth, read_truth
from hybriduad.core.errors import ConfigError, DataError, reason_of
from hybriduad.core.types import Case, Split
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import RECORD, Bundle
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import PARTS
from hybriduad.evaluation.histograms import read_histograms, write_histograms
from hybriduad.evaluation.rules import (
    Observation,
    Per,
    best_dice,
    false_positives,
)
from hybriduad.prediction.case import predict_case
from hybriduad.scan.cache import PreparedCache
from hybriduad.training.resuming import REQUEST, Workshop

log = logging.getLogger(__name__)

Rule = Literal["best-dice", "false-positives"]
RULES = ("best-dice", "false-positives")


def calibrate(
    bundle: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    rules: Sequence[str] = ("best-dice",),
    false_positive_ml: float | None = None,
    per: Per = "slice",
    device: str = "auto",
    split: Split | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Find a threshold for each part of a bundle by each rule, on each scan's own grid, and write a new bundle.

    ``best-dice``: the threshold with the largest mean over subjects with a lesion of Dice (a subject's is the mean of
    its cases'), see :func:`hybriduad.evaluation.rules.best_dice`. ``false-positives``: the lowest threshold at which
    the mask of lesion-free slices (of healthy scans, and of annotated ones away from lesions) holds on average at most
    ``false_positive_ml`` millilitres a slice, or with ``per="scan"`` that of lesion-free scans so many a scan; it needs
    no lesion voxel.

    Args:
        bundle: a detector's or a reconstructor's folder; a rule that it already has is kept or, if named, replaced.
        cohort: manifest CSV or BIDS folder; cases without truth are left out.
        out: the new bundle's folder; a calibration that was stopped there continues.
        rules: of :data:`RULES`; the first becomes the default.
        false_positive_ml, per: the limit of ``false-positives``.
        device: "auto", "cpu", "cuda", "cuda:1".
        split: the cases of that split; by default "validation" where the cohort has splits, else all.
        cache: folder for prepared volumes that several runs share.
        overwrite: calibrate anew and, when the new bundle is complete, replace the one in ``out``.

    Raises:
        ConfigError: an unknown rule, no limit for ``false-positives``, or other work in ``out``.
        LeakageError: a case was used to fit the bundle: its thresholds would be those of learnt scans.
        DataError: no case of the split, or none that the rule can use.
        BundleError: an unusable bundle.
    """
    _check_rules(rules, false_positive_ml, per)
    parent = bundles.verify(bundle)
    cases = _cases(cohort, split)
    limit = {"false_positive_ml": false_positive_ml, "per": per} if "false-positives" in rules else None
    workshop = Workshop(Path(out), _request(parent, cases, rules, limit), overwrite=overwrite)
    if (found := workshop.finished) is not None:
        return found
    contrasts = parent.anatomy.contrasts
    seen = {digest: role for digest, role in parent.used.items() if role != "calibrate"}
    failed = check_unseen(cases, seen, contrasts)
    folder = workshop.open()
    detector = load_detector(parent.folder, device)
    store = PreparedCache(cache) if cache is not None else None
    used: dict[str, str] = {}
    observed: list[Observation] = []
    for number, case in enumerate(cases):
        if (identity := (case.dataset, case.name)) in failed:
            continue
        try:
            known = identities([case], "calibrate", contrasts)
            observed.append(_observed(folder / "cases" / f"{number}.npz", detector, case, store))
            used |= known
        except Exception as error:  # whatever it is, it is of this case
            failed[identity] = reason_of(error)
            log.debug("traceback of %s", case.name, exc_info=True)
    for (_, name), reason in failed.items():
        log.warning("%s left out of the calibration: %s", name, reason)
    if not observed:
        raise DataError(
            "no case can be used for the calibration", where=cohort, got=f"the first: {next(iter(failed.values()))}"
        )
    provenance = {"parent": parent.digest, "versions": bundles.versions(), "failed_cases": len(failed)}
    entries: dict[str, Any] = {}
    for rule in rules:
        try:
            entry = best_dice(observed) if rule == "best-dice" else _false_positives(observed, false_positive_ml, per)
        except DataError:
            workshop.abandon()  # these cases will never do, and others are welcome in the same place
            raise
        entries[rule] = entry | {"region": REGION, "provenance": provenance}
        log.info("%s: %s", rule, ", ".join(f"{part} {value:.4g}" for part, value in entry["values"].items()))
    record = dict(parent.record)
    record["thresholds"] = {"default": rules[0], "rules": record["thresholds"]["rules"] | entries}
    record["identities"] = record["identities"] | used

    def save(ready: Path) -> None:
        # The request of the fit stays behind: this folder answers to the calibration's.
        shutil.copytree(parent.folder, ready, ignore=_only_top(parent.folder, {REQUEST, RECORD}), dirs_exist_ok=True)
        bundles.write_record(ready, record)

    return workshop.finish(save)


def _false_positives(observed: Sequence[Observation], limit_ml: float | None, per: Per) -> dict[str, Any]:
    assert limit_ml is not None  # checked before any case was predicted
    return false_positives(observed, limit_ml, per)


def _check_rules(rules: Sequence[str], limit_ml: float | None, per: str) -> None:
    unknown = [rule for rule in rules if rule not in RULES]
    if not rules or unknown or len(set(rules)) != len(rules):
        raise ConfigError("unusable rules", got=list(rules), expected=f"each of {list(RULES)} at most once")
    if per not in ("slice", "scan"):
        raise ConfigError("unknown unit of false positives", got=repr(per), expected="slice or scan")
    if "false-positives" in rules and not (limit_ml is not None and limit_ml >= 0):
        raise ConfigError(
            "rule without its limit",
            where="false-positives",
            got=limit_ml,
            expected="--false-positive-ml, millilitres a lesion-free slice or scan",
        )


def _cases(cohort: str | Path, split: Split | None) -> list[Case]:
    cases = read_cohort(cohort, split=split)
    if split is None and any(case.split for case in cases):
        cases = read_cohort(cohort, split="validation")
    known = [case for case in cases if has_truth(case)]
    if not known:
        raise DataError(
            "no case with truth", where=cohort, got=f"{len(cases)} cases", expected="lesion masks, or health 'healthy'"
        )
    if len(known) < len(cases):
        log.warning("%d of %d cases have no truth and are left out", len(cases) - len(known), len(cases))
    return known


def _request(
    parent: Bundle, cases: Sequence[Case], rules: Sequence[str], limit: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What identifies a calibration: the bundle, the cases with the content of their files, the rules."""
    asked = {"rules": list(rules), "limit": limit}
    return {"parents": [parent.digest], "cohort": cohort_digest(cases), "calibrate": asked}


def _observed(path: Path, detector: Detector, case: Case, store: PreparedCache | None) -> Observation:
    """The observation of a case, predicted now or found from an earlier call that was stopped."""
    if not path.is_file():
        found = predict_case(detector, case, cache=store)
        truth = read_truth(case, found.brain, found.grid, detector.direction)
        histograms = {}
        for part in PARTS:
            if (values := getattr(found, part)) is not None:
                scores = truth.scores(values)
                histograms[f"whole/{part}"] = truth.histogram(scores)
                histograms[f"clear/{part}"] = truth.clear_histogram(scores)
        write_histograms(path, histograms, voxel_ml=truth.voxel_ml, slices=int(truth.clear.sum()))
    stored, numbers = read_histograms(path)
    whole, clear = (
        {name.removeprefix(kind): one for name, one in stored.items() if name.startswith(kind)}
        for kind in ("whole/", "clear/")
    )
    return Observation((case.dataset, case.subject), numbers["voxel_ml"], int(numbers["slices"]), whole, clear)


def _only_top(top: Path, names: set[str]) -> Callable[[str, list[str]], set[str]]:
    return lambda folder, found: names & set(found) if Path(folder) == top else set()
