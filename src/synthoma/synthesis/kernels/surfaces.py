"""Compiled kernels on bodies: look-ups of directions, radii over a surface's, and shares of voxels."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.bodies.body import COVERAGE_STEPS, coverage_table
from synthoma.synthesis.kernels.compiling import dense, keep_spans, kernel, known_spans, part, spans, whole_rows
from synthoma.synthesis.kernels.reference import Frame
from synthoma.volume import Array, Floats

_ONE, _TWO, _ZERO, _TINY = np.float32(1), np.float32(2), np.float32(0), np.float32(1e-12)
_LEAST = np.float32(1e-3)
_PER_STEP, _MIDDLE = np.float32(-COVERAGE_STEPS / 2.5), np.float32(COVERAGE_STEPS + 0.5)
_LAST = np.float32(2 * COVERAGE_STEPS)
_EMPTY, _FILLED, _PARTLY = np.int32(0), np.int32(1), np.int32(2)
_SURELY = 2.55  # SDs of the blur from which on the coverage is 0 or 1, with room for rounding
_AT_ONCE = 1024  # voxels: so many fit the processor's nearest cache
_STAYS = np.float32(-0.0)  # a place plus this is the place, zeros with their signs
_START, _NEXT = np.uint64(0), np.uint64(1)


def refined(table: Array, factor: int) -> Array:
    """As `reference.refined`."""
    if factor == 1:
        return table
    side = (len(table) - 1) * factor + 1
    found = np.empty((side, side))
    _refine(np.array(table), *_steps(len(table), factor), np.empty(len(table)), found)
    return found


@lru_cache(maxsize=16)
def _steps(nodes: int, factor: int) -> tuple[Array, Array]:
    """Of steps between nodes, `factor` times as fine: the node before, and the share of the next one."""
    at = np.arange((nodes - 1) * factor + 1) / factor
    low = np.minimum(at.astype(np.int64), nodes - 2)
    return low, at - low


def map_index(x: Floats, y: Floats, z: Floats, side: int) -> NDArray[np.intp]:
    """As `reference.map_index`."""
    places = np.array([axis.reshape(-1) for axis in (x, y, z)], np.float32)
    index = np.empty(x.size, np.int32)
    _map_indices(places, side, np.empty(x.size, np.float32), index)
    return np.asarray(index.reshape(x.shape), np.intp)


def shell_ratios(
    frame: Frame, outermost: np.float32, innermost: np.float32, close: tuple[np.float32, np.float32]
) -> tuple[Floats, int, int, Floats]:
    """As `reference.shell_ratios`."""
    ratio = np.full((frame.k.shape[1], frame.j.shape[1], frame.i.shape[1]), np.inf, np.float32)
    between, counts = np.empty(ratio.size + 1, np.float32), np.zeros(3, np.int64)
    scratch, index = np.empty((3, ratio.shape[2]), np.float32), np.empty(ratio.shape[2], np.int32)
    limits = np.float32(outermost), np.float32(innermost), *close
    span, found = np.empty(2 * ratio.shape[0] * ratio.shape[1], np.uint64), ratio.T
    _shell_ratios(*_flat(frame), len(frame.reach), limits, ratio.reshape(-1), span, between, counts, scratch, index)
    keep_spans(found, span)
    inside, below, many = counts.tolist()
    return found, inside, below, between[:many].copy()


def shares_of(frame: Frame, ratio: Floats, scale: np.float32, widest: np.float32, blur: Floats) -> Floats:
    """As `reference.shares_of`."""
    rows = dense(ratio, np.float32)
    alpha, length = np.zeros_like(rows), rows.shape[2]
    room = max(_AT_ONCE, length)
    scratch, at, index = np.empty((6, room + 1), np.float32), *np.empty((2, room + 1), np.int32)
    shell = known_spans(ratio)
    span = whole_rows(ratio) if shell is None else shell.copy()
    # no voxel of one sample farther from the surface than this is partly filled, however rough that is
    farthest = _SURELY * np.sqrt(np.linalg.eigvalsh(blur)[-1]) if len(frame.moves) == 1 else np.inf
    limits = np.float32(scale), np.float32(widest), np.float32(min(farthest * farthest, 1e30))
    given = *_flat(frame), len(frame.reach), rows.reshape(-1), span, limits, _six(blur), coverage_table()
    _shares(*given, alpha.reshape(-1), at, index, scratch)
    found = alpha.T
    keep_spans(found, span)
    return found


def depths_of(frame: Frame, ratio: Floats, alpha: Floats, scale: np.float32, stretch: Floats) -> tuple[Floats, Floats]:
    """As `reference.depths_of`."""
    rows, shares = dense(ratio, np.float32), dense(alpha, np.float32)
    radius, depth = np.zeros((2, *rows.shape), np.float32)
    flat = (array.reshape(-1) for array in (rows, shares))
    _depths(*_flat(frame)[:2], *flat, spans(alpha), scale, _six(stretch), radius.reshape(-1), depth.reshape(-1))
    return radius.T, depth.T


def _flat(frame: Frame) -> tuple[Floats, Floats, Floats, Floats]:
    """Where each row begins (3, rows), what each voxel of a row adds (3, voxels), moves, and the surface, flat."""
    starts = (frame.k[:, :, None] + frame.j[:, None, :]).reshape(3, -1)
    return starts, np.ascontiguousarray(frame.i), frame.moves, frame.reach.reshape(-1)


def _six(matrix: Array) -> tuple[np.float32, ...]:
    """The figures of a symmetric matrix (3, 3): xx, yy, zz, xy, xz, yz."""
    return tuple(map(np.float32, matrix[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)].tolist()))


@kernel
def _refine(table: Any, low: Any, weight: Any, rows: Any, found: Any) -> None:
    for n in range(len(low)):
        for m in range(len(rows)):
            rows[m] = table[low[n], m] * (1 - weight[n]) + table[low[n] + 1, m] * weight[n]
        for m in range(len(low)):
            found[n, m] = rows[low[m]] * (1 - weight[m]) + rows[low[m] + 1] * weight[m]


@kernel
def _map_indices(places: Any, side: int, away: Any, index: Any) -> None:
    _look_up(_START, np.uint64(len(index)), _STAYS, _STAYS, _STAYS, places, _STAYS, _STAYS, _STAYS, side, away, index)


# Only loops without branches and tables, over few arrays, that count without a sign become instructions on vectors. A
# part of a row is no view of its own: numba counts views, which costs more than some voxels too many.


@part
def _look_up(
    first: Any, many: Any, px: Any, py: Any, pz: Any, places: Any, mx: Any, my: Any, mz: Any, side: int, away: Any,
    index: Any,
) -> None:  # fmt: skip
    """How far places along a row lie from the center, and the flat indices of their directions, from the first on.

    A place is the sum of the row's, its own (3, places) and a move, added in this order.
    """
    half, columns = np.float32((side - 1) / 2), np.int32(side)
    middle = np.float32(np.float64(half) + 0.5)
    for i in range(first, many):
        x, y, z = px + places[0, i] + mx, py + places[1, i] + my, pz + places[2, i] + mz
        away[i] = np.sqrt(x * x + y * y + z * z + _TINY)
        size = abs(x) + abs(y) + abs(z) + _TINY
        a, b = x / size, y / size
        folded = np.float32(math.copysign(_ONE - abs(b), a))
        other = np.float32(math.copysign(_ONE - abs(a), b))
        a, b = (folded if z < 0 else a), (other if z < 0 else b)
        index[i] = np.int32(a * half + middle) * columns + np.int32(b * half + middle)


@kernel
def _shell_ratios(
    starts: Any, columns: Any, moves: Any, reach: Any, side: int, limits: Any, ratio: Any, span: Any, close: Any,
    counts: Any, scratch: Any, index: Any,
) -> None:  # fmt: skip
    """span: of each row, from the first voxel within the outermost radius to the one behind the last."""
    outermost, innermost, low, high = limits
    away, squared, edge = scratch[0], scratch[1], scratch[2]
    begin, length, samples = _START, np.uint64(len(index)), np.float32(len(moves))
    inside, not_above, many = 0, 0, _START
    for row in range(starts.shape[1]):
        px, py, pz = starts[0, row], starts[1, row], starts[2, row]
        inner = np.int32(0)
        for i in range(length):
            x, y, z = px + columns[0, i], py + columns[1, i], pz + columns[2, i]
            squared[i] = x * x + y * y + z * z
            inner += np.int32(squared[i] < innermost)
        first, behind = _START, length
        while first < behind and not squared[first] < outermost:
            first += _NEXT
        while first < behind and not squared[behind - _NEXT] < outermost:
            behind -= _NEXT
        span[2 * row], span[2 * row + 1] = begin + first, begin + behind
        if inner < np.int64(behind - first):
            for n in range(len(moves)):
                mx, my, mz = moves[n, 0], moves[n, 1], moves[n, 2]
                _look_up(first, behind, px, py, pz, columns, mx, my, mz, side, away, index)
                for i in range(first, behind):
                    edge[i] = reach[np.uint64(index[i])]
                for i in range(first, behind):
                    ratio[begin + i] = (ratio[begin + i] if n else _ZERO) + away[i] / edge[i]
        lower, near = np.int32(0), np.int32(0)
        for i in range(first, behind):
            found = np.float32(-np.inf) if squared[i] < innermost else ratio[begin + i] / samples
            found = found if squared[i] < outermost else np.float32(np.inf)
            ratio[begin + i] = found
            lower += np.int32(found <= low)
            near += np.int32((found > low) & (found < high))
        inside += int(inner)
        not_above += int(lower)
        if near:
            for i in range(first, behind):
                close[many] = ratio[begin + i]
                many += np.uint64((ratio[begin + i] > low) & (ratio[begin + i] < high))
        begin += length
    counts[0], counts[1], counts[2] = inside, not_above - inside, many


@kernel
def _shares(
    starts: Any, columns: Any, moves: Any, reach: Any, side: int, ratio: Any, span: Any, limits: Any, blur: Any,
    table: Any, alpha: Any, at: Any, index: Any, scratch: Any,
) -> None:  # fmt: skip
    """span: what of each row is to be looked at, and then what of it is above 0.

    limits: the scale, how far from the surface blur reaches in radii, and the square of that in unit coordinates.
    at, index, scratch: room for partly filled voxels of several rows, side by side; index for a row as well.
    """
    scale, widest, farthest = limits
    xx, yy, zz, xy, xz, yz = blur
    x, y, z, away, edge, share = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5]
    begin, length, samples = _START, np.uint64(columns.shape[1]), np.float32(len(moves))
    many, rows = _START, starts.shape[1]
    for row in range(rows + 1):
        if row == rows or many + length > np.uint64(len(share) - 1):
            for n in range(len(moves)):
                mx, my, mz = moves[n, 0], moves[n, 1], moves[n, 2]
                _look_up(_START, many, _STAYS, _STAYS, _STAYS, scratch, mx, my, mz, side, away, index)
                for m in range(many):
                    edge[m] = reach[np.uint64(index[m])]
                for m in range(many):
                    a, b, c = x[m] + mx, y[m] + my, z[m] + mz
                    total = xx * a * a + yy * b * b + zz * c * c
                    total += _TWO * (xy * a * b + xz * a * c + yz * b * c)
                    beyond = away[m] * (away[m] - scale * edge[m]) / np.sqrt(max(total, _TINY))
                    index[m] = np.int32(min(max(beyond * _PER_STEP + _MIDDLE, _ZERO), _LAST))
                for m in range(many):
                    share[m] += table[np.uint64(index[m])]
            for m in range(many):
                alpha[np.uint64(at[m])] = share[m] / samples
            many = _START
        if row < rows:
            first, behind = span[2 * row] - begin, span[2 * row + 1] - begin
            px, py, pz = starts[0, row], starts[1, row], starts[2, row]
            for i in range(first, behind):
                a, b, c = px + columns[0, i], py + columns[1, i], pz + columns[2, i]
                scaled = ratio[begin + i] / scale
                off = scaled - _ONE
                is_close = (abs(off) <= widest) & ((a * a + b * b + c * c) * off * off < farthest * scaled * scaled)
                index[i] = _PARTLY if is_close else (_FILLED if off < _ZERO else _EMPTY)
            while first < behind and index[first] == _EMPTY:
                first += _NEXT
            while first < behind and index[behind - _NEXT] == _EMPTY:
                behind -= _NEXT
            for i in range(first, behind):
                alpha[begin + i] = np.float32(index[i])
            for i in range(first, behind):  # what may be partly filled, side by side
                at[many] = begin + i
                x[many], y[many], z[many] = px + columns[0, i], py + columns[1, i], pz + columns[2, i]
                share[many] = 0
                many += np.uint64(index[i] == _PARTLY)
            span[2 * row], span[2 * row + 1] = begin + first, begin + behind
            begin += length
    for row in range(rows):
        first, behind = span[2 * row], span[2 * row + 1]
        while first < behind and alpha[first] == 0:
            first += _NEXT
        while first < behind and alpha[behind - _NEXT] == 0:
            behind -= _NEXT
        span[2 * row], span[2 * row + 1] = first, behind


@kernel
def _depths(
    starts: Any, columns: Any, ratio: Any, alpha: Any, span: Any, scale: Any, stretch: Any, radius: Any, depth: Any
) -> None:
    xx, yy, zz, xy, xz, yz = stretch
    begin = _START
    for row in range(starts.shape[1]):
        px, py, pz = starts[0, row], starts[1, row], starts[2, row]
        first, behind = span[2 * row] - begin, span[2 * row + 1] - begin
        for i in range(first, behind):
            radius[begin + i] = ratio[begin + i] / scale if alpha[begin + i] > 0 else _ZERO
        for i in range(first, behind):  # by itself: a loop over more arrays would not become instructions on vectors
            x, y, z = px + columns[0, i], py + columns[1, i], pz + columns[2, i]
            found = radius[begin + i]
            away = np.sqrt(x * x + y * y + z * z + _TINY)
            total = xx * x * x + yy * y * y + zz * z * z
            total += _TWO * (xy * x * y + xz * x * z + yz * y * z)
            inward = _ONE / max(found, _LEAST) - _ONE
            depth[begin + i] = away * away * inward / np.sqrt(max(total, _TINY)) if found != _ZERO else _ZERO
        begin += np.uint64(columns.shape[1])
