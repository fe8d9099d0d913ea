"""NIfTI in and out: against nibabel itself, in every orientation, and every way in which a file can be wrong."""

import errno
import gzip
import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hybriduad.core.errors import DataError, ToolError
from hybriduad.scan.digests import file_digest
from hybriduad.scan.volumes import (
    Image,
    VolumeGrid,
    check_mask_grid,
    from_ras,
    read_grid,
    read_mask,
    read_volume,
    replace_voxels,
    same_grid,
    spacing_of,
    to_ras,
    voxel_digest,
    write_volume,
)

ORIENTATIONS = ["".join(p) for q in ("RAS", "RPS", "LAS", "LPI") for p in itertools.permutations(q)]
AFFINE = np.array([[0.9, 0.1, 0, -40], [-0.1, 1.1, 0.05, -50], [0, -0.06, 5.0, -30], [0, 0, 0, 1.0]])


def voxels(shape=(5, 6, 7), dtype=np.float32, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def save(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def oriented(data, affine, codes):
    """The same scan stored along other axes, by nibabel."""
    image = nib.Nifti1Image(data, affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    return image.as_reoriented(turn)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_read_agrees_with_nibabel(tmp_path, dtype, name):
    path = save(tmp_path / name, voxels(dtype=dtype))
    image = read_volume(path)
    assert image.data.dtype == np.float32
    np.testing.assert_array_equal(image.data, nib.load(path).get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(image.affine, nib.load(path).affine)
    assert read_grid(path).shape == (5, 6, 7)
    np.testing.assert_allclose(read_grid(path).spacing_mm, nib.affines.voxel_sizes(AFFINE), rtol=1e-6)


def test_scaled_voxels_and_nifti2_and_other_byte_order(tmp_path):
    scaled = nib.Nifti1Image(voxels(dtype=np.int16), AFFINE)
    scaled.header.set_slope_inter(0.5, -3)
    nib.save(scaled, tmp_path / "scaled.nii.gz")
    nib.save(nib.Nifti2Image(voxels(), AFFINE), tmp_path / "two.nii")
    swapped = nib.Nifti1Image(voxels(), AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(swapped, tmp_path / "swapped.nii")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_volume(path).data, nib.load(path).get_fdata(dtype=np.float32))
        write_volume(tmp_path / f"again_{path.name}", read_volume(path).data, read_grid(path))
        np.testing.assert_array_equal(read_volume(tmp_path / f"again_{path.name}").affine, nib.load(path).affine)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_ras_agrees_with_nibabel_and_comes_back_bit_by_bit(tmp_path, codes):
    path = tmp_path / "a.nii.gz"
    nib.save(oriented(voxels(), AFFINE, codes), path)
    image = read_volume(path)
    data, affine, orientation = to_ras(image)
    canonical = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_array_equal(data, canonical.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(affine, canonical.affine)
    assert data.shape == image.grid.shape_ras
    np.testing.assert_array_equal(from_ras(data, orientation), image.data)


@pytest.mark.parametrize("qform_only", [False, True])
def test_written_grid_is_bit_exact(tmp_path, qform_only):
    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = nib.affines.from_matvec(rotation @ np.diag([-0.9375, 1.1, 6.123]), [1 / 3, -20.7, 11.1])
    scan = nib.Nifti1Image(voxels(), affine)
    scan.set_qform(affine, 1)
    if qform_only:
        scan.set_sform(None, 0)
    nib.save(scan, tmp_path / "scan.nii.gz")
    write_volume(tmp_path / "map.nii.gz", voxels(seed=1) / 200, read_grid(tmp_path / "scan.nii.gz"))
    before, after = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "map.nii.gz")
    for get in ("get_qform", "get_sform"):
        np.testing.assert_array_equal(getattr(before, get)(), getattr(after, get)())
    assert [int(before.header[k]) for k in ("qform_code", "sform_code")] == [
        int(after.header[k]) for k in ("qform_code", "sform_code")
    ]
    assert after.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(after.get_fdata(dtype=np.float32), np.float32(voxels(seed=1) / 200))


def test_writing_is_deterministic_atomic_and_typed(tmp_path):
    grid = VolumeGrid.make((5, 6, 7), AFFINE)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, voxels() > 99, grid, np.uint8)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]
    with pytest.raises(DataError, match="another grid"):
        write_volume(tmp_path / "a.nii.gz", np.zeros((2, 2, 2)), grid)
    with pytest.raises(DataError, match=r"\.nii\.gz"):
        write_volume(tmp_path / "a.mgz", voxels(), grid)


def test_writing_leaves_no_patient_text(tmp_path):
    scan = nib.Nifti1Image(voxels(), AFFINE)
    scan.header["descrip"] = b"Doe^Jane"
    nib.save(scan, tmp_path / "a.nii")
    write_volume(tmp_path / "b.nii", voxels(), read_grid(tmp_path / "a.nii"))
    assert b"Jane" in (tmp_path / "a.nii").read_bytes()
    assert b"Jane" not in (tmp_path / "b.nii").read_bytes()


def test_trailing_axes_of_one_are_squeezed(tmp_path):
    assert read_volume(save(tmp_path / "a.nii", voxels((4, 5, 6, 1, 1)))).data.shape == (4, 5, 6)


def broken_files(folder):
    """name -> (file, words of the sentence)."""
    good = save(folder / "good.nii.gz", voxels((20, 20, 20))).read_bytes()
    plain = save(folder / "good.nii", voxels((20, 20, 20))).read_bytes()

    def header(shape, dtype=np.float32, affine=AFFINE):
        fields = nib.Nifti1Header()
        fields.set_data_shape(shape)
        fields.set_data_dtype(dtype)
        fields.set_sform(affine, 1)
        fields["vox_offset"], fields["magic"] = 352, b"n+1"
        return fields.binaryblock + b"\0" * 4

    def nan():
        data = voxels()
        data[1, 2, 3] = np.nan
        return gzip.compress(nib.Nifti1Image(data, AFFINE).to_bytes())

    checksum = bytearray(good)
    checksum[-8] ^= 1
    return {
        "truncated_gzip": (good[: len(good) // 2], "damaged or truncated"),
        "corrupt_gzip": (good[:40] + b"\xff" * 40 + good[80:], "damaged or truncated"),
        "wrong_checksum": (bytes(checksum), "damaged or truncated"),
        "truncated_plain": (plain[:-100], "declares more than the file holds"),
        "text": (b"subject,age\n" * 100, "not a NIfTI file"),
        "empty": (b"", "not a NIfTI file"),
        "only_magic": ((348).to_bytes(4, "little") + b"x", "damaged or truncated"),
        "four_axes": (gzip.compress(nib.Nifti1Image(voxels((4, 4, 4, 3)), AFFINE).to_bytes()), "not a volume"),
        "two_axes": (gzip.compress(nib.Nifti1Image(voxels((4, 4)), AFFINE).to_bytes()), "not a volume"),
        "one_slice": (gzip.compress(nib.Nifti1Image(voxels((4, 4, 1)), AFFINE).to_bytes()), "not a volume"),
        "nan": (nan(), "NaN or infinite"),
        "infinite": (header((2, 2, 2), np.float64) + np.full(8, 1e300).tobytes(), "NaN or infinite"),
        "constant": (gzip.compress(nib.Nifti1Image(np.full((4, 4, 4), 7.0), AFFINE).to_bytes()), "constant image"),
        "complex": (header((2, 2, 2), np.complex64) + b"\0" * 64, "no real numbers"),
        "negative_axis": (header((2, 2, 2)).replace(b"\x03\0\2\0", b"\x03\0\xfe\xff", 1) + b"\0" * 32, "not a volume"),
        "flat_affine": (header((2, 2, 2), affine=np.diag([1, 1, 0, 1.0])) + b"\0" * 32, "cannot be inverted"),
        "metres": (
            header((2, 2, 2), affine=np.diag([1e-3, 1e-3, 4e-3, 1])) + b"\0" * 32,
            "size that no brain scan has",
        ),
        "microns": (header((2, 2, 2), affine=np.diag([50, 50, 50, 1.0])) + b"\0" * 32, "size that no brain scan has"),
        "declares_27_gb": (gzip.compress(header((3000, 3000, 750))), "declares too much"),
        "declares_3_gb": (gzip.compress(header((900, 900, 900))), "declares more than the file holds"),
    }


def test_wrong_files_are_refused_in_a_sentence_without_allocating(tmp_path):
    import tracemalloc

    for name, (content, words) in broken_files(tmp_path).items():
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(DataError, match=words) as caught:
            read_volume(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert name in str(caught.value)
        assert str(caught.value).endswith(".")
        assert peak < 2**24, name
    with pytest.raises(DataError, match="missing file"):
        read_volume(tmp_path / "no.nii.gz")
    with pytest.raises(DataError, match="cannot read file"):
        read_grid(tmp_path)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_a_disk_that_fails_is_no_fault_of_the_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(64, dtype=np.float32).reshape(4, 4, 4), np.eye(4)), scan)
    mask = read_grid(scan)

    def fail(path: Path, *_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", fail)
    for read in (read_grid, read_volume, file_digest):
        with pytest.raises(ToolError, match=f"cannot read file in {scan}: got {os.strerror(number)}"):
            read(scan)
    with pytest.raises(ToolError):  # and not that the mask is on no grid of the case
        check_mask_grid(scan, mask, {"FLAIR": scan}, "brain")


@pytest.mark.parametrize("size_mm", [0.05, 30.0])
def test_the_finest_and_the_coarsest_voxels_that_are_read(tmp_path, size_mm):
    path = save(tmp_path / "a.nii", voxels(), np.diag([size_mm, 1.0, 2.0, 1.0]))
    assert read_grid(path).spacing_mm == pytest.approx((size_mm, 1, 2))


def test_no_single_wrong_byte_of_the_header_escapes(tmp_path):
    path = save(tmp_path / "a.nii", voxels((3, 3, 3)))
    good = path.read_bytes()
    refused = 0
    meaningful = [*range(4), *range(40, 56), *range(70, 74), *range(76, 88), *range(108, 120), *range(252, 256)]
    for position, value in itertools.product([*meaningful, *range(280, 328, 5), *range(344, 352)], (3, 255)):
        path.write_bytes(good[:position] + bytes([value]) + good[position + 1 :])
        try:
            data = read_volume(path).data
        except DataError:
            refused += 1
        else:
            assert data.size <= 27
            assert np.isfinite(data).all()
    assert refused > 20


def test_masks_and_maps_may_be_constant(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.uint8))
    assert not read_mask(path).data.any()
    assert read_volume(path, constant_ok=True).data.max() == 0
    labels = save(tmp_path / "b.nii", np.arange(8, dtype=np.uint8).reshape(2, 2, 2) // 2)
    np.testing.assert_array_equal(read_mask(labels).data.ravel(), [0, 0, 1, 1, 1, 1, 1, 1])


def test_same_grid_looks_at_space_not_at_storage():
    grid = VolumeGrid.make((20, 20, 9), AFFINE)
    turned = oriented(np.zeros((20, 20, 9), np.float32), AFFINE, "LPI")
    shifted, bent = AFFINE.copy(), AFFINE.copy()
    shifted[0, 3] += 0.2
    bent[1, 0] += 0.02
    nearly = AFFINE + 1e-5 * np.random.default_rng(0).normal(size=(4, 4)) * [[1], [1], [1], [0]]
    assert same_grid(grid, grid)
    assert same_grid(grid, VolumeGrid.make(turned.shape, turned.affine))
    assert same_grid(grid, VolumeGrid.make((20, 20, 9), nearly))
    assert not same_grid(grid, VolumeGrid.make((20, 20, 9), shifted))
    assert same_grid(grid, VolumeGrid.make((20, 20, 9), shifted), tolerance_mm=0.3)
    assert not same_grid(grid, VolumeGrid.make((20, 20, 9), bent))
    assert not same_grid(grid, VolumeGrid.make((20, 20, 10), AFFINE))


def test_digest_knows_a_scan_again(tmp_path):
    data = voxels((6, 7, 8), np.int16)
    first = voxel_digest(save(tmp_path / "a.nii.gz", data))
    copies = {
        "renamed.nii.gz": nib.Nifti1Image(data, AFFINE),
        "unzipped.nii": nib.Nifti1Image(data, AFFINE),
        "float.nii.gz": nib.Nifti1Image(data.astype(np.float64), AFFINE),
        "turned.nii.gz": oriented(data, AFFINE, "SLP"),
    }
    for name, image in copies.items():
        nib.save(image, tmp_path / name)
        assert voxel_digest(tmp_path / name) == first, name
    data[0, 0, 0] += 1
    assert voxel_digest(save(tmp_path / "b.nii.gz", data)) != first
    assert voxel_digest(save(tmp_path / "c.nii.gz", data.reshape(7, 6, 8))) != first


def test_make_and_spacing():
    image = Image(voxels(), VolumeGrid.make((5, 6, 7), AFFINE))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(spacing_of(AFFINE), np.linalg.norm(AFFINE[:3, :3], axis=0))


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "int32", "float32", ">f8"])
@pytest.mark.parametrize("scaling", [(1.0, 0.0), (0.25, -3.0)])
def test_replaced_voxels_and_no_others_change(tmp_path: Path, dtype: str, scaling: tuple[float, float]) -> None:
    kind = np.dtype(dtype)
    stored = (np.random.default_rng(2).random((4, 5, 6)) * 200 + 1e-9).astype(kind)
    image = nib.Nifti1Image(stored, np.diag([2.0, -1.0, 3.0, 1.0]))
    image.header.set_data_dtype(kind)
    image.header.set_slope_inter(*scaling)
    nib.save(image, tmp_path / "scan.nii.gz")
    where = np.zeros(stored.shape, bool)
    where[1, 2, :4] = True
    values = np.full(stored.shape, 20.3, np.float32)
    values[1, 2, 3] = 1e12
    replace_voxels(tmp_path / "scan.nii.gz", tmp_path / "copy.nii.gz", where, values)
    copy = nib.load(tmp_path / "copy.nii.gz")
    before, after = nib.load(tmp_path / "scan.nii.gz").dataobj.get_unscaled(), copy.dataobj.get_unscaled()
    assert (copy.dataobj.slope, copy.dataobj.inter) == scaling
    assert copy.get_data_dtype().newbyteorder("=") == kind.newbyteorder("=")
    np.testing.assert_array_equal(after[~where], before[~where])
    rounding = 0.51 * scaling[0] if kind.kind in "iu" else 1e-4
    np.testing.assert_allclose(np.asarray(copy.dataobj)[1, 2, :3], 20.3, atol=rounding)
    largest = np.iinfo(kind).max if kind.kind in "iu" else (1e12 - scaling[1]) / scaling[0]
    assert after[1, 2, 3] == pytest.approx(largest)
