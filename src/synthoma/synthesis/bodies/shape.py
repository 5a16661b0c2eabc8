"""Star-shaped bodies with the surface spectrum of real tumors, evaluated on any grid.

A point x lies inside where ln|u| < g(u / |u|), u = R^T (x - center) / half-axes and
g = a (n - s (n^2 - 1)); n is a unit-variance Gaussian field on the sphere with spherical-harmonic degrees
3..20 and variance per degree ~ l^-p (docs/priors.md). Directions are looked up in an octahedral map.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import erf, lgamma

import numpy as np
from numpy.typing import NDArray

from synthoma.seeds import rng_for
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Geometry, Triple

Floats = NDArray[np.float32]
DEGREES = range(3, 21)
_TIE = 1e-4  # radii closer than this are one: float32 and the coverage table cannot tell them apart
_SLACK = 1.06  # how far the digital body's scale may be from the analytic one
_MAP = 40  # side of the octahedral map; degree 20 then has four samples a period
_AT_ONCE = 8192  # directions looked up together: so many fit the processor's cache
_SAMPLE_MM = 1.25  # voxels longer than this, and than a fifth of the tumor's radius, are sampled more than once


def surface(plan: TumorPlan) -> Array:
    """g over directions: the octahedral map (n, n) of the log radius, of zero mean or nearly so."""
    return _surface(plan.seed, plan.roughness, plan.spectrum, plan.skew)


@lru_cache(maxsize=16)
def _radius(seed: int, roughness: float, spectrum: float, skew: float) -> Array:
    """exp g, scaled to the volume of the unit ball; kept, since a tumor's box asks for it as well as the tumor."""
    reach = np.exp(_surface(seed, roughness, spectrum, skew))
    reach /= _mean_cube(reach) ** (1 / 3)
    reach.flags.writeable = False
    return reach


def _surface(seed: int, roughness: float, spectrum: float, skew: float) -> Array:
    if roughness == 0:
        return np.zeros((_MAP, _MAP))
    basis, degree = _harmonics(_MAP)
    shares = np.array([float(l) ** -spectrum for l in DEGREES])
    deviations = np.sqrt(shares / shares.sum())
    # orthonormal harmonics: a coefficient's variance times (2 l + 1) / (4 pi) is what its degree adds at any point
    scale = deviations[degree - DEGREES.start] * np.sqrt(4 * np.pi / (2 * degree + 1))
    weights = rng_for(seed, "surface").standard_normal(len(degree)) * scale
    n = (weights @ basis).reshape(_MAP, _MAP)
    return np.asarray(roughness * (n - skew * (n * n - 1)))


@lru_cache(maxsize=2)
def _harmonics(side: int) -> tuple[Array, NDArray[np.int64]]:
    """Real orthonormal harmonics of `DEGREES` (coefficients, directions) on the map, and their degrees."""
    x, y, z = _map_directions(side)
    azimuth = np.arctan2(y, x)
    sine = np.sqrt(np.maximum(0.0, 1 - z * z))
    rows, degrees = [], []
    for order in range(DEGREES.stop):
        # associated Legendre functions by upward recursion in degree
        lower, current = np.zeros_like(z), sine**order
        for m in range(1, order + 1):
            current = current * (2 * m - 1)
        for degree in range(order, DEGREES.stop):
            if degree in DEGREES:
                log_norm = lgamma(degree - order + 1) - lgamma(degree + order + 1)
                norm = np.sqrt((2 * degree + 1) / (4 * np.pi) * np.exp(log_norm))
                if order == 0:
                    rows.append(norm * current)
                    degrees.append(degree)
                else:
                    rows.append(np.sqrt(2) * norm * current * np.cos(order * azimuth))
                    rows.append(np.sqrt(2) * norm * current * np.sin(order * azimuth))
                    degrees += [degree, degree]
            step = ((2 * degree + 1) * z * current - (degree + order) * lower) / (degree - order + 1)
            lower, current = current, step
    return np.array(rows), np.array(degrees)


@lru_cache(maxsize=2)
def _map_directions(side: int) -> tuple[Array, Array, Array]:
    """Unit vectors of the map's nodes; the outer edge is included, so neighbors across it are equal."""
    a, b = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    a, b = a.ravel(), b.ravel()
    z = 1 - np.abs(a) - np.abs(b)
    fold = z < 0
    x = np.where(fold, (1 - np.abs(b)) * np.where(a >= 0, 1, -1), a)
    y = np.where(fold, (1 - np.abs(a)) * np.where(b >= 0, 1, -1), b)
    length = np.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


@dataclass(frozen=True, eq=False)
class Body:
    """A shape on a box of a grid. All arrays float32 (box), the first axis fastest in memory.

    alpha: share of each voxel that is tumor, blurred by scanner and border. radius: 0 at the center, 1 at the
    surface, exact where `need_inside` was asked, else 0 deep inside. depth_mm: below the surface, likewise.
    """

    box: Box
    alpha: Floats
    radius: Floats
    depth_mm: Floats


def mass(plan: TumorPlan, geometry: Geometry, need_inside: bool = False) -> Body:
    """The star-shaped body of a plan on a grid; its box may reach outside the grid.

    The half-axes are scaled so that the voxels with alpha >= 0.5 fill the planned volume, whatever the surface
    and the grid.
    """
    half_axes = np.asarray(plan.axes_mm)
    to_unit, table, samples, blur, margin = _frame(plan, geometry)
    map_side, fine = refine(table, _map_factor(plan, geometry))
    reach = fine.astype(np.float32)
    outermost = _SLACK * float(table.max()) + margin
    innermost = -1.0 if need_inside else float(table.min()) / _SLACK - margin
    box = _box(plan, geometry, to_unit, table, margin)
    matrix = to_unit @ geometry.affine[:3, :3]
    start = to_unit @ (geometry.to_mm(box.lower) - np.asarray(plan.center_mm))

    # arrays are (K, J, I) here: scans lie in memory with the first axis fastest, and so does what is put into them
    center = _coordinates(matrix, start, box.shape)
    squared = center[0] ** 2 + center[1] ** 2 + center[2] ** 2
    near = squared < np.float32(outermost**2)
    inside = squared < np.float32(max(innermost, 0) ** 2)
    shell = np.flatnonzero(near & ~inside)

    # a row for each sub-sample, summed one after the other
    moves = np.array([matrix @ offset for offset in _offsets(samples)]).astype(np.float32)
    points = [axis.ravel()[shell] + move[:, None] for axis, move in zip(center, moves.T, strict=True)]
    distances = _length(points[0], points[1], points[2])
    edges = reach.ravel()[map_index(points[0], points[1], points[2], map_side)]
    ratio = np.zeros(len(shell), np.float32)
    for row in distances / edges:
        ratio += row
    ratio /= np.float32(len(moves))
    scale = _scale_for(ratio, max(1, round(plan.volume_mm3 / geometry.voxel_mm3)) - int(inside.sum()))
    ratio /= scale

    alpha = inside.astype(np.float32)
    widest = np.float32(margin / float(table.min()) + _spread_mm(geometry, samples) / min(plan.axes_mm))
    alpha.ravel()[shell[ratio < 1 - widest]] = 1
    border = np.flatnonzero(np.abs(ratio - 1) <= widest)
    share = np.zeros(len(border), np.float32)
    from_center, edges = distances[:, border], edges[:, border]
    x, y, z = (axis[:, border] for axis in points)
    for row in coverage(from_center * (from_center - scale * edges) / _quadratic(blur, x, y, z)):
        share += row
    alpha.ravel()[shell[border]] = share / np.float32(len(moves))
    radius, depth = np.zeros_like(alpha), np.zeros_like(alpha)
    if need_inside:
        x, y, z = (axis.ravel()[shell] for axis in center)
        distance = _length(x, y, z)
        radius.ravel()[shell] = ratio
        steepness = _quadratic(np.diag(1 / half_axes**2), x, y, z)
        depth.ravel()[shell] = distance * distance * (1 / np.maximum(ratio, np.float32(1e-3)) - 1) / steepness
    return Body(box, alpha.T, radius.T, depth.T)


def mass_box(plan: TumorPlan, geometry: Geometry) -> Box:
    """The box of a plan's `mass`, at a fraction of its cost."""
    to_unit, table, _, _, margin = _frame(plan, geometry)
    return _box(plan, geometry, to_unit, table, margin)


def _frame(plan: TumorPlan, geometry: Geometry) -> tuple[Array, Array, Triple, Array, float]:
    """RAS+ mm to the tumor's unit frame, the radius over directions, sub-samples, and the blur and its reach there."""
    to_unit = plan.rotation.T / np.asarray(plan.axes_mm)[:, None]
    samples = _samples(plan, geometry)
    blur = _blur_in_unit_frame(plan, geometry, to_unit, samples)
    margin = 2.5 * float(np.sqrt(np.linalg.eigvalsh(blur)[-1]))
    return to_unit, _radius(plan.seed, plan.roughness, plan.spectrum, plan.skew), samples, blur, margin


def coverage(distance: Floats) -> Floats:
    """The share of a voxel inside, from its center's distance outside the surface in SDs of the blur.

    0.5 on the surface, exactly 1 and 0 from 2.5 SDs on.
    """
    index = np.clip(distance * np.float32(-_STEPS / 2.5) + np.float32(_STEPS + 0.5), 0, 2 * _STEPS)
    return np.asarray(_coverage_table()[index.astype(np.intp)])


_STEPS = 1280


@lru_cache(maxsize=1)
def _coverage_table() -> Floats:
    at = np.linspace(-2.5, 2.5, 2 * _STEPS + 1)
    cumulative = np.array([0.5 * (1 + erf(x / np.sqrt(2))) for x in at])
    return np.asarray((cumulative - cumulative[0]) / (cumulative[-1] - cumulative[0]), np.float32)


def _scale_for(ratio: Floats, wanted: int) -> np.float32:
    """How much to widen the surface so that `wanted` of these voxels lie inside; within the slack."""
    low, high = np.float32(1 / _SLACK), np.float32(_SLACK)
    close = ratio[(ratio > low) & (ratio < high)]
    rank = wanted - int((ratio <= low).sum())
    if not 0 < rank < len(close):
        return np.float32(1)
    inner, outer = np.partition(close, [rank - 1, rank])[rank - 1 : rank + 1]
    if outer - inner < _TIE:
        # voxels mirrored about the center go together: all of them, or none
        nearer, farther = close < inner - _TIE, close > outer + _TIE
        tied = len(close) - int(nearer.sum()) - int(farther.sum())
        if 2 * (rank - int(nearer.sum())) < tied:
            inner, outer = close.max(where=nearer, initial=low), inner - _TIE
        else:
            inner, outer = outer + _TIE, close.min(where=farther, initial=high)
    return np.float32((inner + outer) / 2)


def _spread_mm(geometry: Geometry, samples: tuple[int, int, int]) -> float:
    """How far a voxel's sub-samples lie from its center at most."""
    return float(np.linalg.norm((1 - 1 / np.asarray(samples)) / 2 * geometry.spacing_mm))


def _length(x: Floats, y: Floats, z: Floats) -> Floats:
    """|(x, y, z)|, never 0."""
    return np.asarray(np.sqrt(x * x + y * y + z * z + np.float32(1e-12)))


def _samples(plan: TumorPlan, geometry: Geometry) -> tuple[int, int, int]:
    """Sub-samples along each axis: more than one where the voxel is long for the tumor."""
    finest = max(_SAMPLE_MM, 0.2 * min(plan.axes_mm))
    i, j, k = (max(1, min(8, int(np.ceil(spacing / finest - 1e-6)))) for spacing in geometry.spacing_mm)
    return i, j, k


@lru_cache(maxsize=16)
def _offsets(samples: tuple[int, int, int]) -> Array:
    """Positions of the sub-samples inside a voxel (n, 3), in voxels from its center."""
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in samples]
    return np.array(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).T


def _blur_in_unit_frame(plan: TumorPlan, geometry: Geometry, to_unit: Array, samples: tuple[int, ...]) -> Array:
    """(3, 3) covariance of border, scanner and (sub-)voxel, in the tumor's unit coordinates."""
    cells = geometry.affine[:3, :3] / np.asarray(samples)
    covariance = (plan.edge_mm**2 + plan.blur_mm**2) * np.eye(3) + cells @ cells.T / 12
    return np.asarray(to_unit @ covariance @ to_unit.T)


def _box(plan: TumorPlan, geometry: Geometry, to_unit: Array, table: Array, margin: float) -> Box:
    """The voxels that the surface, widened by slack and margin, can reach."""
    back = np.linalg.inv(geometry.affine[:3, :3]) @ np.linalg.inv(to_unit)
    x, y, z = _map_directions(len(table))
    radius = _SLACK * table.ravel() + margin
    center = geometry.to_ijk(plan.center_mm)
    at = [c + radius * (row[0] * x + row[1] * y + row[2] * z) for c, row in zip(center, back, strict=True)]
    i, j, k = ((int(np.floor(axis.min())), int(np.ceil(axis.max())) + 1) for axis in at)
    return Box((i[0], j[0], k[0]), (i[1], j[1], k[1]))


def _mean_cube(reach: Array) -> float:
    """Mean of reach^3 over the sphere: the body's volume over the ellipsoid's."""
    x, y, z = _map_directions(len(reach))
    # a node's solid angle on the octahedron's faces goes with the cube of the direction's 1-norm
    weight = (np.abs(x) + np.abs(y) + np.abs(z)) ** 3
    edge = np.linspace(-1, 1, len(reach))
    half = np.where(np.abs(edge) == 1, 0.5, 1.0)
    weight = weight.reshape(reach.shape) * half[:, None] * half
    return float((reach**3 * weight).sum() / weight.sum())


def _coordinates(matrix: Array, start: Array, shape: tuple[int, int, int]) -> list[Floats]:
    """Unit coordinates of every voxel of a box: three arrays (K, J, I)."""
    result = []
    for row, first in zip(matrix, start, strict=True):
        i, j, k = ((row[axis] * np.arange(shape[axis])).astype(np.float32) for axis in range(3))
        plane = (k + np.float32(first))[:, None] + j
        result.append(plane[:, :, None] + i)
    return result


def _quadratic(matrix: Array, x: Floats, y: Floats, z: Floats) -> Floats:
    """sqrt(v^T matrix v), never 0."""
    m = matrix.astype(np.float32)
    total = m[0, 0] * x * x + m[1, 1] * y * y + m[2, 2] * z * z
    total += 2 * (m[0, 1] * x * y + m[0, 2] * x * z + m[1, 2] * y * z)
    return np.asarray(np.sqrt(np.maximum(total, np.float32(1e-12))))


def _map_factor(plan: TumorPlan, geometry: Geometry) -> int:
    """How much finer than the harmonics' map the look-up has to be, for steps of half a voxel at most."""
    voxels = max(plan.axes_mm) / min(geometry.spacing_mm)
    return 1 if plan.roughness == 0 else int(np.clip(np.ceil(voxels / 6), 2, 8))


def refine(table: Array, factor: int) -> tuple[int, Array]:
    """The map with `factor` times the nodes along each side, by linear interpolation."""
    if factor == 1:
        return len(table), table
    side = (len(table) - 1) * factor + 1
    at = np.arange(side) / factor
    low = np.minimum(at.astype(int), len(table) - 2)
    weight = at - low
    rows = table[low] * (1 - weight[:, None]) + table[low + 1] * weight[:, None]
    return side, rows[:, low] * (1 - weight) + rows[:, low + 1] * weight


def map_index(x: Floats, y: Floats, z: Floats, side: int) -> NDArray[np.intp]:
    """Flat index into the octahedral map of each direction."""
    found = np.empty(x.shape, np.intp)
    flat = [np.ascontiguousarray(axis).reshape(-1) for axis in (x, y, z)]
    for start in range(0, x.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found.reshape(-1)[part] = _map_index(flat[0][part], flat[1][part], flat[2][part], side)
    return found


def _map_index(x: Floats, y: Floats, z: Floats, side: int) -> NDArray[np.intp]:
    size = np.abs(x) + np.abs(y) + np.abs(z) + np.float32(1e-12)
    a, b = x / size, y / size
    below = z < 0
    folded = np.copysign(1 - np.abs(b), a)
    b = np.where(below, np.copysign(1 - np.abs(a), b), b)
    a = np.where(below, folded, a)
    half = np.float32((side - 1) / 2)
    row = (a * half + np.float32(half + 0.5)).astype(np.intp)
    column = (b * half + np.float32(half + 0.5)).astype(np.intp)
    return row * side + column
