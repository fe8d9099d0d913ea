"""The grid of a DICOM series as that of a NIfTI file: which voxel of the one is which of the other.

A series is many images of a slice each, or one multi-frame ("enhanced") image whose frames are the slices. Some
archives split the latter: then each image has one frame, but says where it lies as a multi-frame image does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.exchange.dicom_extra import dicom_module
from hybriduad.scan.volumes import VolumeGrid

TOLERANCE_MM = 0.1
"""How unevenly slices may lie."""
NEEDED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SeriesInstanceUID")
ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""Classes of multi-frame images: Enhanced MR, and Legacy Converted Enhanced MR."""
PLACES = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
"""The functional groups that say where a frame lies and how large its voxels are."""


@dataclass(frozen=True)
class Plane:
    """Where a slice lies: its first voxel and the directions of its rows and columns in mm towards left, back and up;
    ``spacing_mm`` between rows and between columns."""

    position: tuple[float, ...]
    directions: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    shape: tuple[int, int]

    @property
    def depth(self) -> float:
        """How far along the normal of its plane it lies, in mm."""
        return float(np.cross(self.directions[:3], self.directions[3:]) @ self.position)


@dataclass(frozen=True)
class SliceSeries:
    """``images``: the headers, one a slice in the order of their places, or one multi-frame image. ``planes``: the
    slices in the order of their places; ``stored``: which frame of ``images`` each of them is, counted from 0."""

    images: tuple[Any, ...]
    planes: tuple[Plane, ...]
    stored: tuple[int, ...]

    @property
    def enhanced(self) -> bool:
        """Whether all slices are frames of one image."""
        return len(self.images) == 1 < len(self.planes)


def read_series(folder: str | Path) -> dict[str, SliceSeries]:
    """The series below ``folder`` by their number, "601"; an image with several frames is a series of its own.

    Files that are no DICOM images with a place in the patient are passed over.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: no such folder, or no image with a place in the patient.
    """
    pydicom = dicom_module("pydicom")
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("no such folder", got=folder, expected="a folder with the DICOM files of a series")
    by_uid: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError, ValueError, KeyError, NotImplementedError):
            continue
        if header.get("SOPClassUID") in ENHANCED and header.get("NumberOfFrames") == 1:
            _place_of_the_frame(header)
        if all(header.get(name) is not None for name in NEEDED):
            by_uid[str(header.SeriesInstanceUID), ""].append(header)
        elif header.get("SOPClassUID") in ENHANCED and header.get("SeriesInstanceUID"):
            by_uid[str(header.SeriesInstanceUID), str(header.get("SOPInstanceUID"))].append(header)
    series = [found for images in by_uid.values() if (found := _series(images))]
    if not series:
        expected = "the files of the series, one a slice, or one with all slices as frames"
        raise DataError("no DICOM image with a place in the patient", where=folder, expected=expected)
    named: dict[str, SliceSeries] = {}
    for candidate in series:
        number = str(candidate.images[0].get("SeriesNumber") or 0)
        again = (f"{number}.{k}" for k in range(2, len(series) + 2))
        named[next(name for name in (number, *again) if name not in named)] = candidate
    return named


def _place_of_the_frame(image: Any) -> None:
    """Say in the header itself, as an image that knows no frames does, where the only frame of ``image`` lies."""
    for name in PLACES:
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            for frame in image.get(groups) or ():
                for place in frame.get(name) or ():
                    image.update(place)


def _series(images: Sequence[Any]) -> SliceSeries | None:
    """The series of these headers; None where frames have no place."""
    first = images[0]
    if first.get("SOPClassUID") in ENHANCED and first.get("ImagePositionPatient") is None:
        try:
            image, planes = _frames(first)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None
        order = sorted(range(len(planes)), key=lambda frame: planes[frame].depth)
        return SliceSeries((image,), tuple(planes[frame] for frame in order), tuple(order))
    whole = [
        Plane(
            _numbers(image.ImagePositionPatient),
            _numbers(image.ImageOrientationPatient),
            _numbers(image.PixelSpacing),
            (int(image.Rows), int(image.Columns)),
        )
        for image in images
    ]
    order = sorted(range(len(whole)), key=lambda place: whole[place].depth)
    ordered = tuple(images[place] for place in order)
    return SliceSeries(ordered, tuple(whole[place] for place in order), tuple(range(len(order))))


def _frames(image: Any) -> tuple[Any, list[Plane]]:
    """The planes of the frames of a multi-frame image as they are stored, and its header with what all frames share
    where highdicom looks for it: some scanners repeat it in every frame."""
    (shared,), frames = image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence

    def group(frame: Any, name: str) -> Any:
        return (frame if name in frame else shared)[name].value[0]

    planes = [
        Plane(
            _numbers(group(frame, "PlanePositionSequence").ImagePositionPatient),
            _numbers(group(frame, "PlaneOrientationSequence").ImageOrientationPatient),
            _numbers(group(frame, "PixelMeasuresSequence").PixelSpacing),
            (int(image.Rows), int(image.Columns)),
        )
        for frame in frames
    ]
    for name in PLACES[1:]:
        if name not in shared:
            setattr(shared, name, deepcopy(frames[0][name].value))
    return image, planes


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def series_grid(series: SliceSeries) -> VolumeGrid:
    """The grid (columns, rows, slices) of a series in the order of its places.

    DICOM counts millimetres towards left and back, NIfTI towards right and front.

    Raises:
        DataError: slices of several shapes or directions, several at a place, a single one, or uneven slices.
    """
    planes = series.planes
    first = planes[0]
    shapes = {(plane.shape, *(round(value, 4) for value in plane.spacing_mm)) for plane in planes}
    turned = {tuple(round(value, 3) for value in plane.directions) for plane in planes}
    if len(shapes) > 1 or len(turned) > 1 or len(planes) < 2:
        got = f"{len(planes)} images of {len(shapes)} sizes in {len(turned)} directions"
        raise DataError("series that is no volume", got=got, expected="slices of one size and direction")
    places = np.array([plane.position for plane in planes])
    steps = np.diff(places, axis=0)
    step = (places[-1] - places[0]) / (len(planes) - 1)
    if np.linalg.norm(step) < TOLERANCE_MM or np.abs(steps - step).max() > TOLERANCE_MM:
        got = f"steps of {np.linalg.norm(steps, axis=1).min():.2f} to {np.linalg.norm(steps, axis=1).max():.2f} mm"
        raise DataError("slices at uneven places", got=got, expected="one image a place, evenly apart")
    directions = np.array(first.directions)
    rows_mm, columns_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = directions[:3] * columns_mm, directions[3:] * rows_mm
    affine[:3, 2], affine[:3, 3] = step, places[0]
    rows, columns = first.shape
    return VolumeGrid.make((columns, rows, len(planes)), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
