"""What a pathology does to an anatomy, and the shapes and draws that pathologies share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hybriduad.phantom.anatomy import Anatomy
from hybriduad.phantom.signal import CSF, GREY, WHITE, Relaxation

Values = tuple[float, float, float]
"""T1 in ms, T2 in ms and proton density of fully changed tissue."""


@dataclass(frozen=True)
class Lesion:
    """What a pathology does to an :class:`Anatomy` of N points.

    ``inside`` (N,) bool, the lesion as an annotator outlines it; ``damage`` (N,) in [0, 1], how far tissue has gone
    towards ``target`` (3, N): T1 in ms, T2 in ms, PD; ``solid`` (N,) in [0, 1], the share of CSF that the lesion has
    replaced; ``fluid`` (N,) in [0, 1], the share of tissue that CSF has replaced; ``anatomy`` the brain after mass
    effect or shrinkage (the given brain where there is neither); ``stage`` says how old it is, where that matters.
    """

    anatomy: Anatomy
    inside: np.ndarray
    damage: np.ndarray
    target: np.ndarray
    solid: np.ndarray
    fluid: np.ndarray
    stage: str = ""

    def fractions(self) -> np.ndarray:
        """Tissue fractions (3, N) with the lesion in place: what it fills of the CSF counts as white matter."""
        fractions = self.anatomy.fractions.copy()
        filled = fractions[CSF] * self.solid
        fractions[CSF] -= filled
        fractions[WHITE] += filled
        lost = fractions[[GREY, WHITE]] * self.fluid
        fractions[[GREY, WHITE]] -= lost
        fractions[CSF] += lost.sum(axis=0)
        return fractions

    def change(self, healthy: Relaxation) -> Relaxation:
        """Relaxation with the lesion: a geometric path for the times, a straight path for the proton density."""
        t1, t2, pd = healthy.t1_ms.copy(), healthy.t2_ms.copy(), healthy.pd.copy()
        for tissue in (GREY, WHITE):
            t1[tissue] *= (self.target[0] / t1[tissue]) ** self.damage
            t2[tissue] *= (self.target[1] / t2[tissue]) ** self.damage
            pd[tissue] += (self.target[2] - pd[tissue]) * self.damage
        return Relaxation(t1, t2, pd)


def cut_log_normal(rng: np.random.Generator, median: float, ln_sigma: float, low: float, high: float) -> float:
    """A log-normal number; draws outside [low, high] are drawn again, so none pile up at the cuts."""
    while not low <= (value := median * np.exp(ln_sigma * rng.standard_normal())) <= high:
        pass
    return float(value)


def swell(
    points_mm: np.ndarray, depth_mm: np.ndarray, centre: np.ndarray, radius_mm: float, strength: float
) -> np.ndarray:
    """Tissue at a point came from nearer the centre; at the skull, which does not yield, nothing moves."""
    offset = points_mm - centre[:, None]
    fall = np.clip(1 - (offset**2).sum(axis=0) / (2 * radius_mm) ** 2, 0, 1) ** 4  # almost a Gaussian, but it ends
    return points_mm - offset * (strength * fall * np.clip(depth_mm / 12.0, 0, 1))


def choose(rng: np.random.Generator, candidates: np.ndarray) -> int:
    """The index of a random candidate among (N,) bool."""
    return int(rng.choice(np.flatnonzero(candidates)))


def radius_mm_of(volume_ml: float) -> float:
    """Of the sphere of that volume."""
    return float((3000 * volume_ml / (4 * np.pi)) ** (1 / 3))


def fill(level: np.ndarray, points: float) -> tuple[np.ndarray, float]:
    """The ``points`` highest of ``level`` (at least one point, and none at -inf), and the level at the edge."""
    count = int(np.clip(round(points), 1, np.isfinite(level).sum() + np.isposinf(level).sum()))
    edge = float(np.partition(level, -count)[-count])
    return level >= edge, edge


def soft(signed_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """0 outside, 1 inside, 1/2 on the border, over about ``width_mm`` to either side."""
    return (1 / (1 + np.exp(-np.clip(2 * signed_mm / width_mm, -30, 30)))).astype(np.float32)


def draw_severity(rng: np.random.Generator, low: float, high: float) -> float:
    """Most lesions are subtle: the lower half of the range gets two thirds of the draws."""
    return float(low + (high - low) * rng.beta(1.1, 1.6))


def texture(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """A factor (N,) on the damage, as no lesion is uniform."""
    return np.clip(0.85 + 0.18 * anatomy.noise(rng, 10.0) + 0.08 * anatomy.noise(rng, 5.0), 0.25, 1.15)


def mix(start: Values, end: Values, share: np.ndarray) -> np.ndarray:
    """T1, T2 and PD (3, N) on the way from ``start`` (share 0) to ``end`` (share 1)."""
    a, b = np.array(start)[:, None], np.array(end)[:, None]
    return (a + (b - a) * share).astype(np.float32)


def ovoid_mm(offset_mm: np.ndarray, axis: np.ndarray, ratio: float) -> np.ndarray:
    """Distance (N,) from the centre that ``offset_mm`` (3, N) is measured from, shorter by ``ratio`` along ``axis``.

    Its level sets are ellipsoids, long along the unit vector ``axis`` (flat for a ratio under 1).
    """
    along = axis @ offset_mm
    across = np.maximum((offset_mm**2).sum(axis=0) - along**2, 0)
    return np.sqrt((along / ratio) ** 2 + across)


@dataclass(frozen=True)
class Foci:
    """Small ovoid foci that are drawn into a brain after each other: ``inside`` and ``damage`` (N,) of all so far.

    ``rough`` (N,) is the noise that makes their borders uneven.
    """

    anatomy: Anatomy
    rough: np.ndarray
    inside: np.ndarray
    damage: np.ndarray

    @staticmethod
    def none_yet(anatomy: Anatomy, rough: np.ndarray) -> Foci:
        """The brain before its first focus."""
        count = anatomy.depth_mm.size
        return Foci(anatomy, rough, np.zeros(count, dtype=bool), np.zeros(count, dtype=np.float32))

    def levels(self, seed: int, volume_ml: float, axis: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
        """Indices (K,) of the points about a new focus at point ``seed``, and the depth in it (negative outside), mm.

        What is ``inside`` grows by ``volume_ml``; CSF is left out.
        """
        centre = self.anatomy.template_mm[:, seed]
        radius = radius_mm_of(volume_ml)
        reach = 3.0 * radius + 3.0
        near = np.flatnonzero((np.abs(self.anatomy.template_mm - centre[:, None]) < reach).all(axis=0))
        level = -ovoid_mm(self.anatomy.template_mm[:, near] - centre[:, None], axis, ratio)
        level += 0.3 * radius * self.rough[near]
        level[self.anatomy.fractions[CSF][near] > 0.5] = -np.inf
        chosen, edge = fill(level, volume_ml / self.anatomy.grid.point_ml)
        self.inside[near] |= chosen
        return near, level - edge

    def hurt(self, near: np.ndarray, damage: np.ndarray) -> None:
        """Raise the damage at the points ``near`` (K,) to ``damage`` (K,) where it is less."""
        self.damage[near] = np.maximum(self.damage[near], damage)
