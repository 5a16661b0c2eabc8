"""Masks read a few planes at a time: what is kept is the region of their voxels, never a whole scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthoma import files
from synthoma.evaluation.regions import Block, Region, joined_runs, split
from synthoma.volume import Array, Box, Geometry, Volume

_SLAB_VOXELS = 2**21


@dataclass(frozen=True, eq=False)
class Planes:
    """The voxels of a file or a volume, some planes of its first axis at a time.

    geometry: with axes in the order of the voxels in memory, the slowest first. each: index of the first plane and
    voxels (planes, J, K), one slab after the other. fractions: whether the values are fractions, as float32.
    """

    geometry: Geometry
    each: Callable[[], Iterator[tuple[int, Array]]]
    fractions: bool = False

    def volume(self) -> Volume:
        """All voxels; for what cannot be done plane by plane."""
        slabs = [slab for _, slab in self.each()]
        return Volume(np.concatenate(slabs), self.geometry)


def planes_of(volume: Volume) -> Planes:
    """The planes of a volume in memory."""
    turned = volume.reorient(in_memory_order(volume))
    step = max(1, _SLAB_VOXELS // max(1, int(np.prod(turned.data.shape[1:]))))

    def each() -> Iterator[tuple[int, Array]]:
        for start in range(0, len(turned.data), step):
            yield start, turned.data[start : start + step]

    return Planes(turned.geometry, each, volume.data.dtype == np.float32)


def read_planes(path: Path | str, truth: bool = False) -> Planes:
    """The planes of a mask, a label map or a map of fractions; of whole numbers only if `truth`.

    Raises `FileError` for what is none, while the planes are read.
    """
    stored = files.open_stored(path, labels=True)
    fractions = not (truth or stored.is_whole)

    def each() -> Iterator[tuple[int, Array]]:
        for start, slab in stored.each_value() if fractions else stored.each_label():
            yield start, slab.T

    return Planes(stored.geometry.reoriented(stored.geometry.axes[::-1]), each, fractions)


def in_memory_order(volume: Volume) -> str:
    """The order of index axes in which the volume's voxels follow each other; the fastest one to look at it in."""
    turned = volume.data.flags.f_contiguous and not volume.data.flags.c_contiguous
    return volume.geometry.axes[::-1] if turned else volume.geometry.axes


def region_of(volume: Volume, values: Sequence[int] | None = None) -> Region:
    """The voxels that hold any of `values`; those that are not 0 unless told. Axes are in memory order."""
    return gather_regions(planes_of(volume), {"": None if values is None else tuple(values)})[0][""]


def gather_regions(
    planes: Planes, values: Mapping[str, tuple[int, ...] | None]
) -> tuple[dict[str, Region], tuple[int, ...]]:
    """The regions of several structures in one pass, and the values other than 0 that were met, ascending.

    values: structure -> its values; None is whatever is not 0.
    """
    gathered = {name: Gathered(planes.geometry) for name in values}
    seen = np.zeros(2**16, bool)
    for start, slab in planes.each():
        if slab.dtype == bool:
            seen[1] |= slab.any()
        elif slab.dtype.itemsize > 2 or slab.dtype.kind != "u":
            slab = slab.astype(np.uint16)  # whole numbers up to 65535 in a wider type
        if slab.dtype != bool:
            seen[slab.ravel(order="K")] = True
        for name, own in values.items():
            gathered[name].add(start, slab != 0 if own is None else _holds(slab, own))
    met: list[int] = np.flatnonzero(seen[1:]).tolist()
    return {name: each.region() for name, each in gathered.items()}, tuple(value + 1 for value in met)


class _Piece(NamedTuple):
    """Some planes of a mask, cut to what they hold. data: bits of a mask, or values as they are."""

    box: Box
    data: Array


@dataclass(eq=False)
class Gathered:
    """What a pass over the planes has found so far of one structure."""

    geometry: Geometry
    pieces: list[_Piece] = field(default_factory=list)

    def add(self, start: int, found: Array) -> None:
        """Keeps the voxels of some planes (planes, J, K) that are not 0; those of a mask as bits."""
        if not found.any():
            return
        box = Box.around(found)
        assert box is not None
        part = np.ascontiguousarray(found[box.slices])
        self.pieces.append(_Piece(box.shift((start, 0, 0)), np.packbits(part) if part.dtype == bool else part))

    def blocks(self, dtype: type = bool) -> Iterator[tuple[Block, Array]]:
        """The blocks of what was kept, and the values in them; what was kept is given up on the way."""
        used = np.zeros(self.geometry.shape[0], bool)
        for piece in self.pieces:
            used[piece.box.lower[0] : piece.box.upper[0]] = True
        pieces = self.pieces[::-1]
        self.pieces = []
        for _, stop in joined_runs(used, self.geometry.shape[1] * self.geometry.shape[2]):
            own: list[_Piece] = []
            while pieces and pieces[-1].box.lower[0] < stop:
                own.append(pieces.pop())
            hull = own[0].box
            for piece in own:
                hull = hull.hull(piece.box)
            whole: Array = np.zeros(hull.shape, dtype)
            while own:
                piece = own.pop()
                whole[piece.box.seen_from(hull).slices] = _unpacked(piece)
            for block in split(whole if dtype is bool else whole != 0, hull.lower):
                yield block, whole[block.box.seen_from(hull).slices]

    def region(self) -> Region:
        """The region of a mask."""
        return Region(self.geometry, tuple(block for block, _ in self.blocks()))


def _unpacked(piece: _Piece) -> Array:
    if piece.data.dtype != np.uint8:
        return piece.data
    return np.unpackbits(piece.data, count=int(np.prod(piece.box.shape))).reshape(piece.box.shape).view(bool)


def _holds(part: Array, values: tuple[int, ...]) -> Array:
    found: Array = part == values[0]
    for value in values[1:]:
        found |= part == value
    return found
