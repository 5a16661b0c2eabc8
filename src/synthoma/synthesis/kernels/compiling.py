"""How kernels are compiled: kept on disk where there is a place for them, no fast math, one thread.

Compiling takes seconds, so kernels are few and plain. They allocate nothing: what they fill, and what they need on the
way, is handed to them, since numba compiles each way to make an array for itself. Arrays are flat, and places in them
numbers without a sign: a negative one would be a place counted from the end, and a loop that has to ask for it does
not become instructions on vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from synthoma.volume import Array

log = logging.getLogger(__name__)
Kernel = Callable[..., Any]
_SETTINGS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}  # called by Python, and never by C


def kernel(function: Kernel) -> Any:
    """The function compiled when it is first called, once for all later runs where its folder can be written.

    numba looks for a place in NUMBA_CACHE_DIR, beside the module, and in the user's cache. Without any, every process
    compiles for itself. No fast math, so sums keep their order and every processor gives the same bytes.
    """
    try:
        return numba.njit(cache=True, **_SETTINGS)(function)
    except RuntimeError as error:  # "cannot cache function: no locator available"
        log.debug("%s", error)
        return numba.njit(**_SETTINGS)(function)


def part(function: Kernel) -> Any:
    """The function as kernels call it, compiled into each of them; Python cannot call it."""
    return numba.njit(no_cpython_wrapper=True, **_SETTINGS)(function)


def dense(values: Array, kind: Any) -> Array:
    """An array with its first axis fastest in memory, as kernels see it: (K, J, I), contiguous, writable, of one type.

    A copy unless it is that already, so that a kernel is compiled for one layout only.
    """
    turned = np.ascontiguousarray(values.T, kind)
    return turned if turned.flags.writeable else turned.copy()


def spans(shares: Array) -> Array:
    """Of each row along I of shares (K, J, I): the place of its first value above 0 and the one behind its last.

    Places in the flat array, uint64 (2 rows); both are those of the row's beginning if there is no such value.
    """
    found = np.empty(2 * shares.shape[0] * shares.shape[1], np.uint64)
    _find_spans(shares.reshape(-1), shares.shape[2], found)
    return found


@kernel
def _find_spans(shares: Any, length: int, found: Any) -> None:
    begin, step = np.uint64(0), np.uint64(length)
    for row in range(len(found) // 2):
        first, behind = np.int32(length), np.int32(0)
        for i in range(step):
            inside = shares[begin + i] > 0
            first = min(first, np.int32(i) if inside else np.int32(length))
            behind = max(behind, np.int32(i) + np.int32(1) if inside else np.int32(0))
        found[2 * row] = begin + np.uint64(min(first, behind))
        found[2 * row + 1] = begin + np.uint64(behind)
        begin += step
