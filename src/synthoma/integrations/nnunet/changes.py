"""What tumors change in a preprocessed case, voxel by voxel, and arrays that show it when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.integrations.nnunet.numbers import KEEP, Numbers
from synthoma.volume import Array


@dataclass(frozen=True, eq=False)
class Changes:
    """Voxels that tumors changed. at: (n, 3), each once. by_hu: (n,). values: (n,), of the segmentation, or `KEEP`."""

    at: NDArray[np.int32]
    by_hu: NDArray[np.float32]
    values: NDArray[np.int16]

    def inside(self, lower: Sequence[int], upper: Sequence[int]) -> tuple[tuple[Array, ...], Array]:
        """The voxels in a box: their indices there, and which of the changes they are."""
        chosen = np.flatnonzero(((self.at >= lower) & (self.at < upper)).all(axis=1))
        return tuple((self.at[chosen] - lower).T), chosen


@dataclass(frozen=True, eq=False)
class ChangedArray:
    """A preprocessed array (1, I, J, K) that is read box by box, as nnU-Net's loader does, with what tumors changed.

    whole: numpy or blosc2. change: what becomes of voxels, given their values and which of the changes they are.
    """

    whole: Any
    changes: Changes
    change: Callable[[Array, Array], Array]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.whole.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype  # type: ignore[no-any-return]

    def __getitem__(self, key: Any) -> Array:
        """The voxels of some slices of step 1."""
        slices = (*(key if isinstance(key, tuple) else (key,)), *(slice(None),) * 4)[:4]
        part = np.array(self.whole[slices])
        ends = [cut.indices(size)[:2] for cut, size in zip(slices[1:], self.shape[1:], strict=True)]
        at, chosen = self.changes.inside([low for low, _ in ends], [high for _, high in ends])
        if chosen.size:
            image = part[0]
            image[at] = self.change(image[at], chosen)
        return part


def new_values(changes: Changes) -> Callable[[Array, Array], Array]:
    """How a segmentation changes."""

    def change(values: Array, chosen: Array) -> Array:
        new = changes.values[chosen]
        return np.where(new == KEEP, values, new).astype(values.dtype)

    return change


def with_tumor_voxels(locations: Mapping[Any, Any], changes: Changes, numbers: Numbers) -> dict[Any, Any]:
    """nnU-Net's voxels to center patches on, by class or region, with those of new tumors.

    A region that holds an organ has voxels enough, and keeps its own.
    """
    grown = dict(locations)
    for key, voxels in locations.items():
        values = {int(value) for value in (key if isinstance(key, tuple) else (key,))}
        if values & numbers.tumor_values and not values & numbers.organ_values:
            made = changes.at[np.isin(changes.values, list(values & numbers.tumor_values))]
            own = np.asarray(voxels, np.int64).reshape(-1, 4)
            grown[key] = np.concatenate([own, np.pad(made, ((0, 0), (1, 0)))])
    return grown
