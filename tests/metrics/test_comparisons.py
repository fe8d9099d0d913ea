"""Paired permutation test and Holm's correction against hand counts and a published example."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hybriduad.metrics.comparisons import holm, paired_p_value


def test_all_exchanges_are_tried_for_a_few_subjects() -> None:
    """Of 32 sign patterns of five differences of one sign, two are as extreme."""
    a = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    assert paired_p_value(a, a - [0.1, 0.2, 0.15, 0.05, 0.12]) == pytest.approx(2 / 32)


def test_noise_is_seldom_a_difference_and_a_shift_is() -> None:
    rng = np.random.default_rng(0)
    a, noise = rng.normal(0.6, 0.1, (200, 12)), rng.normal(0, 0.05, (200, 12))
    p = np.array([paired_p_value(x, x + y) for x, y in zip(a, noise, strict=True)])
    assert 0.02 <= (p < 0.05).mean() <= 0.09
    assert max(paired_p_value(x, x + y + 0.1) for x, y in zip(a, noise, strict=True)) < 0.01


def test_undefined_subjects_are_left_out() -> None:
    a, b = np.array([0.5, math.nan, 0.7, 0.8]), np.array([0.4, 0.3, 0.5, 0.7])
    assert paired_p_value(a, b) == paired_p_value(a[[0, 2, 3]], b[[0, 2, 3]]) == pytest.approx(2 / 8)
    assert paired_p_value(a, a) == 1
    assert math.isnan(paired_p_value(a[:2], b[:2]))


def test_holm_as_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.5, math.nan, 0.9])
    assert corrected[0] == corrected[2] == 1.0
    assert math.isnan(corrected[1])
