"""Windows over a volume, and what is said of each blended into slabs that come out finished, one after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from synthoma.errors import RunError
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

    @property
    def counts(self) -> Triple:
        """How many windows there are along each axis."""
        return triple(len(starts) for starts in self.starts)

    def corner(self, place: Triple) -> Triple:
        """The index of the first voxel of a window; place: which window it is along each axis."""
        return triple(starts[n] for starts, n in zip(self.starts, place, strict=True))

    def places(self, layer: int, wanted: Array | None = None) -> list[Triple]:
        """The windows of a layer along `axis`, in order; wanted: bool (*counts), which of them."""
        i, j, k = (range(layer, layer + 1) if axis == self.axis else range(n) for axis, n in enumerate(self.counts))
        return [place for place in itertools.product(i, j, k) if wanted is None or wanted[place]]

    def __len__(self) -> int:
        return math.prod(self.counts)


def blend(
    windows: Windows,
    look: Look,
    batch: int = 1,
    wanted: Array | None = None,
    known: dict[Triple, torch.Tensor] | None = None,
) -> Iterator[tuple[Box, torch.Tensor]]:
    """The weighted mean of what is said of each voxel, slab by slab along `windows.axis`: its box, and (C, *box.shape).

    look: is asked about `batch` windows at a time. A slab is given when no later window touches it, and is overwritten
    when the next one is asked for, so the memory is that of `windows.slab` whatever the grid's length.
    wanted: bool, number of windows along each axis; the others are not looked at. Only voxels all of whose windows are
    wanted get the mean; the rest of a slab is of no use. Slabs before the first wanted window are not given.
    known: what was said of some windows before; they are not looked at again, and leave `known` when they are used.
    """
    axis, along = windows.axis, windows.starts[windows.axis]
    layers = [windows.places(layer, wanted) for layer in range(len(along))]
    answers = ask(windows, itertools.chain(*layers), look, batch, known)
    total: torch.Tensor | None = None
    for layer, start in enumerate(along):
        origin = max(start, 0)
        for place, said in itertools.islice(answers, len(layers[layer])):
            if total is None:
                total = said.new_zeros((len(said), *windows.slab))
            corner = windows.corner(place)
            _add(total, said, windows, place, triple(c - origin * (a == axis) for a, c in enumerate(corner)))
        if total is None:
            continue
        end = along[layer + 1] if layer + 1 < len(along) else windows.shape[axis]
        lower, upper = [0, 0, 0], list(windows.shape)
        lower[axis], upper[axis] = origin, end
        yield Box(triple(lower), triple(upper)), total.narrow(axis + 1, 0, end - origin)
        _advance(total, axis + 1, end - origin)


def ask(
    windows: Windows,
    places: Iterable[Triple],
    look: Look,
    batch: int = 1,
    known: dict[Triple, torch.Tensor] | None = None,
) -> Iterator[tuple[Triple, torch.Tensor]]:
    """Each window and what is said of it (C, *size), in order; `batch` of them are looked at at a time.

    known: as in `blend`.
    """
    known = {} if known is None else known
    places = iter(places)
    while some := list(_enough(places, batch, known)):
        unknown = [place for place in some if place not in known]
        said = iter(look([windows.corner(place) for place in unknown]) if unknown else ())
        for place in some:
            yield place, known.pop(place) if place in known else next(said)


def _enough(places: Iterator[Triple], batch: int, known: dict[Triple, torch.Tensor]) -> Iterator[Triple]:
    """The next windows, until `batch` of them are unknown."""
    for place in places:
        yield place
        batch -= place not in known
        if not batch:
            return


def require_finite(said: torch.Tensor) -> None:
    """`RunError` if what a network said holds NaN or infinity."""
    if not bool(said.sum().isfinite()):  # one number tells of all, at a tenth of the cost
        raise RunError("the network's output is not finite", fix="say --set precision=fp32")


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
