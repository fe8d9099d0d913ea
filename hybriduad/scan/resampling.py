"""Volumes through an affine map, by SimpleITK: interpolated, and smoothed where they lose resolution."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

_LOCK = threading.Lock()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """SimpleITK works on one thread, and then on as many as before: where threads add up what each of them found, the
    last bits depend on how many they are, and a setting of one filter does not reach those within it."""
    with _LOCK:
        before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        try:
            yield
        finally:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def through_affine(
    data: np.ndarray, index: np.ndarray, shape: tuple[int, int, int], *, linear: bool, fill: float = 0.0
) -> np.ndarray:
    """(X, Y, Z) float32 of ``shape``: each voxel holds what ``data`` (X', Y', Z') has at ``index`` times that voxel.

    In index space, so that any affine (4, 4) will do. ``linear`` interpolates, after a Gaussian along the axes that
    lose resolution, or fine detail would alias; else the nearest voxel is taken. ``fill`` beyond ``data``.
    """
    data = np.asarray(data, dtype=np.float32)
    if linear:
        ratio = np.maximum(np.linalg.norm(index[:3, :3], axis=1), 1)
        data = ndimage.gaussian_filter(data, 0.5 * np.sqrt(ratio**2 - 1), mode="nearest")
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(index[:3, :3].ravel().tolist())
    transform.SetTranslation(index[:3, 3].tolist())
    moving = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    space = sitk.Image(list(shape), sitk.sitkFloat32)
    kind = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    moved = sitk.Resample(moving, space, transform, kind, fill)
    return np.asarray(sitk.GetArrayFromImage(moved).transpose(2, 1, 0))
