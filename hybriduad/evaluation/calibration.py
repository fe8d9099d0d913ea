"""Thresholds, set on cases that the model has never seen and stored in a new bundle with their rule."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybriduad.cohort.digest import cohort_digest
from hybriduad.cohort.leakage import check_unseen, identities
from hybriduad.cohort.manifest import read_cohort
from hybriduad.cohort.truth import REGION, SET_ASIDE, has_truth, read_truth
from hybriduad.config.strict import PluginConfig, checked
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError, DataError, reason_of
from hybriduad.core.types import Case, Split
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import RECORD, Bundle
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import PARTS, said
from hybriduad.evaluation.dice_fit import dice_entry
from hybriduad.evaluation.histograms import read_histograms, write_histograms
from hybriduad.evaluation.rules import DEFAULT
from hybriduad.evaluation.rules._base import Finding, Observation
from hybriduad.metrics.clusters import cluster_peak, least_voxels
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.confidence import ENTRY, scan_distance
from hybriduad.scan.brain_ways import brain_name, chosen
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.template_space import registration_version
from hybriduad.training.resuming import REQUEST, Workshop

log = logging.getLogger(__name__)


def calibrate(
    bundle: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    rules: Sequence[str] = (DEFAULT,),
    device: str = "auto",
    split: Split | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    brain: str | None = None,
) -> Bundle:
    """Find the cutoffs of masks, for each part of a bundle by each rule, on the grid of each scan; writes a new bundle.

    Args:
        bundle: a detector's or a reconstructor's folder; a rule that it already has is kept or, if named, replaced.
        cohort: manifest CSV or BIDS folder; cases without truth are left out.
        out: the new bundle's folder; a calibration that was stopped there continues.
        rules: names of the files in ``hybriduad/evaluation/rules``, each with its options as in
            ``false-positives:false_positive_ml=0.5,per=scan``; the first becomes the default.
        device: "auto", "cpu", "cuda", "cuda:1".
        split: the cases of that split; by default "validation" where the cohort has splits, else all.
        cache: folder for prepared volumes that several runs share.
        overwrite: calibrate anew and, when the new bundle is complete, replace the old in ``out``.
        brain: how the brains of heads are found, as :func:`hybriduad.scan.brain_ways.chosen` takes it: the thresholds
            hold for such brains, and the new bundle states it. By default as ``bundle`` says.

    Raises:
        ConfigError: an unknown rule or option, a rule that lacks an option, or other work in ``out``.
        LeakageError: a case was used to fit the bundle: its thresholds would be those of learnt scans.
        DataError: no case of the split, or none that the rule can use.
        BundleError: an unusable bundle.
    """
    asked = read_rules(rules)
    parent = bundles.verify(bundle)
    cases = _cases(cohort, split)
    anatomy = chosen(parent.anatomy, brain)
    request = _request(parent, cases, asked) | ({} if brain is None else {"brain": brain_name(anatomy)})
    workshop = Workshop(Path(out), request, overwrite=overwrite)
    if (finished := workshop.finished) is not None:
        return finished
    contrasts = parent.anatomy.contrasts
    seen = {digest: role for digest, role in parent.used.items() if role != "calibrate"}
    failed = check_unseen(cases, seen, contrasts)
    folder = workshop.open()
    detector = load_detector(parent.folder, device)
    detector.anatomy = anatomy
    store = PreparedCache(cache) if cache is not None else None
    least_ml = {rule.least_ml for rule in asked if rule.least_ml is not None}
    used: dict[str, str] = {}
    observed: list[Observation] = []
    for number, case in enumerate(cases):
        if (identity := (case.dataset, case.name)) in failed:
            continue
        try:
            known = identities([case], "calibrate", contrasts)
            observed.append(_observed(folder / "cases" / f"{number}.npz", detector, case, store, least_ml))
            used |= known
        except Exception as error:  # no error of a case ends the others
            failed[identity] = reason_of(error)
            log.debug("traceback of %s", case.name, exc_info=True)
    for (_, name), reason in failed.items():
        log.warning("%s left out of the calibration: %s", name, reason)
    if not observed:
        raise DataError(
            "no case can be used for the calibration", where=cohort, got=f"the first: {next(iter(failed.values()))}"
        )
    if aside := sum(case.set_aside for case in observed):
        log.warning(SET_ASIDE, aside)
    provenance = {"parent": parent.digest, "versions": bundles.versions(), "failed_cases": len(failed)}
    entries: dict[str, Any] = {}
    for rule in asked:
        try:
            finding = rule.find(observed)
        except DataError:
            workshop.abandon()  # so that other cases can be calibrated on in the same place
            raise
        entries[rule.name] = finding.to_json() | {"region": REGION, "provenance": provenance}
        entries[rule.name][ENTRY] = dice_entry(rule.find, observed)
        log.info("%s: %s", rule.name, ", ".join(f"{part} {said(cutoff)}" for part, cutoff in finding.cutoffs.items()))
    changes = {"anatomy": anatomy.model_dump(mode="json")} if brain is not None else {}
    return write_calibrated(workshop, parent, entries, asked[0].name, used, changes)


def write_calibrated(
    workshop: Workshop,
    parent: Bundle,
    entries: Mapping[str, Any],
    default: str,
    used: Mapping[str, str],
    changes: Mapping[str, Any] | None = None,
) -> Bundle:
    """Finish a workshop with a copy of ``parent`` that has more rules.

    ``entries`` are those of the rules, of which ``default`` becomes the default; ``used`` are the identities of those
    who they were found on; ``changes`` what else of the record is another.
    """
    record = dict(parent.record)
    before = record["thresholds"]["rules"]
    if before and (changes or {}).get("anatomy", record["anatomy"]) != record["anatomy"]:
        log.warning("rules that were found on other brains are left out: %s", ", ".join(before))
        before = {}
    record["thresholds"] = {"default": default, "rules": before | dict(entries)}
    record["identities"] = record["identities"] | dict(used)
    record |= changes or {}

    def save(ready: Path) -> None:
        # Without the request of the fit: this folder already holds that of the calibration.
        shutil.copytree(parent.folder, ready, ignore=_only_top(parent.folder, {REQUEST, RECORD}), dirs_exist_ok=True)
        bundles.write_record(ready, record)

    return workshop.finish(save)


@dataclass(frozen=True)
class Rule:
    """A plug-in of ``hybriduad/evaluation/rules`` with its options."""

    config: PluginConfig

    @property
    def name(self) -> str:
        """As on the command line and in bundles."""
        return self.config.name

    @property
    def least_ml(self) -> float | None:
        """The size of the clusters whose peaks it needs of lesion-free cases; None if it needs none."""
        needed = getattr(plugins.load("rules", self.name), "NEEDS_PEAKS", False)
        return float(self.config.least_ml) if needed else None  # type: ignore[attr-defined]

    def find(self, observed: Sequence[Observation]) -> Finding:
        """The rule's cutoffs, and how good they are on these cases.

        Raises:
            DataError: nothing in these cases that it can use.
        """
        finding: Finding = plugins.load("rules", self.name).find(self.config, observed)
        return finding


def read_rules(texts: Sequence[str]) -> list[Rule]:
    """Rules from ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``.

    Raises:
        ConfigError: no rule, a rule twice, or an unknown name, key or value.
    """
    rules = []
    for text in texts:
        name, _, options = text.partition(":")
        pairs = [option.partition("=")[::2] for option in options.split(",") if option]
        config: type[PluginConfig] = plugins.load("rules", name).Config
        rules.append(Rule(checked(config, {"name": name, **dict(pairs)}, f"rule {name}")))
    if not rules or len({rule.name for rule in rules}) != len(rules):
        known = plugins.names("rules")
        raise ConfigError("unusable rules", got=list(texts), expected=f"some of {known}, each at most once")
    return rules


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


def _request(parent: Bundle, cases: Sequence[Case], rules: Sequence[Rule]) -> dict[str, Any]:
    """What identifies a calibration: the bundle, the cases with the content of their files, the rules."""
    asked = {"rules": [rule.config.model_dump(mode="json") for rule in rules]}
    stated = {"parents": [parent.digest], "cohort": cohort_digest(cases), "calibrate": asked}
    return stated | registration_version(parent.anatomy)


def _observed(
    path: Path, detector: Detector, case: Case, store: PreparedCache | None, least_ml: Collection[float]
) -> Observation:
    """The observation of a case, predicted now or read from an earlier call that was stopped."""
    if not path.is_file():
        prediction = predict_case(detector, case, cache=store)
        truth = read_truth(case, prediction.brain, prediction.grid, prediction.notes)
        histograms, peaks = {}, {}
        for part in PARTS:
            if (values := getattr(prediction, part)) is not None:
                scores = truth.scores(values)
                histograms[f"whole/{part}"] = truth.histogram(scores)
                histograms[f"clear/{part}"] = truth.clear_histogram(scores)
                for volume in least_ml if truth.control else ():
                    inside = truth.brain & truth.region
                    peaks[_peak(volume, part)] = cluster_peak(scores, inside, least_voxels(volume, truth.voxel_ml))
        distance = scan_distance(prediction)
        known = {} if distance is None else {"distance": distance}
        known["set_aside"] = float(not truth.lesion.any() and not truth.control)
        write_histograms(path, histograms, voxel_ml=truth.voxel_ml, slices=int(truth.clear.sum()), **known, **peaks)
    stored, numbers = read_histograms(path)
    whole, clear = (
        {name.removeprefix(kind): histogram for name, histogram in stored.items() if name.startswith(kind)}
        for kind in ("whole/", "clear/")
    )
    heights = {
        volume: {part: numbers[_peak(volume, part)] for part in whole if _peak(volume, part) in numbers}
        for volume in least_ml
    }
    person, slices = (case.dataset, case.subject), int(numbers["slices"])
    distant, aside = numbers.get("distance"), bool(numbers.get("set_aside", 0))
    return Observation(person, numbers["voxel_ml"], slices, whole, clear, heights, distant, aside)


def _peak(least_ml: float, part: str) -> str:
    """What the peak of a part is called in the file of an observation."""
    return f"peak/{least_ml!r}/{part}"


def _only_top(top: Path, names: set[str]) -> Callable[[str, list[str]], set[str]]:
    return lambda folder, entries: names & set(entries) if Path(folder) == top else set()
