"""Arrays that know where they are: geometry in mm, and volumes of HU, masks or labels on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import add, lt, sub
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthoma import resampling
from synthoma.errors import GeometryError
from synthoma.orientation import Alignment, alignment, axis_names, directions, moves, square

Array = NDArray[Any]
Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Slices = tuple[slice, slice, slice]
IMAGE_TYPES = (np.dtype(np.int16), np.dtype(np.float32))
MASK_TYPES = (np.dtype(bool), np.dtype(np.uint8), np.dtype(np.uint16))
PADDING_HU = -1024  # what scanners write outside the field of view
_OF_AXES = ("spacing_mm", "voxel_mm3", "_to_voxels", "axes", "largest_cosine")  # of a geometry: wherever it begins


class Box(NamedTuple):
    """A block of voxels, `lower` included, `upper` not."""

    lower: Triple
    upper: Triple

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """All voxels of an array of this shape."""
        return cls((0, 0, 0), triple(shape))

    @classmethod
    def around(cls, mask: Array) -> Box | None:
        """The smallest box that holds every non-zero voxel; None if there is none."""
        if mask.ndim != 3:
            raise ValueError(f"a box needs a 3-D mask, got {mask.ndim} dimensions")
        block = mask[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in mask.strides)]
        # along the grain of memory, against which numpy is six times slower; after the first axis over its shadow only
        order = sorted(range(3), key=lambda axis: -abs(mask.strides[axis]))
        lower, upper = [0, 0, 0], [0, 0, 0]
        for axis in order:
            used = np.flatnonzero(block.any(axis=tuple(other for other in range(3) if other != axis)))
            if used.size == 0:
                return None
            lower[axis], upper[axis] = int(used[0]), int(used[-1]) + 1
            if axis == order[0]:
                kept = tuple(slice(lower[a], upper[a]) if a == axis else slice(None) for a in range(3))
                block = np.logical_or.reduce(block[kept], axis=axis, keepdims=True)
            if mask.strides[axis] < 0:
                lower[axis], upper[axis] = mask.shape[axis] - upper[axis], mask.shape[axis] - lower[axis]
        return cls(triple(lower), triple(upper))

    @property
    def shape(self) -> Triple:
        (i, j, k), (m, n, o) = self
        return m - i, n - j, o - k

    @property
    def slices(self) -> Slices:
        (i, j, k), (m, n, o) = self
        return slice(i, m), slice(j, n), slice(k, o)

    def grow(self, margin: int | Sequence[int]) -> Box:
        """The box with `margin` voxels more on every side, or per axis."""
        by = [margin] * 3 if isinstance(margin, int) else list(margin)
        return Box(triple(map(sub, self.lower, by)), triple(map(add, self.upper, by)))

    def shift(self, by: Sequence[int]) -> Box:
        """The box moved by some voxels along each axis."""
        return Box(triple(map(add, self.lower, by)), triple(map(add, self.upper, by)))

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(triple(map(min, self.lower, other.lower)), triple(map(max, self.upper, other.upper)))

    def meets(self, other: Box) -> bool:
        """Whether the boxes share a voxel."""
        return all(map(lt, map(max, self.lower, other.lower), map(min, self.upper, other.upper)))

    def seen_from(self, frame: Box) -> Box:
        """The same voxels, counted from the first voxel of another box."""
        ((a, b, c), (d, e, f)), (i, j, k) = self, frame.lower
        return Box((a - i, b - j, c - k), (d - i, e - j, f - k))

    def overlap(self, other: Box) -> tuple[Slices, Slices] | None:
        """The voxels that two boxes share, as slices of an array on this box and on the other; None if none."""
        ((a, b, c), (d, e, f)), ((i, j, k), (m, n, o)) = self, other
        shared = Box((max(a, i), max(b, j), max(c, k)), (min(d, m), min(e, n), min(f, o)))
        if min(shared.shape) <= 0:
            return None
        return shared.seen_from(self).slices, shared.seen_from(other).slices

    def clip(self, shape: Sequence[int]) -> Box:
        """The part of the box inside an array of this shape; its shape holds a 0 if there is none."""
        lower = triple(map(min, map(max, self.lower, (0, 0, 0)), shape))
        return Box(lower, triple(map(min, map(max, self.upper, lower), shape)))


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a grid of voxels lies: `affine` (4, 4) takes a voxel index to RAS+ mm.

    Oblique, flipped and anisotropic grids are all allowed; a singular or non-finite affine is a `GeometryError`.
    """

    shape: Triple
    affine: Array

    def __post_init__(self) -> None:
        affine = np.array(self.affine, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("an affine is a finite 4 x 4 matrix", found=affine.tolist())
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise GeometryError("the affine squeezes voxels flat", found=affine[:3, :3].round(4).tolist())
        if len(self.shape) != 3 or min(self.shape) < 0:
            raise GeometryError("a grid has three axes", found=tuple(self.shape))
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", triple(self.shape))

    @classmethod
    def of(cls, shape: Sequence[int], spacing_mm: float | Sequence[float] = 1.0, axes: str = "RAS") -> Geometry:
        """An upright grid whose first voxel lies at 0 mm, its axes pointing as named (`RAS`, `LPS`, ...)."""
        spacing = np.broadcast_to(np.asarray(spacing_mm, float), (3,))
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (world, sign) in enumerate(directions(axes)):
            affine[world, axis] = sign * spacing[axis]
        return cls(triple(shape), affine)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @cached_property
    def voxel_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @cached_property
    def _to_voxels(self) -> Array:
        """(3, 3): steps in mm to steps in voxels."""
        return np.linalg.inv(self.affine[:3, :3])

    @cached_property
    def axes(self) -> str:
        """Where each index axis points, nearest letters: `RAS`, `LPS`, ..."""
        return axis_names(self.affine[:3, :3] / np.asarray(self.spacing_mm))

    def to_mm(self, ijk: ArrayLike) -> Array:
        """RAS+ positions (..., 3) of voxel indices (..., 3); whole numbers are voxel centers."""
        return np.asarray(ijk, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def points_mm(self) -> Array:
        """(I, J, K, 3): RAS+ mm of the center of every voxel."""
        return self.to_mm(np.moveaxis(np.indices(self.shape), 0, -1))

    def to_ijk(self, mm: ArrayLike) -> Array:
        """Voxel indices (..., 3), not rounded, of RAS+ positions (..., 3)."""
        return (np.asarray(mm, float) - self.affine[:3, 3]) @ self._to_voxels.T

    def box_around(self, mm: Sequence[float], radius_mm: float) -> Box:
        """The voxels of this grid within a cube or so of `radius_mm` around a position."""
        half = np.linalg.norm(self._to_voxels, axis=1) * radius_mm
        center = self.to_ijk(mm)
        lower, upper = np.floor(center - half), np.ceil(center + half) + 1
        return Box(triple(lower), triple(upper)).clip(self.shape)

    def crop(self, box: Box) -> Geometry:
        """The grid of a box of this one; the box may reach outside."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_mm(box.lower)
        affine.flags.writeable = False
        part = object.__new__(Geometry)  # nothing is to be checked or computed again
        known = {name: self.__dict__[name] for name in _OF_AXES if name in self.__dict__}
        part.__dict__.update(known, shape=box.shape, affine=affine)
        return part

    def reoriented(self, axes: str) -> Geometry:
        """The same voxels with index axes ordered and pointing as named, as near as the grid allows."""
        order, flips = moves(self.axes, axes)
        affine = self.affine[:, [*order, 3]].copy()
        shape = triple([self.shape[axis] for axis in order])
        for axis, flip in enumerate(flips):
            if flip:
                affine[:, 3] += affine[:, axis] * (shape[axis] - 1)
                affine[:, axis] *= -1
        return Geometry(shape, affine)

    def turned_box(self, box: Box, axes: str) -> Box:
        """A box of this grid as a box of `reoriented(axes)`: the same voxels."""
        order, flips = moves(self.axes, axes)
        lower, upper = [], []
        for axis, flip in zip(order, flips, strict=True):
            low, high, size = box.lower[axis], box.upper[axis], self.shape[axis]
            lower.append(size - high if flip else low)
            upper.append(size - low if flip else high)
        return Box(triple(lower), triple(upper))

    def resampled(self, spacing_mm: float | Sequence[float]) -> Geometry:
        """A grid of this spacing over the same field of view, centered on it."""
        new = np.broadcast_to(np.asarray(spacing_mm, float), (3,))
        extent = np.asarray(self.spacing_mm) * self.shape
        shape = np.maximum(1, np.round(extent / new)).astype(int)
        ratio = new / np.asarray(self.spacing_mm)
        affine = self.affine.copy()
        affine[:3, :3] *= ratio
        first = (np.asarray(self.shape) - 1) / 2 - (shape - 1) / 2 * ratio
        affine[:3, 3] = self.to_mm(first)
        return Geometry(triple(shape), affine)

    @cached_property
    def largest_cosine(self) -> float:
        """Of the angle between any two index axes; 0 at right angles."""
        cosines = self.affine[:3, :3] / np.asarray(self.spacing_mm)
        return float(np.abs(cosines.T @ cosines - np.eye(3)).max())

    @cached_property
    def squared(self) -> Geometry:
        """The nearest grid with axes at right angles, which readers built on ITK ask for; itself if it is one."""
        return self if self.largest_cosine < 1e-9 else Geometry(self.shape, square(self.affine, self.shape))

    def matches(self, other: Geometry, tolerance_mm: float = 0.1) -> bool:
        """Same shape, and no corner of the grid further than `tolerance_mm` from its twin.

        A grid that leans by less than half a voxel matches its `squared` one.
        """
        if self.shape != other.shape:
            return False
        if self.corner_distance_mm(other) <= tolerance_mm:
            return True
        apart = min(self.squared.corner_distance_mm(other), self.corner_distance_mm(other.squared))
        return apart <= tolerance_mm and self.corner_distance_mm(other) <= min(self.spacing_mm) / 2

    def require_same(self, other: Geometry, what: str = "mask") -> None:
        """`GeometryError` unless `other`, the grid of `what`, is this grid."""
        if not self.matches(other):
            apart = self.corner_distance_mm(other)
            near = "the same voxels, but " if str(self) == str(other) else f"{other}, "
            raise GeometryError(
                f"the {what}'s grid differs",
                found=f"{near}corners up to {apart:.3g} mm apart",
                expected=f"{self}, within 0.1 mm",
                fix="if only its header is wrong, give it the scan's; else resample it (in Python: .to(ct.geometry))",
            )

    def alignment(self, other: Geometry, tolerance_mm: float = 0.1) -> Alignment | None:
        """How an array on `other` goes onto this grid exactly, its axes swapped and turned round; None if it cannot.

        It may cover a part of this grid only, or reach out of it: see `lower` of the result.
        """
        found = alignment(self.affine, other.affine, other.shape, tolerance_mm, most_voxels=2.0**31)
        if found is None and max(self.largest_cosine, other.largest_cosine) > 1e-9 and self.shape == other.shape:
            return Alignment((0, 1, 2), (False,) * 3, (0, 0, 0)) if self.matches(other, tolerance_mm) else None
        return found

    def box_on(self, other: Geometry, box: Box) -> Box:
        """A box of this grid as a box of `other`, which is this grid with its axes in another order."""
        order, flips = self.alignment(other)[:2]  # type: ignore[index]  # None breaks the promise above
        lower, upper = [0, 0, 0], [0, 0, 0]
        for axis, (theirs, flip) in enumerate(zip(order, flips, strict=True)):
            size = self.shape[axis]
            low, high = box.lower[axis], box.upper[axis]
            lower[theirs], upper[theirs] = (size - high, size - low) if flip else (low, high)
        return Box(triple(lower), triple(upper))

    def corner_distance_mm(self, other: Geometry) -> float:
        """The largest distance between corresponding outer corners of two grids, in mm."""
        unit = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T
        mine = self.to_mm(unit * self.shape - 0.5)
        theirs = other.to_mm(unit * other.shape - 0.5)
        return float(np.linalg.norm(mine - theirs, axis=1).max())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape == other.shape and bool(np.array_equal(self.affine, other.affine))

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    def __str__(self) -> str:
        size = "x".join(str(n) for n in self.shape)
        return f"{size} at {'x'.join(f'{s:.3g}' for s in self.spacing_mm)} mm {self.axes}"

    def __repr__(self) -> str:
        return f"Geometry({self})"


@dataclass(frozen=True, eq=False)
class Volume:
    """An array (I, J, K) on a geometry: HU as int16 or float32, masks and labels as bool, uint8 or uint16.

    `data` is a read-only view. Any other type is a `ValueError`, a shape that is not the geometry's a
    `GeometryError`.
    """

    data: Array
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.data.dtype not in IMAGE_TYPES + MASK_TYPES:
            raise ValueError(f"a volume holds int16, float32, bool, uint8 or uint16, not {self.data.dtype}")
        if self.data.shape != self.geometry.shape:
            raise GeometryError(
                "the array is not the geometry's shape", found=self.data.shape, expected=self.geometry.shape
            )
        view = self.data.view()
        view.flags.writeable = False
        object.__setattr__(self, "data", view)

    @property
    def is_image(self) -> bool:
        """True for HU, False for a mask or labels."""
        return self.data.dtype in IMAGE_TYPES

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The voxels, so that `np.asarray(volume)` and plotting work; read-only unless copied."""
        if copy:
            return np.array(self.data, dtype)
        return np.asarray(self.data, dtype)

    def __repr__(self) -> str:
        kind = "HU" if self.is_image else "mask" if self.data.dtype == bool else "labels"
        return f"Volume({self.geometry}, {kind} {self.data.dtype})"

    def crop(self, box: Box) -> Volume:
        """A view of a box, which must lie inside."""
        if box.clip(self.data.shape) != box:
            raise GeometryError("the box leaves the volume", found=box, expected=f"inside {self.data.shape}")
        return Volume(self.data[box.slices], self.geometry.crop(box))

    def reorient(self, axes: str) -> Volume:
        """A view with index axes ordered and pointing as named; no voxel changes its mm."""
        order, flips = moves(self.geometry.axes, axes)
        data = self.data.transpose(order)
        data = data[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
        return Volume(data, self.geometry.reoriented(axes))

    def on(self, geometry: Geometry, what: str = "mask", partly: bool = False) -> Volume:
        """The same voxels on a grid that is their own up to the order and direction of axes: a view, no resampling.

        partly: they may be a part of that grid, or reach out of it; the rest is -1024 HU or label 0. Raises
        `GeometryError` for any other grid.
        """
        found = geometry.alignment(self.geometry)
        if found is None:
            geometry.require_same(self.geometry, what)
            return Volume(self.data, geometry)
        data = found.turn(self.data)
        if data.shape == geometry.shape and found.lower == (0, 0, 0):
            return Volume(data, geometry)
        if not partly:
            geometry.require_same(self.geometry, what)
        whole = np.full(geometry.shape, PADDING_HU if self.is_image else 0, data.dtype, order="F")
        shared = Box.whole(geometry.shape).overlap(Box.whole(data.shape).shift(found.lower))
        if shared:
            whole[shared[0]] = data[shared[1]]
        return Volume(whole, geometry)

    def to(
        self,
        geometry: Geometry,
        labels: Literal["nearest", "majority"] = "nearest",
        fill: float | None = None,
    ) -> Volume:
        """The volume resampled to another grid: HU linearly, masks and labels by nearest or by majority.

        The type is kept (int16 HU are rounded). Beyond the outer faces of the first and last voxels lies
        `fill`: -1024 HU or label 0 unless told. `majority` gives each voxel the label that fills most of it,
        ties to the lower label; use it when going to larger voxels.
        """
        outside = (PADDING_HU if self.is_image else 0) if fill is None else fill
        if geometry == self.geometry:
            return self
        change = np.linalg.inv(self.geometry.affine) @ geometry.affine
        if self.is_image:
            data = resampling.linear(self.data, change, geometry.shape, outside)
        elif labels == "majority":
            data = resampling.majority(self.data, change, geometry.shape, int(outside))
        else:
            data = resampling.nearest(self.data, change, geometry.shape, outside)
        return Volume(data, geometry)

    def require_same_grid(self, other: Volume, what: str = "mask") -> None:
        """`GeometryError` unless `other` lies on this volume's grid."""
        self.geometry.require_same(other.geometry, what)


def triple(values: Iterable[int] | Array) -> Triple:
    """Three whole numbers, whatever they come in."""
    i, j, k = values
    return int(i), int(j), int(k)
