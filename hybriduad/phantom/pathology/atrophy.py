"""Tissue that is lost in one part of the brain: sulci, and a ventricle beside it, widen."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage, special

from hybriduad.phantom.anatomy import Anatomy
from hybriduad.phantom.pathology.lesion import (
    Lesion,
    choose,
    cut_log_normal,
    draw_severity,
    fill,
    radius_mm_of,
    soft,
)
from hybriduad.phantom.signal import CSF

ATROPHY_ML = (45.0, 0.5, 12.0, 150.0)
"""Median, standard deviation of the logarithm, and the cuts of the volume in ml of the part that shrinks."""
SULCI, CORTEX_MM, VENTRICLE_MM = 4.0, 2.5, 9.0
"""At the highest severity: the logarithm of the factor on the weight of CSF, how far cortex draws back from CSF that is
there already, and how far a ventricle grows."""
BORDER_MM = 2.0
"""Deviation of the Gaussian by which the distance to CSF is told."""
SEEN = 0.12
"""The rise of the share of CSF, over some mm, from which on a reader sees it."""
READING_MM = 2.0
"""Deviation of the Gaussian over which that share is taken: a reader outlines a wide sulcus, not its voxels."""


def atrophy(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """Focal atrophy: in a part of a lobe CSF takes the place of tissue; relaxation times stay as they were.

    What is outlined are the sulci that became wider, with their banks, and the part of a ventricle that grew.
    """
    volume = cut_log_normal(rng, *ATROPHY_ML)
    seed = choose(rng, (anatomy.depth_mm < 22) & (anatomy.depth_mm > 3) & (anatomy.template_mm[2] > -35))
    centre = anatomy.template_mm[:, seed]
    radius = radius_mm_of(volume)
    level = radius * 0.2 * anatomy.noise(rng, 30.0) - np.sqrt(
        ((anatomy.template_mm - centre[:, None]) ** 2).sum(axis=0)
    )
    level -= 0.8 * radius * (anatomy.template_mm[0] * centre[0] < 0)
    _, edge = fill(level, volume / anatomy.grid.point_ml)
    lost = draw_severity(rng, 0.5, 1.0) * soft(level - edge, 5.0)
    shrunk = anatomy.pushed(functools.partial(_grow, anatomy=anatomy, by_mm=VENTRICLE_MM * lost), np.exp(SULCI * lost))
    near_csf = _smooth(anatomy, shrunk.fractions[CSF], BORDER_MM, outside=1.0)
    # Behind a straight border of CSF the smoothed share falls as the tail of a Gaussian does.
    reached = special.ndtr(-CORTEX_MM * lost / BORDER_MM)
    fluid = soft(near_csf - reached, 0.1) * np.clip(lost / 0.3, 0, 1)
    rise = shrunk.fractions[CSF] + shrunk.fractions[:CSF].sum(axis=0) * fluid - anatomy.fractions[CSF]
    inside = _smooth(anatomy, rise, READING_MM, outside=0.0) > SEEN
    if not inside.any():
        inside = rise >= rise.max()
    none = np.zeros_like(fluid)
    return Lesion(shrunk, inside, none, np.ones((3, none.size), dtype=np.float32), none, fluid)


def _grow(points_mm: np.ndarray, depth_mm: np.ndarray, anatomy: Anatomy, by_mm: np.ndarray) -> np.ndarray:
    """Tissue at a point came from nearer the ventricle, whose wall moved outwards by about ``by_mm`` (N,)."""
    return points_mm + by_mm * anatomy.towards_ventricle(points_mm)


def _smooth(anatomy: Anatomy, values: np.ndarray, deviation_mm: float, outside: float) -> np.ndarray:
    """``values`` (N,) under a Gaussian of ``deviation_mm``, with ``outside`` beyond the brain: (N,)."""
    grid = anatomy.grid
    steps = [spacing / count for spacing, count in zip(grid.spacing_mm, grid.samples, strict=True)]
    points = np.full(anatomy.brain.shape, outside, dtype=np.float32)
    points[anatomy.brain] = values
    return ndimage.gaussian_filter(points, [deviation_mm / step for step in steps])[anatomy.brain]
