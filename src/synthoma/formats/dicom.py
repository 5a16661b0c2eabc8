"""The CT series of a DICOM folder to HU on a grid (extra `dicom`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from synthoma.errors import FileError, GeometryError, SynthomaError
from synthoma.formats.dicom_file import PixelFile, read_header
from synthoma.formats.dicom_references import read_reference, referred_series
from synthoma.formats.dicom_series import Listing, Series, Slice, describe, files_below, list_series
from synthoma.formats.stored import Stored, geometry_of
from synthoma.volume import PADDING_HU, Array, Box, Geometry, Volume

_GAP_MM = 0.1  # slices further from even spacing than this are missing or extra
_DRIFT_MM = 0.5  # slices that wander off their common normal by more were taken with a tilted gantry
_DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")
_MERGED = 3  # this many series of one slice each may be one stack whose slices were renamed


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
    scales = [s.rescale or (1.0, 0.0) for s in slices]
    whole = all(number.is_integer() for scale in scales for number in scale)
    whole = whole and all(abs(slope) < 2**14 and abs(intercept) < 2**30 for slope, intercept in scales)

    def slabs(box: Box) -> Iterator[Array]:
        i, j, k = box.slices
        file: PixelFile | None = None
        for one in slices[k]:
            if file is None or file.path != one.path:
                file = PixelFile(one.path)
            yield _values(one, file, whole, labels)[i, j, None]

    return Stored(folder, geometry, np.dtype(np.int32 if whole else np.float64), slabs)


def scan_date(folder: Path) -> str:
    """The day of acquisition, else of the series or the study, in the first file that is DICOM; "" if none says."""
    for path in files_below(folder):
        read = read_header(path, _DATES)
        if read is not None:
            return next((str(read[0].get(name)) for name in _DATES if read[0].get(name)), "")
    return ""


def find_stack(folder: Path, series_uid: str | None = None, labels: bool = False) -> tuple[list[Slice], Geometry]:
    """The slices of the folder's series from first to last along their normal, and the grid they form."""
    listing = list_series(folder)
    return _stack(folder, listing, _choose(listing, folder, series_uid, labels))


def find_scan(folder: Path) -> tuple[Listing, Series, Geometry]:
    """All that a folder holds, its CT series, and the grid of that."""
    listing = list_series(folder)
    scan = _choose(listing, folder, None, labels=False)
    return listing, scan, _stack(folder, listing, scan)[1]


def find_stack_under(folder: Path, masks: Geometry, series_uid: str | None = None) -> tuple[list[Slice], Geometry]:
    """The same for the series that masks were drawn on: of several CT series the only one on whose grid they lie."""
    listing = list_series(folder)
    several = [series for series in listing.series if _is_scan(series)]
    if series_uid is not None or len(several) < 2:
        return _stack(folder, listing, _choose(listing, folder, series_uid, labels=False))
    found: list[tuple[Series, list[Slice], Geometry]] = []
    for series in several:
        with contextlib.suppress(SynthomaError):  # a series that makes no volume bears no masks
            found.append((series, *_stack(folder, listing, series)))
    fitting = [stack for stack in found if _is_same(stack[2], masks)]
    if len(fitting) != 1:
        raise GeometryError(
            f"the masks lie on the grid of {'several' if fitting else 'no'} series of {folder}",
            found=f"{masks}; {describe(series for series, *_ in fitting or found)}",
            expected="the grid of one series",
            fix="give each series its folder",
        )
    return fitting[0][1:]


def _is_same(grid: Geometry, other: Geometry) -> bool:
    """Whether two grids are one, up to the order and direction of their axes."""
    turn = grid.alignment(other)
    return turn is not None and turn.lower == (0, 0, 0) and sorted(grid.shape) == sorted(other.shape)


def _is_scan(series: Series) -> bool:
    return bool(series.slices) and series.modality == "CT" and not series.localizer


def _stack(folder: Path, listing: Listing, series: Series) -> tuple[list[Slice], Geometry]:
    """The slices of one series in order, and their grid."""
    damaged = [*series.faults, listing.stray_of(series)]
    if damaged[0] is not None:
        raise damaged[0]
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
    slices = sorted(series.slices, key=lambda s: (float(np.dot(s.position, normal)), s.path, s.frame))
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


def _choose(listing: Listing, folder: Path, uid: str | None, labels: bool) -> Series:
    """The series asked for, or the only one that can be a volume; of several the one that masks were drawn on."""
    found = listing.series
    if uid is not None:
        chosen = [series for series in found if series.uid == uid]
        if not chosen:
            raise FileError(f"{folder} holds no series {uid}", found=describe(found))
    else:
        chosen = [series for series in found if (bool(series.slices) if labels else _is_scan(series))]
        if len(chosen) > 1:
            chosen = [series for series in chosen if len(series.slices) > 1] or _merged(chosen)
        if len(chosen) > 1 and listing.masks:
            drawn_on = referred_series(listing, chosen)
            chosen = drawn_on if len(drawn_on) == 1 else chosen
    if len(chosen) > 1:
        raise FileError(
            f"{folder} holds several series",
            found=f"{len(chosen)}: {describe(chosen)}",
            expected="one",
            fix="name one: formats.dicom.read_series(folder, series_uid=...), or give each its folder",
        )
    if not chosen or not chosen[0].slices or not (labels or chosen[0].modality == "CT"):
        for series in found:
            if series.faults and (labels or series.modality == "CT") and (uid is None or series.uid == uid):
                raise series.faults[0]
        fix = None
        if listing.masks:
            uids = sorted({uid for path in listing.masks for uid in read_reference(path).series})
            named = ", ".join(uids[:3]) or "that they do not name"
            fix = f"its masks were drawn on the series {named}: put it beside them"
        raise FileError(
            f"{folder} holds no CT series with pixels", found=describe(found), expected="modality CT", fix=fix
        )
    return chosen[0]


def _merged(single: list[Series]) -> list[Series]:
    """Series of one slice each as the one stack they form, where an anonymizer gave every slice an identifier."""
    slices = tuple(one for series in single for one in series.slices)
    alike = all(_same_plane(one, slices[0]) for one in slices) and len({series.patient for series in single}) == 1
    if len(slices) < _MERGED or not alike:
        return single
    faults = tuple(fault for series in single for fault in series.faults)
    without = sum(series.without_pixels for series in single)
    return [replace(single[0], uid="", slices=slices, without_pixels=without, faults=faults)]


def _values(one: Slice, file: PixelFile, whole: bool, labels: bool) -> Array:
    """One slice (columns, rows) in HU, or as stored and scaled for labels."""
    raw = file.frame(one.frame, one.rows, one.columns).T
    slope, intercept = one.rescale or (1.0, 0.0)
    if whole and raw.dtype.itemsize <= 2:
        values: Array = raw.astype(np.int32) * int(slope) + int(intercept)
    else:
        values = raw.astype(np.int64) * int(slope) + int(intercept) if whole else raw * slope + intercept
    if one.padding is not None and not labels:
        values[(raw >= one.padding[0]) & (raw <= one.padding[1])] = PADDING_HU
    return values


def _same_plane(one: Slice, other: Slice) -> bool:
    return (one.columns, one.rows) == (other.columns, other.rows) and bool(
        np.allclose(one.orientation, other.orientation, atol=1e-3)
        and np.allclose(one.pixel_mm, other.pixel_mm, atol=1e-3)
    )


def _names(slices: Sequence[Slice]) -> str:
    names = [f"{one.path.name} frame {one.frame + 1}" if one.frame else one.path.name for one in slices[:3]]
    return ", ".join(names) + (f" and {len(slices) - 3} more" if len(slices) > 3 else "")
