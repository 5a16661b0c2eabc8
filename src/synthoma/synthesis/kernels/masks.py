"""Compiled kernels on masks: what lies near, pieces and holes. Arrays are (K, J, I) here, contiguous, bool as uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, NamedTuple

import edt
import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.kernels.compiling import kernel, part
from synthoma.volume import Array, Triple, triple

Bools = NDArray[np.bool_]
Words = NDArray[np.uint64]
_NO_BIT, _BIT, _LAST_BIT, _ALL = np.uint64(0), np.uint64(1), np.uint64(63), np.uint64(2**64 - 1)
# multiplied with this, the powers of two differ in their upper six bits: a de Bruijn sequence
_SPREAD = 0x03F79D71B4CB0A89
_PLACES = np.zeros(64, np.int32)
_PLACES[[(_SPREAD << n) % 2**64 >> 58 for n in range(64)]] = np.arange(64)


@dataclass(frozen=True, eq=False)
class Bits:
    """A mask with 64 voxels of a row in a word: many times smaller, and so are steps from one mask to the next.

    words: (K, J, words of a row), the first voxel in the lowest bit, no bit behind the last one. length: along I.
    """

    words: Words
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the voxels, (K, J, I)."""
        return (*self.words.shape[:2], self.length)

    def any(self) -> bool:
        """Whether there is any voxel."""
        return bool(self.words.any())

    def __and__(self, other: Bits) -> Bits:
        return Bits(self.words & other.words, self.length)

    def __or__(self, other: Bits) -> Bits:
        return Bits(self.words | other.words, self.length)

    def __invert__(self) -> Bits:
        return Bits(_only(~self.words, self.length), self.length)


def packed(mask: Bools | Bits) -> Bits:
    """As `reference.packed`."""
    return mask if isinstance(mask, Bits) else Bits(_packed(mask), len(mask))


def unpacked(mask: Bools | Bits) -> Bools:
    """As `reference.unpacked`."""
    return _unpacked(mask.words, mask.length) if isinstance(mask, Bits) else mask


def _as_given(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which takes and gives bits, for a mask, bool or bits, of which it gives the same kind."""

    @wraps(function)
    def either(mask: Bools | Bits, *more: Any) -> Any:
        found = function(packed(mask), *more)
        return found if found is None or isinstance(mask, Bits) else unpacked(found)

    return either


@_as_given
def near(mask: Bits, spacing_mm: Sequence[float], radius_mm: float) -> Bits:
    """As `reference.near`."""
    return Bits(_only(_near_words(mask.words.copy(), spacing_mm, radius_mm), mask.length), mask.length)


@_as_given
def widened(mask: Bits, steps: Triple) -> Bits:
    """As `reference.widened`."""
    return Bits(_only(_widened(mask.words, steps), mask.length), mask.length)


@_as_given
def room_of(organ: Bits, fat: Bools | Bits, steps: Triple, spacing_mm: Sequence[float], radius_mm: float) -> Bits:
    """As `reference.room_of`."""
    free = _only(_widened(organ.words, steps) | packed(fat).words, organ.length)
    core = _near_words(free.copy(), spacing_mm, radius_mm)
    rest = _only(~_near_words(_only(~core, organ.length), spacing_mm, radius_mm), organ.length)
    return Bits(free | rest, organ.length)


@_as_given
def enclosed(label: Bits, spacing_mm: Sequence[float], radius_mm: float) -> Bits:
    """As `reference.enclosed`."""
    result, words = np.zeros_like(label.words), label.words
    own = _around(words)
    if own is None:
        return label
    (i, j, k), (i_end, j_end, k_end) = own
    length, margin = i_end - i, [int(radius_mm / step) + 2 for step in spacing_mm]
    inner = _only(_moved(words[k:k_end, j:j_end], -i, -(-length // 64)), length)
    wide = length + 2 * margin[0]
    padded = np.zeros((k_end - k + 2 * margin[2], j_end - j + 2 * margin[1], -(-wide // 64)), np.uint64)
    middle = padded[margin[2] : -margin[2], margin[1] : -margin[1]]
    middle[...] = _moved(inner, margin[0], padded.shape[2])
    outside = _only(~_near_words(padded, spacing_mm, radius_mm), wide)
    back = _near_words(outside, spacing_mm, radius_mm)[margin[2] : -margin[2], margin[1] : -margin[1]]
    closed = Bits(_only(inner | ~_moved(back, -margin[0], inner.shape[2]), length), length)
    # a hole in an axial slice is one, even if it is a tunnel
    filled = _without(_without(closed, np.asarray(inner.any(axis=(1, 2))), across=False))
    result[k:k_end, j:j_end] = _moved(filled.words, i, words.shape[2])
    return Bits(result, label.length)


@_as_given
def largest_piece(label: Bits) -> Bits | None:
    """As `reference.largest_piece`."""
    runs = _runs(label)
    roots = _roots(runs, outward=False, across=True)
    if roots.max() <= 1:
        return None
    sizes = np.bincount(roots[1:], runs.ends - runs.starts)
    return _painted(np.zeros_like(label.words), runs, roots[1:] == np.argmax(sizes))


@_as_given
def without_holes(label: Bits) -> Bits:
    """As `reference.without_holes`."""
    return _without(label)


@_as_given
def without_holes_in_slices(label: Bits, slices: Bools) -> Bits:
    """As `reference.without_holes_in_slices`."""
    return _without(label, slices, across=False)


def _without(label: Bits, slices: Bools | None = None, across: bool = True) -> Bits:
    """The label and the background, of some slices or of all, that no way leads out of; across: along K too."""
    runs = _runs(~label)
    enclosed = _roots(runs, outward=True, across=across)[1:] > 0
    if slices is not None and enclosed.any():
        enclosed &= np.repeat(slices, np.diff(runs.first[:: runs.shape[1]]))
    return _painted(label.words, runs, enclosed)


class _Runs(NamedTuple):
    """Runs of a mask's voxels along I, as places in the flat array of its shape (K, J, I).

    first (rows + 1): the number of the first run of each row.
    """

    starts: Array
    ends: Array
    first: Array
    shape: tuple[int, ...]


def _runs(mask: Bits) -> _Runs:
    layers, rows, _ = mask.shape
    starts, ends = np.empty((2, mask.words.size * 32), np.int32)  # there are no more
    first = np.zeros(layers * rows + 1, np.int64)
    _find_runs(mask.words.reshape(layers * rows, -1), mask.length, starts, ends, first)
    return _Runs(starts[: first[-1]], ends[: first[-1]], first, (layers, rows, mask.length))


def _roots(runs: _Runs, outward: bool, across: bool) -> Array:
    """Of the outside, node 0, and of each run, from 1, the lowest node that a way leads to, from face to face."""
    parent = np.arange(len(runs.starts) + 1)
    _join(parent, runs.starts, runs.ends, runs.first, *runs.shape, outward, across)
    return parent


def _painted(words: Words, runs: _Runs, chosen: Bools) -> Bits:
    """A mask (words) and the voxels of the chosen runs."""
    if chosen.any():
        words = words.copy()
        _paint(words.reshape(-1), runs.starts[chosen], runs.ends[chosen], runs.shape[2])
    return Bits(words, runs.shape[2])


def _packed(mask: Bools) -> Words:
    """A mask with 64 voxels of a row in a word, (K, J, words), the first voxel in the lowest bit."""
    words = -(-len(mask) // 64)
    whole = np.zeros((*mask.T.shape[:2], 64 * words), np.bool_)
    whole[..., : len(mask)] = mask.T
    packed = np.packbits(whole, bitorder="little").view("<u8")  # in one piece: row by row takes three times as long
    return packed.astype(np.uint64, copy=False).reshape(*whole.shape[:2], words)


def _only(words: Words, length: int) -> Words:
    """The words, in place, without bits behind the length of a row."""
    if length % 64:
        words[..., -1] &= np.uint64((1 << length % 64) - 1)
    return words


def _moved(words: Words, by: int, count: int) -> Words:
    """Rows of so many words with each bit so many places on, backwards if it is negative."""
    whole, rest = divmod(by, 64)
    found = np.zeros((*words.shape[:2], count), np.uint64)
    for m in range(max(0, whole), min(count, whole + words.shape[2])):
        found[..., m] = words[..., m - whole] << np.uint64(rest)
    for m in range(max(0, whole + 1), min(count, whole + 1 + words.shape[2]) if rest else 0):
        found[..., m] |= words[..., m - whole - 1] >> np.uint64(64 - rest)
    return found


def _widened(words: Words, steps: Triple) -> Words:
    """Rows with what lies up to so many voxels away along I, J and K; bits behind the length of a row too."""
    found = words.copy()
    for step in range(1, steps[0] + 1):
        found |= _moved(words, step, words.shape[2])
        found |= _moved(words, -step, words.shape[2])
    for axis, most in ((1, steps[1]), (0, steps[2])):
        source = found.swapaxes(axis, 0)
        result = source.copy()
        for step in range(1, min(most, len(source) - 1) + 1):
            result[step:] |= source[:-step]
            result[:-step] |= source[step:]
        found = result.swapaxes(axis, 0)
    return np.ascontiguousarray(found)


def _around(words: Words) -> tuple[Triple, Triple] | None:
    """The first voxel of the box around all bits, (I, J, K), and the one behind the last; None if there is no bit."""
    ends = []
    bits = np.unpackbits(np.bitwise_or.reduce(words, axis=(0, 1)).astype("<u8").view(np.uint8), bitorder="little")
    for filled in (bits, words.any(axis=(0, 2)), words.any(axis=(1, 2))):
        places = np.flatnonzero(filled)
        if not len(places):
            return None
        ends.append((int(places[0]), int(places[-1]) + 1))
    return triple([low for low, _ in ends]), triple([high for _, high in ends])


def _near_words(wide: Words, spacing_mm: Sequence[float], radius_mm: float) -> Words:
    """`near` on rows of words, which are written over; bits behind the length of a row too."""
    depth, row, widths = _ball(tuple(spacing_mm), float(radius_mm))
    found, holds = np.zeros_like(wide), wide[..., 0] != _NO_BIT
    for n in range(1, wide.shape[2]):
        holds |= wide[..., n] != _NO_BIT
    _near(wide, holds, depth, row, widths, found)
    return found


def _unpacked(words: Words, length: int) -> Bools:
    packed = words.astype("<u8", copy=False).view(np.uint8)
    voxels = np.unpackbits(packed, axis=-1, count=length, bitorder="little")
    return np.asarray(voxels.view(np.bool_).T)


@lru_cache(maxsize=32)
def _ball(spacing_mm: tuple[float, ...], radius_mm: float) -> tuple[Array, Array, Array]:
    """Rows of a ball of voxels: steps along K and J, and how far each reaches along I on both sides; narrow ones first.

    Measured by the distance transform, whose rounding decides on voxels that lie just on the ball.
    """
    i, j, k = (int(radius_mm / spacing) + 1 for spacing in spacing_mm)
    alone = np.ones((2 * i + 1, 2 * j + 1, 2 * k + 1), bool)
    alone[i, j, k] = False
    ball = edt.edt(alone, anisotropy=spacing_mm, black_border=False) <= radius_mm
    lengths = ball.sum(axis=0)
    at = np.argwhere(lengths > 0)
    widths = (lengths[at[:, 0], at[:, 1]] - 1) // 2
    order = np.argsort(widths, kind="stable")
    return at[order, 1] - k, at[order, 0] - j, widths[order].astype(np.int64)


@kernel
def _near(wide: Any, holds: Any, depth: Any, row: Any, widths: Any, found: Any) -> None:
    """wide: words, widened step by step; holds: whether a row has any bit."""
    layers, rows, count = wide.shape
    width = 0
    for n in range(len(widths)):
        while width < widths[n]:
            width += 1
            for k in range(layers):
                for j in range(rows):
                    before = _NO_BIT  # what lies beyond a row's end never comes back into it
                    for m in range(count if holds[k, j] else 0):
                        here = wide[k, j, m]
                        after = wide[k, j, m + 1] if m + 1 < count else _NO_BIT
                        wide[k, j, m] = here | here << _BIT | here >> _BIT | before >> _LAST_BIT | after << _LAST_BIT
                        before = here
        for k in range(max(0, -depth[n]), min(layers, layers - depth[n])):
            for j in range(max(0, -row[n]), min(rows, rows - row[n])):
                if holds[k + depth[n], j + row[n]]:
                    for m in range(count):
                        found[k, j, m] |= wide[k + depth[n], j + row[n], m]


@part
def _place(word: Any) -> int:
    """The lowest set bit."""
    lowest = word & (~word + _BIT)
    return _PLACES[lowest * np.uint64(_SPREAD) >> np.uint64(58)]  # type: ignore[no-any-return]


@kernel
def _find_runs(words: Any, length: int, starts: Any, ends: Any, first: Any) -> None:
    start = end = 0
    for row in range(words.shape[0]):
        before = _NO_BIT
        for m in range(words.shape[1]):
            here = words[row, m]
            after = words[row, m + 1] if m + 1 < words.shape[1] else _NO_BIT
            begins, stops = here & ~(here << _BIT | before >> _LAST_BIT), here & ~(here >> _BIT | after << _LAST_BIT)
            at = row * length + 64 * m
            while begins != _NO_BIT:
                starts[start] = at + _place(begins)
                start += 1
                begins &= begins - _BIT
            while stops != _NO_BIT:
                ends[end] = at + _place(stops) + 1
                end += 1
                stops &= stops - _BIT
            before = here
        first[row + 1] = start


@kernel
def _join(
    parent: Any, starts: Any, ends: Any, first: Any, layers: int, rows: int, length: int, outward: bool, across: bool
) -> None:
    """Nodes that touch get one root, the lowest: 0 is the outside, which only `outward` counts, 1 the first run."""
    for row in range(layers * rows):
        k, j = row // rows, row % rows
        is_outside = j == 0 or j == rows - 1 or (across and (k == 0 or k == layers - 1))
        for step in range(3):  # to the outside, to the row before, to the layer before
            other_row = row - (0, 1, rows)[step]
            if (step == 0 and not outward) or (step == 1 and j == 0) or (step == 2 and (not across or k == 0)):
                continue
            n, m, shift = first[row], first[other_row], (row - other_row) * length
            while n < first[row + 1] and m < first[other_row + 1]:
                if step == 0:
                    touches = is_outside or starts[n] == row * length or ends[n] == (row + 1) * length
                else:
                    touches = starts[n] < ends[m] + shift and starts[m] + shift < ends[n]
                if touches:
                    one, other = n + 1, m + 1 if step else 0
                    while parent[one] != one:
                        parent[one] = parent[parent[one]]
                        one = parent[one]
                    while parent[other] != other:
                        parent[other] = parent[parent[other]]
                        other = parent[other]
                    parent[max(one, other)] = min(one, other)
                if step == 0 or ends[n] < ends[m] + shift:
                    n += 1
                else:
                    m += 1
    for n in range(len(parent)):  # a parent is never behind its node
        parent[n] = parent[parent[n]]


@kernel
def _paint(words: Any, starts: Any, ends: Any, length: int) -> None:
    """Sets the bits of runs; a run lies in one row."""
    of_row = (length + 63) // 64
    for n in range(len(starts)):
        row, first = starts[n] // length, starts[n] % length
        last = first + ends[n] - starts[n] - 1
        for m in range(first // 64, last // 64 + 1):
            low, high = np.uint64(max(first - 64 * m, 0)), np.uint64(min(last - 64 * m, 63))
            words[row * of_row + m] |= (_ALL >> (_LAST_BIT - high)) & (_ALL << low)
