"""Realistic lesions: one or several foci grown inside the brain, with irregular soft borders and a texture.

A focus is an ellipsoid's level set, roughened by noise on several scales and drawn towards tissue like that at its
centre, cut where it has the wanted area (2D) or volume (3D). Sizes are log-normal in millimetres. Inside, detail is
blurred and partly replaced by the local mean, then shifted brighter or darker under a texture, sometimes with a
core, down to a cavity as dark as fluid behind a thin rim; tissue around may be pushed outwards. The draws are broad on
purpose (subtle to obvious): the idea is that of the intensity-bias and mass-effect generators (DISYRE, arXiv
2311.15453; UNA, see ``method.md``).

:func:`draw` samples a description and :func:`~hybriduad.anomalies._painting.paint` applies it, so that a lesion can be
recorded, replayed, moved to another scan or set to a size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from hybriduad.anomalies._base import VISIBLE_CHANGE, Donors, per_contrast, present, unchanged
from hybriduad.anomalies._description import Filling, Focus, Lesion
from hybriduad.anomalies._noise import record_fractal
from hybriduad.anomalies._painting import (
    OUTLINE_OCTAVES,
    TEXTURE_OCTAVES,
    bounding_box,
    middle,
    nothing_to_paint,
    outline_steps,
    paint,
    texture_steps,
)
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.contrasts import LOOKS
from hybriduad.core.types import Corruption

Probability = Annotated[float, Field(ge=0, le=1)]


class Config(AnomalyConfig):
    """Sizes in millimetres, intensities on the model range [-1, 1], pairs are (lowest, highest).

    ``diameter_mm`` is that of the disc or ball of equal area or volume: log-normal with ``median_mm`` and ``ln_sigma``,
    cut to the pair. ``several``: probability of 2 to ``most_foci`` foci. ``softness_mm``: width of the border, beside
    that of a voxel. ``outline``: the share of lesion in a voxel from which it counts as lesion; less is ignored.
    ``bright``: probability of a lesion brighter than its tissue, one number or one a contrast in the bundle's order
    (about 0.8 FLAIR, 0.1 T1w, 0.9 T2w); ``inverted``: for every contrast, whether it is the probability of a darker
    one instead, so that by one draw a lesion is bright on FLAIR and dark on T1w. ``contrast``: how much brighter or
    darker, more often faint. ``texture``: its variation inside, relative to ``contrast``. ``core``, ``mass_effect``,
    ``follow_tissue``: probabilities; ``cavity``: that a core is hollow, and filled with fluid, which is bright where
    ``bright_fluid`` says so, once or for every contrast. Where ``inverted`` and ``bright_fluid`` are left out and the
    names of the contrasts are known, as in a training, they follow from those (:func:`for_contrasts`). The defaults
    cover the gliomas of 32 patients on FLAIR (slices: diameter 20 to 69 mm, contrast to the tissue around 0.17 to 0.76,
    10th to 90th percentile) and go further to small and faint lesions.
    """

    name: Literal["lesion"] = "lesion"
    median_mm: float = Field(28.0, gt=0)
    ln_sigma: float = Field(0.7, ge=0)
    diameter_mm: tuple[float, float] = (3.0, 90.0)
    several: Probability = 0.2
    most_foci: int = Field(8, ge=2)
    roughness: tuple[float, float] = (0.1, 0.5)
    follow_tissue: Probability = 0.7
    softness_mm: tuple[float, float] = (0.0, 8.0)
    outline: float = Field(0.5, gt=0, lt=1)
    bright: Probability | tuple[Probability, ...] = 0.8
    inverted: tuple[bool, ...] = Field((), exclude_if=lambda inverted: not inverted)
    contrast: tuple[float, float] = (0.15, 1.0)
    texture: tuple[float, float] = (0.0, 0.6)
    core: Probability = 0.35
    cavity: Probability = 0.5
    bright_fluid: bool | tuple[bool, ...] = Field(False, exclude_if=lambda bright: bright is False)
    mass_effect: Probability = 0.25

    @model_validator(mode="after")
    def _ordered(self) -> Config:
        for key in ("diameter_mm", "roughness", "softness_mm", "contrast", "texture"):
            low, high = getattr(self, key)
            if not 0 <= low <= high:
                raise ValueError(f"{key} must be two numbers, 0 <= lowest <= highest")
        if self.diameter_mm[0] == 0 or self.contrast[0] < 2 * VISIBLE_CHANGE:
            raise ValueError(f"diameter_mm must be above 0 and contrast at least {2 * VISIBLE_CHANGE}")
        return self


def for_contrasts(config: Config, contrasts: Sequence[str]) -> Config:
    """The config for contrasts of these names.

    Of contrasts on which lesions are bright and others on which they are dark, one number ``bright`` is of the former
    and counts inverted on the latter; numbers a contrast keep what they say, and their draws agree as far as they may.
    Where lesions look alike on all, ``bright`` stays as it is. The fluid of a cavity is as bright as fluid is.

    Raises:
        ConfigError: ``bright`` lists another number of contrasts.
    """
    looks = [LOOKS[name] for name in contrasts]
    dark = tuple(not look.bright_lesions for look in looks)
    changes: dict[str, Any] = {}
    if len(set(dark)) == 2 and not config.inverted:
        changes["inverted"] = dark
        if isinstance(config.bright, tuple):
            shares = per_contrast(config.bright, len(contrasts), "lesion.bright")
            changes["bright"] = tuple(1 - share if turn else share for share, turn in zip(shares, dark, strict=True))
    if any(look.bright_fluid for look in looks) and not config.bright_fluid:
        changes["bright_fluid"] = tuple(look.bright_fluid for look in looks)
    return config.model_copy(update=changes) if changes else config


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Draw one lesion (of one or several foci) and paint it into an image.

    Args:
        config: distributions of size, shape and intensity.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: not used.

    Returns:
        The corrupted image, its lesion, visibility and ignored voxels (faint border, tissue that moved).

    Raises:
        ConfigError: ``bright``, ``inverted`` or ``bright_fluid`` lists another number of contrasts than the image has.
    """
    _per_contrast(config, image.shape[0])
    if nothing_to_paint(image, brain):
        return unchanged(image)
    return paint(draw(config, present(image), brain, rng, spacing_mm=spacing_mm), image, brain, spacing_mm=spacing_mm)


def draw(
    config: Config,
    contrasts: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
) -> Lesion:
    """Draw the description of a lesion.

    Args:
        config: distributions of size, shape and intensity.
        contrasts: (C,) bool, which of the image's contrasts are present.
        brain: (*space) bool, not empty: where the centres of foci may lie.
        rng: the only source of randomness, a PCG64 as those of :mod:`hybriduad.core.rng`.
        spacing_mm: voxel size, one number a spatial axis.

    Raises:
        ConfigError: as :func:`corrupt`.
    """
    keys = _per_contrast(config, len(contrasts))
    inside = brain[bounding_box(brain)]
    # The order of the draws is part of the result: training samples of a seed stay what they are.
    softness_mm = rng.uniform(*config.softness_mm)
    roughness = rng.uniform(*config.roughness)
    follow_tissue = rng.uniform(0.2, 1.0) if rng.random() < config.follow_tissue else 0.0
    places = np.argwhere(inside)
    foci = [_draw_focus(diameter, inside, places, rng, spacing_mm) for diameter in _diameters(config, rng)]
    radius_mm = foci[0].diameter_mm / 2
    push = rng.uniform(0.05, 0.3) if rng.random() < config.mass_effect and radius_mm > 8 else None
    texture_noise = record_fractal(inside.shape, texture_steps(radius_mm, spacing_mm), TEXTURE_OCTAVES, rng)
    sign_draw = rng.random()  # shared, so that contrasts agree on the kind of lesion as far as their shares allow
    core: tuple[float, float] | None = rng.uniform(0.05, 0.6), rng.uniform(0.1, 0.4)
    if rng.random() >= config.core or radius_mm < 7:
        core = None
    hollow = rng.random() < config.cavity
    fillings = [
        _draw_filling(config, bool(sign_draw < share) != turn, hollow, fluid, rng) if there else None
        for there, (share, turn, fluid) in zip(contrasts, keys, strict=True)
    ]
    return Lesion(
        foci=tuple(foci),
        roughness=roughness,
        follow_tissue=follow_tissue,
        softness_mm=softness_mm,
        outline=config.outline,
        push=push,
        texture_noise=texture_noise,
        core=core,
        fillings=tuple(fillings),
        least_contrast=config.contrast[0],
    )


def _per_contrast(config: Config, contrasts: int) -> list[tuple[float, bool, bool]]:
    """``bright``, ``inverted`` and ``bright_fluid`` of every contrast."""
    bright = per_contrast(config.bright, contrasts, "lesion.bright")
    inverted = per_contrast(config.inverted or False, contrasts, "lesion.inverted")
    return list(zip(bright, inverted, per_contrast(config.bright_fluid, contrasts, "lesion.bright_fluid"), strict=True))


def _diameters(config: Config, rng: np.random.Generator) -> np.ndarray:
    """Equivalent diameters of the foci in mm, the largest first."""
    first = config.median_mm * np.exp(config.ln_sigma * rng.standard_normal())
    foci = int(rng.integers(2, config.most_foci + 1)) if rng.random() < config.several else 1
    smaller = first * rng.uniform(0.2, 0.8, foci - 1)
    return np.clip(np.sort(np.append(smaller, first))[::-1], *config.diameter_mm)


def _draw_focus(
    diameter_mm: float, brain: np.ndarray, places: np.ndarray, rng: np.random.Generator, spacing_mm: tuple[float, ...]
) -> Focus:
    axes = brain.ndim
    place = places[rng.integers(len(places))]
    stretch = np.exp(0.3 * rng.standard_normal(axes))
    stretch /= stretch.prod() ** (1 / axes)
    rotation = np.linalg.qr(rng.standard_normal((axes, axes)))[0]
    return Focus(
        centre_mm=tuple(((place - middle(brain)) * spacing_mm).tolist()),
        diameter_mm=float(diameter_mm),
        stretch=tuple(stretch.tolist()),
        rotation=tuple(tuple(row) for row in rotation.tolist()),
        noise=record_fractal(brain.shape, outline_steps(diameter_mm / 2, spacing_mm), OUTLINE_OCTAVES, rng),
    )


def _draw_filling(config: Config, bright: bool, hollow: bool, bright_fluid: bool, rng: np.random.Generator) -> Filling:
    low, high = config.contrast
    fluid = rng.uniform(0.5, 15) if hollow else None
    return Filling(
        bright=bright,
        cavity=100 - fluid if fluid is not None and bright_fluid else fluid,
        contrast=low + (high - low) * rng.random() ** 1.5,
        rim=rng.uniform(0, 0.7),
        texture=rng.uniform(*config.texture),
        core=rng.uniform(-0.8, 0.7),
        blur=rng.uniform(0.4, 1.5),
        kept=rng.uniform(0, 1),
        flattened=rng.uniform(0, 1),
    )
