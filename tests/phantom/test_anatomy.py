"""Grids, smooth fields, the template, and how symmetric a healthy brain may be."""

from __future__ import annotations

import importlib.resources
import socket

import numpy as np
import pytest
import torch
from scipy import interpolate, ndimage, optimize

from hybriduad.core.errors import ConfigError, ToolError
from hybriduad.phantom.anatomy import draw_anatomy, template
from hybriduad.phantom.lattice import (
    FIELD_OF_VIEW_MM,
    Grid,
    resample,
    smooth_field,
)
from hybriduad.phantom.subject import make_subject

KIRBY21 = {"T1w": 0.181, "T2w": 0.198, "FLAIR": 0.104}
"""``mirrored_residual`` of the healthy subject of Kirby 21 (Landman et al. 2011, doi:10.1016/j.neuroimage.2010.11.047).

Its scans were smoothed to the resolution of 3 mm voxels (Gaussian, full width 3 mm in all) and interpolated to them."""


def mirrored_residual(images: dict[str, np.ndarray], brain: np.ndarray) -> dict[str, float]:
    """Mean of |I - mirror(I)| over mean of I, where both brain and mirrored brain are, for images of 3 mm voxels.

    The mirror plane (shift and two angles) is the one with the smallest difference of the T1w image and of the mask.
    """
    centre = np.array(ndimage.center_of_mass(brain), dtype=np.float32)[:, None, None, None]
    offset = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in brain.shape], indexing="ij")) - centre

    def mirror(plane: np.ndarray, image: np.ndarray, step: int = 1) -> np.ndarray:
        shift, yaw, roll = plane
        normal = np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), np.sin(roll)], dtype=np.float32)
        some = offset[:, ::step, ::step, ::step]
        distance = np.tensordot(normal, some, 1) - np.float32(shift)
        points = some - 2 * distance * normal[:, None, None, None] + centre
        return ndimage.map_coordinates(image, points, order=1)

    weight = brain.astype(np.float32)
    t1w = (images["T1w"] / images["T1w"][brain].mean()).astype(np.float32)

    def cost(plane: np.ndarray) -> float:
        return float(sum(np.abs(part[::3, ::3, ::3] - mirror(plane, part, 3)).mean() for part in (t1w, weight)))

    bounds = [(-5, 5), (-0.25, 0.25), (-0.25, 0.25)]
    plane = optimize.minimize(cost, np.zeros(3), method="Powell", bounds=bounds, options={"xtol": 1e-2, "ftol": 1e-3}).x
    both = brain & (mirror(plane, weight) > 0.5)
    return {
        name: float(np.abs(image - mirror(plane, image))[both].mean() / image[both].mean())
        for name, image in images.items()
    }


def test_a_healthy_phantom_is_as_asymmetric_as_a_real_brain() -> None:
    residuals = []
    for subject in range(2):
        phantom = make_subject(3, subject, spacing_mm=(3.0, 3.0, 3.0))
        residuals.append(mirrored_residual(dict(phantom.images), phantom.brain))
    for name, real in KIRBY21.items():
        mean = np.mean([residual[name] for residual in residuals])
        assert real / 2 < mean < real * 2, name


def test_the_template_alone_is_symmetric() -> None:
    tissue = template().tissue
    inside = tissue.sum(0)
    assert torch.equal(tissue, tissue.flip(1))
    assert float((inside - inside.round()).abs().max()) < 1e-5  # the three tissues sum to 1 in the mask and 0 outside
    assert 1.5e6 < float(inside.sum()) < 2.0e6


def test_the_template_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert template.__wrapped__().tissue.shape == template().tissue.shape


def test_a_nilearn_without_the_maps_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    with pytest.raises(ToolError, match="no usable ICBM 2009a map in nilearn"):
        template.__wrapped__()


def test_the_tissues_of_a_head_sum_to_one_and_brains_have_adult_volumes() -> None:
    grid = Grid.make((4.0, 4.0, 4.0))
    for subject in range(4):
        head = draw_anatomy(0, subject, grid)
        np.testing.assert_allclose(head.fractions.sum(axis=0), 1, atol=1e-5)
        assert 1000 < head.brain.sum() * grid.point_ml < 1900
        assert not head.brain[[0, -1]].any()
        assert not head.brain[:, [0, -1]].any()
        assert not head.brain[:, :, [0, -1]].any()


def test_a_head_is_the_same_on_another_grid() -> None:
    coarse, fine = (make_subject(0, 5, contrasts=("T1w",), spacing_mm=(s, s, 6.0)) for s in (6.0, 2.0))
    pooled = ndimage.uniform_filter(fine.images["T1w"], (3, 3, 1))[1::3, 1::3]
    both = coarse.brain & ndimage.binary_erosion(fine.brain, iterations=2)[1::3, 1::3]
    assert np.corrcoef(pooled[both], coarse.images["T1w"][both])[0, 1] > 0.95


def test_ventricles_differ_between_people() -> None:
    grid = Grid.make((4.0, 4.0, 4.0))
    volumes = [(draw_anatomy(1, i, grid).ventricle_mm < 0).sum() * grid.point_ml for i in range(6)]
    assert max(volumes) > 1.3 * min(volumes) > 0


@pytest.mark.parametrize("control", [4, 32])
def test_smooth_field_has_unit_variance_and_is_the_b_spline(control: int) -> None:
    axes = tuple(np.linspace(-size / 2, size / 2, 40) for size in FIELD_OF_VIEW_MM)
    fields = np.stack([smooth_field(np.random.default_rng(i), control, axes) for i in range(12)])
    assert abs(fields.mean()) < 0.15
    assert 0.75 < fields.std() < 1.25

    coefficients = np.random.default_rng(0).standard_normal((control + 3,) * 3)
    knots = np.arange(-2, control + 5)
    for axis, (points, size) in enumerate(zip(axes, FIELD_OF_VIEW_MM, strict=True)):
        position = (points / size + 0.5) * (control - 1) + 1
        matrix = interpolate.BSpline(knots, np.eye(control + 3), 3)(position)
        matrix /= np.sqrt((matrix**2).sum(axis=1).mean())
        coefficients = np.moveaxis(np.tensordot(matrix, coefficients, (1, axis)), 0, axis)
    np.testing.assert_allclose(fields[0], coefficients, atol=1e-4)


def test_resample_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((2, 7, 8, 9), dtype=np.float32)
    points = rng.uniform(0, 6, (3, 50))
    expected = np.stack([ndimage.map_coordinates(values, points, order=1) for values in maps])
    np.testing.assert_allclose(resample(torch.from_numpy(maps), points), expected, atol=1e-5)


def test_average_is_the_mean_of_the_points_of_a_voxel() -> None:
    grid = Grid((2, 3, 4), (2.0, 2.0, 5.0), (2.0, 2.0, 5.0), (2, 2, 3))
    points = np.random.default_rng(0).random((4, 6, 12), dtype=np.float32)
    np.testing.assert_allclose(grid.average(points)[1, 2, 3], points[2:4, 4:6, 9:12].mean(), rtol=1e-6)
    assert grid.average(points).shape == grid.shape


def test_thick_slices_average_and_thin_ones_leave_gaps() -> None:
    thick, thin = (Grid.make((2.0, 2.0, 6.0), thickness) for thickness in (6.0, 2.0))
    assert thick.samples[2] == 3
    assert thin.samples[2] == 1
    np.testing.assert_allclose(np.diff(thick.axes_mm[2]), 2.0)
    np.testing.assert_allclose(np.diff(thin.axes_mm[2]), 6.0)


@pytest.mark.parametrize(("spacing", "thickness"), [((0.1, 1, 1), None), ((1, 1, 1), 40.0), ((1, 1, np.nan), None)])
def test_an_impossible_grid_is_refused(spacing: tuple[float, float, float], thickness: float | None) -> None:
    with pytest.raises(ConfigError, match="impossible phantom grid"):
        Grid.make(spacing, thickness)
