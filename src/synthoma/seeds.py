"""Independent random generators, the same on every machine and in every order."""

from __future__ import annotations

import hashlib

import numpy as np


def rng_for(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator that depends on `seed` and `keys` only.

    Counter-based (Philox), so generators of different keys are independent however many workers draw from
    them and in whatever order. Keys are told apart by type and length: `("a", "b")` differs from `("ab",)`,
    `1` from `"1"`.
    """
    return np.random.Generator(np.random.Philox(key=_digest(seed, *keys)))


def seed_for(seed: int, *keys: str | int) -> int:
    """A 63-bit seed that depends on `seed` and `keys` only; plain data to store in a plan."""
    return _digest(seed, *keys) & (2**63 - 1)


def _digest(seed: int, *keys: str | int) -> int:
    digest = hashlib.blake2b(digest_size=16)
    for key in (seed, *keys):
        kind, text = ("i", str(int(key))) if isinstance(key, int | np.integer) else ("s", key)
        data = text.encode()
        digest.update(f"{kind}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "little")
