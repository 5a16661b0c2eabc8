"""One lesion of one scan in figures: size, HU, place in its organ, distance to the organ's surface and to vessels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from synthoma import anatomy
from synthoma.cases import Case, Lesion, label_lesions
from synthoma.errors import CaseError
from synthoma.measurement.diameters import Diameters, measure_diameters
from synthoma.volume import Array, Box, Geometry, Volume

VESSELS = ("hepatic_vessel", "portal_vein_and_splenic_vein", "celiac_trunk", "aorta", "postcava")
_SPARSE_MM = 3.0  # the organ's HU and extent are taken from every few voxels
_SEGMENT = "liver_segment_"


@dataclass(frozen=True)
class Measured:
    """A lesion in figures; nan where there is nothing to measure by.

    structure: the mask that it is a part of; index: 1, 2, ... by falling volume. part: third or segment of its organ.
    organ_hu: the organ's median outside of lesions. surface_mm: least distance of the lesion to the organ's outside, 0
    if it reaches it. vessel_mm, vessel: to the nearest annotated vessel.
    slice_index: of the scan, along the axis nearest to head and feet, from 0.
    """

    organ: str
    structure: str
    index: int
    voxels: int
    volume_ml: float
    equivalent_diameter_mm: float
    center_mm: tuple[float, float, float]
    diameters: Diameters
    slice_index: int
    mean_hu: float
    sd_hu: float
    organ_hu: float
    contrast_hu: float
    part: str
    surface_mm: float
    vessel_mm: float
    vessel: str


@dataclass(frozen=True, eq=False)
class Labeled:
    """The lesions of an organ in a case: figures, labels 1, 2, ... on a box of the scan, and where the organ lies."""

    organ: str
    lesions: tuple[Measured, ...]
    labels: Array
    box: Box
    grid: Geometry
    organ_center_mm: tuple[float, float, float] | None


def measure_case(case: Case) -> list[Labeled]:
    """The lesions of every annotated tumor mask of a case, one entry a mask, empty masks included.

    Raises `CaseError` if the case has no tumor mask at all.
    """
    structures = [name for name in case.masks if anatomy.is_lesion(name)]
    if not structures:
        raise CaseError(
            "no tumor mask is there to measure",
            case=case.id,
            found=", ".join(case.masks) or "no mask",
            expected="a mask named ORGAN_lesion",
        )
    ct = case.read_image()
    vessels = case.read_masks([name for name in VESSELS if name in case.masks])
    return [_measure_organ(case, ct, structure, vessels) for structure in structures]


def _measure_organ(case: Case, ct: Volume, structure: str, vessels: Mapping[str, Volume]) -> Labeled:
    organ = structure.removesuffix("_lesion")
    mask = case.read_mask(structure)
    lesions, labels, box = label_lesions(mask, organ, case.id, lengths=False)
    parts = _parts(case, organ)
    whole = np.logical_or.reduce([part.data for part in parts.values()]) if parts else None
    organ_hu = _organ_hu(ct, organ, whole, mask)
    tissue = None if whole is None else whole | (mask.data != 0)
    around = _around(tissue, vessels, ct.geometry)
    measured = []
    for lesion in lesions:
        own = lesion.box.seen_from(box).slices
        inside = labels[own] == lesion.index
        measured.append(_measure(ct, lesion, structure, inside, parts, organ_hu, vessels, around, case))
    center = None if whole is None else _center_mm(whole, ct.geometry)
    return Labeled(organ, tuple(measured), labels, box, ct.geometry, center)


def _parts(case: Case, organ: str) -> dict[str, Volume]:
    """The annotated masks of an organ; none for a tumor of an organ that is unknown or not annotated."""
    if organ not in anatomy.ORGANS:
        return {}
    return case.read_masks([name for name in anatomy.organ(organ).structures if name in case.masks])


def _measure(
    ct: Volume, lesion: Lesion, structure: str, inside: Array, parts: Mapping[str, Volume], organ_hu: float,
    vessels: Mapping[str, Volume], around: _Around, case: Case,
) -> Measured:  # fmt: skip
    grid = ct.geometry.crop(lesion.box)
    lines = measure_diameters(inside, grid)
    up = next(axis for axis, letter in enumerate(grid.axes) if letter in "SI")
    hu = ct.data[lesion.box.slices][inside].astype(np.float64)
    padded = np.pad(inside, 1)
    border = _points_mm(padded & ~_all_around(padded), ct.geometry.crop(lesion.box.grow(1)))
    less_mm = min(grid.spacing_mm)
    surface, _ = around.surface.nearest(border, less_mm)
    vessel, vessel_name = around.vessels.nearest(border, less_mm)
    for name, volume in vessels.items():
        if (volume.data[lesion.box.slices] & inside).any():
            vessel, vessel_name = 0.0, name
            break
    return Measured(
        organ=lesion.organ,
        structure=structure,
        index=lesion.index,
        voxels=lesion.voxels,
        volume_ml=lesion.volume_ml,
        equivalent_diameter_mm=lesion.equivalent_diameter_mm,
        center_mm=lesion.center_mm,
        diameters=lines,
        slice_index=lines.slice_index + lesion.box.lower[up],
        mean_hu=float(hu.mean()),
        sd_hu=float(hu.std()),
        organ_hu=organ_hu,
        contrast_hu=float(hu.mean()) - organ_hu,
        part=_part_of(case, lesion, parts),
        surface_mm=surface,
        vessel_mm=vessel,
        vessel=vessel_name,
    )


@dataclass(frozen=True, eq=False)
class _Places:
    """Places in RAS+ mm (n, 3) and the name of each, to be searched for the nearest one."""

    points_mm: Array
    names: tuple[str, ...]
    which: Array

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.points_mm)

    def nearest(self, from_mm: Array, less_mm: float) -> tuple[float, str]:
        """Least distance from some places, less a voxel, so that neighbors are at 0, and the name; nan if none."""
        if not len(self.points_mm) or not len(from_mm):
            return math.nan, ""
        # a few places first: what they find bounds the search of the others
        few, _ = self._tree.query(from_mm[:: max(1, len(from_mm) // 50)])
        distance, index = self._tree.query(from_mm, distance_upper_bound=float(few.min()) + 1e-6)
        best = int(np.argmin(distance))
        return max(0.0, float(distance[best]) - less_mm), self.names[int(self.which[index[best]])]


@dataclass(frozen=True, eq=False)
class _Around:
    """What lies around the lesions of an organ: the voxels just outside of it, and those on the border of vessels."""

    surface: _Places
    vessels: _Places


def _around(tissue: Array | None, vessels: Mapping[str, Volume], geometry: Geometry) -> _Around:
    """tissue: the organ with its lesions; None if the organ is not annotated. Behind the scan's faces it goes on."""
    outside = np.zeros((0, 3))
    box = None if tissue is None else Box.around(tissue)
    if tissue is not None and box is not None:
        box = box.grow(1).clip(geometry.shape)
        part = tissue[box.slices] != 0
        outside = _points_mm(~part & ~_all_around(~part), geometry.crop(box))
    found = []
    for volume in vessels.values():
        box = Box.around(volume.data)
        part = volume.data[box.slices] != 0 if box is not None else np.zeros((0, 0, 0), bool)
        grid = geometry if box is None else geometry.crop(box)
        found.append(_points_mm(part & ~_all_around(part), grid))
    which = np.repeat(np.arange(len(found)), [len(points) for points in found])
    return _Around(
        _Places(outside, ("",), np.zeros(len(outside), int)),
        _Places(np.concatenate([np.zeros((0, 3)), *found]), tuple(vessels), which),
    )


def _all_around(mask: Array) -> Array:
    """Whether all face neighbors of a voxel are in the mask; beyond the array there is nothing but the mask."""
    result = np.ones_like(mask)
    for axis in range(3):
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(result, axis, 0)
        target[1:] &= source[:-1]
        target[:-1] &= source[1:]
    return result


def _points_mm(mask: Array, grid: Geometry) -> Array:
    return grid.to_mm(np.argwhere(mask))


def _organ_hu(ct: Volume, organ: str, whole: Array | None, lesions: Volume) -> float:
    """Median of the organ outside of lesions, of every few voxels; nan if there is no organ.

    Of a hollow organ, what may be its wall: neither gas nor fat nor contrast medium.
    """
    if whole is None:
        return math.nan
    i, j, k = (slice(None, None, max(1, int(_SPARSE_MM / s))) for s in ct.geometry.spacing_mm)
    values = ct.data[i, j, k][whole[i, j, k] & (lesions.data[i, j, k] == 0)]
    if anatomy.SITES[organ].form == "wall":
        values = values[(values > anatomy.WALL_HU[0]) & (values < anatomy.WALL_HU[1])]
    return float(np.median(values)) if values.size else math.nan


def _center_mm(organ: Array, geometry: Geometry) -> tuple[float, float, float] | None:
    steps = [max(1, int(_SPARSE_MM / s)) for s in geometry.spacing_mm]
    at = np.argwhere(organ[:: steps[0], :: steps[1], :: steps[2]])
    if not len(at):
        return None
    x, y, z = geometry.to_mm(at.mean(axis=0) * steps).tolist()
    return x, y, z


def _part_of(case: Case, lesion: Lesion, parts: Mapping[str, Volume]) -> str:
    """The segment of the liver where segments are annotated; else a third of the organ, by its extent."""
    segments = [name for name in case.masks if name.startswith(_SEGMENT)]
    for name in segments:
        volume = case.read_mask(name, lesion.box)
        at = np.round(volume.geometry.to_ijk(lesion.center_mm)).astype(int)
        if ((at >= 0) & (at < volume.data.shape)).all() and volume.data[tuple(at)]:
            return f"segment {name.removeprefix(_SEGMENT)}"
    for name, part in parts.items():
        box = Box.around(part.data)
        if box is None:
            continue
        corners = part.geometry.to_mm(np.array([box.lower, np.array(box.upper) - 1]))
        low, high = corners.min(axis=0), corners.max(axis=0)
        if len(parts) > 1 and not ((low - 10 <= lesion.center_mm) & (lesion.center_mm <= high + 10)).all():
            continue  # the other kidney
        place = (np.asarray(lesion.center_mm) - low) / np.maximum(high - low, 1e-6)
        side = {"kidney_left": "left, ", "kidney_right": "right, "}.get(name, "")
        return side + _third(lesion.organ, place)
    return ""


def _third(organ: str, place: Array) -> str:
    """Which third; place: share of the organ's extent from left to right, back to front, feet to head."""
    names, axis = {
        "liver": (("left third", "middle third", "right third"), 0),
        "pancreas": (("tail", "body", "head"), 0),
    }.get(organ, (("lower third", "middle third", "upper third"), 2))
    return names[int(np.clip(place[axis] * 3, 0, 2))]
