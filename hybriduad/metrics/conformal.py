"""What healthy controls promise of the next healthy scan: split-conformal thresholds and p-values.

Everything rests on exchangeability: the next person is drawn as the controls were, and none of them was learnt from.
Then the rank of their statistic among those of n controls is uniform on 1 to n + 1, whatever its distribution (Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Angelopoulos and Bates, arXiv 2107.07511).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from hybriduad.core.errors import DataError

ROUNDING = 1e-9
"""20 times 0.05 is to count as 1."""


def allowed_above(alpha: float, controls: int) -> int:
    """How many of so many ``controls`` may lie above a threshold that a share ``alpha`` of healthy scans exceeds.

    At 0 < alpha < 1 it is floor(alpha (n + 1)) - 1: the next scan is one of those above the threshold too.

    Raises:
        DataError: alpha is under 1 / (n + 1), which no threshold can promise.
    """
    above = math.floor(alpha * (controls + 1) + ROUNDING) - 1
    if above < 0:
        raise DataError(
            f"alpha {alpha:g} cannot be promised: n healthy controls give alpha >= 1 / (n + 1)",
            got=f"{controls} controls, which give alpha >= {1 / (controls + 1):.3g}",
            expected=f"at least {math.ceil(1 / alpha - ROUNDING) - 1} controls",
            mend="add controls that the model has not seen, or ask for a larger alpha",
        )
    return above


def conformal_quantile(statistics: Sequence[float], alpha: float) -> float:
    """The control's statistic that the next healthy scan exceeds with probability alpha at most.

    The ceil((1 - alpha)(n + 1))-th smallest of the n ``statistics``.

    Raises:
        DataError: as :func:`allowed_above`.
    """
    return sorted(statistics, reverse=True)[allowed_above(alpha, len(statistics))]


def share_bound(alpha: float, controls: int, certainty: float = 0.95) -> float:
    """The share of healthy scans above the quantile of one set of controls is under this with so much ``certainty``.

    On average over sets of controls it is alpha at most; of one set it follows a beta distribution (Vovk,
    arXiv 1209.2673), for statistics without ties, and is smaller with them.

    Raises:
        DataError: as :func:`allowed_above`.
    """
    above = allowed_above(alpha, controls)
    return float(stats.beta.ppf(certainty, above + 1, controls - above))


def conformal_p(statistic: float, controls: Sequence[float]) -> float:
    """(1 + controls whose statistic is at least this) / (n + 1): under alpha in a share alpha of healthy scans at most.

    Raises:
        DataError: no control.
    """
    if not len(controls):
        raise DataError("no control to compare with")
    return (1 + int((np.asarray(controls) >= statistic).sum())) / (len(controls) + 1)


def false_discovery(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's q of each p (doi:10.1111/j.2517-6161.1995.tb02031.x), in the order of ``p``."""
    return stats.false_discovery_control(np.asarray(p)).tolist() if len(p) else []
