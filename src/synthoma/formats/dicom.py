"""The CT series of a DICOM folder to HU on a grid (extra `dicom`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from synthoma.errors import FileError, GeometryError
from synthoma.extras import need
from synthoma.formats.dicom_series import Series, Slice, list_series
from synthoma.formats.stored import Stored, geometry_of
from synthoma.volume import PADDING_HU, Array, Box, Geometry, Volume

_GAP_MM = 0.1  # slices further from even spacing than this are missing or extra
_DRIFT_MM = 0.5  # slices that wander off their common normal by more were taken with a tilted gantry
_PIXELS = (
    "SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation "
    "PlanarConfiguration NumberOfFrames PixelData"
)


def read_series(folder: Path | str, series_uid: str | None = None) -> Volume:
    """The CT of a folder in HU; index axes follow the DICOM columns, rows and normal.

    series_uid: which one, if there are several. Raises `FileError` or `GeometryError` naming the files on
    several series, missing or duplicate slices, gantry tilt, mixed sizes, or an unknown compression.
    """
    return stored(Path(folder), series_uid).image()


def stored(folder: Path, series_uid: str | None = None, labels: bool = False) -> Stored:
    """The folder's series, ready to be read. labels: a series of masks, of any modality."""
    slices, geometry = find_stack(folder, series_uid, labels)
    if not labels and any(s.rescale is None for s in slices):
        named = _names([s for s in slices if s.rescale is None])
        raise FileError(f"{folder}: no rescale slope and intercept, so no HU", found=named)
    scales = [value for s in slices for value in (s.rescale or (1.0, 0.0))]
    whole = all(value.is_integer() and abs(value) < 2**30 for value in scales)

    def slabs(box: Box) -> Iterator[Array]:
        i, j, k = box.slices
        for one in slices[k]:
            yield _values(one, whole, labels)[i, j, None]

    return Stored(folder, geometry, np.dtype(np.int64 if whole else np.float64), slabs)


def find_stack(folder: Path, series_uid: str | None = None, labels: bool = False) -> tuple[list[Slice], Geometry]:
    """The slices of the folder's series from first to last along their normal, and the grid they form."""
    series = _choose(list_series(folder), folder, series_uid, labels)
    first = series.slices[0]
    odd = [s for s in series.slices if not _same_plane(s, first)]
    if odd:
        few = odd if len(odd) * 2 <= len(series.slices) else [s for s in series.slices if s not in odd]
        raise GeometryError(
            f"{folder}: slices of different size, spacing or orientation",
            found=f"{len(few)} of {len(series.slices)} differ: {_names(few)}",
            fix="keep each stack in a folder of its own",
        )
    across, down = np.reshape(first.orientation, (2, 3))
    normal = np.cross(across, down)
    if abs(across @ down) > 1e-3 or abs(np.linalg.norm(normal) - 1) > 1e-3:
        raise GeometryError(f"{folder}: rows and columns are not at right angles", found=first.orientation)
    slices = sorted(series.slices, key=lambda s: (float(np.dot(s.position, normal)), s.path))
    positions = np.array([s.position for s in slices])
    _check_spacing(folder, slices, positions @ normal)
    step = (positions[-1] - positions[0]) @ normal / (len(slices) - 1)
    drift = positions - positions[0]
    drift = np.linalg.norm(drift - np.outer(drift @ normal, normal), axis=1)
    if drift.max() > _DRIFT_MM:
        degrees = np.degrees(np.arctan2(drift[-1], step * (len(slices) - 1)))
        raise GeometryError(
            f"{folder}: gantry tilt",
            found=f"slices sheared by {degrees:.1f} degrees, from {_names([slices[0], slices[-1]])}",
            expected="slices stacked along their normal",
            fix="straighten the series first, for instance with dcm2niix",
        )
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([across * first.pixel_mm[1], down * first.pixel_mm[0], normal * step])
    affine[:3, 3] = positions[0]
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    return slices, geometry_of(folder, (first.columns, first.rows, len(slices)), to_ras @ affine)


def _check_spacing(folder: Path, slices: Sequence[Slice], height: Array) -> None:
    """`GeometryError` naming the slices around the first gap or twice at one place."""
    if len(slices) < 2:
        raise GeometryError(f"{folder}: a single slice", found=_names(slices), expected="at least 2")
    gaps = np.diff(height)
    twins = np.flatnonzero(gaps < 0.01)
    if twins.size:
        pairs = [slices[n] for n in (twins[0], twins[0] + 1)]
        raise GeometryError(
            f"{folder}: {twins.size} duplicate slices",
            found=f"{_names(pairs)} both at {height[twins[0]]:.2f} mm",
            expected="one slice per position",
            fix="remove the copies, or the second phase",
        )
    usual = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - usual) > _GAP_MM)
    if uneven.size:
        pairs = [slices[n] for n in (uneven[0], uneven[0] + 1)]
        raise GeometryError(
            f"{folder}: missing slices",
            found=f"{gaps[uneven[0]]:.2f} mm between {_names(pairs)}, {uneven.size} such gaps",
            expected=f"{usual:.2f} mm",
            fix="copy the series again",
        )


def _choose(found: list[Series], folder: Path, uid: str | None, labels: bool) -> Series:
    """The series asked for, or the only one that can be a volume."""
    listing = "; ".join(str(series) for series in found)
    if uid is not None:
        chosen = [series for series in found if series.uid == uid]
        if not chosen:
            raise FileError(f"{folder} holds no series {uid}", found=listing)
    else:
        chosen = [s for s in found if s.slices and (labels or (s.modality == "CT" and not s.localizer))]
        if len(chosen) > 1:
            chosen = [series for series in chosen if len(series.slices) > 1] or chosen
    if len(chosen) > 1:
        raise FileError(
            f"{folder} holds several series",
            found=listing,
            expected="one",
            fix="name one: formats.dicom.read_series(folder, series_uid=...), or give each its folder",
        )
    if not chosen or not chosen[0].slices or not (labels or chosen[0].modality == "CT"):
        raise FileError(f"{folder} holds no CT series with pixels", found=listing, expected="modality CT")
    return chosen[0]


def _values(one: Slice, whole: bool, labels: bool) -> Array:
    """One slice (columns, rows) in HU, or as stored and scaled for labels."""
    raw = _pixels(one).T
    slope, intercept = one.rescale or (1.0, 0.0)
    values: Array = raw.astype(np.int64) * int(slope) + int(intercept) if whole else raw * slope + intercept
    if one.padding is not None and not labels:
        values[(raw >= one.padding[0]) & (raw <= one.padding[1])] = PADDING_HU
    return values


def _pixels(one: Slice) -> Array:
    """The stored values (rows, columns) of one file."""
    pydicom = need("pydicom", extra="dicom")
    from pydicom.pixels import get_decoder

    try:
        image = pydicom.dcmread(one.path, specific_tags=_PIXELS.split())
        syntax = image.file_meta.TransferSyntaxUID
        decoder = get_decoder(syntax)
    except Exception as error:  # on damaged bytes pydicom raises almost anything
        raise FileError(f"{one.path} cannot be decoded", found=str(error)) from error
    if not decoder.is_available:
        raise FileError(
            f"{one.path} is compressed as {syntax.name}",
            found="no decoder: " + "; ".join(decoder.missing_dependencies),
            fix="pip install 'synthoma[dicom]'",
        )
    try:
        pixels = image.pixel_array
    except Exception as error:  # as above, and whatever the decoders raise
        raise FileError(f"{one.path} cannot be decoded", found=str(error), fix="copy or download it again") from error
    if pixels.shape != (one.rows, one.columns):
        raise FileError(f"{one.path} is damaged", found=pixels.shape, expected=(one.rows, one.columns))
    return np.asarray(pixels)


def _same_plane(one: Slice, other: Slice) -> bool:
    return (one.columns, one.rows) == (other.columns, other.rows) and bool(
        np.allclose(one.orientation, other.orientation, atol=1e-3)
        and np.allclose(one.pixel_mm, other.pixel_mm, atol=1e-3)
    )


def _names(slices: Sequence[Slice]) -> str:
    names = [one.path.name for one in slices[:3]]
    return ", ".join(names) + (f" and {len(slices) - 3} more" if len(slices) > 3 else "")
