"""Compiled kernels on bodies: look-ups of directions, radii over a surface's, and shares of voxels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.bodies.body import COVERAGE_STEPS, coverage_table
from synthoma.synthesis.kernels.compiling import dense, filled, kernel
from synthoma.synthesis.kernels.reference import Frame
from synthoma.volume import Array, Floats

_ONE, _ZERO, _TINY = np.float32(1), np.float32(0), np.float32(1e-12)
_PER_STEP, _MIDDLE = np.float32(-COVERAGE_STEPS / 2.5), np.float32(COVERAGE_STEPS + 0.5)
_LAST = np.float32(2 * COVERAGE_STEPS)
_STAYS = np.float32(-0.0)  # a place plus this is the place, zeros with their signs


def refined(table: Array, factor: int) -> Array:
    """As `reference.refined`."""
    return table if factor == 1 else np.asarray(_refined(np.array(table), factor))


def map_index(x: Floats, y: Floats, z: Floats, side: int) -> NDArray[np.intp]:
    """As `reference.map_index`."""
    a, b, c = (np.array(axis, np.float32).reshape(-1) for axis in (x, y, z))
    return np.asarray(_map_indices(a, b, c, side).reshape(x.shape), np.intp)


def shell_ratios(
    frame: Frame, outermost: np.float32, innermost: np.float32, close: tuple[np.float32, np.float32]
) -> tuple[Floats, int, int, Floats]:
    """As `reference.shell_ratios`."""
    low, high = close
    ratio = np.empty((frame.k.shape[1], frame.j.shape[1], frame.i.shape[1]), np.float32)
    between = np.empty(ratio.size + 1, np.float32)
    inside, below, many = _shell_ratios(*frame, np.float32(outermost), np.float32(innermost), low, high, ratio, between)
    return ratio.T, inside, below, between[:many].copy()


def shares_of(frame: Frame, ratio: Floats, scale: np.float32, widest: np.float32, blur: Floats) -> Floats:
    """As `reference.shares_of`."""
    rows = dense(ratio, np.float32)
    alpha = np.empty_like(rows)
    _shares(*frame, rows, scale, widest, _f32(blur), coverage_table(), alpha)
    return alpha.T


def depths_of(frame: Frame, ratio: Floats, alpha: Floats, scale: np.float32, stretch: Floats) -> tuple[Floats, Floats]:
    """As `reference.depths_of`."""
    rows = dense(ratio, np.float32)
    radius, depth = np.zeros_like(rows), np.zeros_like(rows)
    _depths(*frame[:3], rows, dense(alpha, np.float32), scale, _f32(stretch), radius, depth)
    return radius.T, depth.T


def _f32(matrix: Array) -> Floats:
    return np.array(matrix, np.float32, order="C")


@kernel
def _refined(table: Any, factor: int) -> Any:
    nodes = len(table)
    side = (nodes - 1) * factor + 1
    rows, found = np.empty(nodes), np.empty((side, side))
    low, weight = np.empty(side, np.int64), np.empty(side)
    for n in range(side):
        at = n / factor
        low[n] = min(int(at), nodes - 2)
        weight[n] = at - low[n]
    for n in range(side):
        here, there = table[low[n]], table[low[n] + 1]
        for m in range(nodes):
            rows[m] = here[m] * (1 - weight[n]) + there[m] * weight[n]
        for m in range(side):
            found[n, m] = rows[low[m]] * (1 - weight[m]) + rows[low[m] + 1] * weight[m]
    return found


@kernel
def _map_indices(x: Any, y: Any, z: Any, side: int) -> Any:
    index, away = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    _look_up(len(x), _STAYS, _STAYS, _STAYS, x, y, z, _STAYS, _STAYS, _STAYS, side, away, index)
    return index


# Only loops without branches and tables, over few arrays, that count from 0 or without a sign become instructions on
# vectors. A part of a row is no view of its own: numba counts views, which costs more than some voxels too many.


@kernel
def _look_up(
    many: int, px: Any, py: Any, pz: Any, ax: Any, ay: Any, az: Any, mx: Any, my: Any, mz: Any, side: int, away: Any,
    index: Any,
) -> None:  # fmt: skip
    """How far places along a row lie from the center, and the flat indices of their directions.

    A place is the sum of the row's, its own and a move, added in this order.
    """
    half, columns = np.float32((side - 1) / 2), np.int32(side)
    middle = np.float32(np.float64(half) + 0.5)
    for i in range(many):
        x, y, z = px + ax[i] + mx, py + ay[i] + my, pz + az[i] + mz
        away[i] = np.sqrt(x * x + y * y + z * z + _TINY)
        size = abs(x) + abs(y) + abs(z) + _TINY
        a, b = x / size, y / size
        folded = np.float32(math.copysign(_ONE - abs(b), a))
        other = np.float32(math.copysign(_ONE - abs(a), b))
        a, b = (folded if z < 0 else a), (other if z < 0 else b)
        index[i] = np.int32(a * half + middle) * columns + np.int32(b * half + middle)


@kernel
def _shell_ratios(
    ai: Any, aj: Any, ak: Any, moves: Any, reach: Any, outermost: Any, innermost: Any, low: Any, high: Any,
    ratio: Any, close: Any,
) -> Any:  # fmt: skip
    length, side, edges, count = ratio.shape[2], len(reach), reach.ravel(), np.float32(len(moves))
    away, squared, index = np.empty(length, np.float32), np.empty(length, np.float32), np.empty(length, np.int32)
    ax, ay, az = ai[0], ai[1], ai[2]
    inside, below, many = 0, 0, 0
    for k in range(ratio.shape[0]):
        for j in range(ratio.shape[1]):
            px, py, pz = ak[0, k] + aj[0, j], ak[1, k] + aj[1, j], ak[2, k] + aj[2, j]
            row = ratio[k, j]
            inner, within = np.int32(0), np.int32(0)
            for i in range(length):
                x, y, z = px + ax[i], py + ay[i], pz + az[i]
                squared[i] = x * x + y * y + z * z
                row[i] = 0
                inner += np.int32(squared[i] < innermost)
                within += np.int32(squared[i] < outermost)
            if within > inner:
                for n in range(len(moves)):
                    mx, my, mz = moves[n, 0], moves[n, 1], moves[n, 2]
                    _look_up(length, px, py, pz, ax, ay, az, mx, my, mz, side, away, index)
                    for i in range(length):
                        row[i] += away[i] / edges[index[i]]
            lower, near = np.int32(0), np.int32(0)
            for i in range(length):
                found = np.float32(-np.inf) if squared[i] < innermost else row[i] / count
                found = found if squared[i] < outermost else np.float32(np.inf)
                row[i] = found
                lower += np.int32(found <= low)
                near += np.int32((found > low) & (found < high))
            inside += int(inner)
            below += int(lower)
            if near:
                for i in range(length):
                    close[many] = row[i]
                    many += (row[i] > low) & (row[i] < high)
    return inside, below - inside, many


@kernel
def _shares(
    ai: Any, aj: Any, ak: Any, moves: Any, reach: Any, ratio: Any, scale: Any, widest: Any, blur: Any, table: Any,
    alpha: Any,
) -> None:  # fmt: skip
    edges, count, length, side = reach.ravel(), np.float32(len(moves)), ratio.shape[2], len(reach)
    x, y, z = np.empty(length, np.float32), np.empty(length, np.float32), np.empty(length, np.float32)
    away, edge, share = np.empty(length, np.float32), np.empty(length, np.float32), np.empty(length, np.float32)
    at, index, scaled = np.empty(length + 1, np.int32), np.empty(length, np.int32), np.empty(length, np.float32)
    for k in range(ratio.shape[0]):
        for j in range(ratio.shape[1]):
            px, py, pz = ak[0, k] + aj[0, j], ak[1, k] + aj[1, j], ak[2, k] + aj[2, j]
            row, own = ratio[k, j], alpha[k, j]
            outside = np.int32(0)
            for i in range(length):
                scaled[i] = row[i] / scale
                outside += np.int32(scaled[i] - _ONE > widest)
            for i in range(length):
                own[i] = _ONE if scaled[i] < _ONE - widest else _ZERO
            if outside == length:
                continue
            many = 0
            for i in range(length):
                at[many] = i
                many += abs(scaled[i] - _ONE) <= widest
            for m in range(many):  # what lies close to the surface, side by side
                x[m], y[m], z[m] = px + ai[0, at[m]], py + ai[1, at[m]], pz + ai[2, at[m]]
                share[m] = 0
            for n in range(len(moves)):
                mx, my, mz = moves[n, 0], moves[n, 1], moves[n, 2]
                _look_up(many, _STAYS, _STAYS, _STAYS, x, y, z, mx, my, mz, side, away, index)
                for m in range(many):
                    edge[m] = edges[index[m]]
                _coverage_steps(many, x, y, z, mx, my, mz, scale, blur, away, edge, index)
                for m in range(many):
                    share[m] += table[index[m]]
            for m in range(many):
                own[at[m]] = share[m] / count


@kernel
def _coverage_steps(
    many: int, ax: Any, ay: Any, az: Any, mx: Any, my: Any, mz: Any, scale: Any, blur: Any, away: Any, edge: Any,
    index: Any,
) -> None:  # fmt: skip
    """The steps of the table of coverage at places so far away in whose direction the surface is so far away."""
    xx, yy, zz, xy, xz, yz = blur[0, 0], blur[1, 1], blur[2, 2], blur[0, 1], blur[0, 2], blur[1, 2]
    for m in range(many):
        x, y, z = ax[m] + mx, ay[m] + my, az[m] + mz
        total = xx * x * x + yy * y * y + zz * z * z
        total += np.float32(2) * (xy * x * y + xz * x * z + yz * y * z)
        outside = away[m] * (away[m] - scale * edge[m]) / np.sqrt(max(total, _TINY))
        index[m] = np.int32(min(max(outside * _PER_STEP + _MIDDLE, _ZERO), _LAST))


@kernel
def _depths(
    ai: Any, aj: Any, ak: Any, ratio: Any, alpha: Any, scale: Any, stretch: Any, radius: Any, depth: Any
) -> None:
    xx, yy, zz, xy, xz, yz = stretch[0, 0], stretch[1, 1], stretch[2, 2], stretch[0, 1], stretch[0, 2], stretch[1, 2]
    ax, ay, az = ai[0], ai[1], ai[2]
    for k in range(ratio.shape[0]):
        for j in range(ratio.shape[1]):
            px, py, pz = ak[0, k] + aj[0, j], ak[1, k] + aj[1, j], ak[2, k] + aj[2, j]
            row, own, to_radius, to_depth = ratio[k, j], alpha[k, j], radius[k, j], depth[k, j]
            first, last = filled(own)
            for i in range(first, last):
                to_radius[i] = row[i] / scale if own[i] > 0 else _ZERO
            for i in range(first, last):
                x, y, z = px + ax[i], py + ay[i], pz + az[i]
                away = np.sqrt(x * x + y * y + z * z + _TINY)
                total = xx * x * x + yy * y * y + zz * z * z
                total += np.float32(2) * (xy * x * y + xz * x * z + yz * y * z)
                inward = _ONE / max(to_radius[i], np.float32(1e-3)) - _ONE
                to_depth[i] = away * away * inward / np.sqrt(max(total, _TINY))
            for i in range(first, last):
                to_depth[i] = to_depth[i] if own[i] > 0 else _ZERO
