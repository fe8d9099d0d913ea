"""The lesions that a mask outlines in a table: a row each, with how large, where and how sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hybriduad.detector.controls import controls_of
from hybriduad.metrics import component_table
from hybriduad.metrics.clusters import labelled
from hybriduad.metrics.conformal import false_discovery
from hybriduad.scan.atlas import Atlas
from hybriduad.scan.halves import left_half, side_of
from hybriduad.scan.places import PLACES, place_of
from hybriduad.scan.volumes import Image, VolumeGrid, from_ras, spacing_of, to_ras

COLUMNS = ("number", "volume_ml", "x_mm", "y_mm", "z_mm", "mean_score", "maximum_score", "side", "p", "q")
"""Of every table; ``p`` and ``q`` are n/a where the bundle has no controls to compare lesions with."""
UNCERTAINTY_COLUMNS = ("uncertainty",)
"""Further column where the uncertainty was predicted."""
TEMPLATE_COLUMNS = ("mni_x", "mni_y", "mni_z", "place")
"""Further columns where the bundle registers scans to the template."""
REGION_COLUMNS = ("region", "region_share")
"""Further columns where the user named an atlas."""
_REGISTERED = (
    "Only of a bundle in template space: train one with anatomy.space=MNI152NLin2009aSym, since a bundle in native "
    "space registers no scan"
)
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "number": {"Description": "Number of the component of the mask (26 neighbours), the largest first"},
    "volume_ml": {"Description": "Volume", "Units": "mL"},
    **{
        f"{axis}_mm": {"Description": f"{axis} of the centroid in the space of the scan's affine", "Units": "mm"}
        for axis in "xyz"
    },
    "mean_score": {"Description": "Mean anomaly score in it, in [0, 1]"},
    "maximum_score": {"Description": "Highest anomaly score in it, in [0, 1]"},
    "side": {"Description": "Side of the mid plane of the brain mask: left, right, or both"},
    "p": {
        "Description": "(1 + healthy controls with a cluster as high) / (1 + controls): in a healthy person the chance "
        "that any lesion has one of a or less is a at most; n/a of a bundle without controls"
    },
    "q": {"Description": "Benjamini and Hochberg's q over the lesions of the scan; descriptive"},
    "uncertainty": {
        "Description": "Mean standard deviation of the probability between the reconstructions, in [0, 0.5]; only of a "
        "bundle that predicts it"
    },
    **{
        f"mni_{axis}": {
            "Description": f"{axis} of the centroid in MNI space (the template ICBM 2009a, by the affine of the "
            f"record's space.matrix). {_REGISTERED}",
            "Units": "mm",
        }
        for axis in "xyz"
    },
    "place": {
        "Description": "Coarse place that holds the most of the lesion, from the template's own maps of tissue and "
        f"from planes and a box in its coordinates, without an atlas. {_REGISTERED}",
        "Levels": dict(PLACES),
    },
    "region": {"Description": "Region of the user's atlas that holds the most of the lesion; only with --atlas"},
    "region_share": {"Description": "Share of the lesion in that region, in [0, 1]"},
}
"""Column of the table -> what it holds, as a BIDS sidecar says it."""


def lesion_table(
    thresholds: Mapping[str, Any],
    mask: np.ndarray,
    score: np.ndarray,
    brain: np.ndarray,
    grid: VolumeGrid,
    *,
    uncertainty: np.ndarray | None = None,
    matrix: np.ndarray | None = None,
    atlas: Atlas | None = None,
) -> str:
    """A line for each component of the mask (26 neighbours), the largest first, with :data:`COLUMNS`.

    Arrays are (X, Y, Z) in the orientation of the file; centroids in the millimetres of the scan's affine. ``side``: of
    the mid plane of the brain mask. ``p``: (1 + controls with a cluster as high) / (1 + controls), so that in a healthy
    person the chance that any lesion has one of a or less is a at most. ``q``: Benjamini and Hochberg's over the
    lesions of the scan; descriptive, since they share the person and the controls.

    Args:
        thresholds: those of ``bundle.json``.
        mask: bool.
        score: in [0, 1].
        brain: bool.
        grid: of all of them.
        uncertainty: in [0, 0.5], for :data:`UNCERTAINTY_COLUMNS`.
        matrix: (4, 4) from millimetres of the scan to those of the template, for :data:`TEMPLATE_COLUMNS`: the centroid
            there, and which of :data:`~hybriduad.scan.places.PLACES` holds the most of the lesion.
        atlas: beside ``matrix``, for :data:`REGION_COLUMNS`: which region of it holds the most of the lesion.

    Raises:
        BundleError: controls that cannot be read.
        ToolError: ``matrix`` without the template's maps.
    """
    rows = component_table(mask, score, spacing_of(grid.affine))
    controls = controls_of(thresholds, "score", ("lesion",))
    voxel_ml = math.prod(spacing_of(grid.affine)) / 1000
    p = controls.lesion_p("score", score, mask, voxel_ml) if controls is not None else {}
    q = false_discovery([p[row.label] for row in rows]) if p else []
    left = _left_shares(mask, brain, grid) if rows else np.zeros(0)
    labels = labelled(mask)[0]
    columns = COLUMNS + (UNCERTAINTY_COLUMNS if uncertainty is not None else ())
    columns += TEMPLATE_COLUMNS if matrix is not None else ()
    columns += REGION_COLUMNS if matrix is not None and atlas is not None else ()
    lines = ["\t".join(columns)]
    for index, row in enumerate(rows):
        centre = grid.affine @ (row.x, row.y, row.z, 1.0)
        lesion = labels == row.label
        cells = [f"{row.number}", f"{row.volume_ml:.3f}", *(f"{value:.1f}" for value in centre[:3])]
        cells += [f"{row.mean_score:.4f}", f"{row.maximum_score:.4f}", side_of(left[row.label - 1])]
        cells += [f"{p[row.label]:.4f}", f"{q[index]:.4f}"] if p else ["n/a", "n/a"]
        if uncertainty is not None:
            cells.append(f"{uncertainty[lesion].mean():.4f}")
        if matrix is not None:
            cells += [*(f"{value:.1f}" for value in (matrix @ centre)[:3]), place_of(lesion, grid, matrix)]
            if atlas is not None:
                name, share = atlas.region(lesion, grid, matrix)
                cells += [name, f"{share:.2f}"]
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def _left_shares(mask: np.ndarray, brain: np.ndarray, grid: VolumeGrid) -> np.ndarray:
    """(components,) the share of the voxels of each in the left half of the brain."""
    left = from_ras(left_half(to_ras(Image(brain, grid))[0]), grid.orientation)
    labels, sizes = labelled(mask)
    return np.asarray(np.bincount(labels[left], minlength=len(sizes) + 1)[1:] / sizes)
