"""Lesions drawn apart from being painted: recorded, replayed, moved to another scan, set to a size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from heads import SPACING_MM, head

from hybriduad.anomalies import lesion
from hybriduad.anomalies._base import present
from hybriduad.anomalies._description import Lesion
from hybriduad.anomalies._noise import fractal, record_fractal, replay
from hybriduad.anomalies._painting import paint
from hybriduad.config.strict import checked
from hybriduad.core import rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption

EVERYTHING = lesion.Config(several=1.0, mass_effect=1.0, core=1.0, bright=(0.9, 0.1, 0.5))
SPACE = {"plane": ((96, 96), SPACING_MM), "volume": ((48, 56, 16), (3.0, 3.0, 6.0))}


def described(space: str, key: int, config: lesion.Config = EVERYTHING) -> Lesion:
    shape, spacing = SPACE[space]
    image, brain = head(shape, key % 4)
    return lesion.draw(config, present(image), brain, rng.numpy_rng(3, key), spacing_mm=spacing)


def same(left: Corruption, right: Corruption) -> bool:
    parts = ("image", "lesion", "visibility", "ignore")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in parts)


@pytest.mark.parametrize("space", SPACE)
def test_a_lesion_read_back_from_json_is_painted_bit_by_bit(space: str) -> None:
    shape, spacing = SPACE[space]
    for key in range(6):
        image, brain = head(shape, key % 4)
        text = described(space, key).model_dump_json()
        again = checked(Lesion, json.loads(text), "test")
        assert again == described(space, key)
        whole = lesion.corrupt(EVERYTHING, image, brain, rng.numpy_rng(3, key), spacing_mm=spacing)
        assert whole.lesion.any()
        assert same(whole, paint(again, image, brain, spacing_mm=spacing))


# Voxels of lesion, mean change in them, and the next number of the generator, before drawing and painting were apart.
BEFORE = {
    ("plane", 0): (245, 0.3549, 1007985366),
    ("plane", 1): (138, 0.2452, 114510215),
    ("plane", 2): (158, 0.3719, 112772993),
    ("plane", 3): (1518, 0.6535, 112488962),
    ("plane", 4): (30, 0.4019, 284990477),
    ("plane", 5): (11, 0.4262, 663012205),
    ("plane", 6): (101, 0.2373, 110637397),
    ("plane", 7): (173, 0.4716, 326683267),
    ("volume", 0): (568, 0.6358, 431131331),
    ("volume", 1): (240, 0.4117, 397235310),
    ("volume", 2): (222, 0.4588, 94260431),
}


@pytest.mark.parametrize(("space", "key"), BEFORE)
def test_the_lesions_of_a_seed_stay_what_they_were(space: str, key: int) -> None:
    shape, spacing = SPACE[space]
    image, brain = head(shape, key % 4)
    draws = rng.numpy_rng(3, key)
    got = lesion.corrupt(lesion.Config(), image, brain, draws, spacing_mm=spacing)
    voxels, change, following = BEFORE[space, key]
    assert int(draws.integers(1 << 30)) == following
    assert got.lesion.sum() == pytest.approx(voxels, abs=2)  # another processor may round a voxel of the border away
    assert np.abs(got.image - image).max(axis=0)[got.lesion].mean() == pytest.approx(change, abs=2e-3)


def test_the_same_lesion_in_another_scan() -> None:
    painted = 0
    for key in range(12):
        drawn = described("plane", key)
        image, brain = head((128, 112), key + 1)
        got = paint(drawn, image, brain, spacing_mm=(1.6, 1.9))
        again = paint(drawn, image, brain, spacing_mm=(1.6, 1.9))
        assert same(got, again)
        assert not (got.lesion & ~brain).any()
        painted += bool(got.lesion.any())
        plain, plain_brain = head((96, 96), key % 4)
        here = paint(drawn, plain, plain_brain, spacing_mm=SPACING_MM).lesion.sum() * np.prod(SPACING_MM)
        assert got.lesion.sum() * 1.6 * 1.9 == pytest.approx(here, rel=0.5)
    assert painted == 12


@pytest.mark.parametrize("space", SPACE)
@pytest.mark.parametrize("diameter", [10.0, 24.0, 45.0])
def test_a_lesion_has_the_diameter_that_it_is_set_to(space: str, diameter: float) -> None:
    config = lesion.Config(several=0, softness_mm=(0, 0), contrast=(0.8, 0.8), core=0, mass_effect=0, bright=1)
    shape, spacing = SPACE[space]
    image, brain = head(shape, 1, 1)
    flat = np.where(brain, np.float32(-0.5), image)
    for key in range(4):
        drawn = described(space, key, lesion.Config(**config.model_dump() | {"bright": (1.0, 1.0, 1.0)}))
        drawn = drawn.model_copy(update={"fillings": drawn.fillings[:1]}).resized(diameter)
        got = paint(drawn, flat, brain, spacing_mm=spacing)
        size = np.pi / 4 * diameter**2 if brain.ndim == 2 else np.pi / 6 * diameter**3
        assert got.lesion.sum() == pytest.approx(size / np.prod(spacing), abs=1)


def test_resizing_keeps_the_proportions_of_the_foci() -> None:
    drawn = next(drawn for key in range(20) if len((drawn := described("plane", key)).foci) > 2)
    half = drawn.resized(drawn.largest.diameter_mm / 2)
    assert [focus.diameter_mm / 2 for focus in drawn.foci] == pytest.approx([f.diameter_mm for f in half.foci])
    assert half.model_copy(update={"foci": drawn.foci}) == drawn


def test_a_lesion_of_other_images_is_a_sentence() -> None:
    drawn = described("plane", 0)
    volume, inside = head((32, 32, 16), 0)
    with pytest.raises(ConfigError, match="lesion of other images: got 2 axes and 3 contrasts, expected 3 axes"):
        paint(drawn, volume, inside, spacing_mm=(3.0, 3.0, 6.0))
    image, brain = head((96, 96), 0)
    image[2] = image[1]  # the third contrast was absent where the lesion was drawn
    with pytest.raises(ConfigError, match=r"lesion without a look: got no filling for contrast \[2\]"):
        paint(drawn, image, brain, spacing_mm=SPACING_MM)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"foci": []}, "bad value for 'foci'"),
        ({"outline": 2.0}, "bad value for 'outline'"),
        ({"colour": 1}, "unknown key"),
    ],
)
def test_a_damaged_description_is_a_sentence(change: dict, sentence: str) -> None:
    content = json.loads(described("plane", 0).model_dump_json())
    with pytest.raises(ConfigError, match=sentence):
        checked(Lesion, content | change, "test")


@pytest.mark.parametrize("record", ["", "[1, 2]", '{"bit_generator": "MT19937"}', '{"bit_generator": "PCG64"}'])
def test_damaged_noise_is_a_sentence(record: str) -> None:
    with pytest.raises(ConfigError, match="damaged noise of a lesion"):
        replay(record)


def test_recording_noise_leaves_the_generator_where_drawing_it_does() -> None:
    for steps in ([9.0, 4.0], [0.5, 0.5], [3.0, 200.0]):
        left, right = rng.numpy_rng(1), rng.numpy_rng(1)
        record = record_fractal((40, 30), steps, 3, left)
        field = fractal((40, 30), steps, 3, 0.5, right)
        assert left.bit_generator.state == right.bit_generator.state
        np.testing.assert_array_equal(field, fractal((40, 30), steps, 3, 0.5, replay(record)))
