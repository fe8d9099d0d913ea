"""Infarcts and bleeding."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

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
from hybriduad.phantom.signal import CSF, WHITE

STROKE_ML = (4.0, 2.3, 0.03, 300.0)
"""Median, standard deviation of the logarithm, and the cuts of the volume in ml."""
INFARCT: Values = (1150.0, 190.0, 0.88)
CAVITY: Values = (2250.0, 290.0, 0.97)

HAEMATOMA_ML = (11.0, 0.9, 0.5, 100.0)
"""The median, and the quartiles 6 and 20 ml, of INTERACT2 (Anderson et al. 2013, doi:10.1056/NEJMoa1214609)."""
# What blood does to T1 and T2 in its stages: Bradley 1993, doi:10.1148/radiology.189.1.8372185. The figures are chosen
# to give those contrasts at 1.5 T; no measurement is behind them. T2 counts its shortening by iron.
DEOXYHAEMOGLOBIN: Values = (950.0, 42.0, 0.88)
METHAEMOGLOBIN_IN_CELLS: Values = (350.0, 46.0, 0.86)
METHAEMOGLOBIN_FREE: Values = (360.0, 115.0, 0.88)
OLD_FLUID: Values = (2200.0, 270.0, 0.96)
HAEMOSIDERIN: Values = (800.0, 24.0, 0.78)
OEDEMA_AROUND: Values = (1050.0, 160.0, 0.88)


@dataclass(frozen=True)
class Stage:
    """What a haematoma of some age holds in its ``centre`` and in its ``shell``, which begins ``shell_from`` deep.

    ``shell_from`` is a share of the radius; ``rim_mm`` how thick its haemosiderin is along the long axes, ``oedema``
    between which shares of its volume there is oedema around it, ``push`` how far it pushes tissue away, ``share`` how
    much of the volume at the bleeding is left, ``flat`` the ratio of its axes: an old haematoma collapses to a slit.
    """

    centre: Values
    shell: Values
    shell_from: float
    rim_mm: float
    oedema: tuple[float, float] | None
    push: float
    share: float
    flat: float


STAGES = {
    "acute": Stage(DEOXYHAEMOGLOBIN, DEOXYHAEMOGLOBIN, 0.3, 0.0, (0.3, 0.9), 0.3, 1.0, 0.9),
    "early subacute": Stage(DEOXYHAEMOGLOBIN, METHAEMOGLOBIN_IN_CELLS, 0.4, 0.0, (0.5, 1.2), 0.3, 1.0, 0.9),
    "late subacute": Stage(METHAEMOGLOBIN_FREE, METHAEMOGLOBIN_FREE, 0.3, 2.0, (0.1, 0.6), 0.15, 0.8, 0.8),
    "chronic": Stage(OLD_FLUID, OLD_FLUID, 0.3, 4.0, None, 0.0, 0.4, 0.45),
}
"""Of 1 to 3 days, 3 to 7 days, 1 to 4 weeks, and later. The first hours look like any swelling, and are left out."""


def stroke(anatomy: Anatomy, rng: np.random.Generator, stage: Literal["acute", "chronic"] | None = None) -> Lesion:
    """An infarct: a wedge in one arterial territory, or a small deep lacune; fresh, or old with a CSF-like cavity.

    Without a ``stage`` it is drawn. An infarct that is drawn acute is, by the same generator, that of the stage acute.
    """
    volume = cut_log_normal(rng, *STROKE_ML)
    tissue = anatomy.fractions[CSF] < 0.5
    deep = volume < 2.0 and rng.random() < 0.5
    seeds = tissue & ((anatomy.ventricle_mm < 25) & (anatomy.ventricle_mm > 2) if deep else anatomy.depth_mm < 22)
    seed = choose(rng, seeds)
    centre = anatomy.template_mm[:, seed]
    radius = radius_mm_of(volume)
    offset = anatomy.template_mm - centre[:, None]
    axis = centre - np.array([0.8 * centre[0] * deep, -20.0, 10.0])  # cortical wedges point to the middle of the brain
    axis /= np.linalg.norm(axis)
    level = -ovoid_mm(offset, axis, rng.uniform(1.1, 1.7))
    level += radius * (0.3 * anatomy.noise(rng, 22.0) + 0.15 * anatomy.noise(rng, 9.0))
    territory = _territory(anatomy.template_mm)
    level -= 0.8 * radius * (territory != territory[seed])
    level[(anatomy.template_mm[0] * centre[0] < 0) | ~tissue] = -np.inf
    inside, edge = fill(level, volume / anatomy.grid.point_ml)

    drawn = "acute" if rng.random() < 0.55 else "chronic"
    of_age = stage or drawn
    age = 0.0 if of_age == "acute" else rng.uniform(0.4, 1.0)
    damage = draw_severity(rng, 0.2, 0.8) * soft(level - edge, 1.2)
    # The cavity of an old infarct lies inside it; gliosis around it stays bright on FLAIR.
    core = age * soft(level - edge - 0.35 * radius - 1.5 * anatomy.noise(rng, 12.0), 1.0)
    target = mix(INFARCT, CAVITY, core)
    damage = np.maximum(damage * texture(anatomy, rng), core * inside)
    none = np.zeros_like(damage)
    return Lesion(anatomy, inside, damage, target, none, none, of_age)


def haemorrhage(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """Bleeding into the brain, most of it deep, at one of four :data:`STAGES`; outlined with the oedema around it."""
    name = list(STAGES)[int(rng.integers(len(STAGES)))]
    stage = STAGES[name]
    volume = stage.share * cut_log_normal(rng, *HAEMATOMA_ML)
    white = (anatomy.fractions[CSF] < 0.3) & (anatomy.template_mm[2] > -20) & (np.abs(anatomy.template_mm[0]) > 8)
    basal = (anatomy.ventricle_mm > 3) & (anatomy.ventricle_mm < 24) & (anatomy.depth_mm > 22)
    lobar = (anatomy.fractions[WHITE] > 0.5) & (anatomy.depth_mm > 7) & (anatomy.depth_mm < 22)
    seed = choose(rng, white & (basal if rng.random() < 0.6 else lobar))
    centre = anatomy.template_mm[:, seed]
    radius = radius_mm_of(volume)
    push = functools.partial(swell, centre=centre, radius_mm=1.3 * radius + 4.0, strength=stage.push)
    pushed = anatomy.pushed(push)

    # It splits fibres as it spreads, from front to back, so it is thinnest from the middle to the side.
    flat = np.array([1.0, 0.0, 0.25]) * np.array([np.sign(centre[0]), 1.0, 1.0]) + 0.25 * rng.standard_normal(3)
    distance = ovoid_mm(anatomy.template_mm - centre[:, None], flat / np.linalg.norm(flat), stage.flat)
    other_side = 0.8 * radius * (anatomy.template_mm[0] * centre[0] < 0)
    level = radius * (0.25 * anatomy.noise(rng, 20.0) + 0.1 * anatomy.noise(rng, 8.0)) - distance - other_side
    level[(anatomy.depth_mm < 2.0) | (anatomy.ventricle_mm < 0.5)] = -np.inf
    blood, edge = fill(level, volume / anatomy.grid.point_ml)
    depth = level - edge
    in_blood = soft(depth, 0.7)

    inside, swollen = blood, np.zeros_like(in_blood)
    if stage.oedema is not None:
        around = radius * (0.25 * anatomy.noise(rng, 16.0) + 0.12 * anatomy.noise(rng, 30.0))
        grey, _, csf = pushed.fractions
        oedema_level = around - distance * (1 + 0.6 * grey) - other_side
        oedema_level[(csf > 0.5) | (anatomy.depth_mm < 1.0)] = -np.inf
        oedema_level[blood] = np.inf
        inside, oedema_edge = fill(oedema_level, volume * (1 + rng.uniform(*stage.oedema)) / anatomy.grid.point_ml)
        swollen = draw_severity(rng, 0.3, 0.8) * soft(oedema_level - oedema_edge, 1.5) * texture(anatomy, rng)

    target = mix(
        stage.shell, stage.centre, soft(depth - radius * (stage.shell_from + 0.2 * anatomy.noise(rng, 9.0)), 1.5)
    )
    rim = soft(stage.rim_mm - depth, 0.6) * (stage.rim_mm > 0)
    target += (np.array(HAEMOSIDERIN)[:, None] - target) * rim
    target = np.array(OEDEMA_AROUND)[:, None] + (target - np.array(OEDEMA_AROUND)[:, None]) * in_blood
    clotted = rng.uniform(0.75, 1.0) * in_blood * np.clip(texture(anatomy, rng) + 0.1, 0, 1)
    damage = np.maximum(swollen, clotted).astype(np.float32)
    return Lesion(pushed, inside, damage, target.astype(np.float32), in_blood, np.zeros_like(damage), name)


def _territory(template_mm: np.ndarray) -> np.ndarray:
    """Arterial territory (N,), coarsely: 0 middle, 1 anterior, 2 posterior cerebral artery, 3 below the tentorium."""
    x, y, z = np.abs(template_mm[0]), template_mm[1], template_mm[2]
    territory = np.zeros(x.size, dtype=np.int8)
    territory[(x < 17) & (y > -50) & (z > -10)] = 1
    territory[((y < -62) & (x < 32)) | ((z < -8) & (y < -20) & (x < 38)) | ((x < 17) & (y <= -50))] = 2
    territory[(z < -22) & (y < -18) & ((y < -42) | (x < 18))] = 3
    return territory
