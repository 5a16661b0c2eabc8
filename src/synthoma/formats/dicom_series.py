"""What series a folder of DICOM files holds, from the headers alone (extra `dicom`)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.errors import FileError
from synthoma.formats.dicom_file import read_header

_HEADER = (
    "SOPClassUID SOPInstanceUID SeriesInstanceUID FrameOfReferenceUID SeriesDescription Modality PatientID ImageType "
    "Rows Columns SamplesPerPixel "
    "NumberOfFrames ImagePositionPatient ImageOrientationPatient PixelSpacing PixelRepresentation RescaleSlope "
    "RescaleIntercept PixelPaddingValue PixelPaddingRangeLimit SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence"
)
_DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of DICOMDIR, a table of contents
_NAMED = (".dcm", ".ima", ".dicom", ".dic")
_LISTED = 4  # series named in a message
# SOP classes of objects that hold masks of a series: segmentations, label maps, structure sets
MASKS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.3")


@dataclass(frozen=True)
class Slice:
    """One plane of pixels. position and orientation in LPS+ mm; pixel_mm down the rows, then across.

    frame: which one of its file, from 0. rescale: slope and intercept, None if the file has none. padding: stored
    values outside the field of view. localizer: an overview, no part of the scan. kind, uid: SOP class and instance of
    the file. segment: the number of the one that the frame of a segmentation shows, 0 for all other images.
    """

    path: Path
    columns: int
    rows: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    rescale: tuple[float, float] | None
    padding: tuple[int, int] | None
    frame: int = 0
    localizer: bool = False
    kind: str = ""
    uid: str = ""
    segment: int = 0


@dataclass(frozen=True)
class Series:
    """What one series of a folder holds. slices: localizers are left out, if there are others.

    frame: of reference, in which positions are told. without_pixels: files of it that carry no image. faults: files of
    it that should carry one and cannot be used.
    """

    uid: str
    description: str
    modality: str
    patient: str
    frame: str
    localizer: bool
    slices: tuple[Slice, ...]
    without_pixels: int
    faults: tuple[FileError, ...] = ()

    def __str__(self) -> str:
        kind = f"{self.modality or 'no modality'}{', localizer' if self.localizer else ''}"
        return f"{self.uid or 'no UID'} ({kind}, {len(self.slices)} slices, {self.description or 'unnamed'})"


@dataclass(frozen=True)
class Listing:
    """All series below a folder. strays: files that look like DICOM and do not tell which series they are of.

    masks: files that hold masks of a series, of the SOP classes `MASKS`.
    """

    series: list[Series]
    strays: list[tuple[Path, FileError]]
    masks: tuple[Path, ...] = ()

    def stray_of(self, series: Series) -> FileError | None:
        """The fault of a file that is, by its name and place, likely of this series; None if there is none."""
        names = {(one.path.parent, _shape(one.path.name)) for one in series.slices}
        folders = {parent for parent, _ in names}
        for path, error in self.strays:
            named = path.name.lower().endswith(_NAMED) and path.parent in folders
            if named or (path.parent, _shape(path.name)) in names:
                return error
        return None


def describe(series: Iterable[Series]) -> str:
    """The series in words, the first few by name."""
    listed = list(series)
    words = "; ".join(str(one) for one in listed[:_LISTED])
    return words + (f"; and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")


def list_series(folder: Path | str) -> Listing:
    """Every series below the folder, by UID; files that are not DICOM are passed over.

    Links are followed, each folder and file once. Damage to a file is told by its series, or as a stray, and is an
    error only of whoever chooses that series. Raises `FileError` if there is no DICOM file.
    """
    folder = Path(folder)
    headers: dict[str, list[tuple[Path, Any, bool]]] = {}
    others: list[Path] = []
    damaged: list[tuple[Path, FileError]] = []
    for path in files_below(folder):
        try:
            header = read_header(path, _HEADER.split())
        except FileError as error:
            damaged.append((path, error))
            continue
        if header is None:
            others.append(path)
        elif header[0].get("SOPClassUID", "") != _DIRECTORY:
            uid = str(header[0].get("SeriesInstanceUID", "") or "")
            headers.setdefault(uid, []).append((path, *header))
    nameless = headers.pop("", [])
    if any(pixels for *_, pixels in nameless) or not headers:
        headers[""] = nameless
    else:
        damaged += [(path, FileError(f"{path} is cut short", fix="copy the series again")) for path, *_ in nameless]
    headers = {uid: members for uid, members in headers.items() if members}
    if not headers and damaged:
        raise damaged[0][1]
    if not headers:
        raise FileError(f"no DICOM file in {folder}", found=f"{len(others)} other files", expected="one CT series")
    strays = damaged + [(path, _not_dicom(path)) for path in others]
    masks = sorted(
        path for members in headers.values() for path, header, _ in members if header.get("SOPClassUID", "") in MASKS
    )
    return Listing([_series(uid, headers[uid]) for uid in sorted(headers)], strays, tuple(masks))


def read_slices(path: Path) -> list[Slice]:
    """The planes of one file, in its order; `FileError` if it has none."""
    header = read_header(path, _HEADER.split())
    slices = [] if header is None else _slices(path, header[0], str(header[0].get("SOPClassUID", "") or ""))
    if not slices:
        raise FileError(f"{path} holds no image with a place in the patient")
    return slices


def _not_dicom(path: Path) -> FileError:
    size = path.stat().st_size
    fix = "copy the series again"
    if size == 0:
        return FileError(f"{path} is empty", found="0 bytes", fix=fix)
    return FileError(f"{path} is not DICOM", found=f"{size} bytes of something else among the slices", fix=fix)


def _series(uid: str, members: list[tuple[Path, Any, bool]]) -> Series:
    slices: list[Slice] = []
    unused: list[tuple[str, FileError]] = []
    for path, header, pixels in members:
        kind = str(header.get("SOPClassUID", "") or "")
        if not pixels:
            lost = FileError(f"{path} is cut short: it has no pixels", fix="copy the series again")
            unused.append((kind, lost))
            continue
        try:
            found = _slices(path, header, kind)
        except FileError as error:
            unused.append((kind, error))
            continue
        slices += found
        if not found:
            unused.append((kind, FileError(f"{path} has no position in the patient", fix="copy the series again")))
    kinds = Counter(one.kind for one in slices if one.kind).most_common(1)
    usual = kinds[0][0] if kinds else None
    slices = [one for one in slices if one.kind in (usual, "")]
    kept = [one for one in slices if not one.localizer] or slices
    first = next((header for path, header, _ in members if kept and path == kept[0].path), members[0][1])
    return Series(
        uid,
        str(first.get("SeriesDescription", "") or ""),
        str(first.get("Modality", "") or ""),
        str(first.get("PatientID", "") or ""),
        str(first.get("FrameOfReferenceUID", "") or ""),
        bool(slices) and all(one.localizer for one in slices),
        tuple(kept),
        sum(not pixels for _, _, pixels in members),
        # objects of another kind (a dose grid, a capture, a report) may share the series
        tuple(error for kind, error in unused if usual is None or kind == usual or not kind),
    )


def _slices(path: Path, header: Any, kind: str) -> list[Slice]:
    """What reading needs to know; none for an image that has no place in the patient (a report, a capture)."""
    try:
        frames = int(header.get("NumberOfFrames") or 1)
        groups = header.get("PerFrameFunctionalGroupsSequence")
        if groups is not None:
            return _frames(path, header, kind)
        if header.get("ImagePositionPatient") is None or header.get("ImageOrientationPatient") is None:
            return []
        if frames != 1 or int(header.get("SamplesPerPixel", 1)) != 1:
            raise FileError(
                f"{path} is a multi-frame or color image",
                found=f"{header.get('NumberOfFrames') or 1} frames without a place each",
                expected="gray slices, each with its position",
                fix="convert it to NIfTI first, for instance with dcm2niix",
            )
        return [_slice(path, header, [header], 0, kind)]
    except FileError:
        raise
    except Exception as error:  # on damaged bytes pydicom raises almost anything
        raise FileError(f"{path} has a damaged DICOM header", found=str(error)) from error


def _frames(path: Path, header: Any, kind: str) -> list[Slice]:
    """The frames of an enhanced image: what they share, and what each tells of itself, lies in functional groups."""
    shared = [item for group in header.get("SharedFunctionalGroupsSequence") or [] for item in _parts(group)]
    groups = list(header.PerFrameFunctionalGroupsSequence)
    if len(groups) != int(header.get("NumberOfFrames") or 1) or int(header.get("SamplesPerPixel", 1)) != 1:
        raise ValueError(f"{header.get('NumberOfFrames')} frames, {len(groups)} functional groups")
    return [
        _slice(path, header, [*_parts(group), *shared, header], number, kind) for number, group in enumerate(groups)
    ]


def _parts(group: Any) -> list[Any]:
    """The items of the sequences of a functional group."""
    return [element.value[0] for element in group if element.VR == "SQ" and element.value]


def _slice(path: Path, header: Any, sources: list[Any], frame: int, kind: str) -> Slice:
    """A slice of a file; each fact from the first of the sources that tells it."""

    def told(keyword: str) -> Any:
        return next((value for source in sources if (value := source.get(keyword)) is not None), None)

    rescale = None
    if told("RescaleSlope") is not None and told("RescaleIntercept") is not None:
        rescale = float(told("RescaleSlope")), float(told("RescaleIntercept"))
    image_type = [str(word) for word in [told("FrameType"), header.get("ImageType")] if word is not None]
    one = Slice(
        path,
        int(header.Columns),
        int(header.Rows),
        tuple(float(value) for value in told("ImagePositionPatient")),
        tuple(float(value) for value in told("ImageOrientationPatient")),
        tuple(float(value) for value in told("PixelSpacing")),
        rescale,
        _padding(header),
        frame,
        "LOCALIZER" in " ".join(image_type),
        kind,
        str(header.get("SOPInstanceUID", "") or ""),
        int(told("ReferencedSegmentNumber") or 0),
    )
    numbers = [*one.position, *one.orientation, *one.pixel_mm, *(rescale or ())]
    if not np.isfinite(numbers).all() or len(numbers) != 11 + 2 * (rescale is not None):
        raise ValueError(f"position, orientation or spacing {numbers}")
    return one


def _padding(header: Any) -> tuple[int, int] | None:
    """Lowest and highest stored value that stands for no measurement."""
    ends = [header.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    ends = [int(end) % 2**16 for end in ends if end is not None]
    if header.get("PixelRepresentation") == 1:  # some scanners write -2000 as 63536
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    return (min(ends), max(ends)) if ends else None


def _shape(name: str) -> str:
    """A file's name with every number as #."""
    return re.sub(r"\d+", "#", name)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below, in order of name; each folder and file once, whatever links lead to it.

    Names that begin with a dot are passed over: other systems leave such files beside every one they copy.
    """
    seen: set[tuple[int, int]] = set()
    try:
        for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
            folders[:] = [name for name in sorted(folders) if _first_visit(Path(parent, name), seen)]
            for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
                if path.is_file() and _first_visit(path, seen):
                    yield path
    except OSError as error:
        raise FileError(f"cannot read {error.filename or folder}", found=error.strerror) from error


def _refuse(error: OSError) -> None:
    raise error


def _first_visit(path: Path, seen: set[tuple[int, int]]) -> bool:
    status = path.stat()
    key = status.st_dev, status.st_ino
    new = key not in seen
    seen.add(key)
    return new
