"""The whole chain on made-up brains, for anyone without data: from phantoms to a summary that a newcomer understands.

Every step is a public function of the package, called as a user would call it; what is finished is not done again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.core.errors import DataError, HybridUADError
from hybriduad.core.types import Case, Split
from hybriduad.demo.report import (
    Outcome,
    draw_overview,
    read_healthy,
    summary,
)
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.evaluate import evaluate
from hybriduad.phantom.cohort import write_cohort
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.scan.volumes import write_atomically
from hybriduad.training.fitting import fit_detector, fit_reconstructor

log = logging.getLogger(__name__)
T = TypeVar("T")

CONTRASTS = ("T1w", "FLAIR")
PATHOLOGY = "glioma"
LICENCE = "made by hybriduad, from the ICBM 2009a template"
FALSE_POSITIVE_ML = 0.05
"""On average a healthy validation scan: the limit by which the threshold of the mask is found, without any lesion."""
ALARM_ML = 1.0
"""A mask of more than this on a healthy scan is an alarm."""
ALLOWED_ALARMS = 2
STEPS, SUMMARY, OVERVIEW = "steps.json", "summary.md", "overview.png"


class DemoError(HybridUADError):
    """The demo ran to its end, but what it has to show did not come true."""


class Count(NamedTuple):
    """Subjects of a split."""

    healthy: int
    sick: int


@dataclass(frozen=True)
class Plan:
    """The size of a demo: subjects of each split, voxel size, and what is changed in the three trainings.

    All patients of ``train`` are labelled; ``overrides`` are ``dotted.key=value`` for each of the three configs.
    """

    train: Count
    validation: Count
    test: Count
    spacing_mm: tuple[float, float, float]
    reconstructor: str = "demo-reconstructor"
    detector: str = "demo-detector"
    few: str = "demo-few"
    overrides: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[Split, Count]:
        """Split -> its subjects."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def total(self) -> Count:
        """All subjects."""
        return Count(sum(one.healthy for one in self.splits.values()), sum(one.sick for one in self.splits.values()))


# Healthy validation subjects decide the threshold: of 18, one new subject in 19 lies above them all.
PLAN = Plan(train=Count(21, 3), validation=Count(18, 6), test=Count(6, 6), spacing_mm=(2.0, 2.0, 5.0))


def run_demo(
    out: str | Path, *, seed: int = 0, device: str = "auto", overwrite: bool = False, plan: Plan = PLAN
) -> Path:
    """Make brains, train both stages, fine-tune on few labels, calibrate, predict new subjects, evaluate, explain.

    Args:
        out: the folder of everything; a demo that was stopped there continues.
        seed: of the phantoms and of the trainings.
        device: "auto", "cpu", "cuda", "cuda:1".
        overwrite: replace what another demo left in ``out``.
        plan: its size.

    Returns:
        The summary, a Markdown file.

    Raises:
        DemoError: the fused score is not above plain intensity and above the reconstruction alone in AUPRC (mean over
            the new subjects with a lesion), or more than two healthy ones have an alarm; the summary is written first.
        ConfigError: another demo in ``out``.
        DataError: a case that could not be predicted or evaluated.
    """
    out = Path(out)
    cohort = out / "cohort.csv"
    steps = Steps(out / STEPS, afresh=overwrite)
    place: dict[str, Any] = {"device": device, "overwrite": overwrite, "cache": out / "cache"}
    training: dict[str, Any] = {"overrides": [*plan.overrides, f"seed={seed}"], "data_licence": LICENCE, **place}
    steps.run("phantoms", lambda: _make_cohort(out, plan, seed, overwrite))
    steps.run("stage 1", lambda: fit_reconstructor(plan.reconstructor, cohort, out=out / "reconstructor", **training))
    stage2: dict[str, Any] = {"reconstructor": out / "reconstructor", "out": out / "detector-synthetic"}
    steps.run("stage 2", lambda: fit_detector(plan.detector, cohort, **stage2, **training))
    few: dict[str, Any] = {"init": out / "detector-synthetic", "limit": plan.train.sick, "out": out / "detector-few"}
    steps.run("few labels", lambda: fit_detector(plan.few, cohort, **few, **training))
    rules = (f"false-positives:false_positive_ml={FALSE_POSITIVE_ML},per=scan", "best-dice")
    detector = out / "detector"
    steps.run("calibrate", lambda: calibrate(out / "detector-few", cohort, out=detector, rules=rules, **place))
    steps.run("predict", lambda: _predict(detector, cohort, out / "predictions", place))
    found = steps.run("evaluate", lambda: _evaluate(out, overwrite))
    steps.run("pictures", lambda: draw_overview(out / OVERVIEW, cohort, out / "predictions", out / "scores"))
    outcome = Outcome(
        figures={system: found.value(system, "auprc") for system in ("score", "probability", "map", "intensity")},
        dice={system: found.value(system, "dice") for system in ("score", "probability", "map", "intensity")},
        healthy=read_healthy(out / "scores"),
        alarm_ml=ALARM_ML,
        limit_ml=FALSE_POSITIVE_ML,
    )
    failures = shortcomings(outcome)
    path = out / SUMMARY
    write_atomically(path, summary(out, plan.splits, outcome, failures, steps.seconds).encode())
    for line in path.read_text().splitlines():
        log.info("%s", line)
    if failures:
        raise DemoError("the demo fell short", where=path, got="; ".join(failures))
    return path


def shortcomings(outcome: Outcome) -> list[str]:
    """What the demo has to show and did not, one sentence each; an undefined figure shows nothing."""
    failures = []
    score = outcome.figures["score"].value
    for rival, name in (("intensity", "plain intensity"), ("map", "the reconstruction alone")):
        other = outcome.figures[rival].value
        if not score > other:
            failures.append(f"AUPRC of the fused score {score:.3f} is not above that of {name}, {other:.3f}")
    if (alarms := outcome.alarms) > ALLOWED_ALARMS:
        failures.append(f"{alarms} of {len(outcome.healthy)} healthy scans have an alarm, over {ALLOWED_ALARMS}")
    return failures


class Steps:
    """Runs the steps of a demo and remembers, across sittings, how long each took in the sitting that finished it."""

    def __init__(self, path: Path, *, afresh: bool) -> None:
        self.path = path
        kept = not afresh and path.is_file()
        self.seconds: dict[str, float] = json.loads(path.read_text()) if kept else {}

    def run(self, name: str, work: Callable[[], T]) -> T:
        """Do the work of a step; what was finished before finds its own result at once and keeps its time."""
        log.info("%s ...", name)
        began = time.perf_counter()
        result = work()
        self.seconds.setdefault(name, round(time.perf_counter() - began, 1))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.seconds, indent=1).encode())
        return result


def _make_cohort(out: Path, plan: Plan, seed: int, overwrite: bool) -> None:
    total = plan.total
    subjects = total.healthy + total.sick
    manifest = write_cohort(
        out / "phantoms",
        subjects=subjects,
        seed=seed,
        contrasts=CONTRASTS,
        pathology=cast(Any, PATHOLOGY),
        share_healthy=total.healthy / subjects,
        spacing_mm=plan.spacing_mm,
        overwrite=overwrite,
    )
    write_manifest(_split(read_manifest(manifest), plan), out / "cohort.csv")


def _split(cases: list[Case], plan: Plan) -> Iterator[Case]:
    """Healthy subjects and patients in order: the first of each train, the last are the new ones."""
    waiting = {health: iter([case for case in cases if case.health == health]) for health in ("healthy", "lesion")}
    for split, count in plan.splits.items():
        for health, number in (("healthy", count.healthy), ("lesion", count.sick)):
            for _ in range(number):
                yield replace(next(waiting[health]), split=split)


def _predict(detector: Path, cohort: Path, out: Path, place: dict[str, Any]) -> None:
    outcome = predict_cohort(detector, cohort, out=out, maps=("all",), split="test", **place)
    if outcome.failed:
        raise DataError("subjects that could not be predicted", where=out, got=outcome.failed)


def _evaluate(out: Path, overwrite: bool) -> Any:
    found = evaluate(out / "predictions", out / "cohort.csv", out=out / "scores", split="test", overwrite=overwrite)
    if found.failed or found.missing:
        raise DataError("subjects that could not be evaluated", where=out, got=found.failed or found.missing)
    return found
