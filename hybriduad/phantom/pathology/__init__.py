"""Pathologies as changes of T1, T2, proton density and tissue, so that every contrast follows; a file for each group.

Shapes are level sets of a distance with noise, filled to an exact volume; severity varies from subtle to florid.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from hybriduad.core.errors import ConfigError
from hybriduad.phantom.anatomy import Anatomy
from hybriduad.phantom.pathology.atrophy import atrophy
from hybriduad.phantom.pathology.lesion import Lesion
from hybriduad.phantom.pathology.tumour import glioma, resection
from hybriduad.phantom.pathology.vascular import haemorrhage, stroke
from hybriduad.phantom.pathology.white_matter import ms, wmh

Pathology = Literal[
    "glioma", "stroke", "ms", "wmh", "haemorrhage", "resection", "atrophy", "stroke-acute", "stroke-chronic"
]
PATHOLOGIES: tuple[Pathology, ...] = get_args(Pathology)
MIXED: tuple[Pathology, ...] = ("glioma", "stroke", "ms")
"""What a mixed cohort goes round. The later pathologies are left out, so that such a cohort stays what it was."""


def stream_of(pathology: Pathology) -> str:
    """The name of the random stream of a lesion: a stroke of a stage lies where that of any age does."""
    return pathology.partition("-")[0]


def draw_lesion(pathology: Pathology, anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """A random lesion of the pathology in this brain.

    Raises:
        ConfigError: unknown pathology.
    """
    makers: dict[str, Callable[[Anatomy, np.random.Generator], Lesion]] = {
        "glioma": glioma,
        "stroke": stroke,
        "stroke-acute": functools.partial(stroke, stage="acute"),
        "stroke-chronic": functools.partial(stroke, stage="chronic"),
        "ms": ms,
        "wmh": wmh,
        "haemorrhage": haemorrhage,
        "resection": resection,
        "atrophy": atrophy,
    }
    if pathology not in makers:
        raise ConfigError("unknown pathology", got=repr(pathology), expected=f"one of {list(makers)}")
    return makers[pathology](anatomy, rng)
