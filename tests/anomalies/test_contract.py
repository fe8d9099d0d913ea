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
    LEAST_VISIBLE_SHARE,
    VISIBLE_CHANGE,
    Donor,
    Donors,
    finish,
    unchanged,
    with_extent,
)
from hybriduad.config.strict import checked
from hybriduad.core import plugins, rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Corruption

NAMES = plugins.names("anomalies")
PAINTED = {"lesion", "perlin", "transplant"}
"""Whose extent is where the paint shows; all others state theirs."""
OPACITY = {"foreign-patch", "poisson"}
"""Whose visibility is the factor of blending."""
FOREIGN = {"foreign-patch", "poisson", "texture-swap", "transplant"}
"""Who takes tissue of donors."""
ONE_SIGN = {
    "transplant": "as the lesions of its donors, which are bright here",
    "atrophy-cavity": "as dark or bright as fluid is on the contrast",
}
"""Who does not make tissue darker as well as brighter, and why."""


def global_state() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002


def donors(shape: tuple[int, ...], coarser: float = 1.0) -> Donors:
    """Other heads; where a lesion is asked for, each has a bright ball, and the last of them none.

    ``coarser``: their spacing in plane, relative to that of the heads that are painted.
    """

    def draw(generator: np.random.Generator, *, labelled: bool) -> Donor:
        number = int(generator.integers(4))
        image, brain = head(shape, 20 + number)
        spacing = (coarser * SPACING_MM[0], coarser * SPACING_MM[1], 4.0)[: len(shape)]
        if not labelled:
            return Donor(image, brain, np.zeros(shape, bool), spacing)
        places = np.argwhere(ndimage.binary_erosion(brain, iterations=3))
        place = places[rng.numpy_rng(number, "donor").integers(len(places))]
        seed = np.ones(shape)
        seed[tuple(place)] = 0
        lesion = (ndimage.distance_transform_edt(seed, sampling=spacing) < 12) & brain
        lesion &= number < 3
        image[:2, lesion] = np.clip(image[:2, lesion] + np.float32(0.6), -1, 1)
        return Donor(image, brain, lesion, spacing)

    return draw


def problems(
    corrupt: Callable[..., Corruption],
    config: Any,
    shape: tuple[int, ...],
    draws: int,
    *,
    painted: bool = True,
    opacity: bool = False,
    coarser: float = 1.0,
) -> list[str]:
    """Every clause of the contract that ``corrupt`` breaks over ``draws`` keyed draws on heads of ``shape``."""
    broken: set[str] = set()
    heads = [head(shape, seed) for seed in range(4)]
    spacing = (*SPACING_MM, 4.0)[: len(shape)]
    before = global_state()
    given = donors(shape, coarser)
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
        broken |= faults(got, image, brain, painted=painted, opacity=opacity)
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


def faults(
    got: Corruption, image: np.ndarray, brain: np.ndarray, *, painted: bool = True, opacity: bool = False
) -> set[str]:
    """What is wrong with a corruption; ``painted``: its lesion is where it shows; ``opacity``: its visibility is."""
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
        visible = got.lesion & (most > VISIBLE_CHANGE)
        if painted and (got.lesion & ~visible).any():
            broken.add("unchanged voxel labelled")
        if visible.sum() < LEAST_VISIBLE_SHARE * got.lesion.sum():
            broken.add("too little of the extent visible")
        if not visible.any() or most[visible].mean() < 0.05:
            broken.add("too faint")
        if (change[~absent][:, got.lesion].max(axis=1) <= VISIBLE_CHANGE).any():
            broken.add("present contrast unchanged")
        soft = got.visibility[got.lesion]
        if opacity and (soft.min() != soft.max() or soft.min() <= 0):
            broken.add("visibility wrong")
        if not opacity and not np.allclose(soft, 1 - np.exp(-(most[got.lesion] ** 2) / 0.08), atol=1e-5):
            broken.add("visibility wrong")
    elif change.any() or got.ignore.any():
        broken.add("changed without a lesion")
    return broken


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "draws", "coarser"),
    [((96, 96), 64, 1.0), ((48, 56, 16), 12, 1.0), ((96, 96), 12, 0.75), ((96, 96), 12, 1.4)],
)
def test_every_generator_keeps_the_contract(name: str, shape: tuple[int, ...], draws: int, coarser: float) -> None:
    module = plugins.load("anomalies", name)
    kinds = {"painted": name in PAINTED, "opacity": name in OPACITY}
    assert problems(module.corrupt, module.Config(name=name), shape, draws, coarser=coarser, **kinds) == []


@pytest.mark.parametrize("name", NAMES)
def test_only_who_says_so_asks_for_labelled_donors(name: str) -> None:
    module = plugins.load("anomalies", name)
    given, asked = donors((96, 96)), set()

    def draw(generator: np.random.Generator, *, labelled: bool) -> Donor:
        asked.add(labelled)
        return given(generator, labelled=labelled)

    for key in range(16):
        image, brain = head((96, 96), key % 4)
        draws = rng.numpy_rng(7, key)
        module.corrupt(module.Config(name=name), image, brain, draws, spacing_mm=SPACING_MM, donors=draw)
    labelled = getattr(module, "NEEDS_LABELS", False)
    assert asked == ({labelled} if name in FOREIGN else set())


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_tissue_of_a_donor_is_brought_to_the_millimetres_of_the_image(name: str) -> None:
    """A donor at twice the spacing, of the same head, gives what the donor at the spacing of the image gives."""
    module = plugins.load("anomalies", name)
    config = module.Config(name=name, **({} if name == "transplant" else {"same_scan": 0.0}))
    image, brain = head((96, 96), 21)
    image = np.where(image == -1, -1, ndimage.gaussian_filter(image, (0, 2, 2))).astype(np.float32)
    lesion = (np.hypot(*(np.indices((96, 96)).T - (40, 56)).T) < 12) & brain
    image[:2, lesion] += np.float32(0.5)
    fine = Donor(image, brain, lesion, SPACING_MM)
    coarse_image = np.full_like(image, -1)
    coarse_image[:, 24:72, 24:72] = image[:, ::2, ::2]
    masks = np.zeros((2, 96, 96), bool)
    masks[:, 24:72, 24:72] = np.stack([brain, lesion])[:, ::2, ::2]
    coarse = Donor(coarse_image, *masks, (2 * SPACING_MM[0], 2 * SPACING_MM[1]))

    def lesion_free(donor: Donor) -> Donor:
        return replace(donor, lesion=np.zeros_like(donor.lesion))

    shares, differences = [], []
    for key in range(8):
        image, brain = head((96, 96), key % 4)
        both = [
            module.corrupt(
                config,
                image,
                brain,
                rng.numpy_rng(9, key),
                spacing_mm=SPACING_MM,
                donors=lambda _, *, labelled, donor=donor: donor if labelled else lesion_free(donor),
            )
            for donor in (fine, coarse)
        ]
        inside = both[0].lesion | both[1].lesion
        if not inside.any():
            continue
        shares.append((both[0].lesion & both[1].lesion).sum() / inside.sum())
        painted = np.abs(both[0].image - image)[:2, inside].mean()
        differences.append(np.abs(both[0].image - both[1].image)[:2, inside].mean() / painted)
    assert len(shares) >= 6
    assert np.median(shares) > 0.85
    assert np.median(differences) < 0.3


def draws(name: str, count: int, change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> list[Any]:
    """Clean images and corruptions of the first ``count`` keys on the heads that ``change`` alters."""
    module = plugins.load("anomalies", name)
    given = donors((96, 96))
    pairs = []
    for key in range(count):
        image, brain = head((96, 96), key % 4)
        image = change(image).astype(np.float32)
        drawn = module.corrupt(
            module.Config(name=name), image, brain, rng.numpy_rng(7, key), spacing_mm=SPACING_MM, donors=given
        )
        pairs.append((image, drawn))
    return pairs


@pytest.mark.parametrize("name", sorted(set(NAMES) - PAINTED))
def test_an_extent_that_is_stated_does_not_shrink_with_the_change_that_shows(name: str) -> None:
    def faint(image: np.ndarray) -> np.ndarray:
        return np.where(image == -1, -1, image * np.float32(0.7) - np.float32(0.1))

    plain, fainter = draws(name, 24), draws(name, 24, faint)
    both = [
        (a.lesion, b.lesion) for (_, a), (_, b) in zip(plain, fainter, strict=True) if a.lesion.any() and b.lesion.any()
    ]
    assert len(both) >= 16
    assert np.mean([np.array_equal(a, b) for a, b in both]) >= 0.75  # a draw too faint may have been repeated


@pytest.mark.parametrize("name", ["coarse-noise", "foreign-patch", "poisson", "texture-swap", "warp"])
def test_what_looks_as_before_inside_an_extent_is_lesion(name: str) -> None:
    hidden = [got.lesion & (np.abs(got.image - image).max(axis=0) <= VISIBLE_CHANGE) for image, got in draws(name, 12)]
    assert np.mean([mask.any() for mask in hidden]) > 0.3


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(ONE_SIGN)))
def test_tissue_gets_darker_as_well_as_brighter(name: str) -> None:
    shifts = [(got.image - image)[:2, got.lesion].mean(axis=1) for image, got in draws(name, 40) if got.lesion.any()]
    brighter = np.mean(np.array(shifts) > 0, axis=0)
    assert brighter.min() >= 0.05
    assert brighter.max() <= 0.95


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


def honest_extent(config: Any, image: np.ndarray, brain: np.ndarray, draw: np.random.Generator, **_: Any) -> Corruption:
    """A square of which a corner looks as before, and that is stated whole."""
    got = honest(config, image, brain, draw)
    changed = got.image.copy()
    corner = tuple(np.argwhere(got.lesion)[0])
    changed[:, *corner] = image[:, *corner]
    return with_extent(image, changed, got.lesion, brain)


def one_opacity(config: Any, image: np.ndarray, brain: np.ndarray, draw: np.random.Generator, **_: Any) -> Corruption:
    got = honest(config, image, brain, draw)
    return with_extent(image, got.image, got.lesion, brain, opacity=0.5)


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
    assert problems(honest_extent, SimpleNamespace(), (96, 96), 8, painted=False) == []
    assert problems(honest_extent, SimpleNamespace(), (96, 96), 8) == ["unchanged voxel labelled"]
    assert problems(one_opacity, SimpleNamespace(), (96, 96), 8, painted=False, opacity=True) == []
    assert problems(one_opacity, SimpleNamespace(), (96, 96), 8, painted=False) == ["visibility wrong"]
    assert "too little of the extent visible" in problems(
        labels_unchanged, SimpleNamespace(), (96, 96), 8, painted=False
    )


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
