"""How many items go to a worker at once: what takes milliseconds goes in batches, since a message costs as much."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_S = 0.25  # a batch is meant to take this long
MOST = 64  # items in a batch


class Batches:
    """Items in batches of one; of up to 64 once they are seen to take so little time that it makes no difference."""

    def __init__(self, indices: Sequence[int]) -> None:
        self._indices, self._at, self._size = indices, 0, 1

    def next(self, room: int) -> list[int]:
        """The next indices, none at the end; fewer towards it, so that `room` workers end together."""
        fair = max(1, (len(self._indices) - self._at) // (4 * room))
        batch = list(self._indices[self._at : self._at + min(self._size, fair)])
        self._at += len(batch)
        return batch

    def learn(self, seconds: float, count: int) -> None:
        """What a batch of so many took: the next are as many as fit into the time meant, at most twice as many."""
        fitting = int(BATCH_S * count / max(seconds, 1e-6))
        self._size = max(1, min(fitting, 2 * count, MOST))


def do_batch(task: Callable[[Item], Result], items: Sequence[Item]) -> tuple[float, list[Result]]:
    """How long the items took, in seconds, and their results."""
    start = time.perf_counter()
    results = [task(item) for item in items]
    return time.perf_counter() - start, results
