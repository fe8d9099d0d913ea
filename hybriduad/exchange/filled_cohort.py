"""Predictions to what the next tool of a lab takes: scans without lesions, and the lesion mask as fMRIPrep reads it."""

from __future__ import annotations

import json
import logging
import time
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
FORMAT = 1
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

    The scan that is filled is the one whose pseudo-healthy reconstruction was written; its voxel type, scaling and
    transforms stay. The mask is written for cases with a T1w scan and a lesion, on the grid of that scan.

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
            done = _fill_case(source, case, folder, seam_mm, overwrite)
        except Exception as error:  # no error of a case ends the others
            outcome.failed[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, outcome.failed[case.name])
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        (outcome.done if done else outcome.kept).append(case.name)
        log.info("%s %s in %.1f s", case.name, "filled" if done else "kept", time.perf_counter() - began)
    return outcome


def _fill_case(source: Path, case: Case, out: Path, seam_mm: float, overwrite: bool) -> bool:
    """Whether something was written: no if the case was done from the same files before."""
    record = _record(source, case)
    shown = str(record["notes"]["shown"])
    parts = {name: source / record["parts"][name] for name in ("mask", "brain", "reconstruction")}
    case.check((shown, "T1w"))
    scan_path = case.images[shown]
    inputs = {"scan": file_digest(scan_path)} | {name: file_digest(path) for name, path in parts.items()}
    if record["inputs"].get(shown, {}).get("sha256") != inputs["scan"]:
        raise DataError("prediction of another scan of that name", where=case.name, mend="predict this cohort first")
    roi_grid = read_grid(case.images["T1w"]) if "T1w" in case.images else None
    place = out / case.place
    path = place / f"{_named(case, shown)}.nii.gz"
    sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
    if sidecar.is_file() and not overwrite:
        if json.loads(sidecar.read_text()).get("inputs") != inputs:
            raise DataError(
                "filled from other files of that name", where=sidecar, mend="--overwrite, or another folder"
            )
        return False
    roi_path = place / f"{_roi_stem(case)}_{ROI}.nii.gz" if roi_grid is not None else None
    for old in (sidecar, path, roi_path):  # those of another prediction, whose mask may have had a lesion
        if old is not None:
            old.unlink(missing_ok=True)
    scan, mask = read_volume(scan_path), read_mask(parts["mask"])
    spread = {name: Image(read_mask(parts[name]).data.astype(np.float32), mask.grid) for name in ("mask", "brain")}
    on_scan = {name: resampled(image, scan.grid, linear=False) > 0.5 for name, image in spread.items()}
    healthy = resampled(read_volume(parts["reconstruction"]), scan.grid, linear=True)
    values, where = fill_lesion(
        scan.data, healthy, on_scan["mask"], on_scan["brain"], scan.grid.spacing_mm, seam_mm=seam_mm
    )
    place.mkdir(parents=True, exist_ok=True)
    replace_voxels(scan_path, path, where, values)
    roi = None
    if roi_grid is not None and roi_path is not None and mask.data.any():
        voxels = resampled(spread["mask"], roi_grid, linear=False) > 0.5
        roi = roi_path
        write_volume(roi, voxels, roi_grid, np.uint8)
        if not voxels.any():
            log.warning("%s: the lesion is too small for a voxel of the T1w scan: its mask is empty", case.name)
    content = {
        "Description": "the scan with its predicted lesion filled in; hybriduad, research use only",
        "SkullStripped": bool(record["SkullStripped"]),
        "SpatialReference": "orig",
        "seam_mm": seam_mm,
        "voxels_changed": int(where.sum()),
        "roi": roi.name if roi else None,
        "bundle": record["bundle"],
        "inputs": inputs,
    }
    write_json(sidecar, content)
    return True


def _record(source: Path, case: Case) -> dict[str, Any]:
    """The record of a prediction that has all that filling needs."""
    path = record_of(source, case)
    if not path.is_file():
        raise DataError("no prediction", where=case.name, expected=path, mend="predict this cohort first")
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        there = set(record["parts"])
        for part in record["parts"].values():
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
