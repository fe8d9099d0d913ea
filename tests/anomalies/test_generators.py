"""What each generator that states its extent does, beyond the contract that all keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from heads import SPACING_MM, head
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from hybriduad.anomalies import (
    atrophy_cavity,
    coarse_noise,
    foreign_patch,
    intensity_bias,
    poisson,
    smooth_intensity,
    texture_swap,
    warp,
)
from hybriduad.anomalies._base import VISIBLE_CHANGE, Donor
from hybriduad.anomalies._foreign import foreign_tissue
from hybriduad.anomalies._region import Region, draw_region
from hybriduad.config.strict import AnomalyConfig, checked
from hybriduad.core import plugins, rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption

SHAPE = (96, 96)


def disc(radius: float = 40.0) -> np.ndarray:
    """A round brain (96, 96)."""
    across, down = np.indices(SHAPE) - 47.5
    return np.hypot(across, down) < radius


def corrupted(module: Any, config: AnomalyConfig, image: np.ndarray, brain: np.ndarray, key: int) -> Corruption:
    drawn: Corruption = module.corrupt(config, image, brain, rng.numpy_rng(5, key), spacing_mm=SPACING_MM)
    return drawn


class TestRegion:
    @pytest.mark.parametrize("form", ["box", "ellipsoid", "blob"])
    @pytest.mark.parametrize("diameter", [12.0, 40.0])
    def test_has_the_size_in_millimetres_and_lies_in_the_brain(self, form: Any, diameter: float) -> None:
        brain = disc()
        for key in range(6):
            drawn = draw_region(
                brain,
                rng.numpy_rng(key),
                SPACING_MM,
                diameter_mm=(diameter, diameter),
                softness_mm=(0, 4),
                forms=[form],
            )
            area = np.count_nonzero(drawn.extent) * np.prod(SPACING_MM)
            assert area == pytest.approx(np.pi / 4 * diameter**2, rel=0.35)
            assert drawn.weight.max() == 1
            assert not drawn.weight[~brain].any()

    def test_a_small_brain_is_not_covered(self) -> None:
        drawn = draw_region(disc(8), rng.numpy_rng(0), SPACING_MM, diameter_mm=(80, 80))
        assert drawn.extent.sum() < 0.5 * disc(8).sum()


class TestWarp:
    def test_the_extent_is_what_moved_though_it_looks_as_before(self) -> None:
        brain = disc()
        image = np.where(brain, np.float32(0.1), np.float32(-1))[None]
        config = warp.Config(radius_mm=(30, 30), strength=(0.8, 0.8))
        assert not corrupted(warp, config, image, brain, 0).lesion.any()  # nothing shows at all
        image[:, brain & (np.indices(SHAPE)[0] % 12 < 3)] = 0.5  # stripes
        got = corrupted(warp, config, image, brain, 0)
        visible = np.abs(got.image - image)[0] > VISIBLE_CHANGE
        assert got.lesion.sum() > 1.5 * visible[got.lesion].sum() > 0
        filled = ndimage.binary_fill_holes(got.lesion)
        assert np.array_equal(filled, got.lesion)
        assert got.lesion.sum() * np.prod(SPACING_MM) < np.pi * 30**2
        assert np.isin(got.image[0][brain & ~visible], (np.float32(0.1), np.float32(0.5))).mean() > 0.95

    @pytest.mark.parametrize(("sink", "sign"), [(1.0, -1), (0.0, 1)])
    def test_a_sink_makes_things_smaller_and_a_source_larger(self, sink: float, sign: int) -> None:
        brain, ball = disc(20), disc(4)
        image = np.where(brain, np.float32(-0.2), np.float32(-1))[None]
        image[:, ball] = 0.6
        config = warp.Config(radius_mm=(45, 45), strength=(0.8, 0.8), sink=sink)
        gained = []
        for key in range(250):
            got = corrupted(warp, config, image, brain, key)
            middle = ndimage.center_of_mass(got.lesion) if got.lesion.any() else (0, 0)
            if np.hypot(middle[0] - 47.5, middle[1] - 47.5) < 5:  # the ball lies in the middle of what moves
                gained.append(int((got.image[0] > 0.2).sum() - ball.sum()))
        assert len(gained) >= 5
        assert sign * np.mean(gained) > 5

    def test_a_strength_that_would_fold_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"strength.*at most 0\.9"):
            checked(warp.Config, {"name": "warp", "strength": [0.5, 1.5]}, "test")


class TestForeignTissue:
    REGION = Region(disc(5).astype(np.float32), np.array([48, 48]), 22.0)

    def test_a_donor_is_scaled_by_its_spacing_and_lies_centre_on_centre(self) -> None:
        brain, ball = disc(40), disc(10)
        image = np.where(brain, np.float32(0), np.float32(-1))[None]
        donor_image = np.where(disc(20), np.where(disc(5), np.float32(0.5), np.float32(0)), np.float32(-1))[None]
        donor = Donor(donor_image, disc(20), np.zeros(SHAPE, bool), (4.4, 4.4))
        asked = []

        def donors(generator: np.random.Generator, *, labelled: bool) -> Donor:
            asked.append(labelled)
            return donor

        got = foreign_tissue(
            image,
            brain,
            self.REGION,
            rng.numpy_rng(0),
            spacing_mm=SPACING_MM,
            donors=donors,
            same_scan=0.0,
            shift_mm=0.0,
        )
        assert got is not None
        assert asked == [False]
        assert (got[0] > 0.25).sum() == pytest.approx(ball.sum(), rel=0.1)
        assert got.min() > -0.5  # its brain ends earlier, and is carried on

    def test_a_donor_without_a_contrast_or_without_brain_gives_nothing(self) -> None:
        image, brain = head(SHAPE, 0, 2)
        half = image.copy()
        half[1] = -1
        for donor in (Donor(half, brain, ~brain & brain, SPACING_MM), Donor(image, ~brain & brain, brain, SPACING_MM)):
            got = foreign_tissue(
                image,
                brain,
                self.REGION,
                rng.numpy_rng(0),
                spacing_mm=SPACING_MM,
                donors=lambda _, *, labelled, donor=donor: donor,
                same_scan=0.0,
                shift_mm=5.0,
            )
            assert got is None

    @pytest.mark.parametrize("module", [foreign_patch, poisson, texture_swap])
    def test_without_donors_the_tissue_is_of_the_same_scan(self, module: Any) -> None:
        draws = []
        for key in range(12):
            image, brain = head(SHAPE, key % 4)
            draws.append(corrupted(module, module.Config(), image, brain, key).lesion.any())
        assert np.mean(draws) >= 0.75


def test_a_foreign_patch_is_a_mixture_by_its_visibility() -> None:
    image, brain = head(SHAPE, 0)
    other = np.where(image == -1, -1, np.float32(0.3)).astype(np.float32)
    donor = Donor(other, brain, np.zeros(SHAPE, bool), SPACING_MM)
    for key in range(6):
        got = foreign_patch.corrupt(
            foreign_patch.Config(same_scan=0),
            image,
            brain,
            rng.numpy_rng(key),
            spacing_mm=SPACING_MM,
            donors=lambda _, *, labelled: donor,
        )
        opacity = got.visibility[got.lesion].max()
        assert 0.2 <= opacity <= 1
        mixture = (1 - opacity) * image[:2] + opacity * np.float32(0.3)
        np.testing.assert_allclose(got.image[:2, got.lesion], mixture[:, got.lesion], atol=1e-5)


class TestPoisson:
    def test_an_offset_of_the_foreign_tissue_vanishes(self) -> None:
        image, _ = head(SHAPE, 1, 2)
        got = poisson.interpolated(image, image + np.float32(0.4), disc(12), 1.0, SPACING_MM)
        np.testing.assert_allclose(got, image, atol=1e-3)

    def test_flat_tissue_gives_the_membrane_of_a_direct_solution(self) -> None:
        image, _ = head((24, 24), 2, 1)
        extent = np.zeros((24, 24), bool)
        extent[8:17, 6:15] = True
        got = poisson.interpolated(image, np.zeros_like(image), extent, 1.0, (2.0, 1.0))
        places = [tuple(place) for place in np.argwhere(extent)]
        matrix, right = np.zeros((len(places), len(places))), np.zeros(len(places))
        for row, (i, j) in enumerate(places):
            for there, weight in (((i - 1, j), 0.25), ((i + 1, j), 0.25), ((i, j - 1), 1.0), ((i, j + 1), 1.0)):
                matrix[row, row] += weight
                if there in places:
                    matrix[row, places.index(there)] -= weight
                else:
                    right[row] += weight * image[0][there]
        np.testing.assert_allclose(got[0][extent], spsolve(sparse.csr_matrix(matrix), right), atol=1e-3)
        np.testing.assert_array_equal(got[0][~extent], image[0][~extent])

    def test_the_larger_gradient_wins(self) -> None:
        image, _ = head(SHAPE, 1, 1)
        kept = poisson.interpolated(image, np.zeros_like(image), disc(12), 1e-6, SPACING_MM)
        np.testing.assert_allclose(kept, image, atol=1e-3)


class TestIntensityBias:
    def test_clusters_are_the_tissues(self) -> None:
        draw = rng.numpy_rng(0)
        levels = np.array([[-0.8, 0.0, 0.5], [0.6, 0.1, -0.3]])
        truth = np.repeat(np.arange(3), 32)[:, None] * np.ones(96, int)
        image = (levels[:, truth] + 0.03 * draw.standard_normal((2, *SHAPE))).astype(np.float32)
        assert np.array_equal(intensity_bias.clusters(image, np.ones(SHAPE, bool), 3), truth)
        assert not intensity_bias.clusters(np.zeros((1, *SHAPE), np.float32), disc(), 3).any()  # one tissue

    def test_every_tissue_is_shifted_by_its_own_amount_to_one_side(self) -> None:
        config = intensity_bias.Config(softness_mm=(0, 0), diameter_mm=(50, 50), bias=(0.3, 0.3), most_tissues=2)
        for key in range(12):
            brain = disc()
            image = np.where(brain, np.where(np.indices(SHAPE)[1] // 6 % 2, 0.2, -0.2), -1).astype(np.float32)[None]
            got = corrupted(intensity_bias, config, image, brain, key)
            inner = ndimage.binary_erosion(got.lesion, iterations=2)
            shifts = [(got.image - image)[0][inner & (image[0] == np.float32(tissue))] for tissue in (0.2, -0.2)]
            means = [float(shift.mean()) for shift in shifts]
            assert max(float(shift.std()) for shift in shifts) < 1e-5
            assert max(map(abs, means)) == pytest.approx(0.3, abs=1e-4)
            assert means[0] * means[1] > 0


def test_a_smooth_change_is_strongest_in_the_middle_and_keeps_detail() -> None:
    for key in range(12):
        brain = disc()
        noise = 0.05 * rng.numpy_rng(key).standard_normal(SHAPE)
        image = np.where(brain, noise, -1).astype(np.float32)[None]
        config = smooth_intensity.Config(diameter_mm=(50, 50), amplitude=(0.5, 0.5), variation=0)
        got = corrupted(smooth_intensity, config, image, brain, key)
        change = (got.image - image)[0]
        assert not got.ignore.any()
        assert abs(change[got.lesion]).max() == pytest.approx(0.5, abs=1e-3)
        assert np.abs(np.sign(change[got.lesion]).sum()) >= 0.9 * got.lesion.sum()  # to one side
        rim = got.lesion & ~ndimage.binary_erosion(got.lesion | ~brain)
        assert abs(change[rim]).max() < 0.15
        assert np.abs(np.diff(np.where(brain, change, np.nan), axis=0))[brain[1:] & brain[:-1]].max() < 0.2


def test_coarse_noise_is_the_same_in_every_contrast_and_coarse() -> None:
    config = coarse_noise.Config(diameter_mm=(60, 60), sigma=(0.2, 0.2), cell_mm=(12, 12))
    both_sides = 0
    for key in range(12):
        brain = disc()
        image = np.where(brain, np.float32(0), np.float32(-1))[None].repeat(2, 0)
        got = corrupted(coarse_noise, config, image, brain, key)
        inner = ndimage.binary_erosion(got.lesion, iterations=3)
        first, second = (got.image - image)[:, inner]
        assert abs(np.corrcoef(first, second)[0, 1]) > 0.99
        both_sides += first.min() < -0.05 and first.max() > 0.05
        steps = np.abs(np.diff(np.where(inner, got.image[0], np.nan), axis=0))
        assert np.nanmean(steps) < 0.5 * first.std()
    assert both_sides >= 8


def test_swapped_texture_keeps_the_brightness() -> None:
    config = texture_swap.Config(diameter_mm=(50, 50), strength=(0.2, 0.2), softness_mm=(0, 0))
    for key in range(12):
        image, brain = head(SHAPE, key % 4, 1)
        got = corrupted(texture_swap, config, image, brain, key)
        change = (got.image - image)[0]
        assert got.lesion.any()
        assert abs(change[got.lesion].mean()) < 0.12
        assert change[got.lesion].std() > 0.08


class TestAtrophyAndCavity:
    def fluid(self, image: np.ndarray, brain: np.ndarray) -> np.ndarray:
        """Where the crude head has its ventricles."""
        return brain & (image[0] < -0.6)

    @pytest.mark.parametrize("cavity", [0.0, 1.0])
    def test_what_is_gone_looks_like_fluid_on_every_contrast(self, cavity: float) -> None:
        config = atrophy_cavity.Config(cavity=cavity, softness_mm=(0, 0), diameter_mm=(30, 60), widening_mm=(8, 14))
        drawn = 0
        for key in range(12):
            image, brain = head(SHAPE, key % 4)
            got = corrupted(atrophy_cavity, config, image, brain, key)
            core = ndimage.binary_erosion(got.lesion | self.fluid(image, brain), iterations=2) & got.lesion
            drawn += bool(got.lesion.any())
            assert not (got.lesion & self.fluid(image, brain)).any()
            if core.any():
                np.testing.assert_allclose(got.image[:2, core].mean(axis=1), [-0.8, -0.7], atol=0.15)
        assert drawn >= 10

    def test_atrophy_lies_beside_fluid_or_the_border(self) -> None:
        config = atrophy_cavity.Config(cavity=0.0, widening_mm=(4, 8))
        for key in range(12):
            image, brain = head(SHAPE, key % 4)
            got = corrupted(atrophy_cavity, config, image, brain, key)
            distance = ndimage.distance_transform_edt(brain & ~self.fluid(image, brain), sampling=SPACING_MM)
            assert not got.lesion.any() or distance[got.lesion].max() <= 2 * 8 + 4

    def test_fluid_may_be_the_brightest(self) -> None:
        image, brain = head(SHAPE, 0, 1)
        bright = np.where(brain, -image, image)
        for key in range(8):
            got = corrupted(atrophy_cavity, atrophy_cavity.Config(cavity=1, bright_fluid=True), bright, brain, key)
            change = (got.image - bright)[0]
            assert change[got.lesion].mean() > 0.3

    def test_fluid_is_bright_where_the_names_of_the_contrasts_say_so(self) -> None:
        config = atrophy_cavity.Config()
        for dark in ("FLAIR", "T1w", "T1wCE"):
            assert atrophy_cavity.for_contrasts(config, (dark,)) == config
        for bright in ("T2w", "PDw", "T2starw"):
            assert atrophy_cavity.for_contrasts(config, ("FLAIR", bright)).bright_fluid == (False, True)
        stated = atrophy_cavity.Config(bright_fluid=(False,))
        assert atrophy_cavity.for_contrasts(stated, ("T2w",)) == stated

    def test_another_number_of_contrasts_is_refused(self) -> None:
        image, brain = head(SHAPE, 0)
        config = atrophy_cavity.Config(bright_fluid=(True, False))
        with pytest.raises(ConfigError, match=r"atrophy-cavity\.bright_fluid.*got 2.*each of 3 contrasts"):
            corrupted(atrophy_cavity, config, image, brain, 0)


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("warp", "radius_mm", [20, 10], "lowest <= highest"),
        ("poisson", "opacity", [0, 1], "greater than 0"),
        ("foreign-patch", "opacity", [0.5, 1.5], "less than or equal to 1"),
        ("intensity-bias", "forms", [], "at least 1 item"),
        ("coarse-noise", "softness_mm", [-1, 1], "greater than or equal to 0"),
    ],
)
def test_bad_intervals_are_refused(name: str, key: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.*{said}"):
        checked(plugins.load("anomalies", name).Config, {"name": name, key: value}, "test")
