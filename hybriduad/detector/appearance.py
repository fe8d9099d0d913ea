"""Whether each contrast of a scan looks like the contrast that a bundle learnt from under that name.

Flagged is a scan whose traits lie beyond those of the training cases, and are those of another contrast than its name
says: a hospital's FLAIR may be unlike the training's, and is FLAIR all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from hybriduad.scan.appearance import SAID, Traits, contrast_traits, kind_of, looks_like
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.quality import Measure

PREFIX = "traits_"
"""Before the contrast, in the names of a bundle's statistics; bundles of earlier versions have none."""
FEWEST, MOST = 5, 200
"""Training cases that limits need, and that are measured at most, evenly spread."""
CONFIDENCE = 0.95
"""Share of further scans like the training cases that is expected on the good side of a limit."""
FLAG = "wrong contrast"


@dataclass(frozen=True)
class Appearance:
    """What a bundle knows of each contrast: ``traits`` (N, 2), those of its training cases."""

    traits: Mapping[str, np.ndarray]

    def measures(self, prepared: Prepared, contrasts: Sequence[str]) -> list[Measure]:
        """For each of the ``contrasts`` of a case that can be judged and that looks like another, the trait that is
        farthest beyond its limit, as a flagged measure."""
        found = []
        for index, name in enumerate(contrasts):
            seen = case_traits(prepared, index)
            if name not in self.traits or seen is None or kind_of(name) is None:
                continue
            look = looks_like(seen)
            if look != kind_of(name) and (measure := beyond(name, look, seen, self.traits[name])) is not None:
                found.append(measure)
        return found


def beyond(name: str, look: str, seen: Traits, training: np.ndarray) -> Measure | None:
    """The trait that is farthest outside the training cases' (N, 2), in their standard deviations; None if none is."""
    worst, measure = 0.0, None
    for column, value in enumerate(seen):
        low, high = limits(training[:, column])
        limit, below = (low, True) if value < (low + high) / 2 else (high, False)
        excess = (limit - value if below else value - limit) / max(high - low, 1e-6)
        if excess > worst:
            side = "at least" if below else "at most"
            sentence = f"{name} looks like {look}: {SAID[column].format(value)}, {side} {limit:.2f} in the training"
            worst, measure = excess, Measure(FLAG, value, limit, sentence, below)
    return measure


def limits(values: np.ndarray) -> tuple[float, float]:
    """The lower and the upper 95 % prediction limit for one more case like ``values`` (N,), taken as normal.

    Hahn and Meeker 1991, doi:10.1002/9780470316771.
    """
    count = len(values)
    reach = stats.t.ppf(CONFIDENCE, count - 1) * np.sqrt(1 + 1 / count) * values.std(ddof=1)
    return float(values.mean() - reach), float(values.mean() + reach)


def case_traits(prepared: Prepared, index: int) -> Traits | None:
    """The traits of a contrast of a case; None where the case shows too little of it."""
    grid = (np.array(prepared.brain), prepared.spacing_mm, prepared.grid.direction)
    return contrast_traits(np.array(prepared.image[index]), np.array(prepared.valid[index]), *grid)


def training_traits(cases: Sequence[Prepared], contrasts: Sequence[str]) -> dict[str, np.ndarray]:
    """By name in a bundle's statistics the traits (N, 2) of every contrast of which enough cases have any."""
    found = {}
    spread = np.unique(np.linspace(0, max(len(cases) - 1, 0), min(MOST, len(cases))).round().astype(int))
    for index, name in enumerate(contrasts):
        traits = [seen for case in (cases[k] for k in spread) if (seen := case_traits(case, index)) is not None]
        if len(traits) >= FEWEST:
            found[PREFIX + name] = np.array(traits, dtype=np.float32)
    return found


def appearance_of(statistics: Mapping[str, Tensor]) -> Appearance | None:
    """What a bundle's statistics hold of its contrasts; None for those of earlier versions."""
    kept = {name.removeprefix(PREFIX): part.numpy() for name, part in statistics.items() if name.startswith(PREFIX)}
    return Appearance(kept) if kept else None
