"""Mirrored and turned crops come back as they were, and all sixteen come up."""

from __future__ import annotations

import numpy as np

from synthoma.learning.turns import Turn


def test_a_turned_array_comes_back_and_voxels_stay_neighbors() -> None:
    array = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    shapes = set()
    for seed in range(40):
        turn = Turn.draw(np.random.default_rng(seed))
        turned = turn(array)
        shapes.add(turned.shape)
        assert np.array_equal(turn.back(turned), array)
        assert turned.shape[2] == 5  # slices stay slices
        assert set(np.abs(np.diff(turned, axis=2)).ravel()) == {1}
    assert shapes == {(3, 4, 5), (4, 3, 5)}


def test_all_sixteen_turns_come_up() -> None:
    drawn = [Turn.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert len(set(drawn)) == 16
    array = np.arange(2 * 2 * 2).reshape(2, 2, 2)
    assert len({turn(array).tobytes() for turn in drawn}) == 16


def test_several_arrays_are_turned_alike() -> None:
    turn = Turn((True, False, True), True)
    array = np.random.default_rng(0).random((4, 3, 2))
    first, second = turn.all((array, array > 0.5))
    assert np.array_equal(first > 0.5, second)
    assert np.array_equal(first, array[::-1, :, ::-1].swapaxes(0, 1))
