"""The rule-based generator: the tumor of a plan on a scan, within what it may replace."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import GRIDS, KIDNEY, LIVER, ellipsoid_case, fine, plan_of

from synthoma.errors import CaseError
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.tumor import Tumor
from synthoma.volume import Volume


def whole(tumor: Tumor, shape: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tumor.box.slices] = tumor.mask
    return mask


@pytest.mark.parametrize("grid", GRIDS)
def test_a_tumor_inside_its_organ_is_the_plans_body(grid: str) -> None:
    geometry = GRIDS[grid](64)
    case = ellipsoid_case(geometry, (28, 28, 28))
    plan = plan_of(24.0, center_mm=(3.0, -2.0, 1.0))
    tumor = Rules().render(case.read_image(), case.read_mask("liver"), plan)
    assert tumor.alpha.dtype == tumor.hu.dtype == np.float32
    assert tumor.mask.sum() * geometry.voxel_mm3 == pytest.approx(plan.volume_mm3, rel=0.03)
    points = geometry.to_mm(np.argwhere(whole(tumor, geometry.shape)))
    assert points.mean(axis=0) == pytest.approx(plan.center_mm, abs=0.3)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_cropped_organ_gives_the_same_tumor(grid: str) -> None:
    geometry = GRIDS[grid](90)
    case = ellipsoid_case(geometry, (28, 24, 30), "kidney_left", KIDNEY)
    plan = plan_of(30.0, organ="kidney", base_hu=float(KIDNEY), center_mm=(20.0, 8.0, 0.0), roughness=0.08)
    ct, kidney = case.read_image(), case.read_mask("kidney_left")
    one = Rules().render(ct, kidney, plan)
    other = Rules().render(ct, kidney.crop(geometry.box_around(plan.center_mm, 30.0)), plan)
    assert one.box == other.box
    assert np.array_equal(one.alpha, other.alpha)
    assert np.array_equal(one.hu, other.hu)


def test_neither_scan_nor_mask_is_written_to() -> None:
    case = ellipsoid_case(fine(60), (20, 20, 20), "kidney_left", KIDNEY)
    ct, kidney = case.read_image(), case.read_mask("kidney_left")
    copies = ct.data.copy(), kidney.data.copy()
    Rules().render(ct, kidney, plan_of(20.0, organ="kidney", center_mm=(0.0, 0.0, 18.0), rim_hu=20.0, rim_mm=2.0))
    assert np.array_equal(ct.data, copies[0])
    assert np.array_equal(kidney.data, copies[1])


def test_the_same_plan_gives_the_same_bytes() -> None:
    case = ellipsoid_case(fine(60), (25, 25, 25))
    plan = plan_of(24.0, roughness=0.15, texture_hu=8.0, rim_hu=20.0, rim_mm=3.0, core_hu=-20.0, core_share=0.5)
    one, other = (Rules().render(case.read_image(), case.read_mask("liver"), plan) for _ in range(2))
    assert one.alpha.tobytes() == other.alpha.tobytes()
    assert one.hu.tobytes() == other.hu.tobytes()


def test_rims_and_cores_cost_no_change_of_shape() -> None:
    # without them the deep inside is not computed; the border must not know
    case = ellipsoid_case(fine(70), (30, 30, 30))
    plain, rimmed = plan_of(30.0, roughness=0.1), plan_of(30.0, roughness=0.1, rim_hu=30.0, rim_mm=3.0)
    one, other = (Rules().render(case.read_image(), case.read_mask("liver"), plan) for plan in (plain, rimmed))
    assert one.box == other.box
    assert np.abs(one.alpha - other.alpha).max() < 1e-6


def test_at_the_scans_edge_the_tumor_is_cut_and_outside_it_refused() -> None:
    geometry = fine(40)
    ct = Volume(np.full(geometry.shape, LIVER, np.int16), geometry)
    organ = Volume(np.ones(geometry.shape, bool), geometry)
    tumor = Rules().render(ct, organ, plan_of(20.0, center_mm=(0.0, 0.0, 19.5)))
    assert tumor.box == tumor.box.clip(geometry.shape)
    # its center is the last voxel's: half the ball, and half a millimeter
    assert tumor.mask.sum() == pytest.approx(2 / 3 * np.pi * 1000 + 0.5 * np.pi * 100, rel=0.03)
    with pytest.raises(CaseError, match="lies outside the scan"):
        Rules().render(ct, organ, plan_of(20.0, center_mm=(0.0, 0.0, 80.0)))
