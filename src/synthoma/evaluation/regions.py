"""Masks as the few boxes that hold their voxels, so that cost and memory follow the tumors and not the scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from synthoma.volume import Array, Box, Geometry, Volume, triple

# Voxels of a block that is not cut any further: many small blocks cost more than the empty space between them.
LEAST = 2**14


class Block(NamedTuple):
    """Voxels of a mask and the box they fill."""

    box: Box
    mask: Array


class Boxes:
    """Boxes of one grid, asked which of them meet another."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self.lower = np.array([box.lower for box in boxes], np.int64).reshape(-1, 3)
        self.upper = np.array([box.upper for box in boxes], np.int64).reshape(-1, 3)

    def meeting(self, box: Box) -> list[int]:
        """The numbers of those that share a voxel with `box`."""
        meet = ((self.lower < box.upper) & (self.upper > box.lower)).all(axis=1)
        found: list[int] = np.flatnonzero(meet).tolist()
        return found

    def hull(self) -> Box:
        """The smallest box that holds all of them; there is at least one."""
        return Box(triple(self.lower.min(axis=0)), triple(self.upper.max(axis=0)))


@dataclass(frozen=True, eq=False)
class Region:
    """A mask as blocks. Between any two of them lies a whole empty plane, so nothing connected spans two.

    geometry: the whole grid's. An empty mask has no blocks.
    """

    geometry: Geometry
    blocks: tuple[Block, ...]

    @cached_property
    def voxels(self) -> int:
        return sum(int(np.count_nonzero(block.mask)) for block in self.blocks)

    @property
    def volume_ml(self) -> float:
        return self.voxels * self.geometry.voxel_mm3 / 1000

    @cached_property
    def boxes(self) -> Boxes:
        """Those of the blocks."""
        return Boxes([block.box for block in self.blocks])

    def read(self, box: Box) -> Array:
        """The mask (bool) in a box, which may reach outside the grid."""
        found = np.zeros(box.shape, bool)
        for number in self.boxes.meeting(box):
            block = self.blocks[number]
            copy_overlap(block.mask, block.box, found, box)
        return found

    def within(self, allowed: Region) -> Region:
        """The voxels that the other region has too."""
        return self._cut([block.mask & allowed.read(block.box) for block in self.blocks])

    def without(self, other: Region) -> Region:
        """The voxels that the other region does not have."""
        return self._cut([block.mask & ~other.read(block.box) for block in self.blocks])

    def reoriented(self, axes: str) -> Region:
        """The same voxels with index axes ordered and pointing as named."""
        if axes == self.geometry.axes:
            return self
        blocks = []
        for block in self.blocks:
            turned = Volume(block.mask, self.geometry.crop(block.box)).reorient(axes)
            blocks.append(Block(self.geometry.turned_box(block.box, axes), np.ascontiguousarray(turned.data)))
        return Region(self.geometry.reoriented(axes), tuple(blocks))

    def resampled(self, geometry: Geometry) -> Region:
        """The region on another grid: where it, interpolated linearly, is at least one half."""
        if not self.blocks:
            return Region(geometry, ())
        hull = self.boxes.hull().grow(1).clip(self.geometry.shape)
        part = Volume(self.read(hull).astype(np.float32), self.geometry.crop(hull))
        ends = np.array([part.geometry.to_mm(np.array(corner) * hull.shape - 0.5) for corner in np.ndindex(2, 2, 2)])
        at = geometry.to_ijk(ends)
        box = Box(triple(np.floor(at.min(axis=0))), triple(np.ceil(at.max(axis=0)) + 1)).clip(geometry.shape)
        if 0 in box.shape:
            return Region(geometry, ())
        return Region(geometry, tuple(split(part.to(geometry.crop(box), fill=0).data >= 0.5, box.lower)))

    def _cut(self, masks: Sequence[Array]) -> Region:
        """The region with other masks in its blocks' boxes."""
        blocks: list[Block] = []
        for block, mask in zip(self.blocks, masks, strict=True):
            blocks += split(mask, block.box.lower)
        return Region(self.geometry, tuple(blocks))


def grown(region: Region, by_mm: float) -> Region:
    """The region and all voxels whose center lies within `by_mm` of one of its own."""
    import edt

    if not region.blocks:
        return region
    margin = [int(np.ceil(by_mm / spacing)) for spacing in region.geometry.spacing_mm]
    box = region.boxes.hull().grow(margin).clip(region.geometry.shape)
    distance = edt.edt(~region.read(box), anisotropy=region.geometry.spacing_mm)
    return Region(region.geometry, tuple(split(distance <= by_mm + 1e-5, box.lower)))


def copy_overlap(source: Array, source_box: Box, target: Array, target_box: Box) -> None:
    """Sets what two boxes share in `target` where `source` is set."""
    if shared := target_box.overlap(source_box):
        here, there = shared
        target[here] |= source[there]


def split(mask: Array, lower: Sequence[int]) -> Iterator[Block]:
    """The blocks of a mask (bool) whose first voxel has the index `lower`, cut at empty planes."""
    for axis in range(3):
        used: Array = np.any(mask, axis=tuple(other for other in range(3) if other != axis))
        runs = joined_runs(used, mask.size // max(1, len(used)))
        if not runs:
            return
        if len(runs) > 1 or runs[0] != (0, len(used)):
            for start, stop in runs:
                part = tuple(slice(start, stop) if a == axis else slice(None) for a in range(3))
                yield from split(mask[part], [low + start * (a == axis) for a, low in enumerate(lower)])
            return
    i, j, k = (int(low) for low in lower)
    upper = (i + mask.shape[0], j + mask.shape[1], k + mask.shape[2])
    yield Block(Box((i, j, k), upper), np.ascontiguousarray(mask))


def joined_runs(used: Array, plane_voxels: int) -> list[tuple[int, int]]:
    """Start and stop of the runs of used planes; neighbors that are small together count as one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], used.astype(np.int8), [0]])))
    joined: list[tuple[int, int]] = []
    for start, stop in edges.reshape(-1, 2).tolist():
        if joined and (stop - joined[-1][0]) * plane_voxels <= LEAST:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
