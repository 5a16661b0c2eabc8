"""Compiled kernels on masks: what lies near, pieces and holes. Arrays are (K, J, I) here, contiguous, bool as uint8."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.kernels.compiling import dense, kernel
from synthoma.volume import Array

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
_NO_BIT, _BIT, _LAST_BIT = np.uint64(0), np.uint64(1), np.uint64(63)
# multiplied with this, the powers of two differ in their upper six bits: a de Bruijn sequence
_SPREAD = 0x03F79D71B4CB0A89
_PLACES = np.zeros(64, np.int32)
_PLACES[[(_SPREAD << n) % 2**64 >> 58 for n in range(64)]] = np.arange(64)


def near(mask: Bools, spacing_mm: Sequence[float], radius_mm: float) -> Bools:
    """As `reference.near`."""
    depth, row, widths = _ball(tuple(spacing_mm), float(radius_mm))
    return _unpacked(_near(_packed(mask), depth, row, widths), len(mask))


def largest_piece(label: Bools) -> Bools | None:
    """As `reference.largest_piece`."""
    starts, ends, first = _runs(_packed(label), len(label))
    piece = np.zeros(label.shape[::-1], np.uint8)
    return None if _largest(piece, starts, ends, first) <= 1 else np.asarray(piece.view(np.bool_).T)


def without_holes(label: Bools) -> Bools:
    """As `reference.without_holes`."""
    return _without(label, True, np.ones(label.shape[2], np.uint8))


def without_holes_in_slices(label: Bools, slices: Bools) -> Bools:
    """As `reference.without_holes_in_slices`."""
    return _without(label, False, np.ascontiguousarray(slices).view(np.uint8))


def _without(label: Bools, across: bool, chosen: Bytes) -> Bools:
    voxels = dense(label, np.bool_).view(np.uint8).copy()
    starts, ends, first = _runs(_packed(~label), len(label))
    _fill(voxels, starts, ends, first, across, chosen)
    return np.asarray(voxels.view(np.bool_).T)


def _packed(mask: Bools) -> Words:
    """A mask with 64 voxels of a row in a word, (K, J, words), the first voxel in the lowest bit."""
    words = -(-len(mask) // 64)
    whole = np.zeros((*mask.T.shape[:2], 64 * words), np.bool_)
    whole[..., : len(mask)] = mask.T
    packed = np.packbits(whole, bitorder="little").view("<u8")  # in one piece: row by row takes three times as long
    return packed.astype(np.uint64, copy=False).reshape(*whole.shape[:2], words)


def _unpacked(words: Words, length: int) -> Bools:
    packed = words.astype("<u8", copy=False).view(np.uint8)
    voxels = np.unpackbits(packed, axis=-1, count=length, bitorder="little")
    return np.asarray(voxels.view(np.bool_).T)


@lru_cache(maxsize=32)
def _ball(spacing_mm: tuple[float, ...], radius_mm: float) -> tuple[Array, Array, Array]:
    """Rows of a ball of voxels: steps along K and J, and how far each reaches along I on both sides; narrow ones first.

    Measured by the distance transform, whose rounding decides on voxels that lie just on the ball.
    """
    i, j, k = (int(radius_mm / spacing) + 1 for spacing in spacing_mm)
    alone = np.ones((2 * i + 1, 2 * j + 1, 2 * k + 1), bool)
    alone[i, j, k] = False
    ball = edt.edt(alone, anisotropy=spacing_mm, black_border=False) <= radius_mm
    lengths = ball.sum(axis=0)
    at = np.argwhere(lengths > 0)
    widths = (lengths[at[:, 0], at[:, 1]] - 1) // 2
    order = np.argsort(widths, kind="stable")
    return at[order, 1] - k, at[order, 0] - j, widths[order].astype(np.int64)


@kernel
def _near(words: Any, depth: Any, row: Any, widths: Any) -> Any:
    layers, rows, count = words.shape
    found = np.zeros((layers, rows, count), np.uint64)
    filled = np.zeros((layers, rows), np.bool_)
    for k in range(layers):
        for j in range(rows):
            for n in range(count):
                filled[k, j] |= words[k, j, n] != _NO_BIT
    wide = words.copy()
    width = 0
    for n in range(len(widths)):
        while width < widths[n]:
            width += 1
            for k in range(layers):
                for j in range(rows):
                    before = _NO_BIT  # what lies beyond a row's end never comes back into it
                    for m in range(count if filled[k, j] else 0):
                        here = wide[k, j, m]
                        after = wide[k, j, m + 1] if m + 1 < count else _NO_BIT
                        wide[k, j, m] = here | here << _BIT | here >> _BIT | before >> _LAST_BIT | after << _LAST_BIT
                        before = here
        for k in range(max(0, -depth[n]), min(layers, layers - depth[n])):
            for j in range(max(0, -row[n]), min(rows, rows - row[n])):
                if filled[k + depth[n], j + row[n]]:
                    for m in range(count):
                        found[k, j, m] |= wide[k + depth[n], j + row[n], m]
    return found


@kernel
def _runs(words: Any, length: int) -> Any:
    """Runs of set bits along I: their starts and ends, and the number of the first one of each row."""
    layers, rows, count = words.shape
    first = np.zeros(layers * rows + 1, np.int32)
    for row in range(layers * rows):
        many, before = 0, _NO_BIT
        for m in range(count):
            here = words[row // rows, row % rows, m]
            begins = here & ~(here << _BIT | before >> _LAST_BIT)
            while begins != _NO_BIT:
                begins &= begins - _BIT
                many += 1
            before = here
        first[row + 1] = first[row] + many
    starts, ends = np.empty(first[-1], np.int32), np.full(first[-1], length, np.int32)
    for row in range(layers * rows):
        start = end = first[row]
        before = _NO_BIT
        for m in range(count if first[row + 1] > first[row] else 0):
            here = words[row // rows, row % rows, m]
            shifted = here << _BIT | before >> _LAST_BIT
            begins, stops = here & ~shifted, ~here & shifted
            while begins != _NO_BIT:
                starts[start] = 64 * m + _place(begins)
                start += 1
                begins &= begins - _BIT
            while stops != _NO_BIT:
                ends[end] = 64 * m + _place(stops)
                end += 1
                stops &= stops - _BIT
            before = here
    return starts, ends, first


@kernel
def _place(word: Any) -> int:
    """The lowest set bit."""
    lowest = word & (~word + _BIT)
    return _PLACES[lowest * np.uint64(_SPREAD) >> np.uint64(58)]  # type: ignore[no-any-return]


@kernel
def _root(parent: Any, n: int) -> int:
    while parent[n] != n:
        parent[n] = parent[parent[n]]
        n = parent[n]
    return n


@kernel
def _join(parent: Any, one: int, other: int) -> None:
    one, other = _root(parent, one), _root(parent, other)
    if one < other:
        parent[other] = one
    else:
        parent[one] = other


@kernel
def _join_rows(parent: Any, starts: Any, ends: Any, one: int, one_end: int, other: int, other_end: int) -> None:
    """Joins the runs of two rows that share a place; nodes are numbered from 1."""
    while one < one_end and other < other_end:
        if starts[one] < ends[other] and starts[other] < ends[one]:
            _join(parent, one + 1, other + 1)
        if ends[one] < ends[other]:
            one += 1
        else:
            other += 1


@kernel
def _largest(piece: Any, starts: Any, ends: Any, first: Any) -> int:
    """How many pieces there are; the largest one, or the first of these, is marked if there are several."""
    layers, rows, _ = piece.shape
    parent = np.arange(len(starts) + 1)
    for row in range(layers * rows):
        if row % rows:
            _join_rows(parent, starts, ends, first[row - 1], first[row], first[row], first[row + 1])
        if row >= rows:
            _join_rows(parent, starts, ends, first[row - rows], first[row - rows + 1], first[row], first[row + 1])
    sizes = np.zeros(len(parent), np.int64)
    count, best = 0, 0
    for n in range(len(starts)):
        root = _root(parent, n + 1)
        if root == n + 1:
            count += 1
        sizes[root] += ends[n] - starts[n]
    for n in range(1, len(parent)):
        if sizes[n] > sizes[best]:
            best = n
    if count > 1:
        for row in range(layers * rows):
            for n in range(first[row], first[row + 1]):
                if _root(parent, n + 1) == best:
                    piece[row // rows, row % rows, starts[n] : ends[n]] = 1
    return count


@kernel
def _fill(voxels: Any, starts: Any, ends: Any, first: Any, across: bool, chosen: Any) -> None:
    """Fills the runs of background that no way leads out of, in chosen layers; across: ways lead along K too."""
    layers, rows, length = voxels.shape
    parent = np.arange(len(starts) + 1)  # node 0 is outside
    for row in range(layers * rows):
        k, j = row // rows, row % rows
        outside = j == 0 or j == rows - 1 or (across and (k == 0 or k == layers - 1))
        for n in range(first[row], first[row + 1]):
            if outside or starts[n] == 0 or ends[n] == length:
                _join(parent, n + 1, 0)
        if j:
            _join_rows(parent, starts, ends, first[row - 1], first[row], first[row], first[row + 1])
        if across and k:
            _join_rows(parent, starts, ends, first[row - rows], first[row - rows + 1], first[row], first[row + 1])
    for row in range(layers * rows):
        if chosen[row // rows]:
            for n in range(first[row], first[row + 1]):
                if _root(parent, n + 1) != 0:
                    voxels[row // rows, row % rows, starts[n] : ends[n]] = 1
