"""Grids inside grids: voxels divided into parts, and means over those parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.volume import Geometry

Array = NDArray[Any]
Parts = tuple[int, int, int]


def divided(geometry: Geometry, parts: Parts) -> Geometry:
    """The grid whose voxels are these parts of the voxels of `geometry`."""
    affine = geometry.affine.copy()
    affine[:3, :3] /= parts
    affine[:3, 3] = geometry.to_mm((1 / np.asarray(parts) - 1) / 2)
    i, j, k = (n * count for n, count in zip(geometry.shape, parts, strict=True))
    return Geometry((i, j, k), affine)


def block_mean(values: Array, parts: Parts) -> Array:
    """Means over blocks of `parts` voxels."""
    for axis, count in enumerate(parts):
        if count > 1:
            shape = list(values.shape)
            shape[axis : axis + 1] = [shape[axis] // count, count]
            values = values.reshape(shape).mean(axis=axis + 1)
    return values


def parts_of(geometry: Geometry, finest_mm: float, most: int = 5) -> Parts:
    """Into how many parts to divide voxels so that these are about `finest_mm` long, `most` along an axis."""
    i, j, k = (int(np.clip(np.ceil(s / finest_mm - 1e-6), 1, most)) for s in geometry.spacing_mm)
    return i, j, k
