"""The contract of an anomaly generator, and its enforcement.

A generator is one file ``hybriduad/anomalies/<name>.py`` with a ``Config``, a subclass of
:class:`~hybriduad.config.strict.AnomalyConfig`, and::

    def corrupt(config, image, brain, rng, *, spacing_mm, donors) -> Corruption

``image`` (C, *space) float32 in [-1, 1], two or three spatial axes; ``brain`` (*space) bool; ``rng`` the only source of
randomness; ``spacing_mm`` one number an axis; ``donors`` gives other prepared images, or is ``None``. It is pure: the
arguments are not modified. The lesion lies inside the brain and is where the generator says that its anomaly
is: :func:`with_extent` keeps it also where a voxel happens to look as before (moved within the same tissue),
:func:`finish`, for what is painted, cuts it to the change that shows. Nothing changes outside lesion and ignore; every
present contrast changes, an absent contrast (all background) stays. Where the brain is too small, or the draw too
faint, the image comes back unchanged with an empty lesion; that is rare.

A generator that carries lesions over from its donors says ``NEEDS_LABELS = True``: it is only used where there are
labelled slices, and asks its donors for these. One whose keys go by the contrast has ``for_contrasts(config, contrasts)
-> Config`` beside ``corrupt``, which knows no names: what the keys mean on contrasts of these names, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from hybriduad.core.errors import ConfigError
from hybriduad.core.types import BACKGROUND, Corruption


@dataclass(frozen=True)
class Donor:
    """Another prepared image: ``image`` (C, *space) in [-1, 1], its ``brain`` and ``lesion`` (*space) bool.

    Every contrast that it has covers its lesion and, of a healthy donor, its brain; ``spacing_mm`` one number an axis.
    """

    image: np.ndarray
    brain: np.ndarray
    lesion: np.ndarray
    spacing_mm: tuple[float, ...]


class Donors(Protocol):
    """Draws another prepared image: of the same shape and with a lesion where ``labelled``, else lesion-free."""

    def __call__(self, rng: np.random.Generator, /, *, labelled: bool) -> Donor: ...


Value = TypeVar("Value", bool, float)

VISIBLE_CHANGE = 0.02
"""A voxel is part of a lesion only where a contrast changed by more than this, on the [-1, 1] range."""

LEAST_MEAN_CHANGE = 0.05
"""A lesion whose mean change is below this is no lesion: the image is left as it was."""

VISIBILITY_SIGMA = 0.2
"""Change at which the visibility of a lesion voxel reaches 0.39."""

LEAST_VISIBLE_SHARE = 0.2
"""An extent of which less than this share changed visibly is no lesion: the image is left as it was."""

MINIMUM_BRAIN_VOXELS = 64
"""A slice with less brain than this (the tip of the head) is left as it is."""


def present(image: np.ndarray) -> np.ndarray:
    """Which contrasts the image has: (C,) bool, False for a contrast that is background throughout."""
    return (image != BACKGROUND).any(axis=tuple(range(1, image.ndim)))


def per_contrast(value: Value | tuple[Value, ...], contrasts: int, key: str) -> tuple[Value, ...]:
    """A value for each of so many contrasts, of a config's ``key`` that is one value for all or lists them.

    Raises:
        ConfigError: it lists another number of values.
    """
    if not isinstance(value, tuple):
        return (value,) * contrasts
    if len(value) != contrasts:
        expected = f"one value, or one for each of {contrasts} contrasts"
        raise ConfigError("wrong number of contrasts", where=f"anomalies {key}", got=len(value), expected=expected)
    return value


def unchanged(image: np.ndarray) -> Corruption:
    """The image as it is, with an empty lesion."""
    space = image.shape[1:]
    return Corruption(
        image=image.astype(np.float32),
        lesion=np.zeros(space, bool),
        visibility=np.zeros(space, np.float32),
        ignore=np.zeros(space, bool),
    )


def finish(
    image: np.ndarray, changed: np.ndarray, lesion: np.ndarray, ignore: np.ndarray, brain: np.ndarray
) -> Corruption:
    """Keep what the contract allows of a change, and label it.

    Args:
        image: (C, *space) the clean image.
        changed: (C, *space) the image with the anomaly; values beyond [-1, 1] are clipped.
        lesion: (*space) bool, where the anomaly is meant to be; voxels outside the brain or hardly changed drop out.
        ignore: (*space) bool, where ``changed`` is kept without being lesion; the rest goes back to ``image``.
        brain: (*space) bool.

    Returns:
        A corruption whose visibility is 1 - exp(-d^2 / 2 sigma^2), d the largest change of a contrast and sigma
        :data:`VISIBILITY_SIGMA` (the soft label of the many-tasks paper, see ``method.md``), 0 outside the lesion.
    """
    image, changed, change = _allowed(image, changed)
    lesion = lesion & brain & (change > VISIBLE_CHANGE)
    if not lesion.any() or change[lesion].mean() < LEAST_MEAN_CHANGE:
        return unchanged(image)
    ignore = ignore & brain & ~lesion
    return Corruption(np.where(lesion | ignore, changed, image), lesion, _visibility(change, lesion), ignore)


def with_extent(
    image: np.ndarray, changed: np.ndarray, extent: np.ndarray, brain: np.ndarray, opacity: float | None = None
) -> Corruption:
    """Label a change by the extent that its generator states.

    Args:
        image: (C, *space) the clean image.
        changed: (C, *space) the image with the anomaly; values beyond [-1, 1] are clipped.
        extent: (*space) bool, where the anomaly is; all of it within the brain is lesion, visible or not.
        brain: (*space) bool.
        opacity: the factor in [0, 1] by which foreign tissue was blended in; the visibility of the whole extent.

    Returns:
        A corruption whose visibility is, without an ``opacity``, that of :func:`finish`. Where ``changed`` differs
        visibly outside the extent it is kept and ignored; fainter change goes back to ``image``. Unchanged where less
        than :data:`LEAST_VISIBLE_SHARE` of the extent changed visibly, or that share too little on average.
    """
    image, changed, change = _allowed(image, changed)
    lesion = extent & brain
    visible = lesion & (change > VISIBLE_CHANGE)
    if not visible.any() or visible.sum() < LEAST_VISIBLE_SHARE * lesion.sum():
        return unchanged(image)
    if change[visible].mean() < LEAST_MEAN_CHANGE:
        return unchanged(image)
    ignore = brain & ~lesion & (change > VISIBLE_CHANGE)
    visibility = (
        _visibility(change, lesion) if opacity is None else np.where(lesion, np.float32(opacity), np.float32(0))
    )
    return Corruption(np.where(lesion | ignore, changed, image), lesion, visibility, ignore)


def _allowed(image: np.ndarray, changed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both images as float32, ``changed`` in [-1, 1] and without absent contrasts; largest change of a contrast."""
    image = image.astype(np.float32)
    changed = np.clip(changed, -1, 1).astype(np.float32)
    changed[~present(image)] = BACKGROUND
    return image, changed, np.abs(changed - image).max(axis=0)


def _visibility(change: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    return np.where(lesion, 1 - np.exp(-(change**2) / (2 * VISIBILITY_SIGMA**2)), 0).astype(np.float32)
