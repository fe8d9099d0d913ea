"""What a demo says at its end: the figures in plain words, and one picture of every new subject."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.drawing import slice_grid
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.evaluation.case import RECORD_END
from hybriduad.evaluation.figures import Figure
from hybriduad.scan.grid import WHITE
from hybriduad.scan.volumes import read_mask, read_volume

TITLES = ("T1w", "FLAIR", "pseudo-healthy", "score", "mask", "truth")
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
}


@dataclass(frozen=True)
class Healthy:
    """A healthy new subject, and how many millilitres of its brain the mask marks."""

    case: str
    mask_ml: float


@dataclass(frozen=True)
class Outcome:
    """The figures of a demo: AUPRC (``figures``) and ``dice`` by system, and what the mask says of the healthy."""

    figures: Mapping[str, Figure]
    dice: Mapping[str, Figure]
    healthy: Sequence[Healthy]
    alarm_ml: float
    limit_ml: float

    @property
    def alarms(self) -> int:
        """Healthy scans with a mask of more than ``alarm_ml``."""
        return sum(one.mask_ml > self.alarm_ml for one in self.healthy)


def read_healthy(scores: Path) -> list[Healthy]:
    """The healthy cases of an evaluation with the volume of their mask.

    Raises:
        DataError: none, or no mask, since the bundle was not calibrated.
    """
    rows = [row for row in _rows(scores) if row["attribute_health"] == "healthy"]
    if not rows or any(not row.get("mask_ml") for row in rows):
        raise DataError("no masks of healthy cases", where=scores, got=f"{len(rows)} healthy cases")
    return [Healthy(row["case"], float(row["mask_ml"])) for row in rows]


def summary(
    out: Path, splits: Mapping[Any, Any], outcome: Outcome, failures: Sequence[str], seconds: Mapping[str, float]
) -> str:
    """The summary as Markdown."""
    counts = {name: sum(count) for name, count in splits.items()}
    facts = {
        "subjects": sum(counts.values()),
        "sick": sum(count.sick for count in splits.values()),
        "labelled": splits["train"].sick,
        "validation": counts["validation"],
        "test": counts["test"],
    }
    verdict = "It fell short: " + "; ".join(failures) + "." if failures else "Everything it has to show came true."
    lines = [
        "# hybriduad: the demo",
        "",
        f"{verdict}",
        "",
        "The brains are made by the package. No person was scanned, and how well it does here says nothing about "
        "patients. Research use only.",
        "",
        "## What happened",
        "",
        "| step | what | seconds |",
        "|---|---|---|",
        *(f"| {name} | {TELL[name].format(**facts)} | {seconds[name]:.0f} |" for name in TELL),
        f"| all | | {sum(seconds[name] for name in TELL):.0f} |",
        "",
        f"## How well it finds the tumours of {outcome.figures['score'].subjects} new patients",
        "",
        "| score | AUPRC | Dice |",
        "|---|---|---|",
        *(
            f"| {title} | {_cell(outcome.figures[name])} | {_cell(outcome.dice[name])} |"
            for name, title in SYSTEMS.items()
        ),
        "",
        "- **AUPRC** asks whether tumour voxels score higher than all others: 1 is perfect; a score that knows nothing "
        "gets the share of tumour in the brain, a few hundredths.",
        "- **Dice** asks how well the mask overlaps the true outline: 1 is the same voxels, 0 is nothing in common. "
        "The mask is the voxels above the calibrated threshold.",
        "- Both are means over patients; in brackets the range in which the mean would lie with other patients "
        "(95 %, bootstrap), wide because they are few.",
        "- The fused score joins two opinions: the reconstruction says how far a voxel is from healthy anatomy, "
        "whatever is wrong with it; the UNet says how much it looks like a lesion that it has learnt.",
        "",
        f"## What it says of {len(outcome.healthy)} healthy subjects",
        "",
        f"{outcome.alarms} of {len(outcome.healthy)} have an alarm, a mask of more than {outcome.alarm_ml:g} ml. "
        f"The threshold is the lowest that marked at most {outcome.limit_ml:g} ml on average in the healthy ones of "
        "the validation subjects.",
        "",
        *(f"- {one.case}: {one.mask_ml:.2f} ml" for one in outcome.healthy),
        "",
        "## Where to look",
        "",
        "- `overview.png`: every new subject, scan to mask; `scores/pictures/`: the best, the median and the worst.",
        "- `scores/summary.md`: all figures with their intervals; `scores/cases.csv`: the same case by case.",
        "- `predictions/`: the maps on the scans' own grids, for any NIfTI viewer.",
        "- `reconstructor/pictures/`, `detector-few/pictures/`: samples and loss curves of the trainings.",
        "- `phantoms/`: the scans, a BIDS data set. `detector/`: the model, which finds lesions in other scans by",
        "",
        "```",
        f"hybriduad predict {out / 'detector'} SCAN_OR_COHORT --out DIR",
        "```",
        "",
        "![every new subject](overview.png)",
        "",
    ]
    return "\n".join(lines)


def draw_overview(path: Path, cohort: Path, predictions: Path, scores: Path) -> None:
    """Draw a row of slices for each new subject, the patients first: where the lesion, or else the mask, is largest."""
    figures = {row["case"]: row for row in _rows(scores)}
    records = {record["case"]: record for record in map(_read, sorted(predictions.rglob(f"*{RECORD_END}")))}
    cases = sorted(read_cohort(cohort, split="test"), key=lambda case: (case.health == "healthy", case.name))
    rows, labels = [], []
    for case in cases:
        row = figures[case.name]
        said = f"{float(row['mask_ml']):.1f} ml" if case.lesion is None else f"Dice {float(row['dice']):.2f}"
        labels.append(f"{case.subject}\n{'healthy' if case.lesion is None else 'tumour'}\n{said}")
        rows.append(_pictures(case, predictions, records[case.name]["parts"]))
    slice_grid(path, rows, TITLES, labels=labels, inch=1.3)


def _pictures(case: Case, predictions: Path, parts: Mapping[str, str]) -> list[np.ndarray]:
    mask = read_mask(predictions / parts["mask"]).data
    truth = np.zeros_like(mask) if case.lesion is None else read_mask(case.lesion).data
    brain = read_mask(predictions / parts["brain"]).data
    shown = next((one for one in (truth, mask, brain) if one.any()), brain)
    level = int(shown.sum(axis=(0, 1)).argmax())
    reference = read_volume(case.images["FLAIR"]).data
    images = [
        _grey(read_volume(case.images["T1w"]).data, brain),
        _grey(reference, brain),
        _grey(read_volume(predictions / parts["reconstruction"]).data, brain, like=reference),
    ]
    score = read_volume(predictions / parts["score"], constant_ok=True).data.astype(np.float64)
    return [one[:, :, level] for one in (*images, score, mask, truth)]


def _grey(image: np.ndarray, brain: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """(X, Y, Z) in [-1, 1], white as on the model grid; ``like`` is the scan whose white is taken."""
    white = WHITE * float(np.median((image if like is None else like)[brain]))
    return np.asarray(2 * np.clip(image / white, 0, 1) - 1, dtype=np.float32)


def _cell(figure: Figure) -> str:
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def _rows(scores: Path) -> list[dict[str, str]]:
    """The rows of the fused score in an evaluation's table of cases."""
    with (scores / "cases.csv").open(encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["system"] == "score"]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
