"""Compiled kernels on bodies: look-ups of directions, radii over a surface's, and shares of voxels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.bodies.body import COVERAGE_STEPS, coverage_table
from synthoma.synthesis.kernels.compiling import dense, kernel
from synthoma.synthesis.kernels.reference import Frame
from synthoma.volume import Array, Floats

_ONE, _TINY = np.float32(1), np.float32(1e-12)
_PER_STEP, _MIDDLE = np.float32(-COVERAGE_STEPS / 2.5), np.float32(COVERAGE_STEPS + 0.5)
_LAST = np.float32(2 * COVERAGE_STEPS)


def refined(table: Array, factor: int) -> Array:
    """As `reference.refined`."""
    return table if factor == 1 else np.asarray(_refined(np.array(table), factor))


def map_index(x: Floats, y: Floats, z: Floats, side: int) -> NDArray[np.intp]:
    """As `reference.map_index`."""
    a, b, c = (np.array(axis, np.float32).reshape(-1) for axis in (x, y, z))
    return np.asarray(_map_indices(a, b, c, side).reshape(x.shape))


def shell_ratios(
    frame: Frame, outermost: np.float32, innermost: np.float32, close: tuple[np.float32, np.float32]
) -> tuple[Floats, int, int, Floats]:
    """As `reference.shell_ratios`."""
    low, high = close
    return _shell_ratios(*frame, np.float32(outermost), np.float32(innermost), low, high)  # type: ignore[no-any-return]


def shares_of(frame: Frame, ratio: Floats, scale: np.float32, widest: np.float32, blur: Floats) -> Floats:
    """As `reference.shares_of`."""
    return np.asarray(_shares(*frame, dense(ratio, np.float32), scale, widest, _f32(blur), coverage_table()).T)


def depths_of(frame: Frame, ratio: Floats, scale: np.float32, stretch: Floats) -> tuple[Floats, Floats]:
    """As `reference.depths_of`."""
    radius, depth = _depths(*frame[:3], dense(ratio, np.float32), scale, _f32(stretch))
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
def _place(x: Any, y: Any, z: Any, side: int, half: Any, middle: Any) -> Any:
    """The flat index of a direction; half, middle: of the map, float32."""
    size = abs(x) + abs(y) + abs(z) + _TINY
    a, b = x / size, y / size
    if z < 0:
        folded = np.float32(math.copysign(_ONE - abs(b), a))
        b = np.float32(math.copysign(_ONE - abs(a), b))
        a = folded
    return int(a * half + middle) * side + int(b * half + middle)


@kernel
def _map_indices(x: Any, y: Any, z: Any, side: int) -> Any:
    found = np.empty(len(x), np.int64)
    half = np.float32((side - 1) / 2)
    middle = np.float32(np.float64(half) + 0.5)
    for n in range(len(x)):
        found[n] = _place(x[n], y[n], z[n], side, half, middle)
    return found


@kernel
def _length(x: Any, y: Any, z: Any) -> Any:
    return np.sqrt(x * x + y * y + z * z + _TINY)


@kernel
def _quadratic(m: Any, x: Any, y: Any, z: Any) -> Any:
    total = m[0, 0] * x * x + m[1, 1] * y * y + m[2, 2] * z * z
    total += np.float32(2) * (m[0, 1] * x * y + m[0, 2] * x * z + m[1, 2] * y * z)
    return np.sqrt(max(total, _TINY))


@kernel
def _shell_ratios(
    ai: Any, aj: Any, ak: Any, moves: Any, reach: Any, outermost: Any, innermost: Any, low: Any, high: Any
) -> Any:
    shape = (ak.shape[1], aj.shape[1], ai.shape[1])
    ratio = np.empty(shape, np.float32)
    close = np.empty(shape[0] * shape[1] * shape[2], np.float32)
    side, edges, count = len(reach), reach.ravel(), np.float32(len(moves))
    half = np.float32((side - 1) / 2)
    middle = np.float32(np.float64(half) + 0.5)
    inside, below, many = 0, 0, 0
    for k in range(shape[0]):
        for j in range(shape[1]):
            px, py, pz = ak[0, k] + aj[0, j], ak[1, k] + aj[1, j], ak[2, k] + aj[2, j]
            for i in range(shape[2]):
                x, y, z = px + ai[0, i], py + ai[1, i], pz + ai[2, i]
                squared = x * x + y * y + z * z
                if squared < innermost:
                    ratio[k, j, i] = -np.inf
                    inside += 1
                elif squared < outermost:
                    total = np.float32(0)
                    for n in range(len(moves)):
                        sx, sy, sz = x + moves[n, 0], y + moves[n, 1], z + moves[n, 2]
                        total += _length(sx, sy, sz) / edges[_place(sx, sy, sz, side, half, middle)]
                    total /= count
                    ratio[k, j, i] = total
                    if total <= low:
                        below += 1
                    elif total < high:
                        close[many] = total
                        many += 1
                else:
                    ratio[k, j, i] = np.inf
    return ratio.T, inside, below, close[:many].copy()


@kernel
def _shares(
    ai: Any, aj: Any, ak: Any, moves: Any, reach: Any, ratio: Any, scale: Any, widest: Any, blur: Any, table: Any
) -> Any:
    alpha = np.empty(ratio.shape, np.float32)
    side, edges, count = len(reach), reach.ravel(), np.float32(len(moves))
    half = np.float32((side - 1) / 2)
    middle = np.float32(np.float64(half) + 0.5)
    for k in range(ratio.shape[0]):
        for j in range(ratio.shape[1]):
            px, py, pz = ak[0, k] + aj[0, j], ak[1, k] + aj[1, j], ak[2, k] + aj[2, j]
            for i in range(ratio.shape[2]):
                scaled = ratio[k, j, i] / scale
                if abs(scaled - _ONE) <= widest:
                    x, y, z = px + ai[0, i], py + ai[1, i], pz + ai[2, i]
                    share = np.float32(0)
                    for n in range(len(moves)):
                        sx, sy, sz = x + moves[n, 0], y + moves[n, 1], z + moves[n, 2]
                        away, edge = _length(sx, sy, sz), edges[_place(sx, sy, sz, side, half, middle)]
                        outside = away * (away - scale * edge) / _quadratic(blur, sx, sy, sz)
                        share += table[int(min(max(outside * _PER_STEP + _MIDDLE, np.float32(0)), _LAST))]
                    alpha[k, j, i] = share / count
                else:
                    alpha[k, j, i] = _ONE if scaled < _ONE - widest else np.float32(0)
    return alpha


@kernel
def _depths(ai: Any, aj: Any, ak: Any, ratio: Any, scale: Any, stretch: Any) -> Any:
    radius, depth = np.zeros(ratio.shape, np.float32), np.zeros(ratio.shape, np.float32)
    for k in range(ratio.shape[0]):
        for j in range(ratio.shape[1]):
            px, py, pz = ak[0, k] + aj[0, j], ak[1, k] + aj[1, j], ak[2, k] + aj[2, j]
            for i in range(ratio.shape[2]):
                if abs(ratio[k, j, i]) < np.inf:
                    x, y, z = px + ai[0, i], py + ai[1, i], pz + ai[2, i]
                    here, away = ratio[k, j, i] / scale, _length(x, y, z)
                    radius[k, j, i] = here
                    steep = _quadratic(stretch, x, y, z)
                    depth[k, j, i] = away * away * (_ONE / max(here, np.float32(1e-3)) - _ONE) / steep
    return radius, depth
