"""Scores that learn nothing, beside which every model has to stand: plain intensity and left-right asymmetry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.special import expit

from hybriduad.config.runs import MEDIAN_MM
from hybriduad.core.contrasts import LOOKS
from hybriduad.core.errors import DataError
from hybriduad.core.types import WHITE
from hybriduad.networks.scoring import median_filter_volume
from hybriduad.networks.symmetry import FEWEST_VOXELS, find_plane

STEEPNESS, LEAST = 2.0, 0.1
"""Of the step of :func:`departure_map`; ``LEAST`` is left below it, as the middle of a glioma may be like tissue."""


def baseline_maps(
    image: np.ndarray,
    valid: np.ndarray,
    brain: np.ndarray,
    spacing_mm: Sequence[float],
    contrasts: Sequence[str],
    lateral: int,
    length_mm: float = MEDIAN_MM,
) -> dict[str, np.ndarray | None]:
    """Every baseline by the name of its part, (H, W, S) float32 in [0, 1]; None where the volume does not allow it.

    Arguments and errors are those of :func:`intensity_map` and :func:`asymmetry_map`.
    """
    return {
        "intensity": intensity_map(image, valid, brain, spacing_mm, contrasts, length_mm),
        "asymmetry": asymmetry_map(image, valid, brain, spacing_mm, contrasts, lateral, length_mm),
    }


def intensity_map(
    image: np.ndarray,
    valid: np.ndarray,
    brain: np.ndarray,
    spacing_mm: Sequence[float],
    contrasts: Sequence[str],
    length_mm: float = MEDIAN_MM,
) -> np.ndarray:
    """Intensity with a median filter (Kascenas et al. 2022, MIDL, PMLR 172).

    ``image`` (C, H, W, S) in [-1, 1], ``valid`` (C, H, W, S) bool, ``brain`` (H, W, S) bool, ``contrasts`` C names.
    Bright counts as abnormal (FLAIR, T2w, PDw, T1wCE), dark on T1w and T2starw, as :data:`LOOKS` says. The result is
    (H, W, S) float32 in [0, 1]: at each voxel the mean over the contrasts that cover it, 0 where none does, set to 0
    outside the brain before the filter (an inverted background would be bright) and after it.

    Raises:
        DataError: shapes that do not fit, or no contrast is present.
    """
    _check("intensity_map", image, valid, contrasts)
    abnormal = [_abnormal(values, name) for name, values in zip(contrasts, image, strict=True)]
    return median_filter_volume(_mean(abnormal, valid, brain), spacing_mm, brain, length_mm)


def departure_map(
    image: np.ndarray,
    valid: np.ndarray,
    brain: np.ndarray,
    contrasts: Sequence[str],
    share: float,
) -> np.ndarray:
    """How surely a voxel is brighter than tissue, or darker on contrasts of dark lesions, as a step that is not sharp.

    From .1 to 1 by the logistic function of how far the voxel departs from the brain's median to the side of lesions:
    .21 at the median, .55 at ``share`` of the median away from it, .89 at twice that. Unlike plain intensity it hardly
    ranks healthy tissue by its brightness, or lesions by theirs. The result is (H, W, S) float32 in [0, 1], the mean
    over the contrasts that cover a voxel, 0 outside the brain, without a filter. Other arguments and errors are those
    of :func:`intensity_map`.
    """
    _check("departure_map", image, valid, contrasts)
    step = np.float32(share / WHITE)
    median = np.full(1, 2.0 / WHITE - 1.0, np.float32)
    surely = [
        LEAST + (1.0 - LEAST) * expit(STEEPNESS * ((_abnormal(values, name) - _abnormal(median, name)) / step - 1.0))
        for name, values in zip(contrasts, image, strict=True)
    ]
    return _mean(surely, valid, brain)


def opposite_map(
    image: np.ndarray,
    reconstruction: np.ndarray,
    valid: np.ndarray,
    brain: np.ndarray,
    spacing_mm: Sequence[float],
    contrasts: Sequence[str],
    length_mm: float = MEDIAN_MM,
) -> np.ndarray:
    """How far a voxel departs from its pseudo-healthy tissue to the side that :func:`intensity_map` calls healthy.

    Darker than the ``reconstruction`` (C, H, W, S in [-1, 1]) where bright counts as abnormal, brighter on contrasts of
    dark lesions: cavities and old haemorrhage on FLAIR. Of what is as dark in both, as fluid is, nothing is left. The
    result is (H, W, S) float32 in [0, 1], the mean over the contrasts that cover a voxel, 0 outside the brain, with a
    median filter. Other arguments and errors are those of :func:`intensity_map`.
    """
    _check("opposite_map", image, valid, contrasts)
    _check("opposite_map", reconstruction, valid, contrasts)
    departures = [
        np.maximum(_abnormal(expected, name) - _abnormal(values, name), 0.0)
        for name, values, expected in zip(contrasts, image, reconstruction, strict=True)
    ]
    return median_filter_volume(_mean(departures, valid, brain), spacing_mm, brain, length_mm)


def asymmetry_map(
    image: np.ndarray,
    valid: np.ndarray,
    brain: np.ndarray,
    spacing_mm: Sequence[float],
    contrasts: Sequence[str],
    lateral: int,
    length_mm: float = MEDIAN_MM,
) -> np.ndarray | None:
    """How much more abnormal than its mirror image a voxel looks, with a median filter.

    As :func:`intensity_map`, of the difference from the mirror image across the mid-sagittal plane
    (:func:`hybriduad.networks.symmetry.find_plane`) where a voxel is brighter, or on contrasts of dark lesions darker,
    and 0 elsewhere: at each voxel the mean over the contrasts that cover both it and its mirror image, 0 where that
    lies outside the brain. ``lateral`` is the axis, 0 to 2, that runs from left to right: H of axial and coronal
    slices, S of sagittal slices. The result is None where the brain is under 5 voxels wide: in a few sagittal slices.

    Raises:
        DataError: shapes that do not fit, or no contrast is present.
    """
    _check("asymmetry_map", image, valid, contrasts)
    if np.count_nonzero(brain.any(axis=tuple(axis for axis in range(3) if axis != lateral))) < FEWEST_VOXELS:
        return None
    unit = _unit(image)
    plane = find_plane(unit, valid, brain, spacing_mm, lateral)
    spacing = np.array(spacing_mm, dtype=np.float64)[:, None]
    places = np.argwhere(brain).T
    mirror = plane.mirrored(places * spacing) / spacing
    total, count = np.zeros((2, places.shape[1]), np.float32)
    for name, values, here in zip(contrasts, unit, valid & brain, strict=True):
        weighted, weight = (
            ndimage.map_coordinates(field.astype(np.float32), mirror, order=1, mode="grid-constant", prefilter=False)
            for field in (values * here, here)
        )
        covered = here[tuple(places)] & (weight >= 0.5)
        more = values[tuple(places)] - weighted / np.maximum(weight, 0.5)
        total += np.where(covered, np.maximum(more if LOOKS[name].bright_lesions else -more, 0.0), 0.0)
        count += covered
    mean = np.zeros(brain.shape, np.float32)
    mean[tuple(places)] = np.minimum(total / count.clip(1.0), 1.0)
    return median_filter_volume(mean, spacing_mm, brain, length_mm)


def _abnormal(values: np.ndarray, contrast: str) -> np.ndarray:
    """Model intensities of a contrast as [0, 1] float32, lesions high."""
    return _unit(values) if LOOKS[contrast].bright_lesions else 1.0 - _unit(values)


def _mean(parts: Sequence[np.ndarray], valid: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Over the contrasts that cover a voxel, C parts (H, W, S) -> (H, W, S); 0 elsewhere and outside the brain."""
    total = np.zeros(brain.shape, np.float32)
    for part, here in zip(parts, valid, strict=True):
        total += np.where(here, part, np.float32(0.0))
    return np.where(brain, total / valid.sum(axis=0, dtype=np.float32).clip(1.0), np.float32(0.0))


def _unit(image: np.ndarray) -> np.ndarray:
    """Model intensities [-1, 1] as [0, 1] float32; what lies outside is clipped."""
    return np.clip((image.astype(np.float32) + 1.0) / 2.0, 0.0, 1.0)


def _check(where: str, image: np.ndarray, valid: np.ndarray, contrasts: Sequence[str]) -> None:
    if image.ndim != 4 or valid.shape != image.shape or len(contrasts) != len(image):
        raise DataError(
            "shapes that do not fit",
            where=where,
            got=f"image {image.shape}, valid {valid.shape}, {len(contrasts)} contrasts",
            expected="image and valid (C, H, W, S) and C contrasts",
        )
    if not valid.any():
        raise DataError("no contrast is present", where=where, expected=f"at least one of {list(contrasts)}")
