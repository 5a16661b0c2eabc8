"""The surface of a tumor's body: a random field over directions with the spectrum of real tumors.

g = a (n - s (n^2 - 1)); n is a unit-variance Gaussian field on the sphere with spherical-harmonic degrees 3..20 and
variance per degree ~ l^-p (docs/priors.md). Directions are looked up in an octahedral map.
"""

from __future__ import annotations

from functools import lru_cache
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from synthoma.seeds import rng_for
from synthoma.synthesis.bodies.body import Surface
from synthoma.volume import Array

DEGREES = range(3, 21)
_MAP = 40  # side of the octahedral map; degree 20 then has four samples a period


@lru_cache(maxsize=16)
def radius_map(seed: int, surface: Surface) -> Array:
    """exp g over directions (n, n), scaled to the volume of the unit ball."""
    reach = np.exp(log_radius_map(seed, surface))
    reach /= _mean_cube(reach) ** (1 / 3)
    reach.flags.writeable = False
    return reach


def log_radius_map(seed: int, surface: Surface) -> Array:
    """g over directions: the octahedral map (n, n) of the log radius, of zero mean or nearly so."""
    if surface.roughness == 0:
        return np.zeros((_MAP, _MAP))
    quarters, degree = _quarters()
    shares = np.array([float(l) ** -surface.spectrum for l in DEGREES])
    deviations = np.sqrt(shares / shares.sum())
    # orthonormal harmonics: a coefficient's variance times (2 l + 1) / (4 pi) is what its degree adds at any point
    scale = deviations[degree - DEGREES.start] * np.sqrt(4 * np.pi / (2 * degree + 1))
    weights = rng_for(seed, "surface").standard_normal(len(degree)) * scale
    n = _whole_map(*(weights[rows] @ part for rows, part in quarters))
    return np.asarray(surface.roughness * (n - surface.skew * (n * n - 1)))


def _whole_map(plain: Array, with_x: Array, with_y: Array, with_both: Array) -> Array:
    """A field from its parts on the quarter of the map where x and y are positive.

    with_x, with_y, with_both: those that change their sign where x does, where y does, and where either does.
    """
    half = _MAP // 2
    field, parts = np.empty((_MAP, _MAP)), [part.reshape(half, half) for part in (plain, with_x, with_y, with_both)]
    for rows, sign in ((field[half:], 1), (field[half - 1 :: -1], -1)):
        even, odd = parts[0] + sign * parts[1], parts[2] + sign * parts[3]
        rows[:, half:], rows[:, half - 1 :: -1] = even + odd, even - odd
    return field


@lru_cache(maxsize=1)
def _quarters() -> tuple[list[tuple[NDArray[np.intp], Array]], NDArray[np.int64]]:
    """The harmonics on the quarter of the map where x and y are positive: megabytes less to go through for a surface.

    By how their sign follows those of x and y, as `_whole_map` wants them: which they are, and their values. Degrees.
    """
    basis, degrees = _harmonics(_MAP)
    half = _MAP // 2
    whole = basis.reshape(-1, _MAP, _MAP)
    quarter = whole[:, half:, half:].reshape(len(basis), -1)
    is_odd_x = np.einsum("nij,nij->n", whole[:, half:, half:], whole[:, half - 1 :: -1, half:]) < 0
    is_odd_y = np.einsum("nij,nij->n", whole[:, half:, half:], whole[:, half:, half - 1 :: -1]) < 0
    groups = [np.flatnonzero((is_odd_x == x) & (is_odd_y == y)) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1))]
    return [(rows, quarter[rows]) for rows in groups], degrees


def _harmonics(side: int) -> tuple[Array, NDArray[np.int64]]:
    """Real orthonormal harmonics of `DEGREES` (coefficients, directions) on the map, and their degrees."""
    from scipy.special import lpmv

    x, y, z = map_directions(side)
    azimuth = np.arctan2(y, x)
    rows, degrees = [], []
    for order in range(DEGREES.stop):
        for degree in range(max(order, DEGREES.start), DEGREES.stop):
            log_norm = lgamma(degree - order + 1) - lgamma(degree + order + 1)
            norm = np.sqrt((2 * degree + 1) / (4 * np.pi) * np.exp(log_norm))
            legendre = norm * (-1) ** order * lpmv(order, degree, z)  # without the Condon-Shortley phase
            if order == 0:
                rows.append(legendre)
                degrees.append(degree)
            else:
                rows.append(np.sqrt(2) * legendre * np.cos(order * azimuth))
                rows.append(np.sqrt(2) * legendre * np.sin(order * azimuth))
                degrees += [degree, degree]
    return np.array(rows), np.array(degrees)


@lru_cache(maxsize=2)
def map_directions(side: int) -> tuple[Array, Array, Array]:
    """Unit vectors of the map's nodes; the outer edge is included, so neighbors across it are equal."""
    a, b = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    a, b = a.ravel(), b.ravel()
    z = 1 - np.abs(a) - np.abs(b)
    fold = z < 0
    x = np.where(fold, (1 - np.abs(b)) * np.where(a >= 0, 1, -1), a)
    y = np.where(fold, (1 - np.abs(a)) * np.where(b >= 0, 1, -1), b)
    length = np.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _mean_cube(reach: Array) -> float:
    """Mean of reach^3 over the sphere: the body's volume over the ellipsoid's."""
    weight = _weights(len(reach))
    return float((reach**3 * weight).sum() / weight.sum())


@lru_cache(maxsize=2)
def _weights(side: int) -> Array:
    """The solid angle of each node of the map, up to a factor."""
    x, y, z = map_directions(side)
    # a node's solid angle on the octahedron's faces goes with the cube of the direction's 1-norm
    weight = (np.abs(x) + np.abs(y) + np.abs(z)) ** 3
    edge = np.linspace(-1, 1, side)
    half = np.where(np.abs(edge) == 1, 0.5, 1.0)
    return weight.reshape(side, side) * half[:, None] * half
