#!/usr/bin/env python3
"""How ways to find the brain of a head agree, on scans that are not stripped: lesions kept, volume, Dice, time.

    scripts/compare_brain_masks.py COHORT --contrast FLAIR --way estimate --way deepbet --count 12 --pictures DIR

COHORT: a manifest CSV or a BIDS folder; masks of lesions in it tell which share of their voxels lies inside each brain.
The first way is what the others are compared with. A way is one of --brain of the command line. Seconds are of the
processor. Stripped scans and cases with a brain mask are left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.runs import Anatomy
from hybriduad.core.drawing import slice_grid
from hybriduad.core.errors import HybridUADError
from hybriduad.core.types import Case
from hybriduad.scan.brain import find_brain, find_head
from hybriduad.scan.brain_ways import brain_name, chosen, outline_brain
from hybriduad.scan.grid import find_slice_axis, to_slices
from hybriduad.scan.preparation import mask_on_grid
from hybriduad.scan.volumes import Image, read_volume, spacing_of, to_ras

Row = dict[str, float | str]


def brain_of(image: Image, anatomy: Anatomy, name: str) -> tuple[np.ndarray, str, float]:
    """The brain (X, Y, Z) in RAS as :func:`hybriduad.scan.preparation.prepare` finds it, how, and the seconds of
    processor time."""
    began = time.process_time()
    data, affine, _ = to_ras(image)
    spacing = spacing_of(affine)
    axis = find_slice_axis(spacing)
    head = np.moveaxis(find_head(to_slices(data, axis)), -1, axis)
    brain, method = find_brain(data, head, spacing, axis, lambda: outline_brain(image, anatomy, name))
    return brain, method, time.process_time() - began


def compare(case: Case, contrast: str, ways: dict[str, Anatomy], picture: Path | None) -> list[Row]:
    """A row for each way; none for a stripped scan."""
    image = read_volume(case.images[contrast])
    voxel_ml = float(np.prod(image.grid.spacing_mm)) / 1000
    lesion = None
    if case.lesion is not None:
        mask = mask_on_grid(case.lesion, case, "lesion", image.grid)
        lesion = to_ras(replace(image, data=mask))[0]
    rows: list[Row] = []
    brains: dict[str, np.ndarray] = {}
    for way, anatomy in ways.items():
        try:
            brain, method, seconds = brain_of(image, anatomy, case.name)
        except HybridUADError as error:
            rows.append({"case": case.name, "way": way, "failed": str(error)})
            continue
        if method.startswith("non-zero"):
            return []
        brains[way] = brain
        first = brains[next(iter(brains))]
        row: Row = {"case": case.name, "way": way, "volume_ml": brain.sum() * voxel_ml, "seconds": seconds}
        row["dice"] = 2 * float((brain & first).sum()) / float(brain.sum() + first.sum())
        if lesion is not None and lesion.any():
            row["inside"] = float((brain & lesion).sum() / lesion.sum())
        rows.append(row)
    if picture is not None:
        draw(picture / f"{case.name}.png", to_ras(image)[0], brains, find_slice_axis(image.grid.spacing_mm))
    return rows


def draw(path: Path, data: np.ndarray, brains: dict[str, np.ndarray], axis: int) -> None:
    """Four slices of the scan and of each brain's outline on it."""
    data = np.clip(1.6 * to_slices(data, axis) / np.percentile(data, 99.5) - 1, -1, 0.6).astype(np.float32)
    masks = {way: to_slices(brain, axis) for way, brain in brains.items()}
    there = np.flatnonzero(np.any([mask.any(axis=(0, 1)) for mask in masks.values()], axis=0))
    shown = [int(there[round(share * (len(there) - 1))]) for share in (0.15, 0.35, 0.6, 0.85)]

    def outlined(mask: np.ndarray, index: int) -> np.ndarray:
        inside = mask[..., index]
        rim = inside & ~(
            np.roll(inside, 1, 0) & np.roll(inside, -1, 0) & np.roll(inside, 1, 1) & np.roll(inside, -1, 1)
        )
        return np.asarray(np.where(rim, np.float32(0.6), data[..., index] - np.float32(0.2)))

    rows = [[data[..., k], *(outlined(mask, k) for mask in masks.values())] for k in shown]
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_grid(path, rows, ["scan", *masks])


def main() -> None:
    """Print a line a case and way, then the means of each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort")
    parser.add_argument("--contrast", default="FLAIR")
    parser.add_argument("--way", action="append", help="repeat [default: estimate, deepbet]")
    parser.add_argument("--count", type=int, help="that many cases, evenly spread over the cohort [default: all]")
    parser.add_argument("--pictures", type=Path, help="folder for an overlay of each case")
    options = parser.parse_args()
    start = Anatomy(contrasts=(options.contrast,))
    ways = {
        brain_name(anatomy): anatomy for anatomy in (chosen(start, w) for w in options.way or ("estimate", "deepbet"))
    }
    cases = [case for case in read_cohort(options.cohort) if options.contrast in case.images and case.brain is None]
    if options.count is not None:
        cases = [cases[i] for i in sorted({round(x) for x in np.linspace(0, len(cases) - 1, options.count)})]
    columns = ("inside", "volume_ml", "dice", "seconds")
    collected: dict[str, list[Row]] = defaultdict(list)
    print("\t".join(("case", "way", *columns)))
    for case in cases:
        for row in compare(case, options.contrast, ways, options.pictures):
            collected[str(row["way"])].append(row)
            cells = [f"{row[name]:.4f}" if name in row else "n/a" for name in columns]
            print("\t".join([str(row["case"]), str(row["way"]), *cells, str(row.get("failed", ""))]), flush=True)
    for way, rows in collected.items():
        kept = [[float(row[name]) for row in rows if name in row] for name in columns]
        cells = [f"{statistics.mean(values):.4f}" if values else "n/a" for values in kept]
        least = f"least inside {min(kept[0]):.4f}" if kept[0] else ""
        print("\t".join([f"mean of {len(kept[1])}", way, *cells, least, f"{sum('failed' in r for r in rows)} failed"]))


if __name__ == "__main__":
    main()
