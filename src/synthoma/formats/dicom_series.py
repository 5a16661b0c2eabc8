"""What series a folder of DICOM files holds, from the headers alone (extra `dicom`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.errors import FileError
from synthoma.extras import need

_HEADER = (
    "SOPClassUID SeriesInstanceUID SeriesDescription Modality PatientID ImageType Rows Columns SamplesPerPixel "
    "NumberOfFrames ImagePositionPatient ImageOrientationPatient PixelSpacing PixelRepresentation RescaleSlope "
    "RescaleIntercept PixelPaddingValue PixelPaddingRangeLimit"
)
_DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of DICOMDIR, a table of contents


@dataclass(frozen=True)
class Slice:
    """One file with pixels. position and orientation in LPS+ mm; pixel_mm down the rows, then across.

    rescale: slope and intercept, None if the file has none. padding: stored values outside the field of view.
    """

    path: Path
    columns: int
    rows: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    rescale: tuple[float, float] | None
    padding: tuple[int, int] | None


@dataclass(frozen=True)
class Series:
    """What one series of a folder holds. without_pixels: files of it that carry no image."""

    uid: str
    description: str
    modality: str
    patient: str
    localizer: bool
    slices: tuple[Slice, ...]
    without_pixels: int

    def __str__(self) -> str:
        kind = f"{self.modality or 'no modality'}{', localizer' if self.localizer else ''}"
        return f"{self.uid or 'no UID'} ({kind}, {len(self.slices)} slices, {self.description or 'unnamed'})"


def list_series(folder: Path | str) -> list[Series]:
    """Every series below the folder, by UID; files that are not DICOM are passed over.

    Links are followed, each folder and file once. Raises `FileError` if there is no DICOM file, or a damaged
    one.
    """
    folder = Path(folder)
    headers: dict[str, list[tuple[Path, Any, bool]]] = {}
    others = 0
    for path in _files(folder):
        header = _header(path)
        if header is None:
            others += 1
        elif header[0].get("SOPClassUID", "") != _DIRECTORY:
            headers.setdefault(str(header[0].get("SeriesInstanceUID", "") or ""), []).append((path, *header))
    if not headers:
        raise FileError(f"no DICOM file in {folder}", found=f"{others} other files", expected="one CT series")
    return [_series(uid, headers[uid]) for uid in sorted(headers)]


def _series(uid: str, members: list[tuple[Path, Any, bool]]) -> Series:
    first = members[0][1]
    slices = [_slice(path, header) for path, header, pixels in members if pixels]
    return Series(
        uid,
        str(first.get("SeriesDescription", "") or ""),
        str(first.get("Modality", "") or ""),
        str(first.get("PatientID", "") or ""),
        "LOCALIZER" in str(first.get("ImageType", "")),
        tuple(one for one in slices if one is not None),
        sum(not pixels for _, _, pixels in members),
    )


def _slice(path: Path, header: Any) -> Slice | None:
    """What reading needs to know; None for an image that has no place in the patient (a report, a capture)."""
    try:
        if header.get("ImagePositionPatient") is None or header.get("ImageOrientationPatient") is None:
            return None
        if int(header.get("NumberOfFrames") or 1) != 1 or int(header.get("SamplesPerPixel", 1)) != 1:
            raise FileError(
                f"{path} is a multi-frame or color image",
                found=f"{header.get('NumberOfFrames') or 1} frames",
                expected="one gray slice a file",
                fix="convert it to NIfTI first, for instance with dcm2niix",
            )
        rescale = None
        if header.get("RescaleSlope") is not None and header.get("RescaleIntercept") is not None:
            rescale = float(header.RescaleSlope), float(header.RescaleIntercept)
        one = Slice(
            path,
            int(header.Columns),
            int(header.Rows),
            tuple(float(value) for value in header.ImagePositionPatient),
            tuple(float(value) for value in header.ImageOrientationPatient),
            tuple(float(value) for value in header.PixelSpacing),
            rescale,
            _padding(header),
        )
        numbers = [*one.position, *one.orientation, *one.pixel_mm, *(rescale or ())]
        if not np.isfinite(numbers).all() or len(numbers) != 11 + 2 * (rescale is not None):
            raise ValueError(f"position, orientation or spacing {numbers}")
    except FileError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FileError(f"{path} has a damaged DICOM header", found=str(error)) from error
    return one


def _padding(header: Any) -> tuple[int, int] | None:
    """Lowest and highest stored value that stands for no measurement."""
    ends = [header.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    ends = [int(end) % 2**16 for end in ends if end is not None]
    if header.get("PixelRepresentation") == 1:  # some scanners write -2000 as 63536
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    return (min(ends), max(ends)) if ends else None


def _header(path: Path) -> tuple[Any, bool] | None:
    """The tags we need and whether pixels follow; None if the file is not DICOM."""
    pydicom = need("pydicom", extra="dicom")
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return None
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_HEADER.split())
            return header, bool(file.read(1)) and "Rows" in header
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror or str(error)) from error
    except Exception as error:  # on damaged bytes pydicom raises almost anything
        raise FileError(f"{path} has a damaged DICOM header", found=str(error)) from error


def _files(folder: Path) -> Iterator[Path]:
    """Every file below, in order of name; each folder and file once, whatever links lead to it."""
    seen: set[tuple[int, int]] = set()
    try:
        for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
            folders[:] = [name for name in sorted(folders) if _first_visit(Path(parent, name), seen)]
            for path in (Path(parent, name) for name in sorted(names)):
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
