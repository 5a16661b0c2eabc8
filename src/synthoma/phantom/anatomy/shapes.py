"""Implicit shapes and curves in mm: negative inside, positive outside, about one per mm across the border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

Array = NDArray[Any]
FAR_MM = np.float32(1e3)
_TABLE_STEP_MM = 0.25


class Points(NamedTuple):
    """Positions: three arrays of one shape, in mm."""

    x: Array
    y: Array
    z: Array

    def shifted(self, by: Sequence[float] | Array) -> Points:
        """The positions as seen from a frame whose origin is moved by `by`."""
        return Points(*(axis - np.float32(b) for axis, b in zip(self, by, strict=True)))


def points_of(positions: Array) -> Points:
    """Points from an array (..., 3)."""
    single = np.asarray(positions, np.float32)
    return Points(single[..., 0], single[..., 1], single[..., 2])


def ellipsoid(points: Points, center: Sequence[float], radii: Sequence[float]) -> Array:
    """Signed distance, first order, to an upright ellipsoid."""
    scaled = [(axis - np.float32(c)) / np.float32(r) for axis, c, r in zip(points, center, radii, strict=True)]
    unit = scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2
    slope = sum((s / np.float32(r)) ** 2 for s, r in zip(scaled, radii, strict=True))
    length = np.sqrt(unit)
    result: Array = length * (length - 1) / np.sqrt(slope + np.float32(1e-8))
    return result


def superellipse(u: Array, v: Array, radius_mm: Array, square: Any = 0.5) -> Array:
    """Radial distance to a squircle with half-axes 1, `radius_mm` being the distance from its center.

    square: 0 an ellipse, 1 a rectangle (Fernandez-Guasti's curve, s^2 = square).
    """
    u, v = u * u, v * v
    both = u + v
    level = np.sqrt((both + np.sqrt(np.maximum(both * both - np.float32(4) * square * u * v, 0))) / 2)
    result: Array = (1 - 1 / np.maximum(level, np.float32(0.05))) * radius_mm
    return result


def smooth_max(a: Array, b: Array, round_mm: float) -> Array:
    """Intersection of two shapes, its edge rounded over about `round_mm`."""
    share = np.clip((a - b) * np.float32(0.5 / round_mm) + np.float32(0.5), 0, 1)
    result: Array = b + (a - b) * share + np.float32(round_mm) * share * (1 - share)
    return result


def smooth_min(a: Array, b: Array, round_mm: float) -> Array:
    """Union of two shapes, its crease filled over about `round_mm`."""
    return -smooth_max(-a, -b, round_mm)


def table(positions: Array, knots: Sequence[float], values: Sequence[float]) -> Array:
    """A smooth function given at a few knots, constant beyond them, at many positions."""
    steps = np.arange(knots[0], knots[-1] + _TABLE_STEP_MM, _TABLE_STEP_MM)
    fine = PchipInterpolator(knots, values)(np.minimum(steps, knots[-1])).astype(np.float32)
    index = ((positions - np.float32(knots[0])) * np.float32(1 / _TABLE_STEP_MM)).astype(np.int32)
    result: Array = fine.take(index, mode="clip")
    return result


def plate(points: Points, corners: Array, thickness_mm: Sequence[float]) -> Array:
    """Distance to a triangle (3, 3) whose thickness varies linearly between its corners."""
    a, b, c = (np.asarray(corner, np.float64) for corner in corners)
    normal = np.cross(b - a, c - a)
    inverse = np.linalg.inv(np.stack([b - a, c - a, normal / np.linalg.norm(normal)], axis=1)).astype(np.float32)
    p = points.shifted(a)
    u, v, _ = (row[0] * p.x + row[1] * p.y + row[2] * p.z for row in inverse)
    u, v = np.clip(u, 0, 1), np.clip(v, 0, 1)
    excess = np.maximum((u + v - 1) / 2, 0)
    u, v = np.clip(u - excess, 0, 1), np.clip(v - excess, 0, 1)
    ab, ac = (b - a).astype(np.float32), (c - a).astype(np.float32)
    square = sum((axis - u * ab[n] - v * ac[n]) ** 2 for n, axis in enumerate(p))
    t = [np.float32(value / 2) for value in thickness_mm]
    result: Array = np.sqrt(square) - (t[0] + u * (t[1] - t[0]) + v * (t[2] - t[0]))
    return result


@dataclass(frozen=True)
class Curve:
    """A polyline in mm with a radius at every point: `points` (N, 3), `radii` (N,)."""

    points: Array
    radii: Array

    @property
    def along_mm(self) -> Array:
        """Arc length at each point."""
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])


def spline(knots: Array, step_mm: float) -> Curve:
    """A smooth curve through knots (N, 4) of x, y, z and radius, sampled about every `step_mm`."""
    knots = np.asarray(knots, float)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1))])
    places = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1] / step_mm)) + 1))
    if len(knots) == 2:
        line = np.stack([np.interp(places, along, knots[:, axis]) for axis in range(3)], axis=1)
    else:
        line = CubicSpline(along, knots[:, :3], bc_type="natural")(places)
    return Curve(line, np.interp(places, along, knots[:, 3]))
