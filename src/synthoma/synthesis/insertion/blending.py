"""A tumor into a scan: partial volume at the border, the scan's own noise kept inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from synthoma.seeds import rng_for
from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.kernels.reference import widened
from synthoma.synthesis.scan import HU_RANGE, Noise
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Array, Box, Floats, Geometry, Triple, Volume

_NOISE_MM = 8.0  # what varies over less is noise and stays, what varies over more is tissue and is replaced
_BLOCK_MM = 2.4
_FEWEST = 4  # voxels of a block whose mean tells tissue from noise by itself


def blend(ct: Volume, tumor: Tumor, noise: Noise | None = None, before: Array | None = None) -> Array:
    """The voxels of the tumor's box after it has been put in, in the type of `ct`.

    Where alpha is 0 they equal `ct` exactly; HU stay within what a 12-bit scanner stores. noise: as in `noise_inside`.
    before: the voxels of the box, if they have been read already.
    """
    if before is None:
        before = ct.data[tumor.box.slices].copy(order="K")
    if not (tumor.mask.any() or tumor.alpha.any()):
        return before
    limits = min(HU_RANGE[0], float(before.min())), max(HU_RANGE[1], float(before.max()))
    inside = noise_inside(ct, tumor, noise, before)
    return np.asarray(kernels().blended(before, tumor.alpha, tumor.hu, inside, limits))


@dataclass(frozen=True, eq=False)
class Blocks:
    """How a scan is divided to tell its noise from its tissue, on a tumor's box and around it.

    outer: the voxels looked at. block: voxels of one. window: blocks that a mean is taken over. mixed: the axes along
    which a block takes an eighth from either side. at: where the box's voxels lie between blocks, by axis.
    """

    outer: Box
    block: Triple
    window: Triple
    mixed: tuple[int, ...]
    at: list[tuple[NDArray[np.intp], Floats]]

    @property
    def weight(self) -> int:
        """Of a block's sum: how many voxels it is the sum of, and what the neighbors add."""
        i, j, k = self.block
        return i * j * k * int(8 ** len(self.mixed))


def blocks_around(box: Box, plan: TumorPlan, geometry: Geometry) -> Blocks:
    """The blocks for a tumor on this box of a scan."""
    block, window = _block(geometry.spacing_mm)
    margin = [(n + 1) * b for n, b in zip(window, block, strict=True)]
    by_neighbors = plan.noise_by == "neighbors"
    outer = _whole_blocks(box.grow(margin), block, geometry.shape, in_step=by_neighbors)
    few = by_neighbors and math.prod(block) < _FEWEST
    counts = [-(-n // b) for n, b in zip(outer.shape, block, strict=True)]
    at = [
        _between_blocks((np.arange(start, stop) - first - (n - 1) / 2) / n, count)
        for start, stop, first, n, count in zip(box.lower, box.upper, outer.lower, block, counts, strict=True)
    ]
    return Blocks(outer, block, window, tuple(axis for axis in range(3) if few and block[axis] == 1), at)


def tolerance_hu(plan: TumorPlan) -> np.float32:
    """How far the mean of a block may lie from the organ's tissue and be fully trusted."""
    return np.float32(0.5 * plan.noise_hu + 12)


def noise_inside(ct: Volume, tumor: Tumor, noise: Noise | None = None, before: Array | None = None) -> Floats:
    """The scan's noise on the tumor's box: its own where the organ's tissue is, learned where it is not.

    Own noise is what the mean over 8 mm of plain tissue leaves; where the tumor replaces vessels, fat, gas or stool,
    noise with the power spectrum of the plan's reference site takes over. Means are taken over blocks of 2.4 mm. Where
    such a block is a single voxel, plain tissue is told by the neighbors too: the largest noise is no vessel.
    noise: what was learned at that site; learned from `ct` unless told. before: the voxels of the box, if they have
    been read already. Meaningful where there is tumor.
    """
    plan, box = tumor.plan, tumor.box
    blocks = blocks_around(box, plan, ct.geometry)
    mean = _means(ct.data[blocks.outer.slices], blocks)
    low, trust = kernels().means_of_plain(mean, plan.base_hu, tolerance_hu(plan), blocks.window)
    at, outer, block = blocks.at, blocks.outer, blocks.block
    hu, alpha = ct.data[box.slices] if before is None else before, tumor.alpha
    if not _meets(trust < 1, tumor, outer, block):
        return np.asarray(kernels().own_noise(hu, alpha, low, at))
    untrusted = np.asarray(trust == 0)
    if untrusted.any():
        # such a block lies on the border to fat, gas or a vessel: no voxel of it may borrow trust from the next
        trust[_around(untrusted)] = 0
    learned = noise_tile(noise or Noise.at(ct, plan.noise_from_mm), plan)
    return np.asarray(kernels().mixed_noise(hu, alpha, low, trust, at, learned))


def reach(geometry: Geometry) -> tuple[int, int, int]:
    """How many voxels around a tumor's box `noise_inside` looks at, along each axis."""
    i, j, k = ((n + 2) * b for b, n in zip(*_block(geometry.spacing_mm), strict=True))
    return i, j, k


def _means(hu: Array, blocks: Blocks) -> Floats:
    """The mean HU of each block."""
    sums = kernels().block_sums(hu, blocks.block)
    for axis in blocks.mixed:
        # whole numbers: the same on any machine
        padded = np.pad(sums, [(int(a == axis), int(a == axis)) for a in range(3)], mode="edge")
        before, after = (padded.take(range(start, start + sums.shape[axis]), axis) for start in (0, 2))
        sums = 6 * sums + before + after
    return np.asfortranarray(sums / np.float32(blocks.weight))


@lru_cache(maxsize=8)
def _block(spacing_mm: tuple[float, float, float]) -> tuple[Triple, Triple]:
    """The voxels of a block, and how many blocks a mean is taken over."""
    i, j, k = (max(1, round(_BLOCK_MM / spacing)) for spacing in spacing_mm)
    return (i, j, k), _window(np.multiply((i, j, k), spacing_mm), _NOISE_MM)


def _between_blocks(position: Array, count: int) -> tuple[NDArray[np.intp], Floats]:
    """The block before each position, in blocks, and the share of the next one; the outermost ones go on outside."""
    low = np.minimum(np.maximum(np.floor(position).astype(np.intp), 0), max(count - 2, 0))
    return low, np.minimum(np.maximum(position - low, 0), 1).astype(np.float32)


def noise_tile(noise: Noise, plan: TumorPlan) -> Floats:
    """Noise of the sample's power spectrum and SD, of the sample's size; it goes on like tiles."""
    size = noise.sample.shape
    phases = np.fft.rfftn(rng_for(plan.seed, "grain").standard_normal(size))
    tile = np.fft.irfftn(phases / np.maximum(np.abs(phases), 1e-12) * noise.spectrum, s=size, axes=(0, 1, 2))
    return np.asarray(tile, np.float32)


def _window(spacing_mm: Array, length_mm: float) -> tuple[int, int, int]:
    """An odd number of samples along each axis that spans about this length."""
    i, j, k = (2 * int(length_mm / (2 * spacing) + 0.5) + 1 for spacing in spacing_mm)
    return i, j, k


def _whole_blocks(box: Box, block: Triple, shape: tuple[int, ...], in_step: bool) -> Box:
    """The box inside the scan, moved or widened to whole blocks where the scan has room for them.

    in_step: blocks stay where they are without the scan's faces, those that a face cuts are left out: a scan that is
    cut near a tumor then gives the same blocks. Plans of the older kind move all of them to the face.
    """
    lower, upper = [], []
    for (start, stop), low, high, size, n in zip(zip(*box, strict=True), *box.clip(shape), block, shape, strict=True):
        first = start if start >= 0 else start % size
        length = min(-(-(stop - first) // size), (n - first) // size) * size
        if not in_step or length < size:
            length = min(-(-(high - low) // size) * size, n)
            first = min(low, n - length)
        lower.append(first)
        upper.append(first + length)
    return Box((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))


def _meets(blocks: NDArray[np.bool_], tumor: Tumor, outer: Box, block: Triple) -> bool:
    """Whether any of these blocks of the outer box is one that the tumor touches, or a neighbor of one."""
    one_of_each = tumor.alpha[:: block[0], :: block[1], :: block[2]]
    index = []
    for n, low, first, count, many in zip(
        block, tumor.box.lower, outer.lower, blocks.shape, one_of_each.shape, strict=True
    ):
        # every n-th voxel lies one block on; what lies beyond the outermost blocks belongs to these
        index.append(np.minimum(np.maximum(np.arange(many) + (low - first) // n, 0), count - 1))
    middle = tuple(n // 2 for n in one_of_each.shape)
    if one_of_each[middle]:  # most often the answer lies near the middle
        around = (slice(max(axis[n] - 1, 0), axis[n] + 2) for axis, n in zip(index, middle, strict=True))
        if blocks[tuple(around)].any():
            return True
    return bool((_around(blocks)[np.ix_(*index)] & (one_of_each != 0)).any())


def _around(blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The blocks and their neighbors."""
    return widened(blocks, (1, 1, 1))
