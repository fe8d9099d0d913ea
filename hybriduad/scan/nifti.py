"""The NIfTI format: headers that are checked before anything is allocated, and voxels as float32."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from hybriduad.core.errors import DataError
from hybriduad.scan.digests import unreadable

MAX_BYTES = 4 * 2**30
"""A volume that declares more than this, on disk or as float32, is refused."""
DEFLATE_RATIO = 1032
"""Deflate cannot compress better than this, so a gzip file bounds what it can hold."""
SPACING_MM = (0.05, 30.0)
"""Smallest and largest voxel size that is believed to be in millimetres: finer than ex vivo, coarser than any scan."""
UNREADABLE = (OSError, EOFError, zlib.error, HeaderDataError, ValueError, KeyError, OverflowError)
"""What damaged content raises in gzip and nibabel (KeyError: an unknown voxel type)."""


def damaged(path: Path, error: BaseException) -> DataError:
    """What is wrong with a file of which reading failed with ``error``, one of ``UNREADABLE``."""
    if isinstance(error, OSError) and error.errno is not None:  # none of gzip's own
        return unreadable(path, error)
    return DataError("damaged or truncated file", where=path, got=str(error), mend="copy or export it again")


def open_file(path: Path) -> BinaryIO:
    """Open for reading, through gzip if the content, not the name, says so."""
    return gzip.open(path, "rb") if _compressed(path) else path.open("rb")  # type: ignore[return-value]


def _compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def parse_header(header: bytes) -> nib.Nifti1Header:
    """The NIfTI-1 or -2 header in these bytes, unchecked."""
    kind = nib.Nifti1Header if len(header) == nib.Nifti1Header.template_dtype.itemsize else nib.Nifti2Header
    return kind(header, check=False)


def read_header(file: BinaryIO, path: Path) -> tuple[tuple[int, int, int], bytes, str]:
    """Shape (X, Y, Z), raw header and voxel type of a NIfTI file, checked; reads nothing but the header.

    Raises:
        DataError: as :func:`hybriduad.scan.volumes.read_grid`.
    """
    nifti1, nifti2 = nib.Nifti1Header.template_dtype.itemsize, nib.Nifti2Header.template_dtype.itemsize
    start = file.read(4)
    sizes = [size for size in (nifti1, nifti2) if start in (size.to_bytes(4, "little"), size.to_bytes(4, "big"))]
    if not sizes:
        raise DataError("not a NIfTI file", where=path, expected=".nii or .nii.gz", mend="convert it, e.g. by dcm2niix")
    start += file.read(sizes[0] - 4)
    if len(start) != sizes[0]:
        raise DataError("damaged or truncated file", where=path, got=f"{len(start)} bytes", expected="a NIfTI header")
    header = parse_header(start)
    if not header["magic"].item().startswith((b"n+1", b"n+2")):
        raise DataError("not a single-file NIfTI", where=path, got=header["magic"].item(), expected="n+1 or n+2")
    rank = int(header["dim"][0])
    shape = [int(length) for length in header["dim"][1 : rank + 1]] if 1 <= rank <= 7 else []
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or min(shape) < 2:
        raise DataError("not a volume", where=path, got=f"shape {tuple(shape)}", expected="three axes of 2 or more")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError("voxels that are no real numbers", where=path, got=dtype, expected="integers or floats")
    _check_size(header, shape, path)
    _check_affine(np.asarray(header.get_best_affine(), dtype=float), path)
    return (shape[0], shape[1], shape[2]), start, dtype.name


def _check_affine(affine: np.ndarray, path: Path) -> None:
    """Refuse a transform that cannot be inverted, or that cannot be in millimetres."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    usable = np.isfinite(affine).all() and np.isfinite(spacing).all() and spacing.min() > 0
    if not usable or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        raise DataError("affine that cannot be inverted", where=path, got=affine.round(4).tolist())
    low, high = SPACING_MM
    if spacing.min() < 0.999 * low or spacing.max() > 1.001 * high:
        raise DataError(
            "voxel size that no brain scan has",
            where=path,
            got=" x ".join(f"{size:.3g}" for size in spacing) + " mm",
            expected=f"{low:g} to {high:g} mm along each axis",
            mend="the unit in the header is probably wrong: write its spacing and transform in millimetres, e.g. by "
            "converting the scan again with dcm2niix",
        )


def _check_size(header: nib.Nifti1Header, shape: list[int], path: Path) -> None:
    """Refuse what the file cannot hold before anything of that size is allocated."""
    voxels, offset = math.prod(shape), max(int(header["vox_offset"]), 0)
    declared = offset + voxels * max(header.get_data_dtype().itemsize, 4)
    if declared > MAX_BYTES:
        got, limit = f"{declared / 2**30:.1f} GiB", f"at most {MAX_BYTES / 2**30:.0f} GiB"
        raise DataError("header that declares too much", where=path, got=f"{got} {tuple(shape)}", expected=limit)
    needed = offset + voxels * header.get_data_dtype().itemsize
    capacity = path.stat().st_size * (DEFLATE_RATIO if _compressed(path) else 1)
    if needed > capacity:
        got, limit = f"{needed} bytes", f"at most {capacity} bytes"
        raise DataError("header that declares more than the file holds", where=path, got=got, expected=limit)


def read_voxels(file: BinaryIO, shape: tuple[int, int, int], raw: bytes, path: Path) -> np.ndarray:
    """The voxels (X, Y, Z) float32, scaled as the header says; ``file`` stands right after the header ``raw``.

    Raises:
        DataError: the file ends too early.
    """
    stored = read_stored(file, shape, raw, path)
    slope, intercept = parse_header(raw).get_slope_inter()
    if slope is not None:
        stored = stored.astype(np.float64) * slope + intercept
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 becomes infinite and is refused
        return stored.astype(np.float32)


def read_stored(file: BinaryIO, shape: tuple[int, int, int], raw: bytes, path: Path) -> np.ndarray:
    """The voxels (X, Y, Z) as they are stored, in the file's type and without its scaling; read-only.

    Raises:
        DataError: the file ends too early.
    """
    header = parse_header(raw)
    dtype, offset = header.get_data_dtype(), max(int(header["vox_offset"]), header.single_vox_offset)
    file.read(offset - len(raw))
    size = math.prod(shape) * dtype.itemsize
    content = file.read(size)
    if len(content) != size:
        raise DataError("damaged or truncated file", where=path, got=f"{len(content)} bytes", expected=f"{size} bytes")
    file.read(1)  # reaching the end makes gzip check its checksum
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F")
