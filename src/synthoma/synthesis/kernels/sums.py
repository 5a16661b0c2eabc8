"""Compiled kernels that sum over neighbors and blocks: means of HU, of masks, and of what is plain tissue."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.kernels.compiling import dense, kernel, part, shrunk_spans, spans
from synthoma.volume import Array, Floats, Triple

Bools = NDArray[np.bool_]
_START, _NEXT, _LAST = np.uint64(0), np.uint64(1), np.uint64(2)
_ONE, _TWO = np.float32(1), np.float32(2)


def softened(alpha: Floats, allowed: Bools) -> Floats:
    """As `reference.softened`."""
    shares, free = dense(alpha, np.float32), dense(allowed, np.bool_).view(np.uint8)
    found = np.zeros_like(shares)
    plane, line = np.empty(math.prod(shares.shape[1:]), np.float32), np.empty(shares.shape[2] + 2, np.float32)
    flat, span, soft = (array.reshape(-1) for array in (shares, free, found)), spans(alpha), found.T
    _soften(*flat, span, *shares.shape, plane, line)
    shrunk_spans(soft, span.copy())
    return soft


def between(hu: Array, fat_hu: tuple[float, float], hard_hu: tuple[float, float]) -> tuple[Bools, Bools]:
    """As `reference.between`."""
    whole = _whole(hu)
    fat, hard = np.empty(whole.shape, np.bool_), np.empty(whole.shape, np.bool_)
    low, high, gas, bone = (27 * limit for limit in (*fat_hu, *hard_hu))
    # first and last whole numbers on the right side of each limit
    limits = math.floor(low) + 1, math.ceil(high) - 1, math.ceil(gas), math.floor(bone)
    plane, line = np.empty(math.prod(whole.shape[1:]), np.int32), np.empty(whole.shape[2] + 2, np.int32)
    flat = (array.reshape(-1) for array in (whole, fat, hard))
    _between(*flat, *whole.shape, tuple(map(np.int32, limits)), plane, line)
    return fat.T, hard.T


def block_sums(hu: Array, block: Triple) -> NDArray[np.int32]:
    """As `reference.block_sums`."""
    # rows that run backwards in memory are read forwards, where that gives the same blocks the other way round
    turns = tuple(
        slice(None, None, -1 if step < 0 and n % b == 0 else 1)
        for step, n, b in zip(hu.strides, hu.shape, block, strict=True)
    )
    whole = _whole(hu[turns])
    total = np.zeros([-(-n // b) for n, b in zip(whole.shape, block[::-1], strict=True)], np.int32)
    _block_sums(whole, *block, np.empty(whole.shape[2], np.int32), total)
    return np.asfortranarray(total.T[turns])


def means_of_plain(mean: Array, base_hu: float, tolerance: np.float32, window: Triple) -> tuple[Floats, Floats]:
    """As `reference.means_of_plain`."""
    blocks = dense(mean, np.float64)
    both, other = np.empty((2, 2 * blocks.size))
    low, trust = np.empty(blocks.shape, np.float32), np.empty(blocks.shape, np.float32)
    totals = np.empty(2 * math.prod(blocks.shape[1:]))
    flat = (array.reshape(-1) for array in (blocks, low, trust))
    _means_of_plain(*flat, blocks.shape, window[::-1], np.float32(base_hu), tolerance, both, other, totals)
    return low.T, trust.T


def _whole(hu: Array) -> Array:
    """HU as whole numbers, (K, J, I)."""
    return dense(hu, np.int16) if hu.dtype == np.int16 else dense(np.rint(hu).astype(np.int32), np.int32)


@kernel
def _soften(
    alpha: Any, allowed: Any, found: Any, span: Any, layers: int, rows: int, length: int, plane: Any, line: Any
) -> None:
    """Means of three along K, J and I, each rounded: the sums before have few digits and are exact in any order."""
    size, wide = np.uint64(length), np.uint64(rows * length)
    for k in range(layers):
        here, under, over = (
            np.uint64(k) * wide,
            np.uint64(max(k - 1, 0)) * wide,
            np.uint64(min(k + 1, layers - 1)) * wide,
        )
        for n in range(wide):
            three = np.int32(allowed[under + n]) + np.int32(allowed[here + n]) + np.int32(allowed[over + n])
            plane[n] = np.float64(three) / 3.0
        for j in range(rows):
            first, last = span[2 * (k * rows + j)], span[2 * (k * rows + j) + 1]
            if first == last:
                continue
            own, left = np.uint64(j) * size, np.uint64(max(j - 1, 0)) * size
            right = np.uint64(min(j + 1, rows - 1)) * size
            for i in range(size):
                nine = np.float64(plane[left + i]) + np.float64(plane[own + i]) + np.float64(plane[right + i])
                line[i + _NEXT] = nine / 3.0
            line[0], line[length + 1] = line[1], line[length]
            for at in range(first, last):
                to = at - here - own
                all_27 = np.float64(line[to]) + np.float64(line[to + _NEXT]) + np.float64(line[to + _LAST])
                found[at] = alpha[at] * np.float32(all_27 / 3.0) * np.float32(allowed[at])


@kernel
def _means_of_plain(
    mean: Any, low: Any, trust: Any, shape: Any, window: Any, base: Any, tolerance: Any, both: Any, other: Any,
    totals: Any,
) -> None:  # fmt: skip
    """both, other, totals: room for the share of plain blocks and for their mean, side by side."""
    for n in range(np.uint64(len(mean))):
        is_plain = abs(mean[n] - base) < _TWO * tolerance
        both[_LAST * n] = 1.0 if is_plain else 0.0
        both[_LAST * n + _NEXT] = mean[n] if is_plain else 0.0
    both = running_means(both, other, shape, 2, window, totals)
    for n in range(np.uint64(len(mean))):
        share = both[_LAST * n]
        around = both[_LAST * n + _NEXT] / max(share, 1e-6)
        is_known = (abs(mean[n] - base) < _TWO * tolerance) & (share >= 0.25)
        low[n] = around
        trust[n] = min(max(2 - abs(mean[n] - around) / tolerance, 0.0), 1.0) if is_known else 0.0


@part
def running_means(values: Any, other: Any, shape: Any, parts: int, window: Any, totals: Any) -> Any:
    """scipy's uniform_filter to the letter: running sums in double precision, stored in the type of the values.

    Along I first. Beyond the ends values are repeated. values: flat, of `parts` numbers side by side in each place of
    a shape (K, J, I); they are written over, as is other, of the same size. totals: room for a plane of them.
    """
    wide, last = np.uint64(parts), np.uint64(parts - 1)
    for axis in (2, 1, 0):
        count, size = shape[axis], window[axis]
        if size > 1:
            for begin in range(_START, np.uint64(len(values)), np.uint64(count) * wide):
                one = two = 0.0
                for n in range(1 - size, count):
                    new = begin + np.uint64(min(max(n + size - 1 - size // 2, 0), count - 1)) * wide
                    old = begin + np.uint64(min(max(n - 1 - size // 2, 0), count - 1)) * wide
                    at = begin + np.uint64(max(n, 0)) * wide
                    if axis == 2:  # at most two, or one twice
                        one += np.float64(values[new]) - (np.float64(values[old]) if n > 0 else 0.0)
                        two += np.float64(values[new + last]) - (np.float64(values[old + last]) if n > 0 else 0.0)
                        other[at], other[at + last] = one / size, two / size
                    elif n > 0:
                        for i in range(wide):
                            totals[i] += np.float64(values[new + i]) - np.float64(values[old + i])
                            other[at + i] = totals[i] / size
                    else:
                        for i in range(wide):
                            totals[i] = (totals[i] if n > 1 - size else 0.0) + values[new + i]
                            other[at + i] = totals[i] / size  # not the last one yet
            values, other = other, values
        wide *= np.uint64(count)
    return values


@kernel
def _between(
    hu: Any, fat: Any, hard: Any, layers: int, rows: int, length: int, limits: Any, plane: Any, line: Any
) -> None:
    low, high, gas, bone = limits
    size, wide = np.uint64(length), np.uint64(rows * length)
    for k in range(layers):
        here, under, over = (
            np.uint64(k) * wide,
            np.uint64(max(k - 1, 0)) * wide,
            np.uint64(min(k + 1, layers - 1)) * wide,
        )
        for n in range(wide):
            plane[n] = np.int32(hu[under + n]) + np.int32(hu[here + n]) + np.int32(hu[over + n])
        for j in range(rows):
            own, left = np.uint64(j) * size, np.uint64(max(j - 1, 0)) * size
            right = np.uint64(min(j + 1, rows - 1)) * size
            for i in range(size):
                line[i + _NEXT] = plane[left + i] + plane[own + i] + plane[right + i]
            line[0], line[length + 1] = line[1], line[length]
            for i in range(size):
                local = line[i] + line[i + _NEXT] + line[i + _LAST]
                fat[here + own + i] = (local >= low) & (local <= high)
                hard[here + own + i] = (local < gas) | (local > bone)


@kernel
def _block_sums(hu: Any, bi: int, bj: int, bk: int, line: Any, total: Any) -> None:
    layers, rows, length = hu.shape
    for k in range(total.shape[0]):
        for j in range(total.shape[1]):
            for i in range(length):
                line[i] = 0
            for dk in range(bk):
                for dj in range(bj):
                    source = hu[min(k * bk + dk, layers - 1), min(j * bj + dj, rows - 1)]
                    for i in range(length):
                        line[i] += source[i]
            for i in range(total.shape[2]):
                for di in range(bi):
                    total[k, j, i] += line[min(i * bi + di, length - 1)]
