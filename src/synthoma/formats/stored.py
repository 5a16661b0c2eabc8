"""Voxels as a file holds them, brought slab by slab to the types that synthoma works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from synthoma.bounded import EMPTY, Bounded
from synthoma.errors import FileError, GeometryError
from synthoma.formats.limits import require_room
from synthoma.volume import Array, Box, Geometry, Volume

_INT16 = np.iinfo(np.int16)
_LABEL_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16))
_HIGHEST_LABEL = 65535
_ROUNDING = 1e-4  # of scaled labels
_SPACING_MM = (1e-3, 1e3)  # outside lies no scan of a body, but many a damaged header


@dataclass(frozen=True)
class Stored:
    """An image file after a look at its header.

    slabs: box -> arrays (i, j, few), along the last axis one after the other, in the file's own type `dtype`.
    The voxel values are `slope * stored + intercept`.
    """

    path: Path
    geometry: Geometry
    dtype: np.dtype[np.generic]
    slabs: Callable[[Box], Iterator[Array]]
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the file can hold whole numbers only; by its type and scale, its voxels are not looked at."""
        return self.dtype.kind in "iu" and self.slope.is_integer() and self.intercept.is_integer()

    def image(self, box: Box | None = None) -> Volume:
        """HU in Fortran order: int16 if whole numbers are stored and scaled by whole numbers and all fit, else float32.

        NaN is kept. Raises `FileError` before reading if the voxels take more memory than `limits` allows.
        """
        box = self._inside(box)
        kind = np.dtype(np.int16 if self.is_whole else np.float32)
        require_room(self.path, box.shape, kind.itemsize)
        data = np.empty(box.shape, kind, order="F")
        for start, slab in self._values(box):
            if data.dtype == np.int16 and not _fits_int16(slab):
                data = data.astype(np.float32, order="F")
            with np.errstate(over="ignore"):
                data[:, :, start : start + slab.shape[2]] = slab
        return Volume(data, self.geometry.crop(box))

    def labels(self, box: Box | None = None) -> Volume:
        """Labels in Fortran order: uint8, or uint16 where stored so or needed.

        Raises `FileError` naming the first value that is negative, above 65535 or not whole, and before reading if
        the voxels take more memory than `limits` allows.
        """
        box = self._inside(box)
        kind = np.dtype(np.uint16 if self.dtype == np.uint16 else np.uint8)
        require_room(self.path, box.shape, kind.itemsize)
        data = np.zeros(box.shape, kind, order="F")
        for start, slab in self.each_label(box):
            highest = slab.max(initial=0)
            if highest > 255 and data.dtype == np.uint8:
                data = data.astype(np.uint16, order="F")
            if highest:  # memory that is not written costs nothing, and most of a mask is empty
                data[:, :, start : start + slab.shape[2]] = slab
        return Volume(data, self.geometry.crop(box))

    def mask(self) -> Bounded:
        """Where the labels are not 0, without memory for the rest; errors as `labels`."""
        require_room(self.path, self.geometry.shape, 1)
        parts: list[tuple[Box, Array]] = []
        for start, slab in self.each_label():
            highest = slab.max(initial=0)  # most slabs of a mask are empty
            if highest:
                inside = slab.view(bool) if highest == 1 and slab.dtype == np.uint8 else np.asarray(slab != 0)
                own = Box.around(inside) or EMPTY
                parts.append((own.shift((0, 0, start)), inside[own.slices].copy(order="F")))
        box = reduce(Box.hull, [own for own, _ in parts]) if parts else EMPTY
        data = np.zeros(box.shape, bool, order="F")
        for own, part in parts:
            data[own.seen_from(box).slices] = part
        return Bounded(self.geometry, box, data)

    def each_label(self, box: Box | None = None) -> Iterator[tuple[int, Array]]:
        """First slice and voxels of one slab after the other, checked as `labels` does."""
        for start, slab in self._values(self._inside(box)):
            if slab.dtype not in _LABEL_TYPES:
                slab = self._whole(slab)
            yield start, slab

    def each_value(self) -> Iterator[tuple[int, Array]]:
        """First slice and float32 values of one slab after the other."""
        for start, slab in self._values(self._inside(None)):
            with np.errstate(over="ignore"):
                yield start, slab.astype(np.float32, copy=False)

    def _values(self, box: Box) -> Iterator[tuple[int, Array]]:
        """First slice and values of each slab, the scale applied."""
        start = 0
        for slab in self.slabs(box):
            yield start, _scaled(slab, self.slope, self.intercept)
            start += slab.shape[2]

    def _inside(self, box: Box | None) -> Box:
        shape = self.geometry.shape
        if box is None:
            return Box.whole(shape)
        if box.clip(shape) != box:
            raise GeometryError(f"the box leaves {self.path}", found=box, expected=f"inside {shape}")
        return box

    def _whole(self, slab: Array) -> Array:
        """The slab in whole numbers; what a scale of 1/255 leaves of 1 is 1."""
        whole = np.rint(slab) if slab.dtype.kind == "f" else slab
        with np.errstate(invalid="ignore"):
            fine = (np.abs(slab - whole) <= _ROUNDING) & (whole >= 0) & (whole <= _HIGHEST_LABEL)
        if not fine.all():
            raise FileError(
                f"{self.path} is not a label map",
                found=f"the value {slab[~fine][0]:g}",
                expected=f"whole numbers from 0 to {_HIGHEST_LABEL}",
            )
        return whole


def geometry_of(path: Path, shape: tuple[int, ...], affine: Array) -> Geometry:
    """The geometry a header describes; a `GeometryError` naming the file if it cannot be one."""
    try:
        geometry = Geometry((shape[0], shape[1], shape[2]), affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error.what}", found=error.found, fix="repair its header") from error
    low, high = _SPACING_MM
    if not all(low <= spacing <= high for spacing in geometry.spacing_mm):
        raise GeometryError(
            f"{path}: the voxel size is not that of a scan",
            found=" x ".join(f"{spacing:.3g}" for spacing in geometry.spacing_mm) + " mm",
            expected=f"{low:g} to {high:g} mm",
            fix="repair its header",
        )
    return geometry


def slab_thickness(shape: tuple[int, ...], bytes_per_voxel: int, target_bytes: int = 2**21) -> int:
    """How many slices go into one slab that fits the cache."""
    return max(1, target_bytes // max(1, shape[0] * shape[1] * bytes_per_voxel))


def _scaled(slab: Array, slope: float, intercept: float) -> Array:
    if slope == 1 and intercept == 0:
        return slab
    whole = slab.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer()
    if whole and slab.dtype.itemsize <= 4 and max(abs(slope), abs(intercept)) < 2**30:
        return np.asarray(slab.astype(np.int64) * int(slope) + int(intercept))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(slab.astype(np.float64) * slope + intercept)


def _fits_int16(slab: Array) -> bool:
    if slab.dtype in (np.int8, np.uint8, np.int16) or slab.size == 0:
        return True
    return bool(slab.min() >= _INT16.min and slab.max() <= _INT16.max)
