"""How many items go to a worker at once."""

from __future__ import annotations

import time

from synthoma.engine.batches import BATCH_S, MOST, Batches, do_batch


def test_items_that_take_long_go_alone() -> None:
    batches = Batches(range(10))
    sizes = []
    while batch := batches.next(room=2):
        sizes.append(len(batch))
        batches.learn(BATCH_S * len(batch), len(batch))
    assert sizes == [1] * 10


def test_quick_items_go_in_batches_that_grow_and_get_smaller_at_the_end() -> None:
    batches = Batches(range(1000))
    seen, sizes = [], []
    while batch := batches.next(room=2):
        seen += batch
        sizes.append(len(batch))
        batches.learn(1e-4 * len(batch), len(batch))
    assert seen == list(range(1000))
    assert sizes[:8] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert max(sizes) == MOST
    assert sizes[-3:] == [1, 1, 1]


def test_one_slow_batch_makes_the_next_small() -> None:
    batches = Batches(range(1000))
    batches.learn(1e-3 * 64, 64)
    assert len(batches.next(1)) == MOST
    batches.learn(10 * BATCH_S, 64)
    assert len(batches.next(1)) == 6
    batches.learn(BATCH_S * 10, 1)
    assert len(batches.next(1)) == 1


def test_a_batch_says_how_long_it_took() -> None:
    def square(number: int) -> int:
        time.sleep(0.01)
        return number**2

    seconds, results = do_batch(square, [1, 2, 3])
    assert results == [1, 4, 9]
    assert 0.03 <= seconds < 10
