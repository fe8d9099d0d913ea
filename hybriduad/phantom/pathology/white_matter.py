"""Multiple sclerosis, and the hyperintensities of the ageing white matter."""

from __future__ import annotations

import numpy as np

from hybriduad.phantom.anatomy import Anatomy
from hybriduad.phantom.pathology.lesion import (
    Foci,
    Lesion,
    Values,
    choose,
    cut_log_normal,
    draw_severity,
    fill,
    mix,
    soft,
    texture,
)
from hybriduad.phantom.signal import GREY, WHITE, horns

FOCUS_ML = (0.08, 0.9, 0.01, 2.0)
"""Median, standard deviation of the logarithm, and the cuts of the volume in ml."""
FOCI = (14.0, 0.7, 3.0, 60.0)
"""The same four numbers for how many foci a brain with multiple sclerosis has."""
MS_PLAQUE: Values = (752.0, 237.0, 0.76)  # BrainWeb

WMH_ML = (8.0, 0.9, 0.8, 80.0)
"""Of all hyperintensities at 65 years. The median doubles in :data:`DOUBLING_YEARS`."""
DOUBLING_YEARS = 15.0
WMH_FOCUS_ML = (0.06, 0.9, 0.01, 1.0)
"""Of a focus in the deep white matter."""
MOST_WMH_FOCI = 80
WMH: Values = (980.0, 150.0, 0.84)
"""Between white matter and a plaque, the way that their measured relaxation times lie; the figures are chosen."""


def ms(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """Multiple sclerosis: many small foci, most along the ventricles (ovoid, pointing away), some juxtacortical."""
    count = round(cut_log_normal(rng, *FOCI))
    white = (anatomy.fractions[WHITE] > 0.6) & (anatomy.template_mm[2] > -25)
    beside = white & (anatomy.ventricle_mm > 0.5) & (anatomy.ventricle_mm < 9)
    cortical = white & (anatomy.depth_mm < 16)
    foci = Foci.none_yet(anatomy, anatomy.noise(rng, 6.0))
    common = rng.normal(0, 0.12)
    for _ in range(count):
        volume = cut_log_normal(rng, *FOCUS_ML)
        place = rng.random()
        seed = choose(rng, beside if place < 0.55 else cortical if place < 0.75 else white)
        axis = np.array([np.sign(anatomy.template_mm[0, seed]), 0.0, 0.3]) + 0.3 * rng.standard_normal(3)
        near, depth = foci.levels(seed, volume, axis / np.linalg.norm(axis), rng.uniform(1.0, 2.0))
        strength = np.clip(draw_severity(rng, 0.2, 0.75) + common, 0.15, 0.85)
        foci.hurt(near, strength * soft(depth, 0.5))
    none = np.zeros_like(foci.damage)
    return Lesion(anatomy, foci.inside, foci.damage, mix(MS_PLAQUE, MS_PLAQUE, foci.damage), none, none)


def wmh(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """White-matter hyperintensities: caps and bands along the ventricles, confluent where there is much, and foci.

    The foci lie in the deep white matter: fibres under the cortex and those below the tentorium are spared. How much
    there is grows with the person's age.
    """
    median, *spread = WMH_ML
    volume = cut_log_normal(rng, median * 2 ** ((anatomy.person.age - 65) / DOUBLING_YEARS), *spread)
    beside_ml = volume * rng.uniform(0.5, 0.85)
    grey, _, csf = anatomy.fractions
    # Caps at the horns reach further than the bands between them, and fingers further than both.
    level = -np.maximum(anatomy.ventricle_mm, 0) / (0.5 + horns(anatomy.template_mm[1])) - 8.0 * grey
    level += 2.2 * anatomy.noise(rng, 22.0) + 1.2 * anatomy.noise(rng, 9.0)
    level[(csf > 0.5) | (anatomy.template_mm[2] < -25)] = -np.inf
    inside, edge = fill(level, beside_ml / anatomy.grid.point_ml)
    common = draw_severity(rng, 0.2, 0.65)
    damage = common * soft(level - edge, 1.5) * texture(anatomy, rng)

    foci = Foci.none_yet(anatomy, anatomy.noise(rng, 5.0))
    deep = (anatomy.fractions[WHITE] > 0.8) & (anatomy.ventricle_mm > 5) & (anatomy.depth_mm > 9)
    deep &= (anatomy.template_mm[2] > -5) & ~inside
    left_ml = volume - beside_ml
    for _ in range(MOST_WMH_FOCI):
        if left_ml <= 0:
            break
        focus_ml = cut_log_normal(rng, *WMH_FOCUS_ML)
        left_ml -= focus_ml
        axis = rng.standard_normal(3)
        near, depth = foci.levels(choose(rng, deep), focus_ml, axis / np.linalg.norm(axis), rng.uniform(1.0, 1.7))
        strength = np.clip(common + rng.normal(-0.05, 0.1), 0.15, 0.75)
        foci.hurt(near, strength * soft(depth, 0.8) * (1 - anatomy.fractions[GREY][near]))
    damage = np.maximum(damage, foci.damage).astype(np.float32)
    none = np.zeros_like(damage)
    return Lesion(anatomy, inside | foci.inside, damage, mix(WMH, WMH, damage), none, none)
