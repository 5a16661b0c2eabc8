"""Masks for tests: balls, boxes and random blobs on any grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from grids import centers_mm
from synthoma.volume import Geometry, Volume

FLAT = Geometry.of((40, 36, 18), (0.8, 1.0, 2.5), "LPS")


def turned() -> Geometry:
    """FLAT turned about two axes, far away from the origin."""
    a, b = 0.4, -0.7
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(FLAT.spacing_mm)
    affine[:3, 3] = (120, -340, 55)
    return Geometry(FLAT.shape, affine)


def balls(geometry: Geometry, *places: tuple[Sequence[float], float]) -> Volume:
    """Balls: center as a share of each axis, and diameter in mm."""
    found = np.zeros(geometry.shape, bool)
    where = centers_mm(geometry)
    for share, diameter in places:
        center = geometry.to_mm(np.asarray(share) * (np.asarray(geometry.shape) - 1))
        found |= np.linalg.norm(where - center, axis=-1) <= diameter / 2
    return Volume(found, geometry)


def box(geometry: Geometry, lower: Sequence[int], upper: Sequence[int]) -> Volume:
    """A block of voxels."""
    found = np.zeros(geometry.shape, bool)
    found[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))] = True
    return Volume(found, geometry)


def blob_pair(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Two random masks of one random grid, and its spacing; they touch the border, and may be empty or one voxel."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(3, 24, 3)
    i, j, k = rng.uniform(0.4, 4, 3).round(3).tolist()
    smooth = rng.uniform(0, 2)
    first, second = (gaussian_filter(rng.normal(size=shape), smooth) > rng.uniform(-0.02, 0.05) for _ in range(2))
    if seed % 10 == 3:
        second = np.zeros(shape, bool)
        second[tuple(rng.integers(0, shape))] = True
    if seed % 20 == 7:
        first = np.zeros(shape, bool)
    return first, second, (i, j, k)
