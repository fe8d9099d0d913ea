"""Plain intensity, and left-right asymmetry with the plane behind it, on phantoms that lie askew in the scanner."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.networks.baselines import asymmetry_map, baseline_maps, departure_map, intensity_map, opposite_map
from hybriduad.networks.scoring import median_filter_volume
from hybriduad.networks.symmetry import find_plane
from hybriduad.phantom.subject import make_subject

SPACING = (2.5, 2.5, 4.4)
Head = tuple[np.ndarray, np.ndarray]
SHAPE = (96, 96, 40)
CENTRE = (np.array(SHAPE) - 1) / 2 * SPACING
SHIFT = np.array([10.0, -4.0, 0.0])


def turned(degrees: float, tilt: float = 0.0) -> np.ndarray:
    """The rotation (3, 3) of a head by ``degrees`` in plane, after a tilt to a shoulder."""
    a, b = np.radians([degrees, tilt])
    tilting = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ tilting


def moved(volume: np.ndarray, rotation: np.ndarray, shift: np.ndarray = SHIFT) -> np.ndarray:
    """A volume turned about the middle of the grid and then shifted, in mm; the background is its lowest value."""
    scale = np.diag(SPACING)
    matrix = np.linalg.inv(scale) @ rotation.T @ scale
    start = np.linalg.inv(scale) @ (CENTRE - rotation.T @ (CENTRE + shift))
    return ndimage.affine_transform(volume, matrix, start, order=1, cval=float(volume.min()))


@pytest.fixture(scope="module")
def symmetric() -> Head:
    """FLAIR and T1w (2, 96, 96, 40) in [-1, 1] of a phantom whose right half is the mirror image of its left, and its
    brain."""
    phantom = make_subject(5, 2, contrasts=("FLAIR", "T1w"), spacing_mm=SPACING)
    before = [(whole - part) // 2 for whole, part in zip(SHAPE, phantom.brain.shape, strict=True)]
    room = [
        (first, whole - part - first) for first, whole, part in zip(before, SHAPE, phantom.brain.shape, strict=True)
    ]
    brain = np.pad(phantom.brain, room)
    brain &= brain[::-1]
    images = []
    for scan in phantom.images.values():
        unit = np.clip(scan / (2.5 * np.median(scan[phantom.brain])), 0, 1)
        padded = np.pad(unit, room) * brain
        images.append((padded + padded[::-1]) - 1)
    return np.stack(images).astype(np.float32), brain


def askew(phantom: Head, rotation: np.ndarray, shift: np.ndarray = SHIFT) -> Head:
    image, brain = phantom
    return np.stack([moved(one, rotation, shift) for one in image]), moved(
        brain.astype(np.float32), rotation, shift
    ) > 0.5


def painted(phantom: Head, centre_mm: tuple[float, float, float]) -> Head:
    """The phantom with a ball of 12 mm, bright on FLAIR and dark on T1w, and where it is."""
    image, brain = phantom
    places = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING - CENTRE
    ball = (np.linalg.norm(places - centre_mm, axis=-1) < 12) & brain
    image = image.copy()
    image[0, ball] += 0.5
    image[1, ball] -= 0.3
    return image.clip(-1, 1), ball


@pytest.mark.parametrize(("degrees", "tilt"), [(8.0, 0.0), (-8.0, 0.0), (20.0, 0.0), (8.0, 5.0)])
def test_the_plane_of_a_head_that_lies_askew(symmetric: Head, degrees: float, tilt: float) -> None:
    rotation = turned(degrees, tilt)
    image, brain = askew(symmetric, rotation)
    plane = find_plane((image[:1] + 1) / 2, np.ones_like(image[:1], bool), brain, SPACING, lateral=0)
    normal = rotation[:, 0]
    assert np.degrees(np.arccos(abs(normal @ plane.normal))) < 1.5
    middle = CENTRE + SHIFT  # on the plane
    assert abs(plane.normal @ middle - plane.offset_mm) < 1.5
    again = find_plane((image[:1] + 1) / 2, np.ones_like(image[:1], bool), brain, SPACING, lateral=0)
    np.testing.assert_array_equal(again.normal, plane.normal)
    points = np.array([[0.0, 30.0], [5.0, 60.0], [9.0, 90.0]])
    np.testing.assert_allclose(plane.mirrored(plane.mirrored(points)), points, atol=1e-9)
    across = plane.mirrored(points) - points
    np.testing.assert_allclose(np.cross(across.T, plane.normal), 0, atol=1e-9)  # along the normal


def test_a_tumour_across_the_plane_does_not_draw_it(symmetric: Head) -> None:
    """It is like itself in the mirror: once the plane went through its own middle, 70 degrees off."""
    image, brain = symmetric
    places = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING - CENTRE
    tumour = (np.linalg.norm(places - np.array([22.0, 25.0, 10.0]), axis=-1) < 32) & brain
    assert tumour[:48].any()  # beyond the plane, too
    bright = np.where(tumour, 0.9, image[:1]).astype(np.float32)
    shown, inside = askew((bright, brain), turned(8.0))
    plane = find_plane((shown + 1) / 2, np.ones_like(shown, bool), inside, SPACING, lateral=0)
    assert np.degrees(np.arccos(abs(turned(8.0)[:, 0] @ plane.normal))) < 3
    assert abs(plane.normal @ (CENTRE + SHIFT) - plane.offset_mm) < 3


def test_the_plane_is_found_in_a_fraction_of_a_second(symmetric: Head) -> None:
    image, brain = askew(symmetric, turned(8.0))
    spent = []
    for _ in range(3):  # the least: other work on the machine makes some of them longer
        began = time.process_time()
        find_plane((image[:1] + 1) / 2, np.ones_like(image[:1], bool), brain, SPACING, lateral=0)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.3


class TestAsymmetry:
    def test_it_finds_a_lesion_of_one_side_and_nothing_in_a_symmetric_head(self, symmetric: Head) -> None:
        rotation = turned(8.0)
        healthy, brain = askew(symmetric, rotation)
        sick, ball = painted(symmetric, (30.0, 10.0, 0.0))
        sick = np.stack([moved(one, rotation) for one in sick])
        lesion, other = (moved(where.astype(np.float32), rotation) > 0.5 for where in (ball, ball[::-1]))
        for image, contrasts in ((slice(0, 2), ("FLAIR", "T1w")), (slice(0, 1), ("FLAIR",)), (slice(1, 2), ("T1w",))):
            valid = np.ones_like(healthy[image], bool)
            none = asymmetry_map(healthy[image], valid, brain, SPACING, contrasts, 0)
            found = asymmetry_map(sick[image], valid, brain, SPACING, contrasts, 0)
            assert none is not None
            assert found is not None
            assert (found.shape, found.dtype) == (SHAPE, np.float32)
            assert np.quantile(none[brain], 0.99) < 0.04
            assert np.median(found[lesion]) > 0.1
            assert np.median(found[lesion]) > 10 * np.median(found[other])
            assert found.max() <= 1
            assert not found[~brain].any()

    def test_sagittal_slices_are_mirrored_across(self, symmetric: Head) -> None:
        image, ball = painted(symmetric, (30.0, 10.0, 0.0))
        brain = symmetric[1]
        axial = asymmetry_map(image, np.ones_like(image, bool), brain, SPACING, ("FLAIR", "T1w"), 0)
        turned_image, turned_brain = np.moveaxis(image, 1, -1), np.moveaxis(brain, 0, -1)
        valid = np.ones_like(turned_image, bool)
        sagittal = baseline_maps(turned_image, valid, turned_brain, (2.5, 4.4, 2.5), ("FLAIR", "T1w"), 2)["asymmetry"]
        assert axial is not None
        assert sagittal is not None
        np.testing.assert_allclose(np.moveaxis(sagittal, -1, 0), axial, atol=0.1)
        assert np.median(sagittal[np.moveaxis(ball, 0, -1)]) > 0.1
        few = turned_brain.copy()
        few[..., :46] = few[..., 50:] = False
        maps = baseline_maps(turned_image, valid, few, (2.5, 4.4, 2.5), ("FLAIR", "T1w"), 2)
        assert maps["asymmetry"] is None
        assert maps["intensity"] is not None

    def test_it_is_the_difference_from_the_mirror_image(self) -> None:
        """By hand: a plane between two voxels, so that nothing is interpolated."""
        rng = np.random.default_rng(3)
        brain = np.zeros((24, 20, 6), bool)
        brain[2:22, 2:18] = True
        half = rng.uniform(-0.8, 0.2, (1, 12, 20, 6)).astype(np.float32)
        image = np.concatenate([half, half[:, ::-1]], axis=1)
        image[0, 5:8, 6:9, 2:4] += 0.5
        valid = np.ones_like(image, bool)
        valid[..., 4:] = False
        found = asymmetry_map(image, valid, brain, (6.0, 6.0, 6.0), ("FLAIR",), 0, length_mm=0.0)
        expected = np.where(brain & valid[0], (image[0] - image[0, ::-1]).clip(0, 2) / 2, 0)
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=0.06)  # the plane is within a tenth of a voxel
        assert found[6, 7, 2] == pytest.approx(0.25, abs=0.06)
        assert not found[..., 4:].any()
        filtered = asymmetry_map(image, valid, brain, (6.0, 6.0, 6.0), ("FLAIR",), 0, length_mm=18.0)
        np.testing.assert_array_equal(filtered, median_filter_volume(found, (6.0, 6.0, 6.0), brain, 18.0))

    def test_without_a_mirror_image_it_is_0(self, symmetric: Head) -> None:
        image, brain = symmetric[0].copy(), symmetric[1].copy()
        gone = np.zeros_like(brain)
        gone[20:30, 40:60, 15:25] = True
        beyond = gone[::-1] & brain
        brain &= ~gone
        image[0, beyond] = 1.0
        found = asymmetry_map(image[:1], np.ones_like(image[:1], bool), brain, SPACING, ("FLAIR",), 0, length_mm=0.0)
        assert found is not None
        inner = ndimage.binary_erosion(beyond, iterations=2)
        assert inner.any()
        assert not found[inner].any()

    def test_a_featureless_brain_is_mirrored_across_its_own_axis(self, symmetric: Head) -> None:
        rotation = turned(8.0)
        brain = moved(symmetric[1].astype(np.float32), rotation) > 0.5
        flat = np.zeros((1, *SHAPE), np.float32)
        plane = find_plane(flat, np.ones_like(flat, bool), brain, SPACING, lateral=0)
        assert np.degrees(np.arccos(abs(rotation[:, 0] @ plane.normal))) < 4
        found = asymmetry_map(flat, np.ones_like(flat, bool), brain, SPACING, ("FLAIR",), 0)
        assert found is not None
        assert found.max() < 1e-5


def test_intensity_follows_the_sign_of_the_contrast() -> None:
    image = np.full((2, 12, 12, 3), -1.0, np.float32)
    brain = np.zeros((12, 12, 3), bool)
    brain[2:10, 2:10] = True
    image[:, brain] = 0.0
    image[0, 4:8, 4:8] = 0.6
    image[1, 4:8, 4:8] = -0.6
    spacing = (5.0, 5.0, 5.0)

    def intensity(covered: list[bool], spacing_mm: tuple[float, ...] = spacing) -> np.ndarray:
        valid = np.broadcast_to(np.array(covered)[:, None, None, None], image.shape)
        return intensity_map(image, valid, brain, spacing_mm, ("FLAIR", "T1w"))

    flair, t1, both = intensity([True, False]), intensity([False, True]), intensity([True, True])
    for result in (flair, t1, both):
        assert result[5, 5, 1] == pytest.approx(0.8)
        assert result[3, 3, 1] == pytest.approx(0.5)
        assert not result[~brain].any()
    rim = intensity([False, True], (1.0, 1.0, 5.0))
    assert rim[2:4, 2:4].max() <= 0.5
    valid = np.ones(image.shape, bool)
    valid[1, :, :, 1:] = valid[0, :, :, 2:] = False
    image[0, 4:8, 4:8] = 0.2
    part = intensity_map(image, valid, brain, (20.0, 20.0, 20.0), ("FLAIR", "T1w"))
    assert part[5, 5].tolist() == pytest.approx([0.7, 0.6, 0.0])  # both, the first alone, none


def test_what_departs_from_healthy_tissue_to_the_other_side() -> None:
    image = np.full((2, 12, 12, 3), 0.2, np.float32)
    expected, brain = image.copy(), np.zeros((12, 12, 3), bool)
    brain[1:11, 1:11] = True
    image[:, 2:5, 2:5], expected[:, 2:5, 2:5] = -0.8, 0.0  # a cavity: dark on FLAIR, where tissue is expected
    image[:, 7:10, 2:5], expected[:, 7:10, 2:5] = -0.8, -0.8  # fluid in both
    image[:, 2:5, 7:10], expected[:, 2:5, 7:10] = 0.9, 0.1  # bright
    valid = np.ones(image.shape, bool)

    def departure(contrast: str) -> np.ndarray:
        return opposite_map(image[:1], expected[:1], valid[:1], brain, (5.0, 5.0, 5.0), (contrast,), 0.0)

    flair, t1 = departure("FLAIR"), departure("T1w")
    assert flair[3, 3].tolist() == pytest.approx([0.4] * 3)
    assert t1[3, 8].tolist() == pytest.approx([0.4] * 3)
    for nothing in (flair[3, 8], t1[3, 3], flair[8, 3], flair[~brain]):
        assert not nothing.any()
    both = opposite_map(image, expected, valid, brain, (5.0, 5.0, 5.0), ("FLAIR", "T1w"), 0.0)
    np.testing.assert_allclose(both, (flair + t1) / 2, rtol=1e-6)
    lone = np.where(brain, 0.2, 0.0).astype(np.float32)
    lone[6, 6] = -0.8
    assert not opposite_map(
        lone[None], np.full_like(lone, 0.2)[None], valid[:1], brain, (5.0, 5.0, 5.0), ("FLAIR",), 15.0
    )[6, 6].any()  # behind the median filter
    with pytest.raises(DataError, match="opposite_map"):
        opposite_map(image, expected[:1], valid, brain, (5.0, 5.0, 5.0), ("FLAIR", "T1w"))


@pytest.mark.parametrize(("contrast", "side"), [("FLAIR", 1), ("T2w", 1), ("T1w", -1)])
def test_brightness_beyond_tissue_is_a_step(contrast: str, side: int) -> None:
    brain = np.zeros((8, 8, 2), bool)
    brain[1:7, 1:7] = True
    shares = np.array([-0.5, 0.0, 0.25, 0.5, 1.0])  # of the median, to the side of lesions
    image = np.full((1, 8, 8, 2), -1.0, np.float32)
    image[0, 1:6, 3] = (2 / 2.5 * (1 + side * shares) - 1)[:, None]
    step = departure_map(image, np.ones(image.shape, bool), brain, (contrast,), 0.25)
    logistic = 1 / (1 + np.exp(-2 * (shares / 0.25 - 1)))
    np.testing.assert_allclose(step[1:6, 3, 0], 0.1 + 0.9 * logistic, rtol=1e-4)
    assert step[3, 3, 0] == pytest.approx(0.55)
    assert not step[~brain].any()


def test_a_step_is_the_mean_of_the_contrasts_there() -> None:
    image = np.stack([np.full((6, 6, 2), value, np.float32) for value in (0.2, -0.4)])
    brain, valid = np.ones((6, 6, 2), bool), np.ones((2, 6, 6, 2), bool)
    valid[1, 3:] = False
    alone = departure_map(image[:1], valid[:1], brain, ("FLAIR",), 0.25)
    both = departure_map(image, valid, brain, ("FLAIR", "T1w"), 0.25)
    np.testing.assert_array_equal(both[3:], alone[3:])
    other = departure_map(image[1:], np.ones_like(valid[1:]), brain, ("T1w",), 0.25)
    np.testing.assert_allclose(both[:3], (alone[:3] + other[:3]) / 2, rtol=1e-6)
    with pytest.raises(DataError, match="departure_map"):
        departure_map(image, valid[:1], brain, ("FLAIR", "T1w"), 0.25)


def test_intensity_is_not_rescaled_per_scan() -> None:
    """Published mistake 6: min-max per volume makes every scan peak at 1, so no threshold can be calibrated."""
    brain = np.ones((32, 32, 2), bool)
    volume = np.full(brain.shape, 0.3, np.float32)
    volume[10:20, 10:20] = 0.4
    dim = intensity_map(volume[None] * 2 - 1, np.ones((1, *volume.shape), bool), brain, (1, 1, 5), ("FLAIR",))
    assert dim.max() == pytest.approx(0.4, abs=1e-6)


def test_bad_input_is_named() -> None:
    volume, brain = np.zeros((6, 6, 6), np.float32), np.ones((6, 6, 6), bool)
    with pytest.raises(DataError, match="no contrast"):
        intensity_map(volume[None], ~brain[None], brain, (1, 1, 1), ("FLAIR",))
    with pytest.raises(DataError, match="intensity_map"):
        intensity_map(volume[None], np.stack([brain, brain]), brain, (1, 1, 1), ("FLAIR",))
    with pytest.raises(DataError, match="no contrast is present in asymmetry_map"):
        asymmetry_map(volume[None], ~brain[None], brain, (1, 1, 1), ("FLAIR",), 0)
    with pytest.raises(DataError, match=r"asymmetry_map.*2 contrasts"):
        asymmetry_map(volume[None], brain[None], brain, (1, 1, 1), ("FLAIR", "T1w"), 0)
