"""The measured organ: where centers may lie, apart from what is there, and what is said where there is no room."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from phantoms import FAT, GRIDS, LIVER, clinical, ellipsoid_case, fine, grid, rho
from scipy import stats

from synthoma.errors import CaseError, GeometryError
from synthoma.synthesis import coarse
from synthoma.synthesis.location import OrganModel, find_site, measure_organ
from synthoma.volume import Geometry, Volume


def host_of(
    geometry: Geometry, half_axes_mm: tuple[float, float, float], organ: str = "liver", **settings: Any
) -> OrganModel:
    masks = settings.pop("masks", {})
    case = ellipsoid_case(geometry, half_axes_mm, "kidney_left" if organ == "kidney" else organ, **masks)
    return measure_organ(case.read_image(), case.read_masks(), organ, "portal", 0.7, "phantom", **settings)


def sites(
    organ_model: OrganModel, count: int, wanted: tuple[float, float] = (0.0, np.inf), radius: float = 1.0
) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([find_site(organ_model, wanted, radius, (), 0.0, rng).center_mm for _ in range(count)])


@pytest.mark.parametrize("name", GRIDS)
def test_centers_are_uniform_by_volume(name: str) -> None:
    organ_model = host_of(GRIDS[name](96), (40, 40, 40))
    points = sites(organ_model, 1600)
    octants = np.bincount((points > 0) @ np.array([1, 2, 4]), minlength=8)
    assert stats.chisquare(octants).pvalue > 0.001
    # in a ball the cube of the radius is uniform: ten shells of one volume
    shells = np.histogram((np.linalg.norm(points, axis=1) / 40) ** 3, bins=10, range=(0, 1.1))[0]
    assert stats.chisquare(shells[:9]).pvalue > 0.001
    assert np.linalg.norm(points, axis=1).max() < 43


@pytest.mark.parametrize("name", GRIDS)
def test_depths_are_millimeters_below_the_surface(name: str) -> None:
    organ_model = host_of(GRIDS[name](96), (40, 40, 40))
    depth = 40 - np.linalg.norm(organ_model.grid.to_mm(organ_model.cells), axis=1)
    assert np.abs(organ_model.depths_mm - depth).mean() < 0.5 * max(organ_model.grid.spacing_mm), "half a coarse voxel"
    assert (np.diff(organ_model.depths_mm) >= 0).all(), "by rising depth"
    points = sites(organ_model, 200, (15.0, 20.0))
    found = 40 - np.linalg.norm(points, axis=1)
    # a place is drawn within a cell of the tables, up to 4 mm wide
    assert found.min() > 15 - 5
    assert found.max() < 20 + 5
    assert found.mean() == pytest.approx(17.5, abs=2)


def test_the_organ_is_known_by_its_tissue() -> None:
    organ_model = host_of(fine(80), (30, 28, 26))
    assert organ_model.base_hu == pytest.approx(LIVER, abs=2)
    assert organ_model.noise_hu == pytest.approx(12, rel=0.15)
    assert organ_model.volume_ml == pytest.approx(4 / 3 * np.pi * 30 * 28 * 26 / 1000, rel=0.03)
    assert organ_model.radius_mm == pytest.approx((30 * 28 * 26) ** (1 / 3), rel=0.02)
    assert np.linalg.norm(organ_model.noise_from_mm) < 20
    assert not organ_model.touches_edge


def test_the_gap_to_other_tumors_is_kept() -> None:
    organ_model = host_of(fine(90), (40, 40, 40))
    rng, taken = np.random.default_rng(3), []
    for _ in range(12):
        center = np.array(find_site(organ_model, (0.0, np.inf), 6.0, taken, 4.0, rng).center_mm)
        for other, radius in taken:
            assert np.linalg.norm(center - other) >= 6 + radius + 4
        taken.append((tuple(center), 6.0))


def test_real_lesions_are_kept_apart_from() -> None:
    geometry = fine(90)
    lesion = Volume(rho(geometry, (12, 12, 12), (15, 0, 0)) < 1, geometry)
    case = ellipsoid_case(geometry, (40, 40, 40), liver_lesion=lesion)
    organ_model = measure_organ(case.read_image(), case.read_masks(), "liver", "portal", 0.7)
    assert len(organ_model.lesions) == 1
    points = sites(organ_model, 300, radius=5.0)
    assert np.linalg.norm(points - [15, 0, 0], axis=1).min() > 12 + 5


def test_the_vessel_veto_keeps_centers_out_of_annotated_and_bright_vessels() -> None:
    geometry = fine(90)
    tube = Volume(rho(geometry, (9, 9, 1000), (-14, 0, 0)) < 1, geometry)
    bright = rho(geometry, (9, 9, 1000), (14, 0, 0)) < 1
    case = ellipsoid_case(geometry, (40, 40, 40), portal_vein_and_splenic_vein=tube)
    hu = case.read_image().data + np.where(bright, 60, 0).astype(np.int16)
    ct, masks = Volume(hu, geometry), case.read_masks()
    with_veto, without = (measure_organ(ct, masks, "liver", "portal", 0.7, vessel_veto=veto) for veto in (True, False))
    for middle in (-14, 14):
        distances = []
        for organ_model in (with_veto, without):
            points = sites(organ_model, 600)
            # where a vessel leaves the organ its mean is half fat's
            points = points[np.abs(points[:, 2]) < 30]
            distances.append(np.hypot(points[:, 0] - middle, points[:, 1]).min())
        assert distances[0] > 6
        assert distances[1] < 3


def test_a_wish_for_depth_is_widened_step_by_step_and_said() -> None:
    organ_model = host_of(fine(60), (20, 20, 20))
    rng = np.random.default_rng(0)
    assert find_site(organ_model, (10.0, np.inf), 8.0, (), 0.0, rng).relaxed == 0
    site = find_site(organ_model, (22.0, np.inf), 16.0, (), 0.0, rng)
    assert 1 <= site.relaxed <= 2
    assert site.depth_mm >= 22 - site.relaxed * 4


def test_no_room_says_how_large_and_what_to_do() -> None:
    organ_model = host_of(fine(50), (15, 15, 15))
    full = [((0.0, 0.0, 0.0), 14.0)]
    with pytest.raises(CaseError) as refusal:
        find_site(organ_model, (0.0, np.inf), 10.0, full, 3.0, np.random.default_rng(0))
    assert re.fullmatch(
        r"phantom: no room in the liver for a tumor that reaches 10 mm from its center"
        r"; found 1\d ml, at most 1\d mm deep, 1 lesions in it; "
        r"plan smaller or fewer tumors, or lower gap_mm",
        str(refusal.value),
    )


def test_a_place_is_found_where_only_a_few_are_left() -> None:
    organ_model = host_of(fine(70), (25, 25, 25))
    shell = [((0.0, 0.0, 0.0), 20.0)]
    center = find_site(organ_model, (0.0, np.inf), 2.5, shell, 0.0, np.random.default_rng(0)).center_mm
    assert np.linalg.norm(center) >= 22.5


def test_an_organ_cut_by_the_field_of_view_goes_on_behind_it() -> None:
    geometry = grid((1, 1, 2.5), (70, 70, 40))
    organ_model = host_of(geometry, (30, 30, 60))
    assert organ_model.touches_edge
    assert organ_model.depths_mm.max() > 26, "the scan's face is no surface"
    assert np.abs(sites(organ_model, 300, (22.0, np.inf))[:, 2]).max() > 12


def bad(masks: Mapping[str, Volume], phase: str = "portal") -> str:
    case = ellipsoid_case(fine(30), (10, 10, 10))
    with pytest.raises((CaseError, GeometryError)) as refusal:
        measure_organ(case.read_image(), masks, "liver", phase, 0.7, "p1")
    return str(refusal.value)


def test_bad_masks_and_phases_are_sentences() -> None:
    ball = Volume(rho(fine(30), (10, 10, 10)) < 1, fine(30))
    assert bad({}) == "p1: the liver is not annotated; leave it out of the recipe, or segment it first"
    assert bad({"liver": Volume(np.zeros((30, 30, 30), bool), fine(30))}).startswith(
        "p1: the mask of the liver is empty"
    )
    assert "in Python: .to(ct.geometry)" in bad({"liver": Volume(np.ones((6, 8, 3), bool), clinical((4, 5, 15)))})
    assert bad({"liver": ball}, "venous") == (
        "p1: the contrast phase is unknown; found venous, expected one of unenhanced, arterial, portal; "
        "set phase in the recipe or the catalog"
    )


def test_one_mask_may_stand_for_both_kidneys() -> None:
    geometry = fine((130, 70, 80))
    two = (rho(geometry, (20, 18, 32), (-35, 0, 0)) < 1) | (rho(geometry, (20, 18, 32), (35, 0, 0)) < 1)
    ct = Volume(np.where(two, 180, FAT).astype(np.int16), geometry)
    whole = measure_organ(ct, {"kidney": Volume(two, geometry)}, "kidney", "portal", 0.7)
    left = measure_organ(
        ct, {"kidney_left": Volume(two & (np.arange(130) < 65)[:, None, None], geometry)}, "kidney", "portal", 0.7
    )
    assert whole.radius_mm == pytest.approx(left.radius_mm, rel=0.02)
    assert whole.volume_ml == pytest.approx(2 * left.volume_ml, rel=0.02)


def test_bulging_organs_offer_places_in_fat_but_prefer_room() -> None:
    geometry = fine((110, 90, 90))
    wall = np.zeros(geometry.shape, bool)
    wall[62:] = True
    case = ellipsoid_case(geometry, (14, 14, 28), "kidney_left")
    step = coarse.steps(geometry, "kidney")
    organ_model = measure_organ(
        case.read_image(), case.read_masks(), "kidney", "portal", 0.7, occupied=lambda box: coarse.thin(wall, box, step)
    )
    points = sites(organ_model, 150, (-4.0, 0.0), 9.0)
    assert (rho_of(points) > 1).any(), "centers outside the organ"
    assert (points[:, 0] > 0).mean() < 0.4, "the side towards another organ has less room"


def rho_of(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points / np.array([14, 14, 28]), axis=1)


def test_noise_is_learned_elsewhere_where_the_organ_is_thin() -> None:
    geometry = fine((110, 60, 60))
    spleen = Volume(rho(geometry, (20, 20, 20), (30, 0, 0)) < 1, geometry)
    case = ellipsoid_case(geometry, (5, 5, 25), "esophagus", around=20.0, spleen=spleen)
    organ_model = measure_organ(case.read_image(), case.read_masks(), "esophagus", "portal", 0.7)
    assert np.linalg.norm(np.subtract(organ_model.noise_from_mm, (30, 0, 0))) < 20


@pytest.mark.parametrize("name", GRIDS)
def test_noise_is_not_learned_from_the_inside_of_a_kidney(name: str) -> None:
    geometry = GRIDS[name](140)
    points = geometry.points_mm()
    kidney = np.asfortranarray(np.linalg.norm((points - (-35, 0, 0)) / (26, 22, 34), axis=-1) < 1)
    nobody_annotated = np.linalg.norm(points - (32, 0, 0), axis=-1) < 30
    medulla = np.sin(points / 4).prod(axis=-1) > 0
    hu = np.where(kidney, np.where(medulla, 120, 190), np.where(nobody_annotated, 100.0, FAT))
    hu += np.random.default_rng(0).normal(0, 8, geometry.shape)
    ct = Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), geometry)
    organ_model = measure_organ(ct, {"kidney_left": Volume(kidney, geometry)}, "kidney", "portal", 0.7)
    assert organ_model.noise_hu == pytest.approx(8, rel=0.15)


def test_noise_is_not_learned_at_a_face_of_the_scan_where_its_block_would_leave_the_organ() -> None:
    geometry = fine(80)
    points = geometry.points_mm()
    spleen = np.asfortranarray((points[..., 0] > 26) | (np.linalg.norm(points - (-8, 0, 0), axis=-1) < 25))
    case = ellipsoid_case(geometry, (5, 5, 25), "esophagus", noise_hu=0.0, spleen=Volume(spleen, geometry))
    rng = np.random.default_rng(0)
    # evenest in the slab of 14 mm at the face, too thin for a block of 20 mm
    hu = np.where(spleen, 100.0, FAT) + rng.normal(0, 8, geometry.shape) * np.where(points[..., 0] > 26, 0.5, 1)
    ct = Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), geometry)
    organ_model = measure_organ(ct, case.read_masks(), "esophagus", "portal", 0.7)
    assert organ_model.noise_hu == pytest.approx(8, rel=0.2)


@pytest.mark.parametrize("name", GRIDS)
def test_noise_that_is_learned_elsewhere_is_that_of_tissue_and_not_of_a_border(name: str) -> None:
    geometry = GRIDS[name](120)
    points = geometry.points_mm()
    spleen = Volume(np.asfortranarray((np.abs(points - (25, 0, 0)) < (22, 30, 30)).all(axis=-1)), geometry)
    case = ellipsoid_case(geometry, (5, 5, 25), "esophagus", noise_hu=0.0, spleen=spleen)
    hu = np.where(spleen.data, 100.0, FAT) + np.random.default_rng(0).normal(0, 8, geometry.shape)
    ct = Volume(np.asfortranarray(np.where(case.read_mask("esophagus").data, 40, hu).astype(np.int16)), geometry)
    organ_model = measure_organ(ct, case.read_masks(), "esophagus", "portal", 0.7)
    assert organ_model.noise_hu == pytest.approx(8, rel=0.15)
