"""What a tumor may fill, and that its label is one piece without slits or cavities, wherever the mask's edge lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cc3d
import edt
import numpy as np
import pytest
from phantoms import FAT, GRIDS, KIDNEY, ellipsoid_case, fine, plan_of, rho
from scipy import ndimage

from synthoma.cases import Case
from synthoma.reading import open_dataset
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.insertion.room import Room, confine, enclosed, find_room, place, slit_share
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Array, Box, Geometry, Volume


def confined(case: Case, plan: TumorPlan, structure: str = "kidney_left") -> Tumor:
    """The tumor of a plan where the case has room for it."""
    ct, organ = case.read_image(), case.read_mask(structure)
    tumor = Rules().render(ct, organ, plan)
    room = find_room(ct, organ, np.zeros(tumor.box.shape, bool), tumor.box)
    return confine(tumor, room, ct.geometry.spacing_mm)


def whole(tumor: Tumor, geometry: Geometry) -> Array:
    mask = np.zeros(geometry.shape, bool)
    mask[tumor.box.slices] = tumor.mask
    return mask


def moved_border(mask: Volume, by_mm: float) -> Volume:
    """A mask that ends so far outside of its border; inside of it if negative."""
    data = mask.data.copy()
    depth = edt.edt(data, anisotropy=mask.geometry.spacing_mm) - edt.edt(~data, anisotropy=mask.geometry.spacing_mm)
    return Volume(np.asfortranarray(depth > -by_mm), mask.geometry)


def open_room(shape: tuple[int, ...]) -> Room:
    return Room(np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_mass_bulges_into_fat_but_not_into_muscle_bone_or_gas(grid: str) -> None:
    geometry = GRIDS[grid](90)
    plan = plan_of(26.0, organ="kidney", base_hu=float(KIDNEY), contrast_hu=-60.0, center_mm=(0.0, 24.0, 0.0))
    outside = rho(geometry, (24, 24, 30)) >= 1
    for around in (FAT, 60, 800, -1000):
        case = ellipsoid_case(geometry, (24, 24, 30), "kidney_left", KIDNEY, around, noise_hu=8.0)
        mask = whole(confined(case, plan), geometry)
        assert (mask & ~outside).any()
        if around == FAT:
            assert (mask & outside).sum() * geometry.voxel_mm3 > 0.4 * plan.volume_mm3
        else:
            # a margin of 2.5 mm, or a voxel, is what the annotator may have left out
            assert (mask & outside).sum() * geometry.voxel_mm3 < 0.3 * plan.volume_mm3
            margin = np.maximum(5, np.abs(geometry.affine[:3, :3]).max(axis=1) + 2.5)
            assert (rho(geometry, np.array([24, 24, 30]) + margin)[mask] < 1).mean() > 0.995


def test_a_box_outside_the_organs_crop_counts_as_outside_the_organ() -> None:
    geometry = fine(50)
    ct = Volume(np.full(geometry.shape, 60, np.int16), geometry)
    part = Volume(np.ones(geometry.shape, bool), geometry).crop(Box((0, 0, 0), (25, 50, 50)))
    tumor = Rules().render(ct, part, plan_of(20.0))
    room = find_room(ct, part, np.zeros(tumor.box.shape, bool), tumor.box)
    mask = whole(confine(tumor, room, geometry.spacing_mm), geometry)
    assert not mask[29:].any()
    assert mask[:25].any()


@pytest.mark.parametrize("x", [0.0, 8.0, 22.0])
def test_a_tumor_inside_its_organ_has_the_room_that_a_search_would_find(x: float) -> None:
    geometry = fine(60)
    case = ellipsoid_case(geometry, (24, 24, 24), "kidney_left", KIDNEY, 60, noise_hu=8.0)
    ct, organ = case.read_image(), case.read_mask("kidney_left")
    tumor = Rules().render(ct, organ, plan_of(16.0, organ="kidney", base_hu=float(KIDNEY), center_mm=(x, 0.0, 0.0)))
    for blocked in (slice(0), slice(9, 11)):
        occupied = np.zeros(tumor.box.shape, bool)
        occupied[blocked] = True
        searched = confine(tumor, find_room(ct, organ, occupied, tumor.box), geometry.spacing_mm)
        assert np.array_equal(place(tumor, ct, organ, occupied).alpha, searched.alpha)
        assert (x < 20 and not occupied.any()) == np.array_equal(searched.alpha, tumor.alpha), "each way is taken"


def test_confining_leaves_one_piece_within_the_free_voxels() -> None:
    ct = Volume(np.full((50, 50, 50), 100, np.int16), fine(50))
    tumor = Rules().render(ct, Volume(np.ones(ct.data.shape, bool), ct.geometry), plan_of(30.0))
    room = open_room(tumor.box.shape)
    assert confine(tumor, room, (1, 1, 1)) is tumor
    occupied = np.zeros(tumor.box.shape, bool)
    occupied[12:16] = True
    cut = confine(tumor, Room(~occupied, occupied, occupied), (1, 1, 1))
    assert (cut.alpha[occupied] == 0).all()
    assert (cut.alpha <= tumor.alpha).all()
    assert ndimage.label(cut.mask)[1] == 1
    assert cut.mask[16:].sum() > 0.4 * tumor.mask.sum()
    assert not cut.mask[:12].any()
    nothing = Room(np.zeros_like(occupied), occupied, np.ones_like(occupied))
    assert not confine(tumor, nothing, (1, 1, 1)).alpha.any()


def test_slits_and_cavities_are_filled_but_not_other_structures() -> None:
    ct = Volume(np.full((60, 60, 60), 100, np.int16), fine(60))
    tumor = Rules().render(ct, Volume(np.ones(ct.data.shape, bool), ct.geometry), plan_of(36.0))
    middle = tuple(n // 2 for n in tumor.box.shape)
    blocked = np.zeros(tumor.box.shape, bool)
    blocked[middle[0] :, middle[1] - 1 : middle[1] + 2] = True  # a strip of 3 mm from the middle to one side
    nothing = np.zeros_like(blocked)
    filled = confine(tumor, Room(~blocked, nothing, nothing), (1, 1, 1))
    assert slit_share(tumor.mask, filled.mask, (1, 1, 1)) == 0
    assert filled.mask.sum() > 0.98 * tumor.mask.sum()  # all but the strip's mouth at the surface
    kept = confine(tumor, Room(~blocked, blocked, blocked), (1, 1, 1))
    assert not kept.mask[blocked].any()
    assert slit_share(tumor.mask, kept.mask, (1, 1, 1)) > 0.05


def test_gas_that_a_tumor_encloses_leaves_no_trace_but_a_structure_does() -> None:
    ct = Volume(np.full((60, 60, 60), 100, np.int16), fine(60))
    tumor = Rules().render(ct, Volume(np.ones(ct.data.shape, bool), ct.geometry), plan_of(36.0))
    hole = np.zeros(tumor.box.shape, bool)
    hole[tuple(slice(n // 2 - 3, n // 2 + 3) for n in tumor.box.shape)] = True
    nothing = np.zeros_like(hole)
    assert np.array_equal(confine(tumor, Room(~hole, hole, nothing), (1, 1, 1)).alpha, tumor.alpha)
    kept = confine(tumor, Room(~hole, hole, hole), (1, 1, 1))
    assert not kept.alpha[hole].any()


def test_what_a_label_encloses_is_measured_in_mm() -> None:
    # the same gap of 3 mm on grids of 1 mm and of 1 x 1 x 3 mm; one of 8 mm is no slit
    for spacing, gap, wide in (((1.0, 1.0, 1.0), 3, 8), ((1.0, 1.0, 3.0), 1, 3)):
        for voxels, filled in ((gap, True), (wide, False)):
            label = np.ones((20, 20, 20 + voxels), bool)
            label[:, :, 10 : 10 + voxels] = False
            assert enclosed(label, spacing)[10, 10, 10 : 10 + voxels].all() == filled


@pytest.mark.parametrize("by_mm", [-3.0, -1.0, 0.0, 2.0])
@pytest.mark.parametrize("grid", ["1 mm", "0.7x0.7x5 mm"])
def test_a_kidney_tumor_has_no_slit_whatever_the_masks_edge(grid: str, by_mm: float) -> None:
    geometry = GRIDS[grid](90)
    case = ellipsoid_case(geometry, (24, 24, 30), "kidney_left", KIDNEY, noise_hu=8.0)
    case = dataclasses.replace(case, masks={"kidney_left": moved_border(case.read_mask("kidney_left"), by_mm)})
    plan = plan_of(28.0, organ="kidney", base_hu=float(KIDNEY), center_mm=(4.0, 22.0, 3.0), roughness=0.05)
    tumor = confined(case, plan)
    planned = Rules().render(case.read_image(), case.read_mask("kidney_left"), plan).mask
    assert slit_share(planned, tumor.mask, geometry.spacing_mm) < 0.005
    assert tumor.mask.sum() > 0.9 * planned.sum()
    assert cc3d.connected_components(tumor.mask, connectivity=26).max() == 1


@pytest.mark.parametrize("name", ["crlm_1004", "crlm_1006"])
def test_kidney_tumors_on_thick_slices_of_real_scans_are_whole(name: str, real_data: Path) -> None:
    case = open_dataset(real_data)[name]
    recipe = SynthesisRecipe(organs=("kidney",), lesions=(1, 1))
    for seed in range(4):
        for tumor in insert_tumors(case, recipe, seed).inserted:
            assert tumor.verdict.scores["slits"] < 0.01
            assert cc3d.connected_components(tumor.mask, connectivity=26).max() == 1
            assert (ndimage.binary_fill_holes(tumor.mask) & ~tumor.mask).sum() <= 0.001 * tumor.mask.sum()
