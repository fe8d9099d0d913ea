"""What a lesion is like, on shapes of known size, contrast and place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hybriduad.evaluation.trait_table import trait_markdown, trait_row
from hybriduad.evaluation.traits import Traits, measure

SPACING_MM = (2.0, 1.0)
SHAPE = (60, 120)


def disc(x_mm: float, y_mm: float, radius_mm: float) -> np.ndarray:
    """A disc around a point, from the middle of the slice."""
    across, down = ((np.indices(SHAPE).T - (29.5, 59.5)) * SPACING_MM).T
    return np.hypot(across - x_mm, down - y_mm) < radius_mm


def slice_with(lesion: np.ndarray, level: float = 0.5, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    brain = disc(0, 0, 50)
    image = np.where(brain, noise * np.random.default_rng(0).standard_normal(SHAPE), -1).astype(np.float32)
    image[lesion] = level
    return image, brain


def measured(lesion: np.ndarray, ignore: np.ndarray | None = None, *, sided: bool = True, **more: float) -> Traits:
    image, brain = slice_with(lesion, **more)
    nothing = np.zeros(SHAPE, bool)
    return measure(image, lesion, nothing if ignore is None else ignore, brain, SPACING_MM, height=0.25, sided=sided)


def test_size_contrast_and_place_of_a_disc() -> None:
    traits = measured(disc(-20, 10, 10))
    assert traits.area_cm2 == pytest.approx(math.pi, rel=0.03)
    assert traits.diameter_mm == pytest.approx(20, rel=0.02)
    assert traits.contrast == pytest.approx(0.5, abs=0.02)
    assert traits.contrast_sd == pytest.approx(5, rel=0.05)
    assert traits.edge_mm == pytest.approx(50 - math.hypot(20, 10), abs=2)
    assert (traits.parts, traits.height, traits.left) == (1, 0.25, 1.0)
    assert math.isnan(traits.change)
    assert math.isnan(traits.visibility)


def test_parts_dark_lesions_sides_and_what_is_ignored() -> None:
    two = disc(-20, 0, 6) | disc(20, 0, 12)
    traits = measured(two, level=-0.4)
    assert traits.parts == 2
    assert traits.diameter_mm == pytest.approx(24, rel=0.03)  # of the larger
    assert traits.contrast == pytest.approx(-0.4, abs=0.03)
    assert traits.left == pytest.approx(1 / 5, abs=0.02)  # by area
    assert math.isnan(measured(two, sided=False).left)
    inner = disc(20, 0, 6)
    rim = disc(20, 0, 10) & ~inner
    image, brain = slice_with(disc(20, 0, 10))
    assert measure(image, inner, rim, brain, SPACING_MM, height=0, sided=True).contrast > 0.45
    assert measure(image, inner, np.zeros(SHAPE, bool), brain, SPACING_MM, height=0, sided=True).contrast < 0.45


def test_a_lesion_that_fills_the_brain_has_no_contrast() -> None:
    traits = measured(disc(0, 0, 50))
    assert math.isnan(traits.contrast)
    assert math.isnan(traits.contrast_sd)


def row_of(*areas: float, real: tuple[float, ...] = (), slices: int = 4) -> dict:
    def some(area: float) -> Traits:
        return Traits(area, area, 1, area - 2.5, area, 5.0, 0.5, 0.0 if area < 3 else 0.5)

    return trait_row("x", [some(area) for area in areas], slices, [some(area) for area in real])


def test_a_row_holds_quartiles_shares_and_the_distance_from_real_lesions() -> None:
    row = row_of(1, 2, 3, real=(1, 2, 3), slices=4)
    assert row["with_lesion"] == 0.75
    assert (row["area_cm2"], row["area_cm2_q25"], row["area_cm2_q75"]) == (2, 1.5, 2.5)
    assert row["brighter"] == pytest.approx(1 / 3)
    assert (row["right"], row["both_sides"], row["left"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3), 0)
    assert row["ks_area_cm2"] == 0
    assert row_of(1, 2, real=(3, 4))["ks_area_cm2"] == 1
    assert row_of(1, 2, 3, 4, real=(3, 4))["ks_area_cm2"] == 0.5
    assert math.isnan(row_of(1, 2)["ks_area_cm2"])
    empty = row_of(real=(1, 2))
    assert empty["with_lesion"] == 0
    assert math.isnan(empty["area_cm2"])


def test_markdown_names_distances_only_beside_real_lesions() -> None:
    alone, beside = trait_markdown([row_of(1, 2)], ["note"]), trait_markdown([row_of(1, 2, real=(1, 2))], ["note"])
    assert "| x | 50% of 4 | 1.5 [1.2, 1.8] |" in alone
    assert "KS" not in alone
    assert "KS area in cm²" in beside
    assert "note" in beside
