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


def near(mask: Bools, spacing_mm: Sequence[float], radius_mm: float) -> Bools:
    """As `reference.near`."""
    depth, row, widths = _ball(tuple(spacing_mm), float(radius_mm))
    return _as_mask(_near(_as_bytes(mask), depth, row, widths))


def largest_piece(label: Bools) -> Bools | None:
    """As `reference.largest_piece`."""
    voxels = _as_bytes(label)
    starts, ends, first = _runs(voxels, 1)
    count, piece = _largest(voxels, starts, ends, first)
    return None if count <= 1 else _as_mask(piece)


def without_holes(label: Bools) -> Bools:
    """As `reference.without_holes`."""
    voxels = _as_bytes(label).copy()
    starts, ends, first = _runs(voxels, 0)
    _fill(voxels, starts, ends, first, True, np.ones(len(voxels), np.uint8))
    return _as_mask(voxels)


def without_holes_in_slices(label: Bools, slices: Bools) -> Bools:
    """As `reference.without_holes_in_slices`."""
    voxels = _as_bytes(label).copy()
    starts, ends, first = _runs(voxels, 0)
    _fill(voxels, starts, ends, first, False, np.ascontiguousarray(slices).view(np.uint8))
    return _as_mask(voxels)


def _as_bytes(mask: Bools) -> Bytes:
    return dense(mask, np.bool_).view(np.uint8)


def _as_mask(voxels: Bytes) -> Bools:
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
def _near(mask: Any, depth: Any, row: Any, widths: Any) -> Any:
    layers, rows, length = mask.shape
    found = np.zeros((layers, rows, length), np.uint8)
    filled = np.zeros((layers, rows), np.uint8)
    for k in range(layers):
        for j in range(rows):
            line = mask[k, j]
            any_ = np.uint8(0)
            for i in range(length):
                any_ |= line[i]
            filled[k, j] = any_
    wide = mask.copy()
    line = np.empty(length, np.uint8)
    width = 0
    for n in range(len(widths)):
        while width < widths[n]:
            width += 1
            for k in range(layers):
                for j in range(rows):
                    if filled[k, j]:
                        own = wide[k, j]
                        for i in range(length):
                            line[i] = own[i]
                        for i in range(1, length):
                            own[i] |= line[i - 1]
                        for i in range(length - 1):
                            own[i] |= line[i + 1]
        for k in range(max(0, -depth[n]), min(layers, layers - depth[n])):
            for j in range(max(0, -row[n]), min(rows, rows - row[n])):
                if filled[k + depth[n], j + row[n]]:
                    source, target = wide[k + depth[n], j + row[n]], found[k, j]
                    for i in range(length):
                        target[i] |= source[i]
    return found


@kernel
def _runs(voxels: Any, value: int) -> Any:
    """Runs of a value along I: their starts and ends, and the number of the first one of each row."""
    layers, rows, length = voxels.shape
    first = np.zeros(layers * rows + 1, np.int32)
    for row in range(layers * rows):
        line = voxels[row // rows, row % rows]
        count, before = 0, 1 - value
        for i in range(length):
            here = line[i]
            if here == value and before != value:
                count += 1
            before = here
        first[row + 1] = first[row] + count
    starts, ends = np.empty(first[-1], np.int32), np.empty(first[-1], np.int32)
    for row in range(layers * rows):
        line = voxels[row // rows, row % rows]
        n, inside = first[row], False
        if first[row + 1] == n:
            continue
        for i in range(length):
            if line[i] == value:
                if not inside:
                    starts[n] = i
                    inside = True
            elif inside:
                ends[n] = i
                n += 1
                inside = False
        if inside:
            ends[n] = length
    return starts, ends, first


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
def _largest(voxels: Any, starts: Any, ends: Any, first: Any) -> Any:
    """How many pieces there are, and the largest one; the first of equal ones."""
    layers, rows, length = voxels.shape
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
    piece = np.zeros((layers, rows, length), np.uint8)
    if count > 1:
        for row in range(layers * rows):
            for n in range(first[row], first[row + 1]):
                if _root(parent, n + 1) == best:
                    piece[row // rows, row % rows, starts[n] : ends[n]] = 1
    return count, piece


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
