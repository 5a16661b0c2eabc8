"""A tumor into a scan: partial volume at the border, the scan's own noise kept inside."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma.seeds import rng_for
from synthoma.synthesis.scan import HU_RANGE, Noise
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Array, Box, Floats, Geometry, Triple, Volume

_NOISE_MM = 8.0  # what varies over less is noise and stays, what varies over more is tissue and is replaced
_BLOCK_MM = 2.4


def blend(ct: Volume, tumor: Tumor, noise: Noise | None = None) -> Array:
    """The voxels of the tumor's box after it has been put in, in the type of `ct`.

    Where alpha is 0 they equal `ct` exactly; HU stay within what a 12-bit scanner stores. noise: as in `noise_inside`.
    """
    before = ct.data[tumor.box.slices].copy(order="K")
    if not tumor.alpha.any():
        return before
    new = noise_inside(ct, tumor, noise)
    new += tumor.hu
    new -= before
    new *= tumor.alpha
    new += before
    # float32 holds every int16 exactly: where alpha is 0, new is before, in both types
    np.clip(new, min(HU_RANGE[0], float(before.min())), max(HU_RANGE[1], float(before.max())), out=new)
    if before.dtype == np.int16:
        np.rint(new, out=new)
    return new.astype(before.dtype)


def noise_inside(ct: Volume, tumor: Tumor, noise: Noise | None = None) -> Floats:
    """The scan's noise on the tumor's box: its own where the organ's tissue is, learned where it is not.

    Own noise is what the mean over 8 mm of plain tissue leaves; where the tumor replaces vessels, fat, gas or stool,
    noise with the power spectrum of the plan's reference site takes over. Means are taken over blocks of 2.4 mm.
    noise: what was learned at that site; learned from `ct` unless told.
    """
    plan, geometry, box = tumor.plan, ct.geometry, tumor.box
    block, window = _block(geometry)
    outer = _whole_blocks(box.grow([n * b for n, b in zip(window, block, strict=True)]), block, ct.data.shape)
    mean = _block_sums(ct.data[outer.slices], block) / np.float32(math.prod(block))
    tolerance = np.float32(0.5 * plan.noise_hu + 12)
    plain = np.abs(mean - np.float32(plan.base_hu)) < 2 * tolerance
    # scalar sums in double precision: the same on any machine
    share = ndimage.uniform_filter(plain.astype(np.float64), window, mode="nearest")
    low = ndimage.uniform_filter(np.where(plain, mean, 0).astype(np.float64), window, mode="nearest")
    low /= np.maximum(share, 1e-6)
    trust = np.clip(2 - np.abs(mean - low) / tolerance, 0, 1).astype(np.float32)
    trust[~plain | (share < 0.25)] = 0

    at = [
        (np.arange(start, stop) - first - (n - 1) / 2) / n
        for start, stop, first, n in zip(box.lower, box.upper, outer.lower, block, strict=True)
    ]
    own = ct.data[box.slices] - _interpolate(low.astype(np.float32), at)
    if (trust[_touched(tumor, outer, block, trust.shape)] == 1).all():
        return own
    # a block without trust lies on the border to fat, gas or a vessel: no voxel of it may borrow trust from the next
    trust[ndimage.minimum_filter(trust, 3, mode="nearest") == 0] = 0
    weight = _interpolate(trust, at)
    if (weight[tumor.alpha > 0] == 1).all():
        return own
    learned = _tile(noise or Noise.at(ct, plan.noise_from_mm), plan, box)
    return np.asarray(weight * own + np.sqrt(1 - weight * weight) * learned, np.float32)


def reach(geometry: Geometry) -> tuple[int, int, int]:
    """How many voxels around a tumor's box `noise_inside` looks at, along each axis."""
    i, j, k = ((n + 1) * b for b, n in zip(*_block(geometry), strict=True))
    return i, j, k


def _block(geometry: Geometry) -> tuple[Triple, Triple]:
    """The voxels of a block, and how many blocks a mean is taken over."""
    i, j, k = (max(1, round(_BLOCK_MM / spacing)) for spacing in geometry.spacing_mm)
    return (i, j, k), _window(np.multiply((i, j, k), geometry.spacing_mm), _NOISE_MM)


def _interpolate(values: Floats, at: list[Array]) -> Floats:
    """Linear interpolation at positions along each axis, in samples; the outermost samples go on outside."""
    values = values.T  # the last axis taken is the fastest in memory, as in the scan
    for axis, position in enumerate(reversed(at)):
        low = np.clip(np.floor(position).astype(np.intp), 0, max(values.shape[axis] - 2, 0))
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = np.clip(position - low, 0, 1).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        start = values.take(low, axis)
        values = start + (values.take(high, axis) - start) * weight
    return values.T


def _tile(noise: Noise, plan: TumorPlan, box: Box) -> Floats:
    """Noise of the sample's power spectrum and SD on a box, repeated like tiles where the box is larger."""
    size = noise.sample.shape
    phases = np.fft.rfftn(rng_for(plan.seed, "grain").standard_normal(size))
    tile = np.fft.irfftn(phases / np.maximum(np.abs(phases), 1e-12) * noise.spectrum, s=size, axes=(0, 1, 2))
    index = [np.arange(n) % m for n, m in zip(box.shape, size, strict=True)]
    return np.asarray(tile.astype(np.float32).T[np.ix_(*reversed(index))].T)


def _window(spacing_mm: Array, length_mm: float) -> tuple[int, int, int]:
    """An odd number of samples along each axis that spans about this length."""
    i, j, k = (2 * int(length_mm / (2 * spacing) + 0.5) + 1 for spacing in spacing_mm)
    return i, j, k


def _block_sums(hu: Array, block: tuple[int, int, int]) -> NDArray[np.int32]:
    """Sums over whole blocks of voxels; a rest at the upper end is filled up with the last voxels."""
    rest = [-n % b for n, b in zip(hu.shape, block, strict=True)]
    whole = hu if hu.dtype == np.int16 else np.rint(hu).astype(np.int32)
    if any(rest):
        whole = np.pad(whole, [(0, r) for r in rest], mode="edge")
    total = np.zeros([n // b for n, b in zip(whole.shape, block, strict=True)], np.int32, order="F")
    for i in range(block[0]):
        for j in range(block[1]):
            for k in range(block[2]):
                total += whole[i :: block[0], j :: block[1], k :: block[2]]
    return total


def _whole_blocks(box: Box, block: tuple[int, int, int], shape: tuple[int, ...]) -> Box:
    """The box inside the scan, moved or widened to whole blocks where the scan has room for them."""
    lower, upper = [], []
    for low, high, size, n in zip(*box.clip(shape), block, shape, strict=True):
        length = min(-(-(high - low) // size) * size, n)
        lower.append(min(low, n - length))
        upper.append(lower[-1] + length)
    return Box((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))


def _touched(tumor: Tumor, outer: Box, block: tuple[int, int, int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The blocks of the outer box that the tumor touches, and their neighbors."""
    touched = np.zeros(shape, bool)
    places = np.nonzero(tumor.alpha[:: block[0], :: block[1], :: block[2]])
    index = [
        (axis * n + low - first) // n
        for axis, n, low, first in zip(places, block, tumor.box.lower, outer.lower, strict=True)
    ]
    touched[tuple(index)] = True
    return np.asarray(ndimage.maximum_filter(touched, 3))
