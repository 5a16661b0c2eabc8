"""What a tumor grows through: scan and organ on a lattice in the tumor's own frame, as the time to cross each cell.

The lattice lies in units of the plan's half-axes around its center, whatever the scan's grid: the same plan meets the
same ground on any grid, and a large tumor costs no more than a small one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import edt
import numpy as np

from synthoma.synthesis.bodies.body import Surface
from synthoma.synthesis.bodies.surface import radius_map
from synthoma.synthesis.generators.growth.details import Invasion
from synthoma.synthesis.generators.growth.front import NEVER, arrival_times
from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.location import FAT_HU
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Floats, Volume

CELL = 0.09  # side of a cell, in half-axes
_MOST_CELLS = 60  # from the center, along an axis; beyond it cells are larger
_SEED = 0.25  # growth starts as a ball of this radius
_FREE = 1.75  # how far growth is followed, in radii of the tumor
_LUMPS = 1.8  # a front evens out its own lobes; the surface's amplitude is raised by this to make up for it
_LOOK_MM = 1.2  # HU are means over a cube of about twice this side
_SLOWEST = 0.1
_LUMEN_SPEED = 0.3
_VESSEL_SPEED = 0.5  # of a front that a vessel holds no longer


@dataclass(frozen=True, eq=False)
class Lattice:
    """Cells around a plan's center.

    side: of a cell, in half-axes. to_mm: (4, 4), index to RAS+. units: (3, I, J, K), in half-axes from the center.
    extent: growth ends at this many half-axes.
    """

    shape: tuple[int, int, int]
    side: float
    to_mm: Array
    units: Array
    extent: float

    @classmethod
    def of(cls, plan: TumorPlan) -> Lattice:
        """The lattice that a plan grows on."""
        axes = np.asarray(Invasion.of(plan).front_mm)
        extent = _FREE * size_of(plan)
        # beyond what memory holds, cells of twice the side, three times, ...
        side = CELL * max(1, int(np.ceil(extent / CELL / _MOST_CELLS)))
        reach = np.minimum(np.full(3, extent), reach_mm(plan) / axes)
        i, j, k = (int(np.ceil(r / side)) for r in reach)
        matrix = np.eye(4)
        matrix[:3, :3] = plan.rotation * (axes * side)
        matrix[:3, 3] = np.asarray(plan.center_mm) - matrix[:3, :3] @ [i, j, k]
        at = np.stack(np.meshgrid(*[side * np.arange(-n, n + 1) for n in (i, j, k)], indexing="ij"))
        return cls((2 * i + 1, 2 * j + 1, 2 * k + 1), side, matrix, at, extent)

    @property
    def cell_mm(self) -> tuple[float, float, float]:
        """Sides of a cell."""
        i, j, k = np.linalg.norm(self.to_mm[:3, :3], axis=0).tolist()
        return i, j, k

    @property
    def cell_mm3(self) -> float:
        """Volume of a cell."""
        i, j, k = self.cell_mm
        return i * j * k

    def points_mm(self) -> Array:
        """(n, 3): RAS+ of the cells, the last index fastest."""
        index = np.indices(self.shape).reshape(3, -1)
        return np.asarray((self.to_mm[:3, :3] @ index).T + self.to_mm[:3, 3])


def size_of(plan: TumorPlan) -> float:
    """The tumor's size over that of the front at time 1, as a length: 1 until a plan is followed."""
    a, b, c = Invasion.of(plan).front_mm
    return float((plan.volume_mm3 / (4 / 3 * np.pi * a * b * c)) ** (1 / 3))


def reach_mm(plan: TumorPlan) -> float:
    """How far from its center a plan may grow."""
    return 1.2 * plan.radius_mm + 6.0


def grow(ct: Volume, organ: Volume, plan: TumorPlan, lattice: Lattice, margin: float = 1.5) -> Floats:
    """When the front arrives at each cell; `NEVER` where it cannot grow.

    organ: bool, its mask, whole or cropped. margin: of how much more than the planned volume the times are final.
    """
    delay = crossing_times(ct, organ, plan, lattice)
    radius = np.sqrt((lattice.units**2).sum(axis=0)).astype(np.float32)
    speed = _clones(plan, lattice)
    delay = np.where(delay < NEVER, delay * np.float32(lattice.side) / speed, NEVER)
    start = np.where((radius <= _SEED) & (delay < NEVER), radius / speed, NEVER)
    if not (start < NEVER).any():
        start = np.where(radius == radius.min(), np.float32(0), NEVER)
    cells = int(np.ceil(margin * plan.volume_mm3 / lattice.cell_mm3))
    return arrival_times(start, delay.astype(np.float32), cells)


def crossing_times(ct: Volume, organ: Volume, plan: TumorPlan, lattice: Lattice) -> Floats:
    """How long the front takes over one unit of length in each cell, float32; `NEVER` where it cannot grow.

    1 in the organ's own tissue, more where HU differ, in fat outside and in vessels, and once more for what the
    border and vessels hold it. Behind the scan's faces everything goes on as it is there.
    """
    invasion = Invasion.of(plan)
    hu, own_hu, inside = _look(ct, organ, lattice)
    within = inside >= 0.5
    off = np.abs(own_hu - np.float32(plan.base_hu))
    # full speed up to tissue_hu, a tenth from three times that on
    speed = np.clip(1.45 - 0.45 * off / np.float32(invasion.tissue_hu), _SLOWEST, 1)
    vessel = within & (own_hu > plan.base_hu + invasion.vessel_hu)
    if invasion.wall_mm:
        depth = edt.edt(np.ascontiguousarray(within), anisotropy=lattice.cell_mm, black_border=False)
        speed = np.where(depth > invasion.wall_mm, _LUMEN_SPEED, np.maximum(speed, 0.5))
        vessel &= False
    fat = (hu > FAT_HU[0]) & (hu < FAT_HU[1]) & (invasion.outside_speed > 0)
    near = ~within & (inside > 0)
    speed = np.where(within, speed, np.float32(max(invasion.outside_speed, _SLOWEST)))
    open_ = within | fat | near
    open_ &= _distance_mm(lattice) <= reach_mm(plan)
    # half of the wait on the way in, half on the way out
    held = _rim(vessel, within & ~vessel) * np.float32(invasion.vessel_pressure / 2)
    held += _rim(open_ & ~within, within) * np.float32(invasion.border_pressure)
    slow = np.where(vessel, np.float32(_VESSEL_SPEED), speed)
    return np.where(open_, 1 / slow + held / np.float32(lattice.side), NEVER).astype(np.float32)


def _distance_mm(lattice: Lattice) -> Array:
    """Of each cell from the center."""
    scale = np.asarray(lattice.cell_mm) / lattice.side
    x, y, z = (axis * length for axis, length in zip(lattice.units, scale, strict=True))
    return np.asarray(np.sqrt(x * x + y * y + z * z))


def _rim(region: Array, before: Array) -> Floats:
    """1 in the cells of a region that touch cells of another one by a face, else 0: the front waits there."""
    touched = np.zeros_like(before)
    for axis in range(3):
        source, target = np.moveaxis(before, axis, 0), np.moveaxis(touched, axis, 0)
        target[1:] |= source[:-1]
        target[:-1] |= source[1:]
    return np.asarray(region & touched, np.float32)


def _look(ct: Volume, organ: Volume, lattice: Lattice) -> tuple[Floats, Floats, Floats]:
    """HU of each cell, HU of what lies in the organ there, and its share, as means over nine places around the cell."""
    around = max(_LOOK_MM, 0.3 * max(lattice.cell_mm))
    offsets = np.array([(0, 0, 0), *itertools.product((-around, around), repeat=3)])
    grid, size = ct.geometry, np.array(ct.data.shape)
    # corners of the lattice are farther than any growth
    ball = np.flatnonzero((lattice.units**2).sum(axis=0) <= lattice.extent**2)
    at = grid.to_ijk(lattice.points_mm()[ball])
    corner = np.round(grid.to_ijk(organ.geometry.to_mm((0, 0, 0)))).astype(np.intp)
    hu, own, count = (np.zeros(len(at), np.float32) for _ in range(3))
    for move in offsets @ np.linalg.inv(grid.affine[:3, :3]).T:
        index = np.clip(np.floor(at + (move + 0.5)), 0, size - 1).astype(np.intp)
        values = ct.data[index[:, 0], index[:, 1], index[:, 2]].astype(np.float32)
        seen = index - corner
        known = ((seen >= 0) & (seen < organ.data.shape)).all(axis=1)
        seen = np.clip(seen, 0, np.array(organ.data.shape) - 1)
        inside = organ.data[seen[:, 0], seen[:, 1], seen[:, 2]] & known
        hu += values
        own += values * inside
        count += inside
    hu /= np.float32(len(offsets))
    own = np.where(count > 0, own / np.maximum(count, 1), hu)
    found = np.zeros((3, int(np.prod(lattice.shape))), np.float32)
    found[:, ball] = hu, own, count / np.float32(len(offsets))
    first, second, share = found.reshape(3, *lattice.shape)
    return first, second, share


def _clones(plan: TumorPlan, lattice: Lattice) -> Floats:
    """How fast the cells that grow in each direction are: the surface of real tumors, made by unequal clones."""
    surface = Surface.of(plan)
    if surface.roughness == 0:
        return np.ones(lattice.shape, np.float32)
    table = kernels().refined(radius_map(plan.seed, surface), 2)
    x, y, z = (axis.astype(np.float32) for axis in lattice.units)
    return np.asarray((table**_LUMPS).astype(np.float32).ravel()[kernels().map_index(x, y, z, len(table))])
