"""The grid of a DICOM series as that of a NIfTI file: which voxel of the one is which of the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.exchange.dicom_extra import dicom_module
from hybriduad.scan.volumes import VolumeGrid

TOLERANCE_MM = 0.1
"""How unevenly slices may lie."""
NEEDED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SeriesInstanceUID")


def read_series(folder: str | Path) -> dict[str, list[Any]]:
    """The headers below ``folder``, one a slice, by series: "601" -> datasets in the order of their places.

    Files that are no DICOM images with a place in the patient are passed over.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: no such folder, or no image with a place in the patient.
    """
    pydicom = dicom_module("pydicom")
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("no such folder", got=folder, expected="a folder with the DICOM files of a series")
    by_uid: dict[str, list[Any]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError, ValueError, KeyError, NotImplementedError):
            continue
        if all(header.get(name) is not None for name in NEEDED):
            by_uid[str(header.SeriesInstanceUID)].append(header)
    if not by_uid:
        raise DataError(
            "no DICOM image with a place in the patient",
            where=folder,
            expected="the files of the series, one a slice",
            mend="enhanced DICOM, with all slices in one file, is not supported: export it as classic DICOM",
        )
    named: dict[str, list[Any]] = {}
    for images in by_uid.values():
        number = str(images[0].get("SeriesNumber") or 0)
        label = next(
            name for name in (number, *(f"{number}.{k}" for k in range(2, len(by_uid) + 2))) if name not in named
        )
        named[label] = sorted(images, key=_depth)
    return named


def series_grid(images: Sequence[Any]) -> VolumeGrid:
    """The grid (columns, rows, slices) of the images of a series in the order of their places.

    DICOM counts millimetres towards left and back, NIfTI towards right and front.

    Raises:
        DataError: images of several shapes or directions, several at a place, a single one, or uneven slices.
    """
    first = images[0]
    shapes = {(image.Rows, image.Columns, *(round(float(v), 4) for v in image.PixelSpacing)) for image in images}
    turned = {tuple(round(float(v), 3) for v in image.ImageOrientationPatient) for image in images}
    if len(shapes) > 1 or len(turned) > 1 or len(images) < 2:
        got = f"{len(images)} images of {len(shapes)} sizes in {len(turned)} directions"
        raise DataError("series that is no volume", got=got, expected="slices of one size and direction")
    places = np.array([[float(value) for value in image.ImagePositionPatient] for image in images])
    steps = np.diff(places, axis=0)
    step = (places[-1] - places[0]) / (len(images) - 1)
    if np.linalg.norm(step) < TOLERANCE_MM or np.abs(steps - step).max() > TOLERANCE_MM:
        got = f"steps of {np.linalg.norm(steps, axis=1).min():.2f} to {np.linalg.norm(steps, axis=1).max():.2f} mm"
        raise DataError("slices at uneven places", got=got, expected="one image a place, evenly apart")
    directions = np.array([float(value) for value in first.ImageOrientationPatient])
    rows_mm, columns_mm = (float(value) for value in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = directions[:3] * columns_mm, directions[3:] * rows_mm
    affine[:3, 2], affine[:3, 3] = step, places[0]
    shape = (int(first.Columns), int(first.Rows), len(images))
    return VolumeGrid.make(shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _depth(image: Any) -> float:
    """How far along the normal of its plane a slice lies, in mm."""
    directions = np.array([float(value) for value in image.ImageOrientationPatient])
    return float(np.cross(directions[:3], directions[3:]) @ [float(value) for value in image.ImagePositionPatient])
