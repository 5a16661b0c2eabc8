"""Grown tumors: the planned volume on any grid, held by borders and vessels, the same always, older ones larger."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from phantoms import FAT, GRIDS, LIVER, ellipsoid_case, fine, grid, noise, plan_of, rho

from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.synthesis.generators.growth.front import NEVER, arrival_times
from synthoma.synthesis.generators.growth.growth import Growth
from synthoma.synthesis.pipeline import insert_tumors, replay_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Geometry, Volume

GROWTH = Growth()


def growing(diameter_mm: float = 20.0, roughness: float = 0.0, **details: Any) -> TumorPlan:
    """A liver tumor that grows from 0 mm."""
    plan = plan_of(diameter_mm, roughness=roughness)
    return dataclasses.replace(
        plan, generator="growth", details=plan.details | {"front_mm": list(plan.axes_mm)} | details
    )


def whole(tumor: Tumor, geometry: Geometry) -> Volume:
    """The label on the whole grid."""
    data = np.zeros(geometry.shape, bool, order="F")
    data[tumor.box.slices] = tumor.mask
    return Volume(data, geometry)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_a_front_in_even_tissue_is_a_ball() -> None:
    at = np.indices((41, 41, 41)) - 20
    distance = np.sqrt((at**2).sum(axis=0)).astype(np.float32)
    start = np.where(distance <= 3, distance, NEVER).astype(np.float32)
    time = arrival_times(start, np.ones_like(start), distance.size)
    assert np.abs(time - distance)[distance < 19].max() < 1.1  # first order: a cell late between the axes
    assert (time >= distance - 1e-4).all()
    assert np.array_equal(time, time[::-1]), "mirrored, it is the same"


def test_a_front_goes_around_what_it_cannot_cross() -> None:
    start = np.full((21, 21, 3), NEVER, np.float32)
    start[10, 0, 1] = 0
    delay = np.ones_like(start)
    delay[2:19, 10] = NEVER
    time = arrival_times(start, delay, start.size)
    assert (time[2:19, 10] == NEVER).all()
    assert time[10, 20, 1] > 25, "about 2 x 13 cells instead of 20"
    assert time[10, 20, 1] < 32


@pytest.mark.parametrize("kind", GRIDS)
def test_a_grown_tumor_holds_the_planned_volume_on_any_grid(kind: str) -> None:
    case = ellipsoid_case(GRIDS[kind](60), (29, 29, 29))
    for diameter_mm in (12.0, 26.0):
        plan = growing(diameter_mm, 0.1)
        tumor = GROWTH.render(case.read_image(), case.read_mask("liver"), plan)
        found = tumor.mask.sum() * case.read_geometry().voxel_mm3
        assert found == pytest.approx(plan.volume_mm3, rel=0.03)
        assert tumor.measure(tumor.box, tumor.alpha) == {"grown": 1.0}
        assert tumor.alpha.dtype == np.float32
        assert GROWTH.box(plan, case.read_geometry()).hull(tumor.box) == GROWTH.box(plan, case.read_geometry())


def test_the_same_plan_grows_the_same_tumor_on_two_grids() -> None:
    plan, shapes = growing(30.0, 0.12), []
    for kind in GRIDS:
        case = ellipsoid_case(GRIDS[kind](64), (31, 31, 31))
        tumor = GROWTH.render(case.read_image(), case.read_mask("liver"), plan)
        shapes.append(whole(tumor, case.read_geometry()).to(fine(64)).data)
    assert min(dice(shapes[0], other) for other in shapes[1:]) > 0.9


def test_a_scan_that_is_stored_mirrored_gets_the_same_tumor() -> None:
    case = ellipsoid_case(grid((1.2, 1.0, 2.0), 44), (20, 20, 20))
    ct, liver, plan = case.read_image(), case.read_mask("liver"), growing(16.0, 0.15)
    one = whole(GROWTH.render(ct, liver, plan), ct.geometry)
    other_ct, other_liver = ct.reorient("LAI"), liver.reorient("LAI")
    other = whole(GROWTH.render(other_ct, other_liver, plan), other_ct.geometry).reorient("RAS")
    assert (one.data != other.data).sum() <= 2


def test_a_crop_around_the_tumor_gives_the_same_voxels() -> None:
    case = ellipsoid_case(fine(90), (42, 42, 42))
    ct, liver, plan = case.read_image(), case.read_mask("liver"), growing(14.0, 0.15, rim_hu=20.0, rim_mm=2.0)
    one = GROWTH.render(ct, liver, plan)
    box = ct.geometry.box_around(plan.center_mm, GROWTH.reach(plan)).grow(1)
    other = GROWTH.render(ct.crop(box), liver.crop(box), plan)
    assert other.box.shift(box.lower) == one.box
    assert np.array_equal(other.alpha, one.alpha)
    assert np.array_equal(other.hu, one.hu)


def test_an_older_tumor_holds_the_younger_one() -> None:
    case = ellipsoid_case(fine(60), (29, 29, 29))
    plan, before = growing(14.0, 0.15), np.zeros(case.read_geometry().shape, bool)
    for times in (0.5, 1, 2, 4):
        later = dataclasses.replace(plan, volume_mm3=plan.volume_mm3 * times)
        now = whole(GROWTH.render(case.read_image(), case.read_mask("liver"), later), case.read_geometry()).data
        assert now.sum() == pytest.approx(later.volume_mm3, rel=0.03)
        assert (before & ~now).sum() <= 0.02 * before.sum()
        before = now


def walled(vessel_hu: float) -> tuple[Volume, Volume]:
    """A liver with a 6 mm slab of vessel 6 to 12 mm to the left of 0 mm."""
    case = ellipsoid_case(fine(80), (39, 39, 39), noise_hu=5.0)
    ct = case.read_image()
    x = ct.geometry.points_mm()[..., 0]
    slab = (x < -6) & (x > -12)
    return Volume(np.asfortranarray(np.where(slab, vessel_hu, ct.data).astype(np.int16)), ct.geometry), case.read_mask(
        "liver"
    )


def test_a_wall_of_vessel_stops_a_tumor_until_its_pressure_is_reached() -> None:
    ct, liver = walled(LIVER + 90.0)
    x = ct.geometry.points_mm()[..., 0]

    def beyond(pressure: float, hu: Volume = ct) -> float:
        plan = growing(30.0, vessel_pressure=pressure)
        label = whole(GROWTH.render(hu, liver, plan), ct.geometry).data
        return float((label & (x < -7)).sum() / label.sum())

    assert beyond(50.0) == 0
    assert beyond(0.0) > 0
    assert beyond(0.0, walled(LIVER)[0]) > 0.1, "without a vessel it grows to all sides"


def test_the_organs_border_holds_a_tumor_and_fat_lets_it_out_later() -> None:
    case = ellipsoid_case(fine(80), (30, 30, 30), noise_hu=5.0)
    ct, liver = case.read_image(), case.read_mask("liver")
    plan = dataclasses.replace(growing(24.0), center_mm=(22.0, 0.0, 0.0))

    def outside(**details: float) -> float:
        own = dataclasses.replace(plan, details=plan.details | details)
        label = whole(GROWTH.render(ct, liver, own), ct.geometry).data
        far = label & (rho(ct.geometry, (32.5,) * 3) > 1)  # behind what annotators leave out
        return float(far.sum() / label.sum())

    assert outside(outside_speed=0.0) == 0
    assert 0 <= outside(outside_speed=0.5, border_pressure=2.0) < outside(outside_speed=0.9, border_pressure=0.0)


def test_a_tumor_without_room_stops_and_says_so() -> None:
    case = ellipsoid_case(fine(50), (9, 9, 9), noise_hu=5.0)
    ct, liver = case.read_image(), case.read_mask("liver")
    tumor = GROWTH.render(ct, liver, growing(30.0))
    grown = tumor.measure(tumor.box, tumor.alpha)["grown"]
    assert 0.15 < grown < 0.4
    assert tumor.mask.sum() == pytest.approx(grown * growing(30.0).volume_mm3, rel=0.1)
    far = dataclasses.replace(growing(8.0), center_mm=(0.0, 0.0, 20.0))
    with pytest.raises(CaseError, match="no room to grow in the liver"):
        GROWTH.render(Volume(np.full_like(ct.data, 40), ct.geometry), liver, far)


def test_the_deep_part_of_a_large_tumor_dies() -> None:
    case = ellipsoid_case(fine(70), (34, 34, 34), noise_hu=0.0)
    ct, liver = case.read_image(), case.read_mask("liver")
    details = {"death_mm": 9.0, "core_hu": -30.0, "core_share": 0.5, "texture_hu": 0.0}
    small, large = (GROWTH.render(ct, liver, growing(d, **details)) for d in (12.0, 40.0))
    assert np.ptp(small.hu[small.mask]) < 3
    middle = tuple(n // 2 for n in large.box.shape)
    assert large.hu[middle] < large.hu[large.mask].max() - 25


def test_a_colon_tumor_grows_along_the_wall() -> None:
    geometry = fine((70, 60, 60))
    _, y, z = np.moveaxis(geometry.points_mm(), -1, 0)
    colon = np.hypot(y, z) < 18
    lumen = np.hypot(y, z) < 14
    hu = np.select([lumen, colon], [-900, 40], FAT) + noise(geometry, 6.0)
    ct = Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), geometry)
    mask = Volume(np.asfortranarray(colon), geometry)
    plan = growing(24.0, wall_mm=4.0, border_pressure=1.0)
    plan = dataclasses.replace(plan, organ="colon", base_hu=40.0, center_mm=(0.0, 18.0, 0.0), radius_mm=19.2)
    tumor = GROWTH.render(ct, mask, plan)
    label = whole(tumor, geometry).data
    at = geometry.points_mm()[label]
    length, depth = np.ptp(at[:, 0]), 18 - np.hypot(at[:, 1], at[:, 2]).min()
    assert tumor.follows_organ
    assert tumor.measure(tumor.box, tumor.alpha)["on_wall"] > 0.95
    assert length > 1.3 * depth


def test_growth_is_synthesized_and_replayed_bit_for_bit() -> None:
    case: Case = ellipsoid_case(fine(90), (42, 42, 42))
    recipe = SynthesisRecipe(lesions=(2, 2), diameter_mm=(10, 18), generator="growth")
    made = insert_tumors(case, recipe, 5)
    assert [tumor.plan.generator for tumor in made.inserted] == ["growth"] * len(made.inserted) == ["growth"] * 2
    again = replay_plans(case, [TumorPlan.from_dict(tumor.plan.as_dict()) for tumor in made.inserted])
    assert np.array_equal(again.ct.data, made.ct.data)
    assert [tumor.digest for tumor in again.inserted] == [tumor.digest for tumor in made.inserted]
