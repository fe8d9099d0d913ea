#!/usr/bin/env python3
"""How well scans are registered to the template: known affine maps recovered, and the overlap of the brains.

Each scan is registered as it is, and again after its header was moved by affine maps drawn from keyed seeds: rotations
of up to 15 degrees about each axis, up to 10 % of scale along each, and 20 mm of shift along each. The brain is found
and shading taken out anew each time. What a map moves the second registration has to move back: the displacement
between the two, in millimetres of the scan, averaged over its brain. "refused" counts the starts that would
fail the case, "unsure" those of the others that would carry the flag "registration", "missed" those that are neither
refused nor unsure nor back within 1.5 mm. A table goes to standard output, with --pictures
also a picture of each scan on the template.

    scripts/check_registration.py [--starts 20] [--pictures DIR] SCAN...
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hybriduad.config.runs import Anatomy
from hybriduad.core.rng import numpy_rng
from hybriduad.scan.bias_field import bias_field
from hybriduad.scan.brain import find_brain, find_head
from hybriduad.scan.grid import find_slice_axis, to_slices
from hybriduad.scan.registration import Field, displacement_mm, register
from hybriduad.scan.resampling import through_affine
from hybriduad.scan.template import template
from hybriduad.scan.template_space import APART_MM, LEAST_OVERLAP, OVERLAP, overlap_of
from hybriduad.scan.volumes import Image, VolumeGrid, read_volume, spacing_of, to_ras

ROTATION_DEG, SCALE, SHIFT_MM = 15.0, 0.1, 20.0
"""The largest of each along every axis."""
NEAR_MM = 1.5
"""A map counts as recovered when the mean displacement is under that."""
COLUMNS = ("scan", "brain", "ml", "overlap", "outline", "apart_mm", "starts", "median_mm", "worst_mm")
COLUMNS += ("recovered", "refused", "unsure", "missed", "seconds")


def known_map(seed: int, name: str, number: int) -> np.ndarray:
    """(4, 4): an affine map of the millimetres of a scan, about where its header puts the origin."""
    rng = numpy_rng(seed, "check registration", name, number)
    turned = Rotation.from_euler("xyz", rng.uniform(-ROTATION_DEG, ROTATION_DEG, 3), degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = turned @ np.diag(rng.uniform(1 - SCALE, 1 + SCALE, 3))
    matrix[:3, 3] = rng.uniform(-SHIFT_MM, SHIFT_MM, 3)
    return matrix


def even_brain(image: Image) -> tuple[Field, str]:
    """A scan in RAS without its shading, with its brain, and how the brain was found."""
    data, affine, _ = to_ras(image)
    spacing = spacing_of(affine)
    axis = find_slice_axis(spacing)
    head = np.moveaxis(find_head(to_slices(data, axis)), -1, axis)
    brain, method = find_brain(data, head, spacing, axis)
    scan = Field(data, affine, brain)
    return Field(data / bias_field(scan), affine, brain), method


def overlap(scan: Field, matrix: np.ndarray, anatomy: Anatomy) -> float:
    """The figure by which a case fails or not."""
    shape, model = template().grid(anatomy.size, anatomy.spacing_mm or 0.0)
    index = np.linalg.inv(scan.affine) @ np.linalg.inv(matrix) @ model
    return overlap_of(scan.inside, index, shape, model, template())


def row_of(path: Path, starts: int, seed: int, pictures: Path | None) -> dict[str, str]:
    """A line of the table."""
    anatomy = Anatomy(contrasts=("T1w",), space="MNI152NLin2009aSym")
    began = time.perf_counter()
    image = read_volume(path)
    scan, method = even_brain(image)
    matrix, outline, apart_mm = register(scan, template())
    seconds = time.perf_counter() - began
    places = np.argwhere(scan.inside)[::997] @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    alike = overlap(scan, outline, anatomy)
    apart, refused, unsure, missed = [], 0, 0, 0
    for number in range(starts):
        known = known_map(seed, path.name, number)
        moved, _ = even_brain(Image(image.data, VolumeGrid.make(image.grid.shape, known @ image.affine)))
        again, outline, doubt_mm = register(moved, template())
        # In millimetres of the scan, which the template's are larger than.
        back = np.linalg.inv(matrix) @ again @ known
        apart.append(float(displacement_mm(back, np.eye(4), places).mean()))
        fails = overlap(moved, outline, anatomy) < OVERLAP or overlap(moved, again, anatomy) < LEAST_OVERLAP
        doubtful = doubt_mm > APART_MM
        refused += fails
        unsure += doubtful and not fails
        missed += apart[-1] >= NEAR_MM and not (fails or doubtful)
    if pictures is not None:
        draw(scan, matrix, anatomy, pictures / f"{path.parent.name}_{path.name.partition('.')[0]}.png")
    volume = scan.inside.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    values = [path.name, method, f"{volume:.0f}", f"{overlap(scan, matrix, anatomy):.3f}", f"{alike:.3f}"]
    values += [f"{apart_mm:.2f}", str(starts)]
    values += [f"{np.median(apart):.2f}", f"{max(apart):.2f}"] if apart else ["", ""]
    values += [str(sum(mm < NEAR_MM for mm in apart)), str(refused), str(unsure), str(missed)]
    return dict(zip(COLUMNS, [*values, f"{seconds:.0f}"], strict=True))


def draw(scan: Field, matrix: np.ndarray, anatomy: Anatomy, path: Path) -> None:
    """The scan on the template's grid in three planes, with the outline of the template's brain and of its own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shape, model = template().grid(anatomy.size, anatomy.spacing_mm or 0.0)
    index = np.linalg.inv(scan.affine) @ np.linalg.inv(matrix) @ model
    own = np.linalg.inv(template().affine) @ model
    head, brain = (through_affine(part, index, shape, linear=True) for part in (scan.data, scan.inside))
    average = through_affine(template().brain, own, shape, linear=True)
    figure, axes = pyplot.subplots(3, 5, figsize=(15, 9.5), facecolor="black")
    for axis, line in enumerate(axes):
        for share, place in zip((0.25, 0.38, 0.5, 0.62, 0.75), line, strict=True):
            cut = [np.take(part, int(share * part.shape[axis]), axis).T for part in (head, brain, average)]
            place.imshow(cut[0], cmap="gray", origin="lower", vmax=np.percentile(scan.data[scan.inside], 99))
            for mask, colour in ((cut[1], "cyan"), (cut[2], "red")):
                if mask.max() > 0.5:
                    place.contour(mask, levels=[0.5], colors=colour, linewidths=0.8)
            place.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=60)
    pyplot.close(figure)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args(arguments)
    print("\t".join(COLUMNS))
    for path in asked.scans:
        print("\t".join(row_of(path, asked.starts, asked.seed, asked.pictures).values()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
