"""One phantom: a brain with and without its lesion, scanned in every contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import ConfigError
from hybriduad.core.rng import numpy_rng
from hybriduad.phantom.anatomy import Anatomy, Person, draw_anatomy
from hybriduad.phantom.lattice import Grid
from hybriduad.phantom.pathology import Pathology, draw_lesion
from hybriduad.phantom.signal import (
    CONTRASTS,
    Protocol,
    Relaxation,
    draw_relaxation,
    protocols,
    rician,
    shading,
    signal,
)

SITES = ("Aster", "Birch", "Cedar")


@dataclass(frozen=True)
class Phantom:
    """A scanned subject; arrays lie on one RAS grid (X, Y, Z) with the (4, 4) ``affine`` to millimetres.

    ``images`` {contrast: float32, 0 outside the brain, arbitrary scanner units}; ``healthy_images``: the same brain,
    position, coil and noise without the lesion (equal where there is none). ``tissue`` (3, X, Y, Z): fractions of grey
    matter, white matter and CSF; ``t1_ms``, ``t2_ms``, ``pd``: their means in each voxel; all with the lesion.
    ``lesion`` and ``brain`` bool. ``attributes``: site, age, sex, pathology ("none" if healthy).
    """

    images: Mapping[str, np.ndarray]
    healthy_images: Mapping[str, np.ndarray]
    tissue: np.ndarray
    t1_ms: np.ndarray
    t2_ms: np.ndarray
    pd: np.ndarray
    lesion: np.ndarray
    brain: np.ndarray
    affine: np.ndarray
    attributes: Mapping[str, str]
    protocols: Mapping[str, Protocol]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.linalg.det(self.affine[:3, :3])) / 1000


def describe(seed: int, subject: int, pathology: Pathology | None = None) -> dict[str, str]:
    """Site, age, sex and pathology of a phantom, without making it."""
    person = Person.draw(numpy_rng(seed, "phantom", subject, "person"))
    site = SITES[int(numpy_rng(seed, "phantom", subject, "site").integers(len(SITES)))]
    return {"site": site, "age": str(person.age), "sex": person.sex, "pathology": pathology or "none"}


def make_subject(
    seed: int,
    subject: int,
    *,
    pathology: Pathology | None = None,
    contrasts: tuple[str, ...] = CONTRASTS,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 4.0),
    slice_thickness_mm: float | None = None,
) -> Phantom:
    """Phantom ``subject`` of the family ``seed``: a pure function of its arguments.

    The brain, its scanner and its noise do not depend on ``pathology``, nor an image on the other ``contrasts``.
    A spacing of 4 mm on all axes makes one in a fraction of a second.

    Raises:
        ConfigError: unknown contrast or pathology, no or repeated contrasts, or a grid outside 0.5-10 mm.
    """
    if not contrasts or len(set(contrasts)) != len(contrasts):
        raise ConfigError("no or repeated contrasts", got=list(contrasts), expected=f"some of {list(CONTRASTS)}")
    attributes = describe(seed, subject, pathology)
    site_protocols = protocols(seed, attributes["site"], contrasts)
    anatomy = draw_anatomy(seed, subject, Grid.make(spacing_mm, slice_thickness_mm))
    relaxation = draw_relaxation(anatomy, numpy_rng(seed, "phantom", subject, "relaxation"))
    grid = anatomy.grid
    brain = grid.average(anatomy.brain.astype(np.float32)) >= 0.5

    healthy = {name: _average(anatomy, signal(p, anatomy.fractions, relaxation)) for name, p in site_protocols.items()}
    sick, fractions, sick_relaxation, lesion = healthy, anatomy.fractions, relaxation, np.zeros_like(brain)
    if pathology is not None:
        found = draw_lesion(pathology, anatomy, numpy_rng(seed, "phantom", subject, pathology))
        fractions, sick_relaxation = found.fractions(), found.change(relaxation)
        sick = {name: _average(anatomy, signal(p, fractions, sick_relaxation)) for name, p in site_protocols.items()}
        lesion = _outline(_average(anatomy, found.inside.astype(np.float32)), brain)

    images, healthy_images = {}, {}
    for name, protocol in site_protocols.items():
        coil = shading(grid, numpy_rng(seed, "phantom", subject, name, "coil"), protocol.shading)
        unit = float(np.abs(healthy[name][brain]).mean())
        key = (seed, "phantom", subject, name, "noise")
        scans = [
            _scan(clean * coil / unit, brain, protocol, numpy_rng(*key))
            for clean in ([healthy[name]] if pathology is None else [healthy[name], sick[name]])
        ]
        healthy_images[name], images[name] = scans[0], scans[-1]
    return Phantom(
        images=images,
        healthy_images=healthy_images,
        tissue=np.stack([_average(anatomy, part) for part in fractions]),
        **{name: _average(anatomy, part) for name, part in _mixed(fractions, sick_relaxation).items()},
        lesion=lesion,
        brain=brain,
        affine=grid.affine,
        attributes=attributes,
        protocols=site_protocols,
    )


def _average(anatomy: Anatomy, values: np.ndarray) -> np.ndarray:
    """Values (N,) on the brain's points to voxels (X, Y, Z) float32: the mean over voxel and slab."""
    points = np.zeros(anatomy.brain.shape, dtype=np.float32)
    points[anatomy.brain] = values
    return anatomy.grid.average(points)


def _scan(clean: np.ndarray, brain: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Noise and the scanner's units; a skull-stripped image, so exactly 0 outside the brain."""
    image = np.zeros(brain.shape, dtype=np.float32)
    image[brain] = rician(clean[brain], rng, protocol.noise) * protocol.gain
    return image


def _mixed(fractions: np.ndarray, relaxation: Relaxation) -> dict[str, np.ndarray]:
    maps = {"t1_ms": relaxation.t1_ms, "t2_ms": relaxation.t2_ms, "pd": relaxation.pd}
    return {name: (fractions * values).sum(axis=0) for name, values in maps.items()}


def _outline(covered: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Voxels of which the lesion covers half; of a focus too small for that, those that it covers most."""
    covered = covered * brain
    lesion = covered >= 0.5
    labels, count = ndimage.label(covered > 0.05, np.ones((3, 3, 3)))
    most = ndimage.maximum(covered, labels, np.arange(1, count + 1))
    for focus in np.flatnonzero(np.asarray(most) < 0.5) + 1:
        lesion |= (labels == focus) & (covered >= 0.7 * most[focus - 1])
    return lesion
