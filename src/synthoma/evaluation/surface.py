"""Distances between two surfaces, weighted by area: NSD at tolerances, HD95, ASSD.

Surface elements lie at the corners of voxels (see `surfels`); an element's distance is that to the nearest element of
the other surface. Near ones are found by looking around each element up to the largest tolerance, far ones by a
distance transform of the box around both, or by a k-d tree where they are few: whichever is expected to cost less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from synthoma.evaluation.regions import Block, Boxes, Region, copy_overlap
from synthoma.evaluation.surfels import areas_mm2, codes
from synthoma.volume import Array, Box, Geometry, triple

# Headers hold spacings as float32, and turning a grid rounds: a distance this much longer than a tolerance is within.
SLACK_MM = 1e-5

# Seconds: of one look at a neighbor, of one voxel of a distance transform, of putting one element into a k-d tree, and
# of asking it for one. Measured (benchmarks/bench_evaluation.py); only their ratios matter.
_LOOK, _VOXEL, _PLANT, _ASK = 8e-9, 35e-9, 8e-7, 2e-5
_CHEAP = 0.2  # a tree that costs less is asked in any case: it is exact, a transform has float32
_MOST_VOXELS = 2**28  # of a distance transform, which takes 5 bytes for each
_CHUNK_VOXELS = 2**24  # whose neighborhoods are looked at in one go
_MANY, _BINS = 100_000, 4096
_HOPE = 8  # most elements find a neighbor long before the last step
_NEAR_MM = 16.0  # how far the first distance transform reaches around far elements


@dataclass(frozen=True)
class SurfaceScores:
    """nsd: by tolerance in mm. hd95_mm, assd_mm: nan if one mask is empty, or if not asked for."""

    nsd: dict[float, float]
    hd95_mm: float
    assd_mm: float


@dataclass(frozen=True, eq=False)
class _Patch:
    """The surface of one block. border: which corners of `box` hold an element; areas: of the elements, in mm2.

    Elements are counted in the order in which they lie in `border`. first: the number of the first one in its surface.
    """

    box: Box
    border: Array
    areas: Array
    first: int

    @property
    def place(self) -> slice:
        """Where its elements are in an array of all of the surface."""
        return slice(self.first, self.first + len(self.areas))


@dataclass(frozen=True, eq=False)
class _Surface:
    """All elements of a mask's surface, patch by patch. matrix: takes steps between corners to mm."""

    patches: list[_Patch]
    matrix: Array

    @property
    def is_upright(self) -> bool:
        """Whether the axes are perpendicular, as a distance transform needs them."""
        return not np.any(self.matrix - np.diag(np.diag(self.matrix)))

    @cached_property
    def boxes(self) -> Boxes:
        return Boxes([patch.box for patch in self.patches])

    @cached_property
    def areas(self) -> Array:
        return np.concatenate([patch.areas for patch in self.patches])

    def read(self, box: Box) -> Array:
        """Which corners of a box hold an element."""
        found = np.zeros(box.shape, bool)
        for number in self.boxes.meeting(box):
            copy_overlap(self.patches[number].border, self.patches[number].box, found, box)
        return found

    def corners(self, chosen: Array) -> Array:
        """Indices (n, 3) of some elements; chosen: one bool for each."""
        found = [np.zeros((0, 3), np.int64)]
        for patch in self.patches:
            own = chosen[patch.place]
            if own.any():
                flat = np.flatnonzero(patch.border)[own]
                found.append(np.stack(np.unravel_index(flat, patch.border.shape), axis=1) + patch.box.lower)
        return np.concatenate(found)


def score_surfaces(
    truth: Region,
    predicted: Region,
    tolerances_mm: Sequence[float] = (2.0,),
    distances: bool = True,
    ignored: Region | None = None,
) -> SurfaceScores:
    """How near two surfaces are to each other.

    NSD: the share of both surfaces' area that lies within the tolerance of the other one; 0 if one mask is empty, nan
    if both are. HD95: the larger of the two directions' 95th percentiles. ASSD: the mean distance over both surfaces'
    area. distances: whether the last two are wanted, which cost more. Masks end at the border of the grid. ignored:
    voxels that neither mask holds; surface elements that touch one have no weight, and without others all is nan.
    """
    if not truth.blocks or not predicted.blocks:
        empty = np.nan if not (truth.blocks or predicted.blocks) else 0.0
        return SurfaceScores(dict.fromkeys(tolerances_mm, empty), np.nan, np.nan)
    ours, theirs = _surface(truth, ignored), _surface(predicted, ignored)
    reach = max(tolerances_mm, default=0.0)
    there, back = (_distances(a, b, reach, distances) for a, b in ((ours, theirs), (theirs, ours)))
    total = ours.areas.sum() + theirs.areas.sum()
    if not total:
        return SurfaceScores(dict.fromkeys(tolerances_mm, np.nan), np.nan, np.nan)
    nsd = {}
    for tolerance in tolerances_mm:
        near = [side.areas[d <= tolerance + SLACK_MM].sum() for d, side in ((there, ours), (back, theirs))]
        nsd[tolerance] = float(sum(near) / total)
    if not distances:
        return SurfaceScores(nsd, np.nan, np.nan)
    hd95 = max(_percentile(d, side.areas, 0.95) for d, side in ((there, ours), (back, theirs)) if side.areas.any())
    return SurfaceScores(nsd, hd95, float((there @ ours.areas + back @ theirs.areas) / total))


def _surface(region: Region, ignored: Region | None) -> _Surface:
    table = areas_mm2(region.geometry)
    patches: list[_Patch] = []
    first = 0
    for block in region.blocks:
        patches.append(_patch(block, table, ignored, first))
        first += len(patches[-1].areas)
    return _Surface(patches, _millimeters(region.geometry))


def _patch(block: Block, table: Array, ignored: Region | None, first: int) -> _Patch:
    box = Box(block.box.lower, triple([end + 1 for end in block.box.upper]))
    border = np.empty(box.shape, bool)
    areas = []
    step = max(1, _CHUNK_VOXELS // (box.shape[1] * box.shape[2]))
    for start in range(0, box.shape[0], step):
        stop = min(start + step, box.shape[0])
        # corner c lies between the planes c - 1 and c
        low, high = max(start - 1, 0), min(stop, len(block.mask))
        code = codes(block.mask[low:high])[start - low : stop - low]
        np.greater(code + np.uint8(1), 1, out=border[start:stop])  # neither 0 nor 255, which wraps to 0
        areas.append(table[code[border[start:stop]]])
    patch = _Patch(box, border, np.concatenate(areas), first)
    if ignored is not None and ignored.blocks:
        touching = codes(ignored.read(block.box.grow(1)))[1:-1, 1:-1, 1:-1] > 0
        patch.areas[touching[border]] = 0
    return patch


def _millimeters(geometry: Geometry) -> Array:
    """The matrix that takes steps between corners to mm; diagonal where the axes are perpendicular.

    Distances then do not depend on how the grid is turned, down to the last bit.
    """
    spacing = np.asarray(geometry.spacing_mm)
    cosines = geometry.affine[:3, :3] / spacing
    upright = np.abs(cosines.T @ cosines - np.eye(3)).max() < 1e-5
    return np.diag(spacing) if upright else np.asarray(geometry.affine[:3, :3])


def _distances(ours: _Surface, theirs: _Surface, reach_mm: float, all_of_them: bool) -> Array:
    """The distance of each of our elements to their nearest one; unless all are wanted, beyond `reach_mm` maybe inf."""
    steps, lengths = _steps_within(ours.matrix, reach_mm + SLACK_MM)
    nearest = np.full(len(ours.areas), np.inf)
    # a list, so that no patch is skipped
    complete = all([_look_around(patch, theirs, steps, lengths, nearest[patch.place]) for patch in ours.patches])
    if all_of_them or not complete:
        _complete(nearest, ours, theirs)
    return nearest


def _look_around(patch: _Patch, theirs: _Surface, steps: Array, lengths: Array, found: Array) -> bool:
    """Sets the distances of a patch's elements that have a neighbor within reach; whether all steps were taken.

    Given up where a distance transform is expected to cost less than the looks still to be taken.
    """
    margin = np.abs(steps).max(axis=0).tolist()
    box = patch.box.grow(margin)
    affordable = np.inf if not theirs.is_upright else int(np.prod(box.shape)) * _VOXEL / _LOOK
    if len(found) * len(steps) > _HOPE * affordable:
        return False
    there = theirs.read(box).reshape(-1)
    strides = np.array([box.shape[1] * box.shape[2], box.shape[2], 1])
    place = np.flatnonzero(np.pad(patch.border, [(by, by) for by in margin]))
    left = np.arange(len(place))
    for number, (step, length) in enumerate(zip((steps @ strides).tolist(), lengths.tolist(), strict=True)):
        if len(left) * (len(steps) - number) > affordable and number > 10:
            return False
        hit = there[place + step]
        found[left[hit]] = length
        left, place = left[~hit], place[~hit]
        if not len(left):
            break
    return True


def _steps_within(matrix: Array, reach_mm: float) -> tuple[Array, Array]:
    """Steps between corners (n, 3) that are at most `reach_mm` long, and their lengths, ascending."""
    half = np.floor(np.linalg.norm(np.linalg.inv(matrix), axis=1) * reach_mm).astype(int)
    steps = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in half], indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = _lengths(steps, matrix)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= reach_mm]
    return steps[order], lengths[order]


def _lengths(steps: Array, matrix: Array) -> Array:
    """Lengths in mm of steps (n, 3)."""
    length: Array = np.sqrt(((steps @ matrix.T) ** 2).sum(axis=1))
    return length


def _complete(found: Array, ours: _Surface, theirs: _Surface) -> None:
    """Sets the distances that are missing (inf)."""
    if theirs.is_upright:
        for reach_mm in (_NEAR_MM, np.inf):
            own = [patch for patch in ours.patches if np.isinf(found[patch.place]).any()]
            if not own:
                return
            far = int(np.count_nonzero(np.isinf(found)))
            box, whole = _hull(own, theirs, reach_mm), _hull(own, theirs, np.inf)
            voxels = int(np.prod(box.shape))
            if 2 * voxels > int(np.prod(whole.shape)):
                box, reach_mm, voxels = whole, np.inf, int(np.prod(whole.shape))
            if voxels <= _MOST_VOXELS and _tree_cost(far, theirs) > max(voxels * _VOXEL, _CHEAP):
                _by_transform(found, own, theirs, box, reach_mm)
    far_ones = np.isinf(found)
    if far_ones.any():
        found[far_ones] = _by_tree(ours.corners(far_ones), theirs)


def _hull(own: Sequence[_Patch], theirs: _Surface, reach_mm: float) -> Box:
    """The box around some patches grown by `reach_mm`, as far as any surface reaches."""
    boxes = Boxes([patch.box for patch in own])
    whole = boxes.hull().hull(theirs.boxes.hull())
    if np.isinf(reach_mm):
        return whole
    near = boxes.hull().grow([int(np.ceil(reach_mm / step)) for step in np.diag(theirs.matrix)])
    lower = [max(pair) for pair in zip(near.lower, whole.lower, strict=True)]
    return Box(triple(lower), triple([min(pair) for pair in zip(near.upper, whole.upper, strict=True)]))


def _tree_cost(count: int, theirs: _Surface) -> float:
    """Seconds expected for asking a k-d tree for so many elements."""
    return count * _ASK + len(theirs.areas) * _PLANT


def _by_transform(found: Array, own: Sequence[_Patch], theirs: _Surface, box: Box, reach_mm: float) -> None:
    """Sets what is missing in some patches by a distance transform of a box around them.

    Outside the box lie only elements further off than `reach_mm`, so that longer distances stay missing.
    """
    import edt

    there = theirs.read(box)
    if not there.any():
        return
    np.logical_not(there, out=there)
    distances = edt.edt(there, anisotropy=np.diag(theirs.matrix).tolist())
    for patch in own:
        values = distances[patch.box.seen_from(box).slices][patch.border]
        part = found[patch.place]
        np.copyto(part, values, where=np.isinf(part) & (values <= reach_mm))


def _by_tree(corners: Array, theirs: _Surface) -> Array:
    """Distances in mm of corners (n, 3) to their nearest elements, by a k-d tree."""
    from scipy.spatial import cKDTree

    others = theirs.corners(np.ones(len(theirs.areas), bool))
    tree = cKDTree(others @ theirs.matrix.T, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(corners @ theirs.matrix.T)[1]
    return _lengths(corners - others[nearest], theirs.matrix)


def _percentile(distances: Array, areas: Array, share: float) -> float:
    """The smallest distance within which `share` of the area lies."""
    goal, before = share * areas.sum(), 0.0
    low, high = float(distances.min()), float(distances.max())
    if len(distances) > _MANY and high > low:
        # sorting millions takes seconds: only those of the bin that holds the answer are sorted
        bins = ((distances - low) * (_BINS / (high - low))).astype(np.intp)
        sums = np.concatenate([[0.0], np.cumsum(np.bincount(bins, areas))])
        chosen = min(int(np.searchsorted(sums[1:], goal)), len(sums) - 2)
        inside = bins == chosen
        distances, areas, before = distances[inside], areas[inside], float(sums[chosen])
    order = np.argsort(distances, kind="stable")
    reached = before + np.cumsum(areas[order])
    return float(distances[order[min(int(np.searchsorted(reached, goal)), len(order) - 1)]])
