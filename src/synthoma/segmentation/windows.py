"""Windows over a volume, and what is said of each blended into slabs that come out finished, one after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from synthoma.volume import Array, Box, Triple, triple

# Standard deviation of a window's weight, in windows: what lies at its border was seen with half its surroundings.
SIGMA = 1 / 8

# Lower corners of some windows -> what is said of each (C, *size).
Look = Callable[[Sequence[Triple]], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class Windows:
    """Windows of one size that cover a grid of `shape`, evenly spread, each sharing at least `overlap` with the next.

    Where the grid is smaller than a window, one window lies around it and reaches outside.
    """

    shape: Triple
    size: Triple
    overlap: float

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Per axis, the index of the first voxel of each window; below 0 where a window reaches outside."""
        return tuple(_starts(n, size, self.overlap) for n, size in zip(self.shape, self.size, strict=True))

    @cached_property
    def blends(self) -> tuple[tuple[torch.Tensor, ...], ...]:
        """Per axis and window its weights (size,): Gaussian, 0 outside the grid, 1 at every voxel over all windows.

        A window's weight at a voxel is the product over the axes, so these too sum to 1 and nothing has to be counted.
        """
        return tuple(_blends(*axis) for axis in zip(self.shape, self.size, self.starts, strict=True))

    @property
    def axis(self) -> int:
        """Along which slabs come out: the longest, so that they are thin."""
        return int(np.argmax(self.shape))

    @property
    def slab(self) -> Triple:
        """The shape of what is open at a time: the grid's, one window thick."""
        return triple(min(n, self.size[axis]) if axis == self.axis else n for axis, n in enumerate(self.shape))

    def __len__(self) -> int:
        return math.prod(len(starts) for starts in self.starts)


def blend(windows: Windows, look: Look, batch: int = 1) -> Iterator[tuple[Box, torch.Tensor]]:
    """The weighted mean of what is said of each voxel, slab by slab along `windows.axis`: its box, and (C, *box.shape).

    look: is asked about `batch` windows at a time, of one layer. A slab is given when no later window touches it, and
    is overwritten when the next one is asked for, so the memory is that of `windows.slab` whatever the grid's length.
    """
    axis, along = windows.axis, windows.starts[windows.axis]
    layers = [range(len(starts)) for starts in windows.starts]
    total: torch.Tensor | None = None
    for layer, start in enumerate(along):
        i, j, k = (range(layer, layer + 1) if a == axis else layers[a] for a in range(3))
        places = itertools.product(i, j, k)
        origin = max(start, 0)
        while some := list(itertools.islice(places, batch)):
            corners = [triple(windows.starts[a][n] for a, n in enumerate(place)) for place in some]
            for place, corner, said in zip(some, corners, look(corners), strict=True):
                if total is None:
                    total = said.new_zeros((len(said), *windows.slab))
                _add(total, said, windows, place, triple(c - origin * (a == axis) for a, c in enumerate(corner)))
        assert total is not None
        end = along[layer + 1] if layer + 1 < len(along) else windows.shape[axis]
        lower, upper = [0, 0, 0], list(windows.shape)
        lower[axis], upper[axis] = origin, end
        yield Box(triple(lower), triple(upper)), total.narrow(axis + 1, 0, end - origin)
        _advance(total, axis + 1, end - origin)


def _add(total: torch.Tensor, said: torch.Tensor, windows: Windows, place: Triple, corner: Triple) -> None:
    """Adds the weighted part of a window that lies inside; corner: in voxels of `total`."""
    inside = Box(corner, triple(c + s for c, s in zip(corner, windows.size, strict=True))).clip(total.shape[1:])
    part = inside.shift([-c for c in corner]).slices
    wi, wj, wk = (windows.blends[axis][n][part[axis]].to(total.device, total.dtype) for axis, n in enumerate(place))
    weight = wi[:, None, None] * wj[:, None] * wk
    total[(slice(None), *inside.slices)].addcmul_(said[(slice(None), *part)].to(total.dtype), weight)


def _advance(total: torch.Tensor, dimension: int, by: int) -> None:
    """What is finished goes, what is open moves to the front."""
    kept = total.shape[dimension] - by
    total.narrow(dimension, 0, kept).copy_(total.narrow(dimension, by, kept).clone())
    total.narrow(dimension, kept, by).zero_()


def _starts(n: int, size: int, overlap: float) -> tuple[int, ...]:
    if n <= size:
        return (-((size - n) // 2),)
    step = max(1, int(size * (1 - overlap)))
    count = -(-(n - size) // step) + 1
    return tuple(int(start) for start in np.rint(np.linspace(0, n - size, count)))


def _blends(n: int, size: int, starts: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    bell = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (SIGMA * size)) ** 2)
    total = np.zeros(n)
    inside = [(max(-start, 0), min(n - start, size)) for start in starts]
    for start, (low, high) in zip(starts, inside, strict=True):
        total[start + low : start + high] += bell[low:high]
    shares: list[Array] = [np.zeros(size, np.float32) for _ in starts]
    for share, start, (low, high) in zip(shares, starts, inside, strict=True):
        share[low:high] = bell[low:high] / total[start + low : start + high]
    return tuple(torch.from_numpy(share) for share in shares)
