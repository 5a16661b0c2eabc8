"""Mirrored and turned crops, and the way back: what a network makes must not depend on which side is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.volume import Array


@dataclass(frozen=True)
class Turn:
    """Axes (I, J, K) that are mirrored, and whether I and J are exchanged after that."""

    mirrored: tuple[bool, bool, bool]
    exchanged: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Turn:
        """One of the sixteen, each alike."""
        flips = rng.random(3) < 0.5
        return cls((bool(flips[0]), bool(flips[1]), bool(flips[2])), bool(rng.random() < 0.5))

    def __call__(self, array: Array) -> Array:
        """An array (I, J, K), turned."""
        mirrored = array[self._flips()]
        return np.ascontiguousarray(mirrored.swapaxes(0, 1) if self.exchanged else mirrored)

    def all(self, arrays: Sequence[Array]) -> list[Array]:
        """Several arrays, turned alike."""
        return [self(array) for array in arrays]

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """A turned array as it was before."""
        plain = array.swapaxes(0, 1) if self.exchanged else array
        return np.ascontiguousarray(plain[self._flips()])

    def _flips(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if mirror else 1) for mirror in self.mirrored)
