"""Arrays from one grid to another: separable where the axes are parallel, by point where they are not.

`change` (4, 4) takes an index of the target grid to a position, in voxels, of the source grid; `shape` is the
target's. `Volume.to` is the way in; positions beyond the source's outer faces become `outside`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, int, int]
_PARALLEL_VOXELS = 0.01  # grids turned so little that no sample moves by more are treated as parallel


def linear(data: Array, change: Array, shape: Shape, outside: float) -> Array:
    """Values by linear interpolation, in the type of `data` (int16 is rounded)."""
    plan = _parallel(change, shape)
    if plan is None:
        return _by_point(data, change, shape, outside, order=1)
    order, starts, steps = plan
    turned = data.transpose(order)
    positions = [starts[axis] + steps[axis] * np.arange(shape[axis]) for axis in range(3)]
    return _separable(turned, positions, outside)


def nearest(data: Array, change: Array, shape: Shape, outside: float) -> Array:
    """Labels, each voxel that of the source voxel it falls in."""
    plan = _parallel(change, shape)
    if plan is None:
        return _by_point(data, change, shape, outside, order=0)
    axes, starts, steps = plan
    turned = data.transpose(axes)
    order = _slow_to_fast(turned)
    positions = [starts[axis] + steps[axis] * np.arange(shape[axis]) for axis in range(3)]
    planes, rows, columns = (_nearest_index(positions[axis], turned.shape[axis]) for axis in order)
    source = turned.transpose(order)
    result = np.empty((len(planes), len(rows), len(columns)), data.dtype)
    for place, plane in enumerate(planes):
        if place and plane == planes[place - 1]:
            result[place] = result[place - 1]
        else:
            result[place] = source[plane][rows].take(columns, axis=1)
    return _blank(result.transpose(np.argsort(order)), positions, turned.shape, outside)


def majority(data: Array, change: Array, shape: Shape, outside: int) -> Array:
    """Labels, each voxel that of the label that fills most of it; ties to the lower label."""
    best = np.full(shape, -1, np.float32)
    result = np.full(shape, outside, data.dtype)
    for label in np.unique(data):
        share = _fill_share(data == label, change, shape)
        wins = share > best + 1e-6
        result[wins] = label
        best[wins] = share[wins]
    result[best <= 0] = outside
    return result


def _fill_share(mask: NDArray[np.bool_], change: Array, shape: Shape) -> NDArray[np.float32]:
    """How much of each target voxel the mask fills, from a few samples along each axis."""
    samples = np.maximum(1, np.ceil(np.linalg.norm(change[:3, :3], axis=0) - 1e-6)).astype(int)
    fine = change.copy()
    fine[:3, :3] /= samples
    fine[:3, 3] += change[:3, :3] @ ((1 / samples - 1) / 2)
    i, j, k = (int(n) for n in np.asarray(shape) * samples)
    share = linear(mask.astype(np.float32), fine, (i, j, k), 0.0)
    blocks = [size for pair in zip(shape, samples.tolist(), strict=True) for size in pair]
    return np.asarray(share.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32))


def _parallel(change: Array, shape: Shape) -> tuple[list[int], Array, Array] | None:
    """Source axis, first position and step, in source voxels, of each target axis; None if turned."""
    turn = change[:3, :3]
    order = [int(axis) for axis in np.abs(turn).argmax(axis=0)]
    if sorted(order) != [0, 1, 2]:
        return None
    rest = turn.copy()
    rest[order, range(3)] = 0
    if (np.abs(rest) * np.maximum(np.asarray(shape) - 1, 1)).max() > _PARALLEL_VOXELS:
        return None
    return order, change[order, 3], turn[order, range(3)]


def _within(position: Array, size: int) -> NDArray[np.bool_]:
    return np.asarray((position >= -0.5 - 1e-6) & (position <= size - 0.5 + 1e-6))


def _separable(data: Array, positions: list[Array], outside: float) -> Array:
    """Linear interpolation plane by plane: in-plane once per source plane, then between two planes.

    The planes are those across the array's slowest axis, so a plane fits the cache whatever the scan's size.
    """
    order = _slow_to_fast(data)
    turned = data.transpose(order)
    result = np.empty([len(positions[axis]) for axis in order], data.dtype)
    lower, upper, weight = zip(*(_neighbours(positions[axis], data.shape[axis]) for axis in order), strict=True)
    planes: dict[int, NDArray[np.float32]] = {}

    def plane(index: int) -> NDArray[np.float32]:
        if index not in planes:
            raw = turned[index].astype(np.float32)
            low = raw[lower[1]]
            rows = low + (raw[upper[1]] - low) * weight[1][:, None]
            left = rows.take(lower[2], axis=1)
            planes[index] = left + (rows.take(upper[2], axis=1) - left) * weight[2]
        return planes[index]

    for index in range(len(result)):
        low, high, share = int(lower[0][index]), int(upper[0][index]), float(weight[0][index])
        for gone in [kept for kept in planes if kept not in (low, high)]:
            del planes[gone]
        mixed = plane(low) if share == 0 or low == high else plane(low) + np.float32(share) * (plane(high) - plane(low))
        result[index] = np.rint(mixed) if data.dtype == np.int16 else mixed
    return _blank(result.transpose(np.argsort(order)), positions, data.shape, outside)


def _slow_to_fast(data: Array) -> list[int]:
    """Axes by falling stride: loops over the first touch whole planes of memory."""
    return sorted(range(3), key=lambda axis: (-abs(data.strides[axis]), axis))


def _neighbours(position: Array, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    clipped = np.clip(position, 0, size - 1)
    lower = np.minimum(np.floor(clipped + 1e-9).astype(np.intp), size - 1)
    weight = np.clip(clipped - lower, 0, 1)
    weight[weight < 1e-6] = 0
    return lower, np.minimum(lower + 1, size - 1), weight.astype(np.float32)


def _nearest_index(position: Array, size: int) -> NDArray[np.intp]:
    return np.clip(np.floor(position + 0.5 - 1e-9).astype(np.intp), 0, size - 1)


def _blank(data: Array, positions: list[Array], size: Shape, outside: float) -> Array:
    """`outside` where any axis is out of the source."""
    for axis, position in enumerate(positions):
        keep = _within(position, size[axis])
        if not keep.all():
            data[tuple(~keep if a == axis else slice(None) for a in range(3))] = outside
    return data


def _by_point(data: Array, change: Array, shape: Shape, outside: float, order: int) -> Array:
    """Any affine, slab by slab so that the coordinates stay small."""
    from scipy import ndimage

    result = np.empty(shape, data.dtype)
    is_bool = data.dtype == bool
    whole = data.view(np.uint8) if is_bool else data
    rounded = np.issubdtype(data.dtype, np.integer) and order > 0
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    for k in range(shape[2]):
        ijk = np.stack([i, j, np.full_like(i, k)]).reshape(3, -1)
        at = change[:3, :3] @ ijk + change[:3, 3:]
        out = np.zeros(at.shape[1], bool)
        for axis in range(3):
            out |= ~_within(at[axis], data.shape[axis])
        if order == 0:
            index = [_nearest_index(at[axis], data.shape[axis]) for axis in range(3)]
            values = whole[tuple(index)]
        else:
            values = ndimage.map_coordinates(whole, at, np.float32, order=order, mode="nearest")
            values = np.rint(values) if rounded else values
        values = values.astype(result.dtype)
        values[out] = outside
        result[:, :, k] = values.reshape(shape[:2])
    return result
