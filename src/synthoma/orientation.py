"""How index axes are ordered and where they point: by name (`RAS`), and between two grids of the same voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_PAIRS = ("LR", "PA", "IS")


class Alignment(NamedTuple):
    """How an array goes exactly onto another grid, without resampling.

    order: which of its axes becomes axis 0, 1, 2. flips: which of these then turn round. lower: where its first
    voxel then lies in the other grid, in voxels.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    lower: tuple[int, int, int]

    @property
    def changes_nothing(self) -> bool:
        """The array lies on the other grid as it is."""
        return self == Alignment((0, 1, 2), (False, False, False), (0, 0, 0))

    def turn(self, data: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view of the array with the axes of the other grid."""
        turned = data.transpose(self.order)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]


def alignment(
    target: Matrix, source: Matrix, shape: Sequence[int], tolerance_mm: float = 0.1, most_voxels: float = np.inf
) -> Alignment | None:
    """How an array of this shape on the affine `source` goes onto the grid of the affine `target`.

    None if axes have to be turned by other than right angles, or voxels moved by more than `tolerance_mm` at any
    corner of the array. most_voxels: a `lower` further off than this is None too.
    """
    change = np.linalg.inv(target) @ source
    turns = np.rint(change[:3, :3])
    if not (np.abs(turns).sum(axis=0) == 1).all() or not (np.abs(turns).sum(axis=1) == 1).all():
        return None
    order = np.abs(turns).argmax(axis=1)  # row: axis of the target; column: axis of the source
    flips = turns[range(3), order] < 0
    last = np.asarray(shape)[order] - 1
    first = np.rint(change[:3, 3])
    lower = first - np.where(flips, last, 0)
    if not (np.abs(lower) <= most_voxels).all():
        return None
    corners = np.array(np.meshgrid(*[[-0.5, n - 0.5] for n in shape])).reshape(3, -1)
    exact = turns @ corners + first[:, None]
    apart = target[:3, :3] @ (change[:3, :3] @ corners + change[:3, 3:] - exact)
    if not np.linalg.norm(apart, axis=0).max() <= tolerance_mm:
        return None
    a, b, c = (int(axis) for axis in order)
    x, y, z = (bool(flip) for flip in flips)
    i, j, k = (int(value) for value in lower)
    return Alignment((a, b, c), (x, y, z), (i, j, k))


def square(affine: Matrix, shape: Sequence[int]) -> Matrix:
    """The nearest affine with axes at right angles: the same spacing, and the same millimeters amid the array."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    straight = np.eye(4)
    straight[:3, :3] = left @ right * spacing
    middle = (np.asarray(shape) - 1) / 2
    straight[:3, 3] = affine[:3, 3] + (affine[:3, :3] - straight[:3, :3]) @ middle
    return straight


def directions(axes: str) -> Iterator[tuple[int, int]]:
    """World axis and sign of each letter of a name such as `RAS`; `ValueError` for other words."""
    found = [
        (world, 1 if letter == pair[1] else -1)
        for letter in axes
        for world, pair in enumerate(_PAIRS)
        if letter in pair
    ]
    if len(axes) != 3 or sorted(world for world, _ in found) != [0, 1, 2]:
        raise ValueError(f"axes are three of R/L, A/P, S/I, such as RAS; got {axes!r}")
    yield from found


def axis_names(cosines: Matrix) -> str:
    """The nearest letters (`RAS`, `LPS`, ...) of three axes, given as the columns of a matrix of RAS+ cosines."""
    letters = ["?"] * 3
    free_axes, free_worlds = {0, 1, 2}, {0, 1, 2}
    while free_axes:
        axis, world = max(
            ((a, w) for a in free_axes for w in free_worlds),
            key=lambda pair: abs(cosines[pair[1], pair[0]]),
        )
        letters[axis] = _PAIRS[world][int(cosines[world, axis] > 0)]
        free_axes.remove(axis)
        free_worlds.remove(world)
    return "".join(letters)


def moves(now: str, then: str) -> tuple[list[int], list[bool]]:
    """Which present axis goes to each place, and whether it turns round."""
    present = list(directions(now))
    order, flips = [], []
    for world, sign in directions(then):
        axis = next(a for a, (w, _) in enumerate(present) if w == world)
        order.append(axis)
        flips.append(present[axis][1] != sign)
    return order, flips
