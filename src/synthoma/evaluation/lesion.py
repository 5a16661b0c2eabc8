"""Which true lesions were found, and which predicted ones are false: connected components matched one to one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from synthoma.cases import Lesion, label_lesions
from synthoma.evaluation.regions import Region
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
    ours, theirs = Components.of(truth, organ), Components.of(predicted, organ)
    shared = shared_voxels(ours, theirs)
    sizes = [np.array([lesion.voxels for lesion in side.lesions], float) for side in (ours, theirs)]
    iou = shared / np.maximum(sizes[0][:, None] + sizes[1] - shared, 1)
    allowed = shared > 0
    if rule == "iou":
        allowed &= iou > least_iou
    elif rule == "center":
        allowed = _centers_inside(ours, theirs, truth.geometry)
    pairs = _assign(np.where(allowed, 1e-9 + iou, 0))
    partner, back = dict(pairs), {p: t for t, p in pairs}
    taken = shared * np.isin(np.arange(len(sizes[1])), list(back))
    scores = {(t, p): (float(iou[t, p]), float(2 * shared[t, p] / (sizes[0][t] + sizes[1][p]))) for t, p in pairs}
    true_side = [
        _entry(lesion, "found", partner[t] + 1, scores[t, partner[t]])
        if t in partner
        else _entry(lesion, "merged" if taken[t].max(initial=0) >= MOST * lesion.voxels else "missed")
        for t, lesion in enumerate(ours.lesions)
    ]
    predicted_side = [
        _entry(lesion, "matched", back[p] + 1, scores[back[p], p])
        if p in back
        else _entry(lesion, "split" if shared[:, p].sum() >= MOST * lesion.voxels else "false")
        for p, lesion in enumerate(theirs.lesions)
    ]
    return Matching(tuple(true_side), tuple(predicted_side))


@dataclass(frozen=True, eq=False)
class Components:
    """The lesions of a region, largest first, and where they lie: boxes with each lesion's index in its voxels."""

    lesions: tuple[Lesion, ...]
    labels: tuple[tuple[Box, Array], ...]

    @classmethod
    def of(cls, region: Region, organ: str) -> Components:
        """Labels every block by itself: no lesion spans two."""
        found: list[tuple[Lesion, int]] = []
        labels = []
        for number, block in enumerate(region.blocks):
            lesions, marked, box = label_lesions(Volume(block.mask, region.geometry.crop(block.box)), organ)
            corner = block.box.lower
            labels.append((box.shift(corner), marked))
            found += [(replace(lesion, box=lesion.box.shift(corner)), number) for lesion in lesions]
        order = sorted(range(len(found)), key=lambda n: -found[n][0].voxels)
        ranks = [np.zeros(int(marked.max(initial=0)) + 1, np.int32) for _, marked in labels]
        for rank, n in enumerate(order, start=1):
            lesion, number = found[n]
            ranks[number][lesion.index] = rank
        return cls(
            tuple(replace(found[n][0], index=rank) for rank, n in enumerate(order, start=1)),
            tuple((box, table[marked]) for (box, marked), table in zip(labels, ranks, strict=True)),
        )


def shared_voxels(first: Components, second: Components) -> Array:
    """How many voxels each lesion of the one shares with each of the other (n, m)."""
    n, m = len(first.lesions), len(second.lesions)
    table = np.zeros((n + 1) * (m + 1))
    for box, labels in first.labels:
        for other_box, other in second.labels:
            shared = box.overlap(other_box)
            if shared is None:
                continue
            mine, theirs = labels[shared[0]], other[shared[1]]
            both = (mine > 0) & (theirs > 0)
            table += np.bincount(mine[both] * (m + 1) + theirs[both], minlength=table.size)
    return table.reshape(n + 1, m + 1)[1:, 1:]


def _centers_inside(truth: Components, predicted: Components, geometry: Geometry) -> Array:
    """Whether the voxel nearest to a predicted lesion's center belongs to a true one (n, m)."""
    inside = np.zeros((len(truth.lesions), len(predicted.lesions)), bool)
    for p, lesion in enumerate(predicted.lesions):
        center = np.rint(geometry.to_ijk(lesion.center_mm)).astype(int)
        for box, labels in truth.labels:
            place = center - box.lower
            if (place >= 0).all() and (place < labels.shape).all() and labels[tuple(place)]:
                inside[labels[tuple(place)] - 1, p] = True
    return inside


def _assign(gain: Array) -> list[tuple[int, int]]:
    """Pairs with a gain above 0, each row and column at most once, with the largest sum."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(int(t), int(p)) for t, p in zip(rows, columns, strict=True) if gain[t, p] > 0]


def _entry(lesion: Lesion, fate: str, partner: int = 0, scores: tuple[float, float] = (0.0, 0.0)) -> MatchedLesion:
    return MatchedLesion(lesion, fate, partner, *scores)
