"""The detector: one pure function of bundle and scan, in its three kinds."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ANATOMY, cropped, generators, prepared_cases

from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.runs import Anatomy, Fusion, Residual
from hybriduad.config.runs import Segmenter as SegmenterConfig
from hybriduad.core import plugins
from hybriduad.core.errors import BundleError, ConfigError, DataError
from hybriduad.core.types import Prediction
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import Thresholds
from hybriduad.networks.baselines import asymmetry_map, departure_map, intensity_map, opposite_map
from hybriduad.networks.scoring import fuse, median_filter_volume
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import FeatureReconstructor
from hybriduad.scan.preparation import Prepared, prepare
from hybriduad.scan.slices import enough_brain, slices_of

BY_SLICE = ("score", "probability", "map", "uncertainty", "reconstruction", "intensity")
PARTS = (*BY_SLICE, "asymmetry")
"""The plane of the asymmetry is that of the whole volume."""


@pytest.fixture(scope="module")
def prepared(tiny_cohort: Path) -> list[Prepared]:
    return prepared_cases(tiny_cohort)


@pytest.fixture(scope="module")
def detector(tiny_detector: Path) -> Detector:
    return load_detector(tiny_detector, device="cpu")


@pytest.fixture(scope="module")
def image_only() -> Detector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        config = SegmenterConfig(inputs=("image",), decoder_channels=(16,) * 5)
        return Detector(anatomy=ANATOMY, direction="axial", segmenter=Segmenter(config, 1))


def unmirrored(detector: Detector) -> Detector:
    plain = copy.copy(detector)
    plain.mirror = False
    return plain


def assert_close(first: Prediction, second: Prediction, tolerance: float = 1e-4) -> None:
    for part in PARTS:
        a, b = getattr(first, part), getattr(second, part)
        assert (a is None) == (b is None), part
        if a is not None:
            np.testing.assert_allclose(a, b, atol=tolerance, rtol=0, err_msg=part)


def test_slices_alone_and_in_any_batch_agree(detector: Detector, prepared: list[Prepared]) -> None:
    """Published mistake: a scan's result depends on its batch-mates."""
    before = generators()
    whole = detector.predict_volume(prepared[0], batch=16)
    assert generators() == before
    for batch in (1, 7):
        assert_close(detector.predict_volume(prepared[0], batch=batch), whole)
    assert_close(detector.predict_volume(prepared[0], batch=16), whole, tolerance=0)


def test_a_prediction_has_its_shapes_and_ranges(detector: Detector, prepared: list[Prepared]) -> None:
    case = prepared[0]
    prediction = detector.predict_volume(case)
    for part in ("score", "probability", "map", "uncertainty", "intensity", "asymmetry"):
        values = getattr(prediction, part)
        assert (values.shape, values.dtype) == (case.brain.shape, np.float32), part
        assert values.min() >= 0
        assert values.max() <= 1
        assert not values[~case.brain].any(), part
        assert values[case.brain].any(), part
    np.testing.assert_array_equal(prediction.brain, case.brain)
    assert prediction.notes["direction"] == "axial"


@pytest.mark.parametrize(("direction", "lateral"), [("axial", 0), ("coronal", 0), ("sagittal", 2)])
def test_the_asymmetry_is_that_of_left_and_right(
    direction: str, lateral: int, detector: Detector, prepared: list[Prepared]
) -> None:
    parts = {name: getattr(detector, name) for name in ("anatomy", "reconstructor", "segmenter", "residual", "seed")}
    case = prepared[0]
    judged = case.brain & enough_brain(case.brain, case.spacing_mm)
    expected = asymmetry_map(case.image, case.valid, judged, case.spacing_mm, ("FLAIR",), lateral)
    found = Detector(**parts, direction=direction).predict_volume(case).asymmetry
    np.testing.assert_array_equal(found, expected)


def test_a_few_sagittal_slices_have_no_asymmetry(detector: Detector, prepared: list[Prepared]) -> None:
    parts = {name: getattr(detector, name) for name in ("anatomy", "reconstructor", "segmenter", "residual", "seed")}
    brain = prepared[0].brain.copy()
    brain[..., :8] = brain[..., 11:] = False
    few = replace(prepared[0], brain=brain)
    assert Detector(**parts, direction="sagittal").predict_volume(few).asymmetry is None
    assert Detector(**parts, direction="axial").predict_volume(few).asymmetry.any()


def test_the_reconstruction_equals_the_image_outside_the_brain(detector: Detector, prepared: list[Prepared]) -> None:
    case, reconstruction = prepared[0], detector.predict_volume(prepared[0]).reconstruction
    assert reconstruction is not None
    assert reconstruction.shape == case.image.shape
    assert np.abs(reconstruction).max() <= 1
    np.testing.assert_array_equal(reconstruction[:, ~case.brain], case.image[:, ~case.brain])
    assert np.abs(reconstruction - case.image)[:, case.brain].mean() > 0.01


def test_the_probability_is_the_mean_over_the_reconstructions(detector: Detector, prepared: list[Prepared]) -> None:
    batch = slices_of(prepared[0], [8, 9, 10], detector.seed)
    maps = unmirrored(detector).slice_maps(batch)
    with torch.inference_mode():
        members = detector.reconstructor.reconstruct(batch.image, batch.brain, batch.keys)
        probabilities = [detector.segmenter(batch.image, member).sigmoid() * batch.brain for member in members]
    assert len(members) == 2
    torch.testing.assert_close(maps.probability, (probabilities[0] + probabilities[1]) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.reconstruction, (members[0] + members[1]) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.uncertainty, (probabilities[0] - probabilities[1]).abs() / 2, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fixture", ["tiny_detector", "tiny_reconstructor"])
def test_a_mirrored_slice_has_the_mirrored_maps(
    fixture: str, request: pytest.FixtureRequest, prepared: list[Prepared]
) -> None:
    detector = load_detector(request.getfixturevalue(fixture), device="cpu")
    assert detector.mirror  # as its config says
    batch = slices_of(prepared[0], [8, 9, 10], detector.seed)
    maps, mirrored = detector.slice_maps(batch), detector.slice_maps(batch.mirrored())
    for name in ("map", "probability", "reconstruction", "uncertainty"):
        if (here := getattr(maps, name)) is not None:
            torch.testing.assert_close(getattr(mirrored, name).flip(-2), here, atol=1e-5, rtol=0)
    alone = unmirrored(detector).slice_maps(batch)
    assert (alone.map - maps.map).abs().max() > 1e-3  # so it is not the networks that are symmetric


def test_sagittal_slices_are_judged_as_they_are_alone(detector: Detector, prepared: list[Prepared]) -> None:
    parts = {name: getattr(detector, name) for name in ("anatomy", "reconstructor", "segmenter", "residual", "seed")}
    batch = slices_of(prepared[0], [8, 9, 10], detector.seed)
    for direction in ("sagittal", "coronal"):
        asked, alone = (Detector(**parts, direction=direction, mirror=mirror) for mirror in (True, False))
        same = torch.equal(asked.slice_maps(batch).map, alone.slice_maps(batch).map)
        assert same == (direction == "sagittal")


@pytest.mark.parametrize("distance_mm", [8.0, 2.0])  # on the second grid the median filter reaches across slices
def test_slices_with_too_little_brain_are_not_judged(
    detector: Detector, prepared: list[Prepared], distance_mm: float
) -> None:
    case = replace(prepared[0], spacing_mm=(*prepared[0].spacing_mm[:2], distance_mm))
    brain, area_mm2 = case.brain.copy(), float(np.prod(case.spacing_mm[:2]))
    before = detector.predict_volume(case)
    places = np.argwhere(brain[..., 10])
    brain[..., 10] = False
    brain[(*places[: int(1400 / area_mm2)].T, 10)] = True
    prediction = detector.predict_volume(replace(case, brain=brain))
    assert before.score[..., 10].any()
    for part in ("score", "map", "probability"):
        assert not getattr(prediction, part)[..., 10].any(), part
    assert prediction.notes["slices_not_judged"] == before.notes["slices_not_judged"] + 1


def test_a_brain_that_vanished_on_the_model_grid(detector: Detector, prepared: list[Prepared]) -> None:
    empty = replace(prepared[0], brain=np.zeros_like(prepared[0].brain))
    with pytest.raises(DataError, match="no slice with enough brain"):
        detector.predict_volume(empty)


class TestThreeKinds:
    def test_reconstructor_and_segmenter(self, detector: Detector, prepared: list[Prepared]) -> None:
        prediction = detector.predict_volume(prepared[0])
        fused = fuse(prediction.map, prediction.probability, detector.fusion.form, detector.fusion.weight)
        np.testing.assert_array_equal(prediction.score, fused)

    def test_baselines_and_a_floor_in_the_fusion(self, detector: Detector, prepared: list[Prepared]) -> None:
        changed = copy.copy(detector)
        changed.fusion = Fusion(form="product", weight=0.5, floor=0.05, intensity=1.0, asymmetry=0.5, smooth_mm=8.0)
        changed.residual = detector.residual.model_copy(update={"median_mm": 5.5})
        case = prepared[0]
        prediction, before = changed.predict_volume(case), detector.predict_volume(case)
        judged = case.brain & enough_brain(case.brain, case.spacing_mm)
        sharp = intensity_map(case.image, case.valid, judged, case.spacing_mm, detector.anatomy.contrasts, 5.5)
        assert prediction.map is not None
        assert prediction.probability is not None
        assert prediction.asymmetry is not None
        sided = (0.05 + 0.95 * prediction.asymmetry) ** 0.5
        expected = prediction.map**0.5 * (0.05 + 0.95 * prediction.probability) * sharp * sided
        np.testing.assert_allclose(prediction.score, expected, rtol=1e-5, atol=1e-7)
        assert (prediction.score > 0).any()
        np.testing.assert_array_equal(prediction.intensity, before.intensity)  # the row keeps the baselines' filter
        nowhere = np.zeros_like(expected)
        none = changed.fuse(prediction.map, prediction.probability, sharp, None)
        zero = changed.fuse(prediction.map, prediction.probability, sharp, nowhere)
        np.testing.assert_array_equal(none, zero)

    def test_tissue_on_the_other_side_of_healthy_counts(self, detector: Detector, prepared: list[Prepared]) -> None:
        changed = copy.copy(detector)
        changed.fusion = Fusion(form="product", intensity=1.0, opposite=4.0)
        case = prepared[0]
        prediction = changed.predict_volume(case)
        volume = (case.valid, case.brain & enough_brain(case.brain, case.spacing_mm), case.spacing_mm)
        volume = (*volume, detector.anatomy.contrasts)
        assert prediction.reconstruction is not None
        plain = intensity_map(case.image, *volume, 0.0)
        departure = opposite_map(case.image, prediction.reconstruction, *volume, detector.residual.median_mm)
        assert (4 * departure > 0.05).any()
        witness = 1 - (1 - plain) * (1 - np.minimum(4 * departure, 1))
        assert prediction.map is not None
        assert prediction.probability is not None
        expected = prediction.map * prediction.probability * witness
        np.testing.assert_allclose(prediction.score, expected, rtol=1e-4, atol=1e-7)
        without = changed.intensity_witness(case.image, *volume[:3], None, 7.0)
        np.testing.assert_array_equal(without, plain)
        changed.fusion = changed.fusion.model_copy(update={"departure": 0.25})
        step = departure_map(case.image, *volume[:2], detector.anatomy.contrasts, 0.25)
        witness = 1 - (1 - step) * (1 - np.minimum(4 * departure, 1))
        expected = prediction.map * prediction.probability * witness
        np.testing.assert_allclose(changed.predict_volume(case).score, expected, rtol=1e-4, atol=1e-7)

    def test_outside_the_judged_brain_a_floor_is_no_score(self, detector: Detector, prepared: list[Prepared]) -> None:
        changed = copy.copy(detector)
        changed.fusion = Fusion(form="product", weight=0.0, floor=0.05)
        prediction = changed.predict_volume(prepared[0])
        assert prediction.score is not None
        assert (prediction.score > 0).any()
        assert not prediction.score[~prediction.brain].any()

    def test_smoothing_is_bounded_in_slices(self, detector: Detector, prepared: list[Prepared]) -> None:
        def probability(**smoothing: float) -> np.ndarray:
            changed = copy.copy(detector)
            changed.fusion = Fusion(**smoothing)
            return np.asarray(changed.predict_volume(prepared[0]).probability)

        slice_mm = prepared[0].spacing_mm[2]
        bounded = probability(smooth_mm=100.0, smooth_slices=1.5)
        np.testing.assert_array_equal(bounded, probability(smooth_mm=1.5 * slice_mm))
        assert np.abs(bounded - probability(smooth_mm=100.0)).max() > 1e-3

    def test_reconstructor_alone(self, tiny_reconstructor: Path, prepared: list[Prepared]) -> None:
        prediction = load_detector(tiny_reconstructor, device="cpu").predict_volume(prepared[0])
        assert prediction.probability is None
        np.testing.assert_array_equal(prediction.score, prediction.map)

    def test_segmenter_of_the_image_alone(self, image_only: Detector, prepared: list[Prepared]) -> None:
        prediction = image_only.predict_volume(prepared[0])
        assert prediction.map is None
        mirrored = copy.copy(image_only)
        mirrored.mirror = True
        assert mirrored.predict_volume(prepared[0]).uncertainty is None
        assert prediction.uncertainty is None  # one image, one probability: nothing to differ
        assert prediction.reconstruction is None
        np.testing.assert_array_equal(prediction.score, prediction.probability)

    def test_a_reconstructor_beside_a_segmenter_of_the_image_alone(
        self, detector: Detector, image_only: Detector, prepared: list[Prepared]
    ) -> None:
        both = Detector(
            anatomy=ANATOMY,
            direction="axial",
            reconstructor=detector.reconstructor,
            segmenter=image_only.segmenter,
            residual=detector.residual,
            fusion=Fusion(form="product", weight=0.5),
        )
        prediction = both.predict_volume(prepared[0])
        unmirrored_maps, image_maps = (
            model.predict_volume(prepared[0]) for model in (unmirrored(detector), image_only)
        )
        np.testing.assert_allclose(prediction.map, unmirrored_maps.map, atol=1e-4)
        np.testing.assert_allclose(prediction.probability, image_maps.probability, atol=1e-4)
        np.testing.assert_allclose(prediction.score, prediction.map**0.5 * prediction.probability, atol=1e-6)

    def test_nothing_to_detect_with(self, detector: Detector) -> None:
        with pytest.raises(BundleError, match="without a reconstructor"):
            Detector(anatomy=ANATOMY, direction="axial")
        with pytest.raises(BundleError, match="without a reconstructor"):
            Detector(anatomy=ANATOMY, direction="axial", segmenter=detector.segmenter)


class TestThresholds:
    def test_a_mask_needs_a_calibration(self, tiny_reconstructor: Path, prepared: list[Prepared]) -> None:
        prediction = load_detector(tiny_reconstructor, device="cpu").predict_volume(prepared[0])
        assert prediction.mask is None
        assert prediction.threshold is None

    def test_the_mask_is_the_score_at_the_threshold_of_the_rule(
        self, detector: Detector, prepared: list[Prepared]
    ) -> None:
        score = detector.predict_volume(prepared[0]).score
        middle = float(np.median(score[prepared[0].brain]))
        values = {"best-dice": {"score": middle}, "strict": {"score": 1.1}, "map-only": {"map": 0.2}}
        calibrated = copy.copy(detector)
        calibrated.thresholds = Thresholds(values, "best-dice")
        prediction = calibrated.predict_volume(prepared[0])
        np.testing.assert_array_equal(prediction.mask, (prediction.score >= middle) & prediction.brain)
        assert prediction.threshold == middle
        assert 0 < prediction.mask.sum() < prediction.brain.sum()
        assert not calibrated.predict_volume(prepared[0], rule="strict").mask.any()
        assert calibrated.predict_volume(prepared[0], rule="map-only").mask is None
        with pytest.raises(ConfigError, match=r"uncalibrated rule.*'false-positives'.*best-dice"):
            calibrated.predict_volume(prepared[0], rule="false-positives")

    def test_a_threshold_of_0_masks_no_background(self, detector: Detector, prepared: list[Prepared]) -> None:
        calibrated = Detector(
            anatomy=ANATOMY,
            direction="axial",
            reconstructor=detector.reconstructor,
            thresholds=Thresholds({"all": {"score": 0.0}}, "all"),
        )
        np.testing.assert_array_equal(calibrated.predict_volume(prepared[0]).mask, prepared[0].brain)


class TestNeverRescaledPerScan:
    """Published mistake: min-max scaling of a volume's scores, after which no threshold can be calibrated."""

    @staticmethod
    def altered(case: Prepared, index: int) -> Prepared:
        image = np.array(case.image)
        image[..., index] = np.where(case.brain[..., index], 1.0, image[..., index])
        return replace(case, image=image)

    def test_another_slice_changes_nothing(self, detector: Detector, prepared: list[Prepared]) -> None:
        thick = replace(prepared[0], spacing_mm=(*prepared[0].spacing_mm[:2], 12.0))  # more than the median's window
        before = detector.predict_volume(thick)
        after = detector.predict_volume(self.altered(thick, 10))
        elsewhere = [k for k in range(prepared[0].brain.shape[2]) if k != 10]
        for part in BY_SLICE:
            first, second = getattr(before, part), getattr(after, part)
            np.testing.assert_allclose(first[..., elsewhere], second[..., elsewhere], atol=1e-4, err_msg=part)
            assert np.abs(first[..., 10] - second[..., 10]).max() > 1e-3, part

    def test_the_median_filter_reaches_two_fine_slices(self, detector: Detector, prepared: list[Prepared]) -> None:
        fine = replace(prepared[0], spacing_mm=(2.3, 2.3, 2.3))
        before, after = (detector.predict_volume(case).map for case in (fine, self.altered(fine, 10)))
        changed = np.flatnonzero(np.abs(before - after).max(axis=(0, 1)) > 1e-4)
        assert 10 in changed
        assert set(changed) <= {8, 9, 10, 11, 12}

    def test_the_score_of_a_slice_alone_is_that_in_its_scan(self, detector: Detector, prepared: list[Prepared]) -> None:
        thick = replace(prepared[0], spacing_mm=(*prepared[0].spacing_mm[:2], 12.0))
        brain = np.zeros_like(thick.brain)
        brain[..., 9] = thick.brain[..., 9]
        alone = detector.predict_volume(replace(thick, brain=brain))
        whole = detector.predict_volume(thick)
        np.testing.assert_allclose(alone.score[..., 9], whole.score[..., 9], atol=1e-4)
        assert not alone.score[..., :9].any()


def test_the_map_is_filtered_by_the_configured_median(detector: Detector, prepared: list[Prepared]) -> None:
    fine = replace(prepared[0], spacing_mm=(2.0, 2.0, 8.0))

    def map_with(length_mm: float) -> Any:
        residual = Residual(kind="absolute", median_mm=length_mm)
        filtering = Detector(
            anatomy=ANATOMY,
            direction="axial",
            reconstructor=detector.reconstructor,
            residual=residual,
            seed=detector.seed,
        )
        return filtering.predict_volume(fine).map

    raw = map_with(0.0)
    filtered = map_with(9.0)
    np.testing.assert_allclose(filtered, median_filter_volume(raw, fine.spacing_mm, fine.brain, 9.0), atol=1e-4)
    assert np.abs(filtered - raw).max() > 0.01


def test_where_a_contrast_does_not_reach_the_scores_are_those_of_the_other_alone(
    tiny_cohort: Path, tmp_path: Path
) -> None:
    """Once its missing voxels were black tissue, which the reconstruction filled and the map called abnormal."""
    both, end = Anatomy(contrasts=("FLAIR", "T1w"), size=32), 11
    config = plugins.load("reconstructors", "ddpm").Config(
        name="ddpm", widths=(16, 16), blocks=1, unshuffle=2, levels=(250, 500)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = plugins.load("reconstructors", "ddpm").Model(config, 2, 32)
        segmenter = Segmenter(SegmenterConfig(decoder_channels=(16,) * 5), 2)
    case = read_cohort(tiny_cohort)[0]
    short = cropped(case.images["T1w"], end, tmp_path / "short.nii.gz")
    whole, part, alone = (
        prepare(replace(case, images={"FLAIR": case.images["FLAIR"], **more}), both)
        for more in ({"T1w": case.images["T1w"]}, {"T1w": short}, {})
    )
    assert part.valid[1][part.brain].mean() == pytest.approx(1 - part.notes["lacking"]["T1w"], abs=0.02)
    detector = Detector(anatomy=both, direction="axial", reconstructor=model, segmenter=segmenter)
    for residual in (Residual(), Residual(kind="absolute", median_mm=0.0)):
        detector.residual = residual
        predictions = [detector.predict_volume(case) for case in (whole, part, alone)]
        # In the upper half alike but for the slice at the edge, which the median filter reaches.
        for name in BY_SLICE:
            values = [getattr(prediction, name)[..., end + 1 :] for prediction in predictions]
            np.testing.assert_allclose(values[1], values[2], atol=1e-4, err_msg=name)
            assert np.abs(values[0] - values[2]).max() > 0.01, name
            lower = [getattr(prediction, name)[..., : end - 1] for prediction in predictions]
            assert np.abs(lower[1] - lower[2]).max() > 0.01, name
    assert predictions[1].notes["absent_contrasts"] == []
    unseen = replace(part, valid=np.stack([part.valid[1]] * 2))  # neither covers the upper half
    prediction = detector.predict_volume(unseen)
    for name in ("score", "probability", "map", "intensity", "asymmetry"):
        assert not getattr(prediction, name)[..., end:].any(), name


def test_networks_are_frozen_in_evaluation_mode(detector: Detector) -> None:
    for network in (detector.reconstructor, detector.segmenter):
        assert not any(part.training for part in network.modules())
        assert not any(weight.requires_grad for weight in network.parameters())


class TestPrecisionAndDevice:
    def test_bfloat16_stays_close_to_float32(self, detector: Detector, prepared: list[Prepared]) -> None:
        """Within the contract between precisions, 2e-2, and Dice of masks at the median, where most voxels are."""
        bounds = {"score": 0.01, "probability": 0.02, "map": 0.015}
        detector = unmirrored(detector)
        rough = copy.copy(detector)
        rough.precision = "bfloat16"
        for case in prepared[:2]:
            exact, rounded = detector.predict_volume(case), rough.predict_volume(case)
            for part, bound in bounds.items():
                exact_values, rough_values = getattr(exact, part), getattr(rounded, part)
                assert rough_values.dtype == np.float32
                difference = np.abs(exact_values - rough_values)[case.brain]
                assert difference.max() > 1e-4, part  # it did compute in bfloat16
                assert np.quantile(difference, 0.999) < bound, part
                assert difference.max() < 1.5 * bound, part  # of a network of a few steps, which processors round apart
                assert bound < 0.3 * exact_values[case.brain].std(), "a bound that any two maps keep says nothing"
            middle = np.median(exact.score[case.brain])
            first, second = ((prediction.score >= middle) & case.brain for prediction in (exact, rounded))
            assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.98

    @pytest.mark.parametrize("family", plugins.names("reconstructors"))
    def test_every_tensor_of_every_network_follows_the_device(self, family: str, tiny_detector: Path) -> None:
        loaded = load_detector(tiny_detector, device="cpu")
        plugin, reconstructor = plugins.load("reconstructors", family), loaded.reconstructor
        if not isinstance(reconstructor, plugin.Model):
            reconstructor = plugin.Model(plugin.Config(name=family), 1, ANATOMY.size)
        segmenter = loaded.segmenter
        if isinstance(reconstructor, FeatureReconstructor):
            segmenter = Segmenter(SegmenterConfig(inputs=("image",)), 1)
        moved = Detector(
            anatomy=ANATOMY, direction="axial", reconstructor=reconstructor, segmenter=segmenter, device="meta"
        )
        networks = [value for value in vars(moved).values() if isinstance(value, torch.nn.Module)]
        assert networks == [moved.reconstructor, moved.segmenter]
        for network in networks:
            assert {value.device.type for value in network.state_dict(keep_vars=True).values()} == {"meta"}
            assert {value.device.type for value in network.buffers()} <= {"meta"}  # those that are not saved, too
            # A tensor that is no parameter and no buffer would stay behind.
            stray = [
                f"{name}.{key}"
                for name, module in network.named_modules()
                for key, value in vars(module).items()
                if key not in ("_parameters", "_buffers", "_modules")
                and any(isinstance(item, torch.Tensor | torch.nn.Module) for item in _held(value))
            ]
            assert stray == []


def _held(value: Any) -> list[Any]:
    """An attribute and what it holds, one level deep."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [value, *inside, *getattr(value, "__dict__", {}).values()]
