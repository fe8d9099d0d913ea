"""Alterations of a training slice that leave its diagnosis as it was; the only torchio user.

Intensities are altered by torchio (DOI 10.1016/j.cmpb.2021.106236), which draws from torch's generator: it is forked
and seeded by the sample's generator, so the global generator stays where it was. Geometry is torchvision's, at a tenth
of the time of a resampling in three dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hybriduad.anomalies._base import present
from hybriduad.config.runs import Augmentation
from hybriduad.core.types import BACKGROUND

STRIPPED_SCALE = (0.95, 1.35)
"""How much larger a slice whose head is removed appears: the grid is laid around what is left of it."""


def augment(
    config: Augmentation,
    image: np.ndarray,
    valid: np.ndarray,
    masks: np.ndarray,
    rng: np.random.Generator,
    *,
    sided: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Alter one slice: image (C, H, W) in [-1, 1], where it is valid and its masks (M, H, W), both bool, moved alike.

    The first of the masks is the brain: of a share ``stripped`` nothing else is left, as in scans of labs that remove
    the skull, and it fills the slice as there.

    Returns new arrays of the same shapes; the image stays in [-1, 1], and background where it is not valid and in an
    absent contrast. Of several contrasts some may become absent, never all. ``sided``: H runs from left to right, the
    only way in which a slice is flipped.
    """
    chosen = {name: rng.random() < getattr(config, name) for name in type(config).model_fields if name != "stripped"}
    seed = int(rng.integers(2**62))
    if config.stripped and rng.random() < config.stripped:  # drawn last: without it the slices of a seed stay the same
        image = np.where(masks[0], image, np.float32(BACKGROUND))
        image, valid, masks = _moved(image, valid, masks, 0.0, float(rng.uniform(*STRIPPED_SCALE)), [0.0, 0.0])
    if chosen.pop("absent"):
        image, valid = _without_some(image, valid, rng)
    if chosen.pop("flip") and sided:
        image, valid, masks = image[:, ::-1], valid[:, ::-1], masks[:, ::-1]
    if chosen.pop("affine"):
        angle, scale = float(rng.uniform(-12, 12)), float(rng.uniform(0.88, 1.12))
        shift = [float(pixels) for pixels in rng.uniform(-4, 4, size=2)]
        image, valid, masks = _moved(image, valid, masks, angle, scale, shift)
    steps = [name for name, on in chosen.items() if on]
    if steps:
        image = _altered(steps, image, seed)
    image = np.where(valid, image, BACKGROUND).astype(np.float32)
    return np.ascontiguousarray(image), np.ascontiguousarray(valid), np.ascontiguousarray(masks)


def _without_some(image: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    there = np.flatnonzero(present(image))
    if len(there) < 2:
        return image, valid
    hidden = rng.permutation(there)[: int(rng.integers(1, len(there)))]
    image, valid = image.copy(), valid.copy()
    image[hidden], valid[hidden] = BACKGROUND, False
    return image, valid


def _moved(
    image: np.ndarray, valid: np.ndarray, masks: np.ndarray, angle: float, scale: float, shift: list[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    bilinear, nearest = InterpolationMode.BILINEAR, InterpolationMode.NEAREST
    # Shifted so that the background is 0: another fill would be blended wrongly along the border.
    source = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32) - BACKGROUND)
    moved = affine(source, angle, shift, scale, [0.0, 0.0], interpolation=bilinear, fill=[0.0]) + BACKGROUND
    labels = torch.from_numpy(np.ascontiguousarray(masks).astype(np.uint8))
    moved_labels = affine(labels, angle, shift, scale, [0.0, 0.0], interpolation=nearest, fill=[0.0])
    if not valid.all():
        # A pixel interpolated from an invalid pixel is invalid too. Beyond the edge lies background, which is known.
        missing = torch.from_numpy(np.ascontiguousarray(~valid, dtype=np.float32))
        drawn = affine(missing, angle, shift, scale, [0.0, 0.0], interpolation=bilinear, fill=[0.0])
        valid = (drawn.numpy() < 1e-4) & valid.any(axis=(1, 2), keepdims=True)
    return moved.numpy().clip(-1.0, 1.0), valid, moved_labels.numpy() > 0


def _altered(steps: list[str], image: np.ndarray, seed: int) -> np.ndarray:
    import torch
    import torchio

    absent = ~present(image)
    unit = torch.from_numpy((np.ascontiguousarray(image, dtype=np.float32)[..., None] + 1.0) / 2.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in steps:
            # Every contrast by itself: they are acquired in turn, and the shading of a coil differs between them.
            unit = torch.cat([_transform(torchio, step)(contrast) for contrast in unit.split(1)])
    altered: np.ndarray = unit.numpy()[..., 0].clip(0.0, 1.0) * 2.0 - 1.0
    altered[absent] = BACKGROUND
    return altered


def _transform(torchio: Any, step: str) -> Any:
    """One torchio transform; the strengths are those under which a slice still looks like a slice of a scanner."""
    return {
        "gamma": lambda: torchio.RandomGamma(log_gamma=(-0.25, 0.25)),
        "bias": lambda: torchio.RandomBiasField(coefficients=0.35, order=2),
        "blur": lambda: torchio.RandomBlur(std=(0.0, 0.8, 0.0, 0.8, 0.0, 0.0)),
        "noise": lambda: torchio.RandomNoise(std=(0.0, 0.02)),
        "ghosting": lambda: torchio.RandomGhosting(num_ghosts=(2, 6), axes=(0, 1), intensity=(0.1, 0.4)),
    }[step]()
