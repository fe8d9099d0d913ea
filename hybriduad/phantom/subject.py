"""One phantom: a brain with and without its lesion, scanned in every contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import ConfigError
from hybriduad.core.rng import numpy_rng
from hybriduad.phantom.anatomy import Anatomy, Person, draw_anatomy
from hybriduad.phantom.labelmaps import read_head
from hybriduad.phantom.lattice import Grid
from hybriduad.phantom.pathology import Pathology, draw_lesion, stream_of
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

    ``images`` {contrast: float32, 0 outside the brain, arbitrary scanner units}; ``lesion`` and ``brain`` bool.
    ``attributes``: site, age, sex, pathology ("none" if healthy). ``stage`` says how old the lesion is, where that
    matters: acute or chronic for a stroke. What a cohort need not store is computed on demand, from ``anatomy``, the
    brain's points, ``fractions`` (3, N) and ``relaxation`` of its tissues with the lesion, and ``clean``, the scans
    (X, Y, Z) of the healthy brain before noise.
    """

    images: Mapping[str, np.ndarray]
    lesion: np.ndarray
    brain: np.ndarray
    affine: np.ndarray
    attributes: Mapping[str, str]
    stage: str
    protocols: Mapping[str, Protocol]
    anatomy: Anatomy
    fractions: np.ndarray
    relaxation: Relaxation
    clean: Mapping[str, np.ndarray]
    seed: int
    subject: int

    @cached_property
    def healthy_images(self) -> Mapping[str, np.ndarray]:
        """The same brain, position, coil and noise without the lesion; equal to ``images`` where there is none."""
        return {
            name: _scan(clean, self.brain, self.protocols[name], _noise(self.seed, self.subject, name))
            for name, clean in self.clean.items()
        }

    @cached_property
    def tissue(self) -> np.ndarray:
        """(3, X, Y, Z): fractions of grey matter, white matter and CSF in each voxel."""
        return np.stack([_average(self.anatomy, part) for part in self.fractions])

    @cached_property
    def t1_ms(self) -> np.ndarray:
        """(X, Y, Z): the mean T1 in each voxel, 0 where there is no brain."""
        return _average(self.anatomy, (self.fractions * self.relaxation.t1_ms).sum(axis=0))

    @cached_property
    def t2_ms(self) -> np.ndarray:
        """(X, Y, Z): the mean T2 in each voxel, likewise."""
        return _average(self.anatomy, (self.fractions * self.relaxation.t2_ms).sum(axis=0))

    @cached_property
    def pd(self) -> np.ndarray:
        """(X, Y, Z): the mean proton density in each voxel, likewise; 1 is that of fluid."""
        return _average(self.anatomy, (self.fractions * self.relaxation.pd).sum(axis=0))

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
    labelmap: Path | None = None,
) -> Phantom:
    """Phantom ``subject`` of the family ``seed``: a pure function of its arguments.

    Its anatomy is the template's, or that of the person of ``labelmap`` (:mod:`hybriduad.phantom.labelmaps`), bent.
    The brain, its scanner and its noise do not depend on ``pathology``, nor an image on the other ``contrasts``.
    With a spacing of 4 mm on all axes it takes a fraction of a second.

    Raises:
        ConfigError: unknown contrast or pathology, no or repeated contrasts, or a grid outside 0.5-10 mm.
        DataError: a label map that is not that of a brain.
    """
    if not contrasts or len(set(contrasts)) != len(contrasts):
        raise ConfigError("no or repeated contrasts", got=list(contrasts), expected=f"some of {list(CONTRASTS)}")
    attributes = describe(seed, subject, pathology)
    site_protocols = protocols(seed, attributes["site"], contrasts)
    head = None if labelmap is None else read_head(labelmap)
    anatomy = draw_anatomy(seed, subject, Grid.make(spacing_mm, slice_thickness_mm), head)
    relaxation = draw_relaxation(anatomy, numpy_rng(seed, "phantom", subject, "relaxation"))
    grid = anatomy.grid
    brain = grid.average(anatomy.brain.astype(np.float32)) >= 0.5

    healthy = {name: _average(anatomy, signal(p, anatomy.fractions, relaxation)) for name, p in site_protocols.items()}
    sick, fractions, lesion, stage = healthy, anatomy.fractions, np.zeros_like(brain), ""
    if pathology is not None:
        change = draw_lesion(pathology, anatomy, numpy_rng(seed, "phantom", subject, stream_of(pathology)))
        fractions, relaxation = change.fractions(), change.change(relaxation)
        sick = {name: _average(anatomy, signal(p, fractions, relaxation)) for name, p in site_protocols.items()}
        lesion, stage = _outline(_average(anatomy, change.inside.astype(np.float32)), brain), change.stage

    images, clean = {}, {}
    for name, protocol in site_protocols.items():
        coil = shading(grid, numpy_rng(seed, "phantom", subject, name, "coil"), protocol.shading)
        unit = float(np.abs(healthy[name][brain]).mean())
        clean[name] = healthy[name] * coil / unit
        images[name] = _scan(sick[name] * coil / unit, brain, protocol, _noise(seed, subject, name))
    return Phantom(
        images=images,
        lesion=lesion,
        brain=brain,
        affine=grid.affine,
        attributes=attributes,
        stage=stage,
        protocols=site_protocols,
        anatomy=anatomy,
        fractions=fractions,
        relaxation=relaxation,
        clean=clean,
        seed=seed,
        subject=subject,
    )


def _noise(seed: int, subject: int, contrast: str) -> np.random.Generator:
    return numpy_rng(seed, "phantom", subject, contrast, "noise")


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


def _outline(covered: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Voxels of which the lesion covers half; of a focus too small for that, those that it covers most."""
    covered = covered * brain
    lesion = covered >= 0.5
    labels, count = ndimage.label(covered > 0.05, np.ones((3, 3, 3)))
    if count == 0:
        return lesion
    inside = labels > 0  # maximum() sorts its voxels, and most are background
    most = ndimage.maximum(covered[inside], labels[inside], np.arange(1, count + 1))
    for focus in np.flatnonzero(np.asarray(most) < 0.5) + 1:
        lesion |= (labels == focus) & (covered >= 0.7 * most[focus - 1])
    return lesion
