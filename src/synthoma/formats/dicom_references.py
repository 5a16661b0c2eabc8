"""Which series a SEG or an RTSTRUCT was drawn on, from its header alone (extra `dicom`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthoma.errors import FileError, GeometryError
from synthoma.formats.dicom_file import parsing, require_header
from synthoma.formats.dicom_series import Listing, Series

_REFERS = "FrameOfReferenceUID ReferencedSeriesSequence ReferencedFrameOfReferenceSequence"


@dataclass(frozen=True)
class Reference:
    """What an object was drawn on: series and instances by UID, and the frame of reference of its positions."""

    series: frozenset[str]
    instances: frozenset[str]
    frame: str

    def is_to(self, series: Series) -> bool:
        """Whether it names the series, or an image of it."""
        return series.uid in self.series or any(one.uid in self.instances for one in series.slices if one.uid)


def read_reference(path: Path) -> Reference:
    """What an object refers to. A SEG names its series, an RTSTRUCT a frame of reference, and below it the series."""
    with parsing(path):
        return _reference(require_header(path, _REFERS.split()))


def _reference(header: Any) -> Reference:
    frames = list(header.get("ReferencedFrameOfReferenceSequence") or [])
    studies = [study for frame in frames for study in frame.get("RTReferencedStudySequence") or []]
    series = [*(header.get("ReferencedSeriesSequence") or [])]
    series += [one for study in studies for one in study.get("RTReferencedSeriesSequence") or []]
    instances = {
        str(item.get("ReferencedSOPInstanceUID", ""))
        for one in series
        for name in ("ReferencedInstanceSequence", "ContourImageSequence")
        for item in one.get(name) or []
    }
    own = {str(frame.get("FrameOfReferenceUID", "") or "") for frame in frames}
    frame = str(header.get("FrameOfReferenceUID", "") or "") or (own.pop() if len(own) == 1 else "")
    uids = {str(one.get("SeriesInstanceUID", "") or "") for one in series}
    return Reference(frozenset(uids - {""}), frozenset(instances - {""}), frame)


def referred_series(listing: Listing, among: Iterable[Series]) -> list[Series]:
    """Those of some series that masks in the folder were drawn on."""
    references = [read_reference(path) for path in listing.masks]
    return [series for series in among if any(one.is_to(series) for one in references)]


def require_drawn_on(path: Path, scan: Series, others: Iterable[Series]) -> bool:
    """Whether an object was drawn on the scan; False for one of the others.

    Raises `FileError` for an object of a series that is not there, `GeometryError` for another frame of reference.
    """
    reference = read_reference(path)
    nameless = not reference.series and not reference.instances and reference.frame == scan.frame != ""
    if reference.is_to(scan) or nameless:
        require_frame(path, reference.frame, scan)
        return True
    if any(reference.is_to(other) for other in others):
        return False
    raise FileError(
        f"{path} was drawn on a series that is not here",
        found=f"series {', '.join(sorted(reference.series)[:3]) or 'unknown'}",
        expected=f"the CT {scan.uid or 'without an identifier'}",
        fix="put it beside the series it was drawn on, or take it out",
    )


def require_frame(what: Path | str, frame: str, scan: Series) -> None:
    """`GeometryError` if positions are told in another frame of reference than the scan's."""
    if frame and scan.frame and frame != scan.frame:
        raise GeometryError(
            f"{what} is in another frame of reference than the CT",
            found=frame,
            expected=scan.frame,
            fix="register the two in the program that drew it, and export it on this series",
        )
