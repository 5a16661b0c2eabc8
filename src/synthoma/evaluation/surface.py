"""Distances between two surfaces, weighted by area: NSD at tolerances, HD95, ASSD.

Surface elements lie at the corners of voxels (see `surfels`); an element's distance is that to the nearest element of
the other surface. Up to the largest tolerance it is found by looking around each element; only what has no neighbor
there asks a k-d tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.evaluation.regions import Region, copy_overlap
from synthoma.evaluation.surfels import areas_mm2, codes
from synthoma.volume import Array, Box, Geometry

# Headers hold spacings as float32, and turning a grid rounds: a distance this much longer than a tolerance is within.
SLACK_MM = 1e-5


@dataclass(frozen=True)
class SurfaceScores:
    """nsd: by tolerance in mm. hd95_mm, assd_mm: nan if one mask is empty, or if not asked for."""

    nsd: dict[float, float]
    hd95_mm: float
    assd_mm: float


@dataclass(frozen=True, eq=False)
class _Patch:
    """The surface of one block. border: which corners of `box` hold an element; corners: their indices (n, 3)."""

    box: Box
    border: Array
    corners: Array
    areas: Array


def score_surfaces(
    truth: Region, predicted: Region, tolerances_mm: Sequence[float] = (2.0,), distances: bool = True
) -> SurfaceScores:
    """How near two surfaces are to each other.

    NSD: the share of both surfaces' area that lies within the tolerance of the other one; 0 if one mask is empty, nan
    if both are. HD95: the larger of the two directions' 95th percentiles. ASSD: the mean distance over both surfaces'
    area. distances: whether the last two are wanted, which cost more. Masks end at the border of the grid.
    """
    if not truth.blocks or not predicted.blocks:
        empty = np.nan if not (truth.blocks or predicted.blocks) else 0.0
        return SurfaceScores(dict.fromkeys(tolerances_mm, empty), np.nan, np.nan)
    table = areas_mm2(truth.geometry)
    ours, theirs = _patches(truth, table), _patches(predicted, table)
    matrix = _millimeters(truth.geometry)
    reach = max(tolerances_mm, default=0.0)
    there, back = _nearest(ours, theirs, matrix, reach), _nearest(theirs, ours, matrix, reach)
    weights = [np.concatenate([patch.areas for patch in patches]) for patches in (ours, theirs)]
    total = weights[0].sum() + weights[1].sum()
    nsd = {}
    for tolerance in tolerances_mm:
        near = [w[d <= tolerance + SLACK_MM].sum() for d, w in zip((there, back), weights, strict=True)]
        nsd[tolerance] = float(sum(near) / total)
    if not distances:
        return SurfaceScores(nsd, np.nan, np.nan)
    there, back = _completed(there, ours, theirs, matrix), _completed(back, theirs, ours, matrix)
    hd95 = max(_percentile(there, weights[0], 0.95), _percentile(back, weights[1], 0.95))
    return SurfaceScores(nsd, hd95, float((there @ weights[0] + back @ weights[1]) / total))


def _patches(region: Region, table: Array) -> list[_Patch]:
    patches = []
    for block in region.blocks:
        code = codes(block.mask)
        border = code + np.uint8(1) > 1  # neither 0 nor 255, which wraps to 0
        flat = np.flatnonzero(border)
        corners = np.stack(np.unravel_index(flat, border.shape), axis=1) + block.box.lower
        i, j, k = block.box.upper
        patches.append(
            _Patch(Box(block.box.lower, (i + 1, j + 1, k + 1)), border, corners, table[code.reshape(-1)[flat]])
        )
    return patches


def _millimeters(geometry: Geometry) -> Array:
    """The matrix that takes steps between corners to mm; diagonal where the axes are perpendicular.

    Distances then do not depend on how the grid is turned, down to the last bit.
    """
    spacing = np.asarray(geometry.spacing_mm)
    cosines = geometry.affine[:3, :3] / spacing
    upright = np.abs(cosines.T @ cosines - np.eye(3)).max() < 1e-5
    return np.diag(spacing) if upright else np.asarray(geometry.affine[:3, :3])


def _nearest(ours: list[_Patch], theirs: list[_Patch], matrix: Array, reach_mm: float) -> Array:
    """The distance of each of our elements to their nearest one, inf beyond `reach_mm`."""
    steps, lengths = _steps_within(matrix, reach_mm + SLACK_MM)
    margin = np.abs(steps).max(axis=0).tolist()
    return np.concatenate([_look_around(patch, theirs, steps, lengths, margin) for patch in ours])


def _look_around(patch: _Patch, theirs: list[_Patch], steps: Array, lengths: Array, margin: list[int]) -> Array:
    box = patch.box.grow(margin)
    there = np.zeros(box.shape, bool)
    for other in theirs:
        copy_overlap(other.border, other.box, there, box)
    found = np.full(len(patch.areas), np.inf)
    strides = np.array([box.shape[1] * box.shape[2], box.shape[2], 1])
    place = (patch.corners - box.lower) @ strides
    left = np.arange(len(place))
    flat = there.reshape(-1)
    for step, length in zip((steps @ strides).tolist(), lengths.tolist(), strict=True):
        hit = flat[place + step]
        found[left[hit]] = length
        left, place = left[~hit], place[~hit]
        if not len(left):
            break
    return found


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


def _completed(found: Array, ours: list[_Patch], theirs: list[_Patch], matrix: Array) -> Array:
    """The distances with those beyond reach filled in."""
    far = ~np.isfinite(found)
    if not far.any():
        return found
    from scipy.spatial import cKDTree

    mine = np.concatenate([patch.corners for patch in ours])[far]
    others = np.concatenate([patch.corners for patch in theirs])
    tree = cKDTree(others @ matrix.T, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(mine @ matrix.T)[1]
    found = found.copy()
    found[far] = _lengths(mine - others[nearest], matrix)
    return found


def _percentile(distances: Array, areas: Array, share: float) -> float:
    """The smallest distance within which `share` of the area lies."""
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order[min(int(np.searchsorted(reached, share)), len(order) - 1)]])
