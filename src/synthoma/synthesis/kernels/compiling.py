"""How kernels are compiled: kept on disk where there is a place for them, no fast math, one thread.

Compiling takes seconds, so kernels are few and plain. They allocate nothing: what they fill, and what they need on the
way, is handed to them, since numba compiles each way to make an array for itself. Arrays are flat, and places in them
numbers without a sign: a negative one would be a place counted from the end, and a loop that has to ask for it does
not become instructions on vectors.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from synthoma.volume import Array

log = logging.getLogger(__name__)
_NEXT = np.uint64(1)
_KEPT = 8
_known: tuple[tuple[weakref.ref[Array], Array], ...] = ()
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


def spans(alpha: Array) -> Array:
    """Of each row along I of shares (I, J, K): the place of its first value above 0 and the one behind its last.

    Places in the flat array of (K, J, I), uint64 (2 rows); both are the same if a row has no such value. Found once for
    an array, which nobody may write into from then on.
    """
    known = known_spans(alpha)
    if known is None:
        known = shrunk_spans(alpha, whole_rows(alpha))
    return known


def whole_rows(values: Array) -> Array:
    """Spans of all values (I, J, K)."""
    ends = np.arange(values.shape[1] * values.shape[2] + 1, dtype=np.uint64) * np.uint64(len(values))
    return np.stack([ends[:-1], ends[1:]], axis=1).reshape(-1)


def known_spans(values: Array) -> Array | None:
    """What was kept for this very array."""
    return next((found for array, found in _known if array() is values), None)


def keep_spans(values: Array, found: Array) -> Array:
    """The spans, kept while the array lives and is among the last ones."""
    global _known
    alive = [known for known in _known if known[0]() is not None]
    _known = ((weakref.ref(values), found), *alive[: _KEPT - 1])
    return found


def shrunk_spans(alpha: Array, within: Array) -> Array:
    """`spans` where nothing lies outside of `within`, which is written over; kept."""
    _shrink(dense(alpha, np.float32).reshape(-1), within)
    return keep_spans(alpha, within)


@kernel
def _shrink(shares: Any, found: Any) -> None:
    for row in range(len(found) // 2):
        first, behind = found[2 * row], found[2 * row + 1]
        while first < behind and not shares[first] > 0:
            first += _NEXT
        while first < behind and not shares[behind - _NEXT] > 0:
            behind -= _NEXT
        found[2 * row], found[2 * row + 1] = first, behind
