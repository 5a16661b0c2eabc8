"""A hollow organ near a point of its wall, as a bent tube: its middle line, radius, and coordinates along and around.

Works on lattices of a few mm turned with the tumor, so that neither cost nor result hangs on the scan's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma.synthesis.shape import Floats
from synthoma.volume import Array, Geometry, Volume

Bools = NDArray[np.bool_]
_CELL_MM = 2.5
_AROUND_MM = 42.0  # how much of the organ the local axis is learned from; the widest cecum fits
_STRAIGHT_MM = 200.0  # beyond its last nodes the middle line runs straight
_BACK = np.array([-1.0, 0, 0])


@dataclass(frozen=True, eq=False)
class Tube:
    """The organ around a tumor.

    nodes_mm (n, 3): its middle line in RAS+; tangents, outward (n, 3): unit vectors along the line, and from it to
    the line on the wall through the tumor's center, carried along without twist. along_mm (n,): arc length, 0 at the
    tumor. radius_mm: of the disc with the section's area at 0. first_mm, last_mm: where the organ ends; infinite
    where it goes on beyond what was traced, or behind the scan's edge.
    """

    nodes_mm: Array
    tangents: Array
    outward: Array
    along_mm: Array
    radius_mm: float
    first_mm: float
    last_mm: float

    def coordinates(self, points: Array) -> tuple[Floats, Floats, Floats]:
        """Of RAS+ positions (3, ...): arc length along, angle around (0 at the tumor) and distance from the line.

        Between two nodes, by the distances to their planes: exact where the line bends evenly.
        """
        nearest = np.zeros(points.shape[1:], np.intp)
        best = np.full(points.shape[1:], np.inf)
        for index, node in enumerate(self.nodes_mm):
            squared = sum((axis - value) ** 2 for axis, value in zip(points, node, strict=True))
            nearest[squared < best] = index
            np.minimum(best, squared, out=best)
        low = np.clip(nearest - (self._height(points, nearest) < 0), 0, len(self.nodes_mm) - 2)
        up, down = self._height(points, low), -self._height(points, low + 1)
        share = np.clip(up / np.maximum(up + down, 1e-6), 0, 1)

        def between(values: Array) -> Array:
            return np.asarray(values[low] + share * (values[low + 1] - values[low]))

        offset = [axis - between(values) for axis, values in zip(points, self.nodes_mm.T, strict=True)]
        out = [between(values) for values in self.outward.T]
        side = _cross([between(values) for values in self.tangents.T], out)
        cosine, sine = _dot(offset, out), _dot(offset, side)
        away = np.sqrt(sine * sine + cosine * cosine)
        along, angle = between(self.along_mm), np.arctan2(sine, cosine)
        return along.astype(np.float32), angle.astype(np.float32), away.astype(np.float32)

    def _height(self, points: Array, node: NDArray[np.intp]) -> Array:
        """How far points lie in front of the planes through these nodes."""
        offset = [axis - values[node] for axis, values in zip(points, self.nodes_mm.T, strict=True)]
        return _dot(offset, [values[node] for values in self.tangents.T])


@dataclass(frozen=True, eq=False)
class Wall:
    """The wall at a point: on the organ's surface, the way into the lumen, the organ's axis, its inscribed radius."""

    center_mm: Array
    inward: Array
    axis: Array
    radius_mm: float


def lattice(center_mm: Sequence[float] | Array, rotation: Array, lower: Array, upper: Array, cell_mm: float) -> Geometry:
    """A grid of cubic cells turned by `rotation` that covers `lower` to `upper`, in mm from the center."""
    first, last = np.floor(lower / cell_mm), np.ceil(upper / cell_mm)
    affine = np.eye(4)
    affine[:3, :3] = rotation * cell_mm
    affine[:3, 3] = np.asarray(center_mm) + rotation @ (first * cell_mm)
    i, j, k = (int(n) for n in last - first + 1)
    return Geometry((i, j, k), affine)


def sample(data: Array, geometry: Geometry, grid: Geometry, order: int) -> Array:
    """Values on another grid; the organ goes on behind the scan's faces, so the outermost voxels are repeated."""
    change = np.linalg.inv(geometry.affine) @ grid.affine
    return np.asarray(
        ndimage.affine_transform(data, change[:3, :3], change[:3, 3], grid.shape, order=order, mode="nearest")
    )


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


def piece_at(inside: Bools, grid: Geometry, point_mm: Sequence[float] | Array) -> Bools:
    """The connected piece of the mask that comes nearest to a point; empty if the mask is."""
    labels = cc3d.connected_components(inside, connectivity=6)
    if labels.max() <= 1:
        return inside
    cells = np.argwhere(inside)
    nearest = cells[np.argmin(((cells - grid.to_ijk(point_mm)) ** 2).sum(axis=1))]
    return np.asarray(labels == labels[tuple(nearest)])


def find_wall(organ: Volume, near_mm: Sequence[float]) -> Wall | None:
    """The wall near a point inside the organ; None where there is no tube to speak of, or the point lies on its end.

    organ: bool, `_AROUND_MM` around the point. The way in leads to the center of the largest ball that touches the
    wall there; the axis is the direction along which depth varies least.
    """
    reach = np.full(3, _AROUND_MM)
    grid = lattice(near_mm, np.eye(3), -reach, reach, _CELL_MM)
    inside = piece_at(sample(organ.data.view(np.uint8), organ.geometry, grid, 0) != 0, grid, near_mm)
    depth = edt.edt(inside, anisotropy=grid.spacing_mm, black_border=False)
    points = positions(grid)
    offset = points - np.asarray(near_mm, float)[:, None, None, None]
    touching = inside & (np.sqrt((offset**2).sum(axis=0)) <= depth + _CELL_MM)
    if not touching.any() or not (~inside).any():
        return None
    best = np.unravel_index(int(np.argmax(np.where(touching, depth, 0))), depth.shape)
    radius, middle = float(depth[best]), points[(slice(None), *best)]
    away = ((points - middle[:, None, None, None]) ** 2).sum(axis=0)
    weight = np.where(inside, np.exp(-away / (2 * (1.2 * radius) ** 2)), 0)
    slopes = np.array(np.gradient(depth))
    normals = np.einsum("aijk,bijk,ijk->ab", slopes, slopes, weight)
    axis = np.linalg.eigh(normals)[1][:, 0]
    inward = middle - np.asarray(near_mm)
    inward = inward / max(float(np.linalg.norm(inward)), 1e-6)
    across = inward - axis * (inward @ axis)
    if np.linalg.norm(across) < 0.75:
        return None
    across /= np.linalg.norm(across)
    return Wall(_on_surface(organ, near_mm, across), across, axis, radius)


def _on_surface(organ: Volume, near_mm: Sequence[float], inward: Array) -> Array:
    """Where the line through a point enters the organ, nearest to the point."""
    steps = np.arange(-8, 8, 0.25)
    at = organ.geometry.to_ijk(np.asarray(near_mm) + steps[:, None] * inward)
    index = np.clip(np.rint(at).astype(int), 0, np.asarray(organ.data.shape) - 1)
    inside = organ.data[tuple(index.T)]
    enters = np.flatnonzero(inside[1:] & ~inside[:-1])
    nearest = steps[enters[np.argmin(np.abs(steps[enters]))]] + 0.125 if enters.size else 0.0
    return np.asarray(near_mm) + nearest * inward


def trace(organ: Volume, center_mm: Sequence[float] | Array, rotation: Array, length_mm: float, wide_mm: float) -> Tube:
    """The organ's middle line `length_mm` both ways from a point of its surface.

    rotation: columns along the organ, around it, and into it. organ: bool, as far as that and `wide_mm` across.
    """
    wide = min(wide_mm, _AROUND_MM)
    lower, upper = np.array([-length_mm, -wide, -10.0]), np.array([length_mm, wide, 2 * wide - 10])
    grid = lattice(center_mm, rotation, lower, upper, _CELL_MM)
    inside = sample(organ.data.view(np.uint8), organ.geometry, grid, 0) != 0
    if inside.any():
        inside = piece_at(inside, grid, center_mm)
    depth = edt.edt(inside, anisotropy=grid.spacing_mm, black_border=False)
    cells = np.argwhere(inside) * _CELL_MM + np.floor(lower / _CELL_MM) * _CELL_MM
    depths = depth[inside]
    touching = depths * (np.sqrt((cells**2).sum(axis=1)) <= depths + 1.5 * _CELL_MM)
    inscribed = float(touching.max(initial=_CELL_MM))
    middle, radius = _section(cells, np.array([0, 0, inscribed]), np.array([1.0, 0, 0]), 2 * inscribed, inscribed)
    middle[0] = 0
    forward, last = _march(cells, middle, 1, radius, length_mm)
    backward, first = _march(cells, middle, -1, radius, length_mm)
    nodes = np.array([*backward[::-1], middle, *forward])
    return _tube(nodes, len(backward), np.asarray(center_mm), rotation, radius, -first, last)


def _section(cells: Array, near: Array, normal: Array, reach: float, scale: float) -> tuple[Array, float]:
    """Centroid of the organ's section around a point, and the radius of the disc of its area; nan if empty."""
    half = (round(0.3 * scale / _CELL_MM) + 0.5) * _CELL_MM
    offset = cells - near
    height = offset @ normal
    chosen = offset[(np.abs(height) <= half) & ((offset**2).sum(axis=1) <= reach**2 + half**2)]
    if not len(chosen):
        return near, 0.0
    return near + chosen.mean(axis=0), float(np.sqrt(len(chosen) * _CELL_MM**3 / (2 * half) / np.pi))


def _march(cells: Array, start: Array, sign: int, radius: float, length_mm: float) -> tuple[list[Array], float]:
    """Nodes one way from the start, and the arc length at which the organ ends (infinite if it does not)."""
    step = max(_CELL_MM, 0.4 * radius)
    at, way, gone = start, np.array([float(sign), 0, 0]), 0.0
    nodes: list[Array] = []
    while gone < length_mm:
        guess = at + step * way
        middle, here = _section(cells, guess, way, 1.5 * radius, radius)
        if here < 0.5 * radius:
            return nodes, gone + _free_way(cells, at, way, radius, 2 * step)
        aside = middle - guess
        aside -= way * (aside @ way)
        aside *= min(1.0, 0.5 * step / max(float(np.linalg.norm(aside)), 1e-6))
        move = guess + aside - at
        gone += float(np.linalg.norm(move))
        way = way + move / np.linalg.norm(move)
        way /= np.linalg.norm(way)
        at = guess + aside
        nodes.append(at)
    return nodes, float("inf")


def _free_way(cells: Array, at: Array, way: Array, radius: float, most: float) -> float:
    """How far the organ reaches in front of its last node."""
    offset = cells - at
    height = offset @ way
    aside = (offset**2).sum(axis=1) - height**2
    ahead = height[(height > 0) & (height < most) & (aside < (0.5 * radius) ** 2)]
    return float(ahead.max(initial=0.0)) + 0.5 * _CELL_MM


def _tube(
    nodes: Array, zero: int, center: Array, rotation: Array, radius: float, first: float, last: float
) -> Tube:
    """The tube in RAS+ from nodes in the tumor's frame; node number `zero` lies at the tumor."""
    back, ahead = nodes[0] - nodes[min(1, len(nodes) - 1)], nodes[-1] - nodes[max(0, len(nodes) - 2)]
    ends = [_unit(back) if zero else _BACK, _unit(ahead) if zero + 1 < len(nodes) else -_BACK]
    nodes = np.array([nodes[0] + _STRAIGHT_MM * ends[0], *nodes, nodes[-1] + _STRAIGHT_MM * ends[1]])
    zero += 1
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    steps = np.diff(nodes, axis=0)
    steps /= np.linalg.norm(steps, axis=1)[:, None]
    tangents = np.array([steps[0], *(_unit(one + other) for one, other in zip(steps, steps[1:], strict=False)), steps[-1]])
    outward = np.zeros_like(nodes)
    vector = -nodes[zero]
    for index in (*range(zero, len(nodes)), *range(zero - 1, -1, -1)):
        vector = outward[zero] if index == zero - 1 else vector
        vector = _unit(vector - tangents[index] * (vector @ tangents[index]))
        outward[index] = vector
    # rounded, so that a sum's order on another machine changes nothing
    return Tube(
        np.round(center + nodes @ rotation.T, 4),
        np.round(tangents @ rotation.T, 6),
        np.round(outward @ rotation.T, 6),
        np.round(along - along[zero], 4),
        round(radius, 3),
        first,
        last,
    )


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def _dot(a: Sequence[Array], b: Sequence[Array]) -> Array:
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _cross(a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
