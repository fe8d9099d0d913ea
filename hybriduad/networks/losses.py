"""The losses of both stages, pure functions of tensors. Every loss is finite and differentiable on an empty batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from hybriduad.core.errors import DataError
from hybriduad.networks.scoring import ssim_map

# Share of a lesion-free slice's voxels, the most suspicious, that the false-alarm term looks at.
ALARM_SHARE = 0.01
# Added to both sides of soft Dice, in voxels: keeps slices with a lesion of a few voxels from dominating.
DICE_SMOOTHING = 1.0
# The least distance of probability and target that focal loss weighs by.
FOCAL_FLOOR = 1e-6


def reconstruction_l1(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of |prediction - target|, both (B, C, H, W); a scalar, 0 where no voxel has weight.

    ``weight`` is (B, H, W), or anything that broadcasts to (B, C, H, W), bool or non-negative.

    Raises:
        DataError: shapes that do not fit.
    """
    spread = weight.unsqueeze(1) if weight.dim() == 3 else weight
    if prediction.shape != target.shape or spread.dim() != 4:
        raise DataError(
            "shapes that do not fit",
            where="reconstruction_l1",
            got=f"{tuple(prediction.shape)}, {tuple(target.shape)}, weight {tuple(weight.shape)}",
            expected="(B, C, H, W) twice and a weight (B, H, W) or (B, C, H, W)",
        )
    spread = spread.to(torch.float32).expand(target.shape)
    error = (prediction.float() - target.float()).abs() * spread
    return error.sum() / spread.sum().clamp(min=torch.finfo(torch.float32).tiny)


def restoration_loss(restored: Tensor, healthy: Tensor, clean: Tensor) -> Tensor:
    """How far a restored slice is from the slice before an anomaly was painted, both (B, C, H, W) in [-1, 1]; a scalar.

    L2 + 1 - SSIM on images mapped to [0, 1], both of weight 1 (DRAEM, Zavrtanik et al. 2021, arXiv:2108.07610), mean
    over the voxels of ``clean`` (B, C, H, W) bool, 0 where there are none. Other voxels have no effect and get no
    gradient: there the restored slice counts as equal to the other, also in windows of SSIM that reach over them.

    Raises:
        DataError: shapes that do not fit.
    """
    if not restored.shape == healthy.shape == clean.shape or restored.dim() != 4:
        raise DataError(
            "shapes that do not fit",
            where="restoration_loss",
            got=", ".join(str(tuple(tensor.shape)) for tensor in (restored, healthy, clean)),
            expected="(B, C, H, W) three times",
        )
    compared = torch.where(clean, restored.float(), healthy.float())
    squares = ((compared - healthy.float()) / 2.0) ** 2  # an image spans 2, that of the paper 1
    error = squares + 1.0 - ssim_map(compared, healthy)
    return error.masked_fill(~clean, 0.0).sum() / clean.sum().clamp(min=1)


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    ignore: Tensor,
    brain: Tensor,
    *,
    dice: float,
    false_alarm: float,
    focal: float = 0.0,
) -> dict[str, Tensor]:
    """Loss of a segmenter: ``loss = cross_entropy + dice * dice_loss + false_alarm * alarm``, each a scalar.

    ``logits`` (B, H, W); ``target`` (B, H, W) float in [0, 1], soft where a lesion is only partly visible; ``ignore``
    and ``brain`` (B, H, W) bool. Only valid voxels count: brain that is not ignored. All others get a gradient of
    exactly 0.

    - ``cross_entropy``: binary cross-entropy, mean over the valid voxels of the batch, each weighted by |t - p|^focal:
      for masks that is focal loss (Lin et al. 2017, arXiv:1708.02002), for soft targets that of arXiv:2006.04388.
    - ``dice``: soft Dice loss, 1 - 2 sum(p t) / (sum(p^2) + sum(t^2)) (Milletari et al. 2016, arXiv:1606.04797; the
      squares put the optimum at p = t for soft targets too), mean over slices with a lesion.
    - ``false_alarm``: mean of -log(1 - p) over the 1 % most suspicious voxels, mean over lesion-free slices.

    Raises:
        DataError: the shapes differ.
    """
    if not logits.shape == target.shape == ignore.shape == brain.shape or logits.dim() != 3:
        raise DataError(
            "shapes that do not fit",
            where="segmentation_loss",
            got=", ".join(str(tuple(tensor.shape)) for tensor in (logits, target, ignore, brain)),
            expected="(B, H, W) four times",
        )
    valid = (brain & ~ignore).flatten(1)
    # Invalid voxels take a constant before any function is applied, so that not even NaN x 0 reaches their gradient.
    scores = logits.float().flatten(1).masked_fill(~valid, 0.0)
    truth = target.float().flatten(1).masked_fill(~valid, 0.0)
    count = valid.sum(dim=1)
    has_lesion = (truth > 0).any(dim=1)

    entropy = functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    if focal > 0:
        # Kept off 0, where the slope of a root is not finite.
        entropy = entropy * (truth - torch.sigmoid(scores)).abs().clamp(min=FOCAL_FLOOR) ** focal
    cross_entropy = entropy.masked_fill(~valid, 0.0).sum() / count.sum().clamp(min=1)

    probability = torch.sigmoid(scores).masked_fill(~valid, 0.0)
    overlap = 2.0 * (probability * truth).sum(dim=1) + DICE_SMOOTHING
    extent = (probability**2).sum(dim=1) + (truth**2).sum(dim=1) + DICE_SMOOTHING
    dice_loss = _mean_over((1.0 - overlap / extent), has_lesion)

    alarm = _mean_over(_alarm(scores, valid, count), ~has_lesion & (count > 0))
    total = cross_entropy + dice * dice_loss + false_alarm * alarm
    return {"loss": total, "cross_entropy": cross_entropy, "dice": dice_loss, "false_alarm": alarm}


def _alarm(scores: Tensor, valid: Tensor, count: Tensor) -> Tensor:
    """Mean -log(1 - p) over the 1 % (at least one) highest valid logits of each row of (B, N): (B,)."""
    wanted = (count * ALARM_SHARE).ceil().long().clamp(min=1)
    lowest = torch.finfo(scores.dtype).min
    most = math.ceil(scores.shape[1] * ALARM_SHARE)
    highest = scores.masked_fill(~valid, lowest).topk(most, dim=1).values
    rank = torch.arange(highest.shape[1], device=scores.device)
    chosen = (rank < wanted[:, None]) & (highest > lowest)
    return functional.softplus(highest.masked_fill(~chosen, lowest)).sum(dim=1) / wanted


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of ``values`` (B,) over ``chosen`` (B,) bool; 0, with a gradient of 0, where none is chosen."""
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)
