"""Masks beside a DICOM series: which structures the SEG and RTSTRUCT objects of a folder hold (extra `dicom`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from synthoma.errors import FileError
from synthoma.formats import dicom, rtstruct, segmentation_object
from synthoma.formats.dicom_codes import structure_of
from synthoma.formats.dicom_file import require_header
from synthoma.formats.dicom_references import require_drawn_on, require_frame
from synthoma.formats.dicom_series import Series, list_series
from synthoma.volume import Geometry, Volume

log = logging.getLogger(__name__)

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass(frozen=True)
class Outline:
    """One segment of a SEG, or one region of an RTSTRUCT.

    label: as its author wrote it. coded: our name for its codes, "" if it has none that we know.
    """

    path: Path
    number: int
    label: str
    coded: str = ""


@dataclass(frozen=True)
class OutlineMask:
    """Segments or regions of one object as one mask on a scan's grid; a source of a `Case`, which calls it."""

    path: Path
    numbers: tuple[int, ...]
    grid: Geometry

    def __call__(self) -> Volume:
        """A bool mask on the grid."""
        read = rtstruct.read_regions if _is_structure_set(self.path) else segmentation_object.read_segments
        return read(self.path, self.numbers, self.grid)


def outlines_beside(folder: Path, objects: Path | None = None) -> tuple[list[Outline], Geometry]:
    """The structures drawn on the CT series of a folder, and its grid.

    objects: the folder of SEG and RTSTRUCT files, the series' own unless given. Those drawn on another series of the
    folder are left out. Raises `FileError` for one of a series that is not there, `GeometryError` for another frame of
    reference.
    """
    listing, scan, grid = dicom.find_scan(folder)
    paths = listing.masks if objects is None else list_masks(objects)
    others = [series for series in listing.series if series is not scan]
    return [one for path in paths for one in _outlines(path, scan, others)], grid


def outlines_in(objects: Path) -> list[Outline]:
    """The structures of all SEG and RTSTRUCT files of a folder, whatever they were drawn on."""
    return [one for path in list_masks(objects) for one in _outlines(path)]


def list_masks(objects: Path) -> tuple[Path, ...]:
    """The SEG and RTSTRUCT files of a folder; `FileError` if there is none."""
    listing = list_series(objects)
    if not listing.masks:
        raise FileError(f"{objects} holds no SEG and no RTSTRUCT", found=f"{len(listing.series)} series of images")
    return listing.masks


def _outlines(path: Path, scan: Series | None = None, others: Iterable[Series] = ()) -> list[Outline]:
    """The structures of one file; none of a file that was drawn on one of the others."""
    if scan is not None and not require_drawn_on(path, scan, others):
        log.info("%s was drawn on another series than the CT: it is left out", path)
        return []
    if not _is_structure_set(path):
        segments = segmentation_object.list_segments(path)
        return [Outline(path, s.number, s.label, structure_of(s.kind, s.side, s.regions)) for s in segments]
    found = []
    for region in rtstruct.list_regions(path):
        if region.closed:
            found.append(Outline(path, region.number, region.label))
            if scan is not None:
                require_frame(f"{path}: {region.label}", region.frame, scan)
        elif region.kinds:
            kinds = ", ".join(region.kinds)
            log.warning("%s: %s is left out: it has no closed contour, only %s", path, region.label, kinds)
    return found


def _is_structure_set(path: Path) -> bool:
    return str(require_header(path, ["SOPClassUID"]).get("SOPClassUID", "")) == _RTSTRUCT
