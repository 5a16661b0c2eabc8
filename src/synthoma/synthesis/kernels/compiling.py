"""How kernels are compiled: kept on disk where there is a place for them, no fast math, one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from synthoma.volume import Array

log = logging.getLogger(__name__)
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """The function compiled when it is first called, once for all later runs where its folder can be written.

    numba looks for a place in NUMBA_CACHE_DIR, beside the module, and in the user's cache. Without any, every process
    compiles for itself. No fast math, so sums keep their order and every processor gives the same bytes.
    """
    settings = {"nogil": True, "error_model": "numpy"}
    try:
        made: Kernel = numba.njit(cache=True, **settings)(function)
    except RuntimeError as error:  # "cannot cache function: no locator available"
        log.debug("%s", error)
        made = numba.njit(**settings)(function)
    return made


def dense(values: Array, kind: Any) -> Array:
    """An array with its first axis fastest in memory, as kernels see it: (K, J, I), contiguous, writable, of one type.

    A copy unless it is that already, so that a kernel is compiled for one layout only.
    """
    turned = np.ascontiguousarray(values.T, kind)
    return turned if turned.flags.writeable else turned.copy()


@kernel
def filled(row: Any) -> Any:
    """From the first value above 0 of a row to behind the last one, without a sign; (0, 0) if there is none.

    Without a sign, since a loop over numbers that may be negative does not become instructions on vectors.
    """
    first, last = 0, len(row)
    while first < last and not row[first] > 0:
        first += 1
    while last > first and not row[last - 1] > 0:
        last -= 1
    return (np.uint64(first), np.uint64(last)) if first < last else (np.uint64(0), np.uint64(0))
