"""Which true lesions were found, and which predicted ones are false: connected components matched one to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from synthoma.cases import Lesion, label_lesions
from synthoma.components import parts_of
from synthoma.evaluation.regions import Boxes, Region
from synthoma.volume import Array, Box, Geometry, Volume

Rule = Literal["iou", "overlap", "center"]
# A component with this share of its voxels in the other mask belongs to it, though it is not matched to one of it.
MOST = 0.5


@dataclass(frozen=True)
class MatchedLesion:
    """A lesion and what became of it.

    fate: of a true lesion `found`, `merged` (most of it lies in a prediction that was matched to another one) or
    `missed`; of a predicted one `matched`, `split` (most of it lies in true lesions, none of which it was matched to)
    or `false`. partner: the index of the lesion it was matched to, 0 if none; iou, dsc: with it, 0 without.
    """

    lesion: Lesion
    fate: str
    partner: int = 0
    iou: float = 0.0
    dsc: float = 0.0


@dataclass(frozen=True)
class Matching:
    """The true and the predicted lesions of one structure in one case, largest first."""

    truth: tuple[MatchedLesion, ...]
    predicted: tuple[MatchedLesion, ...]

    def count(self, fate: str) -> int:
        """How many lesions of either side met this fate."""
        return sum(entry.fate == fate for entry in (*self.truth, *self.predicted))


def match_lesions(truth: Region, predicted: Region, organ: str, rule: Rule = "iou", least_iou: float = 0.1) -> Matching:
    """True and predicted lesions, matched one to one so that the sum of their IoU is largest.

    rule: which pairs may be matched: those that share a voxel and whose IoU is above `least_iou` (`iou`), that share a
    voxel (`overlap`), or where the prediction's center lies in the true lesion (`center`).
    """
    return match_components(Components.of(truth, organ), Components.of(predicted, organ), rule, least_iou)


def match_components(ours: Components, theirs: Components, rule: Rule = "iou", least_iou: float = 0.1) -> Matching:
    """`match_lesions` of lesions that were found before."""
    pairs, shared, merged, split = _fates(ours, theirs, rule, least_iou)
    partner, back = dict(pairs), {p: t for t, p in pairs}
    scores = _pair_scores(pairs, shared, [ours.sizes, theirs.sizes])
    true_side = [
        _entry(lesion, "found", partner[t] + 1, scores[t, partner[t]])
        if t in partner
        else _entry(lesion, "merged" if merged[t] else "missed")
        for t, lesion in enumerate(ours.lesions)
    ]
    predicted_side = [
        _entry(lesion, "matched", back[p] + 1, scores[back[p], p])
        if p in back
        else _entry(lesion, "split" if split[p] else "false")
        for p, lesion in enumerate(theirs.lesions)
    ]
    return Matching(tuple(true_side), tuple(predicted_side))


def count_found(ours: Components, theirs: Components, rule: Rule = "iou", least_iou: float = 0.1) -> tuple[int, int]:
    """How many true lesions `match_components` finds, and how many predicted ones are false."""
    pairs, _, _, split = _fates(ours, theirs, rule, least_iou)
    split[[p for _, p in pairs]] = False
    return len(pairs), len(theirs.sizes) - len(pairs) - int(split.sum())


def _fates(
    ours: Components, theirs: Components, rule: Rule, least_iou: float
) -> tuple[list[tuple[int, int]], Shared, Array, Array]:
    """Matched pairs; shared voxels; which true lesions lie in a matched one, which predicted ones in true lesions."""
    n, m = len(ours.sizes), len(theirs.sizes)
    shared, sizes = shared_voxels(ours, theirs), [ours.sizes, theirs.sizes]
    iou = shared.voxels / np.maximum(sizes[0][shared.first] + sizes[1][shared.second] - shared.voxels, 1)
    if rule == "center":
        allowed = _centers_inside(ours, theirs)
        values = dict(zip(zip(shared.first.tolist(), shared.second.tolist(), strict=True), iou.tolist(), strict=True))
        pairs = _assign(
            allowed[0], allowed[1], np.array([values.get(pair, 0.0) for pair in zip(*allowed, strict=True)])
        )
    else:
        kept = iou > least_iou if rule == "iou" else np.ones(len(iou), bool)
        pairs = _assign(shared.first[kept], shared.second[kept], iou[kept])
    merged = np.zeros(n, bool)
    taken = np.isin(shared.second, [p for _, p in pairs]) & (shared.voxels >= MOST * sizes[0][shared.first])
    merged[shared.first[taken]] = True
    split = np.bincount(shared.second, shared.voxels, m) >= MOST * sizes[1]
    return pairs, shared, merged, split


@dataclass(frozen=True, eq=False)
class Components:
    """The lesions of a region, largest first, and where they lie: boxes with each lesion's index in its voxels.

    sizes: voxels of each, float; centers_mm (n, 3). lesions: as objects; () where they were only counted.
    """

    geometry: Geometry
    sizes: Array
    centers_mm: Array
    labels: tuple[tuple[Box, Array], ...]
    lesions: tuple[Lesion, ...] = ()

    @classmethod
    def of(cls, region: Region, organ: str) -> Components:
        """Labels every block by itself: no lesion spans two."""
        blocks = [label_lesions(Volume(block.mask, region.geometry.crop(block.box)), organ) for block in region.blocks]
        lesions = [
            replace(lesion, box=lesion.box.shift(block.box.lower))
            for block, (found, _, _) in zip(region.blocks, blocks, strict=True)
            for lesion in found
        ]
        sizes = [np.array([lesion.voxels for lesion in found], np.int64) for found, _, _ in blocks]
        marked = [(labels, box) for _, labels, box in blocks]
        centers = np.array([lesion.center_mm for lesion in lesions]).reshape(-1, 3)
        ranked, order = cls._ranked(region, sizes, centers, marked)
        return replace(
            ranked, lesions=tuple(replace(lesions[n], index=rank) for rank, n in enumerate(order.tolist(), start=1))
        )

    @classmethod
    def counted(cls, region: Region) -> Components:
        """The same without the lesions as objects."""
        parts = [parts_of(Volume(block.mask, region.geometry.crop(block.box))) for block in region.blocks]
        centers = np.concatenate([np.zeros((0, 3)), *(each.centers_mm for each in parts)])
        marked = [(each.ranked, each.box) for each in parts]
        return cls._ranked(region, [each.sizes for each in parts], centers, marked)[0]

    @classmethod
    def _ranked(
        cls, region: Region, sizes: list[Array], centers_mm: Array, marked: list[tuple[Array, Box]]
    ) -> tuple[Components, Array]:
        """Lesions of all blocks by falling size, and the order that makes them so. marked: 1, 2, ... in each block."""
        voxels = np.concatenate([np.zeros(0, np.int64), *sizes])
        order = np.argsort(-voxels, kind="stable")
        ranks = np.zeros(len(voxels), np.int32)
        ranks[order] = np.arange(1, len(voxels) + 1)
        starts = np.cumsum([0, *(len(each) for each in sizes)])
        labels = tuple(
            (box.shift(block.box.lower), np.append(np.int32(0), ranks[start:end])[numbers])
            for block, (numbers, box), start, end in zip(region.blocks, marked, starts[:-1], starts[1:], strict=True)
        )
        return cls(region.geometry, voxels[order].astype(float), centers_mm[order], labels), order


class Shared(NamedTuple):
    """Pairs of lesions that share a voxel: number of the first and of the second, from 0, and how many they share."""

    first: Array
    second: Array
    voxels: Array


def shared_voxels(first: Components, second: Components) -> Shared:
    """How many voxels each lesion of the one shares with each of the other; pairs by number, those without left out."""
    places = Boxes([box for box, _ in second.labels])
    width = len(second.sizes) + 1
    codes, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for box, labels in first.labels:
        for number in places.meeting(box):
            other_box, other = second.labels[number]
            shared = box.overlap(other_box)
            assert shared is not None
            mine, theirs = labels[shared[0]], other[shared[1]]
            both = (mine > 0) & (theirs > 0)
            code, count = np.unique(mine[both].astype(np.int64) * width + theirs[both], return_counts=True)
            codes.append(code)
            counts.append(count)
    code, place = np.unique(np.concatenate(codes), return_inverse=True)
    voxels = np.bincount(place, np.concatenate(counts), len(code))
    return Shared(code // width - 1, code % width - 1, voxels)


def _pair_scores(
    pairs: list[tuple[int, int]], shared: Shared, sizes: list[Array]
) -> dict[tuple[int, int], tuple[float, float]]:
    """IoU and DSC of matched pairs."""
    voxels = dict(zip(zip(shared.first.tolist(), shared.second.tolist(), strict=True), shared.voxels, strict=True))
    scores = {}
    for t, p in pairs:
        both, total = float(voxels.get((t, p), 0.0)), float(sizes[0][t] + sizes[1][p])
        scores[t, p] = both / (total - both), 2 * both / total
    return scores


def _centers_inside(truth: Components, predicted: Components) -> tuple[list[int], list[int]]:
    """Pairs, from 0, of a true lesion and a predicted one whose center falls into a voxel of it."""
    centers = truth.geometry.to_ijk(predicted.centers_mm)
    places = np.rint(np.round(centers, 6)).astype(int)  # halfway between two voxels the last bits must not decide
    pairs: list[tuple[int, int]] = []
    for box, labels in truth.labels:
        inside = np.flatnonzero(((places >= box.lower) & (places < box.upper)).all(axis=1))
        found = labels[tuple((places[inside] - box.lower).T)]
        pairs += zip((found[found > 0] - 1).tolist(), inside[found > 0].tolist(), strict=True)
    return [t for t, _ in pairs], [p for _, p in pairs]


def _assign(first: Sequence[int] | Array, second: Sequence[int] | Array, gain: Array) -> list[tuple[int, int]]:
    """Of the pairs given, those with the largest sum of gains, each number of either side at most once.

    A pair without gain counts a little. Pairs that are linked by no lesion do not meet: each group of linked ones is
    solved by itself, so that cost follows the pairs and not the product of the two counts.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(gain) == 0:
        return []
    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    size = len(rows) + len(columns)
    graph = coo_array((np.ones(len(gain)), (row, len(rows) + column)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][row]
    order = np.argsort(group, kind="stable")
    pairs = []
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        ours, a = np.unique(row[part], return_inverse=True)
        theirs, b = np.unique(column[part], return_inverse=True)
        table = np.zeros((len(ours), len(theirs)))
        table[a, b] = 1e-9 + gain[part]
        for t, p in zip(*linear_sum_assignment(table, maximize=True), strict=True):
            if table[t, p] > 0:
                pairs.append((int(rows[ours[t]]), int(columns[theirs[p]])))
    return pairs


def _entry(lesion: Lesion, fate: str, partner: int = 0, scores: tuple[float, float] = (0.0, 0.0)) -> MatchedLesion:
    return MatchedLesion(lesion, fate, partner, *scores)
