"""Tumors that grow: a front moves from a seed through the scan's tissue until it holds the planned volume."""

from __future__ import annotations

import dataclasses
from functools import partial

import edt
import numpy as np
from scipy import ndimage

from synthoma import anatomy
from synthoma.errors import CaseError
from synthoma.synthesis import drawing
from synthoma.synthesis.bodies.body import Body, bounding_radius_mm, coverage, draw_surface, rounded_surface
from synthoma.synthesis.bodies.forms import FORMS
from synthoma.synthesis.bodies.subvoxels import sample_grid, samples_per_voxel, voxel_means
from synthoma.synthesis.bodies.wall import on_wall
from synthoma.synthesis.drawing import rounded, uniform
from synthoma.synthesis.generators.details import Tissue
from synthoma.synthesis.generators.growth.details import DEATH_MM, HOLDS, WALL_MM, Invasion
from synthoma.synthesis.generators.growth.front import NEVER
from synthoma.synthesis.generators.growth.ground import Lattice, grow, reach_mm
from synthoma.synthesis.generators.texture import tissue
from synthoma.synthesis.location import OrganModel, find_site
from synthoma.synthesis.tumor import Generator, Request, Tumor, TumorPlan
from synthoma.volume import Array, Box, Floats, Geometry, Volume, triple

_SMOOTH = 0.7  # SD in cells
_STEPS = 8  # halvings of the time at which the label holds the planned volume


class Growth(Generator):
    """The `growth` generator."""

    def draw(self, organ: OrganModel, request: Request, rng: np.random.Generator) -> TumorPlan:
        """A plan with place, size and tissue as real tumors have them, and how its front moves."""
        prior, hold, diameter_mm = anatomy.TISSUES[organ.organ], HOLDS[organ.organ], request.diameter_mm
        # a front has one width all around
        surface = dataclasses.replace(draw_surface(organ, diameter_mm, rng), lumen="soft")
        hollow = surface.form == "wall"
        if hollow:
            radius_mm, axes = 0.8 * diameter_mm, rounded([diameter_mm / 2] * 3, 3)
            surface_mm = max(2.5, min(organ.grid.spacing_mm))
            site = find_site(organ, (0.0, surface_mm), radius_mm, request.taken, request.recipe.gap_mm, rng)
            center_mm, orientation, relaxed = site.center_mm, drawing.UPRIGHT, site.relaxed
        else:
            placed = FORMS["mass"].place(organ, request, surface, rng)
            axes, center_mm, relaxed = rounded(placed.axes_mm, 3), placed.center_mm, placed.relaxed
            w, *xyz = placed.orientation
            orientation = (round(w, 6), *rounded(xyz, 6))
            radius_mm = bounding_radius_mm(axes, surface.roughness)
        # how far the organ's own tissue strays from its mean is no obstacle
        spread = max(20.0, 2 * organ.spread_hu)
        details = rounded_surface(surface) | {
            "front_mm": list(axes),
            "tissue_hu": round(spread, 1),
            "vessel_hu": round(max(25.0, 2 * organ.spread_hu), 1),
            "vessel_pressure": round(uniform(hold.vessel_pressure, rng), 3),
            "border_pressure": round(uniform(hold.border_pressure, rng), 3),
            "outside_speed": round(uniform(hold.outside_speed, rng), 3),
            "texture_hu": round(uniform(prior.texture_hu, rng), 1),
            "texture_mm": round(uniform(prior.texture_mm, rng), 1),
        }
        if hollow:
            details["wall_mm"] = round(uniform(WALL_MM, rng), 1)
        if rng.random() < prior.core_share:
            # read as rules' core: dead from twice its share of `death_mm` below the surface on
            details |= {"death_mm": round(uniform(DEATH_MM, rng), 1), "core_share": 0.5}
            details["core_hu"] = round(uniform(prior.core_hu, rng), 1)
        if rng.random() < prior.rim_share:
            details["rim_hu"] = round(uniform(prior.rim_hu, rng), 1)
            details["rim_mm"] = round(rng.uniform(0.08, 0.2) * diameter_mm, 1)
        contrast, edge = drawing.contrast_hu(organ, request.recipe, rng), drawing.edge_mm(organ, rng)
        displaces = not hollow and drawing.has_mass_effect(organ, request, center_mm, axes, rng)
        return drawing.common_plan(
            organ,
            request,
            center_mm,
            axes,
            orientation=orientation,
            volume_mm3=4 / 3 * np.pi * float(np.prod(axes)),
            radius_mm=radius_mm,
            contrast_hu=contrast,
            edge_mm=edge,
            displacement_mm=drawing.displacement_mm(request.recipe, axes, rng) if displaces else 0.0,
            relaxed=relaxed,
            details=details,
        )

    def reach(self, plan: TumorPlan) -> float:
        """As far as it may grow, and what a cell looks at around it."""
        return reach_mm(plan) + 5.0

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of `plan` on the grid of `ct`, of the planned volume or as large as it has room to grow.

        Its score `grown` is the volume that it had room for over the planned one. Raises `CaseError` if its seed lies
        where nothing grows.
        """
        lattice = Lattice.of(plan)
        blur_mm = _blur_mm(plan, ct.geometry)
        margin = max(3 * lattice.side, 3 * blur_mm / min(Invasion.of(plan).front_mm))
        time = grow(ct, organ, plan, lattice, min((1 + margin) ** 3, 8.0))
        reached = np.sort(time[time < NEVER])
        wanted = round(plan.volume_mm3 / lattice.cell_mm3)
        if len(reached) < 2:
            raise CaseError(f"a tumor planned at {plan.center_mm} mm has no room to grow in the {plan.organ}")
        now = float(reached[min(wanted, len(reached) - 1)])
        grown = min(1.0, len(reached) / wanted)
        # smoothed over less than a cell, or other tissue would be cut along cells; older tumors still hold younger ones
        time = ndimage.gaussian_filter(np.minimum(time, now + margin).astype(np.float64), _SMOOTH).astype(np.float32)
        body = _body(ct.geometry, plan, lattice, time, now, margin, grown, blur_mm)
        hu = tissue(plan, ct.geometry, body)
        measure = partial(_scores, grown, bool(Invasion.of(plan).wall_mm), ct.geometry, organ)
        return Tumor(plan, body.box, body.alpha, hu, bool(Invasion.of(plan).wall_mm), measure).within(ct.data.shape)


def _scores(grown: float, hollow: bool, geometry: Geometry, organ: Volume, box: Box, alpha: Array) -> dict[str, float]:
    scores = {"grown": grown}
    return scores | ({"on_wall": on_wall(geometry, organ, box, alpha >= 0.5)} if hollow else {})


def _body(
    geometry: Geometry, plan: TumorPlan, lattice: Lattice, time: Floats, now: float, margin: float, grown: float,
    blur_mm: float,
) -> Body:  # fmt: skip
    """The cells that the front has passed by, on a box of the scan's grid, with the partial volume of the front."""
    box = _box(geometry, lattice, time < np.float32(now + margin))
    samples = samples_per_voxel(plan, geometry)
    fine = sample_grid(geometry.crop(box), samples)
    at = _lattice_index(lattice, fine)
    arrival = ndimage.map_coordinates(time, at, np.float32, order=1, mode="nearest").reshape(fine.shape[::-1]).T
    pace = ndimage.map_coordinates(_mm_per_time(time, lattice), at, np.float32, order=1, mode="nearest")
    pace = pace.reshape(fine.shape[::-1]).T / np.float32(blur_mm)

    def alpha_at(moment: float) -> Floats:
        return voxel_means(coverage((arrival - np.float32(moment)) * pace), samples)

    wanted = max(1, round(plan.volume_mm3 * grown / geometry.voxel_mm3))
    by_voxel = np.sort(voxel_means(arrival, samples), axis=None)
    moment = float(by_voxel[min(wanted, len(by_voxel)) - 1])
    alpha = alpha_at(moment)
    low, high = moment - margin, moment + margin
    for _ in range(_STEPS if samples != (1, 1, 1) else 0):
        if int((alpha >= 0.5).sum()) == wanted:
            break
        low, high = (moment, high) if int((alpha >= 0.5).sum()) < wanted else (low, moment)
        moment = (low + high) / 2
        alpha = alpha_at(moment)
    radius = depth = np.zeros_like(alpha)
    inside, invasion = Tissue.of(plan), Invasion.of(plan)
    if inside.needs_inside:
        depth = _depth_mm(geometry.crop(box), lattice, time <= np.float32(moment))
        radius = 1 - depth / np.float32(2 * max(invasion.death_mm, 1e-3))
    return Body(box, np.asfortranarray(alpha), np.asfortranarray(radius), np.asfortranarray(depth))


def _blur_mm(plan: TumorPlan, geometry: Geometry) -> float:
    """SD of border, scanner and sample, the same in all directions."""
    samples = samples_per_voxel(plan, geometry)
    sample = float((np.square(geometry.spacing_mm) / np.square(samples)).mean() / 12)
    return float(np.sqrt(plan.edge_mm**2 + plan.blur_mm**2 + sample))


def _box(geometry: Geometry, lattice: Lattice, cells: Array) -> Box:
    """The voxels around some cells."""
    corners = np.argwhere(cells)
    at = geometry.to_ijk(corners @ lattice.to_mm[:3, :3].T + lattice.to_mm[:3, 3])
    reach = np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]) @ lattice.to_mm[:3, :3], axis=1)
    return Box(triple(np.floor(at.min(axis=0) - reach)), triple(np.ceil(at.max(axis=0) + reach) + 1))


def _lattice_index(lattice: Lattice, grid: Geometry) -> Array:
    """(3, n): where the voxels of a grid lie on the lattice, the first axis fastest."""
    matrix = np.linalg.inv(lattice.to_mm) @ grid.affine
    i, j, k = (np.arange(n, dtype=float) for n in grid.shape)
    rows = [(row[3] + row[2] * k[:, None, None] + row[1] * j[:, None] + row[0] * i).reshape(-1) for row in matrix[:3]]
    return np.stack(rows)


def _mm_per_time(time: Floats, lattice: Lattice) -> Floats:
    """How far the front moves in a unit of time, at each cell."""
    slopes = np.gradient(time, *lattice.cell_mm)
    slope = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2)
    slowest = np.float32(0.3 * lattice.side / max(lattice.cell_mm))
    return np.asarray(1 / np.maximum(slope, slowest), np.float32)


def _depth_mm(grid: Geometry, lattice: Lattice, inside: Array) -> Floats:
    """Of each voxel below the surface of some cells; 0 outside."""
    depth = edt.edt(np.ascontiguousarray(inside), anisotropy=lattice.cell_mm, black_border=True)
    at = _lattice_index(lattice, grid)
    found = ndimage.map_coordinates(depth, at, np.float32, order=1, mode="nearest")
    return np.asarray(found.reshape(grid.shape[::-1]).T)
