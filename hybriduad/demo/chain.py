"""The whole chain on made-up brains, for anyone without data: from phantoms to a summary that a newcomer understands.

Every step is a public function of the package, called as a user would call it; what is finished is not done again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.core.errors import DataError, HybridUADError
from hybriduad.core.types import Case, Split
from hybriduad.demo.report import SYSTEMS, Count, Outcome, Spent, draw_overview, read_subjects, summary
from hybriduad.detector.device import resolve_device, resolve_precision
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.evaluate import Evaluation, evaluate
from hybriduad.phantom.cohort import write_cohort
from hybriduad.phantom.pathology import Pathology
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.scan.volumes import write_atomically
from hybriduad.training.fitting import fit_detector, fit_reconstructor

log = logging.getLogger(__name__)

CONTRASTS = ("T1w", "FLAIR")
PATHOLOGY: Pathology = "glioma"
LICENCE = "made by hybriduad, from the ICBM 2009a template"
RULE = "expected-dice"
"""The rule of the masks: every scan gets its threshold, and a floor keeps the masks of healthy brains empty."""
ALARM_ML = 1.0
"""A mask of more than this on a healthy scan is an alarm."""
ALLOWED_ALARMS = 1
LEAST_DICE = 0.45
"""The least mean Dice over the new patients with which the masks are good enough."""
STEPS, SUMMARY, OVERVIEW = "steps.json", "summary.md", "overview.png"


class DemoError(HybridUADError):
    """The demo ran to its end, but what it has to show did not come true."""


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
        counts = self.splits.values()
        return Count(sum(count.healthy for count in counts), sum(count.sick for count in counts))


PLAN = Plan(train=Count(30, 30), validation=Count(12, 10), test=Count(6, 6), spacing_mm=(2.0, 2.0, 5.0))


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
        DemoError: what :func:`shortcomings` lists; the summary is written first.
        ConfigError: another demo in ``out``.
        DataError: a case that could not be predicted or evaluated.
    """
    out = Path(out)
    cohort, cache = out / "cohort.csv", out / "cache"
    overrides = [*plan.overrides, f"seed={seed}"]
    steps = Steps(out / STEPS, afresh=overwrite)
    with steps.measured("phantoms"):
        _make_cohort(out, plan, seed, overwrite)
    with steps.measured("stage 1"):
        fit_reconstructor(
            plan.reconstructor,
            cohort,
            out=out / "reconstructor",
            overrides=overrides,
            device=device,
            cache=cache,
            overwrite=overwrite,
            data_licence=LICENCE,
        )
    with steps.measured("stage 2"):
        fit_detector(
            plan.detector,
            cohort,
            reconstructor=out / "reconstructor",
            out=out / "detector-synthetic",
            overrides=overrides,
            device=device,
            cache=cache,
            overwrite=overwrite,
            data_licence=LICENCE,
        )
    with steps.measured("few labels"):
        fit_detector(
            plan.few,
            cohort,
            init=out / "detector-synthetic",
            limit=plan.train.sick,
            out=out / "detector-few",
            overrides=overrides,
            device=device,
            cache=cache,
            overwrite=overwrite,
            data_licence=LICENCE,
        )
    with steps.measured("calibrate"):
        calibrate(
            out / "detector-few",
            cohort,
            out=out / "detector",
            rules=(RULE,),
            device=device,
            cache=cache,
            overwrite=overwrite,
        )
    with steps.measured("predict"):
        _predict(out, device, overwrite)
    with steps.measured("evaluate"):
        evaluation = _evaluate(out, overwrite)
    patients, healthy = read_subjects(out / "scores")
    with steps.measured("pictures"):
        draw_overview(out / OVERVIEW, cohort, out / "predictions", out / "scores")
    outlined = {figure.system for figure in evaluation.figures if figure.figure == "dice"}  # what could be calibrated
    outcome = Outcome(
        figures={system: evaluation.value(system, "auprc") for system in SYSTEMS},
        dice={system: evaluation.value(system, "dice") for system in SYSTEMS if system in outlined},
        patients=patients,
        healthy=healthy,
        alarm_ml=ALARM_ML,
    )
    failures = shortcomings(outcome)
    path = out / SUMMARY
    write_atomically(path, summary(out, plan.splits, outcome, failures, steps.spent, _instructions(device)).encode())
    for line in path.read_text().splitlines():
        log.info("%s", line)
    if failures:
        raise DemoError("the demo fell short", where=path, got="; ".join(failures))
    return path


def shortcomings(outcome: Outcome) -> list[str]:
    """What the demo has to show and did not, one sentence each; an undefined figure shows nothing.

    The fused score is above plain intensity and above the reconstruction alone in AUPRC, the mask overlaps the tumours
    (means over the new patients), and at most :data:`ALLOWED_ALARMS` healthy subjects have an alarm.
    """
    failures = []
    score = outcome.figures["score"].value
    for rival, name in (("intensity", "plain intensity"), ("map", "the reconstruction alone")):
        rival_score = outcome.figures[rival].value
        if not score > rival_score:
            failures.append(f"AUPRC of the fused score {score:.3f} is not above that of {name}, {rival_score:.3f}")
    if not (dice := outcome.dice["score"].value) >= LEAST_DICE:
        failures.append(f"mean Dice of the mask {dice:.3f} is under {LEAST_DICE:g}")
    if (alarms := len(outcome.alarms)) > ALLOWED_ALARMS:
        failures.append(f"{alarms} of {len(outcome.healthy)} healthy scans have an alarm, over {ALLOWED_ALARMS}")
    return failures


class Steps:
    """Measures the steps of a demo and remembers, across sittings, what each took in the sitting that finished it."""

    def __init__(self, path: Path, *, afresh: bool) -> None:
        self.path = path
        kept = json.loads(path.read_text()) if not afresh and path.is_file() else {}
        self.spent: dict[str, Spent] = {name: Spent(*numbers) for name, numbers in kept.items()}

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measure a step; a step that was finished before returns at once and keeps its numbers."""
        log.info("%s ...", name)
        before = os.times()
        yield
        after = os.times()
        cpu = sum(after[:4]) - sum(before[:4])  # user and system, of this process and of its children
        self.spent.setdefault(name, Spent(round(after.elapsed - before.elapsed, 1), round(cpu, 1)))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.spent, indent=1).encode())


def _instructions(device: str) -> str:
    """What the networks run on, in words."""
    place = resolve_device(device)
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return f"{torch.backends.cpu.get_cpu_capability()}, {resolve_precision('auto', place)}"


def _make_cohort(out: Path, plan: Plan, seed: int, overwrite: bool) -> None:
    total = plan.total
    subjects = total.healthy + total.sick
    manifest = write_cohort(
        out / "phantoms",
        subjects=subjects,
        seed=seed,
        contrasts=CONTRASTS,
        pathology=PATHOLOGY,
        share_healthy=total.healthy / subjects,
        spacing_mm=plan.spacing_mm,
        workers=1,  # a pool costs seconds of processor time, of which the demo is to take little
        overwrite=overwrite,
    )
    write_manifest(_split(read_manifest(manifest), plan), out / "cohort.csv")


def _split(cases: list[Case], plan: Plan) -> Iterator[Case]:
    """Healthy subjects and patients in order: the first of each train, the last are the new subjects."""
    waiting = {health: iter([case for case in cases if case.health == health]) for health in ("healthy", "lesion")}
    for split, count in plan.splits.items():
        for health, number in (("healthy", count.healthy), ("lesion", count.sick)):
            for _ in range(number):
                yield replace(next(waiting[health]), split=split)


def _predict(out: Path, device: str, overwrite: bool) -> None:
    outcome = predict_cohort(
        out / "detector",
        out / "cohort.csv",
        out=out / "predictions",
        maps=("all",),
        split="test",
        device=device,
        cache=out / "cache",
        overwrite=overwrite,
    )
    if outcome.failed:
        raise DataError("subjects that could not be predicted", where=out, got=outcome.failed)


def _evaluate(out: Path, overwrite: bool) -> Evaluation:
    evaluation = evaluate(
        out / "predictions", out / "cohort.csv", out=out / "scores", split="test", overwrite=overwrite
    )
    if evaluation.failed or evaluation.missing:
        raise DataError("subjects that could not be evaluated", where=out, got=evaluation.failed or evaluation.missing)
    return evaluation
