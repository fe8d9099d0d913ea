"""Whether systems differ: a paired permutation test, and Holm's correction for several of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import permutation_test

DRAWS = 9999


def paired_p_value(a: np.ndarray, b: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p of the mean of ``a - b`` under exchange within subjects; row i of both, (subjects,), is a subject.

    All exchanges are tried where there are at most :data:`DRAWS` of them, else that many at random. Subjects that are
    nan in either are left out; nan under two subjects, 1 where all differences are 0 (Good 2005, Permutation,
    Parametric and Bootstrap Tests of Hypotheses, doi:10.1007/b138696).
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    difference = difference[~np.isnan(difference)]
    if len(difference) < 2:
        return math.nan
    if not difference.any():
        return 1.0
    result = permutation_test(
        (difference, np.zeros_like(difference)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=DRAWS,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979, https://www.jstor.org/stable/4615733), in the order given; nan stays nan."""
    # Not from statsmodels, which would be a dependency for these lines.
    defined = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(defined):
        highest = max(highest, min(1.0, (len(defined) - rank) * p))
        corrected[i] = highest
    return corrected
