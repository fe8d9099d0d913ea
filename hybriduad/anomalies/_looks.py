"""What contrasts share of an anomaly: it is drawn once, and lies on every contrast as lesions do, bright or dark.

A lesion that is bright on FLAIR is dark on T1w. An anomaly of a draw for each contrast, or bright on both, looks like
no tissue, and a network would learn to find that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from pydantic import Field

from hybriduad.anomalies._base import per_contrast, present
from hybriduad.anomalies._region import signed
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.contrasts import LOOKS


class TurningConfig(AnomalyConfig):
    """``inverted``: for every contrast in the bundle's order, whether the anomaly is dark where it is bright on those
    that are not inverted. Where it is left out and the names of the contrasts are known, as in a training, it follows
    from them (:func:`inverted_by_looks`); where lesions look alike on all, nothing is inverted.
    """

    inverted: tuple[bool, ...] = Field((), exclude_if=lambda inverted: not inverted)


C = TypeVar("C", bound=TurningConfig)


def inverted_by_looks(config: C, contrasts: Sequence[str]) -> C:
    """The config for contrasts of these names: ``for_contrasts`` of a generator with a :class:`TurningConfig`."""
    dark = tuple(not LOOKS[name].bright_lesions for name in contrasts)
    return config if config.inverted or len(set(dark)) < 2 else config.model_copy(update={"inverted": dark})


def listed(config: TurningConfig, here: np.ndarray) -> dict[int, bool]:
    """Every present contrast, and whether it is inverted; ``here`` (C,) bool says which are present.

    Raises:
        ConfigError: ``inverted`` lists another number of contrasts.
    """
    inverted = per_contrast(config.inverted or False, len(here), f"{config.name}.inverted")
    return {int(contrast): inverted[contrast] for contrast in np.flatnonzero(here)}


def drawn_shifts(
    config: TurningConfig,
    image: np.ndarray,
    extent: np.ndarray,
    rng: np.random.Generator,
    *,
    sizes: tuple[float, float],
    bright: float,
) -> dict[int, float]:
    """By how much every present contrast gets brighter or darker: by a size of its own, to the side of all.

    The first contrast decides the side: with the probability ``bright`` the brighter, and the other where the range
    [-1, 1] ends before. The others go there as far as the range does, at the least by the lowest of ``sizes``; tissue
    at the very end of the range can only leave it.

    Args:
        config: says which contrasts are inverted.
        image: (C, *space) in [-1, 1], of which a contrast is present.
        extent: (*space) bool, not empty, whose mean counts.
        rng: the only source of randomness.
        sizes: (lowest, highest).
        bright: probability, on contrasts that are not inverted.

    Raises:
        ConfigError: as :func:`listed`.
    """
    inverted = listed(config, present(image))
    shifts: dict[int, float] = {}
    up = False
    for contrast, turned in inverted.items():
        size, mean = rng.uniform(*sizes), float(image[contrast][extent].mean())
        if not shifts:
            shifts[contrast] = signed(size, mean, (rng.random() < bright) != turned)
            up = (shifts[contrast] > 0) != turned
            continue
        side = 1 if up != turned else -1
        room = 1 - side * mean
        shifts[contrast] = side * min(size, room) if room >= sizes[0] else -side * size
    return shifts
