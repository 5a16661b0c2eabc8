"""The one clock of the benchmarks: CPU seconds, since machines are shared and noisy."""

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
