"""The detector: one pure function of bundle and scan, in its three kinds."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ANATOMY, generators, prepared_cases

from hybriduad.config.runs import Fusion, Residual
from hybriduad.config.runs import Segmenter as SegmenterConfig
from hybriduad.core import plugins
from hybriduad.core.errors import BundleError, ConfigError, DataError
from hybriduad.core.types import Prediction
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import Thresholds
from hybriduad.networks.scoring import fuse, median_filter_volume
from hybriduad.networks.segmenter import Segmenter
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import slices_of

PARTS = ("score", "probability", "map", "uncertainty", "reconstruction", "intensity")


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
    made = copy.copy(detector)
    made.mirror = False
    return made


def assert_close(one: Prediction, two: Prediction, tolerance: float = 1e-4) -> None:
    for part in PARTS:
        a, b = getattr(one, part), getattr(two, part)
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
    found = detector.predict_volume(case)
    for part in ("score", "probability", "map", "uncertainty", "intensity"):
        values = getattr(found, part)
        assert (values.shape, values.dtype) == (case.brain.shape, np.float32), part
        assert values.min() >= 0
        assert values.max() <= 1
        assert not values[~case.brain].any(), part
        assert values[case.brain].any(), part
    np.testing.assert_array_equal(found.brain, case.brain)
    assert found.notes["direction"] == "axial"


def test_the_reconstruction_equals_the_image_outside_the_brain(detector: Detector, prepared: list[Prepared]) -> None:
    case, found = prepared[0], detector.predict_volume(prepared[0]).reconstruction
    assert found is not None
    assert found.shape == case.image.shape
    assert np.abs(found).max() <= 1
    np.testing.assert_array_equal(found[:, ~case.brain], case.image[:, ~case.brain])
    assert np.abs(found - case.image)[:, case.brain].mean() > 0.01


def test_the_probability_is_the_mean_over_the_reconstructions(detector: Detector, prepared: list[Prepared]) -> None:
    batch = slices_of(prepared[0], [8, 9, 10], detector.seed)
    maps = unmirrored(detector).slice_maps(batch)
    with torch.inference_mode():
        members = detector.reconstructor.reconstruct(batch.image, batch.brain, batch.keys)
        each = [detector.segmenter(batch.image, member).sigmoid() * batch.brain for member in members]
    assert len(members) == 2
    torch.testing.assert_close(maps.probability, (each[0] + each[1]) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.reconstruction, (members[0] + members[1]) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.uncertainty, (each[0] - each[1]).abs() / 2, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fixture", ["tiny_detector", "tiny_reconstructor"])
def test_a_mirrored_slice_has_the_mirrored_maps(
    fixture: str, request: pytest.FixtureRequest, prepared: list[Prepared]
) -> None:
    detector = load_detector(request.getfixturevalue(fixture), device="cpu")
    assert detector.mirror  # as its config says
    batch = slices_of(prepared[0], [8, 9, 10], detector.seed)
    maps, others = detector.slice_maps(batch), detector.slice_maps(batch.mirrored())
    for name in ("map", "probability", "reconstruction", "uncertainty"):
        if (here := getattr(maps, name)) is not None:
            torch.testing.assert_close(getattr(others, name).flip(-2), here, atol=1e-5, rtol=0)
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
    found = detector.predict_volume(replace(case, brain=brain))
    assert before.score[..., 10].any()
    for part in ("score", "map", "probability"):
        assert not getattr(found, part)[..., 10].any(), part
    assert found.notes["slices_not_judged"] == before.notes["slices_not_judged"] + 1


def test_a_brain_that_vanished_on_the_model_grid(detector: Detector, prepared: list[Prepared]) -> None:
    empty = replace(prepared[0], brain=np.zeros_like(prepared[0].brain))
    with pytest.raises(DataError, match="no slice with enough brain"):
        detector.predict_volume(empty)


class TestThreeKinds:
    def test_reconstructor_and_segmenter(self, detector: Detector, prepared: list[Prepared]) -> None:
        found = detector.predict_volume(prepared[0])
        fused = fuse(found.map, found.probability, detector.fusion.form, detector.fusion.weight)
        np.testing.assert_array_equal(found.score, fused)

    def test_reconstructor_alone(self, tiny_reconstructor: Path, prepared: list[Prepared]) -> None:
        found = load_detector(tiny_reconstructor, device="cpu").predict_volume(prepared[0])
        assert found.probability is None
        np.testing.assert_array_equal(found.score, found.map)

    def test_segmenter_of_the_image_alone(self, image_only: Detector, prepared: list[Prepared]) -> None:
        found = image_only.predict_volume(prepared[0])
        assert found.map is None
        mirrored = copy.copy(image_only)
        mirrored.mirror = True
        assert mirrored.predict_volume(prepared[0]).uncertainty is None
        assert found.uncertainty is None  # one image, one probability: nothing to differ
        assert found.reconstruction is None
        np.testing.assert_array_equal(found.score, found.probability)

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
        found = both.predict_volume(prepared[0])
        one, two = (each.predict_volume(prepared[0]) for each in (unmirrored(detector), image_only))
        np.testing.assert_allclose(found.map, one.map, atol=1e-4)
        np.testing.assert_allclose(found.probability, two.probability, atol=1e-4)
        np.testing.assert_allclose(found.score, found.map**0.5 * found.probability, atol=1e-6)

    def test_nothing_to_detect_with(self, detector: Detector) -> None:
        with pytest.raises(BundleError, match="without a reconstructor"):
            Detector(anatomy=ANATOMY, direction="axial")
        with pytest.raises(BundleError, match="without a reconstructor"):
            Detector(anatomy=ANATOMY, direction="axial", segmenter=detector.segmenter)


class TestThresholds:
    def test_a_mask_needs_a_calibration(self, tiny_reconstructor: Path, prepared: list[Prepared]) -> None:
        found = load_detector(tiny_reconstructor, device="cpu").predict_volume(prepared[0])
        assert found.mask is None
        assert found.threshold is None

    def test_the_mask_is_the_score_at_the_threshold_of_the_rule(
        self, detector: Detector, prepared: list[Prepared]
    ) -> None:
        score = detector.predict_volume(prepared[0]).score
        middle = float(np.median(score[prepared[0].brain]))
        values = {"best-dice": {"score": middle}, "strict": {"score": 1.1}, "map-only": {"map": 0.2}}
        made = copy.copy(detector)
        made.thresholds = Thresholds(values, "best-dice")
        found = made.predict_volume(prepared[0])
        np.testing.assert_array_equal(found.mask, (found.score >= middle) & found.brain)
        assert found.threshold == middle
        assert 0 < found.mask.sum() < found.brain.sum()
        assert not made.predict_volume(prepared[0], rule="strict").mask.any()
        assert made.predict_volume(prepared[0], rule="map-only").mask is None
        with pytest.raises(ConfigError, match=r"uncalibrated rule.*'false-positives'.*best-dice"):
            made.predict_volume(prepared[0], rule="false-positives")

    def test_a_threshold_of_0_masks_no_background(self, detector: Detector, prepared: list[Prepared]) -> None:
        made = Detector(
            anatomy=ANATOMY,
            direction="axial",
            reconstructor=detector.reconstructor,
            thresholds=Thresholds({"all": {"score": 0.0}}, "all"),
        )
        np.testing.assert_array_equal(made.predict_volume(prepared[0]).mask, prepared[0].brain)


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
        others = [k for k in range(prepared[0].brain.shape[2]) if k != 10]
        for part in PARTS:
            one, two = getattr(before, part), getattr(after, part)
            np.testing.assert_allclose(one[..., others], two[..., others], atol=1e-4, err_msg=part)
            assert np.abs(one[..., 10] - two[..., 10]).max() > 1e-3, part

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
        made = Detector(
            anatomy=ANATOMY,
            direction="axial",
            reconstructor=detector.reconstructor,
            residual=residual,
            seed=detector.seed,
        )
        return made.predict_volume(fine).map

    raw = map_with(0.0)
    filtered = map_with(9.0)
    np.testing.assert_allclose(filtered, median_filter_volume(raw, fine.spacing_mm, fine.brain, 9.0), atol=1e-4)
    assert np.abs(filtered - raw).max() > 0.01


def test_networks_are_frozen_in_evaluation_mode(detector: Detector) -> None:
    for network in (detector.reconstructor, detector.segmenter):
        assert not any(part.training for part in network.modules())
        assert not any(weight.requires_grad for weight in network.parameters())


class TestPrecisionAndDevice:
    def test_bfloat16_stays_close_to_float32(self, detector: Detector, prepared: list[Prepared]) -> None:
        """Within the contract between precisions, 2e-2; over three seeds the largest differences of these phantoms
        were .007, .008 and .012, and the Dice of masks at the median, where most voxels lie, at least .988."""
        bounds = {"score": 0.01, "probability": 0.012, "map": 0.015}
        detector = unmirrored(detector)
        rough = copy.copy(detector)
        rough.precision = "bfloat16"
        for case in prepared[:2]:
            exact, found = detector.predict_volume(case), rough.predict_volume(case)
            for part, bound in bounds.items():
                one, two = getattr(exact, part), getattr(found, part)
                assert two.dtype == np.float32
                difference = float(np.abs(one - two).max())
                assert 1e-4 < difference < bound, part  # the lower bound: it did compute in bfloat16
                assert bound < 0.3 * one[case.brain].std(), "a bound that any two maps keep says nothing"
            middle = np.median(exact.score[case.brain])
            one, two = ((each.score >= middle) & case.brain for each in (exact, found))
            assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.98

    @pytest.mark.parametrize("family", plugins.names("reconstructors"))
    def test_every_tensor_of_every_network_follows_the_device(self, family: str, tiny_detector: Path) -> None:
        loaded = load_detector(tiny_detector, device="cpu")
        plugin, reconstructor = plugins.load("reconstructors", family), loaded.reconstructor
        if not isinstance(reconstructor, plugin.Model):
            reconstructor = plugin.Model(plugin.Config(name=family), 1, ANATOMY.size)
        moved = Detector(
            anatomy=ANATOMY, direction="axial", reconstructor=reconstructor, segmenter=loaded.segmenter, device="meta"
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
                and any(isinstance(one, torch.Tensor | torch.nn.Module) for one in _held(value))
            ]
            assert stray == []


def _held(value: Any) -> list[Any]:
    """An attribute and what it holds, one level deep."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [value, *inside, *getattr(value, "__dict__", {}).values()]
