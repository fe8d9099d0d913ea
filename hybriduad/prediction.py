"""Inference on one case or a cohort: maps on the scan's own grid. One bad case never ends a cohort."""

from __future__ import annotations

import hashlib
import json
import logging
import time
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
        DataError: the cohort cannot be read, or has no case of the split.
        BundleError: an unusable bundle.
    """
    wanted = _wanted(maps)
    model = verify(bundle)
    cases = read_cohort(cohort, split=split, contrast=contrast)
    detector = load_detector(bundle, device)
    detector.thresholds.of("score", rule)
    folder = Path(out)
    _begin(folder, model, {"maps": list(wanted), "rule": rule, "bundle": model.digest}, overwrite)
    store = PreparedCache(cache) if cache is not None else None
    outcome = Outcome(folder)
    for case in cases:
        record = folder / _place(case) / f"{case.name}_{SUFFIXES['score']}.json"
        if record.is_file() and not overwrite:
            outcome.kept.append(case.name)
            continue
        try:
            began = time.perf_counter()
            found = predict_case(detector, case, rule=rule, cache=store)
            _write_case(folder, case, found, wanted, model, rule or detector.thresholds.default, began, record)
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


def _begin(folder: Path, model: Bundle, request: dict[str, Any], overwrite: bool) -> None:
    """Make the predictions folder, or check that the one that is there is of the same request."""
    path = folder / MODEL
    if path.is_file() and not overwrite:
        try:
            asked = json.loads(path.read_text())["request"]
        except (ValueError, KeyError) as error:
            raise DataError("unreadable record of predictions", where=path, mend="--overwrite") from error
        if asked != request:
            changed = [key for key in request if asked.get(key) != request[key]]
            raise ConfigError("other predictions in the same place", where=folder, got=f"another {changed}",
                              mend="choose another folder, or --overwrite")  # fmt: skip
        return
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


def _write_case(
    folder: Path,
    case: Case,
    found: Prediction,
    wanted: Sequence[str],
    model: Bundle,
    rule: str,
    began: float,
    record: Path,
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
        record,
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
            "inputs": {name: {"sha256": _file_sha256(path)} for name, path in case.images.items() if name in contrasts},
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


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode())
