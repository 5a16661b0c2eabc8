"""Regions of a DICOM RTSTRUCT: contours in mm to masks on the grid of the CT they were drawn on (extra `dicom`).

A voxel is inside if its center is: an odd number of contours of the plane go around it. So holes are holes, and the
two sides of a keyhole cancel out. Contours that were drawn on every second slice, or between the slices, are
interpolated by their signed distances; a larger gap stays empty, since a region may have several parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.errors import FileError, GeometryError
from synthoma.formats.dicom_file import parsing, require_header
from synthoma.formats.limits import require_room
from synthoma.volume import Array, Geometry, Volume

_TOLD = "StructureSetROISequence ROIContourSequence"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")
_FLAT_MM = 0.1  # contours within this of each other lie in one plane
_FLAT = 0.1  # the same as a share of the distance between slices
_EDGES = 1000  # at a time, so that memory stays small however often a contour crosses every row
_FARTHEST = 1e6  # voxels from the first one
_STEPS, _GAP_MM = 1.5, 10.0  # a gap of more of a region's usual steps, or of more mm, is one between two parts of it


@dataclass(frozen=True)
class Region:
    """A region that a file names. kinds: geometric types of its contours; frame: of reference of their positions."""

    number: int
    label: str
    kinds: tuple[str, ...]
    frame: str

    @property
    def closed(self) -> bool:
        """Whether any contour of it encloses something."""
        return any(kind in _CLOSED for kind in self.kinds)


def list_regions(path: Path) -> list[Region]:
    """The regions that the header names, also those without contours."""
    with parsing(path):
        header = require_header(path, _TOLD.split())
        contours, labels = _contours_by_number(header), _labels(header)
        return [
            Region(
                int(item.ROINumber),
                labels[int(item.ROINumber)],
                tuple(dict.fromkeys(_kind(contour) for contour in contours.get(int(item.ROINumber), ()))),
                str(item.get("ReferencedFrameOfReferenceUID", "") or ""),
            )
            for item in header.get("StructureSetROISequence") or []
        ]


def read_regions(path: Path, numbers: Collection[int], grid: Geometry) -> Volume:
    """The union of some regions as a bool mask on the grid, whose axial slices lie along K.

    Raises `FileError` for a region with open contours, `GeometryError` for contours that do not lie in planes of the
    slices, or lie outside of them.
    """
    require_room(path, grid.shape, 1)
    inside = np.zeros(grid.shape, bool, order="F")
    with parsing(path):
        header = require_header(path, _TOLD.split())
        contours, labels = _contours_by_number(header), _labels(header)
        for number in numbers:
            what = f"{path}: {labels.get(number, f'region {number}')}"
            planes = _planes([_points(what, contour, grid) for contour in contours.get(number, ())], grid, what)
            _fill(inside, planes, grid)
    return Volume(inside, grid)


def _planes(contours: Iterable[Array], grid: Geometry, what: str) -> dict[float, list[Array]]:
    """Contours (points of i, j) by the slice that they lie on, ascending; k is fractional between slices."""
    spacing = grid.spacing_mm[2]
    planes: dict[float, list[Array]] = {}
    for points in sorted(contours, key=lambda points: float(np.median(points[:, 2]))):
        k = float(np.median(points[:, 2]))
        if np.ptp(points[:, 2]) * spacing > max(_FLAT_MM, _FLAT * spacing):
            raise GeometryError(
                f"{what}: a contour does not lie in the plane of a slice",
                found=f"points {np.ptp(points[:, 2]) * spacing:.1f} mm apart across the slices",
                expected="contours drawn on the slices of the CT",
                fix="export it on this series; coronal and sagittal contours are not read",
            )
        if (points.max(axis=0) <= -1).any() or (points.min(axis=0) >= grid.shape).any():
            raise GeometryError(
                f"{what}: a contour lies outside of the scan",
                found=f"voxel {', '.join(f'{at:.1f}' for at in points.mean(axis=0))} of {grid}",
                fix="slices of the series may be missing: copy it again",
            )
        near = next((at for at in reversed(planes) if (k - at) * spacing <= _FLAT_MM), None)
        planes.setdefault(k if near is None else near, []).append(points[:, :2])
    return planes


def _fill(inside: Array, planes: dict[float, list[Array]], grid: Geometry) -> None:
    """Adds a region to the voxels that are inside: each slice from the plane on it, or from those around it."""
    heights = np.array(list(planes))
    if heights.size == 0:
        return
    spacing, shape = grid.spacing_mm[2], grid.shape[:2]
    gaps = np.diff(heights)
    step = float(np.median(gaps)) if gaps.size and np.median(gaps) * spacing <= _GAP_MM else 1.0
    drawn: dict[float, Array] = {}

    def plane(at: float) -> Array:
        if at not in drawn:
            drawn[at] = fill_contours(planes[at], (shape[0], shape[1]))
        return drawn[at]

    for k in range(grid.shape[2]):
        above = int(np.searchsorted(heights, k - _FLAT_MM / spacing))
        before, after = heights[above - 1] if above else -np.inf, heights[above] if above < heights.size else np.inf
        gap = after - before
        if abs(after - k) * spacing <= _FLAT_MM:
            inside[:, :, k] |= plane(after)
        elif gap <= _STEPS * step and gap * spacing <= _GAP_MM:
            share = (k - before) / gap
            inside[:, :, k] |= _between(plane(before), plane(after), share, grid)
        elif min(k - before, after - k) <= step / 2:  # a contour stands for half a step on both sides
            inside[:, :, k] |= plane(before if k - before < after - k else after)
        drawn = {at: mask for at, mask in drawn.items() if at >= before}


def fill_contours(contours: Iterable[Array], shape: tuple[int, int]) -> Array:
    """Pixels (columns, rows) whose centers an odd number of contours go around; points (n, 2) in pixels, closed.

    A center on a contour counts as inside at the lower end of each axis only, so that regions that share a border share
    no pixel. Every edge turns the pixels of a row from where it crosses it to the end; what stays turned is inside.
    """
    turns = np.zeros((shape[1], shape[0] + 1), np.int32)
    edges = (np.hstack([points, np.roll(points, -1, axis=0)]) for points in contours)
    few = (part for one in edges for part in np.array_split(one, len(one) // _EDGES + 1))
    for x0, y0, x1, y1 in (part.T for part in few):
        first, last = np.ceil(np.minimum(y0, y1)), np.ceil(np.maximum(y0, y1))  # rows from first to before last
        first, last = np.clip([first, last], 0, shape[1]).astype(int)
        counts = last - first
        edge = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        x = x0[edge] + (row - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
        np.add.at(turns, (row, np.clip(np.ceil(x), 0, shape[0]).astype(int)), 1)
    return np.asarray(np.cumsum(turns, axis=1)[:, :-1].T % 2 == 1)


def _between(before: Array, after: Array, share: float, grid: Geometry) -> Array:
    """The plane at a share of the way from one to the next, by signed distances to their borders."""
    if not before.any() or not after.any():
        return np.zeros_like(before)
    return np.asarray((1 - share) * _depth(before, grid) + share * _depth(after, grid) > 0)


def _depth(mask: Array, grid: Geometry) -> Array:
    """How deep a pixel lies inside, negative outside, in mm; pixels beside the border are half a pixel from it."""
    from edt import edt

    spacing = grid.spacing_mm[:2]
    half = min(spacing) / 2
    data = np.ascontiguousarray(mask)
    deep = np.maximum(edt(data, anisotropy=spacing) - half, 0) - np.maximum(edt(~data, anisotropy=spacing) - half, 0)
    return np.asarray(deep)


def _points(what: str, contour: Any, grid: Geometry) -> Array:
    """The points of a contour (n, 3) in voxels of the grid."""
    if _kind(contour) not in _CLOSED:
        raise FileError(
            f"{what} has contours that enclose nothing",
            found=_kind(contour),
            expected=_CLOSED[0],
            fix="close or remove them in the program that drew them",
        )
    stored = contour.get_item("ContourData").value  # unparsed: pydicom makes an object of every number
    points = np.array(stored.split(b"\\") if isinstance(stored, bytes) else stored, float).reshape(-1, 3)
    if len(points) < 3 or not np.isfinite(points).all():
        raise FileError(f"{what} has a contour of {len(points)} points", expected="3 or more", fix="export it again")
    found: Array = grid.to_ijk(points * (-1.0, -1.0, 1.0))
    if np.abs(found).max() > _FARTHEST:
        raise GeometryError(f"{what} has a point where no scan is", found=points[np.abs(found).max(axis=1).argmax()])
    return found


def _labels(header: Any) -> dict[int, str]:
    regions = header.get("StructureSetROISequence") or []
    return {
        int(one.ROINumber): str(one.get("ROIName", "") or "").strip() or f"region {one.ROINumber}" for one in regions
    }


def _contours_by_number(header: Any) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for item in header.get("ROIContourSequence") or []:
        found.setdefault(int(item.ReferencedROINumber), []).extend(item.get("ContourSequence") or [])
    return found


def _kind(contour: Any) -> str:
    return str(contour.get("ContourGeometricType", "") or "no type").upper()
