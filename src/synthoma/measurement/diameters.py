"""The longest axial diameter of a lesion and the one perpendicular to it, with the points between which they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthoma.cases import hull_corners, row_ends
from synthoma.volume import Array, Geometry


@dataclass(frozen=True)
class Diameters:
    """Two lines in one axial slice. Lengths in mm, between outer corners of voxels.

    slice_index: of the slice, along the axis nearest to head and feet, from 0, in the mask given. longest_ends_mm,
    perpendicular_ends_mm: both ends of either line, RAS+.
    """

    longest_mm: float
    perpendicular_mm: float
    slice_index: int
    longest_ends_mm: tuple[tuple[float, ...], ...]
    perpendicular_ends_mm: tuple[tuple[float, ...], ...]


def measure_diameters(mask: Array, geometry: Geometry) -> Diameters:
    """The longest line between two points of a mask (I, J, K) in any axial slice, and the longest one across it.

    The perpendicular line lies in the same slice and in the hull of the lesion there, as calipers meet it. geometry: of
    the mask. Of lines of equal length the one nearest to the feet counts. `ValueError` for an empty mask.
    """
    up = next(axis for axis, letter in enumerate(geometry.axes) if letter in "SI")
    across = [axis for axis in range(3) if axis != up]
    steps = geometry.affine[:3, across]
    order = range(mask.shape[up]) if geometry.axes[up] == "S" else range(mask.shape[up] - 1, -1, -1)
    best: tuple[float, int, Array, int, int] | None = None
    for index in order:
        plane = mask.take(index, up)
        if not plane.any():
            continue
        corners = hull_corners(row_ends(plane))
        points = corners @ steps.T
        squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
        first, second = np.unravel_index(int(np.argmax(squared)), squared.shape)
        length = float(np.sqrt(squared[first, second]))
        if best is None or length > best[0] + 1e-9:
            best = length, index, corners, int(first), int(second)
    if best is None:
        raise ValueError("an empty mask has no diameter")
    longest, index, corners, *pair = best
    # corners count voxel edges: the center of voxel 0 lies at 0.5
    place = np.zeros((len(corners), 3))
    place[:, across], place[:, up] = corners - 0.5, index
    points = geometry.to_mm(place)
    width, ends = _widest_across(points, points[pair[1]] - points[pair[0]])
    line = (tuple(points[pair[0]].tolist()), tuple(points[pair[1]].tolist()))
    return Diameters(longest, width, index, line, ends)


def _widest_across(points: Array, along: Array) -> tuple[float, tuple[tuple[float, ...], ...]]:
    """The longest chord, perpendicular to a direction, of the convex hull of points (n, 3) in a plane, and its ends.

    A chord's length is concave along the direction, so the longest one goes through a corner.
    """
    direction = along / np.linalg.norm(along)
    plane = points - points[0]
    side = plane - np.outer(plane @ direction, direction)
    across = side[int(np.argmax((side**2).sum(axis=1)))]
    across = across / np.linalg.norm(across)
    at, height = plane @ direction, plane @ across
    best, ends = 0.0, (points[0], points[0])
    for where in np.unique(at.round(9)):
        low, high = _chord(at, height, float(where))
        if high - low > best:
            best = high - low
            middle = points[0] + where * direction
            ends = (middle + low * across, middle + high * across)
    return best, tuple(tuple(end.tolist()) for end in ends)


def _chord(at: Array, height: Array, where: float) -> tuple[float, float]:
    """Lowest and highest point at one place of the hull of points in a plane."""
    left, right = at <= where + 1e-9, at >= where - 1e-9
    # every chord end lies between a corner on the left and one on the right; the extremes are on the hull
    a, b = at[left][:, None], at[right][None]
    ha, hb = height[left][:, None], height[right][None]
    span = np.where(b - a > 1e-9, b - a, 1)
    share = np.where(b - a > 1e-9, (where - a) / span, 0)
    value = ha + share * (hb - ha)
    return float(value.min()), float(value.max())
