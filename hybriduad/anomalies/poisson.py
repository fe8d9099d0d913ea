"""Poisson image interpolation: foreign tissue without a seam.

PII (Tan, Hou, Day, Simpson, Rueckert, Kainz, arXiv 2107.02622): inside a patch the image is solved for from gradients
with the border held (Perez et al., doi:10.1145/1201775.882269). Between two voxels the gradient is the scan's, faded by
1 - a, or the foreign tissue's, faded by a, whichever is larger; the network regresses a, which is the visibility here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.sparse.linalg import cg

from hybriduad.anomalies._base import Donors, present, unchanged, with_extent
from hybriduad.anomalies._foreign import Tissue, with_foreign_tissue
from hybriduad.anomalies._painting import nothing_to_paint
from hybriduad.anomalies._region import Form, Interval, Opacity, Share, draw_region
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.types import Corruption

TOLERANCE = 1e-5
"""Relative residual at which the solution counts as such; the range of an image is 2."""


class Config(AnomalyConfig):
    """``diameter_mm``: that of the disc or ball of equal size; ``forms``: of the patch; ``opacity``: the factor of
    blending; pairs are (lowest, highest). ``same_scan``: probability that the patch is of another place of the scan
    (a training takes 0 at its word: of another case, from about the same height of the brain); ``shift_mm``: the most
    that the other scan is moved along an axis.
    """

    name: Literal["poisson"] = "poisson"
    diameter_mm: Interval = (15.0, 60.0)
    forms: tuple[Form, ...] = Field(("box", "ellipsoid"), min_length=1)
    opacity: Opacity = (0.3, 1.0)
    same_scan: Share = 0.25
    shift_mm: float = Field(20.0, ge=0)


def corrupt(
    config: Config,
    image: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, ...],
    donors: Donors | None = None,
) -> Corruption:
    """Blend the gradients of foreign tissue into an image, of the same tissue by the same factor in every contrast.

    Args:
        config: size, form and blending of the patch.
        image: (C, *space) float32 in [-1, 1], two or three spatial axes.
        brain: (*space) bool.
        rng: the only source of randomness.
        spacing_mm: voxel size, one number a spatial axis.
        donors: lesion-free images of the same shape; without, the tissue is of the same scan.

    Returns:
        The image with the patch, the whole of which is the lesion, of the visibility of its factor. Other tissue is
        drawn, up to eight times, where it hardly differs; then the image is unchanged.
    """
    if nothing_to_paint(image, brain):
        return unchanged(image)
    region = draw_region(brain, rng, spacing_mm, diameter_mm=config.diameter_mm, forms=config.forms)

    def attempt(tissue: Tissue) -> Corruption | None:
        opacity = rng.uniform(*config.opacity)
        source = tissue()
        if source is None:
            return None
        changed = image.astype(np.float32)
        here = present(image)
        changed[here] = interpolated(changed[here], source[here], region.extent, opacity, spacing_mm)
        return with_extent(image, changed, region.extent, brain, opacity=opacity)

    return with_foreign_tissue(attempt, config, image, brain, region, rng, spacing_mm=spacing_mm, donors=donors)


def interpolated(
    image: np.ndarray, source: np.ndarray, extent: np.ndarray, opacity: float, spacing_mm: tuple[float, ...]
) -> np.ndarray:
    """``image`` (C, *space) with the gradients of ``source`` (C, *space) blended in where ``extent`` (*space) bool is.

    Gradients are weighted by the inverse square of the voxel size along their axis.
    """
    places = np.argwhere(extent)
    number = np.full(extent.shape, -1)
    number[extent] = np.arange(len(places))
    clean, other = image.astype(np.float64), source.astype(np.float64)
    diagonal, sums = np.zeros(len(places)), np.zeros((len(image), len(places)))
    rows, columns, values = [np.arange(len(places))], [np.arange(len(places))], [diagonal]
    for axis, size in enumerate(spacing_mm):
        for step in (-1, 1):
            neighbours = places.copy()
            neighbours[:, axis] += step
            at = np.flatnonzero((neighbours[:, axis] >= 0) & (neighbours[:, axis] < extent.shape[axis]))
            here, there = tuple(places[at].T), tuple(neighbours[at].T)
            kept = (1 - opacity) * (clean[:, *here] - clean[:, *there])
            brought = opacity * (other[:, *here] - other[:, *there])
            inside = number[there] >= 0
            held = np.where(inside, 0, clean[:, *there])
            sums[:, at] += (np.where(np.abs(kept) > np.abs(brought), kept, brought) + held) / size**2
            diagonal[at] += 1 / size**2
            rows.append(at[inside])
            columns.append(number[there][inside])
            values.append(np.full(np.count_nonzero(inside), -1 / size**2))
    cells = (np.concatenate(rows), np.concatenate(columns))
    matrix = sparse.csr_matrix((np.concatenate(values), cells), shape=(len(places), len(places)))
    result = image.copy()
    for contrast, target in enumerate(sums):
        result[contrast][extent] = cg(matrix, target, x0=clean[contrast][extent], rtol=TOLERANCE)[0]
    return result
