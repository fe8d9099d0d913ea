"""The realistic lesion generator: sizes in millimetres, signs, borders, mass effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from heads import SPACING_MM, head
from scipy import ndimage

from hybriduad.anomalies import lesion, perlin
from hybriduad.config.strict import checked
from hybriduad.core import rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption


def plain_lesion(**keys: Any) -> lesion.Config:
    """One round, hard, flat focus of 30 mm; ``keys`` override."""
    flat: dict[str, Any] = dict(median_mm=30, ln_sigma=0, several=0, roughness=(0, 0), follow_tissue=0)
    flat |= dict(softness_mm=(0, 0), texture=(0, 0), core=0, mass_effect=0)
    return lesion.Config(**(flat | keys))


def draw_lesion(config: lesion.Config, key: int, contrasts: int = 1) -> tuple[np.ndarray, Corruption]:
    image, brain = head((96, 96), key % 4, contrasts)
    return image, lesion.corrupt(config, image, brain, rng.numpy_rng(3, key), spacing_mm=SPACING_MM)


@pytest.mark.parametrize("diameter", [6.0, 30.0, 60.0])
def test_lesion_has_the_area_in_millimetres_that_was_asked_for(diameter: float) -> None:
    config = plain_lesion(median_mm=diameter, roughness=(0.1, 0.6), follow_tissue=0.7, contrast=(0.5, 0.5))
    lesions = [draw_lesion(config, key)[1].lesion for key in range(16)]
    area = np.mean([mask.sum() for mask in lesions]) * np.prod(SPACING_MM)
    assert area == pytest.approx(np.pi / 4 * diameter**2, rel=0.35)


def test_lesion_spacing_decides_its_size_in_voxels() -> None:
    image, brain = head((96, 96), 0, 1)
    fine, coarse = (
        lesion.corrupt(plain_lesion(), image, brain, rng.numpy_rng(1), spacing_mm=(mm, mm)).lesion.sum()
        for mm in (2.0, 4.0)
    )
    assert fine / coarse == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize(("share", "sign"), [(1.0, 1), (0.0, -1)])
def test_lesion_is_brighter_or_darker_as_asked(share: float, sign: int) -> None:
    for key in range(16):
        image, got = draw_lesion(plain_lesion(bright=share, contrast=(0.2, 0.2)), key)
        if got.lesion.any():
            assert sign * (got.image - image)[0][got.lesion].mean() > 0.05


def test_a_cavity_is_as_dark_as_fluid_behind_a_bright_rim() -> None:
    cavities = 0
    for key in range(24):
        image, brain = head((96, 96), key % 4, 1)
        config = plain_lesion(median_mm=50, bright=1.0, contrast=(0.4, 0.4), core=1.0, cavity=1.0)
        got = lesion.corrupt(config, image, brain, rng.numpy_rng(5, key), spacing_mm=SPACING_MM)
        dark = got.lesion & (got.image[0] <= np.percentile(image[0][brain], 20)) & (got.image[0] < image[0] - 0.1)
        bright = got.lesion & (got.image[0] > image[0] + 0.1)
        solid = lesion.corrupt(
            config.model_copy(update={"core": 0.0}), image, brain, rng.numpy_rng(5, key), spacing_mm=SPACING_MM
        )
        assert solid.image[0][solid.lesion].min() >= image[0][solid.lesion].min()
        if dark.sum() > 20 and bright.sum() > 20:
            cavities += 1
            depth = ndimage.distance_transform_edt(got.lesion)
            assert depth[dark].mean() > depth[bright].mean()
    assert cavities >= 12


def test_lesion_signs_are_set_per_contrast() -> None:
    config = plain_lesion(bright=(1.0, 0.0, 1.0), contrast=(0.2, 0.2))
    for key in range(8):
        image, got = draw_lesion(config, key, 3)
        change = (got.image - image)[:2, got.lesion].mean(axis=1)
        assert change[0] > 0.05 > -0.05 > change[1]


class TestNamedContrasts:
    def test_one_share_is_of_the_contrasts_with_bright_lesions_and_the_others_are_inverted(self) -> None:
        both = ("FLAIR", "T1w")
        for share in (0.9, 0.5):
            config = lesion.for_contrasts(plain_lesion(bright=share, contrast=(0.2, 0.2)), both)
            bright = [drawn_signs(config, key) for key in range(200)]
            assert all(flair != t1w for flair, t1w in bright)
            assert np.mean([flair for flair, _ in bright]) == pytest.approx(share, abs=0.1)
        assert lesion.for_contrasts(config, both) == config

    def test_listed_shares_keep_what_they_say_and_agree(self) -> None:
        config = lesion.for_contrasts(plain_lesion(bright=(0.7, 0.3)), ("FLAIR", "T1w"))
        bright = [drawn_signs(config, key) for key in range(200)]
        assert all(flair != t1w for flair, t1w in bright)  # 30 % were bright on both, and 30 % dark
        assert np.mean([flair for flair, _ in bright]) == pytest.approx(0.7, abs=0.1)
        with pytest.raises(ConfigError, match=r"lesion\.bright: got 3, expected .*2 contrasts"):
            lesion.for_contrasts(plain_lesion(bright=(0.7, 0.3, 0.1)), ("FLAIR", "T1w"))

    @pytest.mark.parametrize("names", [("FLAIR",), ("T1w",), ("FLAIR", "T1wCE")])
    def test_where_lesions_look_alike_on_all_nothing_changes(self, names: tuple[str, ...]) -> None:
        assert lesion.for_contrasts(lesion.Config(bright=0.1), names) == lesion.Config(bright=0.1)

    def test_the_dump_of_a_config_without_names_is_what_it_was(self) -> None:
        assert not {"inverted", "bright_fluid"} & set(lesion.Config().model_dump())
        resolved = lesion.for_contrasts(lesion.Config(), ("T2w", "T1w"))
        assert resolved.model_dump()["inverted"] == (False, True)
        assert checked(lesion.Config, resolved.model_dump(), "test") == resolved

    def test_a_cavity_is_as_bright_as_fluid(self) -> None:
        image, brain = head((96, 96), 0, 1)
        t2w = np.where(brain, -image, image)
        config = plain_lesion(median_mm=50, bright=0.0, contrast=(0.4, 0.4), core=1.0, cavity=1.0)
        named = lesion.for_contrasts(config, ("T2w",))
        shares = []
        for key in range(12):
            drawn = {
                name: lesion.corrupt(one, t2w, brain, rng.numpy_rng(5, key), spacing_mm=SPACING_MM)
                for name, one in (("plain", config), ("named", named))
            }
            fluid = {name: (got.image[0] > np.percentile(t2w[0][brain], 80)) for name, got in drawn.items()}
            new = {name: fluid[name] & got.lesion & (got.image[0] > t2w[0] + 0.1) for name, got in drawn.items()}
            assert not new["plain"].any()
            shares.append(new["named"].sum())
        assert np.mean(np.array(shares) > 20) > 0.5


def drawn_signs(config: lesion.Config, key: int) -> list[bool]:
    """Whether the lesion of a key is bright, on each of two contrasts."""
    _, brain = head((96, 96), 0, 2)
    drawn = lesion.draw(config, np.array([True, True]), brain, rng.numpy_rng(3, key), spacing_mm=SPACING_MM)
    return [filling.bright for filling in drawn.fillings if filling is not None]


def test_lesion_refuses_a_wrong_number_of_shares() -> None:
    with pytest.raises(ConfigError, match=r"bright.*got 2.*3 contrasts"):
        draw_lesion(plain_lesion(bright=(0.8, 0.1)), 0, 3)


@pytest.mark.parametrize("keys", [{"diameter_mm": (5, 3)}, {"contrast": (0.01, 0.9)}, {"diameter_mm": (0, 3)}])
def test_lesion_refuses_bad_ranges(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        checked(lesion.Config, {"name": "lesion", **keys}, "test")


def test_mass_effect_moves_tissue_and_marks_it_ignored() -> None:
    still = [draw_lesion(plain_lesion(), key)[1] for key in range(8)]
    pushed = [draw_lesion(plain_lesion(mass_effect=1), key)[1] for key in range(8)]
    assert sum(got.ignore.sum() for got in pushed) > 3 * sum(got.ignore.sum() for got in still)


def test_soft_borders_are_softer() -> None:
    def steepest(config: lesion.Config) -> float:
        slopes = []
        for key in range(8):
            image, got = draw_lesion(config, key)
            slopes.append(np.abs(np.diff((got.image - image)[0], axis=0)).max())
        return float(np.mean(slopes))

    contrast = (0.3, 0.3)
    hard = steepest(plain_lesion(contrast=contrast))
    soft = steepest(plain_lesion(contrast=contrast, softness_mm=(12, 12)))
    assert soft < 0.75 * hard


def test_perlin_refuses_an_opacity_of_zero() -> None:
    with pytest.raises(ConfigError, match="opacity"):
        checked(perlin.Config, {"name": "perlin", "opacity": (0, 1)}, "test")
