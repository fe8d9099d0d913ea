"""What contrasts share of an anomaly, and that with a single contrast nothing is other than it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from heads import SPACING_MM, head

from hybriduad.anomalies._looks import TurningConfig
from hybriduad.core import plugins, rng
from hybriduad.core.contrasts import LOOKS
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption

TURNING = ("coarse-noise", "intensity-bias", "perlin", "smooth-intensity")
BEFORE: dict[tuple[str, tuple[int, ...], int], tuple[int, float, float]] = {
    ("intensity-bias", (96, 96), 0): (29, 27.705, 0.610191),
    ("intensity-bias", (96, 96), 1): (47, 11.557, 0.203780),
    ("intensity-bias", (40, 48, 14), 0): (64, 45.591, 0.168894),
    ("smooth-intensity", (96, 96), 0): (81, -26.002, 0.734846),
    ("smooth-intensity", (96, 96), 1): (117, -40.354, 0.160532),
    ("smooth-intensity", (40, 48, 14), 0): (298, -95.697, 0.073538),
    ("coarse-noise", (96, 96), 0): (75, -38.360, 0.429627),
    ("coarse-noise", (96, 96), 1): (104, -27.199, 0.408836),
    ("coarse-noise", (40, 48, 14), 0): (263, 162.887, 0.038431),
    ("perlin", (96, 96), 0): (94, -0.640, 0.559064),
    ("perlin", (96, 96), 1): (120, 32.525, 0.707483),
    ("perlin", (40, 48, 14), 0): (17, -1.700, 0.098940),
}
"""Generator, shape and key -> what it painted before contrasts shared anything: voxels of the lesion, sum of the
change, and the number that it would draw next."""


@pytest.mark.parametrize(("name", "shape", "key"), BEFORE)
def test_one_contrast_is_painted_as_before(name: str, shape: tuple[int, ...], key: int) -> None:
    """Samples of a seed, and so the keys and results of trainings, stay what they were."""
    module = plugins.load("anomalies", name)
    image, brain = head(shape, 0, 1)
    draws = rng.numpy_rng(5, key)
    config = module.for_contrasts(module.Config(name=name), ("T1w",))
    got = module.corrupt(config, image, brain, draws, spacing_mm=(*SPACING_MM, 4.0)[: len(shape)])
    voxels, change, following = BEFORE[name, shape, key]
    assert np.count_nonzero(got.lesion) == voxels
    assert float((got.image - image).sum()) == pytest.approx(change, abs=2e-3)
    assert draws.random() == pytest.approx(following, abs=1e-6)


def pair() -> tuple[np.ndarray, np.ndarray]:
    """A head whose second contrast is the first one turned around the middle grey, and its brain."""
    image, brain = head((96, 96), 0, 1)
    image = np.where(brain, 0.4 * image, image)  # with room on both sides
    return np.concatenate([image, np.where(image == -1, -1, -image)]).astype(np.float32), brain


def changes(name: str, contrasts: tuple[str, str], key: int) -> tuple[np.ndarray, Corruption]:
    """Of every contrast the change (2, lesion voxels), and the corruption."""
    module = plugins.load("anomalies", name)
    image, brain = pair()
    config = module.for_contrasts(module.Config(name=name), contrasts)
    got = module.corrupt(config, image, brain, rng.numpy_rng(3, key), spacing_mm=SPACING_MM)
    return (got.image - image)[:, got.lesion], got


@pytest.mark.parametrize("contrasts", [("FLAIR", "T1w"), ("T1w", "FLAIR"), ("FLAIR", "T2w"), ("T1w", "T2starw")])
@pytest.mark.parametrize("name", ["coarse-noise", "intensity-bias", "smooth-intensity"])
def test_contrasts_change_together_as_lesions_do_between_them(name: str, contrasts: tuple[str, str]) -> None:
    alike = LOOKS[contrasts[0]].bright_lesions == LOOKS[contrasts[1]].bright_lesions
    sides, gains = [], []
    for key in range(24):
        (first, second), got = changes(name, contrasts, key)
        if not got.lesion.any():
            continue
        correlation = float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))
        assert correlation * (1 if alike else -1) > 0.9
        sides.append(first.mean() > 0)
        gains.append(np.abs(second).mean() / np.abs(first).mean())
    assert len(sides) >= 16
    assert 0.1 < np.mean(sides) < 0.9
    assert np.std(np.log(gains)) > 0.1  # each by a size of its own


@pytest.mark.parametrize("contrasts", [("FLAIR", "T1w"), ("T1w", "FLAIR")])
def test_a_perlin_texture_is_the_same_dark_for_bright(contrasts: tuple[str, str]) -> None:
    """The second contrast is the first turned around, and so is its texture: so is the result."""
    for key in range(12):
        _, got = changes("perlin", contrasts, key)
        inside = got.image[:, got.lesion]
        np.testing.assert_allclose(inside[1], -inside[0], atol=1e-6)
    _, alike = changes("perlin", ("FLAIR", "T2w"), 0)
    opposed = changes("perlin", ("FLAIR", "T1w"), 0)[1]
    both = alike.lesion & opposed.lesion
    np.testing.assert_array_equal(alike.image[0, both], opposed.image[0, both])
    assert np.abs(alike.image[1] - opposed.image[1])[both].max() > 0.1


@pytest.mark.parametrize("name", TURNING)
def test_a_contrast_that_is_absent_does_not_decide(name: str) -> None:
    module = plugins.load("anomalies", name)
    image, brain = pair()
    alone = image.copy()
    alone[0] = -1
    config = module.for_contrasts(module.Config(name=name), ("FLAIR", "T1w"))
    for key in range(6):
        got = module.corrupt(config, alone, brain, rng.numpy_rng(3, key), spacing_mm=SPACING_MM)
        assert (got.image[0] == -1).all()
        assert got.lesion.any()


@pytest.mark.parametrize("bright", [0.0, 1.0])
@pytest.mark.parametrize("name", ["intensity-bias", "smooth-intensity"])
def test_bright_is_said_of_contrasts_on_which_lesions_are_bright(name: str, bright: float) -> None:
    module = plugins.load("anomalies", name)
    image, brain = pair()
    faint = {"bias" if name == "intensity-bias" else "amplitude": (0.2, 0.3)}
    for contrasts in itertools.permutations(("FLAIR", "T1w")):
        config = module.for_contrasts(module.Config(name=name, bright=bright, **faint), contrasts)
        got = module.corrupt(config, image, brain, rng.numpy_rng(3, 1), spacing_mm=SPACING_MM)
        change = (got.image - image)[contrasts.index("FLAIR"), got.lesion].mean()
        assert (change > 0) == bool(bright)


@pytest.mark.parametrize("name", TURNING)
def test_names_resolve_what_is_inverted_and_a_config_without_names_is_what_it_was(name: str) -> None:
    module = plugins.load("anomalies", name)
    config: TurningConfig = module.Config(name=name)
    assert "inverted" not in config.model_dump()
    assert module.for_contrasts(config, ("T1w", "T2starw")) == config
    assert module.for_contrasts(config, ("FLAIR", "T1w", "T2w")).inverted == (False, True, False)
    stated = module.Config(name=name, inverted=(False, False))
    assert module.for_contrasts(stated, ("FLAIR", "T1w")) == stated
    image, brain = head((96, 96), 0)
    with pytest.raises(ConfigError, match=rf"{name}\.inverted: got 2, expected .*3 contrasts"):
        module.corrupt(stated, image, brain, rng.numpy_rng(0), spacing_mm=SPACING_MM)
