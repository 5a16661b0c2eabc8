"""Typical HU of an organ, and the even place that noise is learned at."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import GRIDS
from scipy import ndimage

from synthoma.synthesis import depth


@pytest.mark.parametrize("kind", ["eighths", "fractions", "far apart"])
@pytest.mark.parametrize("count", [1, 2, 301, 400])
def test_counted_medians_are_those_of_numpy(kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    hu = rng.normal(90, 300, count).astype(np.float32)
    if kind == "eighths":
        hu = np.round(hu * 8) / np.float32(8)
    elif kind == "far apart":
        hu[0] = np.float32(1e9)
    deep = np.full(count, 10, np.float32)
    middle = float(np.median(hu))
    assert depth.typical(hu, deep, "liver") == (
        round(middle, 2),
        float(1.4826 * np.median(np.abs(hu - middle))),
    )


@pytest.mark.parametrize("name", GRIDS)
def test_the_even_place_is_that_of_all_of_the_grid(name: str) -> None:
    geometry = GRIDS[name](96)
    rng = np.random.default_rng(1)
    hu = (np.round(rng.normal(100, 15, geometry.shape) * 8) / 8).astype(np.float32)
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in geometry.shape], indexing="ij"))
    depths = (60 * (0.8 - np.linalg.norm(at, axis=0))).astype(np.float32)
    expected = depth._away_from_faces(depths, geometry)
    deep = expected >= min(depth._SAMPLE_REACH_MM, 0.75 * float(expected.max()))
    mean, square = ndimage.uniform_filter(hu, 5), ndimage.uniform_filter(hu * hu, 5)
    variance = np.where(deep, square - mean * mean, np.inf)
    place = geometry.to_mm(np.unravel_index(int(np.argmin(variance)), variance.shape))
    assert depth.quietest(geometry, depths, hu) == tuple(place.tolist())
