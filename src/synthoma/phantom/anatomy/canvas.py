"""The grid a patient is drawn on: two tissues and their shares per voxel, and who holds which place.

Organs are signed distances. `settle` lets a new organ contest its place: firm neighbors (bone, vessels,
kidneys) keep theirs, soft ones meet it halfway, and a thin plane of fat stays between. `paint` puts a tissue
where a distance is negative, with partial volume across the border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy import noise
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import FAR_MM, Curve, Points
from synthoma.phantom.anatomy.tissues import TISSUE_ID
from synthoma.volume import Box, Geometry, triple

Array = NDArray[Any]


@dataclass(frozen=True)
class Region:
    """A block of the canvas: its slices, its geometry, and the template position of each voxel."""

    slices: tuple[slice, slice, slice]
    geometry: Geometry
    points: Points


@dataclass(frozen=True)
class Tube:
    """Distances to a curve over a region.

    phi: signed distance to the surface. along: arc length in mm of the nearest point. rival: the distance to
    the nearest part of the same curve that is not a neighbor along it.
    """

    region: Region
    phi: Array
    along: Array
    rival: Array


class Canvas:
    """Tissue by tissue, a patient on a grid. Later strokes cover earlier ones."""

    def __init__(self, patient: Patient, geometry: Geometry) -> None:
        self.patient, self.geometry = patient, geometry
        self.width_mm = np.float32(geometry.voxel_mm3 ** (1 / 3))
        shape = geometry.shape
        self.main = np.zeros(shape, np.uint8)
        self.under = np.zeros(shape, np.uint8)
        self.share = np.full(shape, 255, np.uint8)
        self.firm = np.full(shape, FAR_MM, np.float32)
        self.soft = np.full(shape, FAR_MM, np.float32)
        template = patient.to_template(world_points(geometry))
        self.points = Points(*(np.ascontiguousarray(np.broadcast_to(axis, shape)) for axis in template))
        self._coarse = Points(*(axis[::3, ::3, ::3] for axis in self.points))

    def whole(self) -> Region:
        """All of it."""
        return self._region(Box.whole(self.geometry.shape))

    def region(self, lower: tuple[float, float, float], upper: tuple[float, float, float]) -> Region | None:
        """The block that holds a box of the template; None where the grid does not reach it."""
        inside = np.ones(self._coarse.x.shape, bool)
        reach = 3 * self.width_mm
        for axis, low, high in zip(self._coarse, lower, upper, strict=True):
            inside &= (axis > low - reach) & (axis < high + reach)
        coarse = Box.around(inside)
        if coarse is None:
            return None
        box = Box(
            (coarse.lower[0] * 3, coarse.lower[1] * 3, coarse.lower[2] * 3),
            (coarse.upper[0] * 3, coarse.upper[1] * 3, coarse.upper[2] * 3),
        )
        return self._region(box.grow(2).clip(self.geometry.shape))

    def _region(self, box: Box) -> Region:
        points = Points(*(axis[box.slices] for axis in self.points))
        return Region(box.slices, self.geometry.crop(box), points)

    def field(self, name: str, length_mm: float, region: Region) -> Array:
        """A random field of SD 1 over a region, a function of position and the patient."""
        return noise.field(self.patient.seed, name, length_mm, region.geometry)

    def settle(self, phi: Array, region: Region, gap_mm: float, firm: bool = False) -> Array:
        """The organ's distance once its neighbors have had their say; it now holds that place.

        Soft neighbors are pushed back to the middle, and fat is laid where they stood; firm ones stay.
        """
        gap = np.float32(gap_mm)
        held_firm, held_soft = self.firm[region.slices], self.soft[region.slices]
        phi = np.maximum(phi, gap - held_firm)
        contested = (held_soft < 6) & (phi < 6)
        if firm:
            retreat = phi - gap
        else:
            retreat = np.maximum((phi - held_soft - gap) / 2, phi - gap)
            phi = np.where(contested, np.maximum(phi, (phi - held_soft + gap) / 2), phi)
        self.paint("visceral_fat", np.where(contested & (held_soft < 1), retreat, FAR_MM), region)
        if firm:
            np.minimum(held_firm, phi, out=held_firm)
        else:
            np.minimum(held_soft, phi, out=held_soft)
        return phi

    def paint(self, tissue: str, phi: Array, region: Region) -> None:
        """Lay a tissue where `phi` is negative; voxels on the border hold two tissues."""
        number = TISSUE_ID[tissue]
        half = self.width_mm / 2
        main = self.main[region.slices]
        share = self.share[region.slices]
        full = phi <= -half
        border = np.nonzero((phi < half) & ~full)
        main[full] = number
        share[full] = 255
        if border[0].size:
            self._mix(number, np.float32(0.5) - phi[border] / self.width_mm, border, region)

    def _mix(self, number: int, amount: Array, border: tuple[Array, ...], region: Region) -> None:
        """The new tissue over the two already there; the two largest of the three stay."""
        main, under = self.main[region.slices], self.under[region.slices]
        share = self.share[region.slices]
        first, second = main[border], under[border]
        of_first = share[border] / np.float32(255)
        parts = np.stack([amount, (1 - amount) * of_first, (1 - amount) * (1 - of_first)])
        parts[0] += np.where(first == number, parts[1], 0) + np.where(second == number, parts[2], 0)
        parts[1][first == number] = 0
        parts[2][second == number] = 0
        keep_first = parts[1] >= parts[2]
        other = np.where(keep_first, first, second)
        of_other = np.where(keep_first, parts[1], parts[2])
        amount = parts[0] / (parts[0] + of_other)
        wins = amount >= 0.5
        main[border] = np.where(wins, number, other)
        under[border] = np.where(wins, other, number)
        share[border] = np.round(255 * np.where(wins, amount, 1 - amount)).astype(np.uint8)

    def holds(self, region: Region, *tissues: str) -> Array:
        """Where the main tissue is one of these."""
        allowed = np.zeros(256, bool)
        allowed[[TISSUE_ID[tissue] for tissue in tissues]] = True
        result: Array = allowed[self.main[region.slices]]
        return result

    def tube(self, curve: Curve, reach_mm: float = 8.0, apart_mm: float = 1e6) -> Tube | None:
        """Distances to a world curve out to `reach_mm` from its surface; None where the grid does not reach it.

        apart_mm: parts further apart along the curve than this count as rivals.
        """
        spread = np.abs(np.linalg.inv(self.geometry.affine)[:3, :3])
        reach = (curve.radii + reach_mm)[:, None] @ spread.sum(axis=1)[None]
        index = self.geometry.to_ijk(curve.points)
        lower, upper = np.floor(index - reach).astype(int), np.ceil(index + reach).astype(int) + 1
        box = Box(triple(lower.min(axis=0)), triple(upper.max(axis=0))).clip(self.geometry.shape)
        if min(box.shape) < 1:
            return None
        region = self._region(box)
        world = world_points(region.geometry)
        tube = Tube(region, *(np.full(box.shape, FAR_MM, np.float32) for _ in range(3)))
        along = curve.along_mm
        first = np.minimum(lower[:-1], lower[1:]) - box.lower
        last = np.maximum(upper[:-1], upper[1:]) - box.lower
        for n in range(len(along) - 1):
            part = Box(triple(first[n]), triple(last[n])).clip(box.shape)
            if min(part.shape) > 0:
                _nearer(tube, part, world, curve, along, n, apart_mm)
        return tube


def _nearer(tube: Tube, part: Box, world: Points, curve: Curve, along: Array, n: int, apart_mm: float) -> None:
    """Update the distances of one block with one segment of the curve."""
    block = part.slices
    start, step = curve.points[n], curve.points[n + 1] - curve.points[n]
    square = float(step @ step) + 1e-9
    x, y, z = (_cut(axis, block) - np.float32(s) for axis, s in zip(world, start, strict=True))
    i, j, k = (np.float32(s / square) for s in step)
    t = np.minimum(np.maximum(x * i + y * j + z * k, np.float32(0)), np.float32(1))
    i, j, k = (np.float32(s) for s in step)
    x, y, z = x - t * i, y - t * j, z - t * k
    r0, r1 = curve.radii[n], curve.radii[n + 1]
    phi = np.sqrt(x * x + y * y + z * z) - (np.float32(r0) + t * np.float32(r1 - r0))
    best, place = tube.phi[block], tube.along[block]
    wins = phi < best
    if apart_mm < along[-1]:
        far = np.abs(place - np.float32(along[n])) > apart_mm
        loser = np.where(wins, best, phi)
        rival = tube.rival[block]
        np.minimum(rival, np.where(far, loser, FAR_MM), out=rival)
    np.copyto(best, phi, where=wins)
    np.copyto(place, np.float32(along[n]) + t * np.float32(along[n + 1] - along[n]), where=wins)


def _cut(axis: Array, block: tuple[slice, ...]) -> Array:
    """A block of an array that may be broadcast along some axes."""
    return axis[tuple(s if n > 1 else slice(None) for s, n in zip(block, axis.shape, strict=True))]


def world_points(geometry: Geometry) -> Points:
    """World mm of each voxel as three arrays that broadcast to the grid's shape."""
    axes = []
    for world in range(3):
        total: Array = np.full((1, 1, 1), geometry.affine[world, 3], np.float32)
        for axis in range(3):
            slope = geometry.affine[world, axis]
            if abs(slope) > 1e-9:
                shape = [1, 1, 1]
                shape[axis] = -1
                total = total + (slope * np.arange(geometry.shape[axis])).astype(np.float32).reshape(shape)
        axes.append(total)
    return Points(*axes)
