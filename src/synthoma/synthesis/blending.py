"""A tumor into a scan: partial volume at the border, the scan's own grain kept inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthoma.seeds import rng_for
from synthoma.synthesis.shape import Floats
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Array, Box, Geometry, Volume

HU_RANGE = (-1024, 3071)
_GRAIN_MM = 8.0  # what varies over less is grain and stays, what varies over more is tissue and is replaced
_PLAIN_MM = 2.5
_SAMPLE_MM = (20.0, 20.0, 20.0)


def blend(ct: Volume, tumor: Tumor) -> Array:
    """The voxels of the tumor's box after it has been put in, in the type of `ct`.

    Where alpha is 0 they equal `ct` exactly; HU stay within what a 12-bit scanner stores.
    """
    before = ct.data[tumor.box.slices]
    touched = tumor.alpha > 0
    if not touched.any():
        return before.copy()
    wanted = tumor.hu + grain(ct, tumor)
    old = before.astype(np.float32)
    new = np.clip(old + tumor.alpha * (wanted - old), *HU_RANGE)
    if before.dtype == np.int16:
        new = np.rint(new)
    return np.where(touched, new.astype(before.dtype), before)


def grain(ct: Volume, tumor: Tumor) -> Floats:
    """The scan's noise on the tumor's box: its own where the organ's tissue is, learned where it is not.

    Own grain is what is left of plain tissue after a running mean over 8 mm of plain tissue; where the tumor
    replaces vessels, fat, gas or stool, a patch with the same power spectrum as the reference site's takes over.
    """
    plan, geometry = tumor.plan, ct.geometry
    wide = _window(geometry, _GRAIN_MM)
    outer = tumor.box.grow([n // 2 + 2 for n in wide]).clip(ct.data.shape)
    inner = tuple(
        slice(low - start, high - start)
        for low, high, start in zip(tumor.box.lower, tumor.box.upper, outer.lower, strict=True)
    )
    hu = np.rint(ct.data[outer.slices]).astype(np.int32)
    sample = _reference(ct, plan)
    spread = float(sample.std(dtype=np.float64))
    near = _window(geometry, _PLAIN_MM)
    local = _box_sum(hu, near) / np.float32(near[0] * near[1] * near[2])
    off = np.abs(local - np.float32(plan.base_hu)) / np.float32(spread + 10)
    plain = off < np.float32(1.5)
    count = _box_sum(plain.astype(np.int32), wide)[inner]
    total = _box_sum(np.where(plain, hu, 0), wide)[inner]
    own = ct.data[outer.slices][inner] - total / np.maximum(count, 1).astype(np.float32)
    trust = np.clip(2 * (np.float32(2.0) - off[inner]), 0, 1).astype(np.float32)
    enough = count >= np.float32(0.25 * wide[0] * wide[1] * wide[2])
    trust = np.where(enough, trust, np.float32(0))
    if not (trust[tumor.alpha > 0] < 1).any():
        return own.astype(np.float32)
    learned = _tile(sample, plan, tumor.box)
    return np.asarray(trust * own + np.sqrt(1 - trust * trust) * learned, np.float32)


def _reference(ct: Volume, plan: TumorPlan) -> Array:
    """The noise of a block around the plan's reference site, float64, its slow part taken away."""
    geometry = ct.geometry
    size = [max(4, min(32, round(mm / s))) for mm, s in zip(_SAMPLE_MM, geometry.spacing_mm, strict=True)]
    center = np.round(geometry.to_ijk(plan.noise_from_mm)).astype(int)
    lower = [int(np.clip(c - n // 2, 0, max(0, m - n))) for c, n, m in zip(center, size, ct.data.shape, strict=True)]
    i, j, k = (slice(low, low + n) for low, n in zip(lower, size, strict=True))
    block = ct.data[i, j, k].astype(np.float64)
    for axis in range(3):
        # a plane through the block: organs brighten slowly from one side to the other
        at = np.arange(block.shape[axis]) - (block.shape[axis] - 1) / 2
        shape = [-1 if a == axis else 1 for a in range(3)]
        if (at**2).sum() > 0:
            slope = (block * at.reshape(shape)).sum() / ((at**2).sum() * block.size / block.shape[axis])
            block = block - slope * at.reshape(shape)
    return np.asarray(block - block.mean())


def _tile(sample: Array, plan: TumorPlan, box: Box) -> Floats:
    """Noise of the sample's power spectrum and SD on a box, repeated like tiles where the box is larger."""
    phases = np.fft.rfftn(rng_for(plan.seed, "grain").standard_normal(sample.shape))
    spectrum = np.abs(np.fft.rfftn(sample))
    noise = np.fft.irfftn(phases / np.maximum(np.abs(phases), 1e-12) * spectrum, s=sample.shape, axes=(0, 1, 2))
    index = [np.arange(n) % m for n, m in zip(box.shape, sample.shape, strict=True)]
    return np.asarray(noise.astype(np.float32)[np.ix_(*index)])


def _window(geometry: Geometry, length_mm: float) -> tuple[int, int, int]:
    """An odd number of voxels along each axis that spans about this length."""
    i, j, k = (2 * int(length_mm / (2 * spacing) + 0.5) + 1 for spacing in geometry.spacing_mm)
    return i, j, k


def _box_sum(values: NDArray[np.int32], window: tuple[int, int, int]) -> NDArray[np.int32]:
    """Sums over a window around each voxel, edges repeated; whole numbers, so exact on any machine."""
    for axis, size in enumerate(window):
        if size == 1:
            continue
        half = size // 2
        padded = np.pad(values, [(half + 1, half) if a == axis else (0, 0) for a in range(3)], mode="edge")
        sums = padded.cumsum(axis=axis, dtype=np.int32)
        upper = tuple(slice(size, None) if a == axis else slice(None) for a in range(3))
        lower = tuple(slice(None, -size) if a == axis else slice(None) for a in range(3))
        values = sums[upper] - sums[lower]
    return values
