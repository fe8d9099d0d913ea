"""Volumes that are no scan are refused; scans spoilt in known ways are flagged for that, and clean scans are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import DataError
from hybriduad.scan.quality import Measure, case_measures, lie_measures, signal_measures
from hybriduad.scan.refusals import refuse_no_scan
from hybriduad.scan.volumes import read_mask, read_volume

SPACING_MM = (5.0, 5.0, 8.0)
WHERE = Path("sub-1_FLAIR.nii.gz")
Spoil = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def scan(tiny_cohort: Path) -> np.ndarray:
    return read_volume(read_cohort(tiny_cohort)[2].images["FLAIR"]).data


@pytest.fixture(scope="module")
def brain(tiny_cohort: Path) -> np.ndarray:
    return read_mask(read_cohort(tiny_cohort)[2].brain).data


def measured(data: np.ndarray, brain: np.ndarray) -> dict[str, Measure]:
    found = [*lie_measures(data, brain, SPACING_MM), *signal_measures(data, brain, SPACING_MM, "FLAIR")]
    return {measure.name: measure for measure in found}


def flags(data: np.ndarray, brain: np.ndarray) -> set[str]:
    return {name for name, measure in measured(data, brain).items() if measure.flagged}


def noisy(data: np.ndarray, share: float) -> np.ndarray:
    parts = np.random.default_rng(0).normal(0, share * np.median(data[data > data.mean()]), (2, *data.shape))
    return np.hypot(data + parts[0], parts[1]).astype(np.float32)


def test_clean_scans_of_both_contrasts_have_no_flag(tiny_cohort: Path) -> None:
    for case in read_cohort(tiny_cohort):
        found = case_measures(case, read_mask(case.brain), ("FLAIR", "T1w"))
        assert [measure.name for measure in found if measure.flagged] == []
        assert [measure.sentence.partition(" ")[0] for measure in found if measure.name == "noise"] == ["FLAIR", "T1w"]


SPOILT: dict[str, Spoil] = {
    "noise": lambda data, _: noisy(data, 0.2),
    "blur": lambda data, _: ndimage.gaussian_filter(data, (2.5, 2.5, 0)),
    "ghosting": lambda data, _: data + 0.25 * np.roll(data, data.shape[1] // 2, axis=1),
    "upside down": lambda data, _: data[:, :, ::-1],
    "back to front": lambda data, _: data[:, ::-1],
    "asymmetry": lambda data, brain: np.where(np.arange(len(data))[:, None, None] < len(data) // 3, 0, data),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_scan_is_flagged_for_what_was_done(name: str, scan: np.ndarray, brain: np.ndarray) -> None:
    same = {"upside down": brain[:, :, ::-1], "back to front": brain[:, ::-1]}.get(name, brain)
    data = np.ascontiguousarray(SPOILT[name](scan, brain), dtype=np.float32)
    assert name in flags(data, same)
    measure = measured(data, same)[name].to_json()
    assert set(measure) == {"name", "value", "limit", "sentence"}
    assert len(measure["sentence"]) > 20


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [False, True])
def test_a_scan_that_ends_within_the_head_is_flagged(axis: int, end: bool, scan: np.ndarray, brain: np.ndarray) -> None:
    half = scan.shape[axis] // 2
    part = tuple(slice(None) if k != axis else slice(half, None) if end else slice(half) for k in range(3))
    found = measured(np.ascontiguousarray(scan[part]), brain[part])["cropped"]
    assert found.flagged
    assert "ends within the head" in found.sentence


def test_the_noise_is_the_standard_deviation_over_the_median() -> None:
    """Immerkaer's estimate against the noise that was added to a flat brain."""
    brain = np.zeros((60, 60, 8), dtype=bool)
    brain[10:50, 10:50] = True
    flat = np.where(brain, 200.0, 0.0) + np.random.default_rng(1).normal(0, 12.0, brain.shape)
    found = {m.name: m for m in signal_measures(flat.astype(np.float32), brain, (1.0, 1.0, 5.0), "T1w")}
    assert found["noise"].value == pytest.approx(12 / 200, rel=0.05)
    assert found["noise"].sentence == "T1w is noisy: the noise is 6% of the brain's median"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: np.random.default_rng(0).normal(100, 20, d.shape), "nothing but noise in sub-1_FLAIR.nii.gz: got"),
        (lambda d: -d, "inverted intensities in sub-1_FLAIR.nii.gz: got"),
        (lambda d: d.max() - d, "inverted intensities in sub-1_FLAIR.nii.gz: got"),
        (lambda d: np.where(d > 50, d - np.median(d[d > 50]), 0), "negative intensities in sub-1_FLAIR.nii.gz: got"),
    ],
)
def test_what_is_no_scan_is_refused_in_a_sentence(spoil: Callable, said: str, scan: np.ndarray) -> None:
    refuse_no_scan(scan, WHERE)
    refuse_no_scan(noisy(scan, 0.3), WHERE)
    with pytest.raises(DataError) as error:
        refuse_no_scan(spoil(scan).astype(np.float32), WHERE)
    assert str(error.value).startswith(said)
    assert ", expected " in str(error.value)
    assert "; " in str(error.value)


def test_few_voxels_that_differ_are_no_noise() -> None:
    """What is wrong there is that no head is found."""
    few = np.zeros((40, 40, 40), dtype=np.float32)
    few[20, 20, 20] = 5
    refuse_no_scan(few, WHERE)
