"""Glioma, and what surgery leaves."""

from __future__ import annotations

import functools

import numpy as np

from hybriduad.phantom.anatomy import Anatomy
from hybriduad.phantom.pathology.lesion import (
    Lesion,
    Values,
    choose,
    cut_log_normal,
    draw_severity,
    fill,
    mix,
    ovoid_mm,
    radius_mm_of,
    soft,
    swell,
    texture,
)
from hybriduad.phantom.signal import WHITE

GLIOMA_ML = (22.0, 0.9, 1.5, 150.0)
"""Median, standard deviation of the logarithm, and the cuts of the volume in ml."""
OEDEMA: Values = (1050.0, 160.0, 0.88)
TUMOUR: Values = (1250.0, 170.0, 0.88)
NECROSIS: Values = (1900.0, 240.0, 0.94)

RESECTION_ML = (14.0, 0.8, 2.0, 90.0)
"""Of a cavity with its rim."""
GLIOSIS: Values = (1100.0, 165.0, 0.86)


def glioma(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """A glioma: a core, with necrosis in some, oedema that spreads along white matter, and the mass effect of both."""
    volume = cut_log_normal(rng, *GLIOMA_ML)
    core_share = rng.uniform(0.25, 0.85)
    seed = choose(rng, (anatomy.fractions[WHITE] > 0.5) & (anatomy.depth_mm > 10) & (anatomy.template_mm[2] > -25))
    centre = anatomy.template_mm[:, seed]
    radius, core_radius = radius_mm_of(volume), radius_mm_of(volume * core_share)
    home = anatomy.template_mm  # where a point lies; after the push, its tissue comes from elsewhere
    push = functools.partial(swell, centre=centre, radius_mm=1.5 * core_radius + 4.0, strength=rng.uniform(0.05, 0.4))
    swollen = anatomy.pushed(push)

    distance = np.sqrt(((home - centre[:, None]) ** 2).sum(axis=0))
    other_side = 0.6 * radius * (home[0] * centre[0] < 0)
    rough = 0.28 * anatomy.noise(rng, 25.0) + 0.14 * anatomy.noise(rng, 11.0)
    core_level = core_radius * rough - distance - other_side
    core_level[anatomy.depth_mm < 1.0] = -np.inf
    core, core_edge = fill(core_level, volume * core_share / anatomy.grid.point_ml)

    # Oedema spreads through white matter, hardly into cortex, and not into CSF.
    grey, _, csf = swollen.fractions
    fingers = radius * (0.3 * anatomy.noise(rng, 16.0) + 0.2 * anatomy.noise(rng, 30.0))
    oedema_level = fingers - distance * (1 + 0.8 * grey) - other_side
    oedema_level[(csf > 0.5) | (anatomy.depth_mm < 1.0)] = -np.inf
    oedema_level[core] = np.inf
    inside, oedema_edge = fill(oedema_level, volume / anatomy.grid.point_ml)

    in_core = soft(core_level - core_edge, 1.0)
    in_oedema = soft(oedema_level - oedema_edge, 1.5)
    damage = draw_severity(rng, 0.18, 0.65) * in_oedema * texture(anatomy, rng)
    damage = np.maximum(damage, draw_severity(rng, 0.2, 0.7) * in_core * texture(anatomy, rng))
    dead = np.zeros_like(damage)
    if rng.random() < 0.45:
        dead = soft(core_level - core_edge - core_radius * (0.45 + 0.25 * anatomy.noise(rng, 14.0)), 1.0)
    target = mix(OEDEMA, TUMOUR, in_core)
    target = target + (np.array(NECROSIS)[:, None] - target) * dead
    damage = np.maximum(damage, dead)
    return Lesion(
        swollen, inside, damage.astype(np.float32), target.astype(np.float32), in_core, np.zeros_like(in_core)
    )


def resection(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """What surgery leaves: a cavity with CSF, mostly open to the surface, and a thin rim of gliosis in the tissue."""
    volume = cut_log_normal(rng, *RESECTION_ML)
    above = anatomy.template_mm[2] > -25 + 10 * (anatomy.template_mm[1] < -20)
    seed = choose(rng, above & (anatomy.depth_mm > 5) & (anatomy.depth_mm < 18) & (anatomy.ventricle_mm > 6))
    centre = anatomy.template_mm[:, seed]
    radius = radius_mm_of(volume)
    axis = centre - np.array([0.0, -20.0, 10.0])  # the surgeon comes from outside
    distance = ovoid_mm(anatomy.template_mm - centre[:, None], axis / np.linalg.norm(axis), rng.uniform(1.0, 1.6))
    level = radius * (0.18 * anatomy.noise(rng, 24.0) + 0.07 * anatomy.noise(rng, 10.0)) - distance
    level[(anatomy.template_mm[0] * centre[0] < 0) | (anatomy.ventricle_mm < 1)] = -np.inf
    inside, edge = fill(level, volume / anatomy.grid.point_ml)

    depth = level - edge
    rim_mm = rng.uniform(1.0, 2.5) * np.clip(1 + 0.6 * anatomy.noise(rng, 12.0), 0.3, None)
    damage = draw_severity(rng, 0.2, 0.75) * soft(depth, 0.8) * texture(anatomy, rng)
    target = mix(GLIOSIS, GLIOSIS, damage)
    return Lesion(anatomy, inside, np.clip(damage, 0, 1), target, np.zeros_like(damage), soft(depth - rim_mm, 0.6))
