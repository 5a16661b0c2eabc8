"""The arithmetic of rendering in plain numpy: what the compiled kernels are tested against, byte for byte.

Arrays are those of synthesis: (I, J, K), the first axis fastest in memory unless told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma.synthesis.bodies.body import coverage
from synthoma.synthesis.kernels.reference_masks import (
    enclosed,
    largest_piece,
    near,
    packed,
    room_of,
    unpacked,
    widened,
    without_holes,
    without_holes_in_slices,
)
from synthoma.volume import Array, Floats, Triple

__all__ = [
    "enclosed", "largest_piece", "near", "packed", "room_of", "unpacked", "widened", "without_holes",
    "without_holes_in_slices",
]  # fmt: skip
Bools = NDArray[np.bool_]
_AT_ONCE = 8192  # directions looked up together: so many fit the processor's cache
Places = Sequence[
    tuple[NDArray[np.intp], Floats]
]  # per axis: the sample before each position, and the next one's share


def softened(alpha: Floats, allowed: Bools) -> Floats:
    """alpha times the mean of `allowed` over 3^3 voxels; 0 where it is not."""
    # transposed: these libraries want the last axis fastest
    return np.asarray((alpha.T * ndimage.uniform_filter(allowed.T.astype(np.float32), 3) * allowed.T).T)


def between(hu: Array, fat_hu: tuple[float, float], hard_hu: tuple[float, float]) -> tuple[Bools, Bools]:
    """Where the mean over 3^3 voxels lies between the limits of fat, and where outside of the other ones."""
    # noise makes no holes; sums of whole HU
    local = np.rint(hu).astype(np.int32)
    for axis in range(3):
        local = _sum_of_three(local, axis)
    fat = (local > 27 * fat_hu[0]) & (local < 27 * fat_hu[1])
    return fat, (local < 27 * hard_hu[0]) | (local > 27 * hard_hu[1])


def _sum_of_three(values: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
    """Each value and its two neighbors along an axis; the outermost are repeated."""
    source, result = np.moveaxis(values, axis, 0), values.copy(order="K")
    target = np.moveaxis(result, axis, 0)
    target[1:] += source[:-1]
    target[:-1] += source[1:]
    target[0] += source[0]
    target[-1] += source[-1]
    return result


def block_sums(hu: Array, block: Triple) -> NDArray[np.int32]:
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


def means_of_plain(mean: Array, base_hu: float, tolerance: np.float32, window: Triple) -> tuple[Floats, Floats]:
    """Of blocks with this mean: that of the plain ones around each, and how far the block is to be trusted, 0 to 1.

    Plain are those within twice the tolerance of the organ's tissue; a block is trusted as far as it lies close to the
    plain ones around it, and there are enough of them.
    """
    plain = np.abs(mean - np.float32(base_hu)) < 2 * tolerance
    # scalar sums in double precision: the same on any machine
    share = ndimage.uniform_filter(plain.astype(np.float64), window, mode="nearest")
    low = ndimage.uniform_filter(np.where(plain, mean, 0).astype(np.float64), window, mode="nearest")
    low /= np.maximum(share, 1e-6)
    trust = np.clip(2 - np.abs(mean - low) / tolerance, 0, 1).astype(np.float32)
    trust[~plain | (share < 0.25)] = 0
    return low.astype(np.float32), trust


def own_noise(hu: Array, alpha: Floats, low: Floats, at: Places) -> Floats:
    """HU minus the means, which are interpolated from blocks to voxels; 0 where alpha is."""
    return np.where(alpha > 0, (hu - interpolated(low, at)).astype(np.float32), np.float32(0))


def mixed_noise(hu: Array, alpha: Floats, low: Floats, trust: Floats, at: Places, tile: Floats) -> Floats:
    """Own noise as far as it is trusted, and beside it that of the tile, repeated; SDs add up to one.

    0 where alpha is.
    """
    own, weight = own_noise(hu, alpha, low, at), interpolated(trust, at)
    index = [np.arange(n) % m for n, m in zip(own.shape, tile.shape, strict=True)]
    learned = tile.T[np.ix_(*reversed(index))].T
    mixed = (weight * own + np.sqrt(1 - weight * weight) * learned).astype(np.float32)
    return np.where(alpha > 0, mixed, np.float32(0))


def interpolated(values: Floats, at: Places) -> Floats:
    """Linear interpolation from samples to positions."""
    values = values.T  # the last axis taken is the fastest in memory, as in the scan
    for axis, (low, share) in enumerate(reversed(at)):
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = share.reshape([-1 if a == axis else 1 for a in range(3)])
        start = values.take(low, axis)
        values = start + (values.take(high, axis) - start) * weight
    return values.T


def blended(before: Array, alpha: Floats, tissue: Floats, noise: Floats, limits: tuple[float, float]) -> Array:
    """HU between the scan's and tissue with noise, alpha the share of it, within limits, in the type of `before`.

    The scan's own where alpha is 0.
    """
    new = noise + tissue
    new -= before
    new *= alpha
    new += before
    np.clip(new, *limits, out=new)
    if before.dtype == np.int16:
        np.rint(new, out=new)
    return np.where(alpha > 0, new.astype(before.dtype), before)


def wave_sums(k_waves: Array, j_waves: Array, lines: Array, alpha: Floats) -> Floats:
    """Waves at each voxel, summed over waves, as float32 (I, J, K); 0 where alpha is.

    k_waves (K, 2 waves), j_waves (J, 2 waves): cosines, then sines of their phases along K and J. lines (2 waves, I):
    what those of both together are multiplied with: the cosines, then the sines along I.
    """
    (cos_k, sin_k), (cos_j, sin_j) = np.split(k_waves, 2, axis=1), np.split(j_waves, 2, axis=1)
    field = np.zeros((len(k_waves), len(j_waves), lines.shape[1]), np.float32)
    for cos, sin, row in zip(cos_k, sin_k, field, strict=True):
        plane = np.concatenate([cos * cos_j - sin * sin_j, -sin * cos_j - cos * sin_j], axis=1)
        total = np.zeros(row.shape)
        # float64, one wave after the other: sums in another order on another machine must not change a rounded HU
        for wave, line in enumerate(lines):
            total += plane[:, wave, None] * line
        row[:] = total
    return np.where(alpha > 0, field.T, np.float32(0))


class Shades(NamedTuple):
    """What the tissue of a tumor is made of besides its mean, all float32; 0 HU where it has none."""

    texture_hu: np.float32
    drift_hu: np.float32
    drift_mm: np.float32
    rim_hu: np.float32
    rim_mm: np.float32
    core_hu: np.float32
    core_share: np.float32


def shaded(alpha: Floats, texture: Floats, border: Floats, depth_mm: Floats, radius: Floats, shades: Shades) -> Floats:
    """HU above the mean: texture, drift from the border to the middle, rim and core.

    texture, border: fields of unit variance, of the texture and of the core's border; of no voxel without one. Where
    alpha is 0, all four are taken for 0.
    """
    tumor = alpha > 0
    depth_mm, radius = (np.where(tumor, part, np.float32(0)) for part in (depth_mm, radius))
    field = np.zeros_like(depth_mm)
    if shades.texture_hu:
        field += shades.texture_hu * np.where(tumor, texture, np.float32(0))
    if shades.drift_hu:
        # steep below the border, level at drift_mm: blood reaches a tumor from outside
        left = np.clip(1 - depth_mm / shades.drift_mm, 0, 1)
        field += shades.drift_hu * (1 - left * left)
    if shades.rim_hu:
        field += shades.rim_hu * smooth_step(1 - depth_mm / shades.rim_mm)
    if shades.core_hu:
        inner = shades.core_share - radius + np.float32(0.08) * np.where(tumor, border, np.float32(0))
        field += shades.core_hu * smooth_step(inner / np.float32(0.2) + np.float32(0.5))
    return field


def smooth_step(share: Array) -> Floats:
    """From 0 at 0 to 1 at 1, level at both ends and beyond."""
    clipped = np.clip(share, 0, 1).astype(np.float32)
    return clipped * clipped * (3 - 2 * clipped)


def moved_hu(hu: Array, came_from: Floats) -> Floats:
    """HU of voxels that come from these places (3, n) of a box, float32; whole HU if `hu` is int16.

    What varies slowly is interpolated; the noise (what a 3-voxel mean takes away) comes from the nearest voxel whole.
    """
    old = hu.astype(np.float32)
    slow = ndimage.uniform_filter(old, 3, mode="nearest")
    nearest = tuple(np.floor(axis + np.float32(0.5)).astype(np.intp) for axis in came_from)
    moved = ndimage.map_coordinates(slow, came_from, np.float32, order=1, mode="nearest")
    moved += old[nearest] - slow[nearest]
    return np.asarray(np.rint(moved) if hu.dtype == np.int16 else moved, np.float32)


class Inside(NamedTuple):
    """A tumor's label (alpha at least 0.5) in figures.

    voxels: of it. partly: of 0.1 to 0.9, both excluded. saturated: of the label, at limits of HU or beyond. mean, sd:
    HU of the core (alpha above 0.95), or of the label if the core has less than two voxels; nan if that has as few.
    """

    voxels: int
    partly: int
    saturated: int
    mean: float
    sd: float


def inside(hu: Array, alpha: Floats, limits: tuple[float, float]) -> Inside:
    """The figures of a tumor with these HU."""
    mask = alpha >= 0.5
    full = hu.T[alpha.T > 0.95]  # transposed: numpy picks along memory
    core = full if full.size > 1 else hu.T[mask.T]
    beyond = ((hu <= limits[0]) | (hu >= limits[1])) & mask
    partly = (alpha > 0.1) & (alpha < 0.9)
    label, border, saturated = (int(np.count_nonzero(voxels)) for voxels in (mask, partly, beyond))
    if hu.dtype == np.int16:
        values = core.astype(np.float64)
        mean, sd = mean_and_sd(len(values), int(values.sum()), int(values @ values))
    elif core.size > 1:
        mean, sd = float(core.mean(dtype=np.float64)), float(core.std(dtype=np.float64))
    else:
        mean, sd = math.nan, math.nan
    return Inside(label, border, saturated, mean, sd)


def mean_and_sd(count: int, total: int, squares: int) -> tuple[float, float]:
    """Of whole numbers, whose sum and sum of squares are exact; nan for less than two."""
    if count < 2:
        return math.nan, math.nan
    return total / count, math.sqrt(count * squares - total * total) / count


def border_area_mm2(alpha: Floats, spacing_mm: Sequence[float]) -> float:
    """The integral of alpha's slope over the voxels, for a voxel of 1 mm3."""
    slopes = np.gradient(np.pad(alpha, 1), *spacing_mm)
    return float(np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2).sum(dtype=np.float64))


def refined(table: Array, factor: int) -> Array:
    """A map over directions with `factor` times the steps along each side, by linear interpolation."""
    if factor == 1:
        return table
    side = (len(table) - 1) * factor + 1
    at = np.arange(side) / factor
    low = np.minimum(at.astype(int), len(table) - 2)
    weight = at - low
    rows = table[low] * (1 - weight[:, None]) + table[low + 1] * weight[:, None]
    return np.asarray(rows[:, low] * (1 - weight) + rows[:, low + 1] * weight)


def map_index(x: Floats, y: Floats, z: Floats, side: int) -> NDArray[np.intp]:
    """Flat index into an octahedral map (side, side) of each direction; float32."""
    found = np.empty(x.shape, np.intp)
    flat = [np.ascontiguousarray(axis).reshape(-1) for axis in (x, y, z)]
    for start in range(0, x.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found.reshape(-1)[part] = _map_index(flat[0][part], flat[1][part], flat[2][part], side)
    return found


def _map_index(x: Floats, y: Floats, z: Floats, side: int) -> NDArray[np.intp]:
    size = np.abs(x) + np.abs(y) + np.abs(z) + np.float32(1e-12)
    a, b = x / size, y / size
    below = z < 0
    folded = np.copysign(1 - np.abs(b), a)
    b = np.where(below, np.copysign(1 - np.abs(a), b), b)
    a = np.where(below, folded, a)
    half = np.float32((side - 1) / 2)
    row = (a * half + np.float32(half + 0.5)).astype(np.intp)
    column = (b * half + np.float32(half + 0.5)).astype(np.intp)
    return row * side + column


class Frame(NamedTuple):
    """A box of voxels in a tumor's unit coordinates, all float32.

    i, j, k: (3, voxels along the axis); a voxel lies at the sum of its three columns, k's and j's taken first. moves
    (samples, 3): of each sample from its voxel's center. reach (side, side): the surface's radius over directions.
    """

    i: Floats
    j: Floats
    k: Floats
    moves: Floats
    reach: Floats


def shell_ratios(
    frame: Frame, outermost: np.float32, innermost: np.float32, close: tuple[np.float32, np.float32]
) -> tuple[Floats, int, int, Floats]:
    """Of each voxel its radius over the surface's, the mean of its samples; inf outside the shell, -inf inside of it.

    outermost, innermost: the shell's squared radii. Also the number of voxels inside of it, the number of its own that
    are not above the lower limit of `close`, and the ratios between its limits.
    """
    x, y, z = _centers(frame)
    squared = x * x + y * y + z * z
    inside = squared < innermost
    shell = np.flatnonzero((squared < outermost) & ~inside)
    distances, edges = _samples(frame, [axis.ravel()[shell] for axis in (x, y, z)])[3:]
    found = np.zeros(len(shell), np.float32)
    for row in distances / edges:  # one after the other
        found += row
    found /= np.float32(len(frame.moves))
    ratio = np.where(inside, np.float32(-np.inf), np.float32(np.inf))
    ratio.ravel()[shell] = found
    low, high = close
    return ratio.T, int(inside.sum()), int((found <= low).sum()), found[(found > low) & (found < high)]


def shares_of(frame: Frame, ratio: Floats, scale: np.float32, widest: np.float32, blur: Floats) -> Floats:
    """alpha: 1 inside, 0 outside, and within `widest` of the surface, widened by `scale`, the mean over samples.

    blur (3, 3): covariance in the tumor's unit frame.
    """
    scaled = ratio.T / scale
    alpha = (scaled < 1 - widest).astype(np.float32)
    border = np.flatnonzero(np.abs(scaled - 1) <= widest)
    x, y, z, distances, edges = _samples(frame, [axis.ravel()[border] for axis in _centers(frame)])
    share = np.zeros(len(border), np.float32)
    for row in coverage(distances * (distances - scale * edges) / _quadratic(blur, x, y, z)):
        share += row
    alpha.ravel()[border] = share / np.float32(len(frame.moves))
    return alpha.T


def depths_of(frame: Frame, ratio: Floats, alpha: Floats, scale: np.float32, stretch: Floats) -> tuple[Floats, Floats]:
    """radius: 0 at the center, 1 at the surface. depth_mm: below the surface. 0 where alpha is.

    stretch (3, 3): from unit coordinates to 1 / mm2.
    """
    tumor = np.flatnonzero(alpha.T > 0)
    radius, depth = np.zeros(ratio.shape[::-1], np.float32), np.zeros(ratio.shape[::-1], np.float32)
    found = ratio.T.ravel()[tumor] / scale
    x, y, z = (axis.ravel()[tumor] for axis in _centers(frame))
    distance = _length(x, y, z)
    radius.ravel()[tumor] = found
    steepness = _quadratic(stretch, x, y, z)
    depth.ravel()[tumor] = distance * distance * (1 / np.maximum(found, np.float32(1e-3)) - 1) / steepness
    return radius.T, depth.T


def _centers(frame: Frame) -> list[Floats]:
    """Unit coordinates of every voxel: three arrays (K, J, I)."""
    return [(k[:, None] + j)[:, :, None] + i for i, j, k in zip(frame.i, frame.j, frame.k, strict=True)]


def _samples(frame: Frame, centers: list[Floats]) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Of voxels with these centers (n), each (samples, n): coordinates, distance from the center, the surface there."""
    x, y, z = (axis + move[:, None] for axis, move in zip(centers, frame.moves.T, strict=True))
    return x, y, z, _length(x, y, z), frame.reach.ravel()[map_index(x, y, z, len(frame.reach))]


def _length(x: Floats, y: Floats, z: Floats) -> Floats:
    """|(x, y, z)|, never 0."""
    return np.asarray(np.sqrt(x * x + y * y + z * z + np.float32(1e-12)))


def _quadratic(matrix: Array, x: Floats, y: Floats, z: Floats) -> Floats:
    """sqrt(v^T matrix v), never 0."""
    m = matrix.astype(np.float32)
    total = m[0, 0] * x * x + m[1, 1] * y * y + m[2, 2] * z * z
    total += 2 * (m[0, 1] * x * y + m[0, 2] * x * z + m[1, 2] * y * z)
    return np.asarray(np.sqrt(np.maximum(total, np.float32(1e-12))))
