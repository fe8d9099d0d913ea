#!/usr/bin/env python3
"""How well spoilt scans are told from clean ones: by each measure of quality, and by the distance from the training.

Every scan is spoilt in known ways and both are measured. Printed, and written to OUT/quality.md: of each kind of damage
how many scans were refused, how many flagged, and the AUROC of each measure against the clean scans; then how far masks
change when a scan is resliced by half a voxel or half a slice.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core import rng
from hybriduad.core.errors import DataError, HybridUADError
from hybriduad.core.types import Case, Split
from hybriduad.detector.appearance import FLAG as WRONG_CONTRAST
from hybriduad.detector.familiarity import case_features
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.prediction.case import predict_case
from hybriduad.scan.brain import find_head
from hybriduad.scan.grid import find_slice_axis
from hybriduad.scan.preparation import prepare
from hybriduad.scan.quality import case_measures
from hybriduad.scan.volumes import Image, VolumeGrid, from_ras, read_volume, spacing_of, to_ras, write_volume

DISTANCE = "distance"
Row = dict[str, tuple[float, bool]]
"""By measure, how bad a scan is by it (the higher the worse), and whether that is beyond the limit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a detector's or a reconstructor's, with a reference for distances")
    parser.add_argument("cohort", type=Path, help="manifest or BIDS folder of clean scans")
    parser.add_argument("out", type=Path, help="folder for the spoilt scans, one at a time, and for quality.md")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="default: all")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--clean", action="store_true", help="measure the scans as they are, and spoil none")
    kinds.add_argument("--contrasts", action="store_true", help="no damage but the case's other contrasts in its place")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    arguments = parser.parse_args()
    try:
        print(check(**vars(arguments)))
    except HybridUADError as error:
        sys.exit(f"check_quality: {error}")


def check(bundle: Path, cohort: Path, out: Path, split: Split | None, clean: bool, contrasts: bool, device: str) -> str:
    """Write ``quality.md`` under ``out``; its text.

    Raises:
        DataError: the cohort cannot be read.
        BundleError: an unusable bundle.
    """
    detector = load_detector(bundle, device)
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Row]] = {"clean": []}
    refused: dict[str, list[str]] = {"clean": []}
    dice: dict[str, list[float]] = {}
    for case in read_cohort(cohort, split=split):
        name = case.reference_contrast(detector.anatomy.contrasts)
        bare = Case(case.dataset, case.subject, {name: case.images[name]}, case.session, case.run)
        versions = [("clean", read_volume(case.images[name]))]
        versions += [] if clean or contrasts else list(spoilt(case, name))
        versions += [] if clean else list(swapped(case, name))
        for kind, image in versions:
            path = out / "spoilt.nii.gz"
            write_volume(path, image.data, image.grid)
            try:
                rows.setdefault(kind, []).append(measured(detector, replace(bare, images={name: path})))
            except DataError as error:
                refused.setdefault(kind, []).append(str(error).partition(" in ")[0])
            path.unlink()
        if not (clean or contrasts) and detector.thresholds.values:
            for kind, value in resliced(detector, bare, name, out).items():
                dice.setdefault(kind, []).append(value)
    text = table(rows, refused) + "".join(f"\n{kind}: {said(values)}" for kind, values in dice.items()) + "\n"
    (out / "quality.md").write_text(text)
    return text


def measured(detector: Detector, case: Case) -> Row:
    """Every measure of a case."""
    prepared = prepare(case, detector.anatomy, detector.direction)
    brain = Image(np.array(prepared.scan_brain), prepared.grid.volume)
    row: Row = {}
    for measure in case_measures(case, brain, detector.anatomy.contrasts):
        row[measure.name] = (-measure.value if measure.below else measure.value, measure.flagged)
    if detector.appearance is not None:
        found = detector.appearance.measures(prepared, detector.anatomy.contrasts)
        row[WRONG_CONTRAST] = (float(len(found)), bool(found))
    if detector.reference is not None and detector.reconstructor is not None:
        features = case_features(detector.reconstructor, prepared, detector.seed, detector.device)
        if features is not None:
            distance = detector.reference.distance(features)
            row[DISTANCE] = (distance, distance > detector.reference.limit)
    return row


def spoilt(case: Case, name: str) -> Iterator[tuple[str, Image]]:
    """The reference scan of a case spoilt in every way, on grids of their own."""
    scan = read_volume(case.images[name])
    data = np.ascontiguousarray(to_ras(scan)[0])
    affine, spacing = scan.grid.affine_ras, spacing_of(scan.grid.affine_ras)
    head = find_head(data)
    tissue = float(np.median(data[head]))
    draw = rng.numpy_rng(0, "spoilt", case.name)
    across = find_slice_axis(spacing)
    sigmas = [0.0 if axis == across and size >= 3 else 3 / size for axis, size in enumerate(spacing)]

    def image(values: np.ndarray, origin: tuple[int, int, int] = (0, 0, 0)) -> Image:
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ origin
        shape = (values.shape[0], values.shape[1], values.shape[2])
        return Image(np.ascontiguousarray(values, dtype=np.float32), VolumeGrid.make(shape, moved))

    def noisy(share: float) -> np.ndarray:
        parts = draw.normal(0, share * tissue, (2, *data.shape))
        return np.hypot(data + parts[0], parts[1])

    def start(axis: int) -> int:
        """Where a third of the head has passed along an axis."""
        along = np.flatnonzero(head.any(axis=tuple(other for other in range(3) if other != axis)))
        return int(along[0] + (along[-1] - along[0]) * 0.35)

    yield "noise alone", image(draw.uniform(0, tissue, data.shape))
    yield "negated", image(-data)
    yield "noise of 15 %", image(noisy(0.15))
    yield "blur of 3 mm", image(ndimage.gaussian_filter(data, sigmas))
    yield "ghost of 25 %", image(data + 0.25 * np.roll(data, data.shape[1] // 2, axis=1))
    yield "left third cut off", image(data[start(0) :], (start(0), 0, 0))
    yield "back third cut off", image(data[:, start(1) :], (0, start(1), 0))
    yield "lower third cut off", image(data[:, :, start(2) :], (0, 0, start(2)))
    yield "upside down", image(data[:, :, ::-1])
    yield "back to front", image(data[:, ::-1])
    top = float(np.percentile(data, 99.9))
    yield "inverted in the head", image(np.where(head, top - np.minimum(data, top), 0))


def swapped(case: Case, name: str) -> Iterator[tuple[str, Image]]:
    """The other contrasts of a case, each to be given in the place of its reference scan."""
    for other in case.images:
        if other != name:
            yield f"{other} as {name}", read_volume(case.images[other])


def resliced(detector: Detector, case: Case, name: str, out: Path) -> dict[str, float]:
    """The Dice of the mask with that of the same scan resliced by half a voxel, or half a slice, brought back."""
    scan = read_volume(case.images[name])
    mask = predict_case(detector, case).mask
    assert mask is not None  # the bundle is calibrated
    data, _, orientation = to_ras(scan)
    found = {}
    for kind, shift in (("resliced by half a voxel", (0.5, 0.5, 0.0)), ("resliced by half a slice", (0.0, 0.0, 0.5))):
        moved = ndimage.shift(data, shift, order=1, mode="nearest")
        affine = scan.grid.affine_ras.copy()
        affine[:3, 3] -= affine[:3, :3] @ shift
        path = out / "resliced.nii.gz"
        shape = (moved.shape[0], moved.shape[1], moved.shape[2])
        write_volume(path, moved, VolumeGrid.make(shape, affine))
        other = predict_case(detector, replace(case, images={name: path}))
        path.unlink()
        assert other.mask is not None
        there = ndimage.shift(other.mask.astype(np.float32), [-step for step in shift], order=1, mode="nearest") >= 0.5
        back = from_ras(there, orientation)
        total = int(mask.sum() + back.sum())
        found[f"Dice of the mask, {kind}"] = 2 * float((mask & back).sum()) / total if total else math.nan
    return found


def table(rows: dict[str, list[Row]], refused: dict[str, list[str]]) -> str:
    """Markdown: of each kind of damage the scans, those refused and flagged, and AUROC (share flagged) by measure."""
    names = list(dict.fromkeys(measure for found in rows.values() for row in found for measure in row))
    lines = ["| scans | n | refused | flagged | " + " | ".join(names) + " |", "|---" * (len(names) + 4) + "|"]
    for kind in dict.fromkeys([*rows, *refused]):
        found, gone = rows.get(kind, []), refused.get(kind, [])
        flagged = sum(any(beyond for measure, (_, beyond) in row.items()) for row in found)
        cells = [said_of(name, kind, found, rows["clean"]) for name in names]
        lines.append(f"| {kind} | {len(found) + len(gone)} | {len(gone)} | {flagged} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def said_of(measure: str, kind: str, found: list[Row], clean: list[Row]) -> str:
    """AUROC against the clean scans, and how many are flagged; of clean scans the latter alone."""
    here, there = ([row[measure] for row in group if measure in row] for group in (found, clean))
    if not here or not there:
        return ""
    count = f"{sum(beyond for _, beyond in here)} flagged"
    if kind == "clean":
        return count
    above = np.mean([(bad > good) + 0.5 * (bad == good) for bad, _ in here for good, _ in there])
    return f"{above:.2f}, {count}"


def said(values: list[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "no mask"
    return f"median {np.median(known):.3f}, {min(known):.3f} to {max(known):.3f}, of {len(known)} scans with a mask"


if __name__ == "__main__":
    main()
