"""Motion between scans: exact both ways, volumes kept, and the written field leads from the later scan to the first."""

from __future__ import annotations

import numpy as np
import pytest

from synthesis.phantoms import GRIDS, fine, rho
from synthoma.followup.motion import Motion, draw_motion, field, move_image, move_mask
from synthoma.followup.recipe import RescanRecipe
from synthoma.volume import Volume

MOTION = Motion((3.0, -2.0, 4.0), (2.0, -3.0, 4.0), (5.0, 0.0, 0.0), 6.0, -40.0, 40.0)


def test_source_and_target_are_inverse() -> None:
    points = np.random.default_rng(0).uniform(-50, 50, (100, 3))
    assert np.allclose(MOTION.source(MOTION.target(points)), points, atol=1e-9)
    assert not np.allclose(MOTION.source(points), points, atol=1)


def test_a_motion_keeps_volumes() -> None:
    points = np.random.default_rng(1).uniform(-35, 35, (50, 3))
    steps = np.eye(3) * 1e-4
    jacobian = np.stack([(MOTION.source(points + step) - MOTION.source(points - step)) / 2e-4 for step in steps], -1)
    assert np.allclose(np.linalg.det(jacobian), 1, atol=1e-6)


@pytest.mark.parametrize("kind", GRIDS)
def test_a_mask_moves_with_its_scan_to_where_the_motion_says(kind: str) -> None:
    geometry = GRIDS[kind](64)
    mask = rho(geometry, (9, 9, 9), (4, 5, -6)) < 1
    scan = Volume(np.where(mask, 100, 0).astype(np.float32), geometry)
    moved = move_mask(Volume(mask, geometry), MOTION)
    assert moved.data.sum() == pytest.approx(mask.sum(), rel=0.05)
    center = geometry.to_mm(np.argwhere(moved.data).mean(axis=0))
    before = geometry.to_mm(np.argwhere(mask).mean(axis=0))
    assert center == pytest.approx(MOTION.target(before), abs=0.2 + 0.2 * max(geometry.spacing_mm))
    assert (move_image(scan, MOTION)[moved.data] > 0).mean() > 0.99


def test_the_field_leads_from_the_later_scan_to_the_first() -> None:
    geometry = fine(48)
    parts = field(geometry, MOTION)
    rng = np.random.default_rng(2)
    points = rng.uniform(-20, 20, (20, 3))
    from scipy.ndimage import map_coordinates

    at = parts[0].geometry.to_ijk(points).T
    away = np.stack([map_coordinates(part.data, at, order=1) for part in parts], axis=-1)
    assert np.abs(points + away - MOTION.source(points)).max() < 0.05


def test_a_drawn_motion_stays_within_its_recipe_and_reads_back() -> None:
    recipe = RescanRecipe(shift_mm=2.0, turn_deg=1.0, breathing_mm=(3.0, 5.0))
    motion = draw_motion(fine(40), recipe, np.random.default_rng(0))
    assert max(map(abs, motion.shift_mm)) <= 2
    assert max(map(abs, motion.turn_deg)) <= 1
    assert 3 <= motion.breathing_mm <= 5
    assert Motion().is_none
