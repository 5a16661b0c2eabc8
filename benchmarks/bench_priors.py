"""Tumors as drawn from the priors beside the real ones they were fitted to: shape, size, number, and kidney sites.

Real figures: 5, 50 and 95 % of docs/priors.md. Ours are measured as those were, on 1 mm masks. `distance` is the
largest gap between our distribution function and 0.05, 0.5 and 0.95 at the real percentiles: a Kolmogorov-Smirnov
distance at three points. Two annotators of the same kidney tumors differ by 0.20-0.24.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import edt
import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage.measure import marching_cubes

from synthoma import anatomy
from synthoma.cases import equivalent_diameter_mm
from synthoma.errors import CaseError
from synthoma.synthesis.bodies.mass import mass
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.insertion.room import confine, find_room
from synthoma.synthesis.location import OrganModel, measure_organ
from synthoma.synthesis.plan import draw_diameters, draw_plan
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Geometry, Volume

Percentiles = tuple[float, float, float]
# organ -> measure -> 5, 50, 95 % of real tumors
REAL: dict[str, dict[str, Percentiles]] = {
    "liver": {
        "c/a": (0.37, 0.63, 0.82),
        "sphericity": (0.70, 0.91, 0.97),
        "solidity": (0.64, 0.94, 1.0),
        "roughness": (0.048, 0.090, 0.288),
        "diameter mm": (4, 10, 37),
    },
    "kidney": {
        "c/a": (0.56, 0.75, 0.90),
        "sphericity": (0.82, 0.92, 0.97),
        "solidity": (0.81, 0.94, 0.99),
        "roughness": (0.040, 0.071, 0.129),
        "diameter mm": (16, 35, 104),
        "free surface": (0.16, 0.54, 0.83),
        "depth / radius": (0.64, 0.81, 0.98),
    },
    "pancreas": {
        "c/a": (0.43, 0.63, 0.82),
        "sphericity": (0.81, 0.90, 0.97),
        "solidity": (0.83, 0.94, 0.99),
        "roughness": (0.048, 0.090, 0.166),
        "diameter mm": (13, 22, 41),
    },
    # assumed: the model's own amplitude and sizes, and the kidney's percentiles for what follows from them
    "uterus": {
        "c/a": (0.56, 0.75, 0.90),
        "sphericity": (0.82, 0.92, 0.97),
        "solidity": (0.81, 0.94, 0.99),
        "roughness": (0.040, 0.071, 0.129),
        "diameter mm": (12.9, 27.1, 56.8),
    },
}
FREE_BY_SIZE = {"< 20 mm": 0.33, "20-40 mm": 0.45, "> 40 mm": 0.69}
KIDNEY_MM = (30.0, 25.0, 55.0)
ROW = "{:<10}{:<26}{:>22}{:>22}{:>10}"


def main(count: int = 200) -> None:
    """Prints ours and real, 5 / 50 / 95 %, for every organ and measure."""
    print(ROW.format("organ", f"measure, {count} tumors", "ours 5/50/95 %", "real 5/50/95 %", "distance"))
    for organ in REAL:
        drawn = shapes(organ, count)
        drawn["diameter mm"] = np.concatenate([sizes(organ, case) for case in range(count)])
        if organ == "kidney":
            sites = kidney_sites(count)
            drawn |= {name: sites[name] for name in ("free surface", "depth / radius")}
        for measure, real in REAL[organ].items():
            print_row(organ, measure, drawn[measure], real)
        if organ == "kidney":
            for name, group in by_size(sites).items():
                print(ROW.format(organ, f"free surface, {name}", f"mean {group:.2f}", f"{FREE_BY_SIZE[name]:.2f}", ""))
    numbers = np.array([len(sizes("liver", case)) for case in range(2 * count)])
    print_row("liver", "lesions per case", numbers, (1, 4, 23))


def print_row(organ: str, measure: str, ours: Array, real: Percentiles) -> None:
    """One measure's percentiles beside the real ones."""
    text = " / ".join(f"{value:.3g}" for value in np.quantile(ours, [0.05, 0.5, 0.95]))
    print(ROW.format(organ, measure, text, " / ".join(f"{v:.3g}" for v in real), f"{distance(ours, real):.2f}"))


def distance(ours: Array, real: Percentiles) -> float:
    """Largest gap between the distribution functions at the real 5, 50 and 95 %; values at a percentile count half."""
    shares = [((ours < at).mean() + (ours <= at).mean()) / 2 for at in real]
    return float(np.abs(np.subtract(shares, [0.05, 0.5, 0.95])).max())


@lru_cache(maxsize=8)
def plain_organ(
    organ: str, half_axes_mm: tuple[float, float, float] = (110, 110, 110), spacing_mm: float = 4.0
) -> OrganModel:
    """An organ without noise or neighbors: an ellipsoid in fat."""
    return measure_organ(*ellipsoid(organ, half_axes_mm, spacing_mm), organ, "portal", 0.7, "phantom")


def ellipsoid(organ: str, half_axes_mm: Sequence[float], spacing_mm: float) -> tuple[Volume, dict[str, Volume]]:
    """A scan of an ellipsoid of 110 HU around 0 mm in 60 mm of fat, or of its own size if less, and its mask."""
    half = np.asarray(half_axes_mm, float)
    geometry = centered((half + np.minimum(half, 60)) * 2, spacing_mm)
    points = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))
    inside = ((points / half) ** 2).sum(axis=-1) < 1
    ct = Volume(np.where(inside, 110, -100).astype(np.int16), geometry)
    return ct, {anatomy.organ(organ).parts[0]: Volume(inside, geometry)}


def centered(extent_mm: Sequence[float] | Array, spacing_mm: float) -> Geometry:
    """A grid of cubic voxels around 0 mm."""
    i, j, k = (int(np.ceil(mm / spacing_mm)) for mm in extent_mm)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -spacing_mm * (np.array([i, j, k]) - 1) / 2
    return Geometry((i, j, k), affine)


def sizes(organ: str, case: int) -> list[float]:
    """Diameters in mm of one case's tumors."""
    return draw_diameters(plain_organ(organ), SynthesisRecipe(organs=(organ,)), case)


def shapes(organ: str, count: int, largest_mm: float = 100) -> dict[str, Array]:
    """Measures of so many tumors of 8 mm or more, each alone on a 1 mm grid."""
    organ_model, found = plain_organ(organ), []
    for seed in range(10 * count):
        if len(found) == count:
            break
        recipe = SynthesisRecipe(organs=(organ,))
        diameter = draw_diameters(organ_model, recipe, seed)[0]
        if 8 <= diameter <= largest_mm:
            found.append(measure(whole_mask(draw_plan(organ_model, recipe, seed, 0, 0, diameter))))
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def whole_mask(plan: TumorPlan) -> Array:
    """A tumor's label on a 1 mm grid, as if it lay alone, 3 voxels of background around it."""
    body = mass(plan, Geometry.of((1, 1, 1)))
    inside = body.alpha >= 0.5
    return np.pad(inside[Box.around(inside).slices], 3)


def measure(mask: Array) -> dict[str, float]:
    """Shape of one tumor on a 1 mm grid, from the 1 mm-smoothed signed distance's surface.

    Roughness is the SD over directions of ln|u|, u being the surface in the axes of the ellipsoid of inertia.
    """
    signed = edt.edt(mask) - edt.edt(~mask)
    vertices, faces, _, _ = marching_cubes(ndimage.gaussian_filter(signed, 1.0), 0.0)
    corners = vertices[faces].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    area = float(np.linalg.norm(normal, axis=1).sum())
    volume = abs(float((corners.mean(axis=1) * normal).sum())) / 3
    points = np.argwhere(mask)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    units = (corners - points.mean(axis=0)) @ vectors / np.sqrt(values)
    middle = units.mean(axis=1)
    radius = np.linalg.norm(middle, axis=1)
    facing = np.cross(units[:, 1] - units[:, 0], units[:, 2] - units[:, 0]) / 2
    angle = np.abs((facing * middle).sum(axis=1)) / radius**3
    log_radius = np.log(radius)
    mean = (angle * log_radius).sum() / angle.sum()
    return {
        "c/a": float(np.sqrt(values[0] / values[2])),
        "sphericity": float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area),
        "solidity": volume / float(ConvexHull(vertices).volume),
        "roughness": float(np.sqrt((angle * (log_radius - mean) ** 2).sum() / angle.sum())),
    }


def kidney_sites(count: int, spacing_mm: float = 1.0) -> dict[str, Array]:
    """Where tumors lie that are drawn into a kidney of 110 x 60 x 50 mm in fat: `free surface` (share without
    kidney contact), `depth / radius` (of the center below the union's surface), `diameter mm` (of the label)."""
    ct, masks = ellipsoid("kidney", KIDNEY_MM, spacing_mm)
    organ_model = measure_organ(ct, masks, "kidney", "portal", 0.7, "phantom")
    kidney, recipe, found = next(iter(masks.values())), SynthesisRecipe(organs=("kidney",)), []
    for seed in range(count):
        try:
            plan = draw_plan(organ_model, recipe, seed, 0, 0, draw_diameters(organ_model, recipe, seed)[0])
            tumor = Rules().render(ct, kidney, plan)
            room = find_room(ct, kidney, np.zeros(tumor.box.shape, bool), tumor.box)
            tumor = confine(tumor, room, ct.geometry.spacing_mm)
        except CaseError:
            continue
        found.append(site_measures(kidney, tumor.box, tumor.mask))
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def site_measures(kidney: Volume, box: Box, tumor: Array) -> dict[str, float]:
    """Free surface and depth of one tumor's label (bool, box) in its kidney (cubic voxels)."""
    whole = np.zeros(kidney.data.shape, bool)
    whole[box.slices] = tumor
    rest, step = kidney.data & ~whole, kidney.geometry.spacing_mm[0]
    smooth = ndimage.gaussian_filter(whole.astype(np.float32), 1.0 / step)
    vertices, faces, normals, _ = marching_cubes(np.pad(smooth, 3), 0.5)
    corners = vertices[faces] - 3
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    # marching_cubes' normals point to lower values: out of the tumor
    outward = normals[faces].mean(axis=1)
    beyond = np.rint(corners.mean(axis=1) + 1.5 / step * outward).astype(int)
    contact = rest[tuple(np.clip(beyond, 0, np.array(rest.shape) - 1).T)]
    radius = equivalent_diameter_mm(whole.sum() * kidney.geometry.voxel_mm3) / 2
    middle = np.rint(np.argwhere(whole).mean(axis=0)).astype(int)
    depth = float(edt.edt(kidney.data | whole)[tuple(middle)]) * step - step / 2
    return {
        "free surface": float(area[~contact].sum() / area.sum()),
        "depth / radius": depth / radius,
        "diameter mm": 2 * radius,
    }


def by_size(sites: dict[str, Array]) -> dict[str, float]:
    """Mean free surface of kidney tumors under 20, of 20-40 and over 40 mm."""
    groups = np.digitize(sites["diameter mm"], [20, 40])
    return {
        name: float(sites["free surface"][groups == group].mean())
        for group, name in enumerate(FREE_BY_SIZE)
        if (groups == group).any()
    }


if __name__ == "__main__":
    main()
