"""The compiled kernel of the mass effect: HU of voxels that come from elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from synthoma.synthesis.kernels.compiling import dense, kernel
from synthoma.synthesis.kernels.sums import running_means
from synthoma.volume import Array, Floats


def moved_hu(hu: Array, came_from: Floats) -> Floats:
    """As `reference.moved_hu`."""
    old = dense(hu, np.float32)
    slow, other, totals = old.copy(), np.empty_like(old), np.empty(math.prod(old.shape[1:]))
    slow = _slow(slow.reshape(-1), other.reshape(-1), old.shape, totals).reshape(old.shape)
    i, j, k = (np.array(axis, np.float32) for axis in came_from)
    return np.asarray(_moved(old, slow, i, j, k, hu.dtype == np.int16))


@kernel
def _slow(values: Any, other: Any, shape: Any, totals: Any) -> Any:
    return running_means(values, other, shape, 1, (3, 3, 3), totals)


@kernel
def _between(at: Any, count: int) -> Any:
    """The voxel before a position, the one after it, and both their shares, as scipy's map_coordinates takes them."""
    place = min(max(np.float64(at), 0.0), count - 1.0)
    low = int(np.floor(place))
    before = 1.0 - (place - np.floor(place))
    return low, min(low + 1, count - 1), before, 1.0 - before


@kernel
def _moved(old: Any, slow: Any, i: Any, j: Any, k: Any, whole: bool) -> Any:
    """scipy's linear interpolation to the letter: double precision, K the fastest of a voxel's eight neighbors."""
    found = np.empty(len(i), np.float32)
    layers, rows, length = old.shape
    half = np.float32(0.5)
    for n in range(len(i)):
        i0, i1, wi0, wi1 = _between(i[n], length)
        j0, j1, wj0, wj1 = _between(j[n], rows)
        k0, k1, wk0, wk1 = _between(k[n], layers)
        total = np.float64(slow[k0, j0, i0]) * wi0 * wj0 * wk0
        total += np.float64(slow[k1, j0, i0]) * wi0 * wj0 * wk1
        total += np.float64(slow[k0, j1, i0]) * wi0 * wj1 * wk0
        total += np.float64(slow[k1, j1, i0]) * wi0 * wj1 * wk1
        total += np.float64(slow[k0, j0, i1]) * wi1 * wj0 * wk0
        total += np.float64(slow[k1, j0, i1]) * wi1 * wj0 * wk1
        total += np.float64(slow[k0, j1, i1]) * wi1 * wj1 * wk0
        total += np.float64(slow[k1, j1, i1]) * wi1 * wj1 * wk1
        ni, nj, nk = int(np.floor(i[n] + half)), int(np.floor(j[n] + half)), int(np.floor(k[n] + half))
        value = np.float32(total) + (old[nk, nj, ni] - slow[nk, nj, ni])
        found[n] = np.rint(value) if whole else value
    return found
