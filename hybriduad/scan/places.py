"""Coarse places in the template's space, from its own maps and coordinates alone: no atlas, no gyri.

Labels of the template ICBM 2009a at 2 mm, in millimetres x (right), y (forward), z (up), the first that applies:

- ``posterior fossa`` (cerebellum, pons and medulla, the lower midbrain): under the :func:`tentorium`, and behind y = -8
  within 18 mm of the mid plane, behind y = -32 beside that; there before y = -40 under z = -10 too.
- ``periventricular``: within the lateral ventricles, the largest lake of fluid over 30 mm deep in the brain, of which
  the temporal horns are no part.
- ``basal ganglia or thalamus``, with the white matter between them: the box of |x| <= 32, y from -32 to 22 and z from
  -6 to 18, which the insula is outside of.
- ``periventricular``: nearer than 10 mm to the lateral ventricles, whatever the tissue.
- ``white matter``: a probability of white matter of half or more; ``cortex``: all else, fluid in sulci included. Both
  in thirds of the length of the template's brain: ``anterior``, ``central``, ``posterior``.

A scan is registered by an affine, and its anatomy lies some millimetres beside the template's: near a border a lesion
may be given the place beside its own, and one that displaces tissue likewise.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from hybriduad.scan.template import read_map, template
from hybriduad.scan.volumes import VolumeGrid

STEP_MM = 2
"""Side of a voxel of the labels."""
DEEP_MM = 30.0
"""Fluid deeper than that under the surface is that of the ventricles."""
NEAR_MM = 10.0
"""Up to that from a lateral ventricle a place is periventricular."""
BOX_MM = ((-32.0, 32.0), (-32.0, 22.0), (-6.0, 18.0))
"""Around basal ganglia and thalamus, along x, y and z."""
THIRDS = ("posterior", "central", "anterior")
PLACES: Mapping[str, str] = MappingProxyType(
    {
        "posterior fossa": "Under planes along the tentorium: cerebellum, pons, medulla, lower midbrain",
        "periventricular": "Lateral ventricles, and what is nearer than 10 mm to them",
        "basal ganglia or thalamus": "In a box around them, with the white matter between",
        **{f"{third} white matter": f"Other white matter, {third} third of the brain" for third in THIRDS[::-1]},
        **{f"{third} cortex": f"All else, {third} third of the brain: grey matter and sulci" for third in THIRDS[::-1]},
    }
)
"""Name of a place -> what it is, in a line."""


def place_of(lesion: np.ndarray, grid: VolumeGrid, matrix: np.ndarray) -> str:
    """The place of :data:`PLACES` that holds the most of a lesion; of two as large the first.

    ``lesion`` (X, Y, Z) bool, not empty, on ``grid``; ``matrix`` (4, 4) from millimetres of the scan to those of the
    template. Outside the template's brain the nearest place in it counts.

    Raises:
        ToolError: this version of nilearn does not carry the template's maps.
    """
    affine = matrix @ grid.affine
    labels = _labels_at(np.argwhere(lesion) @ affine[:3, :3].T + affine[:3, 3])
    return list(PLACES)[int(np.bincount(labels, minlength=len(PLACES)).argmax())]


def place_at(place_mm: np.ndarray) -> str:
    """The place of :data:`PLACES` at a point (3,) in millimetres of the template.

    Raises:
        ToolError: as :func:`place_of`.
    """
    return list(PLACES)[int(_labels_at(np.asarray(place_mm, float)[None])[0])]


def tentorium(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The height z of the tentorium over (x, y), all in millimetres of the template and of any one shape.

    A roof whose ridge, on the mid plane, falls from z = -2 by 2 mm in 3 behind y = -61, and whose sides fall by .6 to
    the side, down to a floor at -21, which before y = -60 falls by .45 forward.
    """
    sides = np.minimum(-2 - 0.6 * np.abs(x), -2 + (y + 61) * 2 / 3)
    return np.asarray(np.maximum(sides, -21 - 0.45 * np.maximum(y + 60, 0)))


def depth_mm(mask: np.ndarray, spacing_mm: float) -> np.ndarray:
    """How deep under the surface of a mask (X, Y, Z) bool a voxel lies, 0 outside; the border of the array counts as
    surface, for the bottom of the template's brain is cut."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1])


def lateral_ventricles(mask: np.ndarray, fluid: np.ndarray, spacing_mm: float) -> np.ndarray:
    """(X, Y, Z) bool: the largest lake of ``fluid``, a share of a voxel, that lies deep in a brain ``mask``."""
    labels, count = ndimage.label((fluid > 0.5) & (depth_mm(mask, spacing_mm) > DEEP_MM))
    sizes = ndimage.sum_labels(mask, labels, np.arange(1, count + 1))
    return np.asarray(labels == 1 + int(np.argmax(sizes)))


@functools.lru_cache(maxsize=1)
def place_map() -> tuple[np.ndarray, np.ndarray]:
    """Labels (X, Y, Z) uint8, the order in :data:`PLACES`, and their (4, 4) affine; once a process.

    Raises:
        ToolError: as :func:`place_of`.
    """
    average, step = template(), (slice(None, None, STEP_MM),) * 3
    brain = average.brain[step]
    grey, white = (read_map(name)[0][step] * brain for name in ("gm", "wm"))
    affine = average.affine @ np.diag([STEP_MM, STEP_MM, STEP_MM, 1.0])
    x, y, z = (
        np.arange(size).reshape([-1 if axis == other else 1 for other in range(3)]) * STEP_MM + average.affine[axis, 3]
        for axis, size in enumerate(brain.shape)
    )
    ventricles = lateral_ventricles(brain, np.clip(brain - grey - white, 0, 1), STEP_MM)
    within = [(low <= along) & (along <= high) for (low, high), along in zip(BOX_MM, (x, y, z), strict=True)]
    middle = np.abs(x) <= 18
    fossa = (z < tentorium(x, y)) & (y < np.where(middle, -8, -32))
    fossa &= (y < -40) | (z < -10)
    low, high = average.box_mm[:, 1]
    third = np.clip((3 * (y - low) / (high - low)).astype(int), 0, 2)
    names = list(PLACES)
    number = np.array([[names.index(f"{name} {tissue}") for name in THIRDS] for tissue in ("cortex", "white matter")])
    labels = number[(white >= 0.5).astype(int), np.broadcast_to(third, brain.shape)]
    near = ndimage.distance_transform_edt(~ventricles, sampling=STEP_MM) < NEAR_MM
    labels[near] = names.index("periventricular")
    labels[within[0] & within[1] & within[2]] = names.index("basal ganglia or thalamus")
    labels[ventricles] = names.index("periventricular")
    labels[np.broadcast_to(fossa, brain.shape)] = names.index("posterior fossa")
    nearest = ndimage.distance_transform_edt(~brain, return_distances=False, return_indices=True)
    return labels[tuple(nearest)].astype(np.uint8), affine


def _labels_at(places_mm: np.ndarray) -> np.ndarray:
    """(N,) the labels at places (N, 3) in millimetres; beyond the edge those at the edge."""
    labels, affine = place_map()
    voxels = np.rint((places_mm - affine[:3, 3]) / STEP_MM).astype(int)
    return np.asarray(labels[tuple(np.clip(voxels, 0, np.array(labels.shape) - 1).T)])
