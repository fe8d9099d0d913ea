"""The way back of one case: from the model grid to the brain of the scan itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny import ANATOMY

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case, Prediction
from hybriduad.detector.bundle import Bundle
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.prediction.case import on_scan_grid, predict_case
from hybriduad.prediction.case_detector import load_detector as load_case_detector
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.preparation import Prepared, prepare, restore
from hybriduad.scan.slices import enough_brain


@pytest.fixture(scope="module")
def case(tiny_cohort: Path) -> Case:
    return read_cohort(tiny_cohort)[0]


@pytest.fixture(scope="module")
def detector(tiny_detector: Path) -> Detector:
    return load_detector(tiny_detector, "cpu")


def judged(prepared: Prepared) -> np.ndarray:
    return np.array(prepared.brain & enough_brain(prepared.brain, prepared.spacing_mm))


def returned(values: np.ndarray, prepared: Prepared, case: Case, detector: Detector) -> Prediction:
    """A score on the model grid, brought back."""
    prediction = Prediction(np.array(prepared.brain), score=values.astype(np.float32), notes=dict(prepared.notes))
    return on_scan_grid(prediction, prepared, case, detector)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("cached", [False, True])
def test_the_brain_is_the_given_mask_whatever_the_model_grid(
    size: int, cached: bool, case: Case, detector: Detector, tmp_path: Path
) -> None:
    anatomy = ANATOMY.model_copy(update={"size": size})
    prepared = PreparedCache(tmp_path).get(case, anatomy) if cached else prepare(case, anatomy)
    given = np.asarray(nib.load(case.brain).dataobj) > 0
    prediction = returned(0.5 * judged(prepared), prepared, case, detector)
    np.testing.assert_array_equal(prediction.brain, given)
    copied = restore(prepared.brain, prepared.grid, order=0)
    assert size == 48 or (copied != given).any(), "what the coarser of the models makes of it is another"


def test_an_estimated_brain_is_the_same_for_every_model_grid(case: Case) -> None:
    bare = replace(case, brain=None)
    small, large = (prepare(bare, ANATOMY.model_copy(update={"size": size})) for size in (32, 48))
    assert small.scan_brain.any()
    np.testing.assert_array_equal(small.scan_brain, large.scan_brain)


def test_a_map_keeps_its_value_up_to_the_rim_of_the_brain(case: Case, detector: Detector) -> None:
    """No value is lost to the background beside it, and none is 0 where the model's brain ends too early."""
    prepared = prepare(case, ANATOMY)
    inside = judged(prepared)
    prediction = returned(0.8 * inside, prepared, case, detector)
    slices = inside.any(axis=(0, 1))
    assert slices.any()
    assert not slices.all()
    there = prediction.brain & slices
    np.testing.assert_allclose(prediction.score[there], 0.8, atol=1e-6)
    assert not prediction.score[~there].any(), "neither outside the brain nor in slices that were not judged"
    plain = restore((0.8 * inside).astype(np.float32), prepared.grid, order=1)
    assert (plain[there] < 0.75).mean() > 0.05, "what interpolation alone would have lost"


def test_what_lies_deep_in_the_brain_is_interpolated_as_ever(case: Case, detector: Detector) -> None:
    prepared = prepare(case, ANATOMY)
    values = np.random.default_rng(0).random(prepared.brain.shape).astype(np.float32) * judged(prepared)
    prediction = returned(values, prepared, case, detector)
    whole = restore((judged(prepared)).astype(np.float32), prepared.grid, order=1) > 0.999
    deep = prediction.brain & whole
    assert deep.sum() > 500
    np.testing.assert_allclose(prediction.score[deep], restore(values, prepared.grid, order=1)[deep], atol=1e-5)


def test_a_cached_case_gives_the_same_prediction(case: Case, detector: Detector, tmp_path: Path) -> None:
    plain, cached = predict_case(detector, case), predict_case(detector, case, cache=PreparedCache(tmp_path))
    for part in ("score", "brain", "mask"):
        np.testing.assert_array_equal(getattr(plain, part), getattr(cached, part))
    assert plain.brain.flags.writeable


def test_a_case_without_a_contrast_that_the_bundle_needs_is_refused(
    case: Case, tiny_detector: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "needed", property(lambda _: ("FLAIR", "T1w")))
    strict = load_case_detector(tiny_detector, "cpu")
    assert load_detector(tiny_detector, "cpu").needed == strict.needed == ("FLAIR", "T1w")
    alone = replace(case, images={"FLAIR": case.images["FLAIR"]})
    with pytest.raises(DataError) as caught:
        strict.predict(alone)
    assert str(caught.value) == (
        "contrast that the bundle needs in sub-01: got ['FLAIR'] without T1w, expected ['FLAIR']; add that scan, or "
        "use a bundle that was fitted with contrast dropout (augmentation.absent above 0)."
    )
    assert strict.predict(case).score is not None


@pytest.mark.parametrize("codes", ["LPS", "ARS", "SLA", "IPL"])
@pytest.mark.parametrize("given", [True, False])
def test_a_scan_stored_in_another_orientation_has_the_same_lesions(
    codes: str, given: bool, case: Case, detector: Detector, tmp_path: Path
) -> None:
    """Axes permuted and flipped in storage, with the affine that says so: the same mask and scores, bit by bit."""

    def turned(path: Path) -> Path:
        image = nib.load(path)
        change = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
        )
        nib.save(image.as_reoriented(change), tmp_path / path.name)
        return tmp_path / path.name

    plain = replace(case, images={"FLAIR": case.images["FLAIR"]}, brain=case.brain if given else None)
    brain = turned(case.brain) if given else None
    expected = predict_case(detector, plain)
    found = predict_case(detector, replace(plain, images={"FLAIR": turned(case.images["FLAIR"])}, brain=brain))
    assert found.mask is not None
    assert expected.mask.any()
    back = nib.orientations.ornt_transform(
        np.array(found.grid.orientation, dtype=float), np.array(expected.grid.orientation, dtype=float)
    )
    for part in ("brain", "mask", "score"):
        values = nib.orientations.apply_orientation(getattr(found, part), back)
        np.testing.assert_array_equal(values, getattr(expected, part))
