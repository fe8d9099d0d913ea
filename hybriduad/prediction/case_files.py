"""What is written of a case: its maps, each with a sidecar, the table of its lesions, and last its record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hybriduad.core.processes import peak_mb
from hybriduad.core.types import Case, Prediction
from hybriduad.detector.bundle import Bundle, versions
from hybriduad.prediction.confidence import confidence_of
from hybriduad.prediction.files import CONTENT, FORMAT, LESIONS, SUFFIXES, inputs_of, record_of
from hybriduad.prediction.lesion_table import lesion_table
from hybriduad.scan.atlas import Atlas
from hybriduad.scan.volumes import VolumeGrid, write_atomically, write_json, write_volume


def write_case(
    folder: Path,
    case: Case,
    prediction: Prediction,
    wanted: Sequence[str],
    model: Bundle,
    rule: str,
    began: float,
    atlas: Atlas | None = None,
) -> None:
    """Write the ``wanted`` parts of a prediction, each with its sidecar, and last the record: the score's sidecar.

    ``rule`` cut the mask; ``began`` is the :func:`time.perf_counter` at which the case was begun; ``atlas``, for a
    model in template space, names the regions of lesions.
    """
    place = folder / case.place
    place.mkdir(parents=True, exist_ok=True)
    grid: VolumeGrid = prediction.grid
    contrasts = model.anatomy.contrasts
    # In the space of the scan itself, which BIDS calls "orig".
    shared = {"SkullStripped": prediction.notes["brain"]["method"].startswith("non-zero"), "SpatialReference": "orig"}
    written: dict[str, str] = {}
    healthy: dict[str, str] = {}
    for part in wanted:
        values = getattr(prediction, part)
        if values is None:
            continue
        for contrast, volume in ({"": values} if part != "reconstruction" else _scans(values, case, contrasts)).items():
            stem = f"{case.name}_{SUFFIXES[part]}{contrast and f'_{contrast}'}"
            write_volume(place / f"{stem}.nii.gz", volume, grid, np.uint8 if volume.dtype == bool else np.float32)
            relative = (case.place / f"{stem}.nii.gz").as_posix()
            written.setdefault(part, relative)
            if contrast:
                healthy[contrast] = relative
            if part != "score":
                kind = {"mask": "Lesion", "brain": "Brain"}.get(part)
                content = {"Description": f"{CONTENT[part]}; hybriduad, research use only"}
                write_json(place / f"{stem}.json", shared | content | ({"Type": kind} if kind else {}))
    thresholds = model.record["thresholds"]
    if "mask" in written and prediction.mask is not None and prediction.score is not None:
        space = prediction.notes.get("template")
        matrix = None if space is None else np.array(space["matrix"])
        table = lesion_table(
            thresholds,
            prediction.mask,
            prediction.score,
            prediction.brain,
            grid,
            uncertainty=prediction.uncertainty,
            matrix=matrix,
            atlas=atlas,
        )
        write_atomically(place / f"{case.name}_{LESIONS}", table.encode())
    write_json(
        record_of(folder, case),
        shared
        | {
            "Description": "fused anomaly score of hybriduad in [0, 1], research use only",
            "format": FORMAT,
            "case": case.name,
            "dataset": case.dataset,
            "subject": case.subject,
            "bundle": model.digest,
            "parts": written,
            "pseudo_healthy": healthy,
            "threshold": prediction.threshold,
            "peak_score": None if prediction.score is None else round(float(prediction.score.max()), 4),
            "mean_uncertainty": _mean(prediction.uncertainty, prediction.brain),
            "rule": rule or None,
            "confidence": confidence_of(thresholds, rule, prediction),
            "seconds": round(time.perf_counter() - began, 3),
            "memory_mb": round(peak_mb(), 1),
            "versions": versions(),
            "inputs": inputs_of(case, contrasts),
            "quality": prediction.notes.get("quality"),
            "notes": {name: note for name, note in prediction.notes.items() if name not in ("quality", "template")},
        }
        | ({"space": prediction.notes["template"]} if "template" in prediction.notes else {}),
    )


def _mean(values: np.ndarray | None, brain: np.ndarray) -> float | None:
    return None if values is None or not brain.any() else round(float(values[brain].mean()), 4)


def _scans(values: np.ndarray, case: Case, contrasts: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Contrast -> its pseudo-healthy scan (X, Y, Z), of those that the case has; the one that pages show is first."""
    shown = case.shown_contrast(contrasts)
    volumes = {name: values[contrasts.index(name)] for name in (shown, *contrasts) if name in case.images}
    return {name: volume for name, volume in volumes.items() if name == shown or volume.any()}
