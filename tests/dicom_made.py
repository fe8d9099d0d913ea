"""Made-up DICOM: series of classic and of multi-frame MR images of a patient whose name must never come out again."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

NAME, NUMBER, BIRTH = "Quackenbush^Zelda", "ZQ4711", "19470823"
SECRETS = ("quackenbush", "zelda", "zq4711", "19470823", "1947-08-23", "blackwood")
OBLIQUE = (0.9962, 0.0, 0.0872, 0.0076, 0.9962, -0.0868)
"""Row and column of a slice that is tilted about two axes."""


def write_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    number: int = 5,
    description: str = "t2_tirm_tra_dark-fluid",
    study: str = "1",
    patient: str = NAME,
    spacing_mm: tuple[float, float, float] = (2.0, 1.5, 5.0),
    start: tuple[float, float, float] = (-30.0, -40.0, 10.0),
    **header: Any,
) -> Path:
    """Write ``voxels`` (slices, rows, columns) as a series; ``spacing_mm`` is between rows, columns and slices. Files
    are numbered against the order of their places."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    study_uid = generate_uid(entropy_srcs=[patient, study])
    series_uid = generate_uid(entropy_srcs=[patient, study, str(number), description])
    directions = np.array(OBLIQUE)
    rows, columns = directions[:3] / np.linalg.norm(directions[:3]), directions[3:]
    columns = columns - rows * (rows @ columns)
    columns /= np.linalg.norm(columns)
    normal = np.cross(rows, columns)
    for index, image in enumerate(voxels):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(index)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"im_{number}_{len(voxels) - index:03d}.dcm"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = study_uid, series_uid
        data.FrameOfReferenceUID = generate_uid(entropy_srcs=[study_uid, "frame"])
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = patient, NUMBER, BIRTH, "F"
        data.StudyDate, data.StudyTime, data.StudyID = f"2020010{study}", "101500", "77123"
        data.SeriesDate = data.AcquisitionDate = data.ContentDate = data.StudyDate
        data.SeriesTime = data.AcquisitionTime = data.ContentTime = "101712"
        data.AccessionNumber, data.ReferringPhysicianName = "A99812", "Blackwood"
        data.InstitutionName, data.ImageComments = "Blackwood Clinic", "for Zelda"
        data.Modality, data.Manufacturer, data.ManufacturerModelName = "MR", "SIEMENS", "Made"
        data.SeriesDescription = data.ProtocolName = description
        data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = number, index + 1, 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        data.ScanningSequence, data.SequenceVariant, data.MRAcquisitionType = "SE", "SK", "2D"
        data.EchoTime, data.RepetitionTime, data.InversionTime, data.FlipAngle = 90.0, 9000.0, 2500.0, 150.0
        data.MagneticFieldStrength = 3.0
        data.SliceThickness = data.SpacingBetweenSlices = spacing_mm[2]
        data.PixelSpacing = [spacing_mm[0], spacing_mm[1]]
        data.ImageOrientationPatient = [round(float(v), 10) for v in (*rows, *columns)]
        place = np.array(start) + index * spacing_mm[2] * normal
        data.ImagePositionPatient = [round(float(v), 8) for v in place]
        data.PatientPosition = "HFS"
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = image.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        for key, value in header.items():
            setattr(data, key, value)
        data.PixelData = image.astype("<u2").tobytes()
        pydicom.dcmwrite(path, data, enforce_file_format=True)
    return folder


def head(seed: int = 0, shape: tuple[int, int, int] = (12, 20, 24)) -> np.ndarray:
    """Voxels (slices, rows, columns) without any symmetry."""
    return np.random.default_rng(seed).integers(1, 2000, shape)


def enhance(series: Path, path: Path, *, per_frame: bool, order: Sequence[int] | None = None, **header: Any) -> Path:
    """Write the classic series in the folder ``series`` as one Enhanced MR image ``path``.

    Frames come in the ``order`` of these images by their instance number; what all share, direction and size of voxels,
    is said once or ``per_frame``, as some scanners do.
    """
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    images = sorted((pydicom.dcmread(file) for file in series.iterdir()), key=lambda image: int(image.InstanceNumber))
    images = [images[place] for place in (order or range(len(images)))]
    first = images[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[first.SeriesInstanceUID, "enhanced"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    of_frames = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "PixelData")
    of_frames += ("SpacingBetweenSlices", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "InstanceNumber")
    for element in first:
        if element.keyword not in of_frames:
            data.add(deepcopy(element))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    data.NumberOfFrames, data.InstanceNumber = len(images), 1
    organisation = Dataset()
    organisation.DimensionOrganizationUID = generate_uid(entropy_srcs=[first.SeriesInstanceUID, "dimension"])
    data.DimensionOrganizationSequence = [organisation]
    index = Dataset()
    index.DimensionOrganizationUID = organisation.DimensionOrganizationUID
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111  # place in the stack
    data.DimensionIndexSequence = [index]

    def group(**values: Any) -> list[Dataset]:
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return [item]

    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence = group(
        RepetitionTime=first.RepetitionTime, FlipAngle=first.FlipAngle, EchoTrainLength=1
    )
    shared.MREchoSequence = group(EffectiveEchoTime=float(first.EchoTime))
    shared.MRModifierSequence = group(InversionRecovery="YES", InversionTimes=[float(first.InversionTime or 0)])
    frames = []
    for place, image in enumerate(images):
        frame = Dataset()
        frame.FrameContentSequence = group(
            StackID="1", InStackPositionNumber=place + 1, DimensionIndexValues=[place + 1], FrameAcquisitionNumber=1
        )
        frame.PlanePositionSequence = group(ImagePositionPatient=image.ImagePositionPatient)
        for item in [frame] if per_frame else [shared] if place == 0 else []:
            item.PlaneOrientationSequence = group(ImageOrientationPatient=image.ImageOrientationPatient)
            item.PixelMeasuresSequence = group(
                PixelSpacing=image.PixelSpacing,
                SliceThickness=image.SliceThickness,
                SpacingBetweenSlices=image.SpacingBetweenSlices,
            )
        frames.append(frame)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    for key, value in header.items():
        setattr(data, key, value)
    data.PixelData = b"".join(image.PixelData for image in images)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def enhance_each(series: Path, folder: Path, *, per_frame: bool) -> Path:
    """Write each image of the classic series in the folder ``series`` as an Enhanced MR image of one frame, as archives
    do that split multi-frame images."""
    import pydicom

    for file in sorted(series.iterdir()):
        image = pydicom.dcmread(file)
        alone = folder.parent / f"{folder.name}_alone" / file.stem
        alone.mkdir(parents=True)
        image.save_as(alone / file.name)
        number = int(image.InstanceNumber)
        path = enhance(alone, folder / file.name, per_frame=per_frame, InstanceNumber=number)
        split = pydicom.dcmread(path)
        content = split.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]
        content.InStackPositionNumber, content.DimensionIndexValues = number, [number]
        split.SOPInstanceUID = split.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        split.save_as(path)
    return folder
