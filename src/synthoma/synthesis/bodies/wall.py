"""Tumors of hollow organs: a thickening that follows the wall, narrows the lumen and replaces what was in it.

In coordinates of the wall (u along the organ, v around it, depth D under its outer surface) the tumor is where
((u/a)^2 + (v/b)^2)^2 + (D/c)^4 < e^(4 g): a plateau with shoulders, as annular cancers have; g is the surface of
`surface`, over directions from the tumor's center. It reaches a little way outside, and further where it is thicker
than the organ is deep. a is stretched until the volume is the planned one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from scipy import ndimage

from synthoma.errors import CaseError
from synthoma.synthesis.bodies import centerline, extent, tube
from synthoma.synthesis.bodies.body import Body, Form, Placement, Surface, coverage
from synthoma.synthesis.bodies.subvoxels import sample_grid, samples_per_voxel, voxel_means
from synthoma.synthesis.bodies.surface import log_radius_map
from synthoma.synthesis.bodies.tube import Nodes, Tube
from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.location import OrganModel, find_site
from synthoma.synthesis.tumor import Quaternion, Request, TumorPlan, Vector
from synthoma.volume import Array, Box, Floats, Geometry, Volume, triple

_TRIES = 12
_LEAST_ROOM = 0.4  # share of a tumor that its place has to hold
_SURFACE_MM = 2.6  # as deep as the organ model's outermost cells lie
_AROUND_MM = 75.0  # how much of the organ a place is judged by
_MARGIN_MM = 8.0  # how far a wall tumor, its blur included, may come out of where its organ is looked at
_STRETCH = (0.4, 1.7)  # of the planned length, so that the volume is the planned one
_DENT, _BUMP = -0.35, 0.3  # ln of the deepest dent and the highest lobule over the plain surface
_IN_WALL_MM = 1.0, 3.0  # depth under the organ's surface from which the border is less, and no longer, that to tissue
_OUTSIDE = 0.1  # of the thickness that lies outside the organ
_FINER = 4  # nodes of the map of lobules to each of the harmonics'; the far wall is many radii away
_SAMPLES = (48, 36, 8)  # along, around and into the wall, to find the volume


def place(organ_model: OrganModel, request: Request, surface: Surface, rng: np.random.Generator) -> Placement:
    """A place drawn uniformly over the organ's surface, and half length, half arc and thickness that suit it.

    Places on the organ's end, or without room along it, are given up (`relaxed` counts them); if there is no other
    the roomiest is taken. `CaseError` if there is none at all.
    """
    diameter_mm, gap_mm = request.diameter_mm, request.recipe.gap_mm
    scan = organ_model.scan
    # the outermost coarse voxels of the organ, however coarse they are
    surface_mm = max(_SURFACE_MM, min(organ_model.grid.spacing_mm))
    best: tuple[float, Placement] | None = None
    # once, since places without room would choose the shortest of many
    wanted = extent.Wanted.draw(rng)
    for tried in range(_TRIES):
        site = find_site(organ_model, (0.0, surface_mm), 0.8 * diameter_mm, request.taken, gap_mm, rng, relax=0)
        organ = organ_model.crop(scan.box_around(site.center_mm, _AROUND_MM))
        tube_there = _tube_at(organ, site.center_mm)
        if tube_there is None:
            continue
        center, rotation, line = tube_there
        axes, outside = extent.axes_of(diameter_mm, line.radius_mm, wanted)
        x, y, z = center.tolist()
        placement = Placement((x, y, z), axes, _quaternion(rotation), tried, replace(surface, outside=outside))
        room = _room(line, scan, axes[0], diameter_mm)
        if room > 0.75:
            return placement
        if best is None or room > best[0]:
            best = room, placement
    if best is None or best[0] < _LEAST_ROOM:
        raise CaseError(
            f"no wall for a tumor of {diameter_mm:.0f} mm in the {organ_model.organ}",
            case=organ_model.case,
            found=f"{organ_model.volume_ml:.0f} ml, room for {100 * best[0]:.0f} % of it"
            if best
            else "nothing like a tube",
            fix="plan smaller tumors, or look at the mask",
        )
    return replace(best[1], relaxed=_TRIES)


def _tube_at(organ: Volume, near_mm: Vector) -> tuple[Array, Array, Tube] | None:
    """Center on the surface, rotation of the tumor's frame, and the organ there; None where it is no tube."""
    found = centerline.find_wall(organ, near_mm)
    if found is None:
        return None
    center, inward, axis, radius = found
    rough = centerline.trace(organ, center, _rotation(axis, inward), extent.LONGEST_MM, 2.5 * radius)
    if rough is None:
        return None
    # the middle line, once known, tells the organ's direction better, at bends above all
    rotation = _rotation(rough.tangents[int(np.argmin(np.abs(rough.along_mm)))], inward)
    line = centerline.trace(organ, center, rotation, extent.LONGEST_MM, 2.5 * radius)
    return None if line is None else (center, rotation, line)


def _rotation(axis: Array, inward: Array) -> Array:
    """(3, 3): columns along the organ, around it and inward."""
    along = axis - inward * (axis @ inward)
    along = along / np.linalg.norm(along)
    return np.stack([along, np.cross(inward, along), inward], axis=1)


def _room(line: Tube, scan: Geometry, half_length: float, diameter_mm: float) -> float:
    """Share of a tumor's length that the organ has in the scan, or of its volume when stretched, if that is less."""
    along = np.linspace(-_STRETCH[1], _STRETCH[1], 41) * half_length
    middle = np.stack([np.interp(along, line.along_mm, values) for values in line.nodes_mm.T], axis=-1)
    index = scan.to_ijk(middle)
    there = ((index > -0.5) & (index < np.asarray(scan.shape) - 0.5)).all(axis=1)
    there &= (along > line.first_mm) & (along < line.last_mm)
    held = np.pi * line.radius_mm**2 * there.mean() * 2 * _STRETCH[1] * half_length / (np.pi / 6 * diameter_mm**3)
    return float(min(there[np.abs(along) <= half_length].mean(), held))


def reach_mm(plan: TumorPlan) -> float:
    """How far from a wall tumor's center the organ's mask is needed."""
    length, arc, _ = plan.axes_mm
    return max(2.0 * length, min(2.2 * arc, 65.0)) + 12.0


def volume_mm3(axes_mm: Vector) -> float:
    """Of the plain tumor on a flat wall."""
    a, b, c = axes_mm
    return 2 / 3 * np.pi * a * b * c


def box(plan: TumorPlan, geometry: Geometry) -> Box:
    """The voxels that the tumor may fill, found without looking at the organ."""
    return geometry.box_around(plan.center_mm, reach_mm(plan) + _MARGIN_MM)


def make(plan: TumorPlan, geometry: Geometry, organ: Volume, need_inside: bool = False) -> Body:
    """The body of a wall tumor on the box of `geometry` that it reaches; the box may reach outside the grid.

    organ: bool, `reach_mm` around the center as far as the scan goes; behind the scan's faces it is taken to go on.
    The tumor ends where the organ does. Its measure tells `lumen_left` and `on_wall`. Raises `CaseError` if the organ
    is not there.
    """
    line = _trace(plan, organ)
    bumps = np.exp(np.clip(log_radius_map(plan.seed, Surface.of(plan)), _DENT, _BUMP))
    table = kernels().refined(bumps, _FINER)
    stretch, reached = _stretch(plan, line, table)
    samples = samples_per_voxel(plan, geometry)
    blur_mm, to_lumen_mm = _blur_mm(plan, geometry, samples)
    whole = _box_of(reached, geometry, 2.5 * blur_mm + 0.1 * max(plan.axes_mm[:2]))
    fine = sample_grid(geometry.crop(whole), samples)
    nodes = Nodes.of(line, fine)
    _, rough_mm = _level(plan, line, nodes.coordinates(), _bumps(plan, nodes.points, table), stretch)
    state = nodes.spread(rough_mm, 2.5 * blur_mm + 0.5)
    near = np.flatnonzero((state == tube.SHELL) | ((state == tube.INSIDE) & need_inside))
    at = np.unravel_index(near, fine.shape)
    wall_at = nodes.coordinates(at)
    level, outside_mm = _level(plan, line, wall_at, _bumps(plan, tube.places(fine, at), table), stretch)
    widths = _between(blur_mm, to_lumen_mm, wall_at[2]) if to_lumen_mm < blur_mm else np.float32(blur_mm)

    def means(start: Floats, values: Floats) -> Floats:
        start.ravel()[near] = values
        return voxel_means(start, samples)

    alpha = means((state == tube.INSIDE).astype(np.float32), coverage(outside_mm / widths))
    alpha[ndimage.binary_fill_holes(alpha >= 0.5) & (alpha < 0.5)] = 1  # the rest of a lumen that it closes all around
    radius = depth = np.zeros(whole.shape, np.float32)
    if need_inside:
        radius = means(np.full(fine.shape, 2, np.float32), level + 1)
        depth = means(np.full(fine.shape, -9, np.float32), -outside_mm)
    return Body(whole, alpha, radius, depth, partial(_scores, line, plan.axes_mm[0], geometry, organ))


def _scores(
    line: Tube, half_length_mm: float, geometry: Geometry, organ: Volume, whole: Box, alpha: Array
) -> dict[str, float]:
    label = alpha >= 0.5
    return {
        "lumen_left": lumen_left(line, half_length_mm, geometry, whole, label),
        "on_wall": on_wall(geometry, organ, whole, label),
    }


def lumen_left(line: Tube, half_length_mm: float, geometry: Geometry, whole: Box, label: Array) -> float:
    """Share of the organ's section that the tumor leaves, where it leaves least; 0 is closed. The wall counts."""
    mask = Volume(np.pad(label, 1), geometry.crop(whole.grow(1)))
    along = np.abs(line.rows_mm)
    rows = along <= max(half_length_mm, along.min())  # a tumor shorter than a row has the nearest one
    shares = (np.arange(12) + 0.5) / 12
    away = line.surface_mm[rows][:, :, None] * shares
    points = line.ray_points(line.rows_mm[rows], line.angles, away)
    area = away * line.surface_mm[rows][:, :, None]
    tumor = (area * tube.value_at(mask, points)).sum(axis=(1, 2))
    return float((1 - tumor / np.maximum(area.sum(axis=(1, 2)), 1e-6)).min())


def on_wall(geometry: Geometry, organ: Volume, whole: Box, label: Array) -> float:
    """Share of the label in pieces that reach the organ's outer surface; nan if the label is empty."""
    if not label.any():
        return float("nan")
    inside = tube.value_at(organ, tube.positions(geometry.crop(whole)))
    surface = inside & ~ndimage.binary_erosion(inside, border_value=1) | ~inside
    pieces, _ = ndimage.label(label)
    return float(np.isin(pieces[label], np.unique(pieces[surface & label])).mean())


def _trace(plan: TumorPlan, organ: Volume) -> Tube:
    length, arc, _ = plan.axes_mm
    line = centerline.trace(organ, plan.center_mm, plan.rotation, 2.0 * length + 5, min(2.2 * arc, 65.0) + 8)
    if line is None:
        raise _nowhere(plan)
    return line


def _nowhere(plan: TumorPlan) -> CaseError:
    return CaseError(f"a tumor planned at {plan.center_mm} mm has no wall of the {plan.organ} to grow on")


def _stretch(plan: TumorPlan, line: Tube, table: Array) -> tuple[float, Array]:
    """How much longer than planned the tumor has to be for its volume, and the places (n, 3) it then fills.

    By samples of the wall, not by voxels: the same on every grid.
    """
    length, arc, thick = plan.axes_mm[0], plan.axes_mm[1], _inside_mm(plan)
    rows, turns, layers = ((np.arange(n) + 0.5) / n for n in _SAMPLES)
    half_turn = line.angle_at(np.exp(_BUMP) * arc)
    along, angle = (4 * rows - 2)[:, None, None] * length, (2 * turns - 1)[:, None] * half_turn
    surface = line.surface_at(*np.broadcast_arrays(along, angle))
    outer, inner = -_outside_mm(plan, line) * np.exp(_BUMP), np.minimum(thick * np.exp(_BUMP), surface)
    depth = outer + (inner - outer) * layers
    points = line.ray_points(along.ravel(), angle.ravel(), surface - depth)
    # the length a sample stands for: shorter inside of a bend
    tangents = np.stack([np.interp(along.ravel(), line.along_mm, values) for values in line.tangents.T])
    long_mm = (np.gradient(points, axis=1) * tangents[:, :, None, None]).sum(axis=0)
    volume = long_mm * (inner - outer) / len(layers) * (surface - depth) * (2 * half_turn / len(turns))
    bumps = _bumps(plan, points, table)
    inward = depth / np.where(depth > 0, thick, -_outside_mm(plan, line))
    # (u / k a)^2 < h^2 - (v / b)^2
    room = np.sqrt(np.maximum(bumps**4 - inward**4, 0)) - (line.arc_at(angle) / arc) ** 2
    there = (room > 0) & (along > line.first_mm) & (along < line.last_mm) & (volume > 0)
    needed = np.where(there, np.abs(along) / (length * np.sqrt(np.maximum(room, 1e-9))), np.inf)
    order = np.argsort(needed, axis=None, kind="stable")
    filled = np.cumsum(np.where(there, volume, 0).ravel()[order])
    enough = min(int(np.searchsorted(filled, plan.volume_mm3)), len(order) - 1)
    stretch = float(np.clip(needed.ravel()[order[enough]], *_STRETCH))
    reached = points[:, needed <= stretch].T
    if not len(reached):
        raise _nowhere(plan)
    return stretch, reached


def _level(
    plan: TumorPlan, line: Tube, coordinates: tuple[Floats, Floats, Floats], bumps: Floats, stretch: float
) -> tuple[Floats, Floats]:
    """Below 0 inside the tumor, -1 at its center; and how far outside its surface, in mm, near the surface."""
    along, around, depth = coordinates
    length, arc, thick = (np.float32(axis) for axis in (*plan.axes_mm[:2], _inside_mm(plan)))
    length = length * np.float32(stretch)
    radius = np.float32(line.radius_mm)
    scale = np.where(depth > 0, thick, np.float32(-_outside_mm(plan, line)))
    u, v, d = along / length, around / arc, depth / scale
    flat2, d2 = u * u + v * v, d * d
    size = np.sqrt(np.sqrt(flat2 * flat2 + d2 * d2))
    turn = radius / (arc * np.maximum(radius - depth, np.float32(0.3) * radius))
    slope = np.sqrt((flat2 * u / length) ** 2 + (flat2 * v * turn) ** 2 + (d2 * d / scale) ** 2)
    steep = slope / np.maximum(size, np.float32(0.05)) ** 3 / bumps
    level = size / bumps - 1
    outside_mm = level / np.maximum(steep, np.float32(0.2) / thick)
    # beside the tumor the wall is near and steep, but the tumor is not; inside, its outer surface may be the nearest
    outside_mm = np.maximum(outside_mm, (np.sqrt(flat2) / bumps - 1) * min(length, arc))
    outside_mm = np.maximum(outside_mm, -np.float32(_outside_mm(plan, line)) - depth)
    for end in (along - line.last_mm, line.first_mm - along):
        if np.isfinite(end).all():
            outside_mm = np.maximum(outside_mm, end.astype(np.float32))
    return level, outside_mm


def _inside_mm(plan: TumorPlan) -> float:
    """The part of the thickness that lies inside of the organ's surface."""
    return plan.axes_mm[2] * (1 - Surface.of(plan).outside)


def _outside_mm(plan: TumorPlan, line: Tube) -> float:
    """How far a tumor reaches outside the organ: a little, what is planned, and what the organ is too narrow for."""
    thick = _inside_mm(plan)
    return plan.axes_mm[2] - thick + _OUTSIDE * thick + max(0.0, 0.8 * (thick - extent.CLOSED * line.radius_mm))


def _bumps(plan: TumorPlan, points: Array, table: Array) -> Floats:
    """exp g at RAS+ positions (3, ...), by direction from the tumor's center in its map."""
    if Surface.of(plan).roughness == 0:
        return np.ones(points.shape[1:], np.float32)
    x, y, z = (axis.astype(np.float32) - np.float32(start) for axis, start in zip(points, plan.center_mm, strict=True))
    a, b, c = (np.float32(row[0]) * x + np.float32(row[1]) * y + np.float32(row[2]) * z for row in plan.rotation.T)
    return np.asarray(table.astype(np.float32).ravel()[kernels().map_index(a, b, c, len(table))])


def _box_of(points: Array, geometry: Geometry, margin_mm: float) -> Box:
    """The voxels within a margin of places (n, 3) in RAS+."""
    at = geometry.to_ijk(points)
    margin = np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1) * margin_mm
    return Box(triple(np.floor(at.min(axis=0) - margin)), triple(np.ceil(at.max(axis=0) + margin) + 1))


def _blur_mm(plan: TumorPlan, geometry: Geometry, samples: tuple[int, int, int]) -> tuple[float, float]:
    """SD of border, scanner and sample, the same in all directions: to tissue, and to what the lumen holds.

    A tumor does not grow into gas, fluid or stool: there the border is as wide as scanner and voxel make it. The
    scanner's blur was measured in voxels, so their in-plane width is in it already.
    """
    sample = float((np.square(geometry.spacing_mm) / np.square(samples)).mean() / 12)
    to_tissue = float(np.sqrt(plan.edge_mm**2 + plan.blur_mm**2 + sample))
    if Surface.of(plan).lumen == "soft":
        return to_tissue, to_tissue
    in_plane = min(geometry.spacing_mm) ** 2 / 12
    return to_tissue, float(np.sqrt(max(plan.blur_mm**2 - in_plane, 0.0) + sample))


def _between(tissue_mm: float, lumen_mm: float, depth_mm: Floats) -> Floats:
    """The width of the border at these depths under the organ's surface."""
    start, end = _IN_WALL_MM
    share = np.clip((depth_mm - np.float32(start)) / np.float32(end - start), 0, 1)
    return np.asarray(np.float32(tissue_mm) + share * np.float32(lumen_mm - tissue_mm), np.float32)


def _quaternion(rotation: Array) -> Quaternion:
    """(w, x, y, z) of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return w, x, y, z


WALL = Form(
    place=place,
    volume_mm3=volume_mm3,
    reach=reach_mm,
    make=make,
    box=box,
    outer_box=box,
    follows_organ=True,
    has_mass_effect=False,
)
