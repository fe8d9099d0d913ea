"""The brain of a scan whose head is not stripped: a smooth closed surface between brain and skull, fitted as a whole.

The surface is a radius for each of many directions around a centre. Which radius fits is read along each ray (tissue
inside, darkness just outside, little darkness enclosed), neighbours must agree, and the mean shape of a brain says
where to look. It is solved as a Markov random field by min-sum belief propagation (Felzenszwalb and Huttenlocher 2006,
doi:10.1007/s11263-006-7899-4), which unlike a surface that creeps (Smith 2002, doi:10.1002/hbm.10062) is not caught by
a ventricle, a cyst or a bright lesion at the cortex.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage, optimize, sparse, spatial

Spacing = tuple[float, float, float]

DIRECTIONS = 2000
SKULL_MM = 11.0
"""Typical distance from skin to brain over the dome."""
STEP_MM = 1.5
"""Step along the rays."""
SWEEPS = 12
BEND, BREAK = 0.12, 4.0
"""Cost of neighbours that differ by n steps: BEND n², at most BREAK (the skull base is no smooth surface)."""
MARGIN_MM = 2.0
"""Voxels this far outside the surface still count as brain, which costs less than a lesion cut off."""
_DEGREE = 8
_EXPONENTS = [
    (i, j, k)
    for i in range(0, _DEGREE + 1, 2)
    for j in range(_DEGREE + 1 - i)
    for k in range(_DEGREE + 1 - i - j)
    if i + j + k in (_DEGREE - 1, _DEGREE)
]
# Radius in mm over direction, as a left-right symmetric polynomial on the sphere: least squares to the outline of the
# ICBM152 2009 brain (doi:10.1016/S1053-8119(09)70884-5) seen from MNI (0, -20, 12); root mean square error 3 mm.
# fmt: off
_MEAN_BRAIN = (
    8, 61, -47, 43, -6, 260, -102, 102, 56, 377, 46, -30, -29, 330, 3,
    1, 87, 25, 244, 186, -260, -346, 1706, -348, 671, -1, 735, 9, -84, 379,
    -21, 398, 19, -197, 79, 649, 23, -70, 450, -6, 340, -18, 44, 301, 70,
)
# fmt: on


@dataclass(frozen=True)
class Pose:
    """Where the mean brain lies in a scan: ``centre`` in mm, ``scale`` along x, y, z, ``pitch`` about x in radians."""

    centre: np.ndarray
    scale: np.ndarray
    pitch: float

    def to_shape(self, points_mm: np.ndarray) -> np.ndarray:
        """Scan millimetres (..., 3) to the space of the mean brain, its centre at 0."""
        return (points_mm - self.centre) @ _rotation(self.pitch).T / self.scale

    def to_scan(self, points: np.ndarray) -> np.ndarray:
        """The way back of :meth:`to_shape`."""
        return (points * self.scale) @ _rotation(self.pitch) + self.centre


def estimate_brain(data: np.ndarray, head: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """The brain of a scan: ``data`` (X, Y, Z) in RAS and its ``head``, about 2 mm or coarser; a bool mask (X, Y, Z).

    Returns an empty mask where no dome of a head is found.
    """
    points = _outline(head, spacing_mm)
    if len(points) < 50:
        return np.zeros(head.shape, dtype=bool)
    depth = _depth(head, spacing_mm)
    pose = fit_dome(points)
    directions = sphere(DIRECTIONS)
    # Two passes: the first surface gives a better pose than the skin does, so the second searches a narrower range.
    for lowest, highest, spread in ((-36.0, 24.0, 12.0), (-20.0, 16.0, 9.0)):
        offsets = np.arange(lowest, highest, STEP_MM)
        mean = mean_radius(directions)
        costs, seen = _costs(data, depth, spacing_mm, pose, directions, mean, offsets, spread)
        radius = mean + offsets[_agree(costs)]
        surface_pose = pose
        surface = pose.to_scan(directions * radius[:, None])
        pose = _fit(surface[seen][::4], pose, 0.0)
    return _fill(head, spacing_mm, surface_pose, directions, _smooth(radius)) & (depth > 3)


def mean_radius(directions: np.ndarray) -> np.ndarray:
    """Radius (N,) in mm of the mean brain along unit vectors (N, 3)."""
    powers = np.ones((_DEGREE + 1, 3, len(directions)))
    for degree in range(_DEGREE):
        powers[degree + 1] = powers[degree] * directions.T
    i, j, k = np.transpose(_EXPONENTS)
    return np.asarray(np.array(_MEAN_BRAIN) @ (powers[i, 0] * powers[j, 1] * powers[k, 2]))


@cache
def sphere(count: int) -> np.ndarray:
    """``count`` directions (N, 3) spread evenly over the sphere along a golden spiral."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    azimuth = np.pi * (1 + 5**0.5) * index
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), z], axis=1)


@cache
def _edges(count: int) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Directed edges between neighbouring directions: from, to; and the (N, E) matrix that sums over what arrives.

    The second half of the edges are the first half reversed.
    """
    triangles = spatial.ConvexHull(sphere(count)).simplices
    pairs = np.unique(np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    start, end = np.concatenate([pairs, pairs[:, ::-1]]).T
    ones = np.ones(len(end), dtype=np.float32)
    return start, end, sparse.csr_matrix((ones, (end, np.arange(len(end)))), shape=(count, len(end)))


def _outline(head: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Points (N, 3) in mm on the skin in the upper 80 mm of the head, where it follows the brain."""
    area = head.sum(axis=(0, 1)) * spacing_mm[0] * spacing_mm[1]
    slices = np.flatnonzero(area > 1500)
    if len(slices) == 0:
        return np.zeros((0, 3))
    top = int(slices[-1])
    bottom = max(0, top - int(80 / spacing_mm[2]))
    dome = ndimage.binary_opening(head[..., bottom : top + 1], np.ones((3, 3, 1)), iterations=2)
    skin = dome & ~ndimage.binary_erosion(dome, np.ones((3, 3, 1)), border_value=1)
    points = (np.argwhere(skin) + np.array([0, 0, bottom])) * spacing_mm
    return points[:: max(1, len(points) // 400)]


def fit_dome(points: np.ndarray) -> Pose:
    """The pose at which the mean brain lies a skull's thickness under ``points`` (N, 3) in mm on the dome's skin."""
    top = points[:, 2].max()
    upper = points[points[:, 2] > top - 60, :2]
    x, y = (upper.min(axis=0) + upper.max(axis=0)) / 2
    return _fit(points, Pose(np.array([x, y, top - 82]), np.ones(3), 0.1), SKULL_MM)


def _fit(points: np.ndarray, start: Pose, gap_mm: float) -> Pose:
    """Robust least squares of the seven numbers of a pose, held near ``start``'s centre, scale 1 and pitch 0.1."""
    share = np.sqrt(150 / max(len(points), 1)) / 4  # the points count like 150 of 4 mm standard deviation

    def pose(q: np.ndarray) -> Pose:
        return Pose(start.centre + q[:3], np.exp(q[3:6]), float(q[6]))

    def misfit(q: np.ndarray) -> np.ndarray:
        shape = pose(q).to_shape(points)
        radius = np.linalg.norm(shape, axis=1)
        error = radius - mean_radius(shape / radius[:, None]) - gap_mm
        error /= np.sqrt(1 + np.abs(error) / 8)  # ears, fixation and a missing bone flap pull less
        size = q[3:6].mean()
        drop = q[2] + (70 * np.expm1(q[5]) if gap_mm else 0.0)  # a taller head has its centre farther below the top
        prior = np.r_[q[:2] / 8, drop / 10, size / 0.12, (q[3:6] - size) / 0.06, (q[6] - 0.1) / 0.12]
        return np.r_[share * error, prior]

    limit = np.array([25, 30, 50, 0.35, 0.35, 0.4, 0.5])
    first = np.r_[np.zeros(3), np.clip(np.log(start.scale), -0.3, 0.3), start.pitch]
    return pose(optimize.least_squares(misfit, first, bounds=(-limit, limit)).x)


def _costs(
    data: np.ndarray,
    depth: np.ndarray,
    spacing_mm: Spacing,
    pose: Pose,
    directions: np.ndarray,
    mean: np.ndarray,
    offsets: np.ndarray,
    spread_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Cost (N, K) of each offset from the mean brain, and (N,) whether the ray stays in the scan."""
    margin, count = 8, len(offsets)  # samples beyond the candidates on either side
    steps = offsets[0] + STEP_MM * np.arange(-margin, count + margin)
    radius = np.maximum(mean[:, None] + steps, 1.0)
    position = pose.to_scan(directions[:, None] * radius[..., None]) / spacing_mm

    def sample(volume: np.ndarray, where: np.ndarray) -> np.ndarray:
        samples = ndimage.map_coordinates(volume, where.reshape(-1, 3).T, order=1, mode="nearest")
        return np.asarray(samples.reshape(where.shape[:-1]))

    upper = directions[directions[:, 2] > -0.2]
    deep = upper[:, None] * (mean_radius(upper)[:, None] * np.linspace(0.2, 0.8, 10))[..., None]
    median = max(float(np.median(sample(data, pose.to_scan(deep) / spacing_mm))), 1e-6)
    signal = np.clip(sample(data, position) / median, 0, 1.2)
    skin = sample(depth, position)

    def total(values: np.ndarray, first: int, last: int) -> np.ndarray:
        """Sum over the samples from ``first`` up to ``last``, relative to each candidate."""
        sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
        start, stop = margin + first, margin + last
        return np.asarray(sums[:, stop : stop + count] - sums[:, start : start + count])

    # Darkness just outside and tissue just inside; darkness enclosed so far; tissue left out just beyond; the skull
    # crossed, which only a scalp has within a few millimetres; too near to the skin; far from the mean shape.
    edge = total(signal, 0, 3) / 3 - total(signal, -4, 0) / 4
    dark = np.cumsum(np.clip(0.5 - signal, 0, 0.5), axis=1)[:, margin - 1 : margin - 1 + count]
    beyond = total(np.clip(signal - 0.5, 0, 0.5) * (skin > 0), 0, 5)
    shallow = np.clip(8 - skin[:, margin : margin + count], 0, 8)
    shape = 0.5 * (offsets / spread_mm) ** 2
    cost = 6 * np.clip(edge, -0.8, 0.3) + STEP_MM * (0.12 * dark + 0.1 * beyond)
    cost += 0.6 * shallow + shape
    candidates = position[:, margin : margin + count]
    outside = np.any((candidates < 0) | (candidates > np.array(data.shape) - 1), axis=-1)
    cost = np.where(outside, shape, cost)  # nothing was measured there
    return cost.astype(np.float32), np.logical_not(outside.any(axis=1))


def _agree(costs: np.ndarray) -> np.ndarray:
    """The candidate (N,) of each direction at about the least sum of costs (N, K) and of bends between neighbours."""
    start, _, arriving = _edges(len(costs))
    back = np.roll(np.arange(len(start)), len(start) // 2)
    reach, count = int(np.sqrt(BREAK / BEND)), costs.shape[1]
    messages: np.ndarray = np.zeros((len(start), count), dtype=np.float32)
    for sweep in range(SWEEPS):
        leaving = (costs + arriving @ messages)[start] - messages[back]
        fresh = np.minimum(leaving, leaving.min(axis=1, keepdims=True) + np.float32(BREAK))
        for jump in range(1, reach + 1):
            near, bend = slice(jump, count), np.float32(BEND * jump**2)
            np.minimum(fresh[:, near], leaving[:, : count - jump] + bend, out=fresh[:, near])
            np.minimum(fresh[:, : count - jump], leaving[:, near] + bend, out=fresh[:, : count - jump])
        fresh -= fresh.min(axis=1, keepdims=True)
        messages = fresh if sweep == 0 else (messages + fresh) / 2  # damped, or it would oscillate
    return np.asarray((costs + arriving @ messages).argmin(axis=1))


def _smooth(radius: np.ndarray) -> np.ndarray:
    start, end, _ = _edges(len(radius))
    for _ in range(2):
        sums, counts = np.bincount(end, radius[start]), np.bincount(end)
        radius = (radius + sums / counts) / 2
    return radius


def _fill(head: np.ndarray, spacing_mm: Spacing, pose: Pose, directions: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The voxels inside the surface."""
    polar, azimuth = np.linspace(0, np.pi, 91), np.linspace(-np.pi, np.pi, 181)
    p, a = np.meshgrid(polar, azimuth, indexing="ij")
    table_directions = np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], axis=-1)
    distance, near = spatial.cKDTree(directions).query(table_directions, k=3)
    weight = 1 / (distance + 1e-3)
    table = (radius[near] * weight).sum(axis=-1) / weight.sum(axis=-1)
    voxels = np.argwhere(head)
    shape = pose.to_shape(voxels * np.array(spacing_mm))
    length = np.maximum(np.linalg.norm(shape, axis=1), 1e-6)
    rows = np.arccos(np.clip(shape[:, 2] / length, -1, 1)) / np.pi * 90
    columns = (np.arctan2(shape[:, 1], shape[:, 0]) / np.pi + 1) * 90
    brain = np.zeros(head.shape, dtype=bool)
    inside = length <= ndimage.map_coordinates(table, [rows, columns], order=1) + MARGIN_MM
    brain[tuple(voxels[inside].T)] = True
    return brain


def _depth(head: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Distance in mm to the skin, in each axial slice and through them; the ends of the scan are not skin."""
    padded = np.pad(np.pad(head, ((1, 1), (1, 1), (0, 0))), ((0, 0), (0, 0), (1, 1)), mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    return np.asarray(depth, dtype=np.float32)


def _rotation(pitch: float) -> np.ndarray:
    cos, sin = np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
