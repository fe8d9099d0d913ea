"""Losses against closed form and torch's own, their gradients, and batches with nothing in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from hybriduad.core.errors import DataError
from hybriduad.networks import losses
from hybriduad.networks.scoring import ssim_map

TERMS = ("loss", "cross_entropy", "dice", "false_alarm")


def batch(size: int = 20) -> dict[str, torch.Tensor]:
    """Two slices: the first with a lesion, the second without; a brain, and a corner of it ignored."""
    generator = torch.Generator().manual_seed(0)
    brain = torch.zeros(2, size, size, dtype=torch.bool)
    brain[:, 2:-2, 2:-2] = True
    ignore = torch.zeros_like(brain)
    ignore[:, 2:5, 2:5] = True
    target = torch.zeros(2, size, size)
    target[0, 8:12, 8:12] = 1.0
    target[:, 2:4, 2:4] = 1.0
    return {
        "logits": torch.randn((2, size, size), generator=generator),
        "target": target,
        "ignore": ignore,
        "brain": brain,
    }


def test_terms_have_their_closed_form():
    data = batch()
    result = losses.segmentation_loss(**data, dice=0.7, false_alarm=0.3)
    valid = data["brain"] & ~data["ignore"]
    logits, target = data["logits"], data["target"]
    entropy = functional.binary_cross_entropy_with_logits(logits[valid], target[valid])
    torch.testing.assert_close(result["cross_entropy"], entropy)
    p, t = torch.sigmoid(logits[0][valid[0]]), target[0][valid[0]]
    dice = 1 - (2 * (p * t).sum() + 1) / ((p * p).sum() + (t * t).sum() + 1)
    torch.testing.assert_close(result["dice"], dice)
    healthy = logits[1][valid[1]].sort(descending=True).values
    alarm = -torch.log(1 - torch.sigmoid(healthy[: int(np.ceil(0.01 * len(healthy)))])).mean()
    torch.testing.assert_close(result["false_alarm"], alarm)
    torch.testing.assert_close(result["loss"], entropy + 0.7 * dice + 0.3 * alarm)


def test_ignored_voxels_and_background_get_no_gradient_and_have_no_effect():
    data = batch()
    outside = data["ignore"] | ~data["brain"]
    data["logits"].requires_grad_()
    losses.segmentation_loss(**data, dice=1.0, false_alarm=1.0)["loss"].backward()
    gradient = data["logits"].grad
    assert torch.count_nonzero(gradient[outside]) == 0
    assert torch.count_nonzero(gradient[~outside]) == (~outside).sum()
    before = losses.segmentation_loss(**data, dice=1.0, false_alarm=1.0)["loss"]
    data["logits"] = torch.where(outside, torch.tensor(float("nan")), data["logits"].detach()).requires_grad_()
    data["target"] = torch.where(outside, 1.0, data["target"])
    after = losses.segmentation_loss(**data, dice=1.0, false_alarm=1.0)["loss"]
    assert torch.equal(before, after)
    after.backward()
    assert torch.isfinite(data["logits"].grad).all()


def test_gradient_agrees_with_finite_differences():
    data = batch(8)
    arguments = (data["target"].double(), data["ignore"], data["brain"])

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return losses.segmentation_loss(logits, *arguments, dice=1.0, false_alarm=1.0)["loss"]

    logits = data["logits"].clone().requires_grad_()
    loss(logits).backward()
    for index in [(0, 5, 5), (1, 4, 5), tuple(int(i) for i in np.unravel_index(logits[1].argmax(), (8, 8)))]:
        place = index if len(index) == 3 else (1, *index)
        step = torch.zeros_like(data["logits"])
        step[place] = 1e-2
        slope = (loss(data["logits"] + step) - loss(data["logits"] - step)) / 2e-2
        assert float(logits.grad[place]) == pytest.approx(float(slope), abs=2e-4)


@pytest.mark.parametrize("empty", ["no slices", "no brain", "all ignored", "no lesion"])
def test_empty_batches_are_finite(empty):
    data = batch()
    if empty == "no slices":
        data = {name: tensor[:0] for name, tensor in data.items()}
    elif empty == "no brain":
        data["brain"] = torch.zeros_like(data["brain"])
    elif empty == "all ignored":
        data["ignore"] = torch.ones_like(data["ignore"])
    else:
        data["target"] = torch.zeros_like(data["target"])
    data["logits"] = (data["logits"] * 50).requires_grad_()
    result = losses.segmentation_loss(**data, dice=1.0, false_alarm=1.0)
    result["loss"].backward()
    assert all(torch.isfinite(result[term]) for term in TERMS)
    assert torch.isfinite(data["logits"].grad).all()
    if empty == "no lesion":
        assert result["dice"] == 0
        assert torch.count_nonzero(data["logits"].grad) > 0
    else:
        assert all(result[term] == 0 for term in TERMS)


def test_soft_dice_is_best_at_the_soft_target():
    target = torch.full((1, 6, 6), 0.3)
    full, none = torch.ones(1, 6, 6, dtype=torch.bool), torch.zeros(1, 6, 6, dtype=torch.bool)
    dice = {
        p: float(
            losses.segmentation_loss(
                torch.logit(torch.full_like(target, p)), target, none, full, dice=1, false_alarm=0
            )["dice"]
        )
        for p in (0.1, 0.3, 0.9)
    }
    assert dice[0.3] == pytest.approx(0, abs=1e-6)
    assert dice[0.1] > 0.05
    assert dice[0.9] > 0.05


def test_descending_finds_the_lesion_and_silences_the_healthy_slice():
    data = batch()
    logits = data["logits"].requires_grad_()
    for _ in range(60):
        loss = losses.segmentation_loss(**data, dice=1.0, false_alarm=0.5)["loss"]
        (gradient,) = torch.autograd.grad(loss, logits)
        logits.data -= 0.2 * gradient.sign()
    probability = torch.sigmoid(logits.detach())
    assert probability[0, 8:12, 8:12].min() > 0.8
    assert probability[1][(data["brain"] & ~data["ignore"])[1]].max() < 0.2


def test_one_alarm_costs_more_than_cross_entropy_alone_would():
    data = batch()
    quiet, loud = torch.full((2, 20, 20), -6.0), torch.full((2, 20, 20), -6.0)
    loud[1, 10, 10] = 4.0
    results = [
        losses.segmentation_loss(logits, data["target"], data["ignore"], data["brain"], dice=0, false_alarm=1)
        for logits in (quiet, loud)
    ]
    rise = {term: float(results[1][term] - results[0][term]) for term in TERMS}
    assert rise["false_alarm"] > 20 * rise["cross_entropy"] > 0


def test_half_precision_logits_are_accepted():
    data = batch()
    data["logits"] = data["logits"].bfloat16().requires_grad_()
    result = losses.segmentation_loss(**data, dice=1.0, false_alarm=1.0)
    result["loss"].backward()
    assert result["loss"].dtype == torch.float32
    assert torch.isfinite(data["logits"].grad).all()


def test_reconstruction_l1():
    generator = torch.Generator().manual_seed(1)
    prediction, target = torch.rand((2, 2, 3, 5, 5), generator=generator)
    weight = torch.zeros(2, 5, 5, dtype=torch.bool)
    weight[0, 1:3, 1:4] = True
    expected = (prediction - target).abs().permute(0, 2, 3, 1)[weight].mean()
    torch.testing.assert_close(losses.reconstruction_l1(prediction, target, weight), expected)
    everywhere = torch.ones(2, 3, 5, 5)
    torch.testing.assert_close(
        losses.reconstruction_l1(prediction, target, everywhere), functional.l1_loss(prediction, target)
    )
    prediction.requires_grad_()
    nothing = losses.reconstruction_l1(prediction, target, weight & False)
    nothing.backward()
    assert nothing == 0
    assert torch.count_nonzero(prediction.grad) == 0


@pytest.mark.parametrize("soft", [False, True])
def test_focal_loss_weighs_a_voxel_by_its_error(soft: bool) -> None:
    data = batch()
    if soft:
        data["target"] = data["target"] * 0.3
    valid = data["brain"] & ~data["ignore"]
    logits, target = data["logits"][valid], data["target"][valid]
    weight = (target - torch.sigmoid(logits)).abs() ** 2
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    result = losses.segmentation_loss(**data, dice=0.7, false_alarm=0.3, focal=2.0)
    plain = losses.segmentation_loss(**data, dice=0.7, false_alarm=0.3)
    torch.testing.assert_close(result["cross_entropy"], (weight * entropy).mean())
    torch.testing.assert_close(result["loss"] - result["cross_entropy"], plain["loss"] - plain["cross_entropy"])
    # On a mask it is the focal loss of the paper: (1 - p_t)^2 times the cross-entropy.
    if not soft:
        torch.testing.assert_close(weight, (1 - torch.exp(-entropy)) ** 2)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_focal_loss_of_sure_voxels_has_a_gradient(exponent: float) -> None:
    data = batch()
    data["logits"] = (data["target"] * 400 - 200).requires_grad_()
    losses.segmentation_loss(**data, dice=0, false_alarm=0, focal=exponent)["loss"].backward()
    assert torch.isfinite(data["logits"].grad).all()


def test_restoration_loss_is_l2_and_ssim_of_images_in_0_1() -> None:
    generator = torch.Generator().manual_seed(1)
    restored, healthy = torch.rand((2, 2, 1, 20, 20), generator=generator) * 2 - 1
    everywhere = torch.ones_like(healthy, dtype=torch.bool)
    expected = functional.mse_loss((restored + 1) / 2, (healthy + 1) / 2) + 1 - ssim_map(restored, healthy).mean()
    torch.testing.assert_close(losses.restoration_loss(restored, healthy, everywhere), expected)
    assert float(losses.restoration_loss(healthy, healthy, everywhere)) == pytest.approx(0, abs=1e-5)
    assert losses.restoration_loss(restored, healthy, ~everywhere) == 0


def test_what_is_not_known_to_be_clean_has_no_part_in_the_restoration() -> None:
    generator = torch.Generator().manual_seed(1)
    restored, healthy = torch.rand((2, 2, 1, 20, 20), generator=generator) * 2 - 1
    clean = torch.ones_like(healthy, dtype=torch.bool)
    clean[0, :, 5:12, 5:12] = False
    restored.requires_grad_()
    before = losses.restoration_loss(restored, healthy, clean)
    before.backward()
    assert torch.count_nonzero(restored.grad[~clean]) == 0
    assert torch.count_nonzero(restored.grad[clean]) > 0.99 * clean.sum()
    other = torch.where(clean, restored.detach(), 0.9)
    assert torch.equal(losses.restoration_loss(other, healthy, clean), before)


def test_bad_input_is_named():
    data = batch()
    with pytest.raises(DataError, match="segmentation_loss"):
        losses.segmentation_loss(**{**data, "brain": data["brain"][:1]}, dice=1, false_alarm=1)
    with pytest.raises(DataError, match="reconstruction_l1"):
        losses.reconstruction_l1(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4))
    image = torch.zeros(1, 1, 8, 8)
    with pytest.raises(DataError, match="restoration_loss"):
        losses.restoration_loss(image, image, torch.ones(1, 8, 8, dtype=torch.bool))
