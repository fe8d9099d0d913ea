"""Inference on one case or a cohort: maps on the scan's own grid. One bad case never ends a cohort."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad import __version__
from hybriduad.bundle import Bundle, load_detector, verify, versions
from hybriduad.detector import Detector
from hybriduad.errors import ConfigError, DataError, HybridUADError
from hybriduad.manifest import read_cohort
from hybriduad.preprocess import Prepared, PreparedCache, intensity_from_model, prepare, restore
from hybriduad.types import Case, Prediction, Split
from hybriduad.volumes import VolumeGrid, read_volume, write_atomically, write_volume

log = logging.getLogger(__name__)

SUFFIXES = {
    "score": "desc-anomaly_probseg",
    "probability": "desc-segmenter_probseg",
    "map": "desc-reconstruction_probseg",
    "intensity": "desc-intensity_probseg",
    "mask": "label-lesion_desc-anomaly_mask",
    "brain": "desc-brain_mask",
    "reconstruction": "desc-pseudohealthy",
}
"""Part of a prediction -> the end of its file's name; a pseudo-healthy scan adds its contrast."""
DEFAULT_MAPS = ("score", "mask", "brain")
MODEL, DESCRIPTION = "model.json", "dataset_description.json"


@dataclass
class Outcome:
    """What became of a cohort: case names that were ``done`` now, ``kept`` from before, and ``failed`` with why."""

    out: Path
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def predict_case(
    detector: Detector, case: Case, *, rule: str | None = None, cache: PreparedCache | None = None
) -> Prediction:
    """Predict one case on the grid and in the orientation of its reference scan.

    Maps come back by linear interpolation and are 0 outside the brain; the mask is the restored score against the
    threshold of ``rule`` (the bundle's default rule by default), and absent without calibration. ``reconstruction`` is
    (C, X, Y, Z) in the intensity units of the reference scan's contrasts, equal to the scan outside the brain.

    Raises:
        DataError: the case cannot be prepared (:func:`hybriduad.preprocess.prepare`).
        ConfigError: a rule that was not calibrated.
    """
    anatomy, direction = detector.anatomy, detector.direction
    # A prediction must not depend on whether the truth is known.
    blind = replace(case, lesion=None, ignore=None)
    prepared = cache.get(blind, anatomy, direction) if cache else prepare(blind, anatomy, direction)
    found = detector.predict_volume(prepared, rule=rule)
    return on_scan_grid(found, prepared, case, detector)


def on_scan_grid(found: Prediction, prepared: Prepared, case: Case, detector: Detector) -> Prediction:
    """Bring a prediction from the model grid back to the reference scan's own grid and orientation."""
    brain = restore(found.brain, prepared.grid, order=0) > 0

    def back(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.where(brain, np.clip(restore(values, prepared.grid, order=1), 0.0, 1.0), 0.0).astype(np.float32)

    score = back(found.score)
    return replace(
        found,
        brain=brain,
        score=score,
        probability=back(found.probability),
        map=back(found.map),
        intensity=back(found.intensity),
        reconstruction=_pseudo_healthy(found, prepared, case, detector, brain),
        mask=None if score is None or found.threshold is None else (score >= found.threshold) & brain,
        grid=prepared.grid.volume,
    )


def predict_cohort(
    bundle: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    maps: Sequence[str] = DEFAULT_MAPS,
    rule: str | None = None,
    device: str = "auto",
    split: Split | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    contrast: str | None = None,
) -> Outcome:
    """Predict every case of a cohort into a BIDS derivative folder; a case that was done before is kept.

    Args:
        bundle: a detector's folder, or a reconstructor's.
        cohort: manifest CSV, BIDS folder or one image, whose contrast ``contrast`` names if its file name does not.
        out: the predictions folder.
        maps: parts to write (:data:`SUFFIXES`), or ("all",); a part that the bundle lacks is left out.
        rule: which calibrated rule makes the mask; the bundle's default rule by default.
        device: "auto", "cpu", "cuda", "cuda:1".
        split: only the cases of that split.
        cache: folder for prepared volumes that several runs share.
        overwrite: predict again what another bundle or other options left in ``out``.

    Raises:
        ConfigError: unknown maps, or other predictions in ``out``.
        DataError: the cohort cannot be read, has no case of the split, or cases of one name in two data sets.
        BundleError: an unusable bundle.
    """
    wanted = _wanted(maps)
    model = verify(bundle)
    cases = read_cohort(cohort, split=split, contrast=contrast)
    if twins := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
        mend = "predict each data set into a folder of its own"
        raise DataError("cases of one name in different data sets", where=cohort, got=twins, mend=mend)
    detector = load_detector(bundle, device)
    detector.thresholds.of("score", rule)
    folder = Path(out)
    _begin(folder, model, {"maps": list(wanted), "rule": rule, "bundle": model.digest}, overwrite)
    store = PreparedCache(cache) if cache is not None else None
    outcome = Outcome(folder)
    for case in cases:
        record = _record_of(folder, case)
        if overwrite:
            record.unlink(missing_ok=True)
        try:
            if record.is_file():
                _check_same_scan(record, case, model.anatomy.contrasts)
                outcome.kept.append(case.name)
                continue
            began = time.perf_counter()
            found = predict_case(detector, case, rule=rule, cache=store)
            _write_case(folder, case, found, wanted, model, rule or detector.thresholds.default, began)
        except (HybridUADError, OSError, MemoryError) as error:
            outcome.failed[case.name] = str(error) or type(error).__name__
            log.error("%s failed: %s", case.name, outcome.failed[case.name])
            continue
        outcome.done.append(case.name)
        log.info("%s done in %.1f s (%d of %d)", case.name, time.perf_counter() - began, len(outcome.done), len(cases))
    return outcome


def _wanted(maps: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(maps) - {*SUFFIXES, "all"})
    if unknown or not maps:
        raise ConfigError("unknown maps", got=unknown or "none", expected=f"some of {[*SUFFIXES, 'all']}")
    # The score is always written: its sidecar is the record that the case is complete.
    return tuple(SUFFIXES) if "all" in maps else tuple(name for name in SUFFIXES if name in {*maps, "score"})


def _place(case: Case) -> Path:
    session = [f"ses-{case.session}"] if case.session else []
    return Path(f"sub-{case.subject}", *session, "anat")


def _record_of(folder: Path, case: Case) -> Path:
    return folder / _place(case) / f"{case.name}_{SUFFIXES['score']}.json"


def _begin(folder: Path, model: Bundle, request: dict[str, Any], overwrite: bool) -> None:
    """Make the predictions folder, or check that the one that is there is of the same request."""
    path = folder / MODEL
    if path.is_file():
        try:
            asked = json.loads(path.read_text())["request"]
        except (ValueError, KeyError):
            asked = {}
        changed = [key for key in request if asked.get(key, "missing") != request[key]]
        if not changed:
            return
        if not overwrite:
            mend = "choose another folder, or --overwrite"
            raise ConfigError("other predictions in the same place", where=folder, got=f"another {changed}", mend=mend)
        # All of them, so that a folder never mixes two models, not even when this run is stopped.
        for suffix in SUFFIXES.values():
            for old in folder.glob(f"sub-*/**/anat/*_{suffix}*"):
                old.unlink()
    if folder.is_dir() and not path.is_file() and any(folder.iterdir()):
        raise ConfigError("output folder holds something else", where=folder, mend="name an empty or new folder")
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "hybriduad anomaly maps (research use only)",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "hybriduad", "Version": __version__}],
    }
    _write_json(folder / DESCRIPTION, description)
    write_atomically(folder / ".bidsignore", f"{MODEL}\n*.html\n*_lesions.tsv\n".encode())
    _write_json(
        path,
        {
            "bundle": model.digest,
            "kind": model.kind,
            "contrasts": list(model.anatomy.contrasts),
            "used": model.used,
            "thresholds": model.record["thresholds"],
            "request": request,
        },
    )


def _check_same_scan(record: Path, case: Case, contrasts: Sequence[str]) -> None:
    """A finished case of that name counts as done only if it is of the same files."""
    try:
        before = json.loads(record.read_text())["inputs"]
    except (ValueError, KeyError) as error:
        raise DataError("unreadable record of a case", where=record, mend="delete it") from error
    if before != _inputs(case, contrasts):
        raise DataError("prediction of another scan of that name", where=record, mend="--overwrite, or another folder")


def _write_case(
    folder: Path, case: Case, found: Prediction, wanted: Sequence[str], model: Bundle, rule: str, began: float
) -> None:
    place = folder / _place(case)
    place.mkdir(parents=True, exist_ok=True)
    grid: VolumeGrid = found.grid
    contrasts = model.anatomy.contrasts
    stripped = found.notes["brain"]["method"].startswith("non-zero")
    written: dict[str, Any] = {}
    for part in wanted:
        values = getattr(found, part)
        if values is None:
            continue
        if part == "reconstruction":
            reference = case.reference_contrast(contrasts)
            suffix, values = f"{SUFFIXES[part]}_{reference}", values[contrasts.index(reference)]
        else:
            suffix = SUFFIXES[part]
        binary = values.dtype == bool
        path = place / f"{case.name}_{suffix}.nii.gz"
        write_volume(path, values, grid, np.uint8 if binary else np.float32)
        written[part] = path.relative_to(folder).as_posix()
        if part != "score":
            sidecar = {"SkullStripped": stripped, "Description": f"{part} of hybriduad, research use only"}
            kind = {"mask": "Lesion", "brain": "Brain"}.get(part)
            _write_json(place / f"{case.name}_{suffix}.json", sidecar | ({"Type": kind} if kind else {}))
    _write_json(
        _record_of(folder, case),
        {
            "SkullStripped": stripped,
            "Description": "fused anomaly score of hybriduad in [0, 1], research use only",
            "case": case.name,
            "dataset": case.dataset,
            "subject": case.subject,
            "bundle": model.digest,
            "parts": written,
            "threshold": found.threshold,
            "rule": rule or None,
            "seconds": round(time.perf_counter() - began, 3),
            "versions": versions(),
            "inputs": _inputs(case, contrasts),
            "notes": found.notes,
        },
    )


def _pseudo_healthy(
    found: Prediction, prepared: Prepared, case: Case, detector: Detector, brain: np.ndarray
) -> np.ndarray | None:
    """(C, X, Y, Z): the reconstruction inside the brain; outside, and in contrasts on other grids, see below."""
    if found.reconstruction is None:
        return None
    contrasts = detector.anatomy.contrasts
    reference = case.reference_contrast(contrasts)
    outside = {reference: read_volume(case.images[reference]).data}
    result = np.zeros((len(contrasts), *brain.shape), dtype=np.float32)
    for index, name in enumerate(contrasts):
        if not prepared.present[index]:
            continue
        inside = intensity_from_model(found.reconstruction[index], prepared.grid, index)
        result[index] = np.where(brain, restore(inside, prepared.grid, order=1), outside.get(name, np.float32(0)))
    return result


def _inputs(case: Case, contrasts: Sequence[str]) -> dict[str, Any]:
    """The sha256 of each file that the prediction was made from: the images and, where there is one, the brain mask."""
    used = {name: path for name, path in case.images.items() if name in contrasts} | {"brain": case.brain}
    return {name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for name, path in used.items() if path}


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode())
