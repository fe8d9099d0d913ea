"""Transplanted lesions: whose they are, where they go, and what is asked of the donors."""

from __future__ import annotations

import numpy as np
import pytest

from hybriduad.anomalies._base import Donor, Donors
from hybriduad.anomalies.transplant import Config, corrupt
from hybriduad.core import rng
from hybriduad.core.errors import DataError
from hybriduad.core.types import BACKGROUND

SHAPE, SPACING_MM = (64, 64), (2.0, 2.0)
STILL = {"shift_mm": 0.0, "turn_degrees": 0.0, "ln_scale": 0.0}


def plain(level: float, contrasts: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A disc of one intensity and its brain."""
    across, down = np.indices(SHAPE) - 31.5
    brain = np.hypot(across, down) < 26
    return np.where(brain, level, BACKGROUND).astype(np.float32)[None].repeat(contrasts, 0), brain


def donor(level: float = 0.0, contrasts: int = 1) -> Donor:
    """The disc with an L of .5 above its intensity, which has no symmetry."""
    image, brain = plain(level, contrasts)
    lesion = np.zeros(SHAPE, bool)
    lesion[24:28, 36:48] = lesion[24:36, 36:40] = True
    image[:, lesion] = level + 0.5
    return Donor(image, brain, lesion, SPACING_MM)


def gives(always: Donor) -> Donors:
    return lambda rng, *, labelled: always


def test_the_lesion_is_the_donors_where_it_was_and_as_it_lay() -> None:
    image, brain = plain(0.0)
    lesion = donor().lesion
    draws = [
        corrupt(Config(**STILL), image, brain, rng.numpy_rng(key), spacing_mm=SPACING_MM, donors=gives(donor()))
        for key in range(12)
    ]
    assert all(np.array_equal(drawn.lesion, lesion) for drawn in draws)  # front to back no two brains can be exchanged


def test_a_moved_lesion_keeps_its_size_about_and_stays_in_the_brain() -> None:
    image, brain = plain(0.0)
    area = donor().lesion.sum()
    sizes = []
    for key in range(40):
        drawn = corrupt(Config(), image, brain, rng.numpy_rng(key), spacing_mm=SPACING_MM, donors=gives(donor()))
        assert not drawn.lesion[~brain].any()
        sizes.append(drawn.lesion.sum() / area)
    assert min(sizes) > 0.5
    assert max(sizes) < 1.6
    assert np.std(sizes) > 0.05


def test_the_lesion_is_brought_to_the_intensity_of_its_new_surroundings() -> None:
    image, brain = plain(-0.4)
    drawn = corrupt(Config(**STILL), image, brain, rng.numpy_rng(1), spacing_mm=SPACING_MM, donors=gives(donor(0.3)))
    np.testing.assert_allclose(drawn.image[0][drawn.lesion], 0.1, atol=1e-5)  # .5 above the tissue, as in the donor
    np.testing.assert_allclose(drawn.image[0][brain & ~drawn.lesion], -0.4, atol=1e-5)


def test_a_donor_that_lacks_a_contrast_or_whose_lesion_would_leave_the_brain_gives_nothing() -> None:
    image, brain = plain(0.0, contrasts=2)
    partial = donor(contrasts=2)
    partial.image[1] = BACKGROUND
    drawn = corrupt(Config(), image, brain, rng.numpy_rng(0), spacing_mm=SPACING_MM, donors=gives(partial))
    assert np.array_equal(drawn.image, image)
    small = np.zeros_like(brain)
    small[28:36, 28:36] = True
    drawn = corrupt(Config(), image, small, rng.numpy_rng(0), spacing_mm=SPACING_MM, donors=gives(donor(0.0, 2)))
    assert not drawn.lesion.any()
    assert np.array_equal(drawn.image, image)


def test_without_donors_and_without_a_lesion_among_them() -> None:
    image, brain = plain(0.0)
    with pytest.raises(DataError, match=r"no lesion to transplant.*labelled slices"):
        corrupt(Config(), image, brain, rng.numpy_rng(0), spacing_mm=SPACING_MM, donors=None)
    healthy = Donor(*plain(0.0), np.zeros(SHAPE, bool), SPACING_MM)
    drawn = corrupt(Config(), image, brain, rng.numpy_rng(0), spacing_mm=SPACING_MM, donors=gives(healthy))
    assert np.array_equal(drawn.image, image)
    assert not drawn.lesion.any()


def round_donor(spacing_mm: tuple[float, float]) -> Donor:
    """The disc with a round lesion of 10 mm radius, 16 mm in front of the brain's centre, at any spacing."""
    across, down = ((np.indices(SHAPE) - 31.5).T * spacing_mm).T
    brain = np.hypot(across, down) < 30
    lesion = np.hypot(across, down - 16) < 10
    image = np.where(lesion, 0.5, np.where(brain, 0.0, BACKGROUND)).astype(np.float32)
    return Donor(image[None], brain, lesion, spacing_mm)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [((1.0, 1.0), (2.0, 2.0)), ((2.0, 2.0), (1.0, 1.0)), ((1.0, 1.5), (1.5, 1.0)), ((1.5, 1.5), (1.5, 1.5))],
)
@pytest.mark.parametrize("options", [STILL, {}])
def test_a_lesion_of_another_spacing_keeps_its_size_and_place_in_mm(
    theirs: tuple[float, float], ours: tuple[float, float], options: dict[str, float]
) -> None:
    receiver = round_donor(ours)
    image = np.where(receiver.brain, 0.0, BACKGROUND).astype(np.float32)[None]
    rim_mm2 = 2 * np.pi * 10 * max(*theirs, *ours) / 2  # half a voxel all around

    def drawn(giver: Donor, key: int) -> np.ndarray:
        arguments = (image, receiver.brain, rng.numpy_rng(key))
        return corrupt(Config(**options), *arguments, spacing_mm=ours, donors=gives(giver)).lesion

    for key in range(6):
        there, here = drawn(round_donor(theirs), key), drawn(round_donor(ours), key)  # the same lesion in millimetres
        assert there.any()
        assert abs(there.sum() - here.sum()) * np.prod(ours) < rim_mm2
        if options == STILL:
            assert abs(there.sum() * np.prod(ours) - np.pi * 10**2) < rim_mm2
            assert np.allclose((np.argwhere(there).mean(axis=0) - 31.5) * ours, (0, 16), atol=1)
