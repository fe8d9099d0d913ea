#!/usr/bin/env python3
"""Half-real patients to judge a detector by: real stroke shapes painted into real healthy T1w scans.

The painter is of this script alone: no detector has learnt from its kind of lesion. It darkens as an old infarct does
on T1w, in the tissue that is there, more with the depth in the lesion. Masks in MNI space are brought into a head by
the boxes around the two brains, without registration, at random on the left or the right. Every painted brain is also
there as it was, in derivatives/lesion-free: how far a pseudo-healthy scan is from it can be measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import ConfigError, DataError, HybridUADError
from hybriduad.core.rng import numpy_rng
from hybriduad.scan.volumes import Image, from_ras, read_mask, read_volume, to_ras, write_json, write_volume
from hybriduad.training.painted_files import describe_folder, lesion_free_path, mask_path, scan_path

BRAIN_MM = np.array([[-71.0, -106.0, -71.0], [71.0, 73.0, 82.0]])
"""The box around the brain of the ICBM 2009a template, in MNI space."""
LEAST_ML, TRIES = 1.0, 20
"""A mask of which less lies in the brain is drawn again."""


def paint(
    image: np.ndarray, brain: np.ndarray, lesion: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """``image`` (X, Y, Z) with an old infarct in ``lesion``; equal to it everywhere else."""
    fluid, tissue = np.percentile(image[brain], [2, 50])
    dark = fluid + rng.uniform(0.0, 0.5) * (tissue - fluid)
    depth = ndimage.distance_transform_edt(lesion, sampling=spacing_mm)
    patches = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 4.0 / spacing_mm)
    uneven = np.clip(1 + 0.25 * patches / patches.std(), 0.3, 1.2)
    damage = np.clip(rng.uniform(0.35, 0.95) * (1 - np.exp(-depth / rng.uniform(1.0, 5.0))) * uneven, 0, 1)
    # What is pulled to one value loses its noise, which would give it away.
    fine = (image - ndimage.gaussian_filter(image, 0.8))[brain]
    noise = 1.2 * np.median(np.abs(fine)) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.where(lesion, np.maximum(image + damage * (np.minimum(dark - image, 0) + noise), 0), image)


def brought_in(mask: Image, brain: np.ndarray, mirrored: bool) -> np.ndarray:
    """A mask in MNI space (bool) on the voxels of ``brain`` (X, Y, Z), both RAS, cut to the brain."""
    data, affine, _ = to_ras(mask)
    inside = np.argwhere(brain)
    low, high = inside.min(axis=0), inside.max(axis=0)
    scale = (BRAIN_MM[1] - BRAIN_MM[0]) / (high - low)  # mm of MNI space a voxel
    start = BRAIN_MM[0] - scale * low
    if mirrored:
        scale, start = scale * [-1, 1, 1], start * [-1, 1, 1]
    back = np.linalg.inv(affine[:3, :3])
    moved = ndimage.affine_transform(
        data.astype(np.float32), back * scale, back @ (start - affine[:3, 3]), brain.shape, order=1
    )
    return (moved > 0.5) & brain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("healthy", type=Path, help="BIDS folder of healthy, skull-stripped T1w scans")
    parser.add_argument("masks", type=Path, help="folder of lesion masks *.nii[.gz] in MNI space")
    parser.add_argument("out", type=Path, help="new folder; index bids reads it")
    parser.add_argument(
        "--painted",
        type=int,
        help="how many of the people get a lesion, the first ones; the others stay healthy; default: all",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        write(arguments.healthy, arguments.masks, arguments.out, arguments.painted, arguments.seed)
    except HybridUADError as error:
        sys.exit(f"half_real: {error}")


def write(healthy: Path, masks: Path, out: Path, painted: int | None, seed: int) -> None:
    """Write the patients under ``out`` as BIDS, masks in ``derivatives/manual``, each painted brain as it was in
    ``derivatives/lesion-free``. The first ``painted`` people get a lesion, all without, and the others stay healthy.

    Raises:
        ConfigError: ``out`` is not new.
        DataError: no mask, no T1w scan, or a file that cannot be read.
    """
    if out.exists():
        raise ConfigError("half-real patients need a new folder", got=out)
    shapes = (
        sorted(path for path in masks.iterdir() if path.name.endswith((".nii", ".nii.gz"))) if masks.is_dir() else []
    )
    cases = [case for case in read_cohort(healthy) if "T1w" in case.images]
    if not shapes or not cases:
        raise DataError("nothing to paint", got=f"{len(shapes)} masks in {masks}, {len(cases)} T1w scans in {healthy}")
    people: dict[str, dict[str, str]] = {}
    for number, case in enumerate(cases):
        scan = read_volume(case.images["T1w"])
        healthy_image, _, orientation = to_ras(scan)
        brain = healthy_image > 0 if case.brain is None else to_ras(read_mask(case.brain))[0]
        image, lesion, shape = healthy_image, np.zeros_like(brain), ""
        rng = numpy_rng(seed, "half-real", case.subject)
        if painted is None or number < painted:
            lesion, shape = _shape(shapes, brain, scan, rng)
            spacing = np.sqrt((scan.grid.affine_ras[:3, :3] ** 2).sum(axis=0))
            image = paint(image, brain, lesion, spacing, rng)
        files = {scan_path(out, case, "T1w"): (image, np.float32), mask_path(out, case, "brain"): (brain, np.uint8)}
        if shape:
            files[mask_path(out, case, "lesion")] = (lesion, np.uint8)
            files[lesion_free_path(out, case, "T1w")] = (healthy_image, np.float32)
        for path, (data, dtype) in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, from_ras(data, orientation), scan.grid, dtype)
        if shape:
            twin = lesion_free_path(out, case, "T1w")
            sidecar = twin.with_name(twin.name.removesuffix(".nii.gz") + ".json")
            write_json(sidecar, {"SkullStripped": True, "Description": "the scan before a lesion was painted"})
        facts = {"health": "lesion", "pathology": "stroke"} if shape else {"health": "healthy", "pathology": "none"}
        people[case.subject] = {"participant_id": f"sub-{case.subject}", **facts, "shape": shape}
        print(f"{number + 1} of {len(cases)}: {case.name} {shape}")
    readme = f"# {__doc__}"
    describe_folder(out, f"half-real-{cases[0].dataset}-{seed}", list(people.values()), readme)


def _shape(shapes: list[Path], brain: np.ndarray, scan: Image, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A random shape that lies in the brain, and the name of its file."""
    voxel_ml = np.prod(scan.grid.spacing_mm) / 1000
    for _ in range(TRIES):
        path = shapes[int(rng.integers(len(shapes)))]
        lesion = brought_in(read_mask(path), brain, mirrored=bool(rng.integers(2)))
        if lesion.sum() * voxel_ml >= LEAST_ML:
            return lesion, path.name.partition(".")[0]
    raise DataError(
        "no mask that lies in the brain", got=f"{TRIES} draws, the last {path}", expected="masks in MNI space"
    )


if __name__ == "__main__":
    main()
