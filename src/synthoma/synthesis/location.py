"""The model of an organ: measured once per case on a coarse grid, then asked for sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import eq

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma import anatomy
from synthoma.bounded import EMPTY, Bounded
from synthoma.cases import Lesion, equivalent_diameter_mm, find_lesions
from synthoma.errors import CaseError
from synthoma.synthesis import coarse
from synthoma.synthesis.depth import DEEP_MM, bounded, even_place, quietest, signed_distance, typical
from synthoma.synthesis.scan import noise_sample
from synthoma.synthesis.tumor import Vector
from synthoma.volume import Array, Box, Floats, Geometry, Triple, Volume

FAT_HU = (-200.0, 0.0)  # what a bulging tumor may replace outside its organ
_AT_ONCE = 4096  # points: many of them against many balls would take hundreds of megabytes
_COMPARED, _ENOUGH_ROOM = 16, 0.85  # places looked at for room, and the share of a ball that ends the search
_VESSEL_HU = 25.0  # a vessel that nobody annotated is brighter than its organ by this
_TRIES = 64
VESSELS = ("hepatic_vessel", "portal_vein_and_splenic_vein", "aorta", "postcava")


@dataclass(frozen=True, eq=False)
class OrganModel:
    """One organ of one scan, as the tables that planning needs. Made by `measure_organ`.

    scan: the scan's grid. parts: the organ's masks on it. grid: the coarse grid of the tables. free: on it, the organ
    and the fat around it. cells (n, 3), depths_mm (n,): coarse voxels where a center may lie, by rising depth below the
    organ's surface; negative depths are outside. volume_ml: of the organ. radius_mm: of the ball of one part's volume
    (one kidney's). base_hu, spread_hu: typical HU of the tissue and their SD. blur_mm: the scanner's in-plane blur.
    noise_from_mm, noise_hu: a deep, even place of the scan, and the SD of its noise. lesions: real ones, as centers and
    radii in mm. touches_edge: cut by the field of view.
    """

    case: str
    organ: str
    phase: str
    scan: Geometry
    parts: tuple[Bounded, ...]
    grid: Geometry
    free: NDArray[np.bool_]
    cells: NDArray[np.int16]
    depths_mm: Floats
    volume_ml: float
    radius_mm: float
    base_hu: float
    spread_hu: float
    blur_mm: float
    noise_from_mm: Vector
    noise_hu: float
    lesions: tuple[tuple[Vector, float], ...]
    touches_edge: bool

    def crop(self, box: Box) -> Volume:
        """The organ's mask in a box of the scan."""
        return Volume(np.logical_or.reduce([part.on(box) for part in self.parts]), self.scan.crop(box))


@dataclass(frozen=True)
class Site:
    """A center and how it was found. relaxed: how often the wish for depth was widened before a place fitted."""

    center_mm: Vector
    depth_mm: float
    relaxed: int


def measure_organ(
    ct: Volume,
    masks: Mapping[str, Volume | Bounded],
    organ: str,
    phase: str,
    blur_mm: float,
    case: str = "",
    vessel_veto: bool = False,
    occupied: Callable[[Box], NDArray[np.bool_]] | None = None,
    even: Callable[[Triple], Vector] | None = None,
) -> OrganModel:
    """The organ's tables. masks: structures (bool) on the grid of `ct`, at least one part of the organ.

    occupied: other structures (bool) in a box of every few voxels of the scan, `coarse.steps` apart. even: tells
    `even_place` for these steps, which may be known from another organ.

    Works on every few voxels, so its cost hardly follows the scan's resolution. Raises `CaseError` if the organ is
    missing or empty or the phase unknown, `GeometryError` if a mask lies on another grid.
    """
    kind, prior = anatomy.organ(organ), anatomy.SITES[organ]
    parts = _parts(ct, masks, organ, phase, case)
    step = coarse.steps(ct.geometry, organ)
    whole = coarse.grid(ct.geometry, step)
    looked = reduce(Box.hull, [coarse.box(part.box, step) for part in parts if part.box != EMPTY] or [EMPTY])
    sparse = np.logical_or.reduce([coarse.thin_mask(part, looked, step) for part in parts])
    around = Box.around(sparse)
    if around is None:
        raise CaseError(f"the mask of the {organ} is empty", case=case, fix="leave it out of the recipe for this case")
    around = around.shift(looked.lower)
    box = around.grow([int(np.ceil(prior.outside_mm / s)) + 1 for s in whole.spacing_mm]).clip(whole.shape)
    grid, inside = whole.crop(box), np.zeros(box.shape, bool)
    inside[around.seen_from(box).slices] = sparse[around.seen_from(looked).slices]
    depth = signed_distance(inside, grid, prior.outside_mm if prior.free_surface else 0.0)
    hu = coarse.sample(ct.data, box, step)
    base, spread = typical(hu, depth, organ)
    free = inside | ((hu > FAT_HU[0]) & (hu < FAT_HU[1]))
    if occupied is not None:
        free &= ~occupied(box)
    reached = depth > -prior.outside_mm if prior.free_surface else inside
    vessels = _vessels(masks, hu, base, box, step) if vessel_veto else np.zeros_like(inside)
    cells, depths = _by_depth(reached & ~vessels, depth)
    learns = prior.even and depth.max() > DEEP_MM
    if learns:
        quiet = quietest(grid, depth, hu)
    else:
        quiet = even(step) if even is not None else even_place(ct, masks, step)[0]
    volume_mm3 = float(inside.sum() * grid.voxel_mm3)
    # one mask of both kidneys (KiTS) is two parts
    pieces = sum(name in masks for name in kind.parts) or len(kind.parts)
    lesion = masks.get(kind.lesion)
    real = find_lesions(bounded(lesion).whole, organ) if lesion is not None else []
    return OrganModel(
        case=case,
        organ=organ,
        phase=phase,
        scan=ct.geometry,
        parts=parts,
        grid=grid,
        free=free,
        cells=cells,
        depths_mm=depths,
        volume_ml=volume_mm3 / 1000,
        radius_mm=equivalent_diameter_mm(volume_mm3 / pieces) / 2,
        base_hu=base,
        spread_hu=spread,
        blur_mm=blur_mm,
        noise_from_mm=quiet,
        noise_hu=float(noise_sample(ct, quiet).std()),
        lesions=tuple((found.center_mm, _bounding_radius_mm(found)) for found in real),
        touches_edge=0 in around.lower or any(map(eq, around.upper, whole.shape)),
    )


def _parts(ct: Volume, masks: Mapping[str, Volume | Bounded], organ: str, phase: str, case: str) -> tuple[Bounded, ...]:
    """The organ's masks and that of its real tumors, after what must hold has been checked."""
    if phase not in anatomy.PHASES:
        raise CaseError(
            "the contrast phase is unknown",
            case=case,
            found=phase,
            expected=f"one of {', '.join(anatomy.PHASES)}",
            fix="set phase in the recipe or the catalog",
        )
    kind = anatomy.organ(organ)
    if not any(name in masks for name in kind.structures):
        raise CaseError(
            f"the {organ} is not annotated", case=case, fix="leave it out of the recipe, or segment it first"
        )
    parts = tuple(bounded(masks[name]) for name in (*kind.structures, kind.lesion) if name in masks)
    for part in parts:
        ct.geometry.require_same(part.grid)
    return parts


def _by_depth(places: NDArray[np.bool_], depth_mm: Floats) -> tuple[NDArray[np.int16], Floats]:
    """The places' indices (n, 3) and their depths to a quarter of a millimeter, by rising depth."""
    chosen = np.flatnonzero(places)
    quarters = np.round(depth_mm.ravel()[chosen] * 4).astype(np.int16)
    order = np.argsort(quarters, kind="stable")
    left, (_, rows, length) = chosen[order].astype(np.int32), places.shape
    cells = np.empty((len(left), 3), np.int16)
    for axis, n in ((2, length), (1, rows)):
        before = left // n
        cells[:, axis] = left - before * n
        left = before
    cells[:, 0] = left
    return cells, quarters[order].astype(np.float32) * np.float32(0.25)


def find_site(
    organ_model: OrganModel,
    wanted_mm: tuple[float, float],
    radius_mm: float,
    taken: Sequence[tuple[Vector, float]],
    gap_mm: float,
    rng: np.random.Generator,
    relax: int = 4,
) -> Site:
    """A center drawn uniformly by volume among the places whose depth lies in `wanted_mm`.

    taken: centers and radii of other tumors, from whose borders this one's stays `gap_mm` away, as from real
    lesions. If no place has the depth, the wish is widened by a quarter of the radius, `relax` times at most;
    `CaseError` if there still is none: the organ is too small or full.
    """
    others = [*taken, *organ_model.lesions]
    start, roomy = 0, None
    for relaxed in range(relax + 1):
        first, last = _depth_range(organ_model, wanted_mm, 0.25 * radius_mm * relaxed)
        if first == last:
            continue
        for tries in (_TRIES, last - first):
            if tries != _TRIES and roomy is None:
                start, stop = _depth_range(organ_model, wanted_mm, 0.25 * radius_mm * relax)
                roomy = _roomy(organ_model, start, stop, others, radius_mm + gap_mm)
            if roomy is not None and not roomy.any():
                break
            index = rng.integers(first, last, tries) if tries == _TRIES else rng.permutation(np.arange(first, last))
            moves = rng.uniform(-0.5, 0.5, (tries, 3))
            if roomy is not None:
                index, moves = index[roomy[index - start]], moves[roomy[index - start]]
            centers = organ_model.grid.to_mm(organ_model.cells[index] + moves)
            free = _first_free(centers, others, radius_mm + gap_mm)
            if free.size:
                best = _roomiest(organ_model, index, free, radius_mm)
                x, y, z = centers[best].tolist()
                return Site((x, y, z), float(organ_model.depths_mm[index[best]]), relaxed)
    deepest = float(organ_model.depths_mm[-1]) if len(organ_model.depths_mm) else 0.0
    raise CaseError(
        f"no room in the {organ_model.organ} for a tumor that reaches {radius_mm:.0f} mm from its center",
        case=organ_model.case,
        found=f"{organ_model.volume_ml:.0f} ml, at most {deepest:.0f} mm deep, {len(others)} lesions in it",
        fix="plan smaller or fewer tumors, or lower gap_mm",
    )


def apart(points: Array, others: Sequence[tuple[Vector, float]], gap_mm: float) -> NDArray[np.bool_]:
    """Whether points (n, 3) in RAS+ are at least a gap away from balls, given as centers and radii: (n, balls)."""
    centers = np.array([center for center, _ in others], float).reshape(-1, 3)
    radii = np.array([radius for _, radius in others], float)
    x, y, z = (points[:, axis, None] - centers[:, axis] for axis in range(3))
    return np.asarray(np.sqrt(x * x + y * y + z * z) >= radii + gap_mm)


def _first_free(points: Array, others: Sequence[tuple[Vector, float]], gap_mm: float) -> NDArray[np.intp]:
    """The first of some points that are a gap away from all balls, `_COMPARED` at most."""
    found = np.zeros(0, np.intp)
    for start in range(0, len(points), _AT_ONCE):
        free = np.flatnonzero(apart(points[start : start + _AT_ONCE], others, gap_mm).all(axis=1))
        found = np.concatenate([found, start + free])[:_COMPARED]
        if len(found) == _COMPARED:
            break
    return found


def _depth_range(organ_model: OrganModel, wanted_mm: tuple[float, float], slack_mm: float) -> tuple[int, int]:
    """The first cell of these depths, and the one after the last."""
    # depths are quarters of a millimeter: a limit between two of them is the upper one, and float32 holds it exactly
    limits = np.ceil(4 * np.array([wanted_mm[0] - slack_mm, wanted_mm[1] + slack_mm])) / 4
    first, last = np.searchsorted(organ_model.depths_mm, limits.astype(np.float32)).tolist()
    return first, last


def _roomy(
    organ_model: OrganModel, first: int, last: int, others: Sequence[tuple[Vector, float]], gap_mm: float
) -> NDArray[np.bool_]:
    """Which of some cells may hold a point that is a gap away from balls; looked at before many points are drawn."""
    affine = organ_model.grid.affine.astype(np.float32)
    x, y, z = affine[:3, :3] @ organ_model.cells[first:last].T.astype(np.float32) + affine[:3, 3:]
    corner_mm = float(np.abs(affine[:3, :3]).sum(axis=1) @ np.ones(3)) / 2  # further than any corner of a cell
    left = np.arange(last - first)
    for (i, j, k), radius in others:
        squared = (x - np.float32(i)) ** 2 + (y - np.float32(j)) ** 2 + (z - np.float32(k)) ** 2
        far = squared >= max(radius + gap_mm - corner_mm, 0) ** 2
        x, y, z, left = x[far], y[far], z[far], left[far]
    found = np.zeros(last - first, bool)
    found[left] = True
    return found


def _roomiest(organ_model: OrganModel, index: NDArray[np.intp], places: NDArray[np.intp], radius_mm: float) -> int:
    """The first of some places with room for most of a ball, else the one with most."""
    if anatomy.SITES[organ_model.organ].outside_mm == 0:
        return int(places[0])
    reach = [int(radius_mm / spacing) for spacing in organ_model.grid.spacing_mm]
    offsets = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), axis=-1).reshape(-1, 3)
    ball = offsets[np.linalg.norm(offsets * organ_model.grid.spacing_mm, axis=1) <= radius_mm]
    limit = np.asarray(organ_model.free.shape) - 1
    best, most = int(places[0]), -1.0
    for place in places.tolist():
        at = np.clip(organ_model.cells[index[place]] + ball, 0, limit)
        share = float(organ_model.free[at[:, 0], at[:, 1], at[:, 2]].mean())
        if share > most:
            best, most = place, share
        if share >= _ENOUGH_ROOM:
            break
    return best


def _vessels(
    masks: Mapping[str, Volume | Bounded], hu: Floats, base: float, box: Box, step: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Coarse voxels in a vessel: annotated, or brighter than the organ over two coarse voxels (about 5 mm)."""
    found = np.asarray(ndimage.uniform_filter(hu, 2) > base + _VESSEL_HU)
    for name in VESSELS:
        if name in masks:
            found |= coarse.thin_mask(bounded(masks[name]), box, step)
    return found


def _bounding_radius_mm(lesion: Lesion) -> float:
    """Of the ball around a real lesion's volume, widened for its not being one."""
    return 0.75 * lesion.equivalent_diameter_mm + 1.0
