"""Compiled kernels that sum over neighbors and blocks: means of HU, of masks, and of what is plain tissue."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.kernels.compiling import dense, filled, kernel
from synthoma.volume import Array, Floats, Triple

Bools = NDArray[np.bool_]


def softened(alpha: Floats, allowed: Bools) -> Floats:
    """As `reference.softened`."""
    shares = dense(alpha, np.float32)
    found = np.zeros_like(shares)
    _soften(shares, dense(allowed, np.bool_).view(np.uint8), found)
    return found.T


def between(hu: Array, fat_hu: tuple[float, float], hard_hu: tuple[float, float]) -> tuple[Bools, Bools]:
    """As `reference.between`."""
    limits = np.array([*fat_hu, *hard_hu]) * 27
    fat, hard = _between(_whole(hu), limits)
    return fat.T, hard.T


def block_sums(hu: Array, block: Triple) -> NDArray[np.int32]:
    """As `reference.block_sums`."""
    return np.asarray(_block_sums(_whole(hu), *block).T)


def means_of_plain(mean: Array, base_hu: float, tolerance: np.float32, window: Triple) -> tuple[Floats, Floats]:
    """As `reference.means_of_plain`."""
    blocks = dense(mean, np.float64)
    plain, low = _plain(blocks, np.float32(base_hu), tolerance)
    share = plain.astype(np.float64)
    for axis, size in zip((2, 1, 0), window, strict=True):  # along I first, as scipy
        if size > 1:
            share, low = running_mean(share, axis, size, False), running_mean(low, axis, size, False)
    low, trust = _trust(blocks, plain, share, low, tolerance)
    return low.T, trust.T


def _whole(hu: Array) -> Array:
    """HU as whole numbers, (K, J, I)."""
    return dense(hu, np.int16) if hu.dtype == np.int16 else dense(np.rint(hu).astype(np.int32), np.int32)


@kernel
def _soften(alpha: Any, allowed: Any, found: Any) -> None:
    """Means of three along K, J and I, each rounded: the sums before have few digits and are exact in any order."""
    layers, rows, length = alpha.shape
    along_k, line = np.zeros((rows, length), np.float32), np.zeros(length + 2, np.float32)
    for k in range(layers):
        under, over = max(k - 1, 0), min(k + 1, layers - 1)
        for j in range(rows):
            one, own, other = allowed[under, j], allowed[k, j], allowed[over, j]
            target = along_k[j]
            for i in range(length):
                target[i] = np.float64(np.int32(one[i]) + np.int32(own[i]) + np.int32(other[i])) / 3.0
        for j in range(rows):
            shares, free, target = alpha[k, j], allowed[k, j], found[k, j]
            first, last = filled(shares)
            if first == last:
                continue
            left, middle, right = along_k[max(j - 1, 0)], along_k[j], along_k[min(j + 1, rows - 1)]
            for i in range(length):
                line[i + 1] = (np.float64(left[i]) + np.float64(middle[i]) + np.float64(right[i])) / 3.0
            line[0], line[length + 1] = line[1], line[length]
            for i in range(length):
                mean = np.float32((np.float64(line[i]) + np.float64(line[i + 1]) + np.float64(line[i + 2])) / 3.0)
                target[i] = shares[i] * mean * np.float32(free[i])


@kernel
def running_mean(values: Any, axis: int, size: int, mirrored: bool) -> Any:
    """scipy's uniform_filter1d to the letter: a running sum in double precision, stored in the type of the values.

    Beyond the ends values are repeated, or mirrored with the outermost one twice.
    """
    result = np.empty_like(values)
    count, before = values.shape[axis], size // 2
    at = np.empty(count + size - 1, np.int64)
    for n in range(len(at)):
        place = n - before
        if mirrored:
            while place < 0 or place >= count:
                place = -place - 1 if place < 0 else 2 * count - 1 - place
        at[n] = min(max(place, 0), count - 1)
    if axis == 2:
        for k in range(values.shape[0]):
            for j in range(values.shape[1]):
                line, target = values[k, j], result[k, j]
                total = 0.0
                for n in range(size):
                    total += line[at[n]]
                target[0] = total / size
                for n in range(1, count):
                    total += np.float64(line[at[n + size - 1]]) - np.float64(line[at[n - 1]])
                    target[n] = total / size
        return result
    totals = np.empty(values.shape[2])
    for other in range(values.shape[1 - axis]):
        totals[:] = 0
        for n in range(size):
            row = values[at[n], other] if axis == 0 else values[other, at[n]]
            for i in range(len(totals)):
                totals[i] += row[i]
        for n in range(count):
            if n:
                new = values[at[n + size - 1], other] if axis == 0 else values[other, at[n + size - 1]]
                old = values[at[n - 1], other] if axis == 0 else values[other, at[n - 1]]
                for i in range(len(totals)):
                    totals[i] += np.float64(new[i]) - np.float64(old[i])
            target = result[n, other] if axis == 0 else result[other, n]
            for i in range(len(totals)):
                target[i] = totals[i] / size
    return result


@kernel
def _between(hu: Any, limits: Any) -> Any:
    layers, rows, length = hu.shape
    fat, hard = np.empty(hu.shape, np.bool_), np.empty(hu.shape, np.bool_)
    sums = np.empty((rows, length + 2), np.int32)
    total = np.empty(length + 2, np.int32)
    # first and last whole numbers on the right side of each limit
    low, high = np.int32(np.floor(limits[0])) + 1, np.int32(np.ceil(limits[1])) - 1
    gas, bone = np.int32(np.ceil(limits[2])), np.int32(np.floor(limits[3]))
    for k in range(layers):
        under, over = max(k - 1, 0), min(k + 1, layers - 1)
        for j in range(rows):
            below, here, above = hu[under, j], hu[k, j], hu[over, j]
            for i in range(length):
                sums[j, i + 1] = np.int32(below[i]) + np.int32(here[i]) + np.int32(above[i])
        for j in range(rows):
            one, other = sums[max(j - 1, 0)], sums[min(j + 1, rows - 1)]
            own = sums[j]
            for i in range(1, length + 1):
                total[i] = one[i] + own[i] + other[i]
            total[0], total[length + 1] = total[1], total[length]
            fat_row, hard_row = fat[k, j], hard[k, j]
            for i in range(length):
                local = total[i] + total[i + 1] + total[i + 2]
                fat_row[i] = (local >= low) & (local <= high)
                hard_row[i] = (local < gas) | (local > bone)
    return fat, hard


@kernel
def _block_sums(hu: Any, bi: int, bj: int, bk: int) -> Any:
    layers, rows, length = hu.shape
    total = np.zeros((-(-layers // bk), -(-rows // bj), -(-length // bi)), np.int32)
    line = np.empty(length, np.int32)
    for k in range(total.shape[0]):
        for j in range(total.shape[1]):
            line[:] = 0
            for dk in range(bk):
                for dj in range(bj):
                    source = hu[min(k * bk + dk, layers - 1), min(j * bj + dj, rows - 1)]
                    for i in range(length):
                        line[i] += source[i]
            target = total[k, j]
            for i in range(length // bi):
                for di in range(bi):
                    target[i] += line[i * bi + di]
            for n in range(length // bi * bi, len(target) * bi):
                target[len(target) - 1] += line[min(n, length - 1)]
    return total


@kernel
def _plain(mean: Any, base: Any, tolerance: Any) -> Any:
    plain, low = np.empty(mean.shape, np.bool_), np.empty(mean.shape)
    flat, to, values = mean.ravel(), plain.ravel(), low.ravel()
    for n in range(len(flat)):
        is_plain = abs(flat[n] - base) < np.float32(2) * tolerance
        to[n] = is_plain
        values[n] = flat[n] if is_plain else 0.0
    return plain, low


@kernel
def _trust(mean: Any, plain: Any, share: Any, low: Any, tolerance: Any) -> Any:
    means, trust = np.empty(mean.shape, np.float32), np.zeros(mean.shape, np.float32)
    flat, is_plain, shares, lows = mean.ravel(), plain.ravel(), share.ravel(), low.ravel()
    to, trusts = means.ravel(), trust.ravel()
    for n in range(len(flat)):
        here = lows[n] / max(shares[n], 1e-6)
        to[n] = here
        if is_plain[n] and shares[n] >= 0.25:
            trusts[n] = min(max(2 - abs(flat[n] - here) / tolerance, 0.0), 1.0)
    return means, trust
