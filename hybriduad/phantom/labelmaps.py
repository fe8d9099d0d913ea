"""Healthy anatomy of many people: label maps (FreeSurfer's numbers, as SynthSeg or FastSurfer write them) as heads.

Labels become fractions of grey matter, white matter and CSF; whatever is outside the brain (skull, scalp) is left out,
since phantoms are skull-stripped. The person's relaxation, warp and age are drawn as for the template.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.core.rng import numpy_rng
from hybriduad.phantom.anatomy import PLACE_MM, Template, place_of, template
from hybriduad.phantom.lattice import resample
from hybriduad.scan.digests import file_digest
from hybriduad.scan.volumes import read_grid, read_volume, to_ras

GREY = {3, 42, 8, 47, 11, 50, 12, 51, 17, 53, 18, 54, 26, 58, *range(1000, 1036), *range(2000, 2036)}
WHITE = {2, 41, 7, 46, 25, 57, 77, 85, 251, 252, 253, 254, 255}
"""With 25, 57 and 77, lesions of the white matter: a healthy head has none."""
VENTRICLE = {4, 5, 43, 44, 31, 63, 136, 137, 163, 164}
"""Lateral ventricles with their choroid plexus."""
INNER = [*VENTRICLE, 14, 15, 72]
"""All ventricles."""
CSF = {*INNER, 24, 30, 62}
BETWEEN = {10: 0.65, 49: 0.65, 13: 0.4, 52: 0.4, 28: 0.4, 60: 0.4, 16: 0.15, 31: 0.4, 63: 0.4}
BETWEEN |= dict.fromkeys((136, 137, 163, 164), 0.4)
"""Label -> its share of grey matter: thalamus, pallidum, ventral diencephalon, brain stem, the rest white matter;
choroid plexus, the rest CSF."""
LEAST_ML = 500.0
SOFT_MM = 0.8
"""Deviation of the Gaussian that turns labels into fractions, in mm of the label map."""
CLOSED_MM, BEYOND_MM = 16.0, 2.0
"""The brain is its tissue and ventricles, closed over sulci of that width, and that much CSF around it."""
SHARPNESS = 3.0
"""Between 4, that of the average, and 1: the width of the sulci varies less, being that of a person."""
MARGIN = 8
"""Voxels around the tissue that are looked at, of the template and of the label map."""
LANDMARKS_MM = {
    10: (-11.0, -19.0, 8.0),
    49: (11.0, -19.0, 8.0),
    11: (-13.0, 10.0, 10.0),
    50: (13.0, 10.0, 10.0),
    12: (-25.0, 2.0, 0.0),
    51: (25.0, 2.0, 0.0),
    17: (-26.0, -22.0, -14.0),
    53: (26.0, -22.0, -14.0),
    18: (-23.0, -5.0, -18.0),
    54: (23.0, -5.0, -18.0),
    8: (-25.0, -62.0, -35.0),
    47: (25.0, -62.0, -35.0),
}
"""Label -> about where in MNI space the middle of thalamus, caudate, putamen, hippocampus, amygdala, cerebellum is."""


def labelmaps_in(folder: str | Path) -> list[Path]:
    """The label maps ``*dseg.nii[.gz]`` of a folder, by name.

    Raises:
        DataError: there is none, or a header that cannot be read.
    """
    folder = Path(folder)
    paths = sorted(path for ending in ("*dseg.nii", "*dseg.nii.gz") for path in folder.glob(ending))
    if not paths:
        raise DataError("no label map", where=folder, expected="files *dseg.nii.gz with FreeSurfer's labels")
    for path in paths:
        read_grid(path)
    return paths


def labelmap_of(seed: int, subject: int, paths: list[Path]) -> Path:
    """The label map behind a subject: all of them, in a new order each round."""
    order = numpy_rng(seed, "phantom-labelmaps", subject // len(paths)).permutation(len(paths))
    return paths[int(order[subject % len(paths)])]


def read_head(path: Path) -> Template:
    """The head of a label map on the template's grid.

    It is turned so that its deep structures lie as :data:`LANDMARKS_MM` do, and stretched along the axes so that the
    box around its tissue is that of the template's. So places in MNI space are right to some mm, enough for what
    depends on them (territories, horns of the ventricles, iron).

    Raises:
        DataError: the file is damaged, holds no integers, or not the labels of a whole brain.
    """
    return _read(path, file_digest(path))


@functools.lru_cache(maxsize=1)
def _read(path: Path, digest: str) -> Template:
    """The head; ``digest`` is the file's, so that none is remembered that has been replaced."""
    data, affine, _ = to_ras(read_volume(path))
    if not np.array_equal(data, np.rint(data)):
        raise DataError(
            "not a label map", where=path, got="values that are no integers", expected="FreeSurfer's labels"
        )
    labels = np.where(data < 0, 0, data).astype(np.int32)
    shares = _shares(int(labels.max()))
    solid = shares[:2].sum(axis=0)[labels] > 0.5
    labels, solid, affine = _cropped(labels, solid, affine)
    volume_ml = solid.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    missing = sorted({*LANDMARKS_MM, 4, 43} - {*np.unique(labels).tolist()})
    if volume_ml < LEAST_ML or missing:
        got = f"{volume_ml:.0f} ml of grey and white matter by FreeSurfer's labels, and without the labels {missing}"
        expected = f"at least {LEAST_ML:g} ml, with deep structures and ventricles"
        raise DataError("not the label map of a whole brain", where=path, got=got, expected=expected)

    home = template()
    home_solid = np.argwhere(home.tissue[:2].sum(dim=0).numpy() > 0.5)
    low, high = home_solid.min(axis=0), home_solid.max(axis=0)
    turn = _turn(labels, affine)
    places = turn @ (affine[:3, :3] @ np.argwhere(solid).T + affine[:3, 3:])
    start, size = places.min(axis=1), np.ptp(places, axis=1)
    # From voxels of the template to those of the label map: stretched, turned back.
    back = np.linalg.inv(affine[:3, :3]) @ turn.T
    matrix = back * (size / (high - low))
    shift = back @ start - np.linalg.inv(affine[:3, :3]) @ affine[:3, 3] - matrix @ low

    box = tuple(slice(max(0, a - MARGIN), b + MARGIN + 1) for a, b in zip(low, high, strict=True))
    sizes = home.tissue.shape[1:]
    axes = [np.arange(*part.indices(length)) for part, length in zip(box, sizes, strict=True)]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]).astype(np.float32)
    voxels = matrix.astype(np.float32) @ points + shift.astype(np.float32)[:, None]
    sigma = SOFT_MM / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    inner = np.isin(labels, list(VENTRICLE))
    maps = np.stack(
        [*(ndimage.gaussian_filter(share[labels], sigma) for share in shares), inner, solid | np.isin(labels, INNER)]
    )
    boxed = resample(torch.from_numpy(maps.astype(np.float32)), voxels).reshape(5, *(len(axis) for axis in axes))
    whole = np.zeros((5, *sizes), dtype=np.float32)
    whole[:, *box] = boxed

    step = (slice(None, None, PLACE_MM),) * 3
    coarse = _closed(whole[4][step] > 0.5)
    indices = np.meshgrid(*(np.arange(length, dtype=np.float32) / PLACE_MM for length in sizes), indexing="ij")
    mask = resample(torch.from_numpy(coarse[None].astype(np.float32)), np.stack(indices).reshape(3, -1)).reshape(sizes)
    tissue = whole[:3]
    tissue[2] += np.clip(1 - tissue.sum(axis=0), 0, 1)  # what no label of the brain fills
    tissue *= (mask > 0.5) / tissue.sum(axis=0)
    place = place_of(coarse, whole[3][step] > 0.5)
    return Template(torch.from_numpy(tissue), place, home.origin_mm, home.centre_mm, SHARPNESS)


def _cropped(labels: np.ndarray, solid: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, tissue and their affine without what lies more than :data:`MARGIN` voxels beyond the tissue."""
    parts, affine = [], affine.copy()
    for axis, length in enumerate(solid.shape):
        inside = np.flatnonzero(solid.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (inside[0], inside[-1]) if inside.size else (0, length - 1)
        parts.append(slice(max(0, first - MARGIN), last + MARGIN + 1))
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in parts]
    return labels[tuple(parts)], solid[tuple(parts)], affine


def _shares(highest: int) -> np.ndarray:
    """(3, highest + 1) float32: grey matter, white matter and CSF in each label; nothing in those outside the brain."""
    shares = np.zeros((3, max(highest, 3000) + 1), dtype=np.float32)
    for tissue, members in enumerate((GREY, WHITE, CSF)):
        shares[tissue, sorted(members)] = 1
    for label, grey in BETWEEN.items():
        shares[:, label] = (grey, 0, 1 - grey) if label in CSF else (grey, 1 - grey, 0)
    return shares[:, : highest + 1]


def _turn(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) of RAS millimetres after which the landmarks lie best (Kabsch 1976)."""
    centres = np.array(ndimage.center_of_mass(np.ones(labels.shape, dtype=bool), labels, list(LANDMARKS_MM)))
    there = centres @ affine[:3, :3].T
    home = np.array(list(LANDMARKS_MM.values()))
    u, _, v = np.linalg.svd((there - there.mean(axis=0)).T @ (home - home.mean(axis=0)))
    return np.asarray(v.T @ np.diag([1, 1, np.linalg.det(v.T @ u.T)]) @ u.T)


def _closed(solid: np.ndarray) -> np.ndarray:
    """Tissue and the CSF in and just around it, (X, Y, Z) bool at 2 mm; by distances, which are quick at any width."""
    edge = round(CLOSED_MM / PLACE_MM)
    near = ndimage.distance_transform_edt(~np.pad(solid, edge), sampling=PLACE_MM) <= CLOSED_MM / 2
    closed = ndimage.distance_transform_edt(near, sampling=PLACE_MM) > CLOSED_MM / 2 - BEYOND_MM
    return np.asarray(ndimage.binary_fill_holes(closed)[(slice(edge, -edge),) * 3])
