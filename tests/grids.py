"""Grids for tests: upright anisotropic ones, and oblique ones by hypothesis or by seed."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from synthoma.volume import Geometry, Volume

# no timed tests, and the same examples on every machine
settings.register_profile("synthoma", deadline=None, derandomize=True)
settings.load_profile("synthoma")

ANISOTROPIC = Geometry.of((9, 7, 5), (0.7, 0.9, 3.0), "LPS")


def oblique(seed: int = 0, shape: tuple[int, int, int] = (9, 7, 5), shear: bool = False) -> Geometry:
    """A grid turned any way, with flips, three different spacings and a far origin."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.choice([-1, 1], 3)
    if shear:
        turn = turn @ (np.eye(3) + np.triu(rng.uniform(0.05, 0.2, (3, 3)), 1))
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.5, 5, 3)
    affine[:3, 3] = rng.uniform(-500, 500, 3)
    return Geometry(shape, affine)


@st.composite
def geometries(draw: st.DrawFn, shear: bool = False) -> Geometry:
    """Oblique grids of 2 to 8 voxels a side, sheared ones among them if asked."""
    shape = draw(st.tuples(*[st.integers(2, 8)] * 3))
    return oblique(draw(st.integers(0, 10**6)), shape, shear and draw(st.booleans()))


def hu(geometry: Geometry, seed: int = 0) -> Volume:
    """Random HU, every voxel different from its neighbors, in Fortran order."""
    data = np.random.default_rng(seed).integers(-1024, 3000, geometry.shape).astype(np.int16)
    return Volume(np.asfortranarray(data), geometry)


def value_at(volume: Volume, mm: np.ndarray) -> np.ndarray:
    """The values of the voxels at RAS+ positions (..., 3) that are voxel centers."""
    index = volume.geometry.to_ijk(mm)
    assert np.abs(index - np.rint(index)).max() < 1e-3
    i, j, k = np.moveaxis(np.rint(index).astype(int), -1, 0)
    return volume.data[i, j, k]


def centers_mm(geometry: Geometry) -> np.ndarray:
    """RAS+ positions (I, J, K, 3) of all voxel centers."""
    return geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))
