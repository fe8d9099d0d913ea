"""Outlines against distance transforms of whole volumes, and in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.metrics import surface_figures

SPACING_MM = (0.9, 1.3, 5.0)


def blob(seed: int, share: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(18, 16, 7)), (2, 2, 1))
    return smooth > np.quantile(smooth, 1 - share)


def edge(mask: np.ndarray) -> np.ndarray:
    """Voxels of which one of the six neighbours is no lesion, by shifting the volume."""
    padded = np.pad(mask, 1)
    inner = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
    return mask & ~np.logical_and.reduce(inner)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tolerance_mm", [1.0, 3.0])
def test_distance_transforms_give_the_same(seed: int, tolerance_mm: float) -> None:
    mask, truth = blob(seed, 0.1), blob(seed + 100, 0.15)
    first, second = edge(mask), edge(truth)
    one = ndimage.distance_transform_edt(~second, sampling=SPACING_MM)[first]
    other = ndimage.distance_transform_edt(~first, sampling=SPACING_MM)[second]
    figures = surface_figures(mask, truth, SPACING_MM, tolerance_mm=tolerance_mm)
    near = (one <= tolerance_mm).sum() + (other <= tolerance_mm).sum()
    assert figures.dice == pytest.approx(near / (first.sum() + second.sum()))
    assert 0 < figures.dice < 1
    assert figures.hd95 == pytest.approx(max(np.percentile(one, 95), np.percentile(other, 95)))


def test_a_shift_across_thick_slices_counts_by_their_spacing() -> None:
    truth = np.zeros((12, 12, 8), bool)
    truth[3:9, 3:9, 3] = True
    assert surface_figures(truth, truth, SPACING_MM) == (1.0, 0.0)
    assert surface_figures(np.roll(truth, 1, 2), truth, SPACING_MM) == (0.0, 5.0)
    shifted = np.roll(truth, 1, 0)
    assert surface_figures(shifted, truth, SPACING_MM) == (1.0, pytest.approx(0.9))
    assert surface_figures(shifted, truth, (1.1, 1.3, 5.0)).dice == pytest.approx(5 / 6)


def test_an_outline_that_is_missing_is_a_miss_and_two_are_undefined() -> None:
    """Else a system that leaves nine of ten lesions out would be measured on the tenth alone."""
    none, some = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    for pair in ((none, some), (some, none)):
        figures = surface_figures(*pair, (1, 1, 1))
        assert figures.dice == 0
        assert math.isnan(figures.hd95)
    assert all(map(math.isnan, surface_figures(none, none, (1, 1, 1))))
    with pytest.raises(DataError, match="one spacing an axis"):
        surface_figures(some, some, (1, 1))
