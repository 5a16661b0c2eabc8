"""Generators by seed and keys: the same bytes as a Philox with that key, and one key never gives another's numbers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from synthoma.seeds import _digest, rng_for, seed_for


@pytest.mark.parametrize("keys", [(), ("case_1", "liver", 3, 0), ("a", "b")])
def test_a_generator_is_the_philox_of_its_key(keys: tuple[str | int, ...]) -> None:
    expected = np.random.Generator(np.random.Philox(key=_digest(7, *keys)))
    rng = rng_for(7, *keys)
    assert rng.bytes(64) == expected.bytes(64)
    assert rng.standard_normal(5).tobytes() == expected.standard_normal(5).tobytes()
    restored = pickle.loads(pickle.dumps(rng))
    assert restored.integers(1000, size=9).tolist() == expected.integers(1000, size=9).tolist()


def test_keys_are_told_apart_by_type_and_length() -> None:
    drawn = {rng_for(1, *keys).bytes(16) for keys in [("a", "b"), ("ab",), (1,), ("1",), ()]}
    assert len(drawn) == 5
    assert 0 <= seed_for(1, "a") < 2**63
