"""A contrast in the place of another is told from its looks; a strange scan of the right one is not flagged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import ANATOMY, prepared_cases

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.types import Case
from hybriduad.detector.appearance import (
    FLAG,
    Appearance,
    appearance_of,
    beyond,
    case_traits,
    limits,
    training_traits,
)
from hybriduad.detector.loading import load_detector
from hybriduad.prediction.quality import with_quality
from hybriduad.scan.appearance import Traits, contrast_traits, kind_of, looks_like
from hybriduad.scan.preparation import Prepared, prepare

SPACING_MM = (2.5, 2.5, 6.0)
FLAIR, T1W, T2W = (1.05, 1.0, 0.2), (0.75, 1.0, 0.3), (1.15, 1.0, 2.0)
"""Cortex, white matter and fluid."""


def drawn(shades: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A ball of white matter with a rim of cortex around it, a central ventricle and fluid at the surface."""
    cortex, white, fluid = shades
    x, y = np.meshgrid(*[(np.arange(64) - 31.5) * SPACING_MM[0]] * 2, indexing="ij")
    radius = np.hypot(x, y)
    image = np.zeros((64, 64))
    for reach, shade in ((70, fluid), (66, cortex), (60, white), (8, fluid)):
        image[radius <= reach] = shade
    brain = np.repeat((radius <= 70)[..., None], 20, axis=-1)
    signal = np.repeat(image[..., None], 20, axis=-1) / 2.5 * 2 - 1
    return np.clip(signal, -1, 1).astype(np.float32), brain


@pytest.mark.parametrize(("shades", "kind"), [(FLAIR, "FLAIR"), (T1W, "T1w"), (T2W, "T2w or PDw")])
def test_a_drawn_brain_looks_like_its_contrast(shades: tuple[float, float, float], kind: str) -> None:
    image, brain = drawn(shades)
    seen = contrast_traits(image, brain, brain, SPACING_MM, "axial")
    assert seen is not None
    assert looks_like(seen) == kind
    if kind != "T2w or PDw":
        assert seen.fluid == pytest.approx(shades[2], abs=0.02)
    brighter = contrast_traits(np.where(brain, (image + 1) * 0.6 - 1, -1), brain, brain, SPACING_MM, "axial")
    assert brighter == pytest.approx(seen, abs=1e-3)
    sagittal = contrast_traits(*(np.moveaxis(part, 2, 0) for part in (image, brain, brain)), SPACING_MM[::-1], "other")
    assert sagittal is not None


def test_little_brain_shows_nothing() -> None:
    image, brain = drawn(FLAIR)
    nothing = np.zeros_like(brain)
    assert contrast_traits(image, brain, nothing, SPACING_MM, "axial") is None
    assert contrast_traits(image, nothing, brain, SPACING_MM, "axial") is None
    assert contrast_traits(np.full_like(image, -1), brain, brain, SPACING_MM, "axial") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [("T1wCE", "T1w"), ("T1w", "T1w"), ("T2-FLAIR", "FLAIR"), ("PDw", "T2w or PDw"), ("T2w", "T2w or PDw")]
    + [(name, None) for name in ("T2starw", "T1map", "SWI", "ADC")],
)
def test_a_name_tells_its_kind_or_none(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def test_limits_leave_one_in_twenty_beyond_each() -> None:
    rng = np.random.default_rng(0)
    beyond = np.mean([rng.normal() > limits(rng.normal(size=8))[1] for _ in range(4000)])
    assert beyond == pytest.approx(0.05, abs=0.012)
    values = rng.normal(size=12)
    low, high = limits(values)
    assert (low + high) / 2 == pytest.approx(values.mean())
    expected = stats.t.interval(0.9, 11, values.mean(), values.std(ddof=1) * np.sqrt(13 / 12))
    assert (low, high) == pytest.approx(expected)


def test_the_trait_farthest_outside_is_named() -> None:
    training = np.array([[1.0, 0.3], [1.04, 0.2], [1.08, 0.4], [1.02, 0.3], [1.06, 0.25]])
    assert beyond("FLAIR", "T1w", Traits(1.04, 0.3), training) is None
    measure = beyond("FLAIR", "T1w", Traits(0.8, 0.5), training)
    assert measure is not None
    assert measure.flagged
    assert measure.limit == pytest.approx(limits(training[:, 0])[0])
    assert measure.sentence.startswith("FLAIR looks like T1w: tissue beside fluid is 0.80 as bright")
    bright = beyond("FLAIR", "T2w or PDw", Traits(1.05, 0.9), training)
    assert bright is not None
    assert (bright.value, bright.below) == (0.9, False)
    assert bright.flagged


def shown(prepared: Prepared, shades: tuple[float, float, float]) -> Prepared:
    """A case whose brain is a drawn one."""
    image, brain = drawn(shades)
    return replace(prepared, image=image[None], valid=brain[None], brain=brain, spacing_mm=SPACING_MM)


def test_a_scan_unlike_its_name_is_flagged_and_a_strange_one_of_the_right_kind_is_not(tiny_cohort: Path) -> None:
    case = prepare(read_cohort(tiny_cohort)[2], ANATOMY)
    training = [shown(case, (1.05 + 0.004 * k, 1.0, 0.2)) for k in range(5)]
    kept = training_traits(training, ["FLAIR"])
    assert kept["traits_FLAIR"].shape == (5, 2)
    assert training_traits(training[:4], ["FLAIR"]) == {}
    known = appearance_of({name: torch.from_numpy(values) for name, values in kept.items()})
    assert known is not None
    [flag] = known.measures(shown(case, T1W), ["FLAIR"])
    assert flag.name == FLAG
    assert "looks like T1w" in flag.sentence
    assert known.measures(shown(case, (1.3, 1.0, 0.4)), ["FLAIR"]) == []
    assert known.measures(shown(case, T1W), ["T1w"]) == []
    assert appearance_of({"feature_mean": torch.zeros(3)}) is None


def test_phantoms_look_like_their_contrast(tiny_cohort: Path) -> None:
    swapped = [replace(case, images={"FLAIR": case.images["T1w"]}) for case in read_cohort(tiny_cohort)]
    for right, case in zip(prepared_cases(tiny_cohort), swapped, strict=True):
        traits = [case_traits(prepared, 0) for prepared in (right, prepare(case, ANATOMY))]
        assert traits[0] is not None
        assert traits[1] is not None
        assert traits[0].cortex > traits[1].cortex


def test_the_record_flags_it_and_bundles_of_before_say_nothing(
    tiny_detector: Path, tiny_cohort: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case: Case = read_cohort(tiny_cohort)[2]
    detector = load_detector(tiny_detector, "cpu")
    prepared = prepare(case, ANATOMY)
    detector.appearance = None
    assert detector.predict_volume(prepared).notes["appearance"] == []
    seen = case_traits(prepared, 0)
    assert seen is not None
    name = "FLAIR" if looks_like(seen) == "T1w" else "T1w"
    detector.appearance = Appearance({name: np.tile(np.array(seen), (5, 1)) + 0.01 * np.eye(5, 2) + 1})
    detector.anatomy = detector.anatomy.model_copy(update={"contrasts": (name,)})
    other = replace(case, images={name: case.images["FLAIR"]})
    prediction = detector.predict_volume(prepare(other, detector.anatomy))
    flags = prediction.notes["appearance"]
    noted = with_quality(replace(prediction, brain=prepared.scan_brain, grid=prepared.grid.volume), other, (name,))
    assert "appearance" not in noted.notes
    named = [flag["name"] for flag in noted.notes["quality"]["flags"]]
    assert FLAG in named
    assert [flag["name"] for flag in flags] == [FLAG]
