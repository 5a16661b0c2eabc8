"""The one clock of the benchmarks: CPU seconds, since machines are shared and noisy; and a unit to compare by."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The least CPU time, of all threads, of some repeats: noise on a shared machine only adds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def unit_seconds() -> float:
    """CPU seconds of the calibration unit: a Gaussian filter of SD 3 over a float32 cube of 256^3, best of three.

    Machines differ, and the same one by two within minutes: figures measured in one run are compared in these units.
    """
    import numpy as np
    from scipy import ndimage

    cube = np.random.default_rng(0).standard_normal((256, 256, 256), np.float32)
    return seconds(lambda: ndimage.gaussian_filter(cube, 3.0))
