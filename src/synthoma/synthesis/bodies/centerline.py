"""From an organ's mask to the tube it is near a point: the wall there, the middle line, the surface around it.

Works on cubes of a few mm turned with the tumor, and on rays from the middle line to the organ's surface, so that
neither cost nor result hangs on the scan's grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma.components import connected_components
from synthoma.synthesis.bodies.tube import RAYS, ROW_MM, Tube, positions, value_at
from synthoma.volume import Array, Geometry, Volume

Bools = NDArray[np.bool_]
_CELL_MM = 2.5
_AROUND_MM = 42.0  # how much of the organ the local axis is learned from; the widest cecum fits
_STRAIGHT_MM = 200.0  # beyond its last nodes the middle line runs straight
_BACK = np.array([-1.0, 0, 0])
_RAY_STEP_MM = 1.0
_GAP_MM = 3.0  # a ray has left the organ when this much of it is outside: masks have holes
_SAME_LIMB = 1.7  # radii from the middle line beyond which lies another loop that touches this one


class Wall(NamedTuple):
    """The wall at a point: on the organ's surface, the way into the lumen, the organ's axis, its inscribed radius."""

    center_mm: Array
    inward: Array
    axis: Array
    radius_mm: float


def find_wall(organ: Volume, near_mm: Sequence[float]) -> Wall | None:
    """The wall near a point inside the organ; None where there is no tube to speak of, or the point lies on its end.

    organ: bool, `_AROUND_MM` around the point. The way in leads to the center of the largest ball that touches the
    wall there; the axis is the direction along which depth varies least.
    """
    reach = np.full(3, _AROUND_MM)
    grid = _lattice(near_mm, np.eye(3), -reach, reach, _CELL_MM)
    inside = _piece_at(value_at(organ, positions(grid)), grid, near_mm)
    depth = edt.edt(inside.view(np.uint8), anisotropy=grid.spacing_mm, black_border=False)
    points = positions(grid)
    cells, depths = points[:, inside], depth[inside]
    touching = np.sqrt(((cells - np.asarray(near_mm)[:, None]) ** 2).sum(axis=0)) <= depths + _CELL_MM
    if not touching.any() or inside.all():
        return None
    best = int(np.argmax(np.where(touching, depths, 0)))
    radius, middle = float(depths[best]), cells[:, best]
    weight = np.exp(-((cells - middle[:, None]) ** 2).sum(axis=0) / (2 * (1.2 * radius) ** 2))
    slopes = np.array([slope[inside] for slope in np.gradient(depth)])
    normals = (slopes * weight) @ slopes.T
    axis = np.linalg.eigh(normals)[1][:, 0]
    inward = middle - np.asarray(near_mm)
    inward = inward / max(float(np.linalg.norm(inward)), 1e-6)
    across = inward - axis * (inward @ axis)
    if np.linalg.norm(across) < 0.75:
        return None
    across /= np.linalg.norm(across)
    return Wall(_on_surface(organ, near_mm, across), across, axis, radius)


def trace(
    organ: Volume, center_mm: Sequence[float] | Array, rotation: Array, length_mm: float, wide_mm: float
) -> Tube | None:
    """The organ's middle line `length_mm` both ways from a point of its surface.

    rotation: columns along the organ, around it, and into it. organ: bool, as far as that and `wide_mm` across.
    None if the organ is not there.
    """
    wide = min(wide_mm, _AROUND_MM)
    size = float(np.clip(wide / 12, 1.5, 3.5))
    lower, upper = np.array([-length_mm, -wide, -4 * size]), np.array([length_mm, wide, 2 * wide - 4 * size])
    grid = _lattice(center_mm, rotation, lower, upper, size)
    inside = value_at(organ, positions(grid))
    if inside.any():
        inside = _piece_at(inside, grid, center_mm)
    depths = edt.edt(inside.view(np.uint8), anisotropy=grid.spacing_mm, black_border=False)[inside]
    cells = _Cells((np.argwhere(inside) + np.floor(lower / size)) * size, size)
    touching = depths * (np.sqrt((cells.points**2).sum(axis=1)) <= depths + 1.5 * size)
    inscribed = float(touching.max(initial=0.0))
    middle, radius = cells.section(np.array([0, 0, inscribed]), np.array([1.0, 0, 0]), 2 * inscribed, inscribed)
    if radius == 0:
        return None
    middle[0] = 0
    forward, last = _march(cells, middle, 1, radius, length_mm)
    backward, first = _march(cells, middle, -1, radius, length_mm)
    nodes = np.array([*backward[::-1], middle, *forward])
    bare = _tube(nodes, len(backward), np.asarray(center_mm), rotation, radius, -first, last)
    rows = np.arange(-length_mm, length_mm + ROW_MM, ROW_MM)
    surface = _surface(organ, bare, rows)
    here = surface[np.abs(rows) <= max(radius, 2 * ROW_MM)]
    return dataclasses.replace(
        bare, rows_mm=rows, surface_mm=surface, radius_mm=round(float(np.sqrt((here**2).mean())), 3)
    )


def _on_surface(organ: Volume, near_mm: Sequence[float], inward: Array) -> Array:
    """Where the line through a point enters the organ, nearest to the point."""
    steps = np.arange(-8, 8, 0.25)
    inside = value_at(organ, np.asarray(near_mm)[:, None] + steps * inward[:, None])
    enters = np.flatnonzero(inside[1:] & ~inside[:-1])
    nearest = steps[enters[np.argmin(np.abs(steps[enters]))]] + 0.125 if enters.size else 0.0
    return np.asarray(near_mm) + nearest * inward


def _surface(organ: Volume, line: Tube, rows: Array) -> Array:
    """Distance of the organ's surface from the line (rows, rays), smooth over a slice or 1.5 mm.

    Beyond the organ's ends its last section goes on.
    """
    steps = np.arange(0, _SAME_LIMB * line.radius_mm, _RAY_STEP_MM) + _RAY_STEP_MM / 2
    margin = 0.3 * line.radius_mm
    inside_rows = np.clip(rows, min(line.first_mm + margin, 0), max(line.last_mm - margin, 0))
    points = line.ray_points(inside_rows, line.angles, steps[None, None])
    inside = value_at(organ, points)
    # steps outside in a row, after the organ has been met
    gap = round(_GAP_MM / _RAY_STEP_MM)
    met = np.maximum.accumulate(inside, axis=2)
    outside = np.pad(np.cumsum(met & ~inside, axis=2), [(0, 0), (0, 0), (gap, 0)])
    left = np.maximum.accumulate(outside[:, :, gap:] - outside[:, :, :-gap] >= gap, axis=2)
    last = len(steps) - np.argmax((inside & ~left)[:, :, ::-1], axis=2)
    distance = np.where(inside.any(axis=2), last * _RAY_STEP_MM, 0)
    smooth_mm = max(1.5, 0.5 * max(organ.geometry.spacing_mm))
    ray_mm = 2 * np.pi * line.radius_mm / RAYS
    return np.asarray(
        ndimage.gaussian_filter(distance, (smooth_mm / ROW_MM, smooth_mm / ray_mm), mode=("nearest", "wrap"))
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """The organ as cubes: their centers (n, 3) in the tumor's frame, in mm, and their size."""

    points: Array
    size_mm: float

    def section(self, near: Array, normal: Array, reach: float, scale: float) -> tuple[Array, float]:
        """Centroid of the organ's section around a point, and the radius of the disc of its area; 0 if empty."""
        half = (round(0.3 * scale / self.size_mm) + 0.5) * self.size_mm
        offset = self.points - near
        height = offset @ normal
        chosen = offset[(np.abs(height) <= half) & ((offset**2).sum(axis=1) <= reach**2 + half**2)]
        if not len(chosen):
            return near, 0.0
        return near + chosen.mean(axis=0), float(np.sqrt(len(chosen) * self.size_mm**3 / (2 * half) / np.pi))

    def ahead(self, at: Array, way: Array, radius: float) -> Array:
        """The way into what lies ahead or beside, where a bend is too sharp for a step straight on."""
        offset = self.points - at
        away = np.sqrt((offset**2).sum(axis=1))
        found = offset[(away > 1.2 * radius) & (away < 2.0 * radius) & (offset @ way > 0.1 * away)]
        return _unit(found.mean(axis=0)) if len(found) else way

    def free_way_mm(self, at: Array, way: Array, radius: float, most: float) -> float:
        """How far the organ reaches in front of a place on its middle line."""
        offset = self.points - at
        height = offset @ way
        aside = (offset**2).sum(axis=1) - height**2
        found = height[(height > 0) & (height < most) & (aside < (0.5 * radius) ** 2)]
        return float(found.max(initial=0.0)) + 0.5 * self.size_mm


def _march(cells: _Cells, start: Array, sign: int, radius: float, length_mm: float) -> tuple[list[Array], float]:
    """Nodes one way from the start, and the arc length at which the organ ends (infinite if it does not)."""
    step = max(cells.size_mm, 0.4 * radius)
    at, way, gone = start, np.array([float(sign), 0, 0]), 0.0
    nodes: list[Array] = []
    while gone < length_mm:
        guess = at + step * way
        middle, here = cells.section(guess, way, 1.5 * radius, radius)
        if here < 0.5 * radius:
            turned = cells.ahead(at, way, radius)
            guess = at + step * turned
            middle, here = cells.section(guess, turned, 1.5 * radius, radius)
            if here < 0.5 * radius:
                return nodes, gone + cells.free_way_mm(at, way, radius, 2 * step)
            way = turned
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


def _tube(nodes: Array, zero: int, center: Array, rotation: Array, radius: float, first: float, last: float) -> Tube:
    """The tube in RAS+ from nodes in the tumor's frame; node number `zero` lies at the tumor."""
    back, ahead = (nodes[0] - nodes[1], nodes[-1] - nodes[-2]) if len(nodes) > 1 else (_BACK, -_BACK)
    nodes = np.array([nodes[0] + _STRAIGHT_MM * _unit(back), *nodes, nodes[-1] + _STRAIGHT_MM * _unit(ahead)])
    zero += 1
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    steps = np.diff(nodes, axis=0)
    steps /= np.linalg.norm(steps, axis=1)[:, None]
    tangents = np.array(
        [steps[0], *(_unit(one + other) for one, other in zip(steps, steps[1:], strict=False)), steps[-1]]
    )
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
        np.zeros(0),
        np.zeros((0, RAYS)),
    )


def _lattice(
    center_mm: Sequence[float] | Array, rotation: Array, lower: Array, upper: Array, cell_mm: float
) -> Geometry:
    """A grid of cubic cells turned by `rotation` that covers `lower` to `upper`, in mm from the center."""
    first, last = np.floor(lower / cell_mm), np.ceil(upper / cell_mm)
    affine = np.eye(4)
    affine[:3, :3] = rotation * cell_mm
    affine[:3, 3] = np.asarray(center_mm) + rotation @ (first * cell_mm)
    i, j, k = (int(n) for n in last - first + 1)
    return Geometry((i, j, k), affine)


def _piece_at(inside: Bools, grid: Geometry, point_mm: Sequence[float] | Array) -> Bools:
    """The connected piece of the mask that comes nearest to a point; empty if the mask is."""
    labels = connected_components(inside, connectivity=6)
    if labels.max() <= 1:
        return inside
    cells = np.argwhere(inside)
    nearest = cells[np.argmin(((cells - grid.to_ijk(point_mm)) ** 2).sum(axis=1))]
    return np.asarray(labels == labels[tuple(nearest)])


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))
