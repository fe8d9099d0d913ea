"""From images and reconstructions to anomaly scores: SSIM, residuals, levels, median filter, fusion.

Pure functions. Slice by slice and element by element: nothing depends on batch-mates, on other slices (but for the
median filter along a finely sampled slice axis) or on the scan's range, so that a threshold keeps its meaning.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from hybriduad.core.errors import ConfigError, DataError

ResidualKind = Literal["ssim", "absolute", "positive", "negative"]
Combination = Literal["arithmetic", "geometric"]
FusionForm = Literal["sum", "product"]
Map = TypeVar("Map", np.ndarray, Tensor)

SSIM_C1 = 1e-4
SSIM_C2 = 9e-4
SSIM_SIGMA = 1.0
SSIM_RADIUS = 4
WINDOW_SAMPLES = 2**17
"""Samples of windows that the median filter sorts at once: as many as a processor's cache holds."""
# Added to a map before its logarithm: a level without a residual lowers a voxel, but does not cancel other levels.
GEOMETRIC_FLOOR = 1e-3


def to_unit(image: Tensor) -> Tensor:
    """Map model intensities [-1, 1] to [0, 1] in float32 (same shape); what lies outside is clipped."""
    return ((image.float() + 1.0) / 2.0).clamp(0.0, 1.0)


def _gaussian_window(values: Tensor) -> Tensor:
    """Gaussian mean over 9x9 pixels of (..., H, W), separable; sums of shifts, bit-equal alone and in a batch."""
    weights = [math.exp(-0.5 * (offset / SSIM_SIGMA) ** 2) for offset in range(-SSIM_RADIUS, SSIM_RADIUS + 1)]
    weights = [weight / sum(weights) for weight in weights]
    for axis in (-2, -1):
        length = values.shape[axis] - 2 * SSIM_RADIUS
        shifted = (values.narrow(axis, offset, length) * weight for offset, weight in enumerate(weights))
        total = next(shifted)
        for term in shifted:
            total = total + term
        values = total
    return values


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity at every pixel (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    ``a`` and ``b`` are (B, C, H, W) in [-1, 1], compared as images in [0, 1] with data range 1, C1 = 1e-4,
    C2 = 9e-4 and a Gaussian window of sigma 1 over 9x9 pixels, population moments, borders mirrored. The result is
    (B, C, H, W) float32 in [-1, 1], 1 where the two agree.

    Raises:
        DataError: the shapes differ, or a slice is under 5x5 pixels.
    """
    if a.shape != b.shape or a.dim() != 4 or min(a.shape[-2:]) <= SSIM_RADIUS:
        raise DataError(
            "images that cannot be compared",
            where="ssim_map",
            got=f"{tuple(a.shape)} and {tuple(b.shape)}",
            expected=f"two equal shapes (B, C, H, W) with H and W over {SSIM_RADIUS}",
        )
    x, y = (functional.pad(to_unit(image), (SSIM_RADIUS,) * 4, mode="reflect") for image in (a, b))
    # Second moments about 0.5, not 0, and var(x - y) in place of the covariance: less cancellation in float32.
    x, y = x - 0.5, y - 0.5
    mean_x, mean_y = _gaussian_window(x), _gaussian_window(y)
    variance = _gaussian_window(x * x + y * y) - mean_x * mean_x - mean_y * mean_y
    difference = _gaussian_window((x - y) ** 2) - (mean_x - mean_y) ** 2
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x * mean_x + mean_y * mean_y + SSIM_C1)
    return luminance * (1.0 - difference / (variance + SSIM_C2))


def residual_map(image: Tensor, reconstruction: Tensor, kind: ResidualKind, valid: Tensor | None = None) -> Tensor:
    """How far a reconstruction is from its image: (B, H, W) float32 in [0, 1].

    At each voxel it is the mean over the contrasts that cover it, 0 where none does. ``image`` and ``reconstruction``
    are (B, C, H, W) in [-1, 1]; ``valid`` (B, C, H, W) bool, where each contrast has voxels, everywhere by default. On
    images x and r mapped to [0, 1], ``ssim`` is clip(1 - SSIM, 0, 1), ``absolute`` |x - r|, ``positive`` max(x - r, 0)
    and ``negative`` max(r - x, 0). In windows of SSIM that reach over the edge of what a contrast covers, the
    reconstruction counts as equal to the image beyond it: what a network makes of missing voxels is no residual.

    Raises:
        ConfigError: unknown ``kind``.
        DataError: shapes that do not fit.
    """
    if image.shape != reconstruction.shape or (valid is not None and valid.shape != image.shape):
        raise DataError(
            "shapes that do not fit",
            where="residual_map",
            got=f"{tuple(image.shape)}, {tuple(reconstruction.shape)}"
            + ("" if valid is None else f", valid {tuple(valid.shape)}"),
            expected="(B, C, H, W) each",
        )
    if valid is not None:
        reconstruction = torch.where(valid, reconstruction.to(image), image)
    if kind == "ssim":
        residual = (1.0 - ssim_map(image, reconstruction)).clamp(0.0, 1.0)
    elif kind in ("absolute", "positive", "negative"):
        difference = to_unit(image) - to_unit(reconstruction)
        residual = {
            "absolute": difference.abs,
            "positive": lambda: difference.clamp(min=0.0),
            "negative": lambda: (-difference).clamp(min=0.0),
        }[kind]()
    else:
        raise ConfigError("unknown residual", got=repr(kind), expected="ssim, absolute, positive or negative")
    if valid is None:
        return residual.mean(dim=1)
    weight = valid.to(residual)
    return torch.where(weight > 0, residual, 0.0).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def combine_levels(maps: Tensor, how: Combination) -> Tensor:
    """Combine the maps of K levels and repeats, (K, ...) in [0, 1], into a map (...) in [0, 1].

    ``arithmetic`` is the mean. ``geometric`` is exp(mean(log(map + 0.001))) - 0.001, which ranks voxels that are
    abnormal at every level above those of one level; where all maps are 0 it is 0, where all are equal it keeps them.

    Raises:
        ConfigError: unknown ``how``.
        DataError: no map at all.
    """
    if maps.shape[0] == 0:
        raise DataError("no level to combine", where="combine_levels", got=tuple(maps.shape), expected="K >= 1")
    if how == "arithmetic":
        return maps.mean(dim=0)
    if how == "geometric":
        mean = ((maps + GEOMETRIC_FLOOR).log().mean(dim=0)).exp() - GEOMETRIC_FLOOR
        return torch.where(maps.amax(dim=0) > 0, mean, 0.0).clamp(0.0, 1.0)
    raise ConfigError("unknown combination of levels", got=repr(how), expected="arithmetic or geometric")


def median_filter_volume(
    values: np.ndarray, spacing_mm: Sequence[float], brain: np.ndarray, length_mm: float
) -> np.ndarray:
    """Median filter of a map (H, W, S), 0 outside ``brain`` (H, W, S) bool; float32.

    The window is a cube of ``length_mm``, 0 for no filter. A voxel counts by the share of it that the window covers
    along every axis, the middle voxel fully (:func:`window_shares`), and the result is the mean of the middle of
    the sorted values, as much of them as one whole voxel weighs. Where all shares are whole that is the usual median,
    and it is continuous in the spacing, unlike a weighted median that gives a single value. Borders are mirrored, as
    in ``scipy.ndimage.median_filter``. Values outside the brain count as they are in windows that reach over its edge:
    those of a map that is 0 there, as every detector's is, pull the edge down. They are 0 afterwards.

    Raises:
        ConfigError: ``length_mm`` is negative.
        DataError: shapes that do not fit.
    """
    if not length_mm >= 0:
        raise ConfigError("window of the median filter", got=f"{length_mm} mm", expected="0 mm or more")
    if values.shape != brain.shape or len(spacing_mm) != values.ndim:
        raise DataError(
            "shapes that do not fit",
            where="median_filter_volume",
            got=f"map {values.shape}, brain {brain.shape}, spacing {tuple(spacing_mm)}",
            expected="equal shapes and one spacing an axis",
        )
    result = np.zeros(values.shape, np.float32)
    shares = [window_shares(spacing, length_mm) for spacing in spacing_mm]
    weights = functools.reduce(np.multiply.outer, shares)
    padded = np.pad(values.astype(np.float32), [(n // 2, n // 2) for n in weights.shape], mode="symmetric")
    # Only the windows of brain voxels are gathered: 5 times as fast as scipy's filter, and the same numbers.
    windows = sliding_window_view(padded, weights.shape)
    places = np.argwhere(brain)
    for part in np.array_split(places, max(1, math.ceil(len(places) * weights.size / WINDOW_SAMPLES))):
        where = tuple(part.T)
        result[where] = _middle(windows[where].reshape(len(part), weights.size), weights.ravel())
    return result


def window_shares(spacing_mm: float, length_mm: float) -> np.ndarray:
    """The share of each voxel along an axis that a window of ``length_mm`` around the middle voxel covers: (n,), n odd.

    The voxel in the middle counts as 1 even where it is longer than the window, which then covers no other.
    """
    reach = math.ceil(length_mm / (2 * spacing_mm) + 0.5)
    distance = np.abs(np.arange(-reach, reach + 1))
    # Rounded, since the spacing is only known as well as a header's float32.
    shares = np.clip(length_mm / (2 * spacing_mm) + 0.5 - distance, 0.0, 1.0).round(5)
    shares[reach] = 1.0
    covered: np.ndarray = shares[shares > 0]
    return covered


def _middle(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the middle of each sorted row of ``samples`` (N, n), as much as weighs 1; ``weights`` (n,) hold a 1."""
    count = len(weights)
    if (weights == 1).all():
        return np.partition(samples, count // 2, axis=1)[:, count // 2]
    order = np.argsort(samples, axis=1)
    middle = weights.sum() / 2
    passed = np.cumsum(weights[order], axis=1).clip(middle - 0.5, middle + 0.5)
    taken = np.diff(passed, axis=1, prepend=middle - 0.5)
    mean: np.ndarray = (np.take_along_axis(samples, order, axis=1) * taken).sum(axis=1)
    return mean


def smooth_across_slices(values: np.ndarray, spacing_mm: float, brain: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Gaussian mean of a map (H, W, S) along its slices, over brain alone; (H, W, S) float32, 0 outside the brain.

    ``spacing_mm`` is the distance of the slices and ``sigma_mm`` the standard deviation, cut at 3 of them. Outlines
    within a slice stay as sharp as they are; what lies outside ``brain`` (H, W, S) bool has no weight.

    Raises:
        DataError: shapes that do not fit.
    """
    if values.shape != brain.shape:
        raise DataError(
            "shapes that do not fit",
            where="smooth_across_slices",
            got=f"map {values.shape}, brain {brain.shape}",
            expected="equal shapes",
        )
    region = brain.astype(np.float32)
    weighted, weight = (
        ndimage.gaussian_filter1d(field, sigma_mm / spacing_mm, axis=-1, mode="constant", truncate=3.0)
        for field in (values.astype(np.float32) * region, region)
    )
    mean = np.divide(weighted, weight, out=np.zeros_like(weighted), where=brain.astype(bool))
    return mean.clip(0.0, 1.0)


def fuse(map: Map | None, probability: Map | None, form: FusionForm, weight: float, floor: float = 0.0) -> Map:
    """Fuse a reconstruction's map x and a segmenter's probability y, both in [0, 1] and of one shape, into a score.

    ``sum`` is (w x + y) / (w + 1), which ranks as the paper's x + y for w = 1; ``product`` is x^w (f + (1 - f) y):
    with a ``floor`` f above 0 a segmenter that knows nothing of a lesion does not silence the map. The result is in
    [0, 1]. Where either is ``None`` the score is the other. Takes numpy arrays or tensors.

    Raises:
        ConfigError: unknown form, negative weight or a floor outside [0, 1).
        DataError: both are ``None``, or their shapes differ.
    """
    if form not in ("sum", "product") or not weight >= 0 or not 0 <= floor < 1:
        raise ConfigError(
            "unknown fusion",
            got=f"{form!r} with weight {weight} and floor {floor}",
            expected="sum or product, weight >= 0, floor in [0, 1)",
        )
    if map is None or probability is None:
        alone = probability if map is None else map
        if alone is None:
            raise DataError("nothing to fuse", where="fuse", expected="a map, a probability, or both")
        return alone
    if map.shape != probability.shape:
        raise DataError("shapes that do not fit", where="fuse", got=f"{tuple(map.shape)}, {tuple(probability.shape)}")
    if form == "sum":
        return ((weight * map + probability) / (weight + 1.0)).clip(0.0, 1.0)
    return weigh(map**weight, probability, 1.0, floor)


def weigh(score: Map, witness: Map, weight: float, floor: float = 0.0) -> Map:
    """A score times (f + (1 - f) z)^w of another witness z, all in [0, 1] and of one shape; arrays or tensors.

    Raises:
        DataError: their shapes differ.
    """
    if score.shape != witness.shape:
        raise DataError("shapes that do not fit", where="weigh", got=f"{tuple(score.shape)}, {tuple(witness.shape)}")
    return (score * (floor + (1.0 - floor) * witness) ** weight).clip(0.0, 1.0)
