"""Reference statistics: which slices they are of, what they cost, and that they are those of single slices."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from tiny import prepared_cases

from hybriduad.core.types import Batch
from hybriduad.detector.familiarity import case_features
from hybriduad.detector.inference import Detector, SliceMaps
from hybriduad.detector.loading import load_detector
from hybriduad.detector.thresholds import PARTS
from hybriduad.networks.baselines import asymmetry_map
from hybriduad.reconstructors._base import Reconstructor
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import slices_of
from hybriduad.training import statistics
from hybriduad.training.samples import SlicePool, build_pool
from hybriduad.training.statistics import BINS, SLICES, reference_statistics


@pytest.fixture(scope="module")
def pool(tiny_cohort: Path) -> SlicePool:
    return build_pool(prepared_cases(tiny_cohort), ["lesion", "lesion", "healthy"], lesion_margin_mm=0.0)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every batch of slices that a detector judges; whole volumes are refused."""
    sizes: list[int] = []
    slice_maps = Detector.slice_maps

    def counted(self: Detector, batch: Batch) -> SliceMaps:
        sizes.append(len(batch))
        return slice_maps(self, batch)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a whole volume was predicted")

    monkeypatch.setattr(Detector, "slice_maps", counted)
    monkeypatch.setattr(Detector, "predict_volume", refused)
    return sizes


def test_a_bounded_number_of_slices_is_judged_by_themselves(
    tiny_detector: Path, pool: SlicePool, judged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SLICES", 7)
    tensors = reference_statistics(load_detector(tiny_detector, "cpu"), pool, batch=2)
    assert sum(judged) == 7
    assert max(judged) <= 2
    totals = {int(tensors[f"histogram_{part}"].sum()) for part in PARTS}
    assert len(totals) == 1


def test_the_histograms_are_those_of_single_slices(tiny_detector: Path, pool: SlicePool, judged: list[int]) -> None:
    detector = load_detector(tiny_detector, "cpu")
    tensors = reference_statistics(detector, pool)
    assert sum(judged) == len(pool.healthy) < SLICES  # all there are
    expected = np.zeros(len(BINS) - 1, dtype=np.int64)
    for case, index in pool.healthy:
        batch = slices_of(pool.prepared[case], [index], detector.seed)
        values = detector.slice_maps(batch).map
        assert values is not None
        expected += np.histogram(values[batch.brain].numpy(), bins=BINS)[0]
    np.testing.assert_allclose(
        tensors["histogram_map"].numpy(), expected, atol=3
    )  # a value on an edge, in another batch
    plain = np.concatenate([slices_of(pool.prepared[c], [k], 0).image.numpy().ravel() for c, k in pool.healthy])
    inside = np.concatenate([slices_of(pool.prepared[c], [k], 0).brain.numpy().ravel() for c, k in pool.healthy])
    counts = np.histogram((plain[inside].clip(-1, 1) + 1) / 2, bins=BINS)[0]
    np.testing.assert_array_equal(tensors["histogram_intensity"].numpy(), counts)
    counts = np.zeros(len(BINS) - 1, dtype=np.int64)
    for number, case in enumerate(pool.prepared):
        volume = (case.image, case.valid, np.array(case.brain), case.spacing_mm, ("FLAIR",))
        asymmetry = asymmetry_map(*volume, lateral=0, length_mm=0.0)
        assert asymmetry is not None
        chosen = [index for which, index in pool.healthy if which == number]
        counts += np.histogram(asymmetry[..., chosen][case.brain[..., chosen]], bins=BINS)[0]
    np.testing.assert_array_equal(tensors["histogram_asymmetry"].numpy(), counts)


@pytest.mark.parametrize("batch", [1, 16])
def test_brain_that_no_contrast_covers_counts_in_no_statistic(tiny_detector: Path, pool: SlicePool, batch: int) -> None:
    """Its maps of 0 counted as those of tissue, and a batch without a covered voxel ended the training."""
    detector = load_detector(tiny_detector, "cpu")
    case = pool.prepared[2]
    indices = [index for number, index in pool.healthy if number == 2]
    empty, half = indices[0], indices[2]
    valid = np.array(case.valid)
    valid[..., empty] = False
    valid[:, : valid.shape[1] // 2, :, half] = False
    cut = replace(case, image=np.where(valid, case.image, np.float32(-1)), valid=valid)
    tensors = reference_statistics(detector, SlicePool([cut], tuple((0, index) for index in indices)), batch=batch)
    shown = (case.brain & valid.any(axis=0))[..., indices]
    assert shown.sum() < case.brain[..., indices].sum() - 200
    for part in ("score", "probability", "map", "intensity"):
        assert int(tensors[f"histogram_{part}"].sum()) == int(shown.sum())
    shades = case.image[0][..., indices][shown]
    np.testing.assert_array_equal(
        tensors["quantiles_FLAIR"].numpy(), np.quantile(shades, statistics.QUANTILES).astype(np.float32)
    )
    rest = tuple((0, index) for index in indices if index != empty)
    without = reference_statistics(detector, SlicePool([cut], rest), batch=batch)
    torch.testing.assert_close(tensors["feature_mean"], without["feature_mean"])


def test_the_slices_are_spread_over_the_cases_and_drawn_by_the_seed() -> None:
    slices = [(case, index) for case in range(10) for index in range(30)] + [(10, 4)]
    drawn = statistics._drawn(slices, seed=3)
    counts = Counter({case: len(indices) for case, indices in drawn.items()})
    assert sum(counts.values()) == SLICES
    assert counts[10] == 1
    assert max(counts.values()) - min(counts[case] for case in range(10)) <= 1
    assert all(len(set(indices)) == len(indices) for indices in drawn.values())
    assert drawn == statistics._drawn(slices, seed=3)
    assert drawn != statistics._drawn(slices, seed=4)
    many = statistics._drawn([(case, index) for case in range(200) for index in range(3)], seed=3)
    assert len(many) == SLICES
    assert max(many) > 100  # not the first cases of the cohort
    assert statistics._drawn([(0, 5), (1, 6)], seed=0) == {0: [5], 1: [6]}


def test_the_reference_features_are_those_of_the_reconstructor(tiny_detector: Path, pool: SlicePool) -> None:
    detector = load_detector(tiny_detector, "cpu")
    tensors = reference_statistics(detector, pool)
    assert detector.reconstructor is not None
    features = []
    with torch.inference_mode():
        for case, index in pool.healthy:
            batch = slices_of(pool.prepared[case], [index], detector.seed)
            features.append(detector.reconstructor.features(batch.image, batch.brain, batch.keys))
    torch.testing.assert_close(tensors["feature_mean"], torch.cat(features).mean(dim=0), atol=1e-4, rtol=0)


def test_the_distances_are_those_of_cases_that_the_covariance_is_not_of(tiny_detector: Path, pool: SlicePool) -> None:
    """Of unseen cases where there are enough, else of each training case against the slices of the others."""
    detector = load_detector(tiny_detector, "cpu")
    assert detector.reconstructor is not None

    def mean_of(prepared: Prepared) -> np.ndarray:
        found = case_features(detector.reconstructor, prepared, detector.seed, "cpu")
        assert found is not None
        return found.astype(np.float64).mean(axis=0)

    unseen = [replace(case, image=np.clip(case.image * 0.5, -1, 1)) for case in pool.prepared]
    tensors = reference_statistics(detector, pool, unseen=unseen)
    inverse = np.linalg.inv(tensors["feature_covariance"].numpy().astype(np.float64))
    expected = [mahalanobis(mean_of(case), tensors["feature_mean"].numpy(), inverse) for case in unseen]
    np.testing.assert_allclose(tensors["case_distances"].numpy(), expected, rtol=1e-3)

    alone = reference_statistics(detector, pool, unseen=unseen[:2])
    others = reference_statistics(detector, SlicePool(pool.prepared, tuple(s for s in pool.healthy if s[0] != 1)))
    assert "case_distances" not in others, "of two cases no limit"
    inverse = np.linalg.inv(others["feature_covariance"].numpy().astype(np.float64))
    expected = mahalanobis(mean_of(pool.prepared[1]), others["feature_mean"].numpy(), inverse)
    assert float(alone["case_distances"][1]) == pytest.approx(expected, rel=1e-3)
    assert len(alone["case_distances"]) == 3


def test_a_family_without_features_leaves_no_reference_features(
    tiny_detector: Path, pool: SlicePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = load_detector(tiny_detector, "cpu")
    with_features = reference_statistics(detector, pool)
    monkeypatch.setattr(type(detector.reconstructor), "features", Reconstructor.features)
    without = reference_statistics(detector, pool)
    assert set(with_features) - set(without) == {"feature_mean", "feature_covariance", "case_distances"}
    assert all(torch.equal(with_features[name], values) for name, values in without.items())
