"""The model grid of one case: a square of pixels over the head in every acquired slice, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage, sparse

from hybriduad.core.errors import DataError
from hybriduad.core.types import BACKGROUND, WHITE
from hybriduad.scan.template_grid import TemplateGrid
from hybriduad.scan.volumes import VolumeGrid, from_ras, spacing_of

DIRECTIONS = ("sagittal", "coronal", "axial")
SIDED = frozenset({"coronal", "axial"})
"""Directions whose slices show left and right, along H there. Sagittal slices have front and back along H."""
THICK = 1.5
"""An axis is the slice axis when its spacing exceeds that of both others by this factor."""


@dataclass(frozen=True)
class Grid:
    """Where the model grid lies in the reference scan.

    ``volume`` is the grid of the reference file. ``slice_axis`` is a RAS axis; the other two, in RAS order, are H and
    W. Along them the voxels of the reference cover [0, n], and model pixel i covers ``start`` + i ``step`` to
    ``start`` + (i + 1) ``step``, both in voxels. ``median`` is, for each contrast, the brain's median intensity in
    the scan's units, 0 where the contrast is absent.
    """

    volume: VolumeGrid
    slice_axis: int
    size: int
    start: tuple[float, float]
    step: tuple[float, float]
    median: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, S)."""
        return self.size, self.size, self.volume.shape_ras[self.slice_axis]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a model voxel along H, W and S."""
        spacing = spacing_of(self.volume.affine_ras)
        h, w = in_plane(self.slice_axis)
        return spacing[h] * self.step[0], spacing[w] * self.step[1], spacing[self.slice_axis]

    @property
    def direction(self) -> str:
        """The acquisition direction: sagittal, coronal or axial."""
        return DIRECTIONS[self.slice_axis]

    def to_json(self) -> dict[str, Any]:
        """A mapping that JSON holds without loss."""
        return {
            "volume": self.volume.to_json(),
            "slice_axis": self.slice_axis,
            "size": self.size,
            "start": list(self.start),
            "step": list(self.step),
            "median": list(self.median),
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> Grid:
        """The way back of :meth:`to_json`."""
        return Grid(
            volume=VolumeGrid.from_json(record["volume"]),
            slice_axis=record["slice_axis"],
            size=record["size"],
            start=(record["start"][0], record["start"][1]),
            step=(record["step"][0], record["step"][1]),
            median=tuple(record["median"]),
        )


ModelGrid = Grid | TemplateGrid
"""Where a case was brought to: its own slices, or those of the template."""


def in_plane(slice_axis: int) -> tuple[int, int]:
    """The RAS axes that become H and W."""
    h, w = (axis for axis in range(3) if axis != slice_axis)
    return h, w


def find_slice_axis(spacing_mm: tuple[float, float, float]) -> int:
    """The RAS axis across the acquired slices: the axis with by far the largest spacing, else the axial axis."""
    axis = int(np.argmax(spacing_mm))
    in_plane_mm = [spacing_mm[k] for k in in_plane(axis)]
    return axis if spacing_mm[axis] > THICK * max(in_plane_mm) else 2


def direction_of(volume: VolumeGrid) -> str:
    """The acquisition direction of a scan on that grid: sagittal, coronal or axial."""
    return DIRECTIONS[find_slice_axis(spacing_of(volume.affine_ras))]


def lateral_axis(direction: str) -> int:
    """The axis of the model grid that runs from left to right: H, and across sagittal slices S."""
    return 0 if direction in SIDED else 2


def to_slices(data: np.ndarray, slice_axis: int) -> np.ndarray:
    """RAS (X, Y, Z) to slices last, in-plane axes in RAS order; a view."""
    return np.moveaxis(data, slice_axis, -1)


def cover(head: np.ndarray, spacing_mm: tuple[float, float], size: int, margin_mm: float) -> tuple[Any, Any]:
    """``start`` and ``step`` of the square of ``size`` pixels, in mm, around the ``head`` (H, W, S) in all slices."""
    spans = [np.flatnonzero(head.any(axis=axes))[[0, -1]] + (0, 1) for axes in ((1, 2), (0, 2))]
    side_mm = max(float(last - first) * s for (first, last), s in zip(spans, spacing_mm, strict=True)) + 2 * margin_mm
    step = tuple(side_mm / size / s for s in spacing_mm)
    start = tuple(float(first + last) / 2 - side_mm / 2 / s for (first, last), s in zip(spans, spacing_mm, strict=True))
    return start, step


def area_weights(length: int, start: float, step: float, size: int) -> np.ndarray:
    """(size, length) float32: the share of each model pixel that each voxel covers. Outside the scan lies zero."""
    edges = start + step * np.arange(size + 1)
    voxel = np.arange(length)
    upper = np.minimum(edges[1:, None], voxel[None] + 1)
    lower = np.maximum(edges[:-1, None], voxel[None])
    return (np.clip(upper - lower, 0, None) / step).astype(np.float32)


def linear_weights(length: int, position: np.ndarray) -> np.ndarray:
    """(len(position), length) float32: linear interpolation at ``position``, in indices of ``length`` samples.

    Positions up to half a sample outside take the edge's value, those farther out have no weights.
    """
    inside = (position >= -0.5) & (position <= length - 0.5)
    clipped = np.clip(position, 0, length - 1)
    low = np.minimum(np.floor(clipped).astype(int), max(length - 2, 0))
    weights = np.zeros((len(position), length), dtype=np.float32)
    rows = np.arange(len(position))
    weights[rows, low] = 1 - (clipped - low)
    if length > 1:
        weights[rows, low + 1] += clipped - low
    weights[~inside] = 0
    return weights


def apply_weights(data: np.ndarray, h: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Apply separable in-plane weights (H', H) and (W', W) to slices (H, W, S); returns (H', W', S) float32.

    As sparse products: most weights are 0, and unlike a dense product's the last bits do not depend on the threads.
    """
    turned = np.asarray(data, dtype=np.float32)
    for weights in (h, w):  # each product turns H and W, so the second works on W and turns them back
        product = sparse.csr_array(weights) @ turned.reshape(len(turned), -1)
        turned = product.reshape(len(weights), *turned.shape[1:]).swapaxes(0, 1)
    return np.ascontiguousarray(turned)


def image_weights(length: int, start: float, step: float, size: int) -> np.ndarray:
    """Weights that bring an image to the model grid: area averages, or linear interpolation where pixels get finer."""
    if step >= 1:
        return area_weights(length, start, step, size)
    return linear_weights(length, start + step * (np.arange(size) + 0.5) - 0.5)


def image_to_model(
    slices: list[np.ndarray | None], covered: list[np.ndarray | None], head: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Scans in slices (H, W, S), ``None`` where a contrast is absent, to an image and where it is valid.

    Args:
        slices: of each contrast, in the scan's units.
        covered: (H, W, S) bool for each contrast, where its scan has voxels; ``None`` for everywhere.
        head: (H, W, S) bool.
        grid: the model grid.

    Returns:
        The image (C, H, W, S) float32 in [-1, 1], background, -1, where it is not valid and outside the head, the crop
        and the scan; and ``valid`` (C, H, W, S) bool: all pixels of a contrast, only those made entirely of covered
        voxels where it covers a part of the scan, and none where it is absent.
    """
    image = np.full((len(slices), *grid.shape), BACKGROUND, dtype=np.float32)
    valid = np.zeros(image.shape, dtype=bool)
    h, w = (
        image_weights(n, start, step, grid.size)
        for n, start, step in zip(head.shape[:2], grid.start, grid.step, strict=True)
    )
    for index, data in enumerate(slices):
        if data is not None:
            scaled = np.clip(data * np.float32(1 / (WHITE * grid.median[index])), 0, 1)
            image[index] = 2 * apply_weights(np.where(head, scaled, 0), h, w) - 1
            inside = covered[index]
            if inside is None:
                valid[index] = True
            else:  # weights that are 0 but for rounding sum to less than 1e-4
                valid[index] = (apply_weights(inside, h, w) > 0) & (apply_weights(~inside, h, w) < 1e-4)
    return np.where(valid, image, np.float32(BACKGROUND)), valid


def _areas(mask: np.ndarray, grid: Grid) -> np.ndarray:
    h, w = (
        area_weights(n, start, step, grid.size)
        for n, start, step in zip(mask.shape[:2], grid.start, grid.step, strict=True)
    )
    return apply_weights(mask, h, w)


def mask_to_model(mask: np.ndarray | None, grid: Grid) -> np.ndarray:
    """A mask in slices to the model grid, bool: pixels of which it covers half or more; all False for ``None``."""
    return np.zeros(grid.shape, dtype=bool) if mask is None else _areas(mask, grid) >= 0.5


def lesion_to_model(lesion: np.ndarray | None, grid: Grid) -> np.ndarray:
    """As any mask, but a lesion under half a pixel everywhere keeps the pixel that it covers most."""
    model = mask_to_model(lesion, grid)
    if lesion is None:
        return model
    labels, count = ndimage.label(lesion, structure=np.ones((3, 3, 3)))
    for label, box in enumerate(ndimage.find_objects(labels, count), start=1):
        alone = np.zeros((*lesion.shape[:2], box[2].stop - box[2].start), dtype=bool)
        alone[box[:2]] = labels[box] == label
        areas = _areas(alone, grid)
        within = model[..., box[2]]
        if areas.any() and not (within & (areas > 0)).any():
            within[np.unravel_index(areas.argmax(), areas.shape)] = True
    return model


def intensity_from_model(array: np.ndarray, grid: ModelGrid, contrast: int) -> np.ndarray:
    """Model intensities in [-1, 1], any shape, back to the units of the scan, for the contrast at that index.

    Raises:
        DataError: the case does not have that contrast.
    """
    if grid.median[contrast] == 0:
        raise DataError("contrast that the case does not have", got=contrast)
    return np.asarray((array + np.float32(1)) * np.float32(WHITE * grid.median[contrast] / 2), dtype=np.float32)


def restore(array: np.ndarray, grid: ModelGrid, order: int, fill: float = 0.0) -> np.ndarray:
    """Bring ``array`` (H, W, S) from the model grid to the grid and orientation of the reference scan.

    ``order`` 1 interpolates linearly (float32), in plane or, from template space, in space; 0 takes the nearest (of the
    array's type). Voxels outside the model grid become ``fill``.

    Raises:
        DataError: the array is not of the model grid's shape.
    """
    if isinstance(grid, TemplateGrid):
        return grid.restore(array, order, fill)
    if array.shape != grid.shape:
        raise DataError("array on another grid", got=array.shape, expected=f"the model grid {grid.shape}")
    lengths = [grid.volume.shape_ras[axis] for axis in in_plane(grid.slice_axis)]
    positions = [
        (np.arange(n) + 0.5 - start) / step - 0.5 for n, start, step in zip(lengths, grid.start, grid.step, strict=True)
    ]
    inside = [(p >= -0.5) & (p <= grid.size - 0.5) for p in positions]
    if order == 1:
        h, w = (linear_weights(grid.size, p) for p in positions)
        slices = apply_weights(array, h, w)
    else:
        h, w = (np.clip(np.rint(p), 0, grid.size - 1).astype(int) for p in positions)
        slices = array[h][:, w]
    slices[~inside[0]] = fill
    slices[:, ~inside[1]] = fill
    data = np.moveaxis(slices, -1, grid.slice_axis)
    return np.ascontiguousarray(from_ras(data, grid.volume.orientation))
