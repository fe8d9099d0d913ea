"""What a demo says at its end: the figures in plain words, and one picture of every new subject."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.drawing import MASK_COLOUR, TRUTH_COLOUR, Panel, panel_sheet
from hybriduad.core.errors import DataError
from hybriduad.core.types import WHITE, Case, Split
from hybriduad.evaluation.case import RECORD_END
from hybriduad.evaluation.figures import Figure
from hybriduad.scan.volumes import read_mask, read_volume

TELL = {
    "phantoms": "made {subjects} brains with T1w and FLAIR scans; {sick} of them have a tumour, with its outline",
    "stage 1": "a diffusion model learnt healthy anatomy, from healthy brains and tumour-free slices",
    "stage 2": "a UNet learnt to outline synthetic lesions, painted into healthy slices: no tumour was learnt from",
    "few labels": "the UNet was fine-tuned on the outlines of {labelled} patients",
    "calibrate": "thresholds were found on {validation} other subjects",
    "predict": "lesions were looked for in {test} new subjects, of whom the model knew nothing",
    "evaluate": "the result was compared with the true outlines",
    "pictures": "drawn",
}
SYSTEMS = {
    "score": "**fused score** (the product)",
    "probability": "UNet alone",
    "map": "reconstruction alone",
    "intensity": "plain intensity (learns nothing)",
    "asymmetry": "left-right asymmetry (learns nothing)",
}


class Count(NamedTuple):
    """Subjects of a split."""

    healthy: int
    sick: int


@dataclass(frozen=True)
class Healthy:
    """A healthy new subject, and how many millilitres of its brain the mask marks."""

    case: str
    mask_ml: float


@dataclass(frozen=True)
class Patient:
    """A new subject with a tumour of ``lesion_ml``, the Dice of the mask, and whether it covers a tenth of a tumour."""

    case: str
    lesion_ml: float
    dice: float
    hit: bool


class Spent(NamedTuple):
    """What a step took: seconds on the clock, and of processor time (user and system, of all its processes)."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Outcome:
    """The figures of a demo: AUPRC (``figures``) and ``dice`` by system, and what the mask says of each new subject."""

    figures: Mapping[str, Figure]
    dice: Mapping[str, Figure]
    patients: Sequence[Patient]
    healthy: Sequence[Healthy]
    alarm_ml: float

    @property
    def alarms(self) -> list[Healthy]:
        """Healthy scans with a mask of more than ``alarm_ml``."""
        return [subject for subject in self.healthy if subject.mask_ml > self.alarm_ml]

    def sentence(self) -> str:
        """What was found and what was missed."""
        ranked = sorted(self.patients, key=lambda patient: -patient.dice)
        missed = [f"{patient.case} ({patient.lesion_ml:.1f} ml)" for patient in ranked if not patient.hit]
        hits = len(ranked) - len(missed)
        return (
            f"Of {len(ranked)} new patients the mask finds the tumour of {hits} (Dice from {ranked[-1].dice:.2f}, "
            f"{ranked[-1].case}, to {ranked[0].dice:.2f}, {ranked[0].case}) and misses "
            f"{' and '.join(missed) or 'none'}; {len(self.alarms)} of {len(self.healthy)} healthy brains have an alarm."
        )


def read_subjects(scores: Path) -> tuple[list[Patient], list[Healthy]]:
    """What the mask of the fused score says of the cases of an evaluation, those with a lesion and the healthy cases.

    Raises:
        DataError: no case with a lesion, no healthy case, or no mask, since the bundle was not calibrated.
    """
    rows = _rows(scores)
    healthy = [row for row in rows if row["attribute_health"] == "healthy"]
    sick = [row for row in rows if row["attribute_health"] == "lesion"]
    if not healthy or not sick or any(not row.get("mask_ml") for row in rows):
        raise DataError("no masks of cases", where=scores, got=f"{len(sick)} with a lesion, {len(healthy)} healthy")
    return (
        [
            Patient(row["case"], float(row["lesion_ml"]), float(row["dice"]), int(row["lesions_hit"]) > 0)
            for row in sick
        ],
        [Healthy(row["case"], float(row["mask_ml"])) for row in healthy],
    )


def summary(
    out: Path,
    splits: Mapping[Split, Count],
    outcome: Outcome,
    failures: Sequence[str],
    spent: Mapping[str, Spent],
    instructions: str,
) -> str:
    """The summary as Markdown; ``instructions`` names the widest instructions that the networks ran on."""
    counts = {name: sum(count) for name, count in splits.items()}
    facts = {
        "subjects": sum(counts.values()),
        "sick": sum(count.sick for count in splits.values()),
        "labelled": splits["train"].sick,
        "validation": counts["validation"],
        "test": counts["test"],
    }
    verdict = "It fell short: " + "; ".join(failures) + "." if failures else "Everything it has to show came true."
    wall, cpu = (sum(spent[name][kind] for name in TELL) for kind in (0, 1))
    lines = [
        "# hybriduad: the demo",
        "",
        f"{outcome.sentence()} {verdict}",
        "",
        "The brains are made by the package. No person was scanned, and how well it does here says nothing about "
        "patients. Research use only.",
        "",
        "![every new subject](overview.png)",
        "",
        "## What happened",
        "",
        "| step | what | seconds | CPU seconds |",
        "|---|---|---|---|",
        *(
            f"| {name} | {TELL[name].format(**facts)} | {spent[name].wall:.0f} | {spent[name].cpu:.0f} |"
            for name in TELL
        ),
        f"| all | on {instructions} | {wall:.0f} | {cpu:.0f} |",
        "",
        f"## How well it finds the tumours of {len(outcome.patients)} new patients",
        "",
        "| score | AUPRC | Dice |",
        "|---|---|---|",
        *(
            f"| {title} | {_cell(outcome.figures[name])} | {_cell(outcome.dice.get(name))} |"
            for name, title in SYSTEMS.items()
        ),
        "",
        "- **AUPRC** asks whether tumour voxels score higher than all others: 1 is perfect; a score that knows nothing "
        "gets the share of tumour in the brain, a few hundredths.",
        "- **Dice** asks how well the mask overlaps the true outline: 1 is the same voxels, 0 is nothing in common. "
        "The mask is what the rule makes of the score that was calibrated on the validation subjects.",
        "- Both are means over patients; in brackets the range in which the mean would lie with other patients "
        "(95 %, bootstrap), wide because they are few.",
        "- The fused score joins three opinions: the reconstruction says how far a voxel is from healthy anatomy, "
        "whatever is wrong with it; the UNet says how much it looks like a lesion that it has learnt; and the mirrored "
        "brain says how far it is from the other side.",
        "",
        f"## What it says of {len(outcome.healthy)} healthy subjects",
        "",
        f"{len(outcome.alarms)} of {len(outcome.healthy)} have an alarm, a mask of more than {outcome.alarm_ml:g} ml.",
        "",
        *(f"- {subject.case}: {subject.mask_ml:.2f} ml" for subject in outcome.healthy),
        "",
        "## Where to look",
        "",
        "- `overview.png`: every new subject; `scores/pictures/`: the best, the median and the worst.",
        "- `scores/summary.md`: all figures with their intervals; `scores/cases.csv`: the same case by case.",
        "- `predictions/`: the maps on the scans' own grids, for any NIfTI viewer.",
        "- `reconstructor/pictures/`, `detector-few/pictures/`: samples and loss curves of the trainings.",
        "- `phantoms/`: the scans, a BIDS data set. `detector/`: the model, which finds lesions in other scans by",
        "",
        "```",
        f"hybriduad predict {out / 'detector'} SCAN_OR_COHORT --out DIR",
        "```",
        "",
    ]
    return "\n".join(lines)


def draw_overview(path: Path, cohort: Path, predictions: Path, scores: Path) -> None:
    """Draw every new subject on one sheet, the patients first and by Dice, the best to the worst.

    Of every subject the slice where the lesion, or else the mask, is largest: FLAIR, pseudo-healthy, and the score over
    FLAIR with the outlines of truth and mask.
    """
    figures = {row["case"]: row for row in _rows(scores)}
    records = {record["case"]: record for record in map(_read, sorted(predictions.rglob(f"*{RECORD_END}")))}
    cases = {case.name: case for case in read_cohort(cohort, split="test")}
    sick = sorted((name for name in cases if cases[name].lesion), key=lambda name: -float(figures[name]["dice"]))
    healthy = sorted(name for name in cases if not cases[name].lesion)
    groups = []
    for name in [*sick, *healthy]:
        rank = {0: ", the best", len(sick) - 1: ", the worst"}.get(sick.index(name), "") if name in sick else ""
        dice, mask_ml = figures[name]["dice"], figures[name]["mask_ml"]
        text = f"tumour, Dice {float(dice):.2f}{rank}" if name in sick else f"healthy, mask {float(mask_ml):.1f} ml"
        groups.append((f"{name}: {text}", _panels(cases[name], predictions, records[name]["parts"])))
    caption = f"scan (FLAIR), pseudo-healthy, score; {TRUTH_COLOUR}: truth, {MASK_COLOUR}: mask"
    panel_sheet(path, groups, across=3, caption=caption)


def _panels(case: Case, predictions: Path, parts: Mapping[str, str]) -> list[Panel]:
    mask = read_mask(predictions / parts["mask"]).data
    truth = np.zeros_like(mask) if case.lesion is None else read_mask(case.lesion).data
    brain = read_mask(predictions / parts["brain"]).data
    shown = next((region for region in (truth, mask, brain) if region.any()), brain)
    level = int(shown.sum(axis=(0, 1)).argmax())
    scan = read_volume(case.images["FLAIR"]).data
    score = read_volume(predictions / parts["score"], constant_ok=True).data[:, :, level]
    image = _grey(scan, brain)[:, :, level]
    pseudo_healthy = _grey(read_volume(predictions / parts["reconstruction"]).data, brain, like=scan)[:, :, level]
    return [Panel(image), Panel(pseudo_healthy), Panel(image, score, truth[:, :, level], mask[:, :, level])]


def _grey(image: np.ndarray, brain: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """(X, Y, Z) in [-1, 1], white as on the model grid; ``like`` is the scan whose white is taken."""
    white = WHITE * float(np.median((image if like is None else like)[brain]))
    return np.asarray(2 * np.clip(image / white, 0, 1) - 1, dtype=np.float32)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def _rows(scores: Path) -> list[dict[str, str]]:
    """The rows of the fused score in an evaluation's table of cases."""
    with (scores / "cases.csv").open(encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["system"] == "score"]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
