"""Independent random generators, the same on every machine and in every order."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

_WORD = 2**64 - 1


def rng_for(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator that depends on `seed` and `keys` only.

    Counter-based (Philox), so generators of different keys are independent however many workers draw from
    them and in whatever order. Keys are told apart by type and length: `("a", "b")` differs from `("ab",)`,
    `1` from `"1"`.
    """
    return np.random.Generator(np.random.Philox(_Key(_digest(seed, *keys))))  # type: ignore[arg-type]


def seed_for(seed: int, *keys: str | int) -> int:
    """A 63-bit seed that depends on `seed` and `keys` only; plain data to store in a plan."""
    return _digest(seed, *keys) & (2**63 - 1)


class _Key(ISeedSequence):
    """The key of a Philox, as it asks for it: given by itself, numpy would ask the system for entropy first."""

    def __init__(self, key: int) -> None:
        self.words = np.array([key & _WORD, key >> 64], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        """The key, 128 bits; Philox asks for nothing else."""
        assert (n_words, dtype) == (2, np.uint64)
        return self.words


def _digest(seed: int, *keys: str | int) -> int:
    digest = hashlib.blake2b(digest_size=16)
    for key in (seed, *keys):
        kind, text = ("i", str(int(key))) if isinstance(key, int | np.integer) else ("s", key)
        data = text.encode()
        digest.update(f"{kind}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "little")
