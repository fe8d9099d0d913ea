"""NIfTI volumes in and out: guards, canonical (RAS) orientation and the bit-exact way back.

With :mod:`hybriduad.scan.nifti`, which it is built on, the only nibabel user.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import DTypeLike

from hybriduad.core.errors import DataError, ToolError
from hybriduad.core.stopwatch import step
from hybriduad.core.types import Case
from hybriduad.scan.nifti import (
    UNREADABLE,
    damaged,
    open_file,
    parse_header,
    read_header,
    read_stored,
    read_voxels,
)

GZIP_LEVEL = 1
"""Maps hardly compress further at higher levels, which take several times as long."""

Orientation = tuple[tuple[int, int], ...]
_TRANSFORM = ["pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"]
_TRANSFORM += ["qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"]


@dataclass(frozen=True)
class VolumeGrid:
    """The grid of a NIfTI file, in the file's orientation: everything but the voxels.

    ``shape`` (X, Y, Z); ``header`` the raw NIfTI header, from which a file on the same grid is written with both of
    its transforms bit by bit; ``dtype`` the voxel type on disk.
    """

    shape: tuple[int, int, int]
    header: bytes
    dtype: str

    @staticmethod
    def make(shape: tuple[int, int, int], affine: np.ndarray) -> VolumeGrid:
        """The grid of a file that does not exist yet: ``affine`` (4, 4) from voxels to RAS millimetres."""
        header = nib.Nifti1Header()
        header.set_data_shape(shape)
        header.set_zooms(spacing_of(affine))
        header.set_qform(affine, 1)
        header.set_sform(affine, 1)
        return VolumeGrid(shape, header.binaryblock, header.get_data_dtype().name)

    def to_json(self) -> dict[str, Any]:
        """A mapping that JSON holds without loss."""
        return {"shape": list(self.shape), "header": base64.b64encode(self.header).decode(), "dtype": self.dtype}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> VolumeGrid:
        """The way back of :meth:`to_json`."""
        x, y, z = record["shape"]
        return VolumeGrid((x, y, z), base64.b64decode(record["header"]), record["dtype"])

    @cached_property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, from voxel indices of the file to RAS millimetres."""
        return np.asarray(parse_header(self.header).get_best_affine(), dtype=np.float64)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the file's three axes."""
        return spacing_of(self.affine)

    @cached_property
    def orientation(self) -> Orientation:
        """For each axis of the file the RAS axis it is nearest to, and 1 or -1 for its sense."""
        return tuple((int(axis), int(sense)) for axis, sense in io_orientation(self.affine))

    @property
    def orientation_stated(self) -> bool:
        """Whether the header holds a transform; without any, voxels count as running left, forward and up."""
        header = parse_header(self.header)
        return bool(header["sform_code"] > 0 or header["qform_code"] > 0)

    @cached_property
    def shape_ras(self) -> tuple[int, int, int]:
        """The shape after :func:`to_ras`."""
        turned = [0, 0, 0]
        for length, (axis, _) in zip(self.shape, self.orientation, strict=True):
            turned[axis] = length
        return turned[0], turned[1], turned[2]

    @cached_property
    def affine_ras(self) -> np.ndarray:
        """(4, 4) float64, from voxel indices after :func:`to_ras` to RAS millimetres."""
        return np.asarray(self.affine @ inv_ornt_aff(np.array(self.orientation), self.shape))


@dataclass(frozen=True)
class Image:
    """A volume as it lies in its file: ``data`` (X, Y, Z) in the file's orientation, and its ``grid``."""

    data: np.ndarray
    grid: VolumeGrid

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, from voxel indices to RAS millimetres."""
        return self.grid.affine


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size in mm along the three axes of a (4, 4) affine."""
    x, y, z = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def read_grid(path: str | Path) -> VolumeGrid:
    """Read the header only.

    Raises:
        DataError: the file is missing, not NIfTI, damaged, not three-dimensional, declares more than it can hold, or
            has voxels of a size that no brain scan has (:data:`hybriduad.scan.nifti.SPACING_MM`).
    """
    path = Path(path)
    try:
        with open_file(path) as file:
            return VolumeGrid(*read_header(file, path))
    except UNREADABLE as error:
        raise damaged(path, error) from error


@step("read")
def read_volume(path: str | Path, *, constant_ok: bool = False) -> Image:
    """Read a volume: (X, Y, Z) float32 in the file's orientation; a trailing axis of length 1 is squeezed.

    ``constant_ok`` accepts the same value everywhere, which no scan has but an anomaly map may.

    Raises:
        DataError: as :func:`read_grid`; or the file is truncated, holds NaN or infinity, or is constant.
    """
    path = Path(path)
    try:
        with open_file(path) as file:
            grid = VolumeGrid(*read_header(file, path))
            data = read_voxels(file, grid.shape, grid.header, path)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    low, high = data.min(), data.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(data.size - np.isfinite(data).sum())
        raise DataError("NaN or infinite voxels", where=path, got=f"{count} of {data.size}", expected="finite numbers")
    if low == high and not constant_ok:
        raise DataError("constant image", where=path, got=f"{low:g} in every voxel", expected="a scan")
    return Image(data, grid)


def read_mask(path: str | Path, labels: tuple[int, ...] = ()) -> Image:
    """Read a mask: ``data`` (X, Y, Z) bool in the file's orientation.

    True where the file holds one of ``labels``; without any, where it holds more than 0.5.

    Raises:
        DataError: as :func:`read_volume`; an empty mask is no error.
    """
    image = read_volume(path, constant_ok=True)
    return Image(np.isin(np.rint(image.data), labels) if labels else image.data > 0.5, image.grid)


def read_case_mask(path: Path, case: Case, kind: str) -> Image:
    """The ``lesion``, ``ignore`` or ``brain`` mask of a case, as :func:`read_mask` with the case's labels.

    Raises:
        DataError: as :func:`read_mask`, or a lesion file with labels of which the case names none: taken for empty, it
            would make a patient healthy.
    """
    mask = read_mask(path, case.mask_labels(kind))
    if kind == "lesion" and not mask.data.any() and (labels := case.mask_labels(kind)):
        values = np.unique(np.rint(read_volume(path, constant_ok=True).data)).astype(int).tolist()
        if unnamed := sorted({*values} - {0, *labels, *case.mask_labels("ignore")}):
            raise DataError(
                "lesion mask without any of its labels",
                where=path,
                got=f"values {unnamed[:8]}",
                expected=f"some of {list(labels)}",
                mend="correct the column lesion_labels",
            )
    return mask


@step("write")
def write_volume(path: str | Path, data: np.ndarray, like: VolumeGrid, dtype: DTypeLike = np.float32) -> None:
    """Write ``data`` (X, Y, Z) on the grid ``like`` as ``.nii`` or ``.nii.gz``; both transforms are copied bit by bit.

    The file appears complete or not at all, and the same voxels give the same bytes.

    Raises:
        DataError: ``data`` is not of the grid's shape, or the name does not end in .nii or .nii.gz.
    """
    path = Path(path)
    if tuple(data.shape) != like.shape:
        raise DataError("voxels on another grid", where=path, got=tuple(data.shape), expected=like.shape)
    _write(path, data, like, dtype, (1.0, 0.0))


def replace_voxels(source: str | Path, path: str | Path, where: np.ndarray, values: np.ndarray) -> None:
    """A copy of the scan ``source`` with other values at some voxels; all others are stored bit by bit as there.

    ``where`` (X, Y, Z) bool and ``values`` (X, Y, Z), in the scan's units, are in the file's orientation. The type of
    the voxels and their scaling stay: for integers values are rounded, and cut off where the type ends.

    Raises:
        DataError: as :func:`read_grid` and :func:`write_volume`, or the file is truncated.
    """
    source = Path(source)
    try:
        with open_file(source) as file:
            grid = VolumeGrid(*read_header(file, source))
            voxels = read_stored(file, grid.shape, grid.header, source).copy(order="F")
    except UNREADABLE as error:
        raise damaged(source, error) from error
    slope, intercept = parse_header(grid.header).get_slope_inter()
    scaling = (1.0, 0.0) if slope is None else (float(slope), float(intercept))
    new = (values[where].astype(np.float64) - scaling[1]) / scaling[0]
    if voxels.dtype.kind in "iu":
        limits = np.iinfo(voxels.dtype)
        new = np.rint(new).clip(limits.min, limits.max)
    voxels[where] = new.astype(voxels.dtype)
    _write(Path(path), voxels, grid, voxels.dtype, scaling)


def _write(path: Path, data: np.ndarray, like: VolumeGrid, dtype: DTypeLike, scaling: tuple[float, float]) -> None:
    """Stored voxels under a fresh header: the input's description may name the patient, and so may extensions."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise DataError("unknown volume format", where=path, got=path.suffix, expected=".nii or .nii.gz")
    content = nifti_bytes(data, like, dtype, scaling)
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=GZIP_LEVEL, mtime=0)
    write_atomically(path, content)


def nifti_bytes(
    data: np.ndarray, like: VolumeGrid, dtype: DTypeLike = np.float32, scaling: tuple[float, float] = (1.0, 0.0)
) -> bytes:
    """The NIfTI file, not compressed, of ``data`` (X, Y, Z) on the grid ``like``, both transforms bit by bit.

    ``data`` is what is stored; ``scaling`` (slope, intercept) says what it stands for.
    """
    template = parse_header(like.header)
    header = type(template)()
    for name in _TRANSFORM:
        header[name] = template[name]
    header.set_data_dtype(dtype)
    header.set_data_shape(like.shape)
    header["pixdim"][4:] = 0
    header.set_xyzt_units("mm")
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = scaling
    voxels = np.asarray(data).astype(header.get_data_dtype()).tobytes(order="F")
    return header.binaryblock + b"\0" * 4 + voxels


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it appears complete or not at all: a temporary file beside it, then a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, its keys in order, as :func:`write_atomically` does."""
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode())


def to_ras(image: Image) -> tuple[np.ndarray, np.ndarray, Orientation]:
    """Turn and flip the axes to the nearest right-anterior-superior order, without interpolation.

    Returns ``data`` (X, Y, Z) in RAS (a view), its (4, 4) affine, and the orientation that :func:`from_ras` needs.
    """
    orientation = image.grid.orientation
    return apply_orientation(image.data, np.array(orientation)), image.grid.affine_ras, orientation


def from_ras(data: np.ndarray, orientation: Orientation) -> np.ndarray:
    """The way back of :func:`to_ras`: ``data`` (X, Y, Z) in RAS to the file's orientation, bit by bit."""
    order = [axis for axis, _ in orientation]
    turned = np.transpose(data, order)
    return turned[tuple(slice(None, None, sense) for _, sense in orientation)]


def same_grid(a: VolumeGrid, b: VolumeGrid, tolerance_mm: float = 0.05) -> bool:
    """Whether two files have the same voxels in space: in RAS, equal shapes and corners within ``tolerance_mm``."""
    if a.shape_ras != b.shape_ras:
        return False
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(a.shape_ras) - 1
    shift = corners @ (a.affine_ras - b.affine_ras).T
    return bool(np.abs(shift).max() <= tolerance_mm)


def readable_grids(images: Mapping[str, Path]) -> dict[str, VolumeGrid]:
    """The grid of each image whose header can be read; whoever uses a damaged image reports it."""
    grids = {}
    for name, path in images.items():
        try:
            grids[name] = read_grid(path)
        except ToolError:  # a mask may be on the grid of this image
            raise
        except DataError:
            continue
    return grids


def check_mask_grid(path: Path, grid: VolumeGrid, images: Mapping[str, Path], kind: str) -> None:
    """Make sure that a mask lies on the grid of one of its case's images.

    Raises:
        DataError: on none of them; the sentence tells another shape from the same shape in another place.
    """
    grids = readable_grids(images)
    if any(same_grid(grid, image_grid) for image_grid in grids.values()):
        return
    shapes = [image_grid.shape for image_grid in grids.values()]
    elsewhere = ", in another place than theirs" if grid.shape in shapes else ""
    raise DataError(
        f"{kind} mask on none of the case's grids",
        where=path,
        got=f"shape {grid.shape}{elsewhere}",
        expected=", ".join(f"{name} {image_grid.shape}" for name, image_grid in grids.items()),
        mend="resample it onto the scan that it was drawn on",
    )


def voxel_digest(path: str | Path) -> str:
    """The identity of a scan: sha256 (hex) of its shape and float32 voxels in RAS.

    Equal for copies that were renamed, compressed again, or stored in another orientation or integer type.

    Raises:
        DataError: as :func:`read_volume`.
    """
    try:
        state = Path(path).stat()
    except OSError as error:
        raise damaged(Path(path), error) from error
    return _voxel_digest(Path(path), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _voxel_digest(path: Path, *state: int) -> str:
    """Of a file in one state: every step of a benchmark asks for the same scans."""
    data, _, _ = to_ras(read_volume(path, constant_ok=True))
    digest = hashlib.sha256(np.array(data.shape, dtype="<i8").tobytes())
    digest.update((data + np.float32(0)).astype("<f4").tobytes(order="C"))  # + 0 makes -0 and 0 equal
    return digest.hexdigest()
