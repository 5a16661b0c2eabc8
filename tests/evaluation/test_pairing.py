"""Predictions in any folder find their cases; what does not fit is named."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import RECIPE, predictions, truth

from synthoma import files
from synthoma.cases import Case
from synthoma.commands import results
from synthoma.datasets.catalog import describe_case, write_catalog
from synthoma.datasets.conversion import ConvertRecipe, convert_case, finish_conversion, plan_conversion
from synthoma.datasets.layouts.opening import Dataset, open_dataset
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, FileError, LayoutError, RecipeError
from synthoma.evaluation.pairing import pair_cases, score_pair
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.evaluation.told import open_label_maps
from synthoma.recipe import make_recipe
from synthoma.volume import Geometry, Volume


@pytest.fixture
def cases(tmp_path: Path) -> Dataset:
    return open_dataset(truth(tmp_path / "truth", 3))


def perfect(pairs_of: Dataset, folder: Path, recipe: EvaluateRecipe = RECIPE) -> list[float | None]:
    """DSC of lesions, c0 healthy."""
    pairs = pair_cases(pairs_of, folder, recipe)
    found = [score_pair(pair, pairs.structures, recipe) for pair in pairs.pairs]
    return [row["dsc"] for entry in found for row in entry["rows"] if row["structure"] == "liver_lesion"]


def label_maps(cases: Dataset, folder: Path) -> None:
    for case in cases:
        organ, lesion = case.read_mask("liver"), case.read_mask("liver_lesion")
        data = organ.data.astype(np.uint8)
        data[lesion.data] = 2
        files.write_volume(Volume(data, organ.geometry), folder / f"{case.id}.nii.gz")


def test_masks_in_folders_without_scans_are_predictions(cases: Dataset, tmp_path: Path) -> None:
    for case in cases:
        shutil.copytree(cases.root / case.id / "segmentations", tmp_path / "masks" / case.id / "segmentations")
    assert perfect(cases, tmp_path / "masks") == [None, 1.0, 1.0]


def test_a_data_set_with_scans_is_predictions_too(cases: Dataset) -> None:
    assert perfect(cases, cases.root) == [None, 1.0, 1.0]


def test_label_maps_are_read_by_the_dataset_json_beside_them(cases: Dataset, tmp_path: Path) -> None:
    label_maps(cases, tmp_path / "maps")
    labels = {"labels": {"background": 0, "liver": 1, "tumor": 2}}
    (tmp_path / "maps" / "dataset.json").write_text(json.dumps(labels))
    assert perfect(cases, tmp_path / "maps") == [None, 1.0, 1.0]


def test_label_maps_are_read_in_the_values_of_the_truth(cases: Dataset, tmp_path: Path) -> None:
    recipe = ConvertRecipe(structures=("liver", "liver_lesion"))
    conversion = plan_conversion(cases, "nnunet", tmp_path / "Dataset001_Liver", recipe)
    finish_conversion(conversion, [convert_case(case, conversion) for case in cases])
    label_maps(cases, tmp_path / "maps")
    converted = open_dataset(tmp_path / "Dataset001_Liver")
    assert perfect(converted, tmp_path / "maps", EvaluateRecipe()) == [None, 1.0, 1.0]


def test_label_maps_that_nothing_explains_are_refused(cases: Dataset, tmp_path: Path) -> None:
    label_maps(cases, tmp_path / "maps")
    for case in cases:
        shutil.copy(cases.root / case.id / "segmentations" / "liver.nii.gz",
                    cases.root / case.id / "segmentations" / "spleen_lesion.nii.gz")  # fmt: skip
    with pytest.raises(LayoutError, match=r"dataset\.json with labels"):
        pair_cases(open_dataset(cases.root), tmp_path / "maps", RECIPE)


def test_label_maps_of_two_values_are_never_one_mask_but_what_their_names_say(cases: Dataset, tmp_path: Path) -> None:
    label_maps(cases, tmp_path / "maps")
    with pytest.raises(
        CaseError, match=r"values of c\d\.nii\.gz mean is not told; found 1, 2, .*--labels NAME=1,NAME=2"
    ):
        pair_cases(cases, tmp_path / "maps", RECIPE)
    named = EvaluateRecipe.model_validate({"labels": "liver=1,liver_lesion=2"})
    assert perfect(cases, tmp_path / "maps", named) == [None, 1.0, 1.0]
    for case in cases:
        lesion = case.read_mask("liver_lesion")
        files.write_volume(Volume(lesion.data, lesion.geometry), tmp_path / "lone" / f"{case.id}.nii.gz")
    assert perfect(cases, tmp_path / "lone") == [None, 1.0, 1.0]


def test_two_flat_folders_of_label_maps_need_their_names_once(cases: Dataset, tmp_path: Path) -> None:
    for folder in ("truth_maps", "maps"):
        label_maps(cases, tmp_path / folder)
    with pytest.raises(CaseError, match=r"truth_maps holds no true mask; found 3 scans alone; .*--labels liver=1"):
        results.evaluate(tmp_path / "truth_maps", tmp_path / "maps", tmp_path / "none")
    labels = {"liver": 1, "liver_lesion": 2}
    done = results.evaluate(tmp_path / "truth_maps", tmp_path / "maps", tmp_path / "run", labels=labels)
    rows = [row for record in done.records for row in record.result["rows"]]
    assert {(row["structure"], row["dsc"]) for row in rows} == {
        ("liver", 1.0),
        ("liver_lesion", 1.0),
        ("liver_lesion", None),
    }


@pytest.mark.parametrize(
    "told", [{"background": 0, "liver": 1, "tumor": 2}, {"0": "background", "1": "liver", "2": "cancer"}]
)
def test_the_labels_folder_of_a_data_set_is_a_truth_by_the_dataset_json_around_it(
    told: dict[str, object], cases: Dataset, tmp_path: Path
) -> None:
    label_maps(cases, tmp_path / "Dataset007_Liver" / "labelsTr")
    label_maps(cases, tmp_path / "maps")
    (tmp_path / "Dataset007_Liver" / "dataset.json").write_text(json.dumps({"labels": told}))
    truth_maps = open_label_maps(tmp_path / "Dataset007_Liver" / "labelsTr", {})
    assert truth_maps is not None
    assert perfect(truth_maps, tmp_path / "maps", EvaluateRecipe()) == [None, 1.0, 1.0]


@pytest.mark.parametrize("wrong", ["liver", "liver=one", "liver=0", {"liver": 70000}, ["liver"]])
def test_labels_that_name_no_values_are_refused(wrong: object) -> None:
    with pytest.raises(RecipeError, match="labels"):
        make_recipe(EvaluateRecipe, {"labels": wrong})


def test_missing_predictions_are_refused_counted_or_left_out_and_extra_ones_named(
    cases: Dataset, tmp_path: Path
) -> None:
    folder = predictions(tmp_path / "model", cases.root)
    (folder / "c1").rename(folder / "stranger")
    with pytest.raises(CaseError, match=r"1 of 3 cases have no prediction; found c1; .*missing=empty"):
        pair_cases(cases, folder, RECIPE)
    empty = pair_cases(cases, folder, RECIPE.with_changes(missing="empty"))
    assert (empty.missing, empty.extra, len(empty.pairs)) == (("c1",), ("stranger",), 3)
    row = score_pair(empty.pairs[1], empty.structures, RECIPE.with_changes(missing="empty"))["rows"][1]
    assert (row["outcome"], row["dsc"], row["missed"]) == ("false negative", 0.0, 2)
    out = pair_cases(cases, folder, RECIPE.with_changes(missing="leave_out"))
    assert [pair.id for pair in out.pairs] == ["c0", "c2"]


def test_predictions_of_other_cases_altogether_are_refused(cases: Dataset, tmp_path: Path) -> None:
    folder = predictions(tmp_path / "model", cases.root)
    for n in range(3):
        (folder / f"c{n}").rename(folder / f"x{n}")
    with pytest.raises(CaseError, match=r"no prediction in .* has the id of a case; found x0, x1, x2, expected c0"):
        pair_cases(cases, folder, RECIPE.with_changes(missing="empty"))


def test_groups_and_patients_come_from_the_catalog(cases: Dataset, tmp_path: Path) -> None:
    rows = [describe_case(case) | {"patient": "same", "fingerprint": None} for case in cases]
    write_catalog(rows, tmp_path / "catalog.parquet")
    recipe = EvaluateRecipe(catalog=str(tmp_path / "catalog.parquet"), groups=("axes", "hospital"))
    pairs = pair_cases(cases, cases.root, recipe)
    found = score_pair(pairs.pairs[0], pairs.structures, recipe)
    assert found["patient"] == "same"
    assert found["attributes"] == {"axes": "LPS", "hospital": "A"}


def test_one_scan_under_two_patients_is_refused(cases: Dataset, tmp_path: Path) -> None:
    rows = [describe_case(case) for case in cases]
    rows[1]["fingerprint"] = rows[0]["fingerprint"]
    rows[1]["patient"] = "another"
    write_catalog(rows, tmp_path / "catalog.parquet")
    with pytest.raises(CaseError, match="one scan under two patients; found p1 and another"):
        pair_cases(cases, cases.root, EvaluateRecipe(catalog=str(tmp_path / "catalog.parquet")))


def test_structures_and_groups_that_no_case_has_are_refused(cases: Dataset) -> None:
    with pytest.raises(CaseError, match="no case has the structure spleen; expected one of liver, liver_lesion"):
        pair_cases(cases, cases.root, EvaluateRecipe(structures=("spleen",)))
    with pytest.raises(CaseError, match="no case has the group clinic; expected one of dataset, hospital"):
        pair_cases(cases, cases.root, EvaluateRecipe(groups=("clinic",)))


def test_two_predictions_of_one_case_or_structure_are_refused(cases: Dataset, tmp_path: Path) -> None:
    label_maps(cases, tmp_path / "maps")
    shutil.copy(tmp_path / "maps" / "c1.nii.gz", tmp_path / "maps" / "c1.nii")
    (tmp_path / "maps" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumor": 2}}))
    with pytest.raises(CaseError, match="c1: two predictions of one id"):
        pair_cases(cases, tmp_path / "maps", RECIPE)
    folder = predictions(tmp_path / "model", cases.root) / "c2" / "segmentations"
    shutil.copy(folder / "liver_lesion.nii.gz", folder / "liver_tumor.nii.gz")
    with pytest.raises(CaseError, match="c2: two predictions of liver_lesion"):
        pair_cases(cases, tmp_path / "model", RECIPE)


def test_scores_beside_the_masks_are_read_in_their_place(cases: Dataset, tmp_path: Path) -> None:
    for case in cases:
        folder = tmp_path / "masks" / case.id
        shutil.copytree(cases.root / case.id / "segmentations", folder / "segmentations")
        lesion = case.read_mask("liver_lesion")
        levels = np.where(lesion.data, 200, 60).astype(np.uint8)
        files.write_fractions(Volume(levels, lesion.geometry), folder / "scores" / "liver_lesion.nii.gz")
    assert perfect(cases, tmp_path / "masks") == [None, 1.0, 1.0]
    pair = pair_cases(cases, tmp_path / "masks", RECIPE).pairs[1]
    (row,) = [row for row in score_pair(pair, ("liver_lesion",), RECIPE)["rows"]]
    assert row["score"] == pytest.approx(200 / 255)
    assert len(row["curve"]) == 1 + len(RECIPE.curve)


def test_a_mask_that_was_changed_is_scored_and_its_scores_are_not(cases: Dataset, tmp_path: Path) -> None:
    case = cases.cases[1]
    folder = tmp_path / "masks" / case.id
    lesion = case.read_mask("liver_lesion")
    wrong = np.roll(lesion.data, 3, axis=0)
    files.write_volume(Volume(wrong, lesion.geometry), folder / "segmentations" / "liver_lesion.nii.gz")
    levels = Volume(np.where(wrong, 200, 60).astype(np.uint8), lesion.geometry)
    files.write_fractions(levels, folder / "scores" / "liver_lesion.nii.gz")

    def scored() -> dict[str, Any]:
        recipe = RECIPE.with_changes(missing="leave_out")
        (pair,) = pair_cases(cases, tmp_path / "masks", recipe).pairs
        assert {path.parent.name for path in pair.reads().paths} >= {"segmentations", "scores"}
        assert pair.predicted is not None
        assert replace(pair.predicted, image=case.image).read_mask("liver_lesion").data.sum() == wrong.sum()
        return score_pair(pair, ("liver_lesion",), recipe)

    before = scored()
    assert before["rows"][0]["dsc"] < 1 < len(before["rows"][0]["curve"])
    assert before["notes"] == []
    for corrected in (
        lesion,
        Volume(lesion.data & (np.cumsum(lesion.data).reshape(lesion.data.shape) > 1), lesion.geometry),
    ):
        files.write_volume(corrected, folder / "segmentations" / "liver_lesion.nii.gz")
        wrong = corrected.data
        after = scored()
        assert after["rows"][0]["dsc"] > 0.9
        assert len(after["rows"][0]["curve"]) == 1
        assert "the mask was changed after its scores were made" in after["notes"][0]


def test_kidneys_predicted_as_one_are_scored_against_both_with_their_tumors(tmp_path: Path) -> None:
    grid = Geometry.of((20, 6, 6), 2.0)
    left, right, tumor = (np.zeros(grid.shape, bool) for _ in range(3))
    left[2:6, 2:4, 2:4], right[12:16, 2:4, 2:4], tumor[6:8, 2:4, 2:4] = True, True, True
    masks = {"kidney_left": left, "kidney_right": right, "kidney_lesion": tumor}
    volumes = {name: Volume(mask, grid) for name, mask in masks.items()}
    write_case(Case("one", Volume(np.zeros(grid.shape, np.int16), grid), volumes), tmp_path / "truth" / "one")
    whole = Volume(left | right | tumor, grid)
    files.write_volume(whole, tmp_path / "predicted" / "one" / "segmentations" / "kidney.nii.gz")
    for structures in ((), ("kidney",)):
        recipe = EvaluateRecipe(structures=structures)
        pairs = pair_cases(open_dataset(tmp_path / "truth"), tmp_path / "predicted", recipe)
        assert pairs.structures == ("kidney",)
        (row,) = score_pair(pickle.loads(pickle.dumps(pairs.pairs[0])), pairs.structures, recipe)["rows"]
        assert row["dsc"] == 1


def test_predictions_in_the_place_of_the_truth_are_told_from_it(cases: Dataset, tmp_path: Path) -> None:
    for case in cases:
        shutil.copytree(cases.root / case.id / "segmentations", tmp_path / "found" / case.id / "segmentations")
    with pytest.raises(
        CaseError, match=r"found holds no true mask; .*; the truth is named first, then the predictions"
    ):
        results.evaluate(tmp_path / "found", cases.root, tmp_path / "run")


@pytest.mark.parametrize("highest", [100, 255])
def test_scores_in_whole_numbers_are_refused_and_the_mask_is_not_called_changed(
    cases: Dataset, tmp_path: Path, highest: int
) -> None:
    for case in cases:
        lesion = case.read_mask("liver_lesion")
        folder = tmp_path / "run" / case.id
        files.write_volume(lesion, folder / "segmentations" / "liver_lesion.nii.gz")
        levels = Volume(np.where(lesion.data, highest, 0).astype(np.uint8), lesion.geometry)
        files.write_volume(levels, folder / "scores" / "liver_lesion.nii.gz")
    with pytest.raises(FileError, match=rf"are whole numbers; found values up to {highest}, expected probabilities"):
        perfect(cases, tmp_path / "run")
