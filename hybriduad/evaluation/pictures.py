"""The best, the median and the worst case of an evaluation, to be looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.cohort.truth import read_truth
from hybriduad.core.drawing import slice_grid
from hybriduad.core.types import WHITE, Case
from hybriduad.detector.thresholds import Cutoff, scan_mask
from hybriduad.evaluation.case import CaseScores
from hybriduad.scan.preparation import scan_on_grid
from hybriduad.scan.volumes import read_mask, read_volume

TITLES = ("scan", "pseudo-healthy", "score", "mask", "truth")
SLICES = 2
"""Slices a case: that with most of the lesion, and that with most wrong voxels."""


def chosen_cases(cases: Sequence[CaseScores], part: str = "score") -> dict[str, CaseScores]:
    """``best``, ``median`` and ``worst`` of the cases with a lesion, by Dice of a part, without calibration by its
    AUPRC; fewer where there are fewer cases."""
    figure = "dice" if all("dice" in case.systems.get(part, {}) for case in cases) else "auprc"
    named = {case.name: case for case in cases}
    values = {name: case.systems.get(part, {}).get(figure, math.nan) for name, case in named.items()}
    return {label: named[name] for label, name in best_median_worst(values).items()}


def best_median_worst(values: Mapping[str, float]) -> dict[str, str]:
    """The labels with the names whose values they are; nan is left out. Of two there is no median, of one no worst."""
    ranked = sorted((name for name, value in values.items() if not math.isnan(value)), key=lambda n: (-values[n], n))
    if len(ranked) < 3:
        return dict(zip(("best", "worst"), ranked, strict=False))
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


def picture_name(label: str, part: str) -> str:
    """The file of a part's picture; that of the fused score is named by its label alone."""
    return f"{label}.png" if part == "score" else f"{part}-{label}.png"


def draw_case(
    path: Path,
    folder: Path,
    record: Mapping[str, Any],
    case: Case,
    scores: CaseScores,
    label: str,
    part: str = "score",
    cutoff: Cutoff | None = None,
) -> None:
    """Draw :data:`SLICES` slices of a case on the grid of its scan: scan, pseudo-healthy, score, mask and truth.

    A part that was not predicted stays empty; the mask is that which was evaluated, by ``cutoff``, whose threshold for
    the scan lies in the middle of the score's colours. Another ``part`` of the prediction may stand for the score.

    Raises:
        DataError: a file that cannot be read any more.
    """
    parts, notes = record["parts"], record["notes"]
    brain = read_mask(folder / parts["brain"])
    truth = read_truth(case, brain.data, brain.grid, notes)
    contrast = notes.get("shown", notes.get("reference", ""))
    white = WHITE * notes.get("intensity_median", {}).get(contrast, 1.0)
    empty = np.zeros(truth.region.shape, dtype=bool)

    def intensity(data: np.ndarray) -> np.ndarray:
        return np.asarray(2 * np.clip(truth.crop(data) / white, 0, 1) - 1, dtype=np.float32)

    reconstruction = parts.get("reconstruction")
    values = read_volume(folder / parts[part], constant_ok=True).data
    score, mask, threshold = truth.scores(values), empty, None
    if cutoff is not None:
        whole, threshold = scan_mask(cutoff, values, brain.data, truth.voxel_ml)
        mask = truth.crop(whole) & truth.region
    # A product of several witnesses is small everywhere: what counts is where its threshold lies.
    shown = score if threshold is None or not 0 < threshold < 1 else score / (score + threshold)
    columns = (
        intensity(scan_on_grid(case.images, contrast, truth.grid, notes)) if contrast in case.images else empty,
        intensity(read_volume(folder / reconstruction, constant_ok=True).data) if reconstruction else empty,
        shown.astype(np.float64),  # in colour
        mask,
        truth.lesion,
    )
    rows = [[column[..., index] for column in columns] for index in _shown(score, mask, truth.lesion)]
    figures = scores.systems[part]
    caption = f"{label} {scores.name}\n" + "  ".join(
        f"{name} {figures[key]:.2f}" for name, key in (("Dice", "dice"), ("AUPRC", "auprc")) if key in figures
    )
    titles = [part if title == "score" else title for title in TITLES]
    slice_grid(path, rows, titles, labels=[caption] + [""] * (len(rows) - 1), inch=2.0)


def _shown(score: np.ndarray, mask: np.ndarray, lesion: np.ndarray) -> list[int]:
    extent = lesion.sum(axis=(0, 1))
    wrong = (mask ^ lesion).sum(axis=(0, 1)) if mask.any() else (score * ~lesion).sum(axis=(0, 1))
    first = int(extent.argmax())
    order = [first, *(int(index) for index in np.argsort(-wrong, kind="stable") if index != first)]
    return sorted(order[:SLICES])
