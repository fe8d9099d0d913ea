"""Scores against scikit-image, scipy and closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from hybriduad.core.errors import ConfigError, DataError
from hybriduad.networks import scoring


def smooth_images(seed: int, batch: int = 2, contrasts: int = 2, size: int = 40) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((batch, contrasts, size, size))
    field = ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    return torch.from_numpy(np.clip(field / field.std() / 2, -1, 1)).float()


def test_ssim_agrees_with_scikit_image():
    a = smooth_images(0)
    b = (a + 0.3 * smooth_images(1)).clamp(-1, 1)
    ours = scoring.ssim_map(a, b)
    for index in np.ndindex(2, 2):
        x, y = (((image[index].double().numpy()) + 1) / 2 for image in (a, b))
        _, reference = structural_similarity(
            x, y, data_range=1.0, gaussian_weights=True, sigma=1.0, use_sample_covariance=False, full=True
        )
        inner = (slice(4, -4),) * 2
        np.testing.assert_allclose(ours[index].numpy()[inner], reference[inner], rtol=0, atol=3e-5)
        assert np.ptp(reference[inner]) > 0.3


def test_ssim_agrees_with_torchmetrics_up_to_the_border():
    a = smooth_images(2)
    b = (a + 0.3 * smooth_images(3)).clamp(-1, 1)
    x, y = ((image.double() + 1) / 2 for image in (a, b))
    _, reference = structural_similarity_index_measure(x, y, data_range=1.0, sigma=1.0, return_full_image=True)
    np.testing.assert_allclose(scoring.ssim_map(a, b).numpy(), reference.numpy(), rtol=0, atol=3e-5)
    assert np.ptp(reference.numpy()) > 0.3


def test_ssim_of_an_image_with_itself_is_one_and_of_flat_images_has_closed_form():
    a = smooth_images(0)
    torch.testing.assert_close(scoring.ssim_map(a, a), torch.ones_like(a), atol=1e-5, rtol=0)
    flat = scoring.ssim_map(torch.full((1, 1, 9, 9), -0.2), torch.full((1, 1, 9, 9), 0.4))
    expected = (2 * 0.4 * 0.7 + 1e-4) / (0.4**2 + 0.7**2 + 1e-4)
    torch.testing.assert_close(flat, torch.full_like(flat, expected), atol=1e-3, rtol=0)


def test_a_slice_scores_bit_equally_alone_and_in_a_batch():
    a, b = smooth_images(0, batch=5), smooth_images(1, batch=5)
    for kind in ("ssim", "absolute", "positive", "negative"):
        together = scoring.residual_map(a, b, kind)
        alone = torch.cat([scoring.residual_map(a[i : i + 1], b[i : i + 1], kind) for i in range(5)])
        assert torch.equal(together, alone)


def test_scores_are_not_rescaled_per_scan():
    """Published mistake 6: min-max per volume makes every scan peak at 1, so no threshold can be calibrated."""
    image, reconstruction = smooth_images(0), smooth_images(1)
    weak = image + 0.1 * (reconstruction - image)
    full, small = (scoring.residual_map(image, r, "absolute") for r in (reconstruction, weak))
    torch.testing.assert_close(small, 0.1 * full, atol=1e-6, rtol=0)
    probability = torch.full_like(small, 0.02)
    assert scoring.fuse(small, probability, "sum", 1.0).max() < 0.25
    brain = np.ones((*small.shape[1:], 2), bool)
    volume = np.full(brain.shape, 0.3, np.float32)
    volume[10:20, 10:20] = 0.4
    assert scoring.median_filter_volume(volume, (1, 1, 5), brain, 5.0).max() == np.float32(0.4)


def test_residuals_have_their_signs_and_ranges():
    image = torch.tensor([-1.0, 0.0, 1.0, 0.5]).reshape(1, 1, 2, 2)
    reconstruction = torch.tensor([1.0, 0.0, -1.0, 3.0]).reshape(1, 1, 2, 2)
    expected = {
        "absolute": [1.0, 0.0, 1.0, 0.25],
        "positive": [0.0, 0.0, 1.0, 0.0],
        "negative": [1.0, 0.0, 0.0, 0.25],
    }
    for kind, values in expected.items():
        assert scoring.residual_map(image, reconstruction, kind).flatten().tolist() == values
    a, b = smooth_images(0), -smooth_images(0)
    ssim = scoring.residual_map(a, b, "ssim")
    assert ssim.min() >= 0
    assert ssim.max() == 1
    assert (1 - scoring.ssim_map(a, b)).max() > 1


def test_only_present_contrasts_count():
    image, reconstruction = smooth_images(0), smooth_images(1)
    valid = torch.zeros(image.shape, dtype=torch.bool)
    valid[0, 0] = True
    result = scoring.residual_map(image, reconstruction, "absolute", valid)
    alone = scoring.residual_map(image[:, :1], reconstruction[:, :1], "absolute")
    torch.testing.assert_close(result[0], alone[0])
    assert torch.count_nonzero(result[1]) == 0
    both = scoring.residual_map(image, reconstruction, "absolute", torch.ones_like(valid))
    torch.testing.assert_close(both, scoring.residual_map(image, reconstruction, "absolute"))
    image[:, 1] = float("nan")
    assert torch.equal(scoring.residual_map(image, reconstruction, "absolute", valid), result)


@pytest.mark.parametrize("kind", ["ssim", "absolute", "positive", "negative"])
def test_a_contrast_counts_where_it_covers(kind):
    image, reconstruction = smooth_images(0), smooth_images(1)
    valid = torch.ones(image.shape, dtype=torch.bool)
    valid[:, 1, 20:] = False
    image = torch.where(valid, image, -1.0)
    residual = scoring.residual_map(image, reconstruction, kind, valid)
    first, second = (scoring.residual_map(image[:, c : c + 1], reconstruction[:, c : c + 1], kind) for c in (0, 1))
    assert torch.equal(residual[:, 20:], first[:, 20:])
    away = 20 - (scoring.SSIM_RADIUS if kind == "ssim" else 0)  # along the edge windows reach beyond it
    torch.testing.assert_close(residual[:, :away], (first + second)[:, :away] / 2)
    reconstruction[:, 1, 20:] = torch.rand(2, 20, 40)  # whatever is made of what is not there
    assert torch.equal(scoring.residual_map(image, reconstruction, kind, valid), residual)


def test_levels_combine():
    maps = torch.rand((3, 2, 5, 5), generator=torch.Generator().manual_seed(0))
    maps[:, 0, 0, 0] = 0
    maps[:, 0, 0, 1] = 0.37
    maps[:, 0, 0, 2] = torch.tensor([0.0, 0.5, 0.5])
    torch.testing.assert_close(scoring.combine_levels(maps, "arithmetic"), maps.mean(0))
    geometric = scoring.combine_levels(maps, "geometric")
    reference = np.exp(np.log(maps.double().numpy() + 1e-3).mean(0)) - 1e-3
    np.testing.assert_allclose(geometric.numpy(), reference, atol=1e-6)
    assert geometric[0, 0, 0] == 0
    assert geometric[0, 0, 1] == pytest.approx(0.37, abs=1e-6)
    assert 0 < geometric[0, 0, 2] < maps[:, 0, 0, 2].mean()
    assert torch.equal(scoring.combine_levels(maps[:1] * 0, "geometric"), torch.zeros(2, 5, 5))


def noisy(shape=(12, 11, 7)):
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    brain = np.zeros(values.shape, bool)
    brain[1:, :9, 1:6] = True
    return values, brain


@pytest.mark.parametrize(
    ("spacing", "length_mm", "size"),
    [
        ((2.3, np.float32(2.3), 12.0), 11.5, (5, 5, 1)),
        ((3.0, 20.0, 1.0), 15.0, (5, 1, 15)),
        ((1, 1, 1), 5.0, (5, 5, 5)),
        ((1, 1, 1), 0.0, (1, 1, 1)),
    ],
)
def test_median_filter_of_whole_voxels_is_scipys(spacing, length_mm, size):
    values, brain = noisy()
    ours = scoring.median_filter_volume(values, spacing, brain, length_mm)
    np.testing.assert_array_equal(ours, np.where(brain, ndimage.median_filter(values, size=size), 0))
    assert ours.dtype == np.float32
    empty = scoring.median_filter_volume(values, spacing, np.zeros_like(brain), length_mm)
    assert empty.shape == values.shape
    assert not empty.any()


def test_median_filter_weighs_a_voxel_by_the_share_that_the_window_covers(monkeypatch):
    """Against copies: of shares in quarters every voxel comes that many times, and as many as one whole voxel has are
    taken from the middle."""
    values, brain = noisy()
    # Along H 6 mm cover 1 and twice a quarter of 4 mm, along W 1 and twice one half of 3 mm, along S one voxel.
    spacing, size, copies = (4.0, 3.0, 6.0), (3, 3, 1), np.outer([1, 4, 1], [2, 4, 2])
    np.testing.assert_array_equal(scoring.window_shares(4.0, 6.0), [0.25, 1.0, 0.25])

    def middle(window):
        sorted_values = np.sort(np.repeat(window, copies.ravel()))
        return sorted_values[(len(sorted_values) - 16) // 2 :][:16].mean()

    expected = np.where(brain, ndimage.generic_filter(values.astype(float), middle, size=size, mode="reflect"), 0)
    at_once = scoring.median_filter_volume(values, spacing, brain, 6.0)
    np.testing.assert_allclose(at_once, expected, atol=1e-6)
    monkeypatch.setattr(scoring, "WINDOW_SAMPLES", 100)
    np.testing.assert_array_equal(scoring.median_filter_volume(values, spacing, brain, 6.0), at_once)


def test_median_filter_is_continuous_in_the_spacing():
    """Once it had five voxels under 3 mm and one above."""
    values, brain = noisy((12, 11, 9))

    def filtered(mm, axis):
        spacing = [2.3, 2.3, 5.0]
        spacing[axis] = mm
        return scoring.median_filter_volume(values, spacing, brain, 11.5)

    for axis in range(3):
        for mm in (2.3, 3.0, 11.5 / 3, 5.0, 11.5):
            steps = [np.abs(filtered(mm * (1 + e), axis) - filtered(mm * (1 - e), axis)).max() for e in (1e-2, 1e-4)]
            assert steps[1] < 5e-3, (axis, mm)
            assert steps[1] < steps[0] / 20 or steps[0] == 0, (axis, mm)


def test_smoothing_is_a_gaussian_mean_along_the_slices_of_the_brain():
    values = np.random.default_rng(0).random((14, 12, 9), dtype=np.float32)
    brain = np.zeros(values.shape, bool)
    brain[2:12, 1:9, 1:8] = True
    spacing, sigma = 5.0, 6.0
    ours = scoring.smooth_across_slices(values, spacing, brain, sigma)
    for x, y, z in ((7, 5, 4), (2, 1, 1)):  # the second at the end, where the slices before are no brain
        near = np.flatnonzero(brain[x, y] & (np.abs(np.arange(9) - z) <= round(3 * sigma / spacing)))
        weight = np.exp(-0.5 * ((near - z) * spacing / sigma) ** 2)
        assert ours[x, y, z] == pytest.approx((weight * values[x, y, near]).sum() / weight.sum(), abs=1e-6)
    assert not ours[~brain].any()
    even = scoring.smooth_across_slices(brain * 0.3, spacing, brain, sigma)
    np.testing.assert_allclose(even, brain * 0.3, atol=1e-6)
    with pytest.raises(DataError, match="shapes that do not fit"):
        scoring.smooth_across_slices(values, spacing, brain[1:], sigma)


@pytest.mark.parametrize("form", ["sum", "product"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_fusion(form, weight):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 50), dtype=np.float32)
    x[:2] = y[:2] = (0, 1)
    expected = (weight * x + y) / (weight + 1) if form == "sum" else x**weight * y
    score = scoring.fuse(x, y, form, weight)
    np.testing.assert_allclose(score, expected, rtol=1e-6)
    assert score.min() >= 0
    assert score.max() <= 1
    tensors = scoring.fuse(torch.from_numpy(x), torch.from_numpy(y), form, weight)
    np.testing.assert_allclose(tensors.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert scoring.fuse(x, None, form, weight) is x
    assert scoring.fuse(None, y, form, weight) is y


def test_a_product_with_a_floor_keeps_what_the_segmenter_does_not_know():
    x, y = np.random.default_rng(2).random((2, 200), dtype=np.float32)
    np.testing.assert_allclose(scoring.fuse(x, y, "product", 0.5, 0.1), np.sqrt(x) * (0.1 + 0.9 * y), rtol=1e-5)
    silent = np.zeros_like(y)
    assert not scoring.fuse(x, silent, "product", 0.5).any()
    np.testing.assert_array_equal(np.argsort(scoring.fuse(x, silent, "product", 0.5, 0.02)), np.argsort(x))
    assert scoring.fuse(x, None, "product", 0.5, 0.1) is x
    with pytest.raises(ConfigError, match="unknown fusion"):
        scoring.fuse(x, y, "product", 1.0, 1.0)


def test_a_witness_weighs_a_score():
    score, witness = np.random.default_rng(3).random((2, 200), dtype=np.float32)
    expected = score * (0.05 + 0.95 * witness) ** 0.5
    np.testing.assert_allclose(scoring.weigh(score, witness, 0.5, 0.05), expected, rtol=1e-5)
    tensors = scoring.weigh(torch.from_numpy(score), torch.from_numpy(witness), 0.5, 0.05)
    np.testing.assert_allclose(tensors.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(scoring.weigh(score, witness, 0.0), score)
    with pytest.raises(DataError, match="weigh"):
        scoring.weigh(score, witness[1:], 1.0)


def test_sum_with_weight_one_ranks_as_the_paper_does():
    x, y = np.random.default_rng(1).random((2, 200))
    np.testing.assert_array_equal(np.argsort(scoring.fuse(x, y, "sum", 1.0)), np.argsort(x + y))


def test_bad_input_is_named():
    image = torch.zeros(1, 1, 12, 12)
    volume, brain = np.zeros((4, 4, 4), np.float32), np.ones((4, 4, 4), bool)
    with pytest.raises(DataError, match="ssim_map"):
        scoring.ssim_map(image, image[..., 1:])
    with pytest.raises(DataError, match="ssim_map"):
        scoring.ssim_map(image[..., :4], image[..., :4])
    with pytest.raises(ConfigError, match="squared"):
        scoring.residual_map(image, image, "squared")
    with pytest.raises(DataError, match=r"valid \(1, 1\)"):
        scoring.residual_map(image, image, "ssim", torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ConfigError, match="harmonic"):
        scoring.combine_levels(image, "harmonic")
    with pytest.raises(DataError, match="no level"):
        scoring.combine_levels(image[:0], "arithmetic")
    with pytest.raises(ConfigError, match=r"window of the median.*-1\.0 mm"):
        scoring.median_filter_volume(volume, (1, 1, 1), brain, -1.0)
    with pytest.raises(DataError, match="spacing"):
        scoring.median_filter_volume(volume, (1, 1), brain, 5.0)
    with pytest.raises(ConfigError, match="maximum"):
        scoring.fuse(volume, volume, "maximum", 1.0)
    with pytest.raises(ConfigError, match="weight"):
        scoring.fuse(volume, volume, "sum", -1.0)
    with pytest.raises(DataError, match="nothing to fuse"):
        scoring.fuse(None, None, "sum", 1.0)
    with pytest.raises(DataError, match="fuse"):
        scoring.fuse(volume, volume[1:], "sum", 1.0)
