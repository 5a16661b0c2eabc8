"""Diameters of a lesion beside brute force, on upright, anisotropic and oblique grids."""

from __future__ import annotations

import numpy as np
import pytest

from synthesis.phantoms import GRIDS, fine, rho
from synthoma.measurement.diameters import measure_diameters
from synthoma.volume import Array, Geometry


def brute_force(mask: Array, geometry: Geometry) -> tuple[float, float]:
    """Longest line between voxel corners within a slice, and the widest chord of the hull across it, by trying all."""
    up = next(axis for axis, letter in enumerate(geometry.axes) if letter in "SI")
    across = [axis for axis in range(3) if axis != up]
    best, width = 0.0, 0.0
    for index in range(mask.shape[up]):
        at = np.argwhere(mask.take(index, up))
        if not len(at):
            continue
        corners = np.concatenate([at + move for move in ((0, 0), (0, 1), (1, 0), (1, 1))])
        points = np.unique(corners, axis=0) @ geometry.affine[:3, across].T
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        if apart.max() > best + 1e-9:
            a, b = np.unravel_index(int(apart.argmax()), apart.shape)
            best, direction = float(apart.max()), (points[b] - points[a]) / apart.max()
            along = points @ direction
            side = points - np.outer(along, direction)
            lines = np.abs(along[:, None] - along[None]) < 0.5 * min(geometry.spacing_mm)
            width = float((np.linalg.norm(side[:, None] - side[None], axis=2) * lines).max())
    return best, width


@pytest.mark.parametrize("kind", GRIDS)
def test_diameters_agree_with_brute_force_within_a_voxel(kind: str) -> None:
    geometry = GRIDS[kind](36)
    mask = rho(geometry, (15, 9, 11), (1, 0.5, -1)) < 1
    found = measure_diameters(mask, geometry)
    longest, across = brute_force(mask, geometry)
    assert found.longest_mm == pytest.approx(longest, abs=1e-6)
    assert found.perpendicular_mm == pytest.approx(across, abs=max(geometry.spacing_mm[:2]))
    assert found.perpendicular_mm <= found.longest_mm


def test_the_lines_end_where_they_say_and_cross_at_a_right_angle() -> None:
    geometry = GRIDS["oblique"](36)
    found = measure_diameters(rho(geometry, (14, 8, 8), (0, 0, 0)) < 1, geometry)
    (a, b), (c, d) = (np.array(ends) for ends in (found.longest_ends_mm, found.perpendicular_ends_mm))
    assert np.linalg.norm(b - a) == pytest.approx(found.longest_mm)
    assert np.linalg.norm(d - c) == pytest.approx(found.perpendicular_mm)
    assert abs((b - a) @ (d - c)) < 1e-6 * found.longest_mm * found.perpendicular_mm


def test_a_single_voxel_has_its_two_diagonals() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 2] = True
    found = measure_diameters(mask, fine(3))
    assert (found.longest_mm, found.perpendicular_mm) == pytest.approx((2**0.5, 2**0.5))
    assert found.slice_index == 2


def test_an_empty_mask_has_no_diameter() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        measure_diameters(np.zeros((3, 3, 3), bool), fine(3))
