"""One lesion of one scan in figures: size, HU, place in its organ, distance to the organ's surface and to vessels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import edt
import numpy as np

from synthoma import anatomy
from synthoma.cases import Case, Lesion, label_lesions
from synthoma.errors import CaseError
from synthoma.measurement.diameters import Diameters, measure_diameters
from synthoma.volume import Array, Box, Geometry, Volume

VESSELS = ("hepatic_vessel", "portal_vein_and_splenic_vein", "celiac_trunk", "aorta", "postcava")
AROUND_MM = (25.0, 100.0)  # how far from a lesion the organ's surface and vessels are looked for, first and then
_SPARSE_MM = 3.0  # the organ's HU and extent are taken from every few voxels
_SEGMENT = "liver_segment_"


@dataclass(frozen=True)
class Measured:
    """A lesion in figures; nan where there is nothing to measure by.

    structure: the mask that it is a part of; index: 1, 2, ... by falling volume. part: third or segment of its organ.
    organ_hu: the organ's median outside of lesions. surface_mm: least distance of the lesion to the organ's outside, 0
    if it reaches it. vessel_mm, vessel: to the nearest annotated vessel within 100 mm.
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
    organ_hu = _organ_hu(ct, whole, mask)
    measured = []
    for lesion in lesions:
        own = lesion.box.seen_from(box).slices
        inside = labels[own] == lesion.index
        measured.append(_measure(ct, lesion, structure, inside, parts, organ_hu, vessels, mask, case))
    center = None if whole is None else _center_mm(whole, ct.geometry)
    return Labeled(organ, tuple(measured), labels, box, ct.geometry, center)


def _parts(case: Case, organ: str) -> dict[str, Volume]:
    """The annotated masks of an organ; none for a tumor of an organ that is unknown or not annotated."""
    if organ not in anatomy.ORGANS:
        return {}
    return case.read_masks([name for name in anatomy.organ(organ).structures if name in case.masks])


def _measure(
    ct: Volume, lesion: Lesion, structure: str, inside: Array, parts: Mapping[str, Volume], organ_hu: float,
    vessels: Mapping[str, Volume], mask: Volume, case: Case,
) -> Measured:  # fmt: skip
    grid = ct.geometry.crop(lesion.box)
    lines = measure_diameters(inside, grid)
    up = next(axis for axis, letter in enumerate(grid.axes) if letter in "SI")
    hu = ct.data[lesion.box.slices][inside].astype(np.float64)
    surface, vessel, vessel_name = math.nan, math.nan, ""
    for around_mm in AROUND_MM:
        around = lesion.box.grow([int(np.ceil(around_mm / s)) for s in grid.spacing_mm]).clip(ct.geometry.shape)
        own = lesion.box.seen_from(around).slices
        if parts and math.isnan(surface):
            tissue = [part.data[around.slices] != 0 for part in (*parts.values(), mask)]
            surface, _ = _nearest_mm(~np.logical_or.reduce(tissue), own, inside, grid)
        if vessels and math.isnan(vessel):
            near = {name: volume.data[around.slices] != 0 for name, volume in vessels.items()}
            vessel, place = _nearest_mm(np.logical_or.reduce(list(near.values())), own, inside, grid)
            vessel_name = _vessel_at(near, place, vessel, grid)
        if not math.isnan(surface) and not math.isnan(vessel):
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


def _nearest_mm(
    target: Array, own: tuple[slice, slice, slice], inside: Array, grid: Geometry
) -> tuple[float, tuple[int, ...]]:
    """Least distance from a lesion's voxels to a region of the same box, and which voxel; nan if it is not there.

    Between voxel centers, less one voxel: 0 for neighbors.
    """
    if not target.any():
        return math.nan, ()
    distance = edt.edt(np.asfortranarray(~target), anisotropy=grid.spacing_mm, black_border=False)
    part = np.where(inside, distance[own], np.inf)
    place = np.unravel_index(int(np.argmin(part)), part.shape)
    voxel = tuple(int(at) + s.start for at, s in zip(place, own, strict=True))
    return max(0.0, float(part[place]) - min(grid.spacing_mm)), voxel


def _vessel_at(near: Mapping[str, Array], voxel: tuple[int, ...], distance_mm: float, grid: Geometry) -> str:
    """Which of some vessels lies nearest to a voxel, known to be about `distance_mm` away; "" if none does."""
    best, name_of_best = math.inf, ""
    if not voxel:
        return ""
    reach = [int((distance_mm + min(grid.spacing_mm)) / s) + 1 for s in grid.spacing_mm]
    cut = tuple(slice(max(0, at - r), at + r + 1) for at, r in zip(voxel, reach, strict=True))
    middle = np.array([at - s.start for at, s in zip(voxel, cut, strict=True)])
    for name, vessel in near.items():
        at = np.argwhere(vessel[cut])
        if len(at):
            away = float((((at - middle) * grid.spacing_mm) ** 2).sum(axis=1).min())
            if away < best:
                best, name_of_best = away, name
    return name_of_best


def _organ_hu(ct: Volume, organ: Array | None, lesions: Volume) -> float:
    """Median of the organ outside of lesions, of every few voxels; nan if there is no organ."""
    if organ is None:
        return math.nan
    i, j, k = (slice(None, None, max(1, int(_SPARSE_MM / s))) for s in ct.geometry.spacing_mm)
    values = ct.data[i, j, k][organ[i, j, k] & (lesions.data[i, j, k] == 0)]
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
