"""How deep an organ's voxels lie, which HU are typical of it, and where the scan's noise can be learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma import anatomy
from synthoma.bounded import Bounded
from synthoma.errors import CaseError
from synthoma.synthesis import coarse
from synthoma.synthesis.tumor import Vector
from synthoma.volume import Box, Floats, Geometry, Triple, Volume, triple

DEEP_MM = 9.0
_SAMPLE_REACH_MM = 17.4  # from the middle of the block that noise is learned from to its corners
_MOST_LEVELS = 1 << 17  # of eighths of HU that are counted one by one
_EVEN = ("liver", "spleen")  # not the kidney: cortex, medulla and sinus would pass for noise
_SOFT_HU = (0.0, 150.0)


def signed_distance(inside: NDArray[np.bool_], grid: Geometry, outside_mm: float) -> Floats:
    """Depth in mm, positive inside; the scan's faces are no surface: the organ goes on behind them."""
    import edt

    # as uint8 it takes half the time that it takes as bool
    depth = edt.edt(inside.view(np.uint8), anisotropy=grid.spacing_mm, black_border=False)
    if inside.all():  # a part of a scan that shows no surface: deeper than the part is wide
        depth = np.full_like(depth, np.linalg.norm(np.multiply(grid.spacing_mm, grid.shape)))
    if outside_mm:
        depth = depth - edt.edt((~inside).view(np.uint8), anisotropy=grid.spacing_mm, black_border=False)
    # distances run from center to center; the surface of a ball on a lattice lies about a quarter of a voxel nearer
    nearer = np.float32(0.25 * min(grid.spacing_mm))
    return np.asarray(np.where(inside, np.maximum(depth - nearer, 0.1), depth + nearer), np.float32)


def typical(hu: Floats, depth: Floats, organ: str) -> tuple[float, float]:
    """Median HU and robust SD of the organ's tissue, away from its surface where there is enough of it."""
    deep = depth > min(4.0, 0.5 * float(depth.max()))
    if anatomy.SITES[organ].form == "wall":
        deep = (depth > 0) & (depth < 4.0) & (hu > anatomy.WALL_HU[0]) & (hu < anatomy.WALL_HU[1])
    values = hu[deep] if deep.any() else hu[depth > 0]
    levels, counts = _levels(values)
    middle = _median(levels, counts)
    apart_hu = np.abs(levels - middle)
    order = np.argsort(apart_hu, kind="stable")
    return round(float(middle), 2), float(1.4826 * _median(apart_hu[order], counts[order]))


def _levels(values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The different values, rising, and how often each occurs; some may occur never."""
    eighths = values * 8
    if not np.abs(eighths).max() < _MOST_LEVELS or not np.array_equal(whole := eighths.astype(np.int32), eighths):
        return np.unique(values, return_counts=True)
    # means of up to eight whole HU: counted, not sorted
    first, last = int(whole.min()), int(whole.max())
    return np.arange(first, last + 1).astype(np.float32) / np.float32(8), np.bincount(whole - first)


def _median(levels: Floats, counts: NDArray[np.intp]) -> np.float32:
    """Of values of which each of these rising levels occurs so often."""
    up_to = np.cumsum(counts)
    lower, upper = np.searchsorted(up_to, [(up_to[-1] - 1) // 2, up_to[-1] // 2], side="right")
    return np.float32((levels[lower] + levels[upper]) / 2)


def quietest(grid: Geometry, depth: Floats, hu: Floats, size: int | Sequence[int] = 5) -> Vector:
    """The deep place whose surroundings, of this size, vary least: where the scan's noise can be learned."""
    depth = _away_from_faces(depth, grid)
    deep = depth >= min(_SAMPLE_REACH_MM, 0.75 * float(depth.max()))
    # what is not deep is only looked at as the surroundings of what is
    around = [int(n) // 2 + 1 for n in np.broadcast_to(size, 3)]
    box = (Box.around(deep) or Box.whole(deep.shape)).grow(around).clip(deep.shape)
    hu, deep = hu[box.slices], deep[box.slices]
    mean, square = ndimage.uniform_filter(hu, size), ndimage.uniform_filter(hu * hu, size)
    variance = np.where(deep, square - mean * mean, np.inf)
    place = np.add(np.unravel_index(int(np.argmin(variance)), variance.shape), box.lower)
    x, y, z = grid.to_mm(place).tolist()
    return x, y, z


def _away_from_faces(depth: Floats, grid: Geometry) -> Floats:
    """The depth, or the distance from the nearest face of the grid where that is less.

    An organ goes on behind the scan's faces, but the block that noise is learned from would be moved inward.
    """
    for axis, (n, spacing) in enumerate(zip(depth.shape, grid.spacing_mm, strict=True)):
        from_face = np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) * spacing
        depth = np.minimum(depth, from_face.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)]))
    return depth


def depth_in(mask: Bounded, grid: Geometry, step: Triple) -> tuple[Box, Floats] | None:
    """Depth in mm below an organ's surface, positive inside, in a box of the coarse grid; None if it has no voxel."""
    looked = coarse.box(mask.box, step)
    box = Box.around(coarse.thin_mask(mask, looked, step))
    if box is None:
        return None
    # with a margin: an organ goes on behind the faces of a grid, and would seem deep at its own box's
    box = box.shift(looked.lower).grow(1).clip(grid.shape)
    return box, signed_distance(coarse.thin_mask(mask, box, step), grid.crop(box), 0.0)


def even_place(
    ct: Volume,
    masks: Mapping[str, Volume | Bounded],
    step: Triple,
    depth_of: Callable[[Bounded, Geometry, Triple], tuple[Box, Floats] | None] = depth_in,
) -> tuple[Vector, Box | None]:
    """Where organs too thin or uneven have their noise learned: liver or spleen, else the most even soft tissue.

    step: between the voxels that are looked at. The box of the scan that it depends on; None for all of it. depth_of:
    tells `depth_in`, which may be known from before.
    """
    grid = coarse.grid(ct.geometry, step)
    there = [name for name in _EVEN if name in masks]
    for name in there:
        found = depth_of(bounded(masks[name]), grid, step)
        if found is not None and _away_from_faces(found[1], grid.crop(found[0])).max() > DEEP_MM:
            box, depth = found
            looked = Box(*(triple(np.multiply(corner, step)) for corner in box)) if name == there[0] else None
            return quietest(grid.crop(box), depth, coarse.sample(ct.data, box, step)), looked
    box = Box.whole(grid.shape)
    hu = coarse.sample(ct.data, box, step)
    tissue = (hu > _SOFT_HU[0]) & (hu < _SOFT_HU[1])
    if not tissue.any():
        raise CaseError("the scan holds no soft tissue", found=f"HU {hu.min():.0f} ... {hu.max():.0f}")
    # no depth tells how far its border is, so all of the block that noise is learned from is looked at
    size = [2 * math.ceil(_SAMPLE_REACH_MM / math.sqrt(3) / spacing) + 1 for spacing in grid.spacing_mm]
    return quietest(grid, np.where(tissue, np.float32(0.8 * _SAMPLE_REACH_MM), np.float32(0)), hu, size), None


def bounded(mask: Volume | Bounded) -> Bounded:
    """A mask as the box around it."""
    return mask if isinstance(mask, Bounded) else Bounded.of(mask)
