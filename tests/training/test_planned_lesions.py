"""Lesions of a wanted size, contrast and place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from tiny import generators

from hybriduad.core import rng
from hybriduad.core.types import Corruption
from hybriduad.networks.baselines import intensity_map
from hybriduad.scan.volumes import VolumeGrid
from hybriduad.training.native_volume import NativeVolume
from hybriduad.training.planned_lesions import (
    APART_MM,
    CONTRASTS,
    LARGE,
    SIZES_ML,
    Placed,
    Wish,
    paint_wishes,
    wishes,
)

SPACING = (2.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def volume() -> NativeVolume:
    """An ellipsoid of tissue, FLAIR and T1w, of 1.1 litres."""
    shape = (74, 90, 50)
    centre, radii = (np.array(values).reshape(3, 1, 1, 1) for values in ((36, 44, 24), (32, 40, 22)))
    place = (np.indices(shape) - centre) / radii
    brain = (place**2).sum(axis=0) < 1
    noise = np.random.default_rng(0).normal(-0.2, 0.03, (2, *shape)).astype(np.float32)
    image = np.where(brain, noise, np.float32(-1))
    grid = VolumeGrid.make(shape, np.diag([*SPACING, 1.0]))
    box = tuple(slice(0, size) for size in shape)
    return NativeVolume(image, np.ones(image.shape, bool), brain, SPACING, box, (1.0, 1.0), grid)


def painted(volume: NativeVolume, seed: int, wanted: list[Wish]) -> tuple[Corruption, list[Placed]]:
    return paint_wishes(volume, ("FLAIR", "T1w"), wanted, rng.numpy_rng(seed, "tests"))


def test_sizes_contrasts_and_places_come_in_turn() -> None:
    versions = wishes(9, np.random.default_rng(0))
    sizes = [list(range(LARGE))] * 9 + [list(range(LARGE, len(SIZES_ML)))] * 3
    assert [[wish.size for wish in version] for version in versions] == sizes
    assert [len(wishes(number, np.random.default_rng(0))) for number in (1, 3, 4)] == [2, 4, 6]
    every = [wish for version in versions for wish in version]
    for size in range(len(SIZES_ML)):
        of_size = [wish for wish in every if wish.size == size]
        counts = [sum(wish.contrast == name for wish in of_size) for name in CONTRASTS]
        assert counts == ([3, 3, 3] if size < LARGE else [1, 1, 1])
        assert len({(wish.front, wish.height) for wish in of_size}) >= (6 if size < LARGE else 3)
    assert len({(wish.front, wish.height) for wish in every}) == 9


def test_what_is_wanted_is_painted_and_nothing_else(volume: NativeVolume) -> None:
    before, clean = generators(), volume.image.copy()
    lesions: list[Placed] = []
    for seed, wanted in enumerate(wishes(6, np.random.default_rng(1))):
        corruption, placed = painted(volume, seed, wanted)
        again, _ = painted(volume, seed, wanted)
        np.testing.assert_array_equal(corruption.image, again.image)
        change = np.abs(corruption.image - clean).max(axis=0)
        assert not change[~(corruption.lesion | corruption.ignore)].any()
        assert not (corruption.lesion & ~volume.brain).any()
        np.testing.assert_array_equal(corruption.lesion, np.any([lesion.mask for lesion in placed], axis=0))
        assert sum(lesion.mask.sum() for lesion in placed) == corruption.lesion.sum()
        for lesion in placed:
            assert lesion.volume_ml == pytest.approx(lesion.mask.sum() * np.prod(SPACING) / 1000)
            low, high = SIZES_ML[lesion.wish.size]
            assert low <= lesion.volume_ml < high
            assert lesion.change == pytest.approx(change[lesion.mask].mean(), rel=1e-5)
            flair, t1w = (corruption.image - clean)[:, lesion.mask].mean(axis=1)
            assert flair > 0 > t1w
            centre = np.argwhere(lesion.mask).mean(axis=0)
            start, size = np.array([5, 3]), np.array([79, 43])  # of the brain's box from back to front, bottom to top
            thirds = np.minimum(2, np.floor(3 * (centre[1:] - start + 0.5) / size))
            assert (lesion.front, lesion.height) == tuple(thirds)
        for lesion in placed:
            others = corruption.lesion & ~lesion.mask
            if others.any():
                away = ndimage.distance_transform_edt(~lesion.mask, sampling=SPACING)
                assert away[others].min() > APART_MM / 3  # they are no balls
        lesions += placed
    assert generators() == before
    assert np.array_equal(volume.image, clean)
    assert len(lesions) >= 20
    assert np.mean([(lesion.front, lesion.height) == lesion.wish[2:] for lesion in lesions]) > 0.8
    changes = {name: np.mean([a.change for a in lesions if a.wish.contrast == name]) for name in CONTRASTS}
    assert 0.05 < changes["faint"] < changes["clear"] < changes["strong"]


def test_lesions_of_the_scan_itself_are_kept_apart_from(volume: NativeVolume) -> None:
    occupied = np.zeros(volume.brain.shape, bool)
    occupied[20:50, 20:70, 10:40] = True
    away = ndimage.distance_transform_edt(~occupied, sampling=SPACING)
    number = 0
    for seed, wanted in enumerate(wishes(4, np.random.default_rng(2))):
        generator = rng.numpy_rng(seed, "tests")
        corruption, placed = paint_wishes(volume, ("FLAIR", "T1w"), wanted, generator, occupied)
        assert not (corruption.lesion & occupied).any()
        number += len(placed)
        for lesion in placed:
            radius = (3 * 1000 * lesion.volume_ml / (4 * np.pi)) ** (1 / 3)
            centre = tuple(np.rint(np.argwhere(lesion.mask).mean(axis=0)).astype(int))
            assert away[centre] > (radius + APART_MM) / 2
    assert number >= 4


def test_a_wish_without_room_is_left_out(volume: NativeVolume) -> None:
    small = NativeVolume(**{**volume.__dict__, "brain": volume.brain & (np.indices(volume.brain.shape)[2] > 44)})
    corruption, placed = painted(small, 0, [Wish(3, "clear", 1, 0)])
    assert placed == []
    assert not corruption.lesion.any()
    np.testing.assert_array_equal(corruption.image, volume.image)


@pytest.mark.parametrize("names", [("T2starw", "T1wCE"), ("T1w", "PDw")])
def test_lesions_are_painted_dark_where_plain_intensity_looks_for_dark(
    names: tuple[str, str], volume: NativeVolume
) -> None:
    wanted = [Wish(3, "strong", 1, 1)]
    corruption, _ = paint_wishes(volume, names, wanted, rng.numpy_rng(0, "tests"))
    assert corruption.lesion.any()
    change = (corruption.image - volume.image)[:, corruption.lesion].mean(axis=1)
    assert change[0] < -0.1
    assert change[1] > 0.1
    before, after = (
        intensity_map(image, volume.valid, volume.brain, SPACING, names, 0.0)[corruption.lesion].mean()
        for image in (volume.image, corruption.image)
    )
    assert after > before + 0.1
