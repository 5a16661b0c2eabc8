"""Compiled kernels on masks: what lies near, pieces and holes. Arrays are (K, J, I) here, contiguous, bool as uint8."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import edt
import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.kernels.compiling import dense, kernel, part
from synthoma.volume import Array

Bools = NDArray[np.bool_]
Words = NDArray[np.uint64]
_NO_BIT, _BIT, _LAST_BIT = np.uint64(0), np.uint64(1), np.uint64(63)
# multiplied with this, the powers of two differ in their upper six bits: a de Bruijn sequence
_SPREAD = 0x03F79D71B4CB0A89
_PLACES = np.zeros(64, np.int32)
_PLACES[[(_SPREAD << n) % 2**64 >> 58 for n in range(64)]] = np.arange(64)


def near(mask: Bools, spacing_mm: Sequence[float], radius_mm: float) -> Bools:
    """As `reference.near`."""
    depth, row, widths = _ball(tuple(spacing_mm), float(radius_mm))
    wide = _packed(mask)
    found, holds = np.zeros_like(wide), wide[..., 0] != _NO_BIT
    for n in range(1, wide.shape[2]):
        holds |= wide[..., n] != _NO_BIT
    _near(wide, holds, depth, row, widths, found)
    return _unpacked(found, len(mask))


def largest_piece(label: Bools) -> Bools | None:
    """As `reference.largest_piece`."""
    runs = _runs(label)
    roots = _roots(runs, outward=False, across=True)
    if roots.max() <= 1:
        return None
    sizes = np.bincount(roots[1:], runs.ends - runs.starts)
    return _painted(np.zeros(runs.shape, np.bool_), runs, roots[1:] == np.argmax(sizes))


def without_holes(label: Bools) -> Bools:
    """As `reference.without_holes`."""
    return _without(label, np.ones(label.shape[2], np.bool_), across=True)


def without_holes_in_slices(label: Bools, slices: Bools) -> Bools:
    """As `reference.without_holes_in_slices`."""
    return _without(label, slices, across=False)


def _without(label: Bools, slices: Bools, across: bool) -> Bools:
    """The label and, in some slices, the background that no way leads out of; across: ways lead along K too."""
    runs = _runs(~label)
    enclosed = _roots(runs, outward=True, across=across)[1:] > 0
    if enclosed.any():
        enclosed &= np.repeat(slices, np.diff(runs.first[:: runs.shape[1]]))
    return _painted(dense(label, np.bool_).copy(), runs, enclosed)


class _Runs(NamedTuple):
    """Runs of a mask's voxels along I, as places in the flat array of its shape (K, J, I).

    first (rows + 1): the number of the first run of each row.
    """

    starts: Array
    ends: Array
    first: Array
    shape: tuple[int, ...]


def _runs(mask: Bools) -> _Runs:
    words, shape = _packed(mask), mask.shape[::-1]
    starts, ends = np.empty((2, words.size * 32), np.int32)  # there are no more
    first = np.zeros(shape[0] * shape[1] + 1, np.int64)
    _find_runs(words.reshape(-1, words.shape[2]), shape[2], starts, ends, first)
    return _Runs(starts[: first[-1]], ends[: first[-1]], first, shape)


def _roots(runs: _Runs, outward: bool, across: bool) -> Array:
    """Of the outside, node 0, and of each run, from 1, the lowest node that a way leads to, from face to face."""
    parent = np.arange(len(runs.starts) + 1)
    _join(parent, runs.starts, runs.ends, runs.first, *runs.shape, outward, across)
    return parent


def _painted(voxels: Bools, runs: _Runs, chosen: Bools) -> Bools:
    """The voxels (K, J, I) and those of the chosen runs, as (I, J, K)."""
    if chosen.any():
        _paint(voxels.reshape(-1), runs.starts[chosen], runs.ends[chosen])
    return np.asarray(voxels.T)


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
def _near(wide: Any, holds: Any, depth: Any, row: Any, widths: Any, found: Any) -> None:
    """wide: words, widened step by step; holds: whether a row has any bit."""
    layers, rows, count = wide.shape
    width = 0
    for n in range(len(widths)):
        while width < widths[n]:
            width += 1
            for k in range(layers):
                for j in range(rows):
                    before = _NO_BIT  # what lies beyond a row's end never comes back into it
                    for m in range(count if holds[k, j] else 0):
                        here = wide[k, j, m]
                        after = wide[k, j, m + 1] if m + 1 < count else _NO_BIT
                        wide[k, j, m] = here | here << _BIT | here >> _BIT | before >> _LAST_BIT | after << _LAST_BIT
                        before = here
        for k in range(max(0, -depth[n]), min(layers, layers - depth[n])):
            for j in range(max(0, -row[n]), min(rows, rows - row[n])):
                if holds[k + depth[n], j + row[n]]:
                    for m in range(count):
                        found[k, j, m] |= wide[k + depth[n], j + row[n], m]


@part
def _place(word: Any) -> int:
    """The lowest set bit."""
    lowest = word & (~word + _BIT)
    return _PLACES[lowest * np.uint64(_SPREAD) >> np.uint64(58)]  # type: ignore[no-any-return]


@kernel
def _find_runs(words: Any, length: int, starts: Any, ends: Any, first: Any) -> None:
    start = end = 0
    for row in range(words.shape[0]):
        before = _NO_BIT
        for m in range(words.shape[1]):
            here = words[row, m]
            after = words[row, m + 1] if m + 1 < words.shape[1] else _NO_BIT
            begins, stops = here & ~(here << _BIT | before >> _LAST_BIT), here & ~(here >> _BIT | after << _LAST_BIT)
            at = row * length + 64 * m
            while begins != _NO_BIT:
                starts[start] = at + _place(begins)
                start += 1
                begins &= begins - _BIT
            while stops != _NO_BIT:
                ends[end] = at + _place(stops) + 1
                end += 1
                stops &= stops - _BIT
            before = here
        first[row + 1] = start


@kernel
def _join(
    parent: Any, starts: Any, ends: Any, first: Any, layers: int, rows: int, length: int, outward: bool, across: bool
) -> None:
    """Nodes that touch get one root, the lowest: 0 is the outside, which only `outward` counts, 1 the first run."""
    for row in range(layers * rows):
        k, j = row // rows, row % rows
        is_outside = j == 0 or j == rows - 1 or (across and (k == 0 or k == layers - 1))
        for step in range(3):  # to the outside, to the row before, to the layer before
            other_row = row - (0, 1, rows)[step]
            if (step == 0 and not outward) or (step == 1 and j == 0) or (step == 2 and (not across or k == 0)):
                continue
            n, m, shift = first[row], first[other_row], (row - other_row) * length
            while n < first[row + 1] and m < first[other_row + 1]:
                if step == 0:
                    touches = is_outside or starts[n] == row * length or ends[n] == (row + 1) * length
                else:
                    touches = starts[n] < ends[m] + shift and starts[m] + shift < ends[n]
                if touches:
                    one, other = n + 1, m + 1 if step else 0
                    while parent[one] != one:
                        parent[one] = parent[parent[one]]
                        one = parent[one]
                    while parent[other] != other:
                        parent[other] = parent[parent[other]]
                        other = parent[other]
                    parent[max(one, other)] = min(one, other)
                if step == 0 or ends[n] < ends[m] + shift:
                    n += 1
                else:
                    m += 1
    for n in range(len(parent)):  # a parent is never behind its node
        parent[n] = parent[parent[n]]


@kernel
def _paint(voxels: Any, starts: Any, ends: Any) -> None:
    for n in range(len(starts)):
        for at in range(starts[n], ends[n]):
            voxels[at] = True
