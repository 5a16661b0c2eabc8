"""Scans that recur in a data set, among thousands of cases: a coarse look at all pairs, a full one at few.

Identical pictures are one picture. The others are compared as coarse pictures in all orientations, which is a product
of matrices, and those that agree as finer ones in the orientation found, allowing for missing ends. In-silico patients
agree so often that this would still leave most pairs: each picture is compared in full (`fingerprint.compare`) with
those that it agrees with best, until a few were another scan. So the full comparisons grow with the number of cases.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthoma.datasets.fingerprint import (
    FINE,
    GRID,
    ORIENTATIONS,
    THRESHOLD,
    Floats,
    Views,
    blur_of,
    cells_between,
    compare,
    oriented,
    picture_of,
    similarity,
    structure,
    unit,
    views_of,
)
from synthoma.volume import Array

COARSE = 2.5  # blur, in cells, that is taken off for the quick looks
# Cells along an axis and least score of two quick looks, which do not search for missing slices. Real scans
# that lost 10 % of their slices at both ends reach 0.85 and 0.8.
QUICK = ((4, 0.75), (8, 0.6))
# The look between them, at the fine structure in 8 cells and with missing ends: the same scan scores 0.71 and more
# (real scans, up to 15 % off several faces), two in-silico patients 0.43 to 0.85. The LIKEST pictures, and all those
# that are SURE, are compared in full, the best first, until MISSES of them were another scan.
CELLS, ALIKE, SURE, LIKEST, MISSES = 8, 0.6, 0.9, 64, 4
ENDS = [(low * GRID / 24, GRID - high * GRID / 24) for low in range(0, 7, 2) for high in range(0, 7 - low, 2)]
TURNS = np.stack(
    [
        np.arange(CELLS**3).reshape(CELLS, CELLS, CELLS).transpose(order)[:: flips[0], :: flips[1], :: flips[2]].ravel()
        for order, flips in ORIENTATIONS
    ]
)
BLOCK = 32  # rows of a block whose products stay in the cache
Pairs = NDArray[np.intp]


class Duplicate(NamedTuple):
    """Two cases that hold the same scan; `score` is 1 for identical pictures."""

    first: str
    second: str
    score: float


def find_duplicates(
    ids: Sequence[str],
    fingerprints: Sequence[bytes],
    threshold: float = THRESHOLD,
    advance: Callable[[int], None] | None = None,
) -> list[Duplicate]:
    """Pairs of cases whose fingerprints score `threshold` or more, sorted by id.

    Empty fingerprints match nothing; one of another length is a `CaseError`. advance: called now and then with the
    number of fingerprints that have been compared with all others.
    """
    if len(ids) != len(fingerprints):
        raise ValueError(f"{len(ids)} ids for {len(fingerprints)} fingerprints")
    known = sorted((case, data) for case, data in zip(ids, fingerprints, strict=True) if data)
    if len(known) < 2:
        return []
    members: dict[bytes, list[str]] = {}
    for case, data in known:
        members.setdefault(data, []).append(case)
    pictures = np.stack([picture_of(data, cases[0]) for data, cases in members.items()])
    groups = list(members.values())

    alone = [(place, place) for place, group in enumerate(groups) if len(group) > 1]
    found = []
    for one, other, score in _compared(pictures, alone, _likely(pictures, groups, advance), threshold):
        if score >= threshold:
            both = itertools.combinations(groups[one], 2) if one == other else _crossed(groups[one], groups[other])
            found += [Duplicate(first, second, round(score, 3)) for first, second in both]
    return sorted(found)


def find_repeats(
    patients: Mapping[str, str], fingerprints: Mapping[str, bytes], threshold: float = THRESHOLD
) -> dict[str, list[str]]:
    """The first case of each scan -> further cases of the same patient that hold it, in order; only scans that recur.

    patients: case -> patient. Each case is compared with the different scans of its patient, so that a hundred copies
    of a scan cost a hundred comparisons.
    """
    scans: dict[str, list[str]] = {}
    repeats: dict[str, list[str]] = {}
    for case in sorted(fingerprints):
        if not fingerprints[case]:
            continue
        known = scans.setdefault(patients[case], [])
        for first in known:
            if fingerprints[first] == fingerprints[case] or (
                similarity(fingerprints[first], fingerprints[case]) >= threshold
            ):
                repeats.setdefault(first, []).append(case)
                break
        else:
            known.append(case)
    return repeats


def _crossed(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((min(pair), max(pair)) for pair in itertools.product(one, other))


def _compared(
    pictures: Array, alone: Sequence[tuple[int, int]], likely: Iterable[tuple[int, list[int]]], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Each pair that is compared in full, once, with its score: those `alone`, and likely ones until MISSES fail.

    likely: a picture, and others by falling likeness.
    """

    @lru_cache(maxsize=128)
    def views(index: int) -> Views:
        return views_of(pictures[index])

    for one, other in alone:
        yield one, other, compare(views(one), views(other))
    known: dict[tuple[int, int], bool] = {}
    for row, others in likely:
        misses = 0
        for other in others:
            pair = (min(row, other), max(row, other))
            if pair not in known:
                score = compare(views(pair[0]), views(pair[1])) if _agree(pictures, *pair) else 0.0
                known[pair] = score >= threshold
                yield *pair, score
            misses += not known[pair]
            if misses == MISSES:
                break


def _likely(
    pictures: Array, groups: Sequence[Sequence[str]], advance: Callable[[int], None] | None
) -> Iterator[tuple[int, list[int]]]:
    """Each picture with those it is like, the likest first: the LIKEST, and all that are surely the same scan."""
    coarse = structure(pictures, COARSE, QUICK[0][0])
    flat = unit(coarse.reshape(len(coarse), -1))
    fine = unit(structure(pictures, FINE, CELLS).reshape(len(pictures), -1))
    for start in range(0, len(flat), BLOCK):
        turned = oriented(coarse[start : start + BLOCK])
        block = (turned.reshape(-1, flat.shape[1]) @ flat.T).reshape(*turned.shape[:2], -1)
        turns = block.argmax(axis=1)
        agree = np.take_along_axis(block, turns[:, None], axis=1)[:, 0] >= QUICK[0][1]
        agree[np.arange(len(agree)), start + np.arange(len(agree))] = False
        for row, (places, turn) in enumerate(zip(agree, turns, strict=True), start=start):
            columns = np.flatnonzero(places)
            if len(columns):
                scores = _fine_scores(pictures[row], fine, columns, turn[columns])
                order = np.argsort(-scores, kind="stable")
                count = max(min(LIKEST, int((scores >= ALIKE).sum())), int((scores >= SURE).sum()))
                yield row, columns[order[:count]].tolist()
        if advance is not None:
            advance(sum(map(len, groups[start : start + BLOCK])))


def _fine_scores(picture: Array, fine: Floats, columns: Pairs, turns: Pairs) -> Floats:
    """How well the picture, or what remains of it without some ends, agrees with others, turned to them."""
    parts = _parts(picture)
    scores = np.empty(len(columns), np.float32)
    for turn in np.unique(turns):
        here = turns == turn
        scores[here] = (parts[:, TURNS[turn]] @ fine[columns[here]].T).max(axis=0)
    return scores


def _parts(picture: Array) -> Floats:
    """(parts, CELLS**3): the structure of what remains of a picture when one axis lost its ends."""
    take, blur = cells_between(0, GRID, GRID, CELLS), blur_of(FINE)
    sharp, smooth = _part_weights()
    parts = []
    for axis in range(3):
        plain = np.moveaxis(picture.astype(np.float32), axis, 0)
        less = take @ blur
        part = np.tensordot(sharp, take @ plain @ take.T, 1) - np.tensordot(smooth, less @ plain @ less.T, 1)
        parts.append(np.moveaxis(part, 1, axis + 1).reshape(len(ENDS), -1))
    return unit(np.concatenate(parts))


@lru_cache
def _part_weights() -> tuple[Floats, Floats]:
    """(ENDS, CELLS, GRID): what averages a part in cells along its axis, as it is and blurred."""
    take, windows = cells_between(0, GRID, GRID, CELLS), np.stack([cells_between(*ends, GRID) for ends in ENDS])
    return np.asarray(take @ windows, np.float32), np.asarray(take @ blur_of(FINE) @ windows, np.float32)


def _agree(pictures: Array, one: int, other: int) -> bool:
    """Whether finer pictures of two agree, before they are compared in full."""
    cells, least = QUICK[1]
    turned = oriented(structure(pictures[[one]], COARSE, cells))[0]
    return bool((turned @ unit(structure(pictures[[other]], COARSE, cells).ravel())).max() >= least)
