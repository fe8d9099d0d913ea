"""Real lesions of labelled cases beside painted ones: at which threshold each is found. They choose no threshold."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.cohort.digest import cohort_digest
from hybriduad.cohort.leakage import check_unseen
from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.runs import NATIVE, Anatomy
from hybriduad.core.errors import DataError, reason_of
from hybriduad.core.types import Case
from hybriduad.detector.bundle import Bundle
from hybriduad.detector.inference import Detector
from hybriduad.evaluation.lesion_contrast import look_of
from hybriduad.evaluation.threshold_curve import LEAST_ML, heights, is_hit
from hybriduad.metrics.clusters import labelled, least_voxels
from hybriduad.prediction.case import predict_case
from hybriduad.scan.brain_ways import brain_key
from hybriduad.scan.grid import DIRECTIONS
from hybriduad.scan.preparation import mask_on_grid, prepare
from hybriduad.scan.volumes import VolumeGrid, read_grid, spacing_of, write_atomically
from hybriduad.training.native_volume import native_volume
from hybriduad.training.planned_lesions import SIZES_ML

log = logging.getLogger(__name__)

FORMAT = 2
"""Part of the key of a record: raised whenever it would hold something else."""
FOLDER, LIKE = "labelled", "like"
"""The records of labelled cases, and those of cases of which only the looks of their lesions are wanted."""
OVER = f"over {SIZES_ML[-1][1]:g}"
"""The class of size of lesions larger than any that is painted."""
SIZES = (*(f"{low:g}-{high:g}" for low, high in SIZES_ML), OVER)


def real_records(
    model: Bundle, detector: Detector, rule: str | None, cohort: str | Path, folder: Path, failed: dict[str, str]
) -> list[dict[str, Any]]:
    """The records of the labelled cases of a cohort, kept in ``folder`` from call to call; ``failed`` gets the others.

    Raises:
        LeakageError: a case was used to fit or calibrate the bundle.
        DataError: no labelled case, or cases of one name.
    """
    cases = _labelled_cases(cohort)
    contrasts = model.anatomy.contrasts
    way = "".join(f" {name}" for name in brain_key(detector.anatomy))
    failed |= {name: reason for (_, name), reason in check_unseen(cases, model.used, contrasts).items()}

    def lesions_of(case: Case) -> list[dict[str, Any]]:
        found = _lesions(detector, case, rule)
        log.info("%s: %d real lesions", case.name, len(found))
        return found

    def key_of(case: Case) -> str:
        return f"{FORMAT} {model.digest} {rule} {cohort_digest([case])}" + way

    return _kept([case for case in cases if case.name not in failed], folder / FOLDER, key_of, lesions_of, failed)


def lesion_looks(
    anatomy: Anatomy, direction: str, cohort: str | Path, folder: Path, failed: dict[str, str]
) -> list[dict[str, Any]]:
    """What the lesions of annotated cases look like, without predicting them; kept in ``folder``, as are records.

    ``direction`` is that of the slices; ``failed`` gets the cases that could not be measured.

    Raises:
        DataError: no labelled case, or cases of one name.
    """
    native = anatomy.model_copy(update={"space": NATIVE, "spacing_mm": None})

    def lesions_of(case: Case) -> list[dict[str, Any]]:
        brain = prepare(case, native).scan_brain
        grid = read_grid(case.images[case.reference_contrast(anatomy.contrasts)])
        return [what for what, _ in _measured(case, anatomy.contrasts, direction, brain, grid, {}, None)]

    def key_of(case: Case) -> str:
        return " ".join([str(FORMAT), *anatomy.contrasts, direction, cohort_digest([case]), *brain_key(anatomy)])

    return _kept(_labelled_cases(cohort), folder / LIKE, key_of, lesions_of, failed)


def _kept(
    cases: Sequence[Case],
    folder: Path,
    key_of: Callable[[Case], str],
    lesions_of: Callable[[Case], list[dict[str, Any]]],
    failed: dict[str, str],
) -> list[dict[str, Any]]:
    """The record of each case: that in ``folder`` if it is of the same key, else made and written there."""
    records = []
    for case in cases:
        try:
            key, path = key_of(case), folder / f"{case.name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            if record.get("key") != key:
                person = [case.dataset, case.subject]
                record = {"key": key, "case": case.name, "person": person, "lesions": lesions_of(case)}
                write_atomically(path, json.dumps(record, indent=1).encode())
            records.append(record)
        except Exception as error:  # no error of a case ends the others
            failed[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, failed[case.name])
            log.debug("traceback of %s", case.name, exc_info=True)
    return records


def _labelled_cases(cohort: str | Path) -> list[Case]:
    cases = [case for case in read_cohort(cohort) if case.lesion is not None or "lesion" in case.faults]
    if not cases:
        raise DataError("no labelled case", where=cohort, expected="cases with a lesion mask")
    if len({case.name for case in cases}) < len(cases):
        raise DataError("cases of one name", where=cohort, mend="look at one data set at a time")
    return cases


def _measured(
    case: Case,
    contrasts: tuple[str, ...],
    direction: str,
    brain: np.ndarray,
    grid: VolumeGrid,
    notes: Mapping[str, Any],
    mask: np.ndarray | None,
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Each lesion of a case of at least the smallest painted size: size and looks, and where it is (X, Y, Z) bool.

    ``brain`` and ``mask``, the predicted one, are (X, Y, Z) bool on ``grid``, that of the reference scan; ``notes`` are
    those of the prediction.
    """
    case.check(("lesion", "ignore"))
    assert case.lesion is not None  # as of all cases here that have no fault
    truth = mask_on_grid(case.lesion, case, "lesion", grid, notes)
    ignore = np.zeros_like(truth) if case.ignore is None else mask_on_grid(case.ignore, case, "ignore", grid, notes)
    truth &= ~ignore
    voxel_ml = math.prod(spacing_of(grid.affine)) / 1000
    labels, sizes = labelled(truth)
    volume = native_volume(case, contrasts, brain)
    tissue = volume.brain & ~volume.of_scan(truth | ignore)
    after = None if mask is None else volume.of_scan(mask)
    measured = []
    for number in [number for number, size in enumerate(sizes, start=1) if size * voxel_ml >= SIZES_ML[0][0]]:
        volume_ml, lesion = float(sizes[number - 1]) * voxel_ml, labels == number
        look = look_of(volume, volume.image, volume.of_scan(lesion), tissue, DIRECTIONS.index(direction), after)
        measured.append(({"size_ml": size_of(volume_ml), "volume_ml": round(volume_ml, 4), **look}, lesion))
    return measured


def _lesions(detector: Detector, case: Case, rule: str | None) -> list[dict[str, Any]]:
    """The lesions of a case of at least the smallest painted size, and the highest threshold at which each is found."""
    prediction = predict_case(detector, case, rule=rule)
    if prediction.score is None:
        raise DataError("no score", where=case.name)
    contrasts, grid = detector.anatomy.contrasts, prediction.grid
    measured = _measured(case, contrasts, detector.direction, prediction.brain, grid, prediction.notes, prediction.mask)
    masks = [mask for _, mask in measured]
    voxels = least_voxels(LEAST_ML, math.prod(spacing_of(grid.affine)) / 1000)
    reached, _ = heights(prediction.score, prediction.brain, masks, voxels)
    return [
        {**what, "found_at": at, "found": None if prediction.mask is None else is_hit(prediction.mask, mask)}
        for (what, mask), at in zip(measured, reached, strict=True)
    ]


def size_of(volume_ml: float) -> str:
    """The class of size of a lesion of at least the smallest painted size."""
    return next((name for (_, high), name in zip(SIZES_ML, SIZES, strict=False) if volume_ml < high), OVER)


def read_real(folder: Path) -> list[dict[str, Any]]:
    """The records of labelled cases in a folder of blind spots; none where none were looked at."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / FOLDER).glob("*.json"))]


def real_words(records: Sequence[Mapping[str, Any]], threshold: float | None) -> str:
    """What of the real lesions is found, by size, in a sentence: at a threshold, or without one in the masks."""
    lesions = [lesion for record in records for lesion in record["lesions"]]
    found = np.array([lesion["found"] if threshold is None else lesion["found_at"] >= threshold for lesion in lesions])
    sizes = np.array([lesion["size_ml"] for lesion in lesions])
    parts = [
        f"{size} ml {found[sizes == size].mean():.0%} ({found[sizes == size].sum()} of {(sizes == size).sum()})"
        for size in SIZES
        if (sizes == size).any()
    ]
    listed = ", ".join(parts) or "none of a size that is painted"
    return f"Found of the real lesions of {len(records)} labelled cases, which chose no threshold: {listed}."
