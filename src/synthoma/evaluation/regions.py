"""Masks as the few boxes that hold their voxels, so that cost and memory follow the tumors and not the scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from synthoma.errors import CaseError
from synthoma.volume import Array, Box, Geometry, Volume


class Block(NamedTuple):
    """Voxels of a mask and the box they fill."""

    box: Box
    mask: Array


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

    def read(self, box: Box) -> Array:
        """The mask (bool) in a box, which may reach outside the grid."""
        found = np.zeros(box.shape, bool)
        for block in self.blocks:
            copy_overlap(block.mask, block.box, found, box)
        return found

    def above(self, probability: Volume, threshold: float) -> Region:
        """The voxels of the region whose probability, on its grid, is at least `threshold`."""
        blocks: list[Block] = []
        for block in self.blocks:
            blocks += split(block.mask & (probability.data[block.box.slices] >= threshold), block.box.lower)
        return Region(self.geometry, tuple(blocks))

    def within(self, allowed: Region) -> Region:
        """The voxels that the other region has too."""
        blocks: list[Block] = []
        for block in self.blocks:
            blocks += split(block.mask & allowed.read(block.box), block.box.lower)
        return Region(self.geometry, tuple(blocks))


def in_memory_order(volume: Volume) -> str:
    """The order of index axes in which the volume's voxels follow each other; the fastest one to look at it in."""
    turned = volume.data.flags.f_contiguous and not volume.data.flags.c_contiguous
    return volume.geometry.axes[::-1] if turned else volume.geometry.axes


def region_of(volume: Volume, values: Sequence[int] | None = None) -> Region:
    """The voxels that hold any of `values`; those that are not 0 unless told."""
    if values is None:
        return _region(volume, lambda part: part != 0)
    return _region(volume, partial(_holds, values=tuple(values)))


def region_above(probability: Volume, threshold: float) -> Region:
    """The voxels whose probability is at least `threshold`. `CaseError` for values outside 0 to 1, or NaN."""
    data = probability.data
    low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise CaseError(
            "a probability map holds values outside 0 to 1",
            found=f"{low:g} to {high:g}",
            expected="0 to 1",
            fix="apply the sigmoid or softmax, or write masks",
        )
    return _region(probability, lambda part: part >= threshold)


def grown(region: Region, by_mm: float) -> Region:
    """The region and all voxels whose center lies within `by_mm` of one of its own."""
    import edt

    if not region.blocks:
        return region
    lower = np.min([block.box.lower for block in region.blocks], axis=0)
    upper = np.max([block.box.upper for block in region.blocks], axis=0)
    margin = [int(np.ceil(by_mm / spacing)) for spacing in region.geometry.spacing_mm]
    box = Box(tuple(lower), tuple(upper)).grow(margin).clip(region.geometry.shape)
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
        runs = _runs(used)
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


def _region(volume: Volume, test: Callable[[Array], Array]) -> Region:
    data = volume.data
    rows, columns = (np.zeros((len(data), size), bool) for size in data.shape[1:])
    for index, plane in enumerate(data):  # a plane at a time: a whole mask would be as large as the label map
        hit = test(plane)
        if hit.any():
            rows[index], columns[index] = hit.any(axis=1), hit.any(axis=0)
    blocks: list[Block] = []
    for start, stop in _runs(np.asarray(rows.any(axis=1))):
        used = [np.flatnonzero(side[start:stop].any(axis=0)) for side in (rows, columns)]
        (j, j_end), (k, k_end) = ((int(each[0]), int(each[-1]) + 1) for each in used)
        blocks += split(test(data[start:stop, j:j_end, k:k_end]), (start, j, k))
    return Region(volume.geometry, tuple(blocks))


def _holds(part: Array, values: tuple[int, ...]) -> Array:
    found: Array = part == values[0]
    for value in values[1:]:
        found |= part == value
    return found


def _runs(used: Array) -> list[tuple[int, int]]:
    """Start and stop of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], used.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
