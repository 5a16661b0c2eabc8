"""When a growing front arrives at each cell of a lattice: the eikonal equation |grad T| = slowness, step by step.

All cells take a step together, each from its neighbors' values of the step before, so the result depends on no order
of cells and no number of threads: one IEEE operation per cell and term. The scheme is Godunov's upwind one (Rouy and
Tourin, SIAM J. Numer. Anal. 29:867, 1992): first order, without the facets of growth from neighbor to neighbor.
"""

from __future__ import annotations

import numpy as np

from synthoma.volume import Array, Floats

NEVER = np.float32(1e6)  # the time of a cell that no front reaches


def arrival_times(start: Floats, delay: Floats, cells: int) -> Floats:
    """Time at which the front arrives at each cell; `NEVER` where it does not.

    start: float32 (I, J, K), the time where growth begins, `NEVER` elsewhere. delay: float32, the same shape, how long
    the front takes to cross a cell; `NEVER` for cells that stay free. cells: how many cells need their final time,
    the earliest ones; later ones may be left at a time that is too late.
    """
    time = np.pad(start, 1, constant_values=NEVER)
    open_ = np.pad(delay < NEVER, 1)
    step = np.pad(delay, 1, constant_values=NEVER)
    low, high = _bounds(time < NEVER)
    shape = np.array(time.shape)
    while True:
        low, high = np.maximum(low - 1, 1), np.minimum(high + 1, shape - 1)
        inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        new = np.minimum(_upwind(time, low, high, step[inner]), time[inner])
        new = np.where(open_[inner], new, time[inner])
        changed = new < time[inner]
        if not changed.any():
            break
        # a front moves on in time: what is earlier than all that still changes is final
        settled = new[changed].min()
        time[inner] = new
        if np.count_nonzero(time[inner] < settled) >= cells:
            break
    return np.ascontiguousarray(time[1:-1, 1:-1, 1:-1])


def _bounds(mask: Array) -> tuple[Array, Array]:
    """Lowest and highest + 1 index of the cells of a mask along each axis."""
    at = np.argwhere(mask)
    return at.min(axis=0), at.max(axis=0) + 1


def _upwind(time: Floats, low: Array, high: Array, step: Floats) -> Floats:
    """The arrival from the earlier neighbor along one, two or three axes, whichever of them come before it."""
    earlier = []
    for axis in range(3):
        before = tuple(slice(a - (n == axis), b - (n == axis)) for n, (a, b) in enumerate(zip(low, high, strict=True)))
        after = tuple(slice(a + (n == axis), b + (n == axis)) for n, (a, b) in enumerate(zip(low, high, strict=True)))
        earlier.append(np.minimum(time[before], time[after]))
    a, b, c = earlier
    first = np.minimum(np.minimum(a, b), c)
    last = np.maximum(np.maximum(a, b), c)
    middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    one = first + step
    apart = np.minimum(middle - first, step)
    two = np.float32(0.5) * (first + first + apart + np.sqrt(np.float32(2) * step * step - apart * apart))
    result = np.where(middle < one, two, one)
    three = np.flatnonzero(last < result)
    if three.size:
        f, s = first.ravel()[three], step.ravel()[three]
        m, l = middle.ravel()[three] - f, last.ravel()[three] - f
        total = m + l
        rest = np.maximum(total * total - np.float32(3) * (m * m + l * l - s * s), 0)
        result.ravel()[three] = f + (total + np.sqrt(rest)) / np.float32(3)
    return np.asarray(result)
