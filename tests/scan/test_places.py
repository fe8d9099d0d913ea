"""Coarse places in the template's space: where published coordinates lie, and the place of a lesion on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from hybriduad.scan.places import PLACES, place_at, place_map, place_of, tentorium
from hybriduad.scan.template import template
from hybriduad.scan.volumes import VolumeGrid

KNOWN = {
    "posterior fossa": [(38, -68, -32), (26, -60, -26), (0, -62, -18), (0, -24, -32), (0, -42, -55), (14, -45, -20)],
    "basal ganglia or thalamus": [(12, -18, 8), (26, 4, 2), (13, 12, 8), (18, -4, 0)],
    "periventricular": [(14, -20, 22), (27, -52, 6), (22, 0, 26), (0, 26, 8)],
    "anterior white matter": [(24, 40, 12)],
    "central white matter": [(26, -20, 40)],
    "anterior cortex": [(4, 50, 24), (50, 26, 10), (4, 20, 34)],
    "central cortex": [(28, -20, -15), (22, -4, -18), (38, 4, 0), (54, -40, -20), (40, 12, -34)],
    "posterior cortex": [(10, -98, -3), (10, -78, 8), (44, -72, 2)],
}
"""Usual centres in MNI space: of cerebellar lobules, vermis, pons and medulla; thalamus, putamen, caudate, pallidum;
the body, atrium and genu beside the ventricles; centrum semiovale; and cortex: frontal, cingulate, hippocampus,
amygdala, insula, inferior temporal, temporal and occipital poles, calcarine."""


@pytest.mark.parametrize("name", KNOWN)
def test_known_structures_lie_where_they_should_on_both_sides(name: str) -> None:
    for x, y, z in KNOWN[name]:
        assert {place_at(np.array([side * x, y, z])) for side in (-1, 1)} == {name}, (x, y, z)


def test_the_map_covers_the_brain_with_every_place_and_is_symmetric() -> None:
    labels, affine = place_map()
    average = template()
    brain = average.brain[::2, ::2, ::2]
    assert labels.shape == brain.shape
    volumes = dict(zip(PLACES, np.bincount(labels[brain], minlength=len(PLACES)) * 8 / 1000, strict=True))
    assert min(volumes.values()) > 80
    # Cerebellum and brain stem of an adult have some 12 % of the brain's volume, the fluid around them included.
    assert 0.11 < volumes["posterior fossa"] / sum(volumes.values()) < 0.15
    fossa = (labels == list(PLACES).index("posterior fossa")) & brain
    _, pieces = ndimage.label(fossa)
    assert pieces == 1
    z = affine[2, 2] * np.arange(labels.shape[2]) + affine[2, 3]
    assert not fossa[:, :, z > 2].any()
    middle = round(-affine[0, 3] / affine[0, 0])
    reach = min(middle, len(labels) - 1 - middle)
    half = labels[middle - reach : middle + reach + 1]
    assert (half == half[::-1])[brain[middle - reach : middle + reach + 1]].mean() > 0.999


def test_the_tentorium_is_a_roof_that_falls_to_the_sides_and_to_the_back() -> None:
    x, y = np.meshgrid(np.arange(-60.0, 61.0), np.arange(-100.0, -39.0), indexing="ij")
    roof = tentorium(x, y)
    np.testing.assert_array_equal(roof, roof[::-1])
    assert (roof.argmax(axis=0) <= 60).all()
    assert (roof[60] == roof.max(axis=0)).all()
    assert (np.diff(roof[60]) >= 0).all()
    assert (roof.min(), roof.max()) == (-30.0, -2.0)


def test_a_lesion_is_where_most_of_it_lies_whatever_the_grid() -> None:
    """Seen from a scan that is turned, and moved by its registration; beyond the brain the nearest place counts."""
    affine = np.array([[0, 0, 2.5, -70], [0, 5.0, 0, -110], [-2.5, 0, 0, 80], [0, 0, 0, 1]])
    grid = VolumeGrid.make((64, 42, 57), affine)
    matrix = np.eye(4)
    matrix[:3, 3] = 6.0, -4.0, 3.0
    places = np.indices(grid.shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3] + matrix[:3, 3]

    def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
        return np.asarray((np.linalg.norm(places - centre, axis=1) < radius).reshape(grid.shape))

    cerebellum = ball((30, -65, -38), 14)
    assert place_of(cerebellum, grid, matrix) == "posterior fossa"
    assert place_of(cerebellum, grid, np.eye(4) @ np.diag([1, 1, -1, 1])) != "posterior fossa"
    both = cerebellum | ball((26, -20, 42), 6)
    assert place_of(both, grid, matrix) == "posterior fossa"
    ring = ball((16, -12, 26), 15) & ~ball((16, -12, 26), 12)
    assert place_of(ring, grid, matrix) in ("periventricular", "central white matter")
    outside = ball((0, 82, 20), 8)
    assert place_of(outside, grid, matrix) == "anterior cortex"
