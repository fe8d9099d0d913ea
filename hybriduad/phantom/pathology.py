"""Glioma, stroke and multiple sclerosis as changes of T1, T2 and proton density, so that every contrast follows.

Shapes are level sets of a distance with noise, filled to an exact volume; severity varies from subtle to florid.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hybriduad.core.errors import ConfigError
from hybriduad.phantom.anatomy import Anatomy
from hybriduad.phantom.signal import (
    CSF,
    GREY,
    WHITE,
    Relaxation,
)

Pathology = Literal["glioma", "stroke", "ms"]
PATHOLOGIES: tuple[Pathology, ...] = get_args(Pathology)

STROKE_ML = (4.0, 2.3, 0.03, 300.0)
"""Median, standard deviation of the logarithm, and the cuts of the volume in ml."""
GLIOMA_ML = (22.0, 0.9, 1.5, 150.0)
FOCUS_ML = (0.08, 0.9, 0.01, 2.0)
FOCI = (14.0, 0.7, 3.0, 60.0)
"""The same four numbers for how many foci a brain with multiple sclerosis has."""

# T1 ms, T2 ms, PD of fully changed tissue.
MS_PLAQUE = (752.0, 237.0, 0.76)  # BrainWeb
INFARCT = (1150.0, 190.0, 0.88)
CAVITY = (2250.0, 290.0, 0.97)
OEDEMA = (1050.0, 160.0, 0.88)
TUMOUR = (1250.0, 170.0, 0.88)
NECROSIS = (1900.0, 240.0, 0.94)


@dataclass(frozen=True)
class Lesion:
    """What a pathology does to an :class:`Anatomy` of N points.

    ``inside`` (N,) bool, the lesion as an annotator outlines it; ``damage`` (N,) in [0, 1], how far tissue has gone
    towards ``target`` (3, N): T1 in ms, T2 in ms, PD; ``solid`` (N,) in [0, 1], the share of CSF that the lesion has
    replaced; ``anatomy`` the brain after mass effect (the given brain where there is none).
    """

    anatomy: Anatomy
    inside: np.ndarray
    damage: np.ndarray
    target: np.ndarray
    solid: np.ndarray

    def fractions(self) -> np.ndarray:
        """Tissue fractions (3, N) with the lesion in place: what it fills of the CSF counts as white matter."""
        fractions = self.anatomy.fractions.copy()
        filled = fractions[CSF] * self.solid
        fractions[CSF] -= filled
        fractions[WHITE] += filled
        return fractions

    def change(self, healthy: Relaxation) -> Relaxation:
        """Relaxation with the lesion: a geometric path for the times, a straight path for the proton density."""
        t1, t2, pd = healthy.t1_ms.copy(), healthy.t2_ms.copy(), healthy.pd.copy()
        for tissue in (GREY, WHITE):
            t1[tissue] *= (self.target[0] / t1[tissue]) ** self.damage
            t2[tissue] *= (self.target[1] / t2[tissue]) ** self.damage
            pd[tissue] += (self.target[2] - pd[tissue]) * self.damage
        return Relaxation(t1, t2, pd)


def draw_lesion(pathology: Pathology, anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """A random lesion of the pathology in this brain.

    Raises:
        ConfigError: unknown pathology.
    """
    makers: dict[str, Callable[[Anatomy, np.random.Generator], Lesion]] = {"glioma": glioma, "stroke": stroke, "ms": ms}
    if pathology not in makers:
        raise ConfigError("unknown pathology", got=repr(pathology), expected=f"one of {list(makers)}")
    return makers[pathology](anatomy, rng)


def cut_log_normal(rng: np.random.Generator, median: float, ln_sigma: float, low: float, high: float) -> float:
    """A log-normal number; draws outside [low, high] are drawn again, so none pile up at the cuts."""
    while not low <= (value := median * np.exp(ln_sigma * rng.standard_normal())) <= high:
        pass
    return float(value)


def stroke(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """An infarct: a wedge in one arterial territory, or a small deep lacune; fresh, or old with a CSF-like cavity."""
    volume = cut_log_normal(rng, *STROKE_ML)
    tissue = anatomy.fractions[CSF] < 0.5
    deep = volume < 2.0 and rng.random() < 0.5
    seeds = tissue & ((anatomy.ventricle_mm < 25) & (anatomy.ventricle_mm > 2) if deep else anatomy.depth_mm < 22)
    seed = _choose(rng, seeds)
    centre = anatomy.template_mm[:, seed]
    radius = _radius_mm(volume)
    offset = anatomy.template_mm - centre[:, None]
    axis = centre - np.array([0.8 * centre[0] * deep, -20.0, 10.0])  # cortical wedges point to the middle of the brain
    axis /= np.linalg.norm(axis)
    along = axis @ offset
    across = np.maximum((offset**2).sum(axis=0) - along**2, 0)
    level = -np.sqrt((along / rng.uniform(1.1, 1.7)) ** 2 + across)
    level += radius * (0.3 * anatomy.noise(rng, 22.0) + 0.15 * anatomy.noise(rng, 9.0))
    territory = _territory(anatomy.template_mm)
    level -= 0.8 * radius * (territory != territory[seed])
    level[(anatomy.template_mm[0] * centre[0] < 0) | ~tissue] = -np.inf
    inside, edge = _fill(level, volume / anatomy.grid.point_ml)

    age = 0.0 if rng.random() < 0.55 else rng.uniform(0.4, 1.0)
    damage = _severity(rng, 0.2, 0.8) * _soft(level - edge, 1.2)
    # The cavity of an old infarct lies inside it; gliosis around it stays bright on FLAIR.
    core = age * _soft(level - edge - 0.35 * radius - 1.5 * anatomy.noise(rng, 12.0), 1.0)
    target = _mix(INFARCT, CAVITY, core)
    damage = np.maximum(damage * _texture(anatomy, rng), core * inside)
    return Lesion(anatomy, inside, damage, target, np.zeros_like(damage))


def ms(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """Multiple sclerosis: many small foci, most along the ventricles (ovoid, pointing away), some juxtacortical."""
    count = round(cut_log_normal(rng, *FOCI))
    white = (anatomy.fractions[WHITE] > 0.6) & (anatomy.template_mm[2] > -25)
    beside = white & (anatomy.ventricle_mm > 0.5) & (anatomy.ventricle_mm < 9)
    cortical = white & (anatomy.depth_mm < 16)
    inside = np.zeros(white.size, dtype=bool)
    damage = np.zeros(white.size, dtype=np.float32)
    rough = anatomy.noise(rng, 6.0)
    common = rng.normal(0, 0.12)
    for _ in range(count):
        volume = cut_log_normal(rng, *FOCUS_ML)
        place = rng.random()
        seed = _choose(rng, beside if place < 0.55 else cortical if place < 0.75 else white)
        centre = anatomy.template_mm[:, seed]
        radius = _radius_mm(volume)
        reach = 3.0 * radius + 3.0
        near = np.flatnonzero((np.abs(anatomy.template_mm - centre[:, None]) < reach).all(axis=0))
        offset = anatomy.template_mm[:, near] - centre[:, None]
        axis = np.array([np.sign(centre[0]), 0.0, 0.3]) + 0.3 * rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
        along = axis @ offset
        across = np.maximum((offset**2).sum(axis=0) - along**2, 0)
        level = -np.sqrt((along / rng.uniform(1.0, 2.0)) ** 2 + across) + 0.3 * radius * rough[near]
        level[anatomy.fractions[CSF][near] > 0.5] = -np.inf
        chosen, edge = _fill(level, volume / anatomy.grid.point_ml)
        inside[near] |= chosen
        strength = np.clip(_severity(rng, 0.2, 0.75) + common, 0.15, 0.85)
        damage[near] = np.maximum(damage[near], strength * _soft(level - edge, 0.5))
    return Lesion(anatomy, inside, damage, _mix(MS_PLAQUE, MS_PLAQUE, damage), np.zeros_like(damage))


def glioma(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """A glioma: a core, with necrosis in some, oedema that spreads along white matter, and the mass effect of both."""
    volume = cut_log_normal(rng, *GLIOMA_ML)
    core_share = rng.uniform(0.25, 0.85)
    seed = _choose(rng, (anatomy.fractions[WHITE] > 0.5) & (anatomy.depth_mm > 10) & (anatomy.template_mm[2] > -25))
    centre = anatomy.template_mm[:, seed]
    radius, core_radius = _radius_mm(volume), _radius_mm(volume * core_share)
    home = anatomy.template_mm  # where a point lies; after the push, its tissue comes from elsewhere
    push = functools.partial(_swell, centre=centre, radius_mm=1.5 * core_radius + 4.0, strength=rng.uniform(0.05, 0.4))
    swollen = anatomy.pushed(push)

    distance = np.sqrt(((home - centre[:, None]) ** 2).sum(axis=0))
    other_side = 0.6 * radius * (home[0] * centre[0] < 0)
    rough = 0.28 * anatomy.noise(rng, 25.0) + 0.14 * anatomy.noise(rng, 11.0)
    core_level = core_radius * rough - distance - other_side
    core_level[anatomy.depth_mm < 1.0] = -np.inf
    core, core_edge = _fill(core_level, volume * core_share / anatomy.grid.point_ml)

    # Oedema spreads through white matter, hardly into cortex, and not into CSF.
    grey, _, csf = swollen.fractions
    fingers = radius * (0.3 * anatomy.noise(rng, 16.0) + 0.2 * anatomy.noise(rng, 30.0))
    oedema_level = fingers - distance * (1 + 0.8 * grey) - other_side
    oedema_level[(csf > 0.5) | (anatomy.depth_mm < 1.0)] = -np.inf
    oedema_level[core] = np.inf
    inside, oedema_edge = _fill(oedema_level, volume / anatomy.grid.point_ml)

    in_core = _soft(core_level - core_edge, 1.0)
    in_oedema = _soft(oedema_level - oedema_edge, 1.5)
    damage = _severity(rng, 0.18, 0.65) * in_oedema * _texture(anatomy, rng)
    damage = np.maximum(damage, _severity(rng, 0.2, 0.7) * in_core * _texture(anatomy, rng))
    dead = np.zeros_like(damage)
    if rng.random() < 0.45:
        dead = _soft(core_level - core_edge - core_radius * (0.45 + 0.25 * anatomy.noise(rng, 14.0)), 1.0)
    target = _mix(OEDEMA, TUMOUR, in_core)
    target = target + (np.array(NECROSIS)[:, None] - target) * dead
    damage = np.maximum(damage, dead)
    return Lesion(swollen, inside, damage.astype(np.float32), target.astype(np.float32), in_core)


def _swell(
    points_mm: np.ndarray, depth_mm: np.ndarray, centre: np.ndarray, radius_mm: float, strength: float
) -> np.ndarray:
    """Tissue at a point came from nearer the centre; at the skull, which does not yield, nothing moves."""
    offset = points_mm - centre[:, None]
    fall = np.clip(1 - (offset**2).sum(axis=0) / (2 * radius_mm) ** 2, 0, 1) ** 4  # almost a Gaussian, but it ends
    return points_mm - offset * (strength * fall * np.clip(depth_mm / 12.0, 0, 1))


def _territory(template_mm: np.ndarray) -> np.ndarray:
    """Arterial territory (N,), coarsely: 0 middle, 1 anterior, 2 posterior cerebral artery, 3 below the tentorium."""
    x, y, z = np.abs(template_mm[0]), template_mm[1], template_mm[2]
    territory = np.zeros(x.size, dtype=np.int8)
    territory[(x < 17) & (y > -50) & (z > -10)] = 1
    territory[((y < -62) & (x < 32)) | ((z < -8) & (y < -20) & (x < 38)) | ((x < 17) & (y <= -50))] = 2
    territory[(z < -22) & (y < -18) & ((y < -42) | (x < 18))] = 3
    return territory


def _choose(rng: np.random.Generator, candidates: np.ndarray) -> int:
    return int(rng.choice(np.flatnonzero(candidates)))


def _radius_mm(volume_ml: float) -> float:
    return float((3000 * volume_ml / (4 * np.pi)) ** (1 / 3))


def _fill(level: np.ndarray, points: float) -> tuple[np.ndarray, float]:
    """The ``points`` highest of ``level`` (at least one point, and none at -inf), and the level at the edge."""
    count = int(np.clip(round(points), 1, np.isfinite(level).sum() + np.isposinf(level).sum()))
    edge = float(np.partition(level, -count)[-count])
    return level >= edge, edge


def _soft(signed_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """0 outside, 1 inside, 1/2 on the border, over about ``width_mm`` to either side."""
    return (1 / (1 + np.exp(-np.clip(2 * signed_mm / width_mm, -30, 30)))).astype(np.float32)


def _severity(rng: np.random.Generator, low: float, high: float) -> float:
    """Most lesions are subtle: the lower half of the range gets two thirds of the draws."""
    return float(low + (high - low) * rng.beta(1.1, 1.6))


def _texture(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    return np.clip(0.85 + 0.18 * anatomy.noise(rng, 10.0) + 0.08 * anatomy.noise(rng, 5.0), 0.25, 1.15)


def _mix(start: tuple[float, float, float], end: tuple[float, float, float], share: np.ndarray) -> np.ndarray:
    a, b = np.array(start)[:, None], np.array(end)[:, None]
    return (a + (b - a) * share).astype(np.float32)
