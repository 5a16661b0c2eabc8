"""Pushed neighbors: as far as planned in mm, without folds, one field for the scan and all masks."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import GRIDS, LIVER, fine, noise, plan_of, rho
from scipy import ndimage

from synthoma.synthesis.insertion.mass_effect import Displacement, displacement, move_image, move_mask
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Geometry

PLANS = {
    "ball": plan_of(24.0, displacement_mm=3.0, center_mm=(1.3, -0.4, 2.1)),
    "slim": plan_of(24.0, (1, 0.6, 0.4), displacement_mm=2.0, center_mm=(0.0, 0.0, 1.0)),
    "strong": plan_of(30.0, (1, 0.8, 0.7), displacement_mm=8.0),
}


def displacement_mm(field: Displacement, geometry: Geometry) -> tuple[Array, Array]:
    """Positions in mm of a field's voxels, and how far what is there now has come (both (..., 3))."""
    here = np.moveaxis(np.indices(field.box.shape), 0, -1)
    crop = geometry.crop(field.box)
    return crop.to_mm(here), crop.to_mm(here) - crop.to_mm(np.moveaxis(field.source.astype(float), 0, -1))


def unit_radius(plan: TumorPlan, points: Array) -> tuple[Array, Array]:
    """The ellipsoid's radius at positions, and the unit vectors away from the center."""
    away = points - np.asarray(plan.center_mm)
    return (
        np.linalg.norm(away @ plan.rotation / np.asarray(plan.axes_mm), axis=-1),
        away / np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-9),
    )


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", PLANS)
def test_the_border_moves_as_planned_and_the_rest_stays(name: str, grid: str) -> None:
    plan, geometry = PLANS[name], GRIDS[grid](130)
    field = displacement(plan, geometry)
    assert field is not None
    points, moved = displacement_mm(field, geometry)
    radius, outward = unit_radius(plan, points)
    length = np.linalg.norm(moved, axis=-1)
    border = np.abs(radius - 1) < 0.04
    assert length[border].mean() == pytest.approx(plan.displacement_mm, rel=0.03)
    assert np.abs(length[border] / plan.displacement_mm - 1).max() < 0.12
    assert (np.abs(moved - length[..., None] * outward) < 1e-2).all(), "along the rays from the center"
    assert (length[radius >= plan.displacement_reach] < 1e-6).all()
    # the box holds all that moves
    edge = np.ones(length.shape, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    assert length[edge].max() < 0.02 * plan.displacement_mm + 1e-3


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", PLANS)
def test_the_map_has_no_fold(name: str, grid: str) -> None:
    plan, geometry = PLANS[name], GRIDS[grid](130)
    field = displacement(plan, geometry)
    assert field is not None
    source = np.moveaxis(field.source.astype(float), 0, -1)
    # central differences over voxels; the center itself is a corner of the map
    jacobian = np.linalg.det(np.stack(np.gradient(source, axis=(0, 1, 2)), axis=-1))
    assert jacobian.min() > 0
    far = unit_radius(plan, displacement_mm(field, geometry)[0])[0] > plan.displacement_reach + 0.6
    assert np.abs(jacobian[far] - 1).max(initial=0) < 1e-6


@pytest.mark.parametrize("limit", [0.9, 1.5])
def test_a_push_too_strong_for_the_tumor_is_refused(limit: float) -> None:
    plan = plan_of(20.0, displacement_mm=limit * 10)
    with pytest.raises(ValueError, match="it must be under"):
        displacement(plan, fine(40))


def test_no_push_is_none() -> None:
    assert displacement(plan_of(20.0), fine(40)) is None


@pytest.mark.parametrize("grid", GRIDS)
def test_scan_and_masks_move_together(grid: str) -> None:
    geometry, plan = GRIDS[grid](90), plan_of(24.0, displacement_mm=4.0)
    field = displacement(plan, geometry)
    assert field is not None
    radius = rho(geometry, (1, 1, 1))
    ball = radius < 17
    hu = np.where(ball, 300, 0).astype(np.int16)
    part = field.box.slices
    moved_mask, moved_hu = move_mask(ball[part], field), move_image(hu[part], field)
    assert moved_mask.dtype == bool
    assert moved_hu.dtype == np.int16
    assert ((moved_hu > 150) == moved_mask).mean() > 0.985
    # a shell at 17 mm goes out by displacement_mm * ((2.5 - rho) / 1.5)^2 at the radius it arrives at
    arrives = 17.0
    for _ in range(50):
        arrives = 17 + 4 * ((2.5 - arrives / 12) / 1.5) ** 2
    volume = moved_mask.sum() * geometry.voxel_mm3
    assert (3 * volume / 4 / np.pi) ** (1 / 3) == pytest.approx(arrives, abs=0.7 if "5 mm" in grid else 0.35)
    labels = np.where(ball, 7, 3).astype(np.uint8)
    assert set(np.unique(move_mask(labels[part], field))) == {3, 7}


@pytest.mark.parametrize("grid", GRIDS)
def test_pushed_tissue_is_as_noisy_as_before(grid: str) -> None:
    geometry, plan = GRIDS[grid](80), plan_of(26.0, displacement_mm=3.5)
    field = displacement(plan, geometry)
    assert field is not None
    old = np.rint(LIVER + noise(geometry, 14.0)).astype(np.int16)[field.box.slices]
    new = move_image(old, field)
    points, moved = displacement_mm(field, geometry)
    pushed = (np.linalg.norm(moved, axis=-1) > 0.5) & (unit_radius(plan, points)[0] > 1)
    assert pushed.sum() > 2000
    assert new[pushed].std() == pytest.approx(old[pushed].std(), rel=0.1)
    assert new[pushed].mean() == pytest.approx(LIVER, abs=1)
    still = np.linalg.norm(moved, axis=-1) == 0
    assert np.array_equal(new[still], old[still])


def test_float_scans_keep_their_type_and_inputs_stay_as_they_are() -> None:
    geometry, plan = fine(70), plan_of(20.0, displacement_mm=2.0)
    field = displacement(plan, geometry)
    assert field is not None
    hu = noise(geometry, 10.0).astype(np.float32)[field.box.slices]
    before = hu.copy()
    assert move_image(hu, field).dtype == np.float32
    assert np.array_equal(hu, before)


def test_at_the_edge_of_the_scan_the_field_is_cut_and_stays_inside() -> None:
    geometry = fine(50)
    field = displacement(plan_of(20.0, displacement_mm=3.0, center_mm=(22.0, 0.0, 0.0)), geometry)
    assert field is not None
    assert field.box == field.box.clip(geometry.shape)
    for axis, n in enumerate(field.box.shape):
        assert field.source[axis].min() >= 0
        assert field.source[axis].max() <= n - 1


def test_the_push_of_a_point_is_where_it_shows_in_the_scan() -> None:
    # a bright plate just outside the border must come out displacement_mm further away
    geometry, plan = fine(80), plan_of(20.0, displacement_mm=3.0)
    field = displacement(plan, geometry)
    assert field is not None
    z = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))[..., 2]
    plate = np.where(np.abs(z - 7.5) < 0.6, 500, 0).astype(np.float32)[field.box.slices]
    moved = move_image(plate, field)
    middle = tuple(n // 2 for n in field.box.shape[:2])
    heights = z[field.box.slices][middle]
    upper = heights > 0
    assert (moved[middle][upper] * heights[upper]).sum() / moved[middle][upper].sum() == pytest.approx(10.5, abs=0.4)
    assert ndimage.label(moved[middle][upper] > 100)[1] == 1
