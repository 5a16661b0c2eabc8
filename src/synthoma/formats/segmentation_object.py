"""The segments of a DICOM SEG, each as a mask on the grid of its series (extra `dicom`).

Frames that a file leaves out are empty. Segments may overlap. A frame of fractions (probability or occupancy) is inside
from one half on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.errors import FileError, GeometryError
from synthoma.formats.dicom_codes import modern
from synthoma.formats.dicom_file import PixelFile, parsing, require_header
from synthoma.formats.dicom_series import Slice, read_slices
from synthoma.formats.limits import require_room
from synthoma.volume import Array, Box, Geometry, Volume

_TOLD = "SegmentationType MaximumFractionalValue SegmentSequence"
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Segment:
    """What a file says of one segment: its number and label, and the values of its codes.

    kind: segmented property type; side: its modifier; regions: anatomic regions.
    """

    number: int
    label: str
    kind: str
    side: str
    regions: tuple[str, ...]


def list_segments(path: Path) -> list[Segment]:
    """The segments that the header describes, in its order; `FileError` if it describes none, or one twice."""
    with parsing(path):
        found = [_described(item) for item in require_header(path, _TOLD.split()).get("SegmentSequence") or []]
    if not found or len({one.number for one in found}) < len(found):
        numbers = ", ".join(str(one.number) for one in found) or "none"
        raise FileError(f"{path} does not tell its segments apart", found=f"segments {numbers}", fix="export it again")
    return found


def read_segments(path: Path, numbers: Collection[int], grid: Geometry) -> Volume:
    """The union of some segments as a bool mask on the grid; without a single frame it is empty.

    Raises `GeometryError` for frames that do not lie on slices of the grid, or hold voxels outside of it.
    """
    with parsing(path):
        header = require_header(path, _TOLD.split())
        kind = str(header.get("SegmentationType", "") or "BINARY").upper()
        least = int(header.get("MaximumFractionalValue") or 255) / 2 if kind == "FRACTIONAL" else 0.5
    if kind not in _TYPES:
        raise FileError(f"{path} holds segments of an unknown type", found=kind, expected=f"one of {', '.join(_TYPES)}")
    require_room(path, grid.shape, 1)
    inside = np.zeros(grid.shape, bool, order="F")
    for one, pixels in _frames(path, numbers, kind == "LABELMAP"):
        mask = np.isin(pixels, list(numbers)) if kind == "LABELMAP" else pixels >= least
        if mask.any():
            _add(inside, grid, one, mask)
    return Volume(inside, grid)


def _frames(path: Path, numbers: Collection[int], every: bool) -> Iterator[tuple[Slice, Array]]:
    """The frames of some segments, or every frame, with their pixels (columns, rows)."""
    file = PixelFile(path)
    for one in _slices(path, path.stat().st_mtime_ns):
        if not every and not one.segment:
            raise FileError(f"{path}: frame {one.frame + 1} names no segment", fix="export it again")
        if every or one.segment in numbers:
            yield one, file.frame(one.frame, one.rows, one.columns).T


def _add(inside: Array, grid: Geometry, one: Slice, mask: Array) -> None:
    """Adds one frame to the voxels that are inside."""
    across, down = np.reshape(one.orientation, (2, 3)) @ _TO_RAS
    normal = np.cross(across, down)
    step = np.linalg.norm(grid.affine[:3, :3], axis=0)[np.abs(normal @ grid.affine[:3, :3] / grid.spacing_mm).argmax()]
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([across * one.pixel_mm[1], down * one.pixel_mm[0], normal * step])
    affine[:3, 3] = _TO_RAS @ one.position
    own = Geometry((one.columns, one.rows, 1), affine)
    turn = grid.alignment(own)
    if turn is None:
        raise GeometryError(
            f"{one.path}: frame {one.frame + 1} does not lie on the grid of the scan",
            found=own,
            expected=grid,
            fix="export it on the series' own grid, or resample it to NIfTI in the program that wrote it",
        )
    turned = turn.turn(mask[:, :, None])
    shared = Box.whole(grid.shape).overlap(Box.whole(turned.shape).shift(turn.lower))
    lost = np.count_nonzero(turned) - (np.count_nonzero(turned[shared[1]]) if shared else 0)
    if shared is None or lost:
        raise GeometryError(
            f"{one.path}: frame {one.frame + 1} lies outside of the scan",
            found=f"{lost} voxels outside",
            expected=grid,
            fix="slices of the series may be missing: copy it again",
        )
    inside[shared[0]] |= turned[shared[1]]


@lru_cache(maxsize=2)
def _slices(path: Path, changed: int) -> list[Slice]:
    """The frames of a file; kept, since its structures are read one after the other."""
    return read_slices(path)


def _described(item: Any) -> Segment:
    kind = _codes(item, "SegmentedPropertyTypeCodeSequence")
    sides = _codes(item, "SegmentedPropertyTypeModifierCodeSequence")
    for code in item.get("SegmentedPropertyTypeCodeSequence") or []:
        sides += _codes(code, "SegmentedPropertyTypeModifierCodeSequence")
    number = int(item.SegmentNumber)
    label = str(item.get("SegmentLabel", "") or "").strip() or f"segment {number}"
    regions = tuple(_codes(item, "AnatomicRegionSequence"))
    return Segment(number, label, kind[0] if kind else "", sides[0] if sides else "", regions)


def _codes(item: Any, name: str) -> list[str]:
    codes = item.get(name) or []
    return [modern(str(code.get("CodeValue", "")), str(code.get("CodingSchemeDesignator", ""))) for code in codes]
