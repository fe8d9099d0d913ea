"""Predictions to what the next tool of a lab takes: scans without lesions, and the lesion mask as fMRIPrep reads it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad import __version__
from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import ConfigError, DataError, reason_of
from hybriduad.core.outcome import Outcome
from hybriduad.core.requests import is_another
from hybriduad.core.types import Case, Split
from hybriduad.datasets._layout import entities
from hybriduad.exchange.filling import SEAM_MM, fill_lesion
from hybriduad.prediction.files import record_of
from hybriduad.scan.digests import file_digest
from hybriduad.scan.preparation import resampled
from hybriduad.scan.template_space import lying
from hybriduad.scan.volumes import (
    Image,
    read_grid,
    read_mask,
    read_volume,
    replace_voxels,
    write_atomically,
    write_json,
    write_volume,
)

log = logging.getLogger(__name__)
FORMAT = 2
"""Part of a folder's request: raised whenever the same request would write other voxels."""
REQUEST = "fill.json"
ROI = "label-lesion_roi"
ABOUT = """# Scans without lesions, and lesion masks for fMRIPrep, by hybriduad

Research use only. `*_desc-lesionfilled_*.nii.gz`: the scan with the model's pseudo-healthy reconstruction in place of
the predicted lesion; outside the brain, and farther from the mask than `seam_mm` (`fill.json`), the stored voxels are
those of the scan bit by bit. What is filled in is made up.

`*_T1w_label-lesion_roi.nii.gz`: the predicted mask (1 in the lesion, not dilated) on the grid of the T1w scan. fMRIPrep
masks its registration with it where it lies in `sub-X/anat` of the raw data set and `.bidsignore` there has the line
`*lesion_roi.nii.gz` (https://fmriprep.org/en/stable/workflows.html, "Cost function masking during spatial
normalization"). Look at every mask first. Where it was drawn on another contrast than T1w, both must be aligned.
"""


def fill_cohort(
    predictions: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    seam_mm: float = SEAM_MM,
    split: Split | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Fill the predicted lesions of every case, and write their masks for fMRIPrep; a case that was done is kept.

    Filled is every contrast that the model takes and the case has, on its own grid; voxel type, scaling and transforms
    of the scan stay. The mask is written for cases with a T1w scan and a lesion, on the grid of that scan.

    Args:
        predictions: a folder made by ``predict`` with the maps mask, brain and reconstruction (or all).
        cohort: the cases that were predicted.
        out: the folder, a BIDS derivative.
        seam_mm: how far from the mask voxels may change.
        split: only the cases of that split.
        overwrite: do it anew, in place of what another request left in ``out``.

    Raises:
        ConfigError: a seam that is not positive, or something else in ``out``.
        DataError: the cohort cannot be read, or has no case of the split.
    """
    if not 0 < seam_mm < float("inf"):
        raise ConfigError("bad seam", got=seam_mm, expected="millimetres above 0")
    cases = read_cohort(cohort, split=split)
    source, folder = Path(predictions), Path(out)
    _begin(folder, {"format": FORMAT, "seam_mm": seam_mm}, overwrite)
    outcome = Outcome(folder)
    for case in cases:
        began = time.perf_counter()
        try:
            filled = _fill_case(source, case, folder, seam_mm, overwrite)
        except Exception as error:  # no error of a case ends the others
            outcome.failed[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, outcome.failed[case.name])
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        (outcome.done if filled else outcome.kept).append(case.name)
        what = f"{', '.join(filled)} filled" if filled else "kept"
        log.info("%s: %s in %.1f s", case.name, what, time.perf_counter() - began)
    return outcome


def _fill_case(source: Path, case: Case, out: Path, seam_mm: float, overwrite: bool) -> list[str]:
    """The contrasts that were filled: none if the case was done from the same files before."""
    record = _record(source, case)
    healthy = _pseudo_healthy(record)
    case.check((*healthy, "T1w"))
    parts = {name: source / record["parts"][name] for name in ("mask", "brain")}
    digests = {name: file_digest(path) for name, path in parts.items()}
    inputs: dict[str, dict[str, str]] = {}
    for contrast, path in healthy.items():
        digest = file_digest(case.images[contrast]) if contrast in case.images else ""
        if record["inputs"].get(contrast, {}).get("sha256") != digest:
            mend = "predict this cohort first"
            raise DataError("prediction of another scan of that name", where=case.name, mend=mend)
        inputs[contrast] = {"scan": digest, **digests, "reconstruction": file_digest(source / path)}
    place = out / case.place
    stems = {contrast: place / _named(case, contrast) for contrast in healthy}
    waiting = [name for name, stem in stems.items() if overwrite or not _is_filled(stem, inputs[name])]
    if not waiting:
        return []
    place.mkdir(parents=True, exist_ok=True)
    masks = {name: read_mask(path) for name, path in parts.items()}
    spread = {name: Image(mask.data.astype(np.float32), mask.grid) for name, mask in masks.items()}
    about = {
        "Description": "the scan with its predicted lesion filled in; hybriduad, research use only",
        "SkullStripped": bool(record["SkullStripped"]),
        "SpatialReference": "orig",
        "seam_mm": seam_mm,
        "bundle": record["bundle"],
    }
    for contrast in waiting:
        target, sidecar = (stems[contrast].with_name(stems[contrast].name + end) for end in (".nii.gz", ".json"))
        for old in (sidecar, target):  # those of another prediction
            old.unlink(missing_ok=True)
        scan = read_volume(case.images[contrast])
        grid = lying(scan.grid, contrast, record["notes"])
        mask, brain = (resampled(spread[name], grid, linear=False) > 0.5 for name in ("mask", "brain"))
        reconstruction = resampled(read_volume(source / healthy[contrast]), grid, linear=True)
        values, where = fill_lesion(scan.data, reconstruction, mask, brain, scan.grid.spacing_mm, seam_mm=seam_mm)
        replace_voxels(case.images[contrast], target, where, values)
        content = {**about, "voxels_changed": int(where.sum()), "inputs": inputs[contrast]}
        if contrast == record["notes"]["shown"]:
            content["roi"] = _write_roi(spread["mask"], case, place, record)
        write_json(sidecar, content)
    return waiting


def _is_filled(stem: Path, inputs: Mapping[str, str]) -> bool:
    """Whether a scan was filled before, from the same files.

    Raises:
        DataError: it was, from others.
    """
    sidecar = stem.with_name(f"{stem.name}.json")
    if not sidecar.is_file():
        return False
    if json.loads(sidecar.read_text()).get("inputs") != inputs:
        raise DataError("filled from other files of that name", where=sidecar, mend="--overwrite, or another folder")
    return True


def _write_roi(mask: Image, case: Case, place: Path, record: Mapping[str, Any]) -> str | None:
    """Write the mask on the grid of the T1w scan; the name of the file, None without a T1w scan or a lesion."""
    if "T1w" not in case.images:
        return None
    path = place / f"{_roi_stem(case)}_{ROI}.nii.gz"
    path.unlink(missing_ok=True)  # of another prediction, which may have had a lesion
    if not mask.data.any():
        return None
    grid = read_grid(case.images["T1w"])
    voxels = resampled(mask, lying(grid, "T1w", record["notes"]), linear=False) > 0.5
    write_volume(path, voxels, grid, np.uint8)
    if not voxels.any():
        log.warning("%s: the lesion is too small for a voxel of the T1w scan: its mask is empty", case.name)
    return path.name


def _pseudo_healthy(record: Mapping[str, Any]) -> dict[str, str]:
    """Contrast -> the file of its pseudo-healthy scan, the one that pages show first; once there was no other."""
    return dict(record.get("pseudo_healthy") or {record["notes"]["shown"]: record["parts"]["reconstruction"]})


def _record(source: Path, case: Case) -> dict[str, Any]:
    """The record of a prediction that has all that filling needs."""
    path = record_of(source, case)
    if not path.is_file():
        raise DataError("no prediction", where=case.name, expected=path, mend="predict this cohort first")
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        there = set(record["parts"])
        for part in (*record["parts"].values(), *record.get("pseudo_healthy", {}).values()):
            if not (source / part).resolve().is_relative_to(source.resolve()):
                raise DataError("record of a file outside its folder", where=path, got=part)
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError("unreadable record of a case", where=path, mend="predict it again") from error
    if lacking := [name for name in ("mask", "brain", "reconstruction") if name not in there]:
        mend = "predict with --maps all, by a calibrated bundle whose reconstructor gives an image"
        raise DataError("prediction without what filling needs", where=case.name, got=f"no {lacking}", mend=mend)
    return record


def _named(case: Case, contrast: str) -> str:
    """The stem of a filled scan: contrast agents are an entity of the name in BIDS."""
    agent, suffix = ("_ce-gadolinium", "T1w") if contrast == "T1wCE" else ("", contrast)
    run = f"_run-{case.run}" if case.run else ""
    return f"{case.name.removesuffix(run)}{agent}{run}_desc-lesionfilled_{suffix}"


def _roi_stem(case: Case) -> str:
    """fMRIPrep's name of a lesion mask begins with that of its T1w scan."""
    name = case.images["T1w"].name
    return name.partition(".nii")[0] if entities(name) else f"{case.name}_T1w"


def _begin(out: Path, request: dict[str, Any], overwrite: bool) -> None:
    """Make the folder, or check that the folder there is of the same request."""
    if is_another(out, REQUEST, request, "filled scans", overwrite):
        for old in [*out.glob("sub-*/**/*_desc-lesionfilled_*"), *out.glob(f"sub-*/**/*_{ROI}.nii.gz")]:
            old.unlink()
    out.mkdir(parents=True, exist_ok=True)
    about = {"BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "hybriduad", "Version": __version__}]}
    about |= {"Name": "hybriduad lesion filling (research use only)", "DatasetType": "derivative"}
    write_json(out / "dataset_description.json", about)
    write_atomically(out / "README.md", ABOUT.encode())
    write_atomically(out / ".bidsignore", f"{REQUEST}\n*lesion_roi.nii.gz\n".encode())
    write_json(out / REQUEST, request)
