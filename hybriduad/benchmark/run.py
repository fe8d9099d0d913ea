"""Every training and trial of a benchmark; those that have a result are not run again."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hybriduad.benchmark.costs import system_gflops
from hybriduad.benchmark.figures import Entry
from hybriduad.benchmark.plan import HEALTHY_RULE, Fit, Row, Trial, has_healthy_rule, rows_of
from hybriduad.benchmark.results import Result, TestedCase, read_result, write_result
from hybriduad.benchmark.tables import write_tables
from hybriduad.cohort.digest import cohort_digest
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.cohort.splits import split_cases
from hybriduad.config import files as configs
from hybriduad.config.benchmarks import BenchmarkRun, Phantoms
from hybriduad.core.errors import ConfigError, DataError, reason_of
from hybriduad.core.types import Case
from hybriduad.detector.bundle import Bundle
from hybriduad.detector.sharing import Results, shared
from hybriduad.detector.thresholds import PARTS, Thresholds
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.case import load_case
from hybriduad.evaluation.evaluate import CASES, PICTURES, evaluate_cases
from hybriduad.phantom.cohort import write_cohort
from hybriduad.phantom.pathology import PATHOLOGIES
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.training.fitting import fit_detector, fit_reconstructor
from hybriduad.training.loop import validation_curve

log = logging.getLogger(__name__)
MODELS, RESULTS, COHORTS, PHANTOMS, WORK, SHOWN = "models", "results", "cohorts", "phantoms", "work", "pictures"
SHARES = {"train": 0.8, "validation": 0.2}
"""Of the subjects outside the fold that is tested."""
SCORED = (*PARTS, "brain", "reconstruction")
"""What figures and pictures of a trial are made of."""


@dataclass
class Outcome:
    """What became of a benchmark in ``out``: trials ``done`` now, ``kept`` from before, ``failed`` with why.

    ``not_run``: trials of a cohort that the user did not name, or of a fold that was neither asked for nor done before,
    and, saying so, those that need more labelled patients than there are.
    """

    out: Path
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """Where a benchmark works: manifests and digests by (cohort, fold), which folds and systems to run now, and how.

    ``labelled``: of a (cohort, fold) how many training patients have a mask of a lesion. ``made``: what networks made
    of slices, for the other trials that stand on them.
    """

    out: Path
    manifests: Mapping[tuple[str, int], Path]
    digests: Mapping[tuple[str, int], str]
    labelled: Mapping[tuple[str, int], int]
    folds: tuple[int, ...]
    systems: frozenset[str]
    cache: Path
    device: str
    made: Results = field(default_factory=Results)

    def result(self, trial: Trial) -> Path:
        """The file of its figures."""
        return self.out / RESULTS / f"{trial.key(self.digests)[:16]}.json"

    def model(self, fit: Fit) -> Path:
        """The folder of its bundle."""
        return self.out / MODELS / fit.key(self.digests)[:16]

    def can_run(self, row: Row, trial: Trial) -> bool:
        """Whether both of its cohorts are there, and the trial was done before or its system and fold are asked for."""
        fold = trial.model.fold
        there = (trial.model.cohort, fold) in self.digests and (trial.tested_on, fold) in self.digests
        asked = fold in self.folds and row.system in self.systems
        return there and ((asked and not self.lacking(trial)) or self.result(trial).is_file())

    def lacking(self, trial: Trial) -> str:
        """Why a trial cannot be run: fewer labelled patients than it learns from; "" where it can."""
        there = self.labelled.get((trial.model.cohort, trial.model.fold), trial.model.labels)
        return f"only {there} labelled patients" if there < trial.model.labels else ""


def run_benchmark(
    config: str | Path,
    *,
    out: str | Path,
    cohorts: Mapping[str, str | Path] | None = None,
    folds: Sequence[int] | None = None,
    systems: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    cache: str | Path | None = None,
) -> Outcome:
    """Train and test every system of a benchmark config under shared splits; tables are written after every trial.

    Subjects are dealt into folds by site and health, seed 0, whatever the seeds of the trainings. A model is trained
    once, however many rows stand on it. A trial's maps are deleted when its figures are in ``results/``: copied to
    another machine, with the same cohorts, that folder is continued from. A system that fails is named, and the others
    go on; what was not run says so in the tables.

    Args:
        config: path or name of a config of kind ``benchmark``.
        out: folder of everything; a benchmark that was stopped there continues.
        cohorts: cohort of the config -> manifest CSV or BIDS folder, or folder of label maps for phantoms that have
            them; other phantoms are made and not named.
        folds: the folds to run now, from 1; by default all. What is done of the others stays in the tables; with no
            fold at all nothing is run, and the tables are written of what is done.
        systems: the systems to run now, likewise.
        overrides: ``dotted.key=value`` for ``config``.
        device: "auto", "cpu", "cuda", "cuda:1".
        cache: folder for prepared volumes; by default inside ``out``.

    Raises:
        ConfigError: an unusable config, an unknown cohort, fold or system.
        DataError: a cohort that cannot be read.
    """
    run: BenchmarkRun = configs.load(config, list(overrides), kind="benchmark")
    named = {name: Path(path) for name, path in (cohorts or {}).items()}
    chosen = tuple(range(1, run.folds + 1)) if folds is None else tuple(folds)
    asked = frozenset(run.systems if systems is None else systems)
    _check(run, named, chosen, asked)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    manifests, digests, labelled = _cohorts(run, folder, named)
    stored = Path(cache) if cache is not None else folder / "cache"
    bench = Bench(folder, manifests, digests, labelled, chosen, asked, stored, device)
    outcome = Outcome(folder)
    costs = system_gflops(run)
    rows = list(rows_of(run))
    lacking = {row: sentence for row in rows if (sentence := next(filter(None, map(bench.lacking, row.trials)), ""))}
    parts: dict[Trial, dict[str, None]] = {}
    for row in rows:
        for trial in row.trials:
            parts.setdefault(trial, {})[row.part] = None
    entries: dict[Row, list[Entry]] = {row: [] for row in rows}
    tried: dict[Trial, Result | str] = {}
    for row in rows:
        for trial in row.trials:
            title = _title(row, trial)
            before = len(outcome.done)
            if trial not in tried and bench.can_run(row, trial):
                tried[trial] = _attempt(bench, trial, tuple(parts[trial]), title, outcome)
            result = tried.get(trial)
            if result is None:
                outcome.not_run.append(f"{title}: {lacking[row]}" if row in lacking else title)
            elif isinstance(result, str):
                outcome.failed[title] = result
            else:
                shown = f"{SHOWN}/{bench.result(trial).stem}"
                entries[row].append(Entry(trial.model.fold, result.cases, shown, result.curves))
            if len(outcome.done) > before:
                write_tables(folder, run, entries, costs, lacking)
    write_tables(folder, run, entries, costs, lacking)
    return outcome


def _attempt(bench: Bench, trial: Trial, parts: Sequence[str], title: str, outcome: Outcome) -> Result | str:
    """A trial's figures, or why there are none: no system's error ends the others. ``parts`` are drawn."""
    try:
        return _tried(bench, trial, parts, title, outcome)
    except Exception as error:
        log.error("%s failed: %s", title, reason_of(error))
        log.debug("traceback of %s", title, exc_info=True)
        return reason_of(error)


def _check(run: BenchmarkRun, named: Mapping[str, Path], folds: Sequence[int], systems: frozenset[str]) -> None:
    real = sorted(name for name, cohort in run.cohorts.items() if cohort.is_named)
    if unknown := sorted(set(named) - set(real)):
        raise ConfigError("unknown cohort", got=unknown, expected=f"some of {real}")
    if wrong := [fold for fold in folds if not 1 <= fold <= run.folds]:
        raise ConfigError("no such fold", got=wrong, expected=f"1 to {run.folds}")
    if strange := sorted(systems - set(run.systems)):
        raise ConfigError("no such system", got=strange, expected=f"some of {list(run.systems)}")
    for name, cohort in run.cohorts.items():
        if cohort.phantoms is not None and cohort.phantoms.pathology not in PATHOLOGIES:
            got, expected = repr(cohort.phantoms.pathology), f"one of {list(PATHOLOGIES)}"
            raise ConfigError("unknown pathology", where=f"cohorts.{name}", got=got, expected=expected)
    for row in rows_of(run):  # every config is read before anything is trained
        fit: Fit | None = row.trials[0].model
        while fit is not None:
            configs.load(fit.config, fit.overrides, kind=fit.stage)
            fit = fit.parent


def _cohorts(
    run: BenchmarkRun, out: Path, named: Mapping[str, Path]
) -> tuple[dict[tuple[str, int], Path], dict[tuple[str, int], str], dict[tuple[str, int], int]]:
    """Manifest, digest and labelled training patients of each (cohort, fold) that there is, of cohorts in a table;
    phantoms are made."""
    manifests, digests, labelled = {}, {}, {}
    needed = {*run.tables, *(name for tested in run.tables.values() for name in tested)}
    for name, cohort in run.cohorts.items():
        if name not in needed or (cohort.is_named and name not in named):
            continue
        if cohort.phantoms is None:
            source = named[name]
        else:
            source = _phantoms(out / PHANTOMS / name, cohort.phantoms, labelmaps=named.get(name))
        cases = read_cohort(source)
        content = cohort_digest(cases)
        for fold in range(1, run.folds + 1):
            if cohort.whole:
                split = [replace(case, split="test") for case in cases]
            else:
                split = split_cases(cases, SHARES, seed=0, fold=(fold, run.folds))
            path = out / COHORTS / f"{name}-fold-{fold}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_manifest(split, path)
            manifests[name, fold] = path
            digests[name, fold] = content + "".join(case.split[:2] for case in split)
            labelled[name, fold] = labelled_patients(split)
    return manifests, digests, labelled


def labelled_patients(cases: Sequence[Case]) -> int:
    """How many people of the split "train" have a mask of a lesion, and are not stated to be healthy."""
    train = (case for case in cases if case.split == "train")
    return len({(case.dataset, case.subject) for case in train if case.lesion is not None and case.health != "healthy"})


def _phantoms(folder: Path, phantoms: Phantoms, *, labelmaps: Path | None) -> Path:
    return write_cohort(
        folder,
        subjects=phantoms.subjects,
        seed=phantoms.seed,
        contrasts=phantoms.contrasts,
        pathology=phantoms.pathology,  # type: ignore[arg-type]  # checked before
        share_healthy=phantoms.share_healthy,
        spacing_mm=phantoms.spacing_mm,
        labelmaps=labelmaps,
    )


def _tried(bench: Bench, trial: Trial, parts: Sequence[str], title: str, outcome: Outcome) -> Result:
    """The figures of a trial: read, or computed."""
    path = bench.result(trial)
    if path.is_file():
        outcome.kept.append(title)
        return read_result(path)
    log.info("%s", title)
    work = bench.out / WORK / path.stem
    manifest = bench.manifests[trial.tested_on, trial.model.fold]
    bundle = _calibrated(bench, trial)
    with shared(bench.made):
        predict_cohort(
            bundle.folder,
            manifest,
            split="test",
            out=work / "maps",
            maps=SCORED,
            device=bench.device,
            cache=bench.cache,
        )
    evaluation = evaluate_cases(work / "maps", manifest, split="test", out=work / "figures", pictured=parts)
    if lacking := {**dict.fromkeys(evaluation.missing, "no prediction"), **evaluation.failed}:
        raise DataError("test cases without figures", where=title, got=str(lacking))  # rows need the same cases
    names = sorted([*evaluation.done, *evaluation.kept])
    healthy = _healthy_thresholds(bundle) if has_healthy_rule(trial.rule) else {}
    cases = tuple(TestedCase.of(load_case(evaluation.out / CASES, name, {}), healthy) for name in names)
    if (evaluation.out / PICTURES).is_dir():
        shutil.copytree(evaluation.out / PICTURES, bench.out / SHOWN / path.stem, dirs_exist_ok=True)
    write_result(path, _about(bench, trial), cases)
    shutil.rmtree(work)
    outcome.done.append(title)
    return read_result(path)  # as a benchmark that continues would: the file holds fewer digits


def _calibrated(bench: Bench, trial: Trial) -> Bundle:
    """By the trial's rule and, where there is a lesion-free slice to find it on, the healthy-only one."""
    model = _fitted(bench, trial.model)
    manifest = bench.manifests[trial.model.cohort, trial.model.fold]

    def by(*rules: str) -> Bundle:
        out = model.with_name("-".join([model.name, *(re.sub("[^a-z0-9.]+", "-", rule) for rule in rules)]))
        with shared(bench.made):
            return calibrate(
                model, manifest, out=out, rules=rules, split="validation", device=bench.device, cache=bench.cache
            )

    if _name(trial.rule) == _name(HEALTHY_RULE):  # perhaps with limits of its own
        return by(trial.rule)
    try:
        return by(trial.rule, HEALTHY_RULE)
    except DataError as error:
        log.warning("not calibrated by %s: %s", HEALTHY_RULE, error)
        return by(trial.rule)


def _healthy_thresholds(bundle: Bundle) -> dict[str, float]:
    """Part -> the threshold of the healthy-only rule; none where it was not calibrated."""
    thresholds = Thresholds.from_json(bundle.record["thresholds"])
    cutoffs = thresholds.values.get(_name(HEALTHY_RULE), {})
    return {part: cutoff for part, cutoff in cutoffs.items() if isinstance(cutoff, float)}


def _name(rule: str) -> str:
    return rule.partition(":")[0]  # a rule may have options


def _fitted(bench: Bench, fit: Fit) -> Path:
    """The bundle of a training, trained after the bundles that it continues."""
    parent = _fitted(bench, fit.parent) if fit.parent is not None else None
    continued = fit.parent is not None and fit.parent.stage == "detector"
    out = bench.model(fit)
    manifest = bench.manifests[fit.cohort, fit.fold]
    if fit.stage == "reconstructor":
        fit_reconstructor(
            fit.config, manifest, out=out, overrides=fit.overrides, device=bench.device, cache=bench.cache
        )
    else:
        fit_detector(
            fit.config,
            manifest,
            out=out,
            reconstructor=None if continued else parent,
            init=parent if continued else None,
            limit=fit.limit,
            overrides=fit.overrides,
            device=bench.device,
            cache=bench.cache,
        )
    return out


def _title(row: Row, trial: Trial) -> str:
    return f"{row.system}, {row.trained_on} -> {row.tested_on}, fold {trial.model.fold}, seed {trial.model.seed}"


def _about(bench: Bench, trial: Trial) -> dict[str, object]:
    chain: list[dict[str, object]] = []
    fit: Fit | None = trial.model
    while fit is not None:
        curve = [[step, round(value, 4)] for step, value in validation_curve(bench.model(fit)).items() if value >= 0]
        about = {"stage": fit.stage, "config": fit.config, "set": fit.overrides, "limit": fit.limit}
        chain.insert(0, about | {"validation": curve})
        fit = fit.parent
    model = trial.model
    return {
        "trained_on": model.cohort,
        "tested_on": trial.tested_on,
        "fold": model.fold,
        "rule": trial.rule,
        "chain": chain,
    }
