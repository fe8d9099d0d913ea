"""The slow shading of a scan by the coil: N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from hybriduad.scan.registration import Field
from hybriduad.scan.resampling import one_thread, through_affine

WORK_MM = 4.0
"""Side of the cubes that the field is estimated on."""
CONTROL_POINTS = 4
ITERATIONS = (30, 30, 20)
"""Of each level; every level doubles the mesh. At the third its cells still measure some 50 mm: finer ones would
flatten large lesions."""


def bias_field(scan: Field) -> np.ndarray:
    """(X, Y, Z) float32 on the grid of ``scan``: the factor that shades its brain, with a median of 1 there.

    A function of the voxels alone, on any number of threads.
    """
    typical = scan.typical
    data, inside, affine = scan.cubes(WORK_MM)
    signal = sitk.Cast((inside > 0.5) & (data > 0.05 * typical), sitk.sitkUInt8)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfControlPoints([CONTROL_POINTS] * 3)
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    with one_thread():
        n4.Execute(sitk.Maximum(data, 1e-3 * typical), signal)
        logarithm = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(data)).transpose(2, 1, 0)
    index = np.linalg.inv(affine) @ scan.affine
    whole = through_affine(logarithm, index, scan.data.shape, linear=True)
    return np.asarray(np.exp(whole - np.median(whole[scan.inside])), dtype=np.float32)
