"""The mask of a prediction as DICOM SEG on its source series, which viewers and archives show over the scan."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad import __version__
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.exchange.dicom_extra import dicom_module, quiet
from hybriduad.exchange.dicom_geometry import ENHANCED, SliceSeries, read_series, series_grid
from hybriduad.prediction.files import SUFFIXES
from hybriduad.scan.preparation import resampled
from hybriduad.scan.volumes import Image, VolumeGrid, read_mask, same_grid, write_atomically

USE = "Research use only: not a medical device, not for diagnosis"
"""The content description, at most 64 characters as DICOM wants."""
SEXES = ("M", "F", "O", "")
SLICES = "1.2.840.10008.5.1.4.1.1.4"
"""The class MR Image, of a slice each."""
SERIES_OFFSET = 9000
"""Added to the number of the source series, so that the mask is listed after the scans of a study."""


def write_dicom_seg(
    predictions: str | Path,
    case: str,
    series: str | Path,
    *,
    out: str | Path,
    number: str | None = None,
    overwrite: bool = False,
) -> int:
    """Write the mask of ``case`` as DICOM SEG: binary, one segment, on the grid of the series that its scan is from.

    The codes are SNOMED CT's: category "Morphologically Abnormal Structure" (49755003), type "Lesion" (52988006), in
    the brain (12738006). Voxels are those of the mask bit by bit; no resampling. DICOM files belong to a patient: name,
    number and study are those of the series.

    Args:
        predictions: a folder made by ``predict``.
        case: its name, ``sub-X[_ses-Y][_run-Z]``.
        series: folder with the DICOM files of the reference scan, one a slice (of either class, MR or Enhanced MR) or
            one multi-frame ("enhanced") image of all; others beside it are told by their grid.
        out: the file, .dcm.
        number: the series number, where several of the folder lie on the mask's grid.
        overwrite: replace ``out``.

    Returns the number of voxels in the mask.

    Raises:
        ConfigError: the extra ``dicom`` is not installed, or ``out`` exists.
        DataError: no such case or mask, or not exactly one series on the mask's grid.
    """
    for module in ("pydicom", "highdicom"):
        dicom_module(module)
    path = Path(out)
    if path.suffix.lower() != ".dcm":
        raise ConfigError("unknown format of a DICOM SEG", got=path.name, expected="a name that ends in .dcm")
    if path.exists() and not overwrite:
        raise ConfigError("file already there", where=path, mend="choose another name, or --overwrite")
    mask, record = _mask(Path(predictions), case)
    content = io.BytesIO()
    with quiet():
        source, grid = _source(series, mask.grid, number)
        voxels = resampled(Image(mask.data.astype(np.float32), mask.grid), grid, linear=False) > 0.5
        frames = np.empty(voxels.shape[::-1], dtype=np.uint8)
        frames[list(source.stored)] = voxels.transpose(2, 1, 0)  # as the source has them: the one refers to the other
        _segmentation(source, frames, str(record["bundle"])).save_as(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return int(voxels.sum())


def _mask(predictions: Path, case: str) -> tuple[Image, dict[str, Any]]:
    """The mask of a case and its record."""
    records = sorted(predictions.glob(f"sub-*/**/*_{SUFFIXES['score']}.json"))
    named = {path.name.removesuffix(f"_{SUFFIXES['score']}.json"): path for path in records}
    if case not in named:
        raise DataError("no such case", where=predictions, got=case, expected=f"one of {list(named)[:10]}")
    try:
        record = json.loads(named[case].read_text())
        part = record["parts"].get("mask")
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError("unreadable record of a case", where=named[case], mend="predict it again") from error
    if part is None:
        mend = "calibrate the bundle, then predict with the mask"
        raise DataError("prediction without a mask", where=case, mend=mend)
    if not (predictions / part).resolve().is_relative_to(predictions.resolve()):
        raise DataError("record of a file outside its folder", where=named[case], got=part)
    return read_mask(predictions / part), record


def _source(folder: str | Path, target: VolumeGrid, number: str | None) -> tuple[SliceSeries, VolumeGrid]:
    """The one series on the grid ``target``, and its grid."""
    found, faults = {}, []
    there = read_series(folder)
    if number is not None and number not in there:
        raise DataError("no such series", where=folder, got=number, expected=f"one of {sorted(there)}")
    for label, series in there.items():
        if number not in (None, label):
            continue
        try:
            grid = series_grid(series)
        except DataError as error:
            faults.append(f"series {label}: {str(error).rstrip('.')}")
            continue
        if same_grid(grid, target):
            found[label] = (series, grid)
        else:
            faults.append(f"series {label}: {grid.shape}, in another place or of another size")
    if not found:
        mend = "name the folder of the series that the predicted scan was converted from, not resampled"
        raise DataError(
            "no series on the grid of the mask",
            where=folder,
            got="; ".join(faults[:8]),
            expected=target.shape,
            mend=mend,
        )
    if len(found) > 1:
        mend = f"name that of the scan, as in --series {sorted(found)[0]}"
        raise DataError("several series on the grid of the mask", where=folder, got=sorted(found), mend=mend)
    return next(iter(found.values()))


def _segmentation(source: SliceSeries, frames: np.ndarray, bundle: str) -> Any:
    """The SEG object of frames (slices, rows, columns) uint8 in the order of the source; the same voxels on the same
    series have the same UIDs."""
    images = source.images
    hd = dicom_module("highdicom")
    codes = dicom_module("pydicom.sr.codedict").codes
    generate_uid = dicom_module("pydicom.uid").generate_uid
    content = hashlib.sha256(np.packbits(frames).tobytes()).hexdigest()
    sources = [str(images[0].SeriesInstanceUID), content, bundle, __version__]
    if source.enhanced:  # a series may hold several
        sources.append(str(images[0].SOPInstanceUID))

    def uid(kind: str) -> str:
        return str(generate_uid(entropy_srcs=[kind, *sources]))

    description = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Lesion (research use only)",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="hybriduad",
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            parameters={"bundle": bundle},
        ),
        tracking_uid=uid("tracking"),
        tracking_id="lesion",
        anatomic_regions=[codes.SCT.Brain],
    )
    classes = {image.get("SOPInstanceUID"): image.get("SOPClassUID") for image in images}
    for image in images:  # headers of our own reading: anonymised scans hold what the standard does not know
        if image.get("PatientSex") not in (*SEXES, None):
            image.PatientSex = ""
        if image.get("SOPClassUID") in ENHANCED and not source.enhanced:  # highdicom refers to one multi-frame image
            image.SOPClassUID = SLICES

    def name_the_class(item: Any, element: Any) -> None:
        if element.keyword == "ReferencedSOPClassUID":
            element.value = classes.get(item.get("ReferencedSOPInstanceUID"), element.value)

    try:
        segmentation = hd.seg.Segmentation(
            source_images=list(images),
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[description],
            series_instance_uid=uid("series"),
            series_number=SERIES_OFFSET + int(images[0].get("SeriesNumber") or 0),
            sop_instance_uid=uid("instance"),
            instance_number=1,
            manufacturer="hybriduad",
            manufacturer_model_name="hybriduad",
            software_versions=__version__,
            device_serial_number=bundle[:12],
            content_description=USE,
            content_label="LESION",
            series_description="hybriduad lesions (research use only)",
            omit_empty_frames=bool(frames.any()),
        )
        segmentation.walk(name_the_class)
        return segmentation
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        # By the type alone: the text may hold values of the header.
        got = f"highdicom's {type(error).__name__}"
        raise DataError("series that a DICOM SEG cannot refer to", got=got, mend="export it again") from error
