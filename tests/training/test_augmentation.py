"""Augmentation: what moves, what stays, and whose randomness it uses."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import generators

from hybriduad.config.runs import Augmentation
from hybriduad.core.rng import numpy_rng
from hybriduad.core.types import BACKGROUND
from hybriduad.training.augmentation import STRIPPED_SCALE, augment

NAMES = tuple(Augmentation.model_fields)


def only(**chances: float) -> Augmentation:
    return Augmentation(**{**dict.fromkeys(NAMES, 0.0), **chances})


@pytest.fixture
def image() -> np.ndarray:
    """Two contrasts of a disc with a bright patch off its centre, 64 x 64."""
    rows, columns = np.indices((64, 64))
    head = (rows - 32) ** 2 + (columns - 32) ** 2 < 24**2
    picture = np.where(head, 0.0, BACKGROUND).astype(np.float32)
    picture[patch()] = 0.9
    return np.stack([picture, np.where(head, -picture, BACKGROUND).astype(np.float32)])


def patch() -> np.ndarray:
    rows, columns = np.indices((64, 64))
    return (rows - 24) ** 2 + (columns - 40) ** 2 < 7**2


def masks(image: np.ndarray) -> np.ndarray:
    return np.stack([image[0] > BACKGROUND, patch()])


def altered(
    config: Augmentation, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, *, sided: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Image and masks, of contrasts that are wholly there or, all background, absent."""
    valid = np.broadcast_to((image > BACKGROUND).any(axis=(1, 2), keepdims=True), image.shape)
    changed, still, moved = augment(config, image, valid, labels, rng, sided=sided)
    assert (changed[~still] == BACKGROUND).all()
    assert (still.all(axis=(1, 2)) | ~still.any(axis=(1, 2))).all()
    return changed, moved


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("name", ["flip", "affine"])
def test_masks_move_with_the_image(name: str, image: np.ndarray) -> None:
    displaced = 0
    for key in range(8):
        moved, labels = altered(only(**{name: 1.0}), image, masks(image), numpy_rng(1, key))
        assert dice(moved[0] > 0.45, labels[1]) > 0.9
        assert dice(moved[0] > -0.5, labels[0]) > 0.95
        displaced += dice(labels[1], patch()) < 0.9
    assert displaced >= 6


def test_a_flip_mirrors_left_and_right(image: np.ndarray) -> None:
    moved, labels = altered(only(flip=1.0), image, masks(image), numpy_rng(0))
    np.testing.assert_array_equal(moved, image[:, ::-1])
    np.testing.assert_array_equal(labels, masks(image)[:, ::-1])


def test_a_slice_without_left_and_right_is_never_flipped(image: np.ndarray) -> None:
    moved, labels = altered(only(flip=1.0), image, masks(image), numpy_rng(0), sided=False)
    np.testing.assert_array_equal(moved, image)
    np.testing.assert_array_equal(labels, masks(image))


@pytest.mark.parametrize("name", ["gamma", "bias", "blur", "noise", "ghosting"])
def test_an_intensity_changes_and_no_mask_moves(name: str, image: np.ndarray) -> None:
    changed, labels = altered(only(**{name: 1.0}), image, masks(image), numpy_rng(5))
    assert float(np.abs(changed - image).max()) > 0.002
    np.testing.assert_array_equal(labels, masks(image))


@pytest.mark.parametrize("name", ["gamma", "bias", "blur", "noise", "ghosting"])
def test_contrasts_are_altered_apart_as_they_are_acquired(name: str, image: np.ndarray) -> None:
    alike = np.stack([image[0], image[0]])
    changed, _ = altered(only(**{name: 1.0}), alike, masks(image), numpy_rng(5))
    assert float(np.abs(changed[0] - changed[1]).max()) > 0.002
    alone, _ = altered(only(**{name: 1.0}), image[:1], masks(image), numpy_rng(5))
    np.testing.assert_array_equal(alone[0], changed[0])


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_range_stay_and_an_absent_contrast_stays_absent(name: str, image: np.ndarray) -> None:
    image[1] = BACKGROUND
    for key in range(4):
        changed, labels = altered(only(**{name: 1.0}), image, masks(image), numpy_rng(2, key))
        assert (changed.shape, changed.dtype) == (image.shape, np.float32)
        assert (labels.shape, labels.dtype) == ((2, 64, 64), bool)
        assert changed.min() >= -1
        assert changed.max() <= 1
        assert (changed[1] == BACKGROUND).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_contrast_does_not_cover_moves_with_it_and_stays_background(name: str, image: np.ndarray) -> None:
    valid = np.ones(image.shape, bool)
    valid[1, :, 40:] = False
    part = np.where(valid, image, np.float32(BACKGROUND))
    for key in range(3):
        whole, _, _ = augment(
            only(**{name: 1.0}), image, np.ones(image.shape, bool), masks(image), numpy_rng(7, key), sided=True
        )
        changed, still, _ = augment(only(**{name: 1.0}), part, valid, masks(image), numpy_rng(7, key), sided=True)
        assert (changed[~still] == BACKGROUND).all()
        if name in ("flip", "affine", "stripped"):
            np.testing.assert_allclose(changed[still], whole[still], atol=1e-6)
            assert still[0].all()
            assert (~still[1]).mean() == pytest.approx((~valid[1]).mean(), abs=0.12)
            assert name == "stripped" or np.array_equal(still, valid[:, ::-1]) == (name == "flip")
        elif name != "absent":
            np.testing.assert_array_equal(still, valid)


def test_of_a_stripped_slice_the_brain_is_left_and_fills_it(image: np.ndarray) -> None:
    rows, columns = np.indices((64, 64))
    brain = (rows - 32) ** 2 + (columns - 32) ** 2 < 16**2
    sizes = []
    for key in range(12):
        labels = np.stack([brain, patch()])
        changed, moved = altered(only(stripped=1.0), image, labels, numpy_rng(3, key))
        inner = (changed[0] > BACKGROUND + 0.5) & ~moved[0]
        assert inner.sum() < 0.15 * moved[0].sum()  # no more than the rim of an interpolation
        assert dice((changed[0] > 0.45) & moved[0], moved[1] & moved[0]) > 0.9
        sizes.append(float(np.sqrt(moved[0].sum() / brain.sum())))
    assert STRIPPED_SCALE[0] - 0.05 < min(sizes) < max(sizes) < STRIPPED_SCALE[1] + 0.05
    assert max(sizes) - min(sizes) > 0.1


def test_without_stripping_a_seed_gives_the_slices_of_before(image: np.ndarray) -> None:
    used, reference = numpy_rng(9), numpy_rng(9)
    altered(only(), image, masks(image), used)
    reference.random(8)  # flip to absent
    reference.integers(2**62)
    assert used.random() == reference.random()
    assert "stripped" not in Augmentation().model_dump()


def test_some_contrasts_become_absent_never_all(image: np.ndarray) -> None:
    several = np.concatenate([image, image[:1]])
    left = set()
    for key in range(40):
        changed, _ = altered(only(absent=1.0), several, masks(image), numpy_rng(6, key))
        there = (changed > BACKGROUND).any(axis=(1, 2))
        np.testing.assert_array_equal(changed[there], several[there])
        left.add(tuple(there.tolist()))
    assert len(left) == 6  # every choice of one or two of the three
    alone, _ = altered(only(absent=1.0), image[:1], masks(image), numpy_rng(6))
    np.testing.assert_array_equal(alone, image[:1])


def test_nothing_happens_at_probability_0(image: np.ndarray) -> None:
    changed, labels = altered(only(), image, masks(image), numpy_rng(0))
    np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(labels, masks(image))


def test_a_pure_function_of_the_generator(image: np.ndarray) -> None:
    everything, kept, before = only(**dict.fromkeys(NAMES, 1.0)), image.copy(), generators()
    first, again, other = (altered(everything, image, masks(image), numpy_rng(3, key))[0] for key in (1, 1, 2))
    assert generators() == before
    np.testing.assert_array_equal(image, kept)
    np.testing.assert_array_equal(first, again)
    assert float(np.abs(first - other).max()) > 0.01


def test_probabilities_are_those_of_the_config(image: np.ndarray) -> None:
    flipped = [
        not np.array_equal(altered(only(flip=0.3), image, masks(image), numpy_rng(4, key))[0], image)
        for key in range(300)
    ]
    assert np.mean(flipped) == pytest.approx(0.3, abs=0.08)
