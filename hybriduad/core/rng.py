"""Keyed randomness: every random number is a pure function of a seed and a tuple of keys.

Nothing here, and nothing built on it, reads or changes the global generators of ``random``, numpy or torch.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

Key = int | str


def fold(seed: int, *keys: Key) -> int:
    """Fold a seed and keys into one non-negative 63-bit integer (BLAKE2b), the same on every platform.

    ``fold(s, "a", 1)`` and ``fold(s, 1, "a")`` differ, and so do the keys ``1`` and ``"1"``.
    """
    digest = hashlib.blake2b(digest_size=8)
    for key in (int(seed), *keys):
        kind = "s" if isinstance(key, str) else "i"
        text = key if isinstance(key, str) else str(int(key))
        digest.update(f"{kind}{len(text)}:{text};".encode())
    return int.from_bytes(digest.digest(), "big") >> 1


def numpy_rng(seed: int, *keys: Key) -> np.random.Generator:
    """A new numpy generator, seeded by (seed, keys)."""
    return np.random.Generator(np.random.PCG64(fold(seed, *keys)))


def fold_keys(keys: Tensor, *more: Key) -> Tensor:
    """Fold further keys into each element of ``keys`` (B,) int64; the result is (B,) int64 on the CPU."""
    return torch.tensor([fold(int(key), *more) for key in keys.tolist()], dtype=torch.int64)


def slice_key(seed: int, slice_index: int) -> int:
    """The key of a slice in inference: the bundle's seed and the slice's index on the model grid, and nothing else."""
    return fold(seed, "slice", slice_index)


def normal(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal field of ``shape`` for each key: (B, *shape) float32 on the CPU.

    Every element is drawn from a separate generator, so a slice gets the same noise alone and in any batch.
    """
    fields = [torch.randn(shape, generator=torch.Generator().manual_seed(key)) for key in keys.tolist()]
    return torch.stack(fields) if fields else torch.zeros((0, *shape))


def uniform(keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform numbers in [0, 1) of ``shape`` for each key: (B, *shape) float32 on the CPU."""
    fields = [torch.rand(shape, generator=torch.Generator().manual_seed(key)) for key in keys.tolist()]
    return torch.stack(fields) if fields else torch.zeros((0, *shape))
