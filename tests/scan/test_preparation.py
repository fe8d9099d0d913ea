"""Scan to model grid and back: geometry against closed forms, the brain of a synthetic head, the cache."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strangers import as_another_user, folder_for_all
from threadpoolctl import threadpool_limits

from hybriduad.config.runs import Anatomy
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.scan import cache as prepared_cache
from hybriduad.scan.brain import fill_slices, find_brain, find_head
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.grid import (
    Grid,
    apply_weights,
    area_weights,
    find_slice_axis,
    intensity_from_model,
    linear_weights,
    restore,
)
from hybriduad.scan.preparation import prepare
from hybriduad.scan.volumes import (
    VolumeGrid,
    read_grid,
    read_volume,
    to_ras,
)

FLAIR = Anatomy(contrasts=("FLAIR",), size=64)
AFFINES = {"axial": (2.0, 2.0, 6.0), "sagittal": (6.0, 2.0, 2.0), "coronal": (2.0, 6.0, 2.0)}


def centred(shape, spacing):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    return affine


def millimetres(shape, affine):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]


def ball(shape, affine, centre, radius_mm):
    return np.linalg.norm(millimetres(shape, affine) - centre, axis=-1) <= radius_mm


def turned(data, affine, codes):
    ornt = nib.orientations
    change = ornt.ornt_transform(ornt.io_orientation(affine), ornt.axcodes2ornt(tuple(codes)))
    return nib.Nifti1Image(data, affine).as_reoriented(change)


def stripped_brain(shape, affine, seed=0):
    """An ellipsoid of 130 x 160 x 110 mm with smooth texture around 100, exactly zero outside."""
    mm = millimetres(shape, affine)
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    inside = ((mm / [65, 80, 55]) ** 2).sum(-1) <= 1
    return np.where(inside, 100 + 10 * texture / texture.std(), 0).astype(np.float32)


def head_scan(shape, affine, noise=2.0, brain=True, seed=0):
    """A head: brain of about 130 x 165 x 125 mm, skull 8 mm, scalp 6 mm, neck and face below, Rician air."""
    mm = millimetres(shape, affine)
    radius = np.linalg.norm(mm / [65, 82, 62], axis=-1) * 70
    below = mm[..., 2] < -10
    head = (radius <= 84) | (below & (np.linalg.norm(mm[..., :2] / [70, 90], axis=-1) <= 1))
    scan = np.where(head, 60.0, 0.0)  # muscle
    scan[head & ~ndimage.binary_erosion(head, iterations=3)] = 220  # scalp
    scan[radius <= 78] = 15  # skull
    inside = radius <= 70
    scan[inside] = 100
    scan[ball(shape, affine, [12, 5, 10], 14)] = 20  # a ventricle
    rng = np.random.default_rng(seed)
    noisy = np.hypot(scan + rng.normal(0, noise, shape), rng.normal(0, noise, shape))
    return (noisy if noise else scan).astype(np.float32), inside


def case_of(folder, images, **masks):
    """Write images (name -> (data, affine) or nibabel image) and masks, and make a case of them."""
    paths = {}
    for name, image in {**images, **masks}.items():
        if isinstance(image, tuple):
            data = image[0].astype(np.uint8) if image[0].dtype == bool else image[0]
            image = nib.Nifti1Image(data, image[1])
        paths[name] = Path(folder) / f"{name}.nii.gz"
        nib.save(image, paths[name])
    return Case("set", "01", {n: paths[n] for n in images}, **{n: paths[n] for n in masks})


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# the model grid


def test_ranges_shapes_and_notes(tmp_path):
    shape, affine = (80, 96, 20), centred((80, 96, 20), (2.0, 2.0, 6.0))
    scan = stripped_brain(shape, affine)
    lesion = ball(shape, affine, [20, 10, 0], 12)
    prepared = prepare(case_of(tmp_path, {"FLAIR": (scan, affine)}, lesion=(lesion, affine)), FLAIR)
    assert prepared.image.shape == (1, 64, 64, 20)
    assert prepared.image.dtype == np.float32
    assert prepared.image.min() == -1
    assert prepared.image.max() <= 1
    near = ndimage.binary_dilation(prepared.foreground, np.ones((3, 3, 1)))
    assert (prepared.image[0][~near] == -1).all()
    assert prepared.has_lesion_mask
    assert not prepared.ignore.any()
    assert prepared.notes["direction"] == "axial"
    assert prepared.notes["brain"]["method"].startswith("non-zero")
    volume_ml = 4 / 3 * np.pi * 65 * 80 * 55 / 1000
    assert prepared.notes["brain"]["volume_ml"] == pytest.approx(volume_ml, rel=0.02)
    # the square holds the longer side, 160 mm, and a margin of 4 mm at either end
    assert prepared.spacing_mm[0] == prepared.spacing_mm[1] == pytest.approx(168 / 64, rel=0.02)
    volume = prepared.lesion.sum() * np.prod(prepared.spacing_mm)
    assert volume == pytest.approx(lesion.sum() * 24, rel=0.1)
    # the median of the brain lies at 2 / 2.5 - 1
    assert np.median(prepared.image[0][prepared.brain]) == pytest.approx(-0.2, abs=0.02)


def test_the_model_grid_keeps_aspect_and_place_with_anisotropic_pixels(tmp_path):
    shape, spacing = (140, 70, 16), (1.1, 2.6, 6.5)
    affine = centred(shape, spacing)
    scan = stripped_brain(shape, affine)
    lesion = ball(shape, affine, [-25, 30, 5], 15)
    prepared = prepare(case_of(tmp_path, {"FLAIR": (scan, affine)}, lesion=(lesion, affine)), FLAIR)
    h, w, s = prepared.spacing_mm
    assert h == pytest.approx(w)
    assert s == 6.5
    grid = prepared.grid
    index = np.argwhere(prepared.lesion).mean(axis=0)
    voxel = [grid.start[a] + (index[a] + 0.5) * grid.step[a] - 0.5 for a in (0, 1)]
    np.testing.assert_allclose(voxel, np.argwhere(lesion).mean(axis=0)[:2], atol=0.5)


def test_storage_orientation_does_not_matter(tmp_path):
    shape, affine = (60, 72, 14), centred((60, 72, 14), (2.7, 2.5, 8.0))
    scan, lesion = stripped_brain(shape, affine), ball(shape, affine, [20, -30, 8], 14).astype(np.uint8)
    first = prepare(case_of(tmp_path, {"FLAIR": (scan, affine)}, lesion=(lesion, affine)), FLAIR)
    for codes in ("LPS", "SLA", "IPR"):
        case = case_of(tmp_path, {"FLAIR": turned(scan, affine, codes)}, lesion=turned(lesion, affine, codes))
        prepared = prepare(case, FLAIR)
        np.testing.assert_array_equal(prepared.image, first.image)
        np.testing.assert_array_equal(prepared.lesion, first.lesion)
        back = restore(first.lesion, prepared.grid, order=0)
        assert back.shape == nib.load(case.images["FLAIR"]).shape
        assert dice(back, nib.load(case.lesion).get_fdata() > 0) > 0.85


@pytest.mark.parametrize("direction", AFFINES)
def test_slice_direction(tmp_path, direction):
    spacing = AFFINES[direction]
    shape = tuple(round(190 / s) for s in spacing)
    affine = centred(shape, spacing)
    case = case_of(tmp_path, {"FLAIR": (stripped_brain(shape, affine), affine)})
    prepared = prepare(case, FLAIR, direction=direction)
    assert prepared.notes["direction"] == direction
    assert prepared.spacing_mm[2] == 6.0
    expected = next(name for name in AFFINES if name != direction)
    with pytest.raises(DataError, match=f"got {direction}, expected {expected}"):
        prepare(case, FLAIR, direction=expected)


def test_slice_axis_rule():
    assert [find_slice_axis(s) for s in ((1, 1, 1), (1.6, 1, 1), (1.4, 1, 1), (1, 5, 1), (2, 2, 2.9))] == [
        2,
        0,
        2,
        1,
        2,
    ]


def test_weights_are_averages_and_interpolation():
    weights = area_weights(10, 1.0, 2.0, 4)
    np.testing.assert_allclose(weights @ np.arange(10), [1.5, 3.5, 5.5, 7.5])
    np.testing.assert_allclose(area_weights(10, -1.0, 3.0, 4).sum(1), [2 / 3, 1, 1, 2 / 3], rtol=1e-6)
    position = np.array([0.0, 0.25, 3.5, 8.9, -0.4, 9.4, -0.6, 9.6])
    expected = [0, 0.25, 3.5, 8.9, 0, 9, 0, 0]
    np.testing.assert_allclose(linear_weights(10, position) @ np.arange(10), expected, rtol=1e-6)
    np.testing.assert_allclose(linear_weights(10, position).sum(1), [1] * 6 + [0] * 2, rtol=1e-6)


def test_weights_give_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    data = rng.random((240, 200, 30), dtype=np.float32)
    h, w = area_weights(240, 3.3, 2.1, 96), area_weights(200, -5.0, 2.1, 96)
    results = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            results.append(apply_weights(data, h, w))
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    np.testing.assert_allclose(results[0], np.einsum("hx,wy,xys->hws", h, w, data, optimize=True), rtol=1e-5, atol=1e-6)


def test_fine_stripes_are_averaged_not_aliased(tmp_path):
    shape, affine = (200, 200, 4), centred((200, 200, 4), (0.9, 0.9, 6.0))
    even = stripped_brain(shape, affine)
    striped = even * np.where(np.arange(200) % 2, 0.75, 1.25)[:, None, None].astype(np.float32)
    images = []
    for scan in (even, striped):
        prepared = prepare(case_of(tmp_path, {"FLAIR": (scan, affine)}), FLAIR)
        images.append(intensity_from_model(prepared.image[0], prepared.grid, 0)[24:40, 24:40, 1])
    assert np.abs(images[1] / images[0] - 1).max() < 0.12  # taking every third voxel would give 0.25


def test_tiny_lesions_keep_one_pixel_each(tmp_path):
    shape, affine = (160, 192, 8), centred((160, 192, 8), (1.0, 1.0, 8.0))
    lesion = np.zeros(shape, bool)
    for x, y in itertools.product((60, 80, 100), (80, 100, 121)):
        lesion[x, y, 4] = True
    case = case_of(tmp_path, {"FLAIR": (stripped_brain(shape, affine), affine)}, lesion=(lesion, affine))
    prepared = prepare(case, FLAIR)
    assert prepared.lesion.sum() == 9
    assert prepared.lesion[..., 4].sum() == 9


# the way back


@settings(max_examples=8, deadline=None)
@given(
    codes=st.sampled_from(["RAS", "LPS", "LAS", "ASR", "SPL", "PIR"]),
    pixels=st.tuples(st.floats(0.8, 1.3), st.floats(0.8, 1.3)),
    thickness=st.floats(1.0, 4.0),
    place=st.tuples(st.floats(-25, 25), st.floats(-25, 25), st.floats(-12, 12)),
)
def test_a_5_mm_lesion_survives_the_round_trip(tmp_path_factory, codes, pixels, thickness, place):
    folder = tmp_path_factory.mktemp("round")
    spacing = (*pixels, thickness)
    shape = tuple(int(n / s) for n, s in zip((110, 120, 44), spacing, strict=True))
    affine = centred(shape, spacing)
    scan = stripped_brain(shape, affine)
    lesion = ball(shape, affine, place, 5.0).astype(np.uint8)
    case = case_of(folder, {"FLAIR": turned(scan, affine, codes)}, lesion=turned(lesion, affine, codes))
    prepared = prepare(case, Anatomy(contrasts=("FLAIR",), size=112))
    truth = nib.load(case.lesion)
    mask = truth.get_fdata() > 0
    nearest = restore(prepared.lesion, prepared.grid, order=0)
    linear = restore(prepared.lesion.astype(np.float32), prepared.grid, order=1)
    assert nearest.dtype == bool
    assert nearest.shape == linear.shape == truth.shape
    np.testing.assert_array_equal(prepared.grid.volume.affine, nib.load(case.images["FLAIR"]).affine)
    for back in (nearest, linear >= 0.5):
        assert dice(back, mask) >= 0.8
        shift = np.argwhere(back).mean(axis=0) - np.argwhere(mask).mean(axis=0)
        assert np.abs(shift).max() <= 0.5


def test_linear_maps_come_back_as_they_were(tmp_path):
    shape, affine = (90, 100, 10), centred((90, 100, 10), (2.0, 1.8, 6.0))
    grid = prepare(case_of(tmp_path, {"FLAIR": (stripped_brain(shape, affine), affine)}), FLAIR).grid
    h, w, s = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
    ramp = (0.3 * h - 0.2 * w + s).astype(np.float32)
    back = restore(ramp, grid, order=1, fill=-99.0)
    x, y, z = np.meshgrid(*map(np.arange, shape), indexing="ij")
    model = [(i + 0.5 - grid.start[a]) / grid.step[a] - 0.5 for a, i in enumerate((x, y))]
    inner = (model[0] >= 0) & (model[0] <= 63) & (model[1] >= 0) & (model[1] <= 63)
    np.testing.assert_allclose(back[inner], (0.3 * model[0] - 0.2 * model[1] + z)[inner], atol=1e-3)
    far = (model[0] < -0.5) | (model[0] > 63.5) | (model[1] < -0.5) | (model[1] > 63.5)
    assert far.any()
    assert (back[far] == -99).all()
    assert (restore(np.ones(grid.shape, bool), grid, order=0)[~far]).all()
    with pytest.raises(DataError, match="another grid"):
        restore(ramp[:-1], grid, order=1)


def test_grid_through_json_and_intensity_back(tmp_path):
    import json

    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    scan = stripped_brain(shape, affine) * 3.7
    prepared = prepare(case_of(tmp_path, {"FLAIR": (scan, affine)}), Anatomy(contrasts=("FLAIR", "T1w"), size=64))
    grid = Grid.from_json(json.loads(json.dumps(prepared.grid.to_json())))
    assert grid == prepared.grid
    np.testing.assert_array_equal(prepared.present, [True, False])
    assert (prepared.image[1] == -1).all()
    back = restore(intensity_from_model(prepared.image[0], grid, 0), grid, order=1)
    core = ndimage.binary_erosion(scan > 0, iterations=4)
    assert np.corrcoef(back[core], scan[core])[0, 1] > 0.95
    assert np.median(back[core]) == pytest.approx(np.median(scan[core]), rel=0.01)
    with pytest.raises(DataError, match="does not have"):
        intensity_from_model(prepared.image[1], grid, 1)


# contrasts and masks on other grids


def test_another_grid_is_resampled_in_space(tmp_path):
    shape, affine = (80, 96, 20), centred((80, 96, 20), (2.0, 2.0, 6.0))
    fine_shape, fine = (150, 170, 30), centred((150, 170, 30), (1.1, 1.1, 4.0))
    fine[:3, 3] += [3.0, -4.0, 2.0]

    def field(shape, affine):
        mm = millimetres(shape, affine)
        inside = ((mm / [60, 75, 50]) ** 2).sum(-1) <= 1
        return np.where(inside, 100 + mm @ [0.4, -0.3, 0.2], 0).astype(np.float32)

    lesion = ball(fine_shape, fine, [20, 10, 6], 14)
    both = {"FLAIR": (field(shape, affine), affine), "T1w": (field(fine_shape, fine), fine)}
    case = case_of(tmp_path, both, lesion=(lesion, fine))
    prepared = prepare(case, Anatomy(contrasts=("FLAIR", "T1w"), size=64))
    assert prepared.notes["resampled"] == ["T1w"]
    core = ndimage.binary_erosion(prepared.brain, iterations=2)
    flair, t1w = (intensity_from_model(prepared.image[c], prepared.grid, c)[core] for c in (0, 1))
    assert np.abs(flair - t1w).max() < 1.5
    expected = ball(shape, affine, [20, 10, 6], 14)
    assert dice(restore(prepared.lesion, prepared.grid, order=0), expected) > 0.85


BOTH = Anatomy(contrasts=("FLAIR", "T1w"), size=64)


def partial_case(folder):
    """FLAIR of a whole brain, and a T1w on a finer grid that ends 10 mm below its middle; and the latter, whole."""
    shape, affine = (80, 96, 20), centred((80, 96, 20), (2.0, 2.0, 6.0))
    fine_shape, fine = (160, 180, 40), centred((160, 180, 40), (1.1, 1.1, 4.0))
    flair, t1w = stripped_brain(shape, affine), 3 * stripped_brain(fine_shape, fine)
    images = {"FLAIR": (flair, affine), "T1w": (t1w[..., :18], fine)}
    (folder / "whole").mkdir()
    return case_of(folder, images), case_of(folder / "whole", images | {"T1w": (t1w, fine)})


def test_a_contrast_is_valid_where_its_own_scan_has_voxels(tmp_path):
    part, whole = (prepare(case, BOTH) for case in partial_case(tmp_path))
    assert whole.valid.all()
    assert (whole.notes["lacking"], whole.valid.shape, whole.valid.dtype) == ({}, whole.image.shape, bool)
    assert part.valid[0].all()
    z_mm = (np.arange(20) - 9.5) * 6
    edge_mm = (18 - 20) * 4  # the upper face of the last voxel
    assert part.valid[1][part.foreground & (z_mm < edge_mm)].all()
    np.testing.assert_array_equal(part.valid[1].any(axis=(0, 1)), z_mm < edge_mm)
    assert (part.image[~part.valid] == -1).all()
    np.testing.assert_array_equal(part.image[0], whole.image[0])
    lacking = part.brain[..., z_mm > edge_mm].sum() / part.brain.sum()
    assert part.notes["lacking"] == {"T1w": pytest.approx(lacking, abs=0.01)}
    # The median is that of the brain that it covers, so what it shows is as bright as in the whole scan.
    inside = part.valid[1] & ndimage.binary_erosion(part.brain, np.ones((3, 3, 1)), iterations=2)
    inside[..., z_mm > edge_mm - 6] = False  # at its edge the smoothing against aliasing sees another neighbour
    assert np.abs(part.image[1] - whole.image[1])[inside].max() < 0.02
    assert part.present.tolist() == [True, True]


def test_a_contrast_that_ends_within_the_slices_and_one_beside_the_brain(tmp_path):
    shape, affine = (80, 96, 20), centred((80, 96, 20), (2.0, 2.0, 6.0))
    scan = stripped_brain(shape, affine)
    shifted = affine.copy()
    shifted[0, 3] += 2.0 * 40
    images = {"FLAIR": (scan, affine), "T1w": (scan[40:] * 2, shifted)}
    part, alone = prepare(case_of(tmp_path, images), BOTH), prepare(case_of(tmp_path, {"FLAIR": images["FLAIR"]}), BOTH)
    covered = restore(part.valid[1], part.grid, order=0)[:, 10:-10]  # the square ends before the scan does
    assert covered[44:70].all()
    assert not covered[20:40].any()
    np.testing.assert_array_equal(part.image[0], alone.image[0])
    seen = part.valid[1] & part.brain
    np.testing.assert_allclose(part.image[1][seen], part.image[0][seen], atol=0.02)
    assert not alone.valid[1].any()
    assert (alone.present.tolist(), alone.notes["lacking"]) == ([True, False], {})
    shifted[0, 3] += 500
    with pytest.raises(DataError, match="no signal of T1w in the brain"):
        prepare(case_of(tmp_path, images), BOTH)


def test_partial_coverage_through_the_cache(tmp_path):
    part, whole = partial_case(tmp_path)
    cache = PreparedCache(tmp_path / "cache")
    for case, files in ((part, 1), (whole, 0)):
        direct, kept = prepare(case, BOTH), cache.get(case, BOTH)
        np.testing.assert_array_equal(direct.valid, kept.valid)
        assert kept.valid.dtype == bool
        assert len(list((tmp_path / "cache").glob("*/valid.npy"))) == 1
        assert isinstance(kept.valid, np.memmap) == bool(files)
        with pytest.raises(ValueError):
            kept.valid[0, 0, 0, 0] = False
        assert kept.present.tolist() == [True, True]


def test_wrong_cases_are_refused_in_a_sentence(tmp_path):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    scan = stripped_brain(shape, affine)
    elsewhere = affine.copy()
    elsewhere[0, 3] += 5
    with pytest.raises(DataError, match=r"sub-01: got \['T2w'\], expected one of \['FLAIR'\]"):
        prepare(case_of(tmp_path, {"T2w": (scan, affine)}), FLAIR)
    moved = case_of(tmp_path, {"FLAIR": (scan, affine)}, lesion=(scan > 100, elsewhere))
    with pytest.raises(DataError, match="lesion mask on none of the case's grids"):
        prepare(moved, FLAIR)
    with pytest.raises(DataError, match="no brain found"):
        prepare(case_of(tmp_path, {"FLAIR": (scan, affine)}, brain=(scan > 1e9, affine)), FLAIR)
    far = affine.copy()
    far[:3, 3] += 900
    apart = case_of(tmp_path, {"FLAIR": (scan, affine), "T1w": (scan, far)})
    with pytest.raises(DataError, match="no signal of T1w"):
        prepare(apart, Anatomy(contrasts=("FLAIR", "T1w"), size=64))
    with pytest.raises(DataError, match="missing reference"):
        prepare(Case("set", "01", apart.images, reference="T2w"), FLAIR)
    with pytest.raises(DataError, match="missing file"):
        prepare(Case("set", "01", {"FLAIR": tmp_path / "no.nii.gz"}), FLAIR)


# the brain


def test_holes_are_filled_slice_by_slice():
    mask = np.random.default_rng(0).random((30, 34, 5)) < 0.6
    expected = [ndimage.binary_fill_holes(mask[..., s]) for s in range(5)]
    np.testing.assert_array_equal(fill_slices(mask), np.stack(expected, axis=-1))


def test_noise_in_a_few_slices_is_no_head():
    shape, spacing = (96, 112, 34), (2.0, 2.0, 5.0)
    scan, _ = head_scan(shape, centred(shape, spacing))
    clean = find_head(scan)
    scan[..., 33:] += 40
    head = find_head(scan)
    assert not head[:5].any()
    np.testing.assert_array_equal(head[..., :31], clean[..., :31])


def test_brain_of_a_head_is_found_and_scalp_left_out():
    shape, spacing = (96, 112, 34), (2.0, 2.0, 5.0)
    affine = centred(shape, spacing)
    scan, truth = head_scan(shape, affine)
    head = find_head(scan)
    brain, method = find_brain(scan, head, spacing, 2)
    assert method.startswith("surface")
    upper = millimetres(shape, affine)[..., 2] > -30
    assert dice(brain & upper, truth & upper) > 0.93
    assert (truth & upper & ~brain).sum() < 0.02 * (truth & upper).sum()
    assert (brain & (scan > 160)).sum() < 0.02 * (scan > 160).sum()
    again, _ = find_brain(scan, head, spacing, 2)
    np.testing.assert_array_equal(brain, again)


@pytest.mark.parametrize("intensity", [20.0, 190.0])
def test_lesion_at_the_surface_stays_in_the_brain(intensity):
    shape, spacing = (96, 112, 34), (2.0, 2.0, 5.0)
    affine = centred(shape, spacing)
    scan, truth = head_scan(shape, affine)
    lesion = ball(shape, affine, [45, 20, 25], 16) & truth
    scan[lesion] = intensity
    brain, _ = find_brain(scan, find_head(scan), spacing, 2)
    assert (lesion & ~brain).sum() < 0.05 * lesion.sum()


@pytest.mark.parametrize(
    ("noise", "whole", "stripped"), [(0, True, False), (2, True, False), (0, False, True), (2, False, True)]
)
def test_stripped_scans_are_told_from_heads(noise, whole, stripped):
    """A head with a zeroed background is no stripped scan; a brain in noise is one."""
    shape, spacing = (96, 112, 34), (2.0, 2.0, 5.0)
    affine = centred(shape, spacing)
    scan, truth = head_scan(shape, affine, noise=float(noise))
    if not whole:
        air = np.abs(np.random.default_rng(1).normal(0, noise, shape)) if noise else 0.0
        scan = np.where(truth, scan, air).astype(np.float32)
    brain, method = find_brain(scan, find_head(scan), spacing, 2)
    assert method.startswith("non-zero") == stripped
    if stripped:
        assert dice(brain, truth) > 0.97


def test_given_brain_mask_is_taken_as_it_is(tmp_path):
    shape, affine = (80, 96, 20), centred((80, 96, 20), (2.0, 2.0, 6.0))
    brain = ball(shape, affine, [0, 0, 0], 50)
    case = case_of(tmp_path, {"FLAIR": (head_scan(shape, affine)[0], affine)}, brain=(brain, affine))
    prepared = prepare(case, FLAIR)
    assert prepared.notes["brain"]["method"] == "given mask"
    assert prepared.notes["brain"]["volume_ml"] == round(brain.sum() * 24 / 1000, 1)
    assert dice(restore(prepared.brain, prepared.grid, order=0), brain) > 0.97


def test_small_negative_values_are_dark_not_missing(tmp_path):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    scan = stripped_brain(shape, affine)
    scan[30, 30:33, 5] = -8
    prepared = prepare(case_of(tmp_path, {"FLAIR": (scan, affine)}), FLAIR)
    assert prepared.image.min() == -1
    assert restore(prepared.brain, prepared.grid, order=0)[30, 30:33, 5].all()


# the cache


def test_cache_is_equal_read_only_and_keyed_by_content(tmp_path, monkeypatch):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    scan = stripped_brain(shape, affine)
    (tmp_path / "a").mkdir()
    case = case_of(tmp_path / "a", {"FLAIR": (scan, affine)}, lesion=(scan > 115, affine))
    cache = PreparedCache(tmp_path / "cache")
    direct, first = prepare(case, FLAIR), cache.get(case, FLAIR)
    for name in ("image", "valid", "present", "brain", "foreground", "lesion", "ignore"):
        np.testing.assert_array_equal(getattr(direct, name), getattr(first, name))
        assert getattr(direct, name).dtype == getattr(first, name).dtype
    for name in ("grid", "notes", "spacing_mm", "has_lesion_mask"):
        assert getattr(direct, name) == getattr(first, name)
    assert isinstance(first.image, np.memmap)
    with pytest.raises(ValueError):
        first.image[0, 0, 0, 0] = 0
    calls = []
    monkeypatch.setattr(prepared_cache, "prepare", lambda *a: calls.append(a) or direct)
    moved = Case("other", "07", {"FLAIR": case.images["FLAIR"].rename(tmp_path / "b.nii.gz")}, lesion=case.lesion)
    cache.get(moved, FLAIR)
    PreparedCache(tmp_path / "cache").get(moved, FLAIR.model_copy(update={"lesion_margin_mm": 3.0}))
    assert not calls  # same content, and a margin that this step does not use
    cache.get(moved, FLAIR.model_copy(update={"size": 32}))
    cache.get(Case("other", "07", moved.images), FLAIR)
    assert len(calls) == 2
    assert not [p.name for p in (tmp_path / "cache").iterdir() if p.name.startswith(".")]


def test_cache_with_a_faster_process_and_a_damaged_entry(tmp_path, monkeypatch, caplog):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    case = case_of(tmp_path, {"FLAIR": (stripped_brain(shape, affine), affine)})
    cache, rival = PreparedCache(tmp_path / "cache"), PreparedCache(tmp_path / "cache")

    def slow(*arguments):
        monkeypatch.undo()
        rival.get(*arguments)  # the other process finishes first
        return prepare(*arguments)

    monkeypatch.setattr(prepared_cache, "prepare", slow)
    assert cache.get(case, FLAIR).image.shape == (1, 64, 64, 10)
    (entry,) = (tmp_path / "cache").iterdir()
    before = np.array(cache.get(case, FLAIR).image)
    for name, content in (("image.npy", b"half"), ("masks.npy", b""), ("record.json", b"{}"), ("record.json", b"")):
        (entry / name).write_bytes(content)
        caplog.clear()
        np.testing.assert_array_equal(cache.get(case, FLAIR).image, before)
        assert f"damaged cache entry {entry} is made anew" in caplog.text
        assert list((tmp_path / "cache").iterdir()) == [entry]


def test_a_cache_of_another_user_is_read_or_done_without(caplog):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    with folder_for_all() as folder:
        case = case_of(folder, {"FLAIR": (stripped_brain(shape, affine), affine)})
        for path in folder.iterdir():
            path.chmod(0o644)
        umask = os.umask(0o022)
        cache = PreparedCache(folder / "cache")
        made = np.array(cache.get(case, FLAIR).image)
        os.umask(umask)
        (entry,) = cache.folder.iterdir()
        assert entry.stat().st_mode & 0o777 == 0o755
        cache.folder.chmod(0o555)
        with as_another_user():
            theirs = PreparedCache(cache.folder)
            assert isinstance(theirs.get(case, FLAIR).image, np.memmap)
            assert caplog.text == ""
            for _ in range(2):
                other = theirs.get(case, FLAIR.model_copy(update={"size": 32}))
                assert other.image.shape[1] == 32
        assert caplog.text.count("scans are prepared without the cache") == 1
        entry.chmod(0)
        with as_another_user():
            np.testing.assert_array_equal(PreparedCache(cache.folder).get(case, FLAIR).image, made)
        assert caplog.text.count("scans are prepared without the cache") == 2


def test_what_a_killed_process_left_half_built_is_removed_and_nothing_else(tmp_path):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    case = case_of(tmp_path, {"FLAIR": (stripped_brain(shape, affine), affine)})
    cache = tmp_path / "cache"
    PreparedCache(cache).get(case, FLAIR)
    (entry,) = cache.iterdir()
    code = (
        "import os, signal, sys; from pathlib import Path; from hybriduad.scan import cache as prepared_cache;"
        "store = prepared_cache.PreparedCache(sys.argv[1]);"
        "prepared_cache.np.save = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL);"
        "store._build(Path(sys.argv[1]) / 'x', prepared_cache._load(Path(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", code, str(cache), str(entry)], timeout=300, check=False)
    (killed,) = cache.glob(".partial-*")
    machine, number = killed.name.split("-")[1:3]
    living = cache / f".partial-{machine}-{os.getpid()}-abc"
    elsewhere = cache / f".partial-00000000-{number}-abc"
    older = cache / ".partial-abc"
    for folder in (living, elsewhere, older):
        folder.mkdir()
    PreparedCache(cache)
    assert {path.name for path in cache.iterdir()} == {entry.name, living.name, elsewhere.name, older.name}
    for folder in (elsewhere, older):
        os.utime(folder, (0, 0))
    PreparedCache(cache)
    assert {path.name for path in cache.iterdir()} == {entry.name, living.name}


def test_a_damaged_image_that_is_not_used_spoils_no_mask(tmp_path):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    scan = stripped_brain(shape, affine)
    case = case_of(tmp_path, {"FLAIR": (scan, affine)}, lesion=(scan > 115, affine))
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    damaged = replace(case, images={"T1w": tmp_path / "broken.nii.gz", **case.images})
    assert prepare(damaged, FLAIR).lesion.any()


def test_reference_column_decides_the_grid(tmp_path):
    shape, affine = (60, 70, 10), centred((60, 70, 10), (2.7, 2.7, 6.0))
    other_shape, other_affine = (80, 90, 14), centred((80, 90, 14), (2.1, 2.1, 4.5))
    images = {
        "FLAIR": (stripped_brain(shape, affine), affine),
        "T1w": (stripped_brain(other_shape, other_affine), other_affine),
    }
    case = case_of(tmp_path, images)
    chosen = Case("set", "01", case.images, reference="T1w")
    prepared = prepare(chosen, FLAIR)
    assert prepared.image.shape == (1, 64, 64, 14)
    assert restore(prepared.image[0], prepared.grid, order=1, fill=-1.0).shape == other_shape
    assert isinstance(prepared.grid.volume, VolumeGrid)
    assert prepared.grid.volume == read_grid(case.images["T1w"])
    assert to_ras(read_volume(case.images["T1w"]))[0].shape == prepared.grid.volume.shape_ras


def test_mask_labels_tell_lesion_from_ignored_in_one_file(tmp_path):
    """WMH 2017 marks lesions with 1 and other pathology with 2 in one file."""
    scan = np.zeros((32, 32, 4), dtype=np.float32)
    scan[4:28, 4:28] = 100 + np.arange(24)[:, None, None]
    marks = np.zeros_like(scan)
    marks[8:12, 8:12, 1:3], marks[18:24, 18:24, 1:3] = 1, 2
    affine = np.diag([5.0, 5.0, 6.0, 1.0])
    for name, data in (("scan", scan), ("marks", marks)):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
    images, path = {"FLAIR": tmp_path / "scan.nii.gz"}, tmp_path / "marks.nii.gz"
    labelled = Case("d", "1", images, lesion=path, ignore=path, attributes={"lesion_labels": "1", "ignore_labels": "2"})
    anatomy = Anatomy(contrasts=("FLAIR",), size=32)
    prepared = prepare(labelled, anatomy)
    unstated = replace(labelled, attributes={})
    plain = prepare(unstated, anatomy)
    assert prepared.lesion.any()
    assert prepared.ignore.any()
    assert not (prepared.lesion & prepared.ignore).any()
    assert (plain.lesion == plain.ignore).all()
    store = PreparedCache(tmp_path / "cache")
    assert store.get(labelled, anatomy).lesion.sum() < store.get(unstated, anatomy).lesion.sum()
    with pytest.raises(DataError, match="lesion_labels"):
        prepare(replace(labelled, attributes={"lesion_labels": "one"}), anatomy)


def test_labels_that_never_occur_do_not_make_a_patient_healthy(tmp_path):
    """BraTS 2021 calls enhancing tumour 4, BraTS 2023 calls it 3: with the wrong column every mask would be empty."""
    scan = np.zeros((32, 32, 4), dtype=np.float32)
    scan[4:28, 4:28] = 100 + np.arange(24)[:, None, None]
    marks = np.zeros_like(scan)
    marks[8:12, 8:12, 1:3], marks[18:24, 18:24, 1:3] = 1, 3
    for name, data in (("scan", scan), ("marks", marks), ("nothing", 0 * marks)):
        nib.save(nib.Nifti1Image(data, np.diag([5.0, 5.0, 6.0, 1.0])), tmp_path / f"{name}.nii.gz")
    anatomy = Anatomy(contrasts=("FLAIR",), size=32)
    images, stated = {"FLAIR": tmp_path / "scan.nii.gz"}, {"lesion_labels": "4"}
    case = Case("d", "1", images, lesion=tmp_path / "marks.nii.gz", health="lesion", attributes=stated)
    with pytest.raises(DataError, match=r"without any of its labels .*got values \[1, 3\], expected some of \[4\]"):
        prepare(case, anatomy)
    assert prepare(replace(case, attributes={"lesion_labels": "3 4"}), anatomy).lesion.any()
    # Only what is ignored, or nothing at all: a lesion-free file.
    ignored = replace(case, ignore=case.lesion, attributes={"lesion_labels": "4", "ignore_labels": "1 3"})
    assert not prepare(ignored, anatomy).lesion.any()
    assert prepare(replace(case, lesion=tmp_path / "nothing.nii.gz"), anatomy).has_lesion_mask
