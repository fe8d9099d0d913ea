"""DICOM SEG out: the mask's voxels and places come back, read by pydicom and by highdicom."""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hybriduad import __version__
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.exchange.dicom_import import import_dicom
from hybriduad.exchange.dicom_segmentation import write_dicom_seg

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
pytest.importorskip("dcm2niix")
from dicom_made import NAME, enhance, enhance_each, head, write_series  # noqa: E402

BUNDLE = "ab" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``dicom`` two series of a study, on different grids; ``bids`` the first converted; ``predictions`` a mask."""
    root = tmp_path_factory.mktemp("seg")
    write_series(root / "dicom", head(2), number=2, PatientSex="0000")
    write_series(root / "dicom", head(3), number=3, description="t1_se", start=(-20.0, -40.0, 10.0))
    import_dicom(root / "dicom", out=root / "bids", contrasts={"3": "none"})
    scan = nib.load(root / "bids/sub-01/anat/sub-01_FLAIR.nii.gz")
    mask = np.random.default_rng(9).random(scan.shape) > 0.8
    mask[..., 4] = False
    predict(root / "predictions", "sub-01", nib.Nifti1Image(mask.astype(np.uint8), scan.affine))
    predict(root / "predictions", "sub-02", nib.Nifti1Image(np.zeros(scan.shape, np.uint8), scan.affine))
    return root


def predict(out: Path, case: str, mask: nib.Nifti1Image | None) -> None:
    """A prediction as far as it matters here."""
    place = out / case / "anat"
    place.mkdir(parents=True)
    parts = {"score": "somewhere.nii.gz"}
    if mask is not None:
        parts["mask"] = f"{case}/anat/{case}_label-lesion_desc-anomaly_mask.nii.gz"
        nib.save(mask, out / parts["mask"])
    (place / f"{case}_desc-anomaly_probseg.json").write_text(json.dumps({"parts": parts, "bundle": BUNDLE}))


def test_voxels_and_geometry_come_back(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.dcm"
    count = write_dicom_seg(folder / "predictions", "sub-01", folder / "dicom", out=out)
    image = nib.load(folder / "predictions/sub-01/anat/sub-01_label-lesion_desc-anomaly_mask.nii.gz")
    mask, back = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    assert count == mask.sum() > 500
    seg = pydicom.dcmread(out)
    source = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, sorted((folder / "dicom").glob("im_2_*")))}
    frames = seg.pixel_array
    assert len(frames) == 11  # the empty slice is left out
    seen = np.zeros_like(mask)
    for frame, place in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(place.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        uid = place.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(position, np.array(source[uid].ImagePositionPatient, dtype=float), atol=1e-6)
        shared = seg.SharedFunctionalGroupsSequence[0]
        assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == list(
            source[uid].ImageOrientationPatient
        )
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == list(source[uid].PixelSpacing)
        across, down = np.array(source[uid].ImageOrientationPatient, dtype=float).reshape(2, 3)
        for row, column in np.argwhere(frame):
            x, y, z = position + column * across * 1.5 + row * down * 2.0
            seen[tuple((back @ [-x, -y, z, 1])[:3].round().astype(int))] += 1
    np.testing.assert_array_equal(seen, mask)
    by_source = highdicom.seg.segread(out).get_pixels_by_source_instance(list(source), ignore_spatial_locations=False)
    assert by_source.sum() == count


SCRAMBLED = (4, 0, 7, 1, 11, 2, 9, 3, 10, 5, 8, 6)


def by_place(seg: Any) -> dict[tuple[float, ...], np.ndarray]:
    """Frame by the position of its first voxel."""
    places = [place.PlanePositionSequence[0].ImagePositionPatient for place in seg.PerFrameFunctionalGroupsSequence]
    return {
        tuple(round(float(v), 4) for v in place): frame for place, frame in zip(places, seg.pixel_array, strict=True)
    }


@pytest.mark.parametrize(("per_frame", "order"), [(False, None), (True, None), (False, SCRAMBLED), (True, SCRAMBLED)])
def test_all_slices_in_one_image(per_frame: bool, order: tuple[int, ...] | None, folder: Path, tmp_path: Path) -> None:
    """Enhanced MR: the same frames at the same places as for the series with a file a slice, each of its own frame."""
    classic = write_series(tmp_path / "classic", head(2), number=2)
    source = enhance(classic, tmp_path / "dicom" / "all.dcm", per_frame=per_frame, order=order)
    write_dicom_seg(folder / "predictions", "sub-01", classic, out=tmp_path / "classic.dcm")
    count = write_dicom_seg(folder / "predictions", "sub-01", tmp_path / "dicom", out=tmp_path / "enhanced.dcm")
    before, seg = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("classic", "enhanced"))
    assert count == before.pixel_array.sum() == seg.pixel_array.sum()
    expected, frames = by_place(before), by_place(seg)
    assert len(frames) == 11
    assert sorted(frames) == sorted(expected)
    assert all(np.array_equal(frames[place], expected[place]) for place in frames)
    image = pydicom.dcmread(source)
    for place in seg.PerFrameFunctionalGroupsSequence:
        (reference,) = place.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
        frame = image.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
        position = place.PlanePositionSequence[0].ImagePositionPatient
        assert frame.PlanePositionSequence[0].ImagePositionPatient == position
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [2.0, 1.5]


def test_an_image_of_frames_comes_in_and_its_mask_goes_back(folder: Path, tmp_path: Path) -> None:
    """dcm2niix reads it to the same voxels as the series of a file a slice; of two in a series the mask's is told."""
    classic = write_series(tmp_path / "classic", head(2), number=2)
    enhance(classic, tmp_path / "dicom" / "all.dcm", per_frame=True)
    imported = import_dicom(tmp_path / "dicom", out=tmp_path / "bids")
    assert [row.contrast for row in imported.rows] == ["FLAIR"]
    scan, known = (nib.load(root / "bids/sub-01/anat/sub-01_FLAIR.nii.gz") for root in (tmp_path, folder))
    np.testing.assert_array_equal(np.asarray(scan.dataobj), np.asarray(known.dataobj))
    np.testing.assert_allclose(scan.affine, known.affine, atol=1e-4)
    other = write_series(tmp_path / "other", head(3), number=2, start=(-20.0, -40.0, 10.0))
    enhance(other, tmp_path / "dicom" / "other.dcm", per_frame=False)
    count = write_dicom_seg(folder / "predictions", "sub-01", tmp_path / "dicom", out=tmp_path / "mask.dcm")
    assert count == pydicom.dcmread(tmp_path / "mask.dcm").pixel_array.sum() > 500
    (tmp_path / "mask.dcm").rename(tmp_path / "dicom" / "mask.dcm")  # it has frames too, but is no scan
    write_dicom_seg(folder / "predictions", "sub-01", tmp_path / "dicom", out=tmp_path / "mask.dcm")


@pytest.mark.parametrize("per_frame", [False, True])
def test_an_image_of_frames_that_was_split_comes_in_and_its_mask_goes_back(
    per_frame: bool, folder: Path, tmp_path: Path
) -> None:
    """Enhanced MR of one frame a file: the scan and the frames of the classic series, referring to the class it has."""
    classic = write_series(tmp_path / "classic", head(2), number=2)
    source = enhance_each(classic, tmp_path / "dicom", per_frame=per_frame)
    import_dicom(source, out=tmp_path / "bids")
    scan, known = (nib.load(root / "bids/sub-01/anat/sub-01_FLAIR.nii.gz") for root in (tmp_path, folder))
    np.testing.assert_array_equal(np.asarray(scan.dataobj), np.asarray(known.dataobj))
    np.testing.assert_allclose(scan.affine, known.affine, atol=1e-4)
    write_dicom_seg(folder / "predictions", "sub-01", classic, out=tmp_path / "classic.dcm")
    count = write_dicom_seg(folder / "predictions", "sub-01", source, out=tmp_path / "split.dcm")
    before, seg = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("classic", "split"))
    assert count == before.pixel_array.sum()
    expected, frames = by_place(before), by_place(seg)
    assert sorted(frames) == sorted(expected)
    assert all(np.array_equal(frames[place], expected[place]) for place in frames)
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, sorted(source.iterdir()))}
    for place in seg.PerFrameFunctionalGroupsSequence:
        (reference,) = place.DerivationImageSequence[0].SourceImageSequence
        (frame,) = images[reference.ReferencedSOPInstanceUID].PerFrameFunctionalGroupsSequence
        position = place.PlanePositionSequence[0].ImagePositionPatient
        assert frame.PlanePositionSequence[0].ImagePositionPatient == position
    said = {str(element.value) for element in seg.iterall() if element.keyword == "ReferencedSOPClassUID"}
    assert said == {"1.2.840.10008.5.1.4.1.1.4.1"}
    of_all, of_classic = (file.SharedFunctionalGroupsSequence[0] for file in (seg, before))
    assert of_all.PixelMeasuresSequence == of_classic.PixelMeasuresSequence
    assert of_all.PlaneOrientationSequence == of_classic.PlaneOrientationSequence


def test_frames_without_a_place_or_several_at_one_are_refused(folder: Path, tmp_path: Path) -> None:
    classic = write_series(tmp_path / "classic", head(2), number=2)
    twice = [place for place in range(12) for _ in range(2)]
    enhance(classic, tmp_path / "echoes" / "all.dcm", per_frame=False, order=twice)
    with pytest.raises(
        DataError, match=r"no series on the grid .*slices at uneven places: got steps of 0\.00 to 5\.00"
    ):
        write_dicom_seg(folder / "predictions", "sub-01", tmp_path / "echoes", out=tmp_path / "x.dcm")
    empty = {"PerFrameFunctionalGroupsSequence": [pydicom.Dataset()] * 12}
    enhance(classic, tmp_path / "nowhere" / "all.dcm", per_frame=False, **empty)
    with pytest.raises(DataError, match=r"no DICOM image with a place in the patient.*or one with all slices"):
        write_dicom_seg(folder / "predictions", "sub-01", tmp_path / "nowhere", out=tmp_path / "x.dcm")


def test_what_the_file_says_of_itself(folder: Path, tmp_path: Path) -> None:
    for name in ("one.dcm", "two.dcm"):
        write_dicom_seg(folder / "predictions", "sub-01", folder / "dicom", out=tmp_path / name, number="2")
    seg, again = pydicom.dcmread(tmp_path / "one.dcm"), pydicom.dcmread(tmp_path / "two.dcm")
    assert seg.SOPInstanceUID == again.SOPInstanceUID
    (segment,) = seg.SegmentSequence
    coded = segment.SegmentedPropertyCategoryCodeSequence[0], segment.SegmentedPropertyTypeCodeSequence[0]
    assert [(code.CodeValue, code.CodingSchemeDesignator) for code in coded] == [
        ("49755003", "SCT"),
        ("52988006", "SCT"),
    ]
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("hybriduad", __version__)
    assert BUNDLE in algorithm.AlgorithmParameters
    assert "esearch use only" in seg.ContentDescription
    assert "research use only" in segment.SegmentLabel
    assert (seg.SegmentationType, seg.Modality, str(seg.PatientName)) == ("BINARY", "SEG", NAME)
    assert seg.FrameOfReferenceUID == pydicom.dcmread(folder / "dicom/im_2_001.dcm").FrameOfReferenceUID


def test_nothing_is_said_of_the_patient(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of a name without a caret, and of a date that is none, pydicom and highdicom warn, quoting them."""
    odd = write_series(tmp_path / "odd", head(2), patient="Zelda", PatientBirthDate="August1947", PatientSex="0000")
    capfd.readouterr()
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_dicom(odd, out=tmp_path / "out")
        with contextlib.suppress(DataError):
            write_dicom_seg(folder / "predictions", "sub-01", odd, out=tmp_path / "odd.dcm")
    said = [*capfd.readouterr(), caplog.text, *(str(warning.message) for warning in caught)]
    assert not [text for text in said if "zelda" in text.casefold() or "1947" in text]


def test_an_empty_mask_is_written_as_such(folder: Path, tmp_path: Path) -> None:
    assert write_dicom_seg(folder / "predictions", "sub-02", folder / "dicom", out=tmp_path / "e.dcm") == 0
    assert pydicom.dcmread(tmp_path / "e.dcm").pixel_array.shape == (12, 20, 24)
    assert not pydicom.dcmread(tmp_path / "e.dcm").pixel_array.any()


def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    predictions, dicom, out = folder / "predictions", folder / "dicom", tmp_path / "x.dcm"
    with pytest.raises(DataError, match=r"no such case in .*: got sub-9, expected one of \['sub-01', 'sub-02'\]"):
        write_dicom_seg(predictions, "sub-9", dicom, out=out)
    with pytest.raises(DataError, match=r"no series on the grid of the mask .*series 3: \(24, 20, 12\), in another pl"):
        write_dicom_seg(predictions, "sub-01", dicom, out=out, number="3")
    with pytest.raises(DataError, match=r"no such series .*got 8"):
        write_dicom_seg(predictions, "sub-01", dicom, out=out, number="8")
    twice = write_series(tmp_path / "twice", head(2), number=2)
    write_series(twice, head(2), number=7)
    with pytest.raises(DataError, match=r"several series on the grid of the mask .*--series 2"):
        write_dicom_seg(predictions, "sub-01", twice, out=out)
    gap = write_series(tmp_path / "gap", head(2), number=2)
    (gap / "im_2_005.dcm").unlink()
    with pytest.raises(DataError, match=r"slices at uneven places: got steps of 5.00 to 10.00 mm"):
        write_dicom_seg(predictions, "sub-01", gap, out=out)
    predict(tmp_path / "p", "sub-01", None)
    with pytest.raises(DataError, match="prediction without a mask"):
        write_dicom_seg(tmp_path / "p", "sub-01", dicom, out=out)
    assert not out.exists()
    with pytest.raises(ConfigError, match=r"ends in \.dcm"):
        write_dicom_seg(predictions, "sub-01", dicom, out=tmp_path / "x.nii.gz")
    out.write_bytes(b"")
    with pytest.raises(ConfigError, match="file already there"):
        write_dicom_seg(predictions, "sub-01", dicom, out=out)
