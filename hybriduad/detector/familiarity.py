"""How far a scan is from those that a bundle learnt from, by the deepest features of its reconstructor.

The squared Mahalanobis distance of features to a class is that of Lee et al. 2018, arXiv:1807.03888; here the class is
healthy training slices, and what is measured is the mean feature of a scan's slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from hybriduad.reconstructors._base import Reconstructor
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import enough_brain, slices_of

MEAN, COVARIANCE, DISTANCES = "feature_mean", "feature_covariance", "case_distances"
"""Names in a bundle's statistics; the last is missing in bundles of earlier versions."""
SLICES = 16
"""Slices of a scan that are looked at, at most, spread over those that are judged."""
FEWEST = 3
"""Reference cases that a limit needs."""
CONFIDENCE = 0.95
"""Share of further scans like the reference cases that is expected under the limit."""


@dataclass(frozen=True)
class Reference:
    """The features that a bundle knows: ``mean`` (D,), ``covariance`` (D, D), and ``distances`` (N,) of cases that the
    covariance is not of."""

    mean: np.ndarray
    covariance: np.ndarray
    distances: np.ndarray

    @cached_property
    def limit(self) -> float:
        """The upper 95 % prediction limit for one more case, taking distances as log-normal.

        Hahn and Meeker 1991, doi:10.1002/9780470316771.
        """
        logarithms = np.log(np.maximum(self.distances.astype(np.float64), 1e-6))
        count = len(logarithms)
        reach = stats.t.ppf(CONFIDENCE, count - 1) * np.sqrt(1 + 1 / count)
        return float(np.exp(logarithms.mean() + reach * logarithms.std(ddof=1)))

    def distance(self, features: np.ndarray) -> float:
        """Of the slices of one scan, (K, D): :func:`mahalanobis`."""
        return mahalanobis(features, self.mean, self.covariance)


def mahalanobis(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """The Mahalanobis distance of the mean feature of slices (K, D) from ``mean`` (D,) under ``covariance`` (D, D)."""
    apart = features.astype(np.float64).mean(axis=0) - mean
    return float(np.sqrt(max(apart @ np.linalg.solve(covariance.astype(np.float64), apart), 0.0)))


def reference_of(statistics: Mapping[str, Tensor]) -> Reference | None:
    """The reference of a bundle's statistics; None where they have no features, or too few cases for a limit."""
    if not {MEAN, COVARIANCE, DISTANCES} <= set(statistics) or len(statistics[DISTANCES]) < FEWEST:
        return None
    return Reference(*(statistics[name].numpy() for name in (MEAN, COVARIANCE, DISTANCES)))


@torch.inference_mode()
def case_features(
    reconstructor: Reconstructor, prepared: Prepared, seed: int, device: torch.device | str
) -> np.ndarray | None:
    """The deepest features of at most 16 judged slices of a case, (K, D) float32.

    None where the family gives none, or where no slice holds enough brain.
    """
    there = np.flatnonzero(enough_brain(np.array(prepared.brain), prepared.spacing_mm))
    if there.size == 0:
        return None
    chosen = there[np.linspace(0, len(there) - 1, min(SLICES, len(there))).round().astype(int)]
    slices = slices_of(prepared, [int(index) for index in chosen], seed).to(device)
    features = reconstructor.features(slices.image, slices.brain, slices.keys)
    return None if features is None else features.float().cpu().numpy()
