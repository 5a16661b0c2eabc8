"""Lesion crops and looks: lesions of known and unknown organs, whole patients held back, tissue without noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from small_cases import ball, patient

from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.learning.crops import CropRecipe, build_crops
from synthoma.learning.looks import CONDITION, HOMES, Look, choose_look, histogram, measure_look, tissue_of
from synthoma.volume import Volume

RECIPE = CropRecipe(size=32, spacing_mm=2.0)


def with_phase(case: Case, phase: str) -> Case:
    return dataclasses.replace(case, attributes={**case.attributes, "phase": phase})


def test_every_lesion_is_measured_with_its_organ_and_contrast(tmp_path: Path) -> None:
    case = with_phase(patient("anna", tumors=[((-10.0, 0.0, 0.0), 9.0), ((-24.0, 14.0, 0.0), 6.0)]), "venous")
    crops = build_crops([case], tmp_path, RECIPE)
    looks = [row.look for _, row in crops.lesions]
    assert [look.organ for look in looks] == ["liver", "liver"]
    assert [look.phase for look in looks] == ["portal", "portal"]
    assert looks[0].diameter_mm == pytest.approx(18, abs=1)
    assert looks[1].diameter_mm == pytest.approx(12, abs=1)
    assert all(look.contrast_hu == pytest.approx(-60, abs=4) for look in looks)
    assert all(abs(look.core_hu) < 4 for look in looks)
    crop = crops.crop(0)
    assert crop.mask.shape == (32, 32, 32)
    assert crop.others.sum() > 20  # the second lesion lies in the crop of the first
    assert not (crop.others & crop.mask).any()
    assert crop.alpha[crop.mask].mean() > 0.8


def test_a_lesion_of_no_known_organ_is_told_from_what_is_around_it(tmp_path: Path) -> None:
    case = patient("anna", tumors=None)
    grid = case.read_geometry()
    lesion = ball(grid, (-10.0, 0.0, 0.0), 9.0)
    hu = case.read_image().data.copy(order="F")
    hu[lesion] += 30
    sarcoma = Case("anna", Volume(hu, grid), {"sarcoma": Volume(np.asfortranarray(lesion), grid)})
    crops = build_crops([sarcoma], tmp_path, RECIPE)
    (look,) = [row.look for _, row in crops.lesions]
    assert look.organ == "other"
    assert look.contrast_hu == pytest.approx(30, abs=5)


def test_a_lesion_larger_than_a_crop_shows_a_part_of_it(tmp_path: Path) -> None:
    case = patient("anna", tumors=[((-10.0, 0.0, 0.0), 26.0)])
    crops = build_crops([case], tmp_path, CropRecipe(size=16, spacing_mm=2.0))
    rng = np.random.default_rng(0)
    assert all(crops.crop(0, rng).mask.sum() > 100 for _ in range(5))


def test_patients_are_held_back_whole_and_small_lesions_left_out(tmp_path: Path) -> None:
    tumors = [((-10.0, 0.0, 0.0), 9.0), ((-24.0, 14.0, 0.0), 6.0)]
    cases = [patient(name, tumors=tumors) for name in ("anna", "bert", "carl", "dora", "emil", "fred")]
    crops = build_crops(cases, tmp_path, RECIPE)
    chosen, held = crops.side(0.4, 1)
    assert chosen
    assert held
    assert {crops.patient(index) for index in chosen}.isdisjoint(crops.patient(index) for index in held)
    assert sorted(chosen + held) == list(range(12))
    assert len(build_crops(cases, tmp_path, RECIPE.with_changes(smallest_mm=15.0))) == 6
    with pytest.raises(CaseError, match="no lesion to learn from"):
        build_crops(cases, tmp_path, RECIPE.with_changes(smallest_mm=60.0))


def test_tissue_keeps_a_core_and_loses_the_noise() -> None:
    i, j, k = np.indices((32, 32, 32)) - 15.5
    radius = np.sqrt(i**2 + j**2 + k**2)
    mask = radius < 11
    noise = np.random.default_rng(0).normal(0, 12, mask.shape)
    plain = np.where(mask, np.where(radius < 5, 40.0, 80.0), -90.0)
    tissue = tissue_of(plain + noise, mask, (1.5, 1.5, 1.5))
    assert tissue[radius < 3].mean() == pytest.approx(40, abs=4)
    assert tissue[mask & (radius > 8)].mean() == pytest.approx(80, abs=4)  # no fat in it
    assert (tissue - plain)[radius < 3].std() < 3
    look = measure_look(tissue, mask, (1.5, 1.5, 1.5), 110.0, "liver", "portal", 33.0)
    assert look.core_hu < -15
    assert look.rim_hu > 2
    assert sum(look.histogram) == pytest.approx(1)


def test_a_look_survives_its_row_and_conditions_differ() -> None:
    look = Look("kidney", "", 21.5, -80.0, 4.0, -12.0, histogram(np.linspace(-30, 30, 50)))
    again = Look.of_numbers(look.numbers().tolist())
    assert again.organ == "kidney"
    assert again.phase == ""
    assert again.histogram == pytest.approx(look.histogram)
    told = {organ: dataclasses.replace(look, organ=organ).condition() for organ in HOMES}
    assert all(len(condition) == CONDITION and np.isfinite(condition).all() for condition in told.values())
    assert len({condition.tobytes() for condition in told.values()}) == len(HOMES)


def test_a_look_is_chosen_near_what_is_wanted() -> None:
    flat = histogram(np.zeros(4))
    looks = [
        Look(organ, "portal", size, contrast, 0, 0, flat)
        for organ in ("liver", "colon")
        for size in (10.0, 40.0)
        for contrast in (-60.0, 40.0)
    ]
    rng = np.random.default_rng(0)
    picks = [choose_look(looks, "liver", "portal", 38.0, 35.0, rng) for _ in range(50)]
    assert all(look.organ == "liver" and look.contrast_hu == 40 for look in picks)
    assert sum(look.diameter_mm == 40 for look in picks) > 40
    with pytest.raises(ValueError, match="no looks"):
        choose_look([], "liver", "portal", 10.0, None, rng)


def test_a_look_with_gas_in_it_is_hardly_ever_chosen() -> None:
    plain = Look("colon", "portal", 30.0, 20.0, 0.0, 0.0, histogram(np.linspace(-20, 20, 40)))
    gassy = dataclasses.replace(plain, histogram=(0.2, *plain.histogram[1:-1], 0.0))
    rng = np.random.default_rng(0)
    picks = [choose_look([plain, gassy, gassy], "colon", "portal", 30.0, 20.0, rng) for _ in range(100)]
    assert sum(look is plain for look in picks) > 95
