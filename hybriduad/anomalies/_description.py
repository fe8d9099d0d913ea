"""A lesion as numbers: what was drawn, apart from the image that it is painted into, so that it can be written down.

``model_dump_json`` writes a description and :func:`~hybriduad.config.strict.checked` reads it; every number survives.
Sampling apart from applying is torchio's idea (arXiv 2003.04696).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hybriduad.config.strict import Strict

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Focus(Strict):
    """An ellipsoid, before it is roughened and drawn towards tissue like that at its centre.

    ``centre_mm`` (axes) from the middle of the brain's bounding box, along the axes of the image; ``diameter_mm`` of
    the disc or ball of equal area or volume; ``stretch`` (axes) of the principal radii, of product 1; ``rotation``
    (axes, axes), whose rows are the principal axes; ``noise`` of its outline, as a state of its generator.
    """

    centre_mm: tuple[float, ...]
    diameter_mm: Positive
    stretch: tuple[Positive, ...]
    rotation: tuple[tuple[float, ...], ...]
    noise: str


class Filling(Strict):
    """What a lesion looks like on one contrast; intensities on the model range [-1, 1].

    ``contrast``: how much brighter (``bright``) or darker than its tissue; ``rim``: the share of it that the border
    lacks; ``texture``: amplitude of its variation; ``core``: the contrast of a solid core, relative to the rest;
    ``cavity``: the percentile of the brain that a hollow core shows instead, or None; ``blur``: sigma in voxels of what
    is left of the tissue's detail; ``kept``: the share of detail that stays; ``flattened``: the share of the tissue
    that gives way to its mean.
    """

    bright: bool
    contrast: Positive
    rim: Share
    texture: NonNegative
    core: float
    cavity: Annotated[float, Field(ge=0, le=100)] | None
    blur: Positive
    kept: Share
    flattened: Share


class Lesion(Strict):
    """All that :func:`hybriduad.anomalies._painting.paint` needs besides an image and its brain.

    ``foci``: at least one, and what follows belongs to all of them. ``roughness`` and ``follow_tissue``: how far noise
    and unlike tissue move the outline, relative to the radius; ``softness_mm``: width of the border, beside the
    width of a voxel; ``outline``: the share of lesion in a voxel from which it counts as lesion. ``push``: how far the
    tissue around is displaced at the border, relative to the radius of the largest focus, or None. ``texture_noise``:
    as the foci's. ``core``: the depth at which it starts and the width of its border, both relative to the radius, or
    None. ``fillings``: one a contrast of the image, None for an absent contrast; ``least_contrast``: with less room
    than this on a filling's side (bright or dark) the other side is taken.
    """

    foci: Annotated[tuple[Focus, ...], Field(min_length=1)]
    roughness: NonNegative
    follow_tissue: Share
    softness_mm: NonNegative
    outline: Annotated[float, Field(gt=0, lt=1)]
    push: Share | None
    texture_noise: str
    core: tuple[float, Positive] | None
    fillings: tuple[Filling | None, ...]
    least_contrast: Positive

    @property
    def largest(self) -> Focus:
        """The focus that mass effect and texture go by."""
        return max(self.foci, key=lambda focus: focus.diameter_mm)

    def resized(self, diameter_mm: float) -> Lesion:
        """The same lesion with its largest focus of this equivalent diameter, and the others in proportion."""
        factor = diameter_mm / self.largest.diameter_mm
        foci = [focus.model_copy(update={"diameter_mm": focus.diameter_mm * factor}) for focus in self.foci]
        return self.model_copy(update={"foci": tuple(foci)})
