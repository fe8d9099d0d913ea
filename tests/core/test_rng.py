"""Keyed randomness: the same keys the same numbers, other keys independent ones, global generators untouched."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hybriduad.core import rng

Keys = st.lists(st.one_of(st.integers(-(2**62), 2**62), st.text(max_size=8)), max_size=4)


def test_golden_values() -> None:
    """Bundles store seeds: these numbers may never change."""
    assert rng.fold(0) == 779083206325375237
    assert rng.fold(7, "slice", 12) == 6512326882707805682
    assert rng.slice_key(7, 12) == rng.fold(7, "slice", 12)
    assert rng.numpy_rng(0, "a").integers(0, 1000, 4).tolist() == [231, 690, 951, 879]


@given(st.integers(-(2**31), 2**31), Keys, Keys)
@settings(max_examples=200, deadline=None)
def test_fold_is_injective_in_practice(seed: int, first: list, second: list) -> None:
    a, b = rng.fold(seed, *first), rng.fold(seed, *second)
    assert 0 <= a < 2**63
    typed = [[(type(key), key) for key in keys] for keys in (first, second)]
    assert (a == b) == (typed[0] == typed[1])


def test_fold_tells_types_order_and_boundaries_apart() -> None:
    folded = [
        rng.fold(0, 1),
        rng.fold(0, "1"),
        rng.fold(0, "a", 1),
        rng.fold(0, 1, "a"),
        rng.fold(0, "ab", "c"),
        rng.fold(0, "a", "bc"),
        rng.fold(0, "a;s1:b"),
        rng.fold(0, "a", "b"),
        rng.fold(1, 1),
    ]
    assert len(set(folded)) == len(folded)


def test_generators_are_functions_of_their_keys() -> None:
    assert np.array_equal(rng.numpy_rng(3, "x").normal(size=5), rng.numpy_rng(3, "x").normal(size=5))
    assert not np.array_equal(rng.numpy_rng(3, "x").normal(size=5), rng.numpy_rng(3, "y").normal(size=5))


def test_fold_keys_folds_each() -> None:
    keys = torch.tensor([5, 6, 5])
    folded = rng.fold_keys(keys, "noise", 2)
    assert folded.dtype == torch.int64
    assert folded.tolist() == [rng.fold(key, "noise", 2) for key in (5, 6, 5)]


@pytest.mark.parametrize("draw", [rng.normal, rng.uniform])
def test_alone_and_batched_agree(draw) -> None:
    keys = rng.fold_keys(torch.arange(4), "k")
    together = draw(keys, (2, 8, 8))
    assert together.shape == (4, 2, 8, 8)
    assert together.dtype == torch.float32
    for index in range(4):
        assert torch.equal(draw(keys[index : index + 1], (2, 8, 8))[0], together[index])
    assert torch.equal(draw(keys.flip(0), (2, 8, 8)), together.flip(0))
    assert draw(keys[:0], (3,)).shape == (0, 3)


def test_distributions() -> None:
    keys = rng.fold_keys(torch.arange(50), "k")
    assert stats.kstest(rng.normal(keys, (100,)).numpy().ravel(), "norm").pvalue > 1e-3
    uniform = rng.uniform(keys, (100,)).numpy().ravel()
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert 0 <= uniform.min() <= uniform.max() < 1
    first_numbers = rng.uniform(rng.fold_keys(torch.arange(2000), "k")).numpy()
    assert stats.kstest(first_numbers, "uniform").pvalue > 1e-3  # neighbouring keys are independent too


def test_global_generators_are_neither_read_nor_changed() -> None:
    def draw() -> list:
        keys = rng.fold_keys(torch.arange(3), "k")
        return [rng.normal(keys, (4,)), rng.uniform(keys, (4,)), rng.numpy_rng(1, "a").normal()]

    def states() -> list:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = states()
    first = draw()
    assert states() == before
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        second = draw()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[2] == second[2]
