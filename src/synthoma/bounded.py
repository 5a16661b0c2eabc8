"""A mask as the box around it: most of a scan belongs to no organ, and need not be held, copied or looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.orientation import Alignment, moves
from synthoma.volume import Array, Box, Geometry, Volume, triple

EMPTY = Box((0, 0, 0), (0, 0, 0))


@dataclass(frozen=True, eq=False)
class Bounded:
    """A mask that is empty outside of a box.

    grid: of the whole mask. data: bool (box); (0, 0, 0) of an empty mask, whose box is `EMPTY`.
    """

    grid: Geometry
    box: Box
    data: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: Volume) -> Bounded:
        """A mask (bool) as a view of the smallest box around it."""
        box = Box.around(mask.data) or EMPTY
        return cls(mask.geometry, box, mask.data[box.slices])

    @classmethod
    def cut_from(cls, mask: Volume) -> Bounded:
        """The same as a copy, which does not keep the rest of the mask in memory."""
        view = cls.of(mask)
        data = zeros_like(view.data, view.box.shape)
        data[...] = view.data
        return cls(view.grid, view.box, data)

    def on(self, box: Box) -> NDArray[np.bool_]:
        """The mask in any box of its grid, not to be written into."""
        shared = box.overlap(self.box)
        if shared is None:
            return np.zeros(box.shape, bool, order="F")
        here, there = shared
        if self.data[there].shape == box.shape:
            return self.data[there]
        result = zeros_like(self.data, box.shape)
        result[here] = self.data[there]
        return result

    def changed(self, box: Box, part: Array) -> Bounded:
        """The mask with other voxels in a box of its grid."""
        hull = box if self.box == EMPTY else self.box.hull(box)
        data = zeros_like(self.data, hull.shape)
        data[self.box.seen_from(hull).slices] = self.data
        data[box.seen_from(hull).slices] = part
        return Bounded(self.grid, hull, data)

    def onto(self, grid: Geometry, what: str = "mask") -> Bounded:
        """The same voxels on a grid that is their own up to the order and direction of axes; else `GeometryError`."""
        turn = turn_onto(grid, self.grid, what)
        return Bounded(grid, self.box, self.data) if turn is None else self.turned(grid, turn.order, turn.flips)

    def reorient(self, axes: str) -> Bounded:
        """The same voxels with index axes ordered and pointing as named."""
        return self.turned(self.grid.reoriented(axes), *moves(self.grid.axes, axes))

    def turned(self, grid: Geometry, order: Sequence[int], flips: Sequence[bool]) -> Bounded:
        """The same voxels on a grid whose axes are these ones of its own, some turned round."""
        data = self.data.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        if self.box == EMPTY:
            return Bounded(grid, EMPTY, data)
        ends = [(self.box.lower[axis], self.box.upper[axis], self.grid.shape[axis]) for axis in order]
        ends = [
            (n - high, n - low, n) if flip else (low, high, n) for (low, high, n), flip in zip(ends, flips, strict=True)
        ]
        return Bounded(grid, Box(triple([low for low, _, _ in ends]), triple([high for _, high, _ in ends])), data)

    @cached_property
    def whole(self) -> Volume:
        """The mask on all of its grid; memory where it is empty is not touched."""
        data = zeros_like(self.data, self.grid.shape)
        data[self.box.slices] = self.data
        return Volume(data, self.grid)


def turn_onto(grid: Geometry, other: Geometry, what: str = "mask") -> Alignment | None:
    """How arrays on another grid go onto this one, whose axes are the same up to order and direction.

    None if the grids only match to a tenth of a millimeter; `GeometryError` if they do not.
    """
    turn = grid.alignment(other)
    if turn is None or turn.lower != (0, 0, 0) or sorted(grid.shape) != sorted(other.shape):
        grid.require_same(other, what)
        return None
    return turn


def zeros_like(array: Array, shape: Sequence[int], kind: Any = None) -> Array:
    """Zeros of another shape whose axes lie in memory as those of an array do, also where one runs backwards.

    kind: their type, that of the array unless told.
    """
    order = sorted(range(3), key=lambda axis: -abs(array.strides[axis]))
    data = np.zeros([shape[axis] for axis in order], array.dtype if kind is None else kind)
    return data.transpose(np.argsort(order))[tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)]
