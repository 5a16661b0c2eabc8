"""Masses: star-shaped bodies in solid organs, with the surface of real tumors, evaluated on any grid.

A point x lies inside where ln|u| < g(u / |u|), u = R^T (x - center) / half-axes; g is the surface (see `surface`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from synthoma import anatomy
from synthoma.anatomy import ShapePrior
from synthoma.synthesis.bodies.body import Body, Form, Placement, Surface, bounding_radius_mm
from synthoma.synthesis.bodies.subvoxels import sample_offsets, samples_per_voxel
from synthoma.synthesis.bodies.surface import map_directions, radius_map
from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.kernels.reference import Frame
from synthoma.synthesis.location import OrganModel, find_site
from synthoma.synthesis.tumor import Quaternion, Request, TumorPlan, Vector, rotation_of
from synthoma.volume import Array, Box, Floats, Geometry, Triple, Volume, triple

TIE = 1e-4  # radii closer than this are one: float32 and the coverage table cannot tell them apart
_SLACK = 1.06  # how far the digital body's scale may be from the analytic one
_AT_SURFACE = (0.2, 0.8)  # depth of the center in radii: the organ's surface cuts the tumor, most of it is inside
CLOSE = np.float32(1 / _SLACK), np.float32(_SLACK)
_RAREST = 6.5  # SDs of its field that no surface reaches: one in ten million tumors


@dataclass(frozen=True, eq=False)
class Star:
    """What fills the voxels of a mass, before any voxel is looked at: small arrays, whoever computes with them.

    box: the voxels that it may fill. i, j, k, moves: of `reference.Frame`. table: the surface's radius over directions;
    the look-up is `factor` times finer. shell: squared radii beyond which, and below which, no voxel needs a look-up.
    wanted: voxels of the planned volume. widest: how far from the surface its blur reaches. blur, stretch (3, 3): as
    the kernels want them.
    """

    box: Box
    i: Floats
    j: Floats
    k: Floats
    moves: Floats
    table: Array
    factor: int
    shell: tuple[np.float32, np.float32]
    wanted: int
    widest: np.float32
    blur: Array
    stretch: Array


def star(plan: TumorPlan, geometry: Geometry, need_inside: bool = False) -> Star:
    """The mass of a plan on a grid; need_inside: its depth is asked for everywhere, not at the border alone."""
    outline = _outline(plan, geometry)
    to_unit, table, samples, blur, margin = outline[:5]
    outermost = _SLACK * float(table.max()) + margin
    innermost = -1.0 if need_inside else float(table.min()) / _SLACK - margin
    box = _box(plan, geometry, outline)
    matrix = to_unit @ geometry.affine[:3, :3]
    start = to_unit @ (geometry.to_mm(box.lower) - np.asarray(plan.center_mm))
    moves = np.array([matrix @ offset for offset in sample_offsets(samples)]).astype(np.float32)
    return Star(
        box,
        *_coordinates(matrix, start, box.shape),
        moves,
        table,
        _map_factor(plan, geometry),
        (np.float32(outermost**2), np.float32(max(innermost, 0) ** 2)),
        max(1, round(plan.volume_mm3 / geometry.voxel_mm3)),
        np.float32(margin / float(table.min()) + _spread_mm(geometry, samples) / min(plan.axes_mm)),
        blur,
        np.diag(1 / np.asarray(plan.axes_mm) ** 2),
    )


def mass(plan: TumorPlan, geometry: Geometry, need_inside: bool = False) -> Body:
    """The star-shaped body of a plan on a grid; its box may reach outside the grid.

    The half-axes are scaled so that the voxels with alpha >= 0.5 fill the planned volume, whatever the surface
    and the grid.
    """
    body = star(plan, geometry, need_inside)
    reach = kernels().refined(body.table, body.factor).astype(np.float32)
    frame = Frame(body.i, body.j, body.k, body.moves, reach)
    ratio, inside, below, close = kernels().shell_ratios(frame, *body.shell, CLOSE)
    scale = _scale_for(close, body.wanted - inside - below)
    alpha = kernels().shares_of(frame, ratio, scale, body.widest, body.blur)
    if not need_inside:
        nothing = np.zeros(body.box.shape, np.float32, order="F")
        return Body(body.box, alpha, nothing, nothing)
    return Body(body.box, alpha, *kernels().depths_of(frame, ratio, alpha, scale, body.stretch))


def mass_box(plan: TumorPlan, geometry: Geometry) -> Box:
    """The box of a plan's `mass`, at a fraction of its cost."""
    return _box(plan, geometry, _outline(plan, geometry))


def _place(organ: OrganModel, request: Request, surface: Surface, rng: np.random.Generator) -> Placement:
    """Half-axes and orientation like those of real tumors, in a place at a depth like theirs."""
    shape, diameter_mm = anatomy.SHAPES[organ.organ], request.diameter_mm
    axes, orientation = _axes(shape, diameter_mm, rng), _orientation(rng)
    wanted = _wanted_depth(organ, diameter_mm, request, rng)
    reach = float(max(axes)) * (1 + 1.5 * surface.roughness)
    site = find_site(organ, wanted, reach, request.taken, request.recipe.gap_mm, rng)
    return Placement(site.center_mm, axes, orientation, site.relaxed, surface)


def _volume_mm3(axes_mm: Vector) -> float:
    a, b, c = axes_mm
    return 4 / 3 * np.pi * a * b * c


def _reach(plan: TumorPlan) -> float:
    return 1.2 * bounding_radius_mm(plan.axes_mm, Surface.of(plan).roughness) + 5.0


def _make(plan: TumorPlan, geometry: Geometry, organ: Volume, need_inside: bool) -> Body:
    del organ
    return mass(plan, geometry, need_inside)


def _outer_box(plan: TumorPlan, geometry: Geometry) -> Box:
    surface = Surface.of(plan)
    at = [-_RAREST, _RAREST]
    if surface.skew and abs(0.5 / surface.skew) < _RAREST:
        at.append(0.5 / surface.skew)
    bump = max(surface.roughness * (n - surface.skew * (n * n - 1)) for n in at)
    blur = np.sqrt(plan.edge_mm**2 + plan.blur_mm**2 + max(geometry.spacing_mm) ** 2 / 4)
    ratio = max(plan.axes_mm) / min(plan.axes_mm)
    outermost_mm = 1.1 * max(plan.axes_mm) * np.exp(bump) + 2.5 * blur * ratio
    return geometry.box_around(plan.center_mm, float(outermost_mm)).grow(1)


def _axes(shape: ShapePrior, diameter_mm: float, rng: np.random.Generator) -> Vector:
    """Half-axes, longest first, of the planned volume."""
    middle = _ratio(*shape.b_over_a, rng)
    short = middle * _ratio(*shape.c_over_b, rng)
    longest = diameter_mm / 2 / (middle * short) ** (1 / 3)
    return longest, longest * middle, longest * short


def _ratio(mean: float, deviation: float, rng: np.random.Generator) -> float:
    """Beta-distributed on the allowed range, with this mean and SD."""
    low, high = anatomy.AXIS_RATIO_RANGE
    share, spread = (mean - low) / (high - low), deviation / (high - low)
    total = share * (1 - share) / spread**2 - 1
    return low + (high - low) * float(rng.beta(share * total, (1 - share) * total))


def _orientation(rng: np.random.Generator) -> Quaternion:
    """A rotation drawn uniformly from all rotations."""
    quaternion = rng.standard_normal(4)
    w, x, y, z = (quaternion / np.linalg.norm(quaternion)).tolist()
    return w, x, y, z


def _wanted_depth(
    organ: OrganModel, diameter_mm: float, request: Request, rng: np.random.Generator
) -> tuple[float, float]:
    """Lowest and highest depth of the center, in mm under the organ's surface.

    A tumor that found no room outside is drawn deeper each time: without fat around, it has to grow inward.
    """
    prior, radius = anatomy.SITES[organ.organ], diameter_mm / 2
    if prior.free_surface is None:
        if request.recipe.surface_share and rng.random() < request.recipe.surface_share:
            return _AT_SURFACE[0] * radius, _AT_SURFACE[1] * radius
        return prior.depth_share * radius, float("inf")
    mean = prior.free_surface[0 if diameter_mm < 20 else 1 if diameter_mm <= 40 else 2]
    free = float(np.clip(rng.normal(mean, anatomy.FREE_SURFACE_SPREAD), 0.03, 0.9))
    depth = organ.radius_mm - _distance_for(free, radius, organ.radius_mm) + 0.2 * request.attempt * radius
    return depth - 0.1 * radius, depth + 0.1 * radius


def _distance_for(free: float, radius: float, organ_radius: float) -> float:
    """How far apart two balls' centers lie when `free` of the first's surface, or the least possible, is outside."""
    # the spheres meet where the cosine seen from the first's center is (R^2 - D^2 - r^2) / (2 D r) = 1 - 2 free
    cosine, excess = 1 - 2 * free, radius**2 - organ_radius**2
    if excess > 0:
        cosine = min(cosine, -(excess**0.5) / radius)
    return float(max((radius * cosine) ** 2 - excess, 0.0) ** 0.5 - radius * cosine)


class _Outline(NamedTuple):
    """RAS+ mm to a tumor's unit frame, and the surface there, wherever the tumor lies.

    to_unit (3, 3). table: the radius over directions. samples: of a voxel. blur (3, 3): with how far it reaches as
    `margin`. lower, upper: of what the surface can reach, in voxels from the center.
    """

    to_unit: Array
    table: Array
    samples: Triple
    blur: Array
    margin: float
    lower: tuple[float, ...]
    upper: tuple[float, ...]


def _outline(plan: TumorPlan, geometry: Geometry) -> _Outline:
    """The outline of a plan on a grid, which is that on any part of the grid."""
    axes, orientation = tuple(plan.axes_mm), tuple(plan.orientation)
    own = plan.seed, Surface.of(plan), axes, orientation, plan.edge_mm, plan.blur_mm
    return _outline_of(*own, samples_per_voxel(plan, geometry), geometry.affine[:3, :3].tobytes())


@lru_cache(maxsize=32)  # more than a case has
def _outline_of(
    seed: int, surface: Surface, axes_mm: Vector, orientation: Quaternion, edge_mm: float, blur_mm: float,
    samples: Triple, steps_mm: bytes,
) -> _Outline:  # fmt: skip
    """Asked for twice for each tumor: by who reads the voxels around it, and by who fills them."""
    steps, table = np.frombuffer(steps_mm).reshape(3, 3), radius_map(seed, surface)
    to_unit = rotation_of(orientation).T / np.asarray(axes_mm)[:, None]
    blur = _blur_in_unit_frame(edge_mm**2 + blur_mm**2, steps, to_unit, samples)
    margin = 2.5 * float(np.sqrt(np.linalg.eigvalsh(blur)[-1]))
    back = np.linalg.inv(steps) @ np.linalg.inv(to_unit)
    x, y, z = map_directions(len(table))
    radius = _SLACK * table.ravel() + margin
    reached = [radius * (row[0] * x + row[1] * y + row[2] * z) for row in back]
    lower, upper = tuple(float(axis.min()) for axis in reached), tuple(float(axis.max()) for axis in reached)
    return _Outline(to_unit, table, samples, blur, margin, lower, upper)


def _scale_for(close: Floats, rank: int) -> np.float32:
    """How much to widen the surface so that `rank` of these ratios, all within the slack, lie inside."""
    low, high = CLOSE
    if not 0 < rank < len(close):
        return np.float32(1)
    inner, outer = np.partition(close, [rank - 1, rank])[rank - 1 : rank + 1]
    if outer - inner < TIE:
        # voxels mirrored about the center go together: all of them, or none
        nearer, farther = close < inner - TIE, close > outer + TIE
        tied = len(close) - int(nearer.sum()) - int(farther.sum())
        if 2 * (rank - int(nearer.sum())) < tied:
            inner, outer = close.max(where=nearer, initial=low), inner - TIE
        else:
            inner, outer = outer + TIE, close.min(where=farther, initial=high)
    return np.float32((inner + outer) / 2)


def _spread_mm(geometry: Geometry, samples: tuple[int, int, int]) -> float:
    """How far a voxel's sub-samples lie from its center at most."""
    return float(np.linalg.norm((1 - 1 / np.asarray(samples)) / 2 * geometry.spacing_mm))


def _blur_in_unit_frame(squared_mm: float, steps: Array, to_unit: Array, samples: Triple) -> Array:
    """(3, 3) covariance of border and scanner, together `squared_mm`, and (sub-)voxel, in the tumor's unit frame."""
    cells = steps / np.asarray(samples)
    covariance = squared_mm * np.eye(3) + cells @ cells.T / 12
    return np.asarray(to_unit @ covariance @ to_unit.T)


def _box(plan: TumorPlan, geometry: Geometry, outline: _Outline) -> Box:
    """The voxels that the surface, widened by slack and margin, can reach."""
    center = geometry.to_ijk(plan.center_mm).tolist()
    lower = (math.floor(c + low) for c, low in zip(center, outline.lower, strict=True))
    upper = (math.ceil(c + high) + 1 for c, high in zip(center, outline.upper, strict=True))
    return Box(triple(lower), triple(upper))


def _coordinates(matrix: Array, start: Array, shape: tuple[int, int, int]) -> tuple[Floats, Floats, Floats]:
    """Unit coordinates of the voxels of a box as sums of three, of I, J and K: each (3, voxels along the axis)."""
    i, j, k = ((matrix[:, axis, None] * np.arange(shape[axis])).astype(np.float32) for axis in range(3))
    return i, j, k + start.astype(np.float32)[:, None]


def _map_factor(plan: TumorPlan, geometry: Geometry) -> int:
    """How much finer than the harmonics' map the look-up has to be, for steps of half a voxel at most."""
    voxels = max(plan.axes_mm) / min(geometry.spacing_mm)
    return 1 if Surface.of(plan).roughness == 0 else min(max(math.ceil(voxels / 6), 2), 8)


MASS = Form(
    place=_place,
    volume_mm3=_volume_mm3,
    reach=_reach,
    make=_make,
    box=mass_box,
    outer_box=_outer_box,
    follows_organ=False,
    has_mass_effect=True,
)
