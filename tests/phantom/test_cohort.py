"""The in-silico abdomen: the same patient on any grid, organs of plausible size, HU and place, noise of CT."""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from synthoma.anatomy import ORGANS, STRUCTURES
from synthoma.datasets.catalog import read_catalog
from synthoma.datasets.splits import check_leaks, read_splits
from synthoma.engine.mapping import map_cases
from synthoma.errors import CaseError, RecipeError
from synthoma.phantom.anatomy import tissues
from synthoma.phantom.anatomy.abdomen import draw_abdomen
from synthoma.phantom.anatomy.ageing import aged, plaques
from synthoma.phantom.anatomy.patient import draw_patient
from synthoma.phantom.cohort import (
    ANNOTATED,
    CohortRecipe,
    InSilico,
    cohort_case,
    draw_case,
    draw_visitor,
    finish_cohort,
    write_cohort_case,
)
from synthoma.phantom.disease.kinds import KINDS
from synthoma.phantom.hospitals import Hospital, contrast, draw_visit
from synthoma.phantom.scanner import Scanner, field_of_view, scan
from synthoma.recipe import read_recipe
from synthoma.volume import Box, Geometry, Volume

COARSE = CohortRecipe(spacing_mm=5, sex="female", noise_hu=0)
RECIPES = Path(__file__).parents[2] / "src" / "synthoma" / "recipes" / "cohort"

# structure -> least and most ml, least and most median HU (portal venous, at 5 mm)
PLAUSIBLE = {
    "aorta": (30, 130, 120, 165),
    "gall_bladder": (8, 90, -10, 60),
    "kidney_left": (90, 230, 150, 220),
    "kidney_right": (90, 230, 150, 220),
    "liver": (1000, 2100, 95, 125),
    "pancreas": (45, 150, 60, 115),
    "postcava": (40, 150, 110, 155),
    "spleen": (90, 400, 100, 130),
    "stomach": (200, 1000, -1000, 90),
    "bladder": (30, 450, -5, 40),
    "colon": (450, 1300, -1000, 80),
    "duodenum": (20, 110, 20, 95),
    "esophagus": (7, 40, -50, 90),
    "hepatic_vessel": (8, 60, 130, 185),
    "intestine": (600, 1900, -20, 90),
    "lung_left": (300, 1800, -900, -750),
    "lung_right": (300, 1800, -900, -750),
    "portal_vein_and_splenic_vein": (12, 70, 120, 180),
    "rectum": (20, 160, -1000, 80),
    "uterus": (45, 150, 80, 120),
    "femur_left": (30, 200, 150, 450),
    "femur_right": (30, 200, 150, 450),
    "adrenal_gland_left": (0.3, 8, -60, 110),
    "adrenal_gland_right": (0.3, 8, -60, 110),
    "celiac_trunk": (0.1, 4, 60, 170),
}


@cache
def drawn(seed: int) -> InSilico:
    return draw_case(seed, COARSE)


def ml(mask: Volume) -> float:
    return float(mask.data.sum()) * mask.geometry.voxel_mm3 / 1000


def dice(first: Volume, second: Volume) -> float:
    other = second.to(first.geometry).data
    return float(2 * (first.data & other).sum() / (first.data.sum() + other.sum()))


def middle_mm(mask: Volume) -> np.ndarray:
    return mask.geometry.to_mm(np.argwhere(mask.data).mean(axis=0))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_patient() -> None:
    recipe = CohortRecipe(spacing_mm=8, cases=2)
    first, again = cohort_case(recipe, 0), cohort_case(recipe, 0)
    assert first.read_image().data.tobytes() == again.read_image().data.tobytes()
    assert first.read_mask("liver").data.tobytes() == again.read_mask("liver").data.tobytes()
    other = cohort_case(recipe, 1)
    assert other.read_image().geometry != first.read_image().geometry


@pytest.mark.parametrize("seed", [0, 1])
def test_every_structure_has_a_plausible_volume_and_hu(seed: int) -> None:
    case = drawn(seed)
    for structure, (least_ml, most_ml, least_hu, most_hu) in PLAUSIBLE.items():
        mask = case.mask(structure)
        assert least_ml < ml(mask) < most_ml, structure
        assert least_hu < np.median(case.ct.data[mask.data]) < most_hu, structure


def test_all_structures_of_the_sex_are_there_and_those_of_the_other_are_empty() -> None:
    woman = drawn(0)
    assert {s for s in ANNOTATED if not woman.mask(s).data.any()} == {"prostate"}
    man = draw_case(0, CohortRecipe(spacing_mm=6, sex="male"))
    assert {s for s in ANNOTATED if not man.mask(s).data.any()} <= {"uterus", "celiac_trunk"}
    assert not man.mask("uterus").data.any()


def test_organs_lie_on_their_side_of_the_body() -> None:
    case = drawn(0)
    spine = np.argwhere(case.abdomen.main == tissues.TISSUE_ID["thecal_sac"])
    x, y, _ = case.abdomen.fine.to_mm(spine.mean(axis=0))
    for right, left in (("liver", "spleen"), ("kidney_right", "kidney_left"), ("lung_right", "lung_left")):
        assert middle_mm(case.mask(right))[0] > x + 20, right
        assert middle_mm(case.mask(left))[0] < x - 20, left
    assert middle_mm(case.mask("postcava"))[0] > middle_mm(case.mask("aorta"))[0]
    assert middle_mm(case.mask("bladder"))[1] > middle_mm(case.mask("uterus"))[1] > middle_mm(case.mask("rectum"))[1]
    assert middle_mm(case.mask("lung_left"))[2] > middle_mm(case.mask("liver"))[2] > middle_mm(case.mask("bladder"))[2]
    assert middle_mm(case.mask("kidney_left"))[1] > y


def test_masks_overlap_only_where_vessels_run_through_the_liver() -> None:
    case = drawn(0)
    veins = case.mask("hepatic_vessel").data
    assert (case.mask("liver").data[veins]).all()
    total = sum(
        case.mask(s).data.astype(int) for s in ANNOTATED if s not in ("hepatic_vessel", "portal_vein_and_splenic_vein")
    )
    assert total.max() == 1
    assert (case.labels.data[total == 1] > 0).all()


def test_organs_are_packed_and_fat_is_the_smaller_part_of_the_cavity() -> None:
    case = drawn(0)
    middle = case.abdomen.main[:, :, case.abdomen.main.shape[2] // 2 :]
    fat = (middle == tissues.TISSUE_ID["visceral_fat"]).sum()
    organs = (tissues.label_by_id()[middle] > 0).sum()
    assert fat < 0.45 * organs
    # neighbors touch: a shell of 6 mm around the liver is mostly something other than fat
    liver = case.mask("liver").data
    shell = ndimage.binary_dilation(liver, iterations=1) & ~liver
    assert (case.abdomen.main[shell] == tissues.TISSUE_ID["visceral_fat"]).mean() < 0.6


def test_another_spacing_shows_the_same_anatomy() -> None:
    patient = draw_patient(3, "female")
    coarse, fine = (
        draw_abdomen(patient, field_of_view(patient, Scanner(spacing_mm=spacing)))
        for spacing in ((6.0, 6.0, 6.0), (4.0, 4.0, 8.0))
    )
    for organ in ("liver", "spleen", "kidney_left", "kidney_right", "colon", "stomach", "uterus", "bladder"):
        assert ml(coarse.mask(organ)) == pytest.approx(ml(fine.mask(organ)), rel=0.08), organ
        assert dice(fine.mask(organ), coarse.mask(organ)) > 0.75, organ
    assert dice(fine.mask("liver"), coarse.mask("liver")) > 0.92


def test_an_oblique_flipped_and_cropped_grid_shows_the_same_anatomy() -> None:
    patient = draw_patient(3, "female")
    upright = draw_abdomen(patient, field_of_view(patient, Scanner(spacing_mm=(5.0, 5.0, 5.0))))
    angle = np.deg2rad(14)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-5.0, 5.0, 5.0])
    middle = patient.to_world(np.array([[20.0, -5.0, 110.0]]))[0]
    affine[:3, 3] = middle - affine[:3, :3] @ (30, 24, 12)
    oblique = draw_abdomen(patient, Geometry((60, 48, 24), affine))
    for organ in ("liver", "spleen", "kidney_right"):
        assert dice(oblique.mask(organ), upright.mask(organ)) > 0.85, organ


def test_a_smaller_field_of_view_changes_nothing_inside_it() -> None:
    case = drawn(0)
    i, j, k = case.ct.geometry.shape
    box = Box((i // 4, j // 4, k // 2), (3 * i // 4, 3 * j // 4, k // 2 + 12))
    part = draw_abdomen(case.patient, case.ct.geometry.crop(box))
    assert (part.main == case.abdomen.main[box.slices]).mean() > 0.995


def test_the_colon_is_a_wall_around_gas_and_stool() -> None:
    patient = draw_patient(0, "female")
    middle = patient.to_world(np.array([[92.0, -8.0, 20.0]]))[0]
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = middle - 1.5 * np.array([36, 36, 24])
    part = draw_abdomen(patient, Geometry((72, 72, 48), affine))
    gas, stool, wall = (part.main == tissues.TISSUE_ID[f"colon_{name}"] for name in ("gas", "stool", "wall"))
    assert gas.any()
    assert stool.any()
    mask = part.mask("colon").data
    assert (mask == gas | stool | wall).all()
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1, 1:-1] = True
    border = mask & ~ndimage.binary_erosion(mask, iterations=1) & inner
    assert wall[border].mean() > 0.9
    depth = ndimage.distance_transform_edt(mask, sampling=1.5)[wall & inner]
    assert 1.0 < np.median(depth) < 4.0


def test_noise_has_the_level_and_the_grain_of_ct() -> None:
    patient = draw_patient(1, "female")
    middle = patient.to_world(np.array([[70.0, 0.0, 140.0]]))[0]
    affine = np.diag([0.75, 0.75, 2.0, 1.0])
    affine[:3, 3] = middle - np.array([0.75 * 60, 0.75 * 60, 2.0 * 10])
    part = draw_abdomen(patient, Geometry((120, 120, 20), affine))
    scanner = Scanner(spacing_mm=(0.75, 0.75, 2.0), noise_hu=15)
    ct, still = scan(part, scanner, 0), scan(part, Scanner(spacing_mm=(0.75, 0.75, 2.0), noise_hu=0), 0)
    noise = ct.data.astype(float) - still.data
    assert 11 < noise.std() < 19
    along, across = (np.mean(noise * np.roll(noise, 1, axis)) / noise.var() for axis in (0, 2))
    assert 0.3 < along < 0.6
    assert 0.1 < across < 0.55
    smooth = ndimage.gaussian_filter(noise, (3 / 0.75, 3 / 0.75, 0))
    assert smooth.std() < 0.15 * noise.std()


def test_a_thick_slice_averages_what_lies_in_it() -> None:
    patient = draw_patient(1, "female")
    affine = np.diag([3.0, 3.0, 8.0, 1.0])
    affine[:3, 3] = patient.to_world(np.array([[-30.0, -60.0, 60.0]]))[0]
    grid = Geometry((30, 40, 6), affine)
    thick = draw_abdomen(patient, grid)
    assert thick.parts == (1, 1, 3)
    assert thick.mask("kidney_left").geometry == grid
    assert scan(thick, Scanner(slice_mm=8), 0).data.shape == grid.shape
    assert thick.labels().data.shape == grid.shape


def test_fifty_patients_differ_in_build_and_organs() -> None:
    patients = [draw_patient(seed) for seed in range(50)]
    assert {patient.sex for patient in patients} == {"female", "male"}
    builds = np.array([(*p.scale, p.subcutaneous_mm / 100, p.visceral / 4) for p in patients])
    apart = np.linalg.norm(builds[:, None] - builds[None], axis=2) + np.eye(50)
    assert apart.min() > 0.005
    assert len({p.seed for p in patients}) == 50
    first, second = drawn(0), drawn(1)
    assert dice(first.mask("liver"), second.mask("liver")) < 0.92


def test_template_and_world_are_inverse_to_each_other() -> None:
    patient = draw_patient(5)
    template = np.array([[0.0, 0, 0], [100, -60, 150], [-90, 40, -120], [10, -90, 200]])
    from synthoma.phantom.anatomy.shapes import points_of

    back = np.stack(patient.to_template(points_of(patient.to_world(template))), axis=1)
    assert np.abs(back - template).max() < 0.05


def test_the_case_carries_what_writing_a_data_set_needs() -> None:
    recipe = CohortRecipe(name="demo", spacing_mm=8, cases=3, sex="female")
    case = cohort_case(recipe, 2)
    assert (case.id, case.patient, case.dataset) == ("demo_0002", "demo_0002", "demo")
    assert case.attributes == {"sex": "female", "phase": "portal", "healthy": True, "in_silico": True}
    assert list(case.masks) == list(ANNOTATED)
    assert case.read_organ("kidney").data.any()
    again = pickle.loads(pickle.dumps(case))
    assert (again.read_mask("spleen").data == case.read_mask("spleen").data).all()


def test_what_cannot_be_drawn_is_refused_with_what_can() -> None:
    with pytest.raises(CaseError, match="liver"):
        drawn(0).mask("tail")
    with pytest.raises(ValueError, match="case 1 of a cohort of 1"):
        cohort_case(CohortRecipe(), 1)
    with pytest.raises(RecipeError, match="spacing_mm = 0"):
        read_recipe(CohortRecipe, overrides=["spacing_mm=0"])
    with pytest.raises(RecipeError, match="unknown key slices"):
        read_recipe(CohortRecipe, overrides=["slices=3"])


def test_the_embedded_recipe_is_one_woman_at_two_millimetres() -> None:
    recipe = read_recipe(CohortRecipe, RECIPES / "one.toml")
    assert (recipe.cases, recipe.sex, recipe.spacing_mm) == (1, "female", 2.0)


def test_drawing_needs_no_torch() -> None:
    code = "import sys, synthoma.phantom.cohort; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Hospitals

LIVERS = CohortRecipe(region="liver", structures=("liver", "liver_lesion"), spacing_mm=6, noise_hu=0)
NOISY = {"noise_hu": (24.0, 26.0), "blur_mm": (0.4, 0.5)}


def liver_sd(case: InSilico) -> float:
    """SD of differences between neighbors inside the liver: noise, little of anatomy."""
    liver = ndimage.binary_erosion(case.mask("liver").data)
    steps = np.diff(case.ct.data.astype(float), axis=2)[liver[:, :, 1:] & liver[:, :, :-1]]
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))))


SEEN: dict[str, InSilico] = {}


def visitor(hospital: Hospital) -> InSilico:
    """A healthy patient of a hospital, always of the same seed."""
    if hospital.digest() not in SEEN:
        SEEN[hospital.digest()] = draw_visitor(4, LIVERS, hospital, sick=False)
    return SEEN[hospital.digest()]


def test_a_recipe_without_hospitals_says_what_it_always_said() -> None:
    recipe = read_recipe(CohortRecipe, RECIPES / "one.toml")
    assert set(recipe.as_dict()) == {"name", "cases", "seed", "sex", "phase", "spacing_mm", "slice_mm", "noise_hu"}
    # records of written cases name this digest
    assert recipe.digest() == "0249deb9f91c8067"


def test_hospitals_differ_in_noise_sharpness_and_offset() -> None:
    quiet = Hospital(name="a", noise_hu=(4, 5), distractors={}, dose=(1, 1), timing=(0, 0))
    loud = quiet.with_changes(name="b", **NOISY)
    assert liver_sd(visitor(loud)) > 2 * liver_sd(visitor(quiet))
    still = quiet.with_changes(noise_hu=(0, 0))
    soft = still.with_changes(blur_mm=(6, 6))
    edges = [np.abs(np.diff(visitor(one).ct.data.astype(float), axis=0)).mean() for one in (still, soft)]
    assert edges[1] < 0.9 * edges[0]
    shifted = still.with_changes(offset_hu=(12, 12))
    change = visitor(shifted).ct.data.astype(int) - visitor(still).ct.data
    inner = visitor(still).ct.data > -900
    assert np.median(change[inner]) == 12


def test_the_phase_its_timing_and_the_dose_show_in_the_vessels() -> None:
    assert contrast("portal", 0, 1) == (0, 0, 1)
    assert contrast("arterial", 0, 1) == (0, 1, 0)
    assert contrast("portal", -0.3, 1) == pytest.approx((0, 0.3, 0.7))
    assert contrast("portal", 0.2, 1) == pytest.approx((0.2, 0, 0.8))
    assert contrast("arterial", 0.2, 0.5) == pytest.approx((0.5, 0.4, 0.1))
    assert contrast("unenhanced", 0.5, 2) == (1, 0, 0)
    hu = tissues.hu_by_id(contrast("portal", 0, 0.5))[tissues.TISSUE_ID["aorta"]]
    assert hu == pytest.approx((42 + 155) / 2)


def test_age_shrinks_organs_and_thins_tissue() -> None:
    patient = draw_patient(6, "female")
    young, old = aged(patient, 30), aged(patient, 85)
    assert old.sizes["pancreas"] < 0.95 * young.sizes["pancreas"]
    assert old.sizes["uterus"] < young.sizes["uterus"]
    assert old.shift_hu["bone_marrow"] < young.shift_hu["bone_marrow"]
    assert plaques(patient, 40) == 0 < plaques(patient, 80)
    assert aged(patient, 85) == old


def test_case_mix_follows_the_shares_of_hospitals_and_of_the_sick() -> None:
    recipe = CohortRecipe(
        cases=20, hospitals=(Hospital(name="a", share=3, tumors=0.4), Hospital(name="b", tumors=1.0, unseen=True))
    )
    places = [recipe.place_of(index) for index in range(20)]
    names = [hospital.name for hospital, _ in places if hospital]  # type: ignore[misc,union-attr]
    assert (names.count("a"), names.count("b")) == (15, 5)
    assert sum(sick for hospital, sick in places if hospital.name == "a") == 6  # type: ignore[misc,union-attr]
    assert all(sick for hospital, sick in places if hospital.name == "b")  # type: ignore[misc,union-attr]
    with pytest.raises(ValueError, match="case 20"):
        recipe.place_of(20)


def test_visits_stay_within_what_their_hospital_says() -> None:
    hospital = Hospital(
        name="a", kinds={"metastasis": 1, "endometrial_carcinoma": 1}, diameter_mm=(8, 30), lesions=(2, 4), age=(60, 70)
    )
    visits = [draw_visit(hospital, seed, Scanner(), "any", sick=True) for seed in range(60)]
    assert {visit.kind for visit in visits} == {"metastasis", "endometrial_carcinoma"}
    assert all(visit.sex == "female" for visit in visits if visit.kind == "endometrial_carcinoma")
    assert all(8 <= size <= 30 for visit in visits for size in visit.diameters_mm)
    assert all(60 <= visit.age <= 70 for visit in visits)
    assert all(2 <= visit.lesions <= 4 and len(visit.diameters_mm) == visit.lesions for visit in visits)
    assert len({round(size) for visit in visits for size in visit.diameters_mm}) > 15


def test_a_patient_with_tumors_has_them_in_scan_mask_and_record() -> None:
    recipe = LIVERS.with_changes(
        cases=1, hospitals=[{"name": "a", "tumors": 1.0, "lesions": (2, 3), "diameter_mm": (20, 40)}]
    )
    case = cohort_case(recipe, 0)
    assert list(case.masks) == ["liver", "liver_lesion"]
    lesion, liver = case.read_mask("liver_lesion").data, case.read_mask("liver").data
    assert lesion.any()
    assert liver[lesion].all()
    facts = case.attributes
    assert not facts["healthy"]
    assert (facts["hospital"], facts["kind"], facts["phase"]) == ("a", "metastasis", "portal")
    tumors = [finding for finding in facts["findings"] if finding["tumor"]]
    assert len(tumors) == facts["tumors"] >= 1
    assert facts["largest_mm"] == max(tumor["diameter_mm"] for tumor in tumors)
    assert np.median(case.read_image().data[lesion]) < np.median(case.read_image().data[liver & ~lesion]) - 10
    again = cohort_case(recipe, 0)
    assert again.read_image().data.tobytes() == case.read_image().data.tobytes()
    assert again.attributes == case.attributes


def test_cases_that_cannot_be_divided_are_written_without_splits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unseen = [{"name": "b", "unseen": True, "tumors": 0.0}]
    recipe = LIVERS.with_changes(cases=2, spacing_mm=9, hospitals=unseen, splits={"test": 0.4, "folds": 1})
    records = map_cases(partial(write_cohort_case, recipe=recipe, out=tmp_path), range(2), key=recipe.case_id)
    assert finish_cohort(records, recipe, tmp_path) == {"healthy": 2, "with_tumors": 0}
    assert "no splits.json: too few patients to divide; found 0 of 2 cases" in caplog.text
    assert (tmp_path / "catalog.parquet").is_file()
    assert not (tmp_path / "splits.json").exists()


def test_a_cohort_of_hospitals_is_written_with_catalog_and_splits(tmp_path: Path) -> None:
    hospitals = [{"name": "a", "share": 3.0, "diameter_mm": (24, 40)}, {"name": "b", "unseen": True, "tumors": 0.0}]
    splits = {"test": 0.4, "folds": 1, "val": 0.25, "by": "hospital, healthy"}
    recipe = LIVERS.with_changes(cases=8, spacing_mm=9, hospitals=hospitals, splits=splits)
    records = map_cases(
        partial(write_cohort_case, recipe=recipe, out=tmp_path), range(recipe.cases), key=recipe.case_id
    )
    made = finish_cohort(records, recipe, tmp_path)
    assert made["healthy"] + made["with_tumors"] == 8
    drawn_splits = read_splits(tmp_path / "splits.json")
    assert check_leaks(drawn_splits) == []
    rows = {row["id"]: row for row in read_catalog(tmp_path / "catalog.parquet").rows()}
    assert {rows[case]["attributes"]["hospital"] for case in drawn_splits.ood} == {"b"}
    fold = drawn_splits.folds[0]
    sides = [fold.train, fold.val, drawn_splits.test, drawn_splits.ood]
    assert [len(side) for side in sides] == [made["train"], made["val"], made["test"], made["ood"]]
    assert sorted(case for side in sides for case in side) == sorted(rows)
    assert {rows[case]["attributes"]["hospital"] for side in sides[:3] for case in side} == {"a"}
    for row in rows.values():
        absent = row["structures"]["liver_lesion"]["status"] == "absent"
        assert absent == row["attributes"]["healthy"]
        assert len(row["lesions"]["liver_lesion"]) > 0 or absent
    assert finish_cohort(records, recipe, tmp_path) == made
    assert "train" not in finish_cohort(records[:-1], recipe, tmp_path)


def test_a_region_leaves_the_rest_of_the_body_out() -> None:
    patient = draw_patient(3, "female")
    whole, part = (field_of_view(patient, Scanner(spacing_mm=(5.0, 5.0, 5.0), region=r)) for r in ("abdomen", "liver"))
    assert np.prod(part.shape) < 0.4 * np.prod(whole.shape)
    liver = draw_abdomen(patient, part).mask("liver")
    inner = np.zeros(liver.data.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    assert liver.data.sum() > 5000
    assert not liver.data[~inner].any()


def test_what_a_recipe_cannot_mean_is_refused_with_what_it_can() -> None:
    for override, words in {
        'hospitals=[{name="a", noise=3}]': "unknown key hospitals.0.noise, perhaps noise_hu or dose; known",
        'hospitals=[{name="a"}, {name="a"}]': "two hospitals of one name",
        'hospitals=[{name="a", kinds={wart=1}}]': "unknown wart; known: hcc",
        'hospitals=[{name="a", distractors={ghost=1}}]': "unknown ghost; known: liver_cyst",
        'hospitals=[{name="a", noise_hu=[9, 3]}]': "lower value first",
        'region="knee"': "expected one of upper, liver",
        'structures=["tail"]': "no structure tail",
    }.items():
        with pytest.raises(RecipeError, match=words):
            read_recipe(CohortRecipe, overrides=[override])


def test_every_kind_of_tumor_belongs_to_an_organ_with_a_mask() -> None:
    assert {kind.organ for kind in KINDS.values()} == set(ORGANS)
    assert all(organ.lesion in STRUCTURES for organ in ORGANS.values())
