"""What the way into a space gives: a case on the model grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hybriduad.scan.grid import ModelGrid


@dataclass(frozen=True)
class Placed:
    """A case on the model grid, as the fields of :class:`hybriduad.scan.preparation.Prepared` of those names.

    ``about`` is what the record says of the space, nothing in native space.
    """

    image: np.ndarray
    valid: np.ndarray
    brain: np.ndarray
    foreground: np.ndarray
    lesion: np.ndarray
    ignore: np.ndarray
    grid: ModelGrid
    bias: np.ndarray | None = None
    about: dict[str, Any] = field(default_factory=dict)
