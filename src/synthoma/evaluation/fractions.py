"""Predicted probabilities: the voxels above the lowest threshold with their values, and the highest of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthoma.errors import CaseError
from synthoma.evaluation.planes import Gathered, Planes
from synthoma.evaluation.regions import Block, Region, split
from synthoma.volume import Array, Box, Geometry, Volume


@dataclass(frozen=True, eq=False)
class Fractions:
    """Probabilities of one structure. region: where they are at least the lowest threshold; values: in its blocks,
    as float32; peak: the highest of all voxels that count."""

    region: Region
    values: tuple[Array, ...]
    peak: float

    def on(self, geometry: Geometry) -> Fractions:
        """The same on the same grid with its axes in the order of `geometry`."""
        axes = self.region.geometry.axes
        if axes == geometry.axes:
            return Fractions(Region(geometry, self.region.blocks), self.values, self.peak)
        turned = (
            Volume(values, self.region.geometry.crop(block.box)).reorient(geometry.axes).data
            for block, values in zip(self.region.blocks, self.values, strict=True)
        )
        return Fractions(self.region.reoriented(geometry.axes), tuple(map(np.ascontiguousarray, turned)), self.peak)

    def above(self, threshold: float) -> Region:
        """The voxels whose probability is at least `threshold`, which is not below the lowest."""
        blocks: list[Block] = []
        for block, values in zip(self.region.blocks, self.values, strict=True):
            blocks += split(block.mask & (values >= threshold), block.box.lower)
        return Region(self.region.geometry, tuple(blocks))

    def highest(self, box: Box, mask: Array) -> float:
        """The highest probability in a mask on a box."""
        found = np.zeros(box.shape, np.float32)
        for number in self.region.boxes.meeting(box):
            shared = box.overlap(self.region.blocks[number].box)
            if shared:
                found[shared[0]] = self.values[number][shared[1]]
        return float(found[mask].max(initial=0))


def gather_fractions(
    planes: Planes, lowest: float, allowed: Region | None = None, ignored: Region | None = None
) -> Fractions:
    """The probabilities that count: those in `allowed`, if given, and not in `ignored`, which lie on the same grid.

    Whole numbers above 1 (a mask of 0 and 255 stored as float) count as 1. `CaseError` for other values outside 0 to
    1, or NaN.
    """
    geometry = planes.geometry
    allowed, ignored = (side and side.reoriented(geometry.axes) for side in (allowed, ignored))
    gathered = Gathered(geometry)
    low, high, peak, whole = np.inf, -np.inf, 0.0, True
    for start, slab in planes.each():
        if not slab.size:
            continue
        low, high = np.minimum(low, slab.min()), np.maximum(high, slab.max())  # NaN stays
        whole = whole and bool(high <= 1 or (slab == np.rint(slab)).all())
        if allowed is not None or ignored is not None:
            slab = slab * _counts(start, slab.shape, allowed, ignored)
        peak = max(peak, float(slab.max()))
        if peak >= lowest:
            gathered.add(start, np.where(slab >= lowest, np.minimum(slab, 1), np.float32(0)))
    if 0 not in geometry.shape and not (low >= 0 and (high <= 1 or (whole and high < np.inf))):
        raise CaseError(
            "a probability map holds values outside 0 to 1",
            found=f"{low:g} to {high:g}",
            expected="0 to 1",
            fix="apply the sigmoid or softmax, or write masks",
        )
    blocks = list(gathered.blocks(np.float32))
    return Fractions(
        Region(geometry, tuple(block for block, _ in blocks)), tuple(values for _, values in blocks), min(peak, 1.0)
    )


def _counts(start: int, shape: tuple[int, ...], allowed: Region | None, ignored: Region | None) -> Array:
    """Which voxels of some planes count (bool)."""
    box = Box((start, 0, 0), (start + shape[0], shape[1], shape[2]))
    counts = np.ones(shape, bool) if allowed is None else allowed.read(box)
    if ignored is not None:
        counts &= ~ignored.read(box)
    return counts
