"""The contract of every anomaly generator, and that the check of the contract rejects fakes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from heads import SPACING_MM, head
from scipy import ndimage

from hybriduad.anomalies._base import (
    VISIBLE_CHANGE,
    Donors,
    finish,
    unchanged,
)
from hybriduad.config.strict import checked
from hybriduad.core import plugins, rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption

NAMES = plugins.names("anomalies")


def global_state() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002


def donors(shape: tuple[int, ...]) -> Donors:
    """Other heads, each with a bright ball as its lesion; the last of them has none."""

    def draw(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number = int(generator.integers(4))
        image, brain = head(shape, 20 + number)
        places = np.argwhere(ndimage.binary_erosion(brain, iterations=3))
        place = places[rng.numpy_rng(number, "donor").integers(len(places))]
        seed = np.ones(shape)
        seed[tuple(place)] = 0
        lesion = (ndimage.distance_transform_edt(seed, sampling=(*SPACING_MM, 4.0)[: len(shape)]) < 12) & brain
        lesion &= number < 3
        image[:2, lesion] = np.clip(image[:2, lesion] + np.float32(0.6), -1, 1)
        return image, brain, lesion

    return draw


def problems(corrupt: Callable[..., Corruption], config: Any, shape: tuple[int, ...], draws: int) -> list[str]:
    """Every clause of the contract that ``corrupt`` breaks over ``draws`` keyed draws on heads of ``shape``."""
    broken: set[str] = set()
    heads = [head(shape, seed) for seed in range(4)]
    spacing = (*SPACING_MM, 4.0)[: len(shape)]
    before = global_state()
    given = donors(shape)
    lesions, results = 0, []
    for key in range(draws):
        image, brain = heads[key % len(heads)]
        kept_image, kept_brain = image.copy(), brain.copy()
        got = corrupt(config, image, brain, rng.numpy_rng(7, key), spacing_mm=spacing, donors=given)
        if not (np.array_equal(image, kept_image) and np.array_equal(brain, kept_brain)):
            broken.add("arguments modified")
            image[...], brain[...] = kept_image, kept_brain
        again = corrupt(config, image, brain, rng.numpy_rng(7, key), spacing_mm=spacing, donors=given)
        if not all(np.array_equal(a, b) for a, b in zip(vars(got).values(), vars(again).values(), strict=True)):
            broken.add("same key, another result")
        broken |= faults(got, image, brain)
        lesions += bool(got.lesion.any())
        if key % len(heads) == 0 and got.lesion.any():
            results.append(got.image.tobytes())
    if lesions < 0.8 * draws:
        broken.add("too few lesions")
    if len(set(results)) < len(results):
        broken.add("another key, same result")
    if global_state() != before:
        broken.add("global generator touched")
    return sorted(broken)


def faults(got: Corruption, image: np.ndarray, brain: np.ndarray) -> set[str]:
    """What is wrong with one corruption."""
    types = (got.image.dtype, got.lesion.dtype, got.visibility.dtype, got.ignore.dtype)
    if types != (np.float32, bool, np.float32, bool) or got.image.shape != image.shape:
        return {"wrong types"}
    if not np.isfinite(got.image).all() or np.abs(got.image).max() > 1:
        return {"out of range"}
    broken = set()
    change = np.abs(got.image - image)
    most = change.max(axis=0)
    if (got.lesion & ~brain).any() or (got.ignore & ~brain).any():
        broken.add("outside the brain")
    if (most[~(got.lesion | got.ignore)] > 1e-6).any():
        broken.add("changed outside lesion and ignore")
    if (got.lesion & got.ignore).any():
        broken.add("lesion and ignored at once")
    if (got.visibility[~got.lesion] != 0).any() or got.visibility.min() < 0 or got.visibility.max() > 1:
        broken.add("visibility wrong")
    absent = (image == -1).all(axis=tuple(range(1, image.ndim)))
    if change[absent].any():
        broken.add("absent contrast changed")
    if got.lesion.any():
        if (most[got.lesion] <= VISIBLE_CHANGE).any():
            broken.add("unchanged voxel labelled")
        if most[got.lesion].mean() < 0.05:
            broken.add("too faint")
        if (change[~absent][:, got.lesion].max(axis=1) <= VISIBLE_CHANGE).any():
            broken.add("present contrast unchanged")
        if not np.allclose(got.visibility[got.lesion], 1 - np.exp(-(most[got.lesion] ** 2) / 0.08), atol=1e-5):
            broken.add("visibility wrong")
    elif change.any() or got.ignore.any():
        broken.add("changed without a lesion")
    return broken


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "draws"), [((96, 96), 64), ((48, 56, 16), 12)])
def test_every_generator_keeps_the_contract(name: str, shape: tuple[int, ...], draws: int) -> None:
    module = plugins.load("anomalies", name)
    assert problems(module.corrupt, module.Config(name=name), shape, draws) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_generator_leaves_a_slice_without_brain(name: str) -> None:
    module = plugins.load("anomalies", name)
    image, brain = head((64, 64), 0)
    few = np.zeros_like(brain)
    few[30:33, 30:33] = True
    empty = np.zeros_like(brain)
    background = np.full_like(image, -1)
    for picture, mask in [(image, few), (image, empty), (background, brain)]:
        got = module.corrupt(
            module.Config(name=name), picture, mask, rng.numpy_rng(0), spacing_mm=SPACING_MM, donors=None
        )
        assert np.array_equal(got.image, picture)
        assert not any(part.any() for part in (got.lesion, got.ignore, got.visibility))


@pytest.mark.parametrize("name", NAMES)
def test_every_generator_refuses_unknown_keys_and_names_the_nearest(name: str) -> None:
    config = plugins.load("anomalies", name).Config
    key = next(field for field in config.model_fields if field != "name")
    with pytest.raises(ConfigError, match=key):
        checked(config, {"name": name, key + "x": 1}, "test")


def honest(config: Any, image: np.ndarray, brain: np.ndarray, draw: np.random.Generator, **_: Any) -> Corruption:
    """A square made brighter or darker: the least that keeps the contract; the fakes below break it."""
    places = np.argwhere(ndimage.binary_erosion(brain, iterations=4))
    place = places[draw.integers(len(places))]
    square = np.zeros_like(brain)
    square[tuple(slice(p - 3, p + 4) for p in place)] = True
    changed = image + np.where(square & brain, np.where(image > 0, -0.3, 0.3) * draw.uniform(0.8, 1.2), 0)
    return finish(image, changed, square, np.zeros_like(brain), brain)


def outside(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    return replace(got, lesion=got.lesion | ~args[2])


def labels_unchanged(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    return replace(got, lesion=args[2])


def leaks(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    return replace(got, image=np.where(args[2] & ~got.lesion, got.image * np.float32(0.9), got.image))


def modifies(config: Any, image: np.ndarray, *args: Any, **named: Any) -> Corruption:
    got = honest(config, image, *args, **named)
    image[...] = got.image
    return got


def global_noise(config: Any, image: np.ndarray, brain: np.ndarray, draw: Any, **named: Any) -> Corruption:
    return honest(config, image, brain, np.random.default_rng(np.random.randint(1 << 30)), **named)  # noqa: NPY002


def torch_noise(*args: Any, **named: Any) -> Corruption:
    torch.rand(1)
    return honest(*args, **named)


def always_the_same(config: Any, image: np.ndarray, brain: np.ndarray, draw: Any, **named: Any) -> Corruption:
    return honest(config, image, brain, rng.numpy_rng(0), **named)


def nothing(config: Any, image: np.ndarray, *_: Any, **named: Any) -> Corruption:
    return unchanged(image)


def one_contrast(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    return replace(got, image=np.concatenate([got.image[:1], args[1][1:]]))


def absent_too(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    image = got.image.copy()
    image[2][got.lesion] = 0
    return replace(got, image=image)


def faint(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    return replace(got, image=args[1] + 0.1 * (got.image - args[1]))


def beyond(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    return replace(got, image=np.where(got.lesion, np.float32(1.5), got.image))


def sharp_label(*args: Any, **named: Any) -> Corruption:
    got = honest(*args, **named)
    return replace(got, visibility=got.lesion.astype(np.float32))


def test_the_check_passes_an_honest_generator() -> None:
    assert problems(honest, SimpleNamespace(), (96, 96), 8) == []
    assert problems(honest, SimpleNamespace(), (48, 56, 16), 4) == []


@pytest.mark.parametrize(
    ("fake", "complaint"),
    [
        (outside, "outside the brain"),
        (labels_unchanged, "unchanged voxel labelled"),
        (leaks, "changed outside lesion and ignore"),
        (modifies, "arguments modified"),
        (global_noise, "global generator touched"),
        (global_noise, "same key, another result"),
        (torch_noise, "global generator touched"),
        (always_the_same, "another key, same result"),
        (nothing, "too few lesions"),
        (one_contrast, "present contrast unchanged"),
        (absent_too, "absent contrast changed"),
        (faint, "too faint"),
        (beyond, "out of range"),
        (sharp_label, "visibility wrong"),
    ],
)
def test_the_check_rejects_fakes(fake: Callable[..., Corruption], complaint: str) -> None:
    assert complaint in problems(fake, SimpleNamespace(), (96, 96), 8)
