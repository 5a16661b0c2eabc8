"""Every fault by its phantom, clean cases without any, and a report over all."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scans import ABDOMEN, body

from grids import oblique
from synthoma import files
from synthoma.cases import Case, Label
from synthoma.datasets.catalog import describe_case, read_catalog, write_catalog
from synthoma.datasets.findings import summarise
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.datasets.validation import CODES, ValidateRecipe, check_case
from synthoma.engine.mapping import map_cases
from synthoma.engine.records import CaseRecord
from synthoma.errors import LayoutError, RecipeError
from synthoma.recipe import read_recipe
from synthoma.volume import Geometry, Volume

BODY = body()
CT = BODY.read_image()


def codes(case: Case, recipe: ValidateRecipe | None = None) -> list[str]:
    return [fault["code"] for fault in check_case(case, recipe)["faults"]]


def with_hu(change: Callable[[np.ndarray], np.ndarray]) -> Case:
    """The body with other values."""
    return Case("hu", Volume(change(CT.data.astype(np.float32)).astype(np.float32), CT.geometry))


def with_masks(**masks: Volume | None) -> Case:
    """The body with some masks replaced, or taken away."""
    changed = {**BODY.masks, **masks}
    return Case("masks", CT, {name: mask for name, mask in changed.items() if mask is not None})


def block(lower: tuple[int, int, int], upper: tuple[int, int, int], value: int = 1) -> Volume:
    data = np.zeros(ABDOMEN.shape, np.uint8, order="F")
    data[tuple(slice(low, high) for low, high in zip(lower, upper, strict=True))] = value
    return Volume(data, ABDOMEN)


def one_nan(hu: np.ndarray) -> np.ndarray:
    hu[3, 4, 5] = np.nan
    return hu


def wrapped(hu: np.ndarray) -> np.ndarray:
    return np.where(hu < 0, hu + 4096, hu)


HU_FAULTS = {
    "NaN": (one_nan, ["hu_not_finite"]),
    "infinity": (lambda hu: np.where(hu > 300, np.inf, hu), ["hu_not_finite"]),
    "constant": (lambda hu: np.full_like(hu, -7), ["hu_constant"]),
    "zero to one": (lambda hu: (hu + 1024) / 4095, ["hu_normalized"]),
    "unit variance": (lambda hu: (hu - hu.mean()) / hu.std(), ["hu_normalized"]),
    "eight bits": (lambda hu: np.rint(np.clip((hu + 160) / 400, 0, 1) * 255), ["hu_normalized"]),
    "unsigned": (lambda hu: np.clip(hu + 1024, 0, 4095), ["hu_offset"]),
    "rescaled twice": (lambda hu: hu - 1024, ["hu_offset"]),
    "wrapped": (wrapped, ["hu_wrapped"]),
    "not a CT": (lambda hu: 5 * hu + 6000, ["hu_no_tissue"]),
    "windowed": (lambda hu: np.clip(hu, -160, 240), ["hu_clipped"]),
    "windowed widely": (lambda hu: np.clip(hu, -1000, 1000), []),
}


@pytest.mark.parametrize("how", HU_FAULTS)
def test_hu_that_are_not_hu_are_named(how: str) -> None:
    change, expected = HU_FAULTS[how]
    assert codes(with_hu(change)) == expected


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_clean_case_has_no_fault(seed: int) -> None:
    assert check_case(body(seed=seed))["faults"] == []


def test_a_clean_case_on_an_oblique_grid_has_no_fault() -> None:
    turn = oblique(1).affine[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = turn / np.linalg.norm(turn, axis=0) * (5.0, 5.0, 7.0)
    tilted = Geometry(CT.data.shape, affine)
    recipe = ValidateRecipe(swapped_mm=1e6)
    assert codes(Case("tilted", Volume(CT.data, tilted)), recipe) == []


def test_the_row_is_the_one_describe_case_gives() -> None:
    assert check_case(BODY)["row"] == describe_case(BODY)


def test_every_fault_says_what_was_found_and_the_way_out() -> None:
    elsewhere = Volume(BODY.masks["liver"].data, Geometry(CT.geometry.shape, CT.geometry.affine * 1.01))
    (fault,) = check_case(with_masks(liver=elsewhere, liver_lesion=None, spleen=None))["faults"]
    assert (fault["code"], fault["severity"], fault["structure"]) == ("mask_elsewhere", "fault", "liver")
    assert fault["found"].endswith("mm apart")
    assert all(fault[key] for key in ("expected", "fix"))


def test_masks_on_the_scans_grid_with_other_axes_are_the_same_masks() -> None:
    turned = {name: mask.reorient("SRP") for name, mask in BODY.masks.items()}
    assert check_case(with_masks(**turned)) == check_case(with_masks())


def test_grids_that_differ_are_told_apart() -> None:
    liver = BODY.masks["liver"]
    moved = CT.geometry.affine.copy()
    moved[0, 3] += 2.5
    shifted = Volume(liver.data, Geometry(liver.data.shape, moved))
    (fault,) = check_case(with_masks(liver=shifted, liver_lesion=None))["faults"]
    assert (fault["code"], fault["found"]) == ("mask_elsewhere", "corners 2.50 mm apart")
    fewer = Volume(liver.data[..., :-1], Geometry((72, 56, 39), CT.geometry.affine))
    assert codes(with_masks(liver=fewer, liver_lesion=None)) == ["mask_shape"]
    assert codes(with_masks(liver=shifted, liver_lesion=None), ValidateRecipe(mask_tolerance_mm=3)) == []


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [
        ((1.0, 1.0, 1.0), ["spacing_lost"]),
        ((0.02, 5.0, 7.0), ["spacing_implausible"]),
        ((5, 5, 30), ["spacing_implausible"]),
    ],
)
def test_strange_spacings_are_named(spacing_mm: tuple[float, float, float], expected: list[str]) -> None:
    assert codes(Case("s", Volume(CT.data, Geometry.of(CT.data.shape, spacing_mm, "LPS")))) == expected


def test_a_sheared_affine_is_named() -> None:
    affine = CT.geometry.affine.copy()
    affine[1, 2] = 7 * np.tan(np.radians(10))
    (fault,) = check_case(Case("tilt", Volume(CT.data, Geometry(CT.data.shape, affine))))["faults"]
    assert (fault["code"], fault["found"]) == ("affine_sheared", "axes at 80.0 degrees")


def test_empty_organs_are_one_warning_and_empty_tumors_none() -> None:
    nothing = block((0, 0, 0), (0, 0, 0))
    (fault,) = check_case(with_masks(colon=nothing, pancreas=nothing, colon_lesion=nothing))["faults"]
    assert (fault["code"], fault["severity"], fault["structure"]) == ("organ_empty", "warning", "pancreas, colon")
    row = check_case(with_masks(colon_lesion=nothing))["row"]
    assert row["structures"]["colon_lesion"]["status"] == "absent"
    assert row["lesions"]["colon_lesion"] == []


def test_an_organ_at_the_end_of_the_volume_is_cut_and_may_be_small() -> None:
    (fault,) = check_case(with_masks(spleen=block((50, 30, 38), (51, 32, 40)), aorta=block((30, 30, 0), (32, 32, 40))))[
        "faults"
    ]
    assert (fault["code"], fault["structure"], fault["found"]) == ("organ_cut", "spleen", "spleen at S")


def test_an_organ_too_small_or_too_large_is_named() -> None:
    small, large = block((50, 30, 20), (52, 32, 22)), block((30, 20, 10), (60, 50, 30))
    for spleen in (small, large):
        (fault,) = check_case(with_masks(spleen=spleen))["faults"]
        assert (fault["code"], fault["expected"]) == ("organ_volume", "20 to 2500 ml")


def test_a_lesion_far_from_its_organ_is_counted() -> None:
    both = block((50, 30, 10), (53, 33, 13)).data | BODY.masks["liver_lesion"].data
    (fault,) = check_case(with_masks(liver_lesion=Volume(both, ABDOMEN)))["faults"]
    assert (fault["code"], fault["found"]) == ("lesion_apart", "1 of 2 lesions")
    assert codes(with_masks(liver_lesion=Volume(both, ABDOMEN), liver=None)) == []


def test_a_lesion_cut_out_of_its_organ_still_belongs_to_it() -> None:
    hollow = BODY.masks["liver"].data & ~BODY.masks["liver_lesion"].data
    assert codes(with_masks(liver=Volume(hollow, ABDOMEN))) == []


def test_a_mirrored_scan_has_its_sides_swapped() -> None:
    mirrored = {name: Volume(mask.data[::-1], ABDOMEN) for name, mask in BODY.masks.items()}
    faults = check_case(Case("mirror", Volume(CT.data[::-1], ABDOMEN), mirrored))["faults"]
    assert {fault["code"] for fault in faults} == {"sides_swapped"}
    assert {fault["structure"] for fault in faults} == {"liver, spleen", "kidney_right, kidney_left"}
    assert faults[0]["expected"] == "liver right of spleen"


def test_values_that_stand_for_nothing_are_named(tmp_path: Path) -> None:
    files.write_volume(CT, tmp_path / "ct.nii.gz")
    labels = BODY.masks["liver"].data.astype(np.uint8)
    labels[BODY.masks["spleen"].data] = 3
    labels[BODY.masks["pancreas"].data] = 7
    files.write_volume(Volume(labels, ABDOMEN), tmp_path / "labels.nii.gz")
    masks = {"liver": Label(tmp_path / "labels.nii.gz", (1,)), "colon_lesion": Label(tmp_path / "labels.nii.gz", (2,))}
    (fault,) = check_case(Case("map", tmp_path / "ct.nii.gz", masks))["faults"]
    assert (fault["code"], fault["found"]) == ("labels_unknown", "3, 7 in labels.nii.gz")
    row = check_case(Case("map", tmp_path / "ct.nii.gz", masks))["row"]
    assert row["structures"]["colon_lesion"]["status"] == "absent"
    (fault,) = check_case(Case("mask", tmp_path / "ct.nii.gz", {"liver": tmp_path / "labels.nii.gz"}))["faults"]
    assert (fault["code"], fault["found"]) == ("labels_several", "1, 3, 7")


def test_masks_of_0_and_255_are_masks() -> None:
    assert codes(with_masks(spleen=Volume(BODY.masks["spleen"].data.astype(np.uint8) * 255, ABDOMEN))) == []


def test_a_header_at_odds_with_itself_is_named(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(CT.data, CT.geometry.affine)
    turned = CT.geometry.affine.copy()
    turned[:, 0] *= -1
    image.set_qform(turned, 1)
    image.set_sform(CT.geometry.affine, 1)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    (fault,) = check_case(Case("odd", tmp_path / "ct.nii.gz"))["faults"]
    assert (fault["code"], fault["severity"]) == ("affine_doubtful", "warning")
    assert "sform and qform" in fault["found"]


def test_files_that_cannot_be_read_are_faults_and_the_others_are_still_checked(tmp_path: Path) -> None:
    files.write_volume(CT, tmp_path / "ct.nii.gz")
    whole = (tmp_path / "ct.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 8, 3), np.int16), np.eye(4)), tmp_path / "four.nii.gz")
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"not an image" * 100))
    files.write_volume(BODY.masks["spleen"], tmp_path / "spleen.nii.gz")
    for image, words in (("cut", "damaged|cut short"), ("four", "several volumes"), ("none", "no file")):
        case = Case("broken", tmp_path / f"{image}.nii.gz", {"spleen": tmp_path / "spleen.nii.gz"})
        result = check_case(case)
        (fault,) = result["faults"]
        assert fault["code"] == "unreadable"
        assert any(word in fault["found"] for word in words.split("|"))
        assert result["row"]["structures"]["spleen"]["status"] == "present"
        assert result["row"]["shape"] is None
    masks = {"liver": tmp_path / "text.nii.gz", "spleen": tmp_path / "spleen.nii.gz"}
    result = check_case(Case("mask", tmp_path / "ct.nii.gz", masks))
    assert [(fault["code"], fault["structure"]) for fault in result["faults"]] == [("unreadable", "liver")]
    assert result["row"]["structures"]["liver"] == {"status": "unreadable"}
    assert result["row"]["fingerprint"]


def test_several_faults_come_together() -> None:
    low = Volume(np.clip(CT.data, -160, 240), Geometry.of(CT.data.shape, 1.0, "LPS"))
    found = codes(Case("bad", low, {"liver": block((0, 0, 0), (0, 0, 0))}))
    assert found == ["spacing_lost", "hu_clipped", "mask_elsewhere", "organ_empty"]


def test_results_are_plain_json() -> None:
    for case in (BODY, with_hu(one_nan), with_hu(lambda hu: hu * np.nan)):
        json.dumps(check_case(case), allow_nan=False)


def test_codes_can_be_ignored_and_unknown_ones_are_refused() -> None:
    windowed = with_hu(lambda hu: np.clip(hu, -160, 240))
    assert codes(windowed, ValidateRecipe(ignore=("hu_clipped",))) == []
    with pytest.raises(RecipeError, match="unknown code hu_cliped; known: unreadable"):
        read_recipe(ValidateRecipe, overrides=['ignore=["hu_cliped"]'])


def test_one_scan_under_two_patients_is_a_fault_at_both() -> None:
    mirrored = Case("copy", Volume(CT.data[::-1], Geometry.of(CT.data.shape)), patient="X")
    report = summarise(map_cases(check_case, [BODY, body(seed=1), mirrored]))
    found = {(case, fault.code): fault.found for case, fault in report.findings if fault.code == "duplicate"}
    assert found == {
        ("body_0", "duplicate"): "the scan of copy of X (score 1.00)",
        ("copy", "duplicate"): "the scan of body_0 (score 1.00)",
    }
    assert [pair[:2] for pair in report.duplicates] == [("body_0", "copy")]
    assert not report.ok
    assert [row["faults"] for row in report.rows] == [["duplicate"], [], ["duplicate", "spacing_lost"]]


def test_one_scan_twice_for_a_patient_is_a_warning() -> None:
    again = Case("again", CT, BODY.masks, patient="body_0")
    report = summarise(map_cases(check_case, [BODY, again]))
    assert report.counts() == {"repeated": 1}  # told once, however many copies there are
    assert report.ok
    assert summarise(map_cases(check_case, [BODY, again]), ValidateRecipe(ignore=("repeated",))).counts() == {}


def test_a_report_holds_broken_and_crashed_cases_too(tmp_path: Path) -> None:
    records = [*map_cases(check_case, [BODY]), CaseRecord("dead", "failed", {}, "MemoryError: no room", "...")]
    report = summarise(records, None, [LayoutError("two scans", case="double", found="a, b", fix="remove one")])
    assert (report.cases, report.ok) == (3, False)
    rows = report.table()
    assert [(row["case"], row["code"]) for row in rows] == [("dead", "crashed"), ("double", "layout")]
    assert rows[1]["found"] == "two scans; found a, b; remove one"
    assert set(rows[0]) == {"case", "severity", "code", "structure", "found", "expected", "fix"}
    told = json.loads(json.dumps(report.as_dict()))
    assert (told["cases"], told["faults"], told["warnings"]) == (3, 2, 0)
    assert report.table("warning") == []
    write_catalog(report.rows, tmp_path / "catalog.parquet")
    assert [row["id"] for row in read_catalog(tmp_path / "catalog.parquet").rows()] == ["body_0"]


def test_every_code_says_what_it_means() -> None:
    assert all(code.meaning and code.fix and code.severity in ("fault", "warning") for code in CODES.values())


def test_real_data_has_no_fault_but_the_scan_it_holds_twice(real_data: Path) -> None:
    known = ("chaos", "totalseg_3mm", "totalseg_thin")
    scans = open_dataset(real_data)
    cases = [*(scans[name] for name in known), *open_dataset(real_data / "dicom_totalseg_thin")]
    report = summarise(map_cases(check_case, cases))
    faults = [(row["case"], row["code"]) for row in report.table("fault")]
    assert faults == [("dicom_totalseg_thin", "duplicate"), ("totalseg_thin", "duplicate")]
    warned = {row["case"]: row["structure"] for row in report.table("warning")}
    assert warned.keys() == {*known, ""}  # names that no command knows are told once
    assert warned["chaos"] == "colon, kidney_left, kidney_right, liver"


def test_padding_read_as_unsigned_is_a_fault_with_its_value_and_share() -> None:
    row, column = np.ogrid[: CT.data.shape[0], : CT.data.shape[1]]
    outside = ((row / CT.data.shape[0] - 0.5) ** 2 + (column / CT.data.shape[1] - 0.5) ** 2) > 0.25
    data = np.where(outside[..., None], np.float32(63536), CT.data)
    found = check_case(Case("padded", Volume(np.asfortranarray(data), CT.geometry)))["faults"]
    assert [(one["code"], one["severity"]) for one in found] == [("hu_wrapped", "fault")]
    assert re.match(r"63536 .*in 2\d\.\d% of the voxels, the padding -2000 read as unsigned", found[0]["found"])


def test_axes_that_simpleitk_refuses_are_a_warning() -> None:
    for shear, expected in ((1e-3, ["affine_skewed"]), (5e-5, []), (2e-2, ["affine_sheared"])):
        affine = CT.geometry.affine.copy()
        affine[0, 2] += shear * CT.geometry.spacing_mm[2]
        case = Case("skewed", Volume(CT.data, Geometry(CT.data.shape, affine)))
        assert codes(case) == expected


def test_names_that_no_command_knows_are_told_once() -> None:
    odd = {"vertebra": BODY.masks["liver"], "hepatoma": BODY.masks["liver"]}
    cases = [Case(name, body(seed=seed).image, odd) for name, seed in (("a", 0), ("b", 1))]
    rows = [row for row in summarise(map_cases(check_case, cases)).table() if row["code"] == "names_unknown"]
    assert [(row["case"], row["structure"], row["found"]) for row in rows] == [("", "hepatoma, vertebra", "2 names")]
