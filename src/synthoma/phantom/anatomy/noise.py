"""Random fields that are functions of position: the same at a point whatever grid asks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma.seeds import rng_for
from synthoma.volume import Geometry, Volume

_TILE = 48  # lattice points after which a field repeats
_STEPS = 2.5  # lattice points per correlation length


def field(seed: int, name: str, length_mm: float, geometry: Geometry) -> NDArray[np.float32]:
    """A Gaussian field of mean 0 and SD 1 on the grid, smooth over `length_mm` (the SD of its kernel is half).

    Repeats after 19 lengths. Grids finer than the length see the same field; coarser ones sample it.
    """
    tile = ndimage.gaussian_filter(
        rng_for(seed, "field", name).standard_normal((_TILE,) * 3).astype(np.float32), _STEPS / 2, mode="wrap"
    )
    tile /= tile.std()
    step = length_mm / _STEPS
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in geometry.shape])).reshape(3, -1).T
    reach = geometry.to_mm(corners) / step
    first = np.floor(reach.min(axis=0)).astype(int) - 1
    last = np.ceil(reach.max(axis=0)).astype(int) + 2
    block: NDArray[Any] = tile
    for axis in range(3):
        block = block.take(np.arange(first[axis], last[axis]), axis=axis, mode="wrap")
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = first * step
    lattice = Volume(np.ascontiguousarray(block), Geometry(block.shape, affine))
    values: NDArray[np.float32] = lattice.to(geometry).data
    return values


def wave_along(seed: int, name: str, length_mm: float, along_mm: NDArray[Any]) -> NDArray[Any]:
    """A smooth random function of arc length, mean 0 and SD about 1."""
    rng = rng_for(seed, "wave", name)
    phases = rng.uniform(0, 2 * np.pi, 5)
    rates = rng.uniform(0.5, 1.5, 5)
    total: NDArray[Any] = np.zeros_like(along_mm, dtype=float)
    for phase, rate in zip(phases, rates, strict=True):
        total += np.sin(2 * np.pi * along_mm / length_mm * rate + phase)
    total *= np.sqrt(2 / 5)
    return total
