"""Tissue inside tumors: the drawn mean, texture of the drawn SD and length on any grid, rims, cores, specks."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import GRIDS, LIVER, fine, plan_of, rho

from synthoma.synthesis.bodies.body import Body
from synthoma.synthesis.bodies.mass import mass
from synthoma.synthesis.generators import texture
from synthoma.synthesis.generators.details import Calcification
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Geometry


def tissue_of(plan: TumorPlan, geometry: Geometry) -> tuple[Body, Array]:
    body = mass(plan, geometry, need_inside=True)
    return body, texture.tissue(plan, geometry, body)


VARIANTS = {
    "plain": {},
    "texture": {"texture_hu": 8.0},
    "rim": {"rim_hu": 40.0, "rim_mm": 3.0},
    "core": {"core_hu": -30.0, "core_share": 0.6},
    "drift": {"drift_hu": -18.0, "drift_mm": 8.0},
    "all": {
        "texture_hu": 10.0,
        "drift_hu": -12.0,
        "drift_mm": 6.0,
        "rim_hu": 30.0,
        "rim_mm": 4.0,
        "core_hu": -30.0,
        "core_share": 0.5,
    },
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_mean_inside_is_the_planned_contrast(variant: str, grid: str) -> None:
    plan = plan_of(26.0, (1, 0.8, 0.6), roughness=0.1, contrast_hu=-37.0, **VARIANTS[variant])
    body, hu = tissue_of(plan, GRIDS[grid](60))
    assert hu.dtype == np.float32
    assert hu[body.alpha > 0.95].mean() == pytest.approx(LIVER - 37, abs=0.1)
    if variant in ("plain", "texture"):
        # a rim lies in the border, which the mean leaves out
        assert hu[body.alpha >= 0.5].mean() == pytest.approx(LIVER - 37, abs=2)


def test_a_tumor_smaller_than_a_voxel_has_its_mean() -> None:
    plan = plan_of(3.0, texture_hu=10.0)
    body, hu = tissue_of(plan, GRIDS["0.7x0.7x5 mm"](30))
    assert np.isfinite(hu).all()
    assert hu[body.alpha == body.alpha.max()].mean() == pytest.approx(LIVER - 40, abs=12)


@pytest.mark.parametrize("length", [3.0, 8.0])
def test_texture_has_its_sd_and_correlation_length(length: float) -> None:
    geometry, plan = Geometry.of((40, 40, 40), (1.0, 1.0, 2.0)), plan_of()
    box = Box.whole(geometry.shape)
    fields = np.array([texture.waves(seed, "texture", length, plan, geometry, box) for seed in range(60)])
    assert fields.mean() == pytest.approx(0, abs=0.1)
    assert fields.std() == pytest.approx(1, rel=0.06)
    for axis, spacing in ((1, 1.0), (3, 2.0)):
        for lag in (1, 3):
            a, b = np.moveaxis(fields, axis, 0)[lag:], np.moveaxis(fields, axis, 0)[:-lag]
            assert (a * b).mean() == pytest.approx(np.exp(-((lag * spacing / length) ** 2) / 2), abs=0.08)


def test_every_grid_sees_the_same_texture() -> None:
    plan, place = plan_of(), np.array([[4.0, -7.0, 2.0], [11.0, 3.0, -8.0], [0.0, 0.0, 0.0]])
    values = []
    for make in GRIDS.values():
        geometry = make(60)
        index = np.rint(geometry.to_ijk(place)).astype(int)
        # one voxel at a time, moved so that its center lies on the place
        for row, point in zip(index, place, strict=True):
            affine = geometry.affine.copy()
            affine[:3, 3] += point - geometry.to_mm(row)
            box = Box(tuple(row), tuple(row + 1))
            values.append(texture.waves(7, "texture", 4.0, plan, Geometry(geometry.shape, affine), box).item())
    assert np.abs(np.reshape(values, (3, 3)) - values[:3]).max() < 1e-5


def test_a_rim_is_brighter_than_the_middle_and_a_core_darker() -> None:
    body, hu = tissue_of(plan_of(40.0, rim_hu=40.0, rim_mm=4.0), fine(60))
    assert hu[(body.depth_mm > 0) & (body.depth_mm < 1)].mean() > hu[body.depth_mm > 6].mean() + 30
    body, hu = tissue_of(plan_of(40.0, core_hu=-30.0, core_share=0.5), fine(60))
    assert hu[body.radius < 0.25].mean() == pytest.approx(
        hu[(body.radius > 0.8) & (body.radius < 1)].mean() - 30, abs=3
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_hu_drift_from_the_border_down_to_the_planned_depth_and_no_further(grid: str) -> None:
    body, hu = tissue_of(plan_of(40.0, (1, 0.9, 0.8), drift_hu=-20.0, drift_mm=9.0), GRIDS[grid](60))
    inside = body.alpha > 0.95
    level = hu[inside & (body.depth_mm >= 9)]
    assert level.size > 50
    assert np.ptp(level) == pytest.approx(0, abs=1e-3)
    for depth_mm in (0.5, 3.0, 6.0):
        near = inside & (np.abs(body.depth_mm - depth_mm) < 0.5)
        if near.sum() > 20:
            assert hu[near].mean() - level.mean() == pytest.approx(20 * (1 - depth_mm / 9) ** 2, abs=1.0)


@pytest.mark.parametrize("share", [0.35, 0.5, 0.7])
def test_a_core_is_as_large_as_planned(share: float) -> None:
    body, hu = tissue_of(plan_of(44.0, core_hu=-40.0, core_share=share), fine(60))
    tumor = body.alpha >= 0.5
    dark = tumor & (hu < hu[tumor & (body.radius > 0.9)].mean() - 20)
    assert (dark.sum() / tumor.sum()) ** (1 / 3) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("grid", GRIDS)
def test_specks_lie_where_planned_and_leave_the_rest(grid: str) -> None:
    geometry = GRIDS[grid](60)
    speck = Calcification((0.4, -0.3, 0.2), 2.0, 500.0)
    plan = plan_of(36.0, (1, 0.8, 0.7))
    body, plain = tissue_of(plan, geometry)
    _, dotted = tissue_of(plan_of(36.0, (1, 0.8, 0.7), calcifications=(speck,)), geometry)
    changed = dotted != plain
    center = plan.rotation @ (np.array(speck.position) * plan.axes_mm)
    distance = rho(geometry.crop(body.box), (1, 1, 1), center)
    assert changed.any()
    assert distance[changed].max() < 3 * speck.radius_mm
    assert dotted.max() > (450 if geometry.spacing_mm[2] < 3 else 150)
    assert dotted.max() <= 500


def test_a_speck_outside_the_box_is_no_error() -> None:
    plan = plan_of(20.0, calcifications=(Calcification((3.0, 0, 0), 1.0, 400.0),))
    _, hu = tissue_of(plan, fine(40))
    assert hu.max() == pytest.approx(LIVER - 40, abs=0.1)
