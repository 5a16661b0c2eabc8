"""A hollow organ near a tumor as a bent tube: coordinates along it, around it and away from its middle line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from synthoma.volume import Array, Floats, Geometry, Volume

RAYS, ROW_MM = 36, 3.0
OUTER, SHELL, INSIDE = 0, 1, 2
_COARSE_MM = 4.0  # of the nodes between which coordinates are linear


@dataclass(frozen=True, eq=False)
class Tube:
    """The organ around a tumor.

    nodes_mm (n, 3): its middle line in RAS+; tangents, outward (n, 3): unit vectors along the line, and from it to
    the line on the wall through the tumor's center, carried along without twist. along_mm (n,): arc length, 0 at the
    tumor. radius_mm: of the disc with the section's area at 0. first_mm, last_mm: where the organ ends; infinite
    where it goes on beyond what was traced, or behind the scan's edge. rows_mm (r,), surface_mm (r, RAYS): distance of
    the organ's surface from the line at these arc lengths, at even angles from 0.
    """

    nodes_mm: Array
    tangents: Array
    outward: Array
    along_mm: Array
    radius_mm: float
    first_mm: float
    last_mm: float
    rows_mm: Array
    surface_mm: Array

    @property
    def angles(self) -> Array:
        """Of the rays, in [-pi, pi)."""
        return np.asarray((np.arange(RAYS) * 2 * np.pi / RAYS + np.pi) % (2 * np.pi) - np.pi)

    def coordinates(self, points: Array) -> tuple[Floats, Floats, Floats]:
        """Of RAS+ positions (3, ...): arc length, and the offset from the line toward the tumor and sideways.

        Between two nodes, by the distances to their planes: exact where the line bends evenly.
        """
        nearest = np.zeros(points.shape[1:], np.int32)
        best = np.full(points.shape[1:], np.inf)
        for index, (x, y, z) in enumerate(self.nodes_mm):
            squared = (points[0] - x) ** 2 + (points[1] - y) ** 2 + (points[2] - z) ** 2
            np.copyto(nearest, index, where=squared < best)
            np.minimum(best, squared, out=best)
        low = np.clip(nearest - (self._height(points, nearest) < 0), 0, len(self.nodes_mm) - 2)
        up, down = self._height(points, low), -self._height(points, low + 1)
        share = np.clip(up / np.maximum(up + down, 1e-6), 0, 1)

        def between(values: Array) -> Array:
            start = values[low]
            return np.asarray(start + share * (values[low + 1] - start))

        offset = [axis - between(values) for axis, values in zip(points, self.nodes_mm.T, strict=True)]
        out = [between(values) for values in self.outward.T]
        side = _cross([between(values) for values in self.tangents.T], out)
        found = between(self.along_mm), _dot(offset, out), _dot(offset, side)
        along, toward, aside = (np.asarray(values, np.float32) for values in found)
        return along, toward, aside

    def _height(self, points: Array, node: Array) -> Array:
        """How far points lie in front of the planes through these nodes."""
        offset = [axis - values[node] for axis, values in zip(points, self.nodes_mm.T, strict=True)]
        return _dot(offset, [values[node] for values in self.tangents.T])

    def surface_at(self, along: Floats, angle: Floats) -> Floats:
        """Distance of the organ's surface from the middle line, by linear interpolation between rays."""
        row = np.clip((along - self.rows_mm[0]) / ROW_MM, 0, len(self.rows_mm) - 1.001).astype(np.float32)
        column = (angle * np.float32(RAYS / (2 * np.pi)) + np.float32(RAYS)).astype(np.float32)
        i, j = row.astype(np.int32), column.astype(np.int32)
        row, column = row - i, column - j
        wrapped = np.concatenate([self.surface_mm] * 2 + [self.surface_mm[:, :1]], axis=1).astype(np.float32)
        flat, width = wrapped.ravel(), wrapped.shape[1]
        at = i * width + j
        low = flat[at] + column * (flat[at + 1] - flat[at])
        high = flat[at + width] + column * (flat[at + width + 1] - flat[at + width])
        return np.asarray(low + row * (high - low), np.float32)

    @cached_property
    def _arcs(self) -> tuple[Array, Array]:
        """Angles from -pi to pi, and the length around the organ from 0 to each; both halves are as long."""
        near = np.abs(self.rows_mm) <= max(self.radius_mm, 2 * ROW_MM)
        around = np.roll(self.surface_mm[near].mean(axis=0), RAYS // 2)
        around = np.append(around, around[0])
        pieces = (around[1:] + around[:-1]) * (np.pi / RAYS)
        arcs = np.concatenate([[0], np.cumsum(pieces)])
        arcs -= arcs[RAYS // 2]
        half = np.pi * self.radius_mm
        arcs = np.where(arcs < 0, arcs * (half / max(-arcs[0], 1e-6)), arcs * (half / max(arcs[-1], 1e-6)))
        return np.linspace(-np.pi, np.pi, RAYS + 1), arcs

    def arc_at(self, angle: Array) -> Floats:
        """Length around the organ, in mm, from the line through the tumor's center; pi radii at the far side."""
        return np.asarray(np.interp(angle, *self._arcs), np.float32)

    def angle_at(self, arc: float) -> float:
        """The angle at which this length is reached on either side; pi at most."""
        angles, arcs = self._arcs
        return float(max(np.interp(arc, arcs, angles), -np.interp(-arc, arcs, angles)))

    def ray_points(self, along: Array, angles: Array, away: Array) -> Array:
        """RAS+ positions (3, n, m, k) at arc lengths (n,), angles (m,) and distances (n or 1, m or 1, k)."""
        middle, tangent, out = (
            np.stack([np.interp(along, self.along_mm, values) for values in table.T])[:, :, None]
            for table in (self.nodes_mm, self.tangents, self.outward)
        )
        way = np.cos(angles) * out + np.sin(angles) * np.cross(tangent, out, axis=0)
        return np.asarray(middle[..., None] + away * way[..., None])


@dataclass(frozen=True, eq=False)
class Nodes:
    """Coordinates of the wall every few mm of a grid, from which those of its voxels are interpolated.

    before: voxels between the first node and the first voxel. values (I, J, K, 4): arc length, offset toward the
    tumor and sideways, and the organ's surface there.
    """

    line: Tube
    step: tuple[int, int, int]
    before: tuple[float, float, float]
    shape: tuple[int, int, int]
    points: Array
    values: Floats

    @classmethod
    def of(cls, line: Tube, grid: Geometry) -> Nodes:
        i, j, k = (max(1, int(_COARSE_MM / spacing)) for spacing in grid.spacing_mm)
        counts = [max(2, -(-(size - 1) // step) + 1) for size, step in zip(grid.shape, (i, j, k), strict=True)]
        # as far outside on either side, so that a mirrored grid has mirrored nodes
        x, y, z = (
            ((n - 1) * step - (size - 1)) / 2 for n, step, size in zip(counts, (i, j, k), grid.shape, strict=True)
        )
        affine = grid.affine.copy()
        affine[:3, :3] *= (i, j, k)
        affine[:3, 3] = grid.to_mm((-x, -y, -z))
        points = positions(Geometry((counts[0], counts[1], counts[2]), affine))
        along, toward, aside = line.coordinates(points)
        surface = line.surface_at(along, np.arctan2(aside, toward))
        return cls(line, (i, j, k), (x, y, z), grid.shape, points, np.stack([along, toward, aside, surface], axis=-1))

    def coordinates(self, at: Sequence[Array] | None = None) -> tuple[Floats, Floats, Floats]:
        """Length along, length around and depth in mm, of the nodes or of voxels."""
        found = self.values if at is None else self._between(at)
        along, toward, aside, surface = (found[..., part] for part in range(4))
        return along, self.line.arc_at(np.arctan2(aside, toward)), surface - np.sqrt(toward * toward + aside * aside)

    def _between(self, at: Sequence[Array]) -> Floats:
        size = self.values.shape
        flat = self.values.reshape(-1, 4)
        places = [(a + before) / step for a, before, step in zip(at, self.before, self.step, strict=True)]
        low = [np.minimum(place.astype(np.intp), n - 2) for place, n in zip(places, size, strict=False)]
        x, y, z = ((place - start).astype(np.float32)[:, None] for place, start in zip(places, low, strict=True))
        first = (low[0] * size[1] + low[1]) * size[2] + low[2]

        def line_of(shift: int) -> Floats:
            start = flat.take(first + shift, axis=0)
            return np.asarray(start + z * (flat.take(first + (shift + 1), axis=0) - start))

        def plane_of(shift: int) -> Floats:
            start = line_of(shift)
            return np.asarray(start + y * (line_of(shift + size[2]) - start))

        start = plane_of(0)
        return np.asarray(start + x * (plane_of(size[1] * size[2]) - start))

    def spread(self, outside_mm: Floats, margin_mm: float) -> NDArray[np.uint8]:
        """For each voxel whether the surface may be within the margin, or else on which side of it."""
        least = most = outside_mm
        for axis in range(3):
            lower, upper = (
                tuple(cut if a == axis else slice(None) for a in range(3)) for cut in (slice(None, -1), slice(1, None))
            )
            least, most = np.minimum(least[lower], least[upper]), np.maximum(most[lower], most[upper])
        state = np.where(least > margin_mm, OUTER, np.where(most < -margin_mm, INSIDE, SHELL)).astype(np.uint8)
        index = [
            np.minimum((np.arange(n) + before) // step, size - 1).astype(np.intp)
            for n, before, step, size in zip(self.shape, self.before, self.step, state.shape, strict=True)
        ]
        return np.asarray(state[np.ix_(*index)])


def value_at(volume: Volume, points: Array) -> Array:
    """Values at RAS+ positions (3, ...), those of the nearest voxel; behind its faces a scan's organs go on."""
    index = []
    for row, size in zip(np.linalg.inv(volume.geometry.affine)[:3], volume.data.shape, strict=True):
        at = points[0] * row[0] + points[1] * row[1] + (points[2] * row[2] + (row[3] + 0.5))
        index.append(np.clip(np.floor(at), 0, size - 1).astype(np.intp))
    return np.asarray(volume.data[tuple(index)])


def positions(grid: Geometry) -> Array:
    """RAS+ positions (3, I, J, K) of all cells."""
    i, j, k = (np.arange(n, dtype=float) for n in grid.shape)
    matrix, start = grid.affine[:3, :3], grid.affine[:3, 3]
    return np.stack(
        [
            (row[0] * i[:, None, None] + row[1] * j[:, None]) + (row[2] * k + first)
            for row, first in zip(matrix, start, strict=True)
        ]
    )


def places(grid: Geometry, at: Sequence[Array]) -> Array:
    """RAS+ positions (3, n) of voxels."""
    i, j, k = at
    return np.stack([row[0] * i + row[1] * j + (row[2] * k + row[3]) for row in grid.affine[:3]])


def _dot(a: Sequence[Array], b: Sequence[Array]) -> Array:
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _cross(a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
