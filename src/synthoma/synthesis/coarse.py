"""Every few voxels of a scan: what planning looks at, so that its cost hardly follows the scan's resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.bounded import Bounded
from synthoma.volume import Array, Box, Floats, Geometry, Triple, triple


def steps(geometry: Geometry, organ: str) -> Triple:
    """How many voxels apart, along each axis, an organ's tables sample a scan."""
    return triple(max(1, int(anatomy.SITES[organ].coarse_mm / spacing)) for spacing in geometry.spacing_mm)


def grid(geometry: Geometry, step: Triple) -> Geometry:
    """The grid of the coarse voxels, which are the scan's every so many."""
    affine = geometry.affine.copy()
    affine[:3, :3] *= np.asarray(step)
    return Geometry(triple(-(-n // s) for n, s in zip(geometry.shape, step, strict=True)), affine)


def box(fine: Box, step: Triple) -> Box:
    """The coarse voxels in a box of the scan."""
    return Box(*(triple(-(-at // s) for at, s in zip(corner, step, strict=True)) for corner in fine))


def thin(data: Array, coarse: Box, step: Triple) -> Array:
    """The coarse voxels of a box of them, a view."""
    return data[_every(coarse, step, (0, 0, 0))]


def thin_mask(mask: Bounded, coarse: Box, step: Triple) -> NDArray[np.bool_]:
    """The same of a mask: bool (coarse)."""
    result = np.zeros(coarse.shape, bool)
    own = box(mask.box, step)
    if shared := coarse.overlap(own):
        here, there = shared
        first = [low * s - start for low, s, start in zip(own.lower, step, mask.box.lower, strict=True)]
        every = tuple(slice(start, None, s) for start, s in zip(first, step, strict=True))
        result[here] = mask.data[every][there]
    return result


def sample(data: Array, coarse: Box, step: Triple) -> Floats:
    """HU of the coarse voxels of a box of them, each the mean of up to eight of the scan's voxels."""
    # a second sample half a step on, unless the scan ends before it
    moves = [
        (0, s // 2) if s > 1 and (high - 1) * s + s // 2 < n else (0,)
        for s, high, n in zip(step, coarse.upper, data.shape, strict=True)
    ]
    count = np.float32(math.prod(map(len, moves)))
    if data.dtype == np.int16:
        return np.ascontiguousarray(_whole_sums(data, coarse, step, moves), np.float32) / count
    total = np.zeros(coarse.shape, np.float32)
    for move in itertools.product(*moves):
        total += data[_every(coarse, step, move)]
    return total / count


def _whole_sums(data: Array, coarse: Box, step: Triple, moves: Sequence[tuple[int, ...]]) -> Array:
    """Whole numbers add up to the same in any order: here whole lines first, as they lie in memory, layer by layer."""
    start, stop = coarse.lower[0] * step[0], (coarse.upper[0] - 1) * step[0] + moves[0][-1] + 1
    total = np.empty(coarse.shape, np.int32, order="F")
    rows = [_every(coarse, step, (0, move, 0))[1] for move in moves[1]]
    for layer in range(coarse.shape[2]):
        at = [(coarse.lower[2] + layer) * step[2] + move for move in moves[2]]
        first, *others = (data[start:stop, row, k] for row in rows for k in at)
        lines = first.astype(np.int32)
        for other in others:
            lines += other.astype(np.int32)  # cast at once, which is quicker than piece by piece while it is added
        first, *others = (lines[move :: step[0]][: coarse.shape[0]] for move in moves[0])
        total[:, :, layer] = first + others[0] if others else first
    return total


def _every(coarse: Box, step: Triple, move: tuple[int, ...]) -> tuple[slice, slice, slice]:
    i, j, k = (
        slice(low * s + m, (high - 1) * s + m + 1, s)
        for low, high, s, m in zip(coarse.lower, coarse.upper, step, move, strict=True)
    )
    return i, j, k
