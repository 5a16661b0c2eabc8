"""Conversion: any layout in, three layouts out, and no voxel lost without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.builders import BUILDERS, SHAPE, abdomenatlas, exclusive, lits, msd, nnunet, patient
from grids import centers_mm, oblique, value_at
from synthoma import files
from synthoma.cases import Case
from synthoma.datasets.conversion import (
    ConvertRecipe,
    convert_case,
    finish_conversion,
    plan_conversion,
    require_annotated,
)
from synthoma.datasets.layouts.opening import WRITABLE, Dataset, open_dataset
from synthoma.datasets.splits import check_leaks, read_any_splits
from synthoma.errors import CaseError, GeometryError, LayoutError
from synthoma.volume import Geometry, Volume

# DICOM wants a series or who drew the masks: tests/datasets/test_dicom_writing.py
TARGETS = [layout for layout in WRITABLE if not layout.startswith("dicom")]
GRID = Geometry.of(SHAPE, (0.7, 0.9, 3.0), "LPS")


def convert(source: Path | Dataset, layout: str, out: Path, **recipe: object) -> list[dict]:
    dataset = open_dataset(source) if isinstance(source, Path) else source
    conversion = plan_conversion(dataset, layout, out, ConvertRecipe(**recipe))
    records = [convert_case(case, conversion) for case in dataset]
    finish_conversion(conversion, reversed(records))
    return records


def same_place(read: Volume, expected: Volume) -> bool:
    return np.array_equal(value_at(read, centers_mm(expected.geometry)), expected.data)


@pytest.mark.parametrize("geometry", [GRID, oblique(3, SHAPE)], ids=["anisotropic", "oblique"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", BUILDERS)
def test_a_converted_set_reads_back_the_same(source: str, target: str, geometry: Geometry, tmp_path: Path) -> None:
    build, names = BUILDERS[source]
    build(tmp_path / "in", [patient(geometry, name, seed) for seed, name in enumerate(names)])
    before = open_dataset(tmp_path / "in")
    convert(before, target, tmp_path / "out")
    after = open_dataset(tmp_path / "out")
    assert after.layout == (target if target == "abdomenatlas" or any(case.masks for case in before) else "images")
    assert not after.faults
    assert {case.id for case in after} == {case.id for case in before}
    for case in before:
        found = after[case.id]
        assert same_place(found.read_image(), case.read_image())
        assert found.masks.keys() == case.masks.keys()
        for name, mask in case.each_mask():
            assert same_place(found.read_mask(name), mask), name


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_written_is_recorded_and_nothing_else_is_there(target: str, tmp_path: Path) -> None:
    msd(tmp_path / "in", [patient(GRID, "liver_0")])
    records = convert(tmp_path / "in", target, tmp_path / "out")
    assert json.loads(json.dumps(records)) == records
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there - {"dataset.json"} == {file["path"] for record in records for file in record["files"]}


def test_masks_lost_under_others_are_counted(tmp_path: Path) -> None:
    case = patient(GRID, "s1")
    abdomenatlas(tmp_path / "in", [case])
    files.write_volume(case.masks["hepatic_vessel"], tmp_path / "in/s1/segmentations/Spleen.nii.gz")
    record = convert(tmp_path / "in", "nnunet", tmp_path / "out")[0]
    tumor, lost = case.masks["liver_lesion"].data, case.masks["hepatic_vessel"].data
    assert record["overwritten"] == {"spleen": {"liver": lost.sum()}, "liver": {"liver_lesion": tumor.sum()}}


def partly_annotated(root: Path) -> Path:
    abdomenatlas(root, [patient(GRID, name) for name in ("s1", "s2")])
    (root / "s2" / "segmentations" / "Spleen.nii.gz").unlink()
    return root


@pytest.mark.parametrize("target", ["msd", "nnunet"])
def test_a_structure_that_one_case_lacks_is_not_called_absent_unasked(target: str, tmp_path: Path) -> None:
    root = partly_annotated(tmp_path / "in")
    with pytest.raises(CaseError, match=r"s2: not annotated.*found no spleen.*--set structures"):
        convert(root, target, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("s2*"))
    convert(root, target, tmp_path / "fewer", structures=["liver", "liver_tumor"])
    assert set(open_dataset(tmp_path / "fewer")["s2"].masks) == {"liver", "liver_lesion"}
    convert(root, target, tmp_path / "empty", missing="empty")
    assert not open_dataset(tmp_path / "empty")["s2"].read_mask("spleen").data.any()


def test_cases_that_annotate_different_structures_are_refused_at_once_with_what_all_have(tmp_path: Path) -> None:
    dataset = open_dataset(partly_annotated(tmp_path / "in"))
    plan = plan_conversion(dataset, "nnunet", tmp_path / "out", ConvertRecipe())
    with pytest.raises(CaseError) as refusal:
        require_annotated(dataset, plan)
    said = str(refusal.value)
    assert "found 1 of 2 cases lack some: s2 has no spleen;" in said
    assert "--set 'structures=[" in said
    chosen = json.loads(said.split("structures=")[1].split("'")[0])
    assert "spleen" not in chosen
    assert {"liver", "liver_lesion"} <= set(chosen)
    require_annotated(dataset, plan, allowed=1)
    require_annotated(dataset, plan_conversion(dataset, "abdomenatlas", tmp_path / "out", ConvertRecipe()))
    for recipe in (ConvertRecipe(structures=tuple(chosen)), ConvertRecipe(missing="empty")):
        require_annotated(dataset, plan_conversion(dataset, "nnunet", tmp_path / "out", recipe))


def test_abdomenatlas_keeps_apart_what_is_missing_and_what_is_empty(tmp_path: Path) -> None:
    convert(partly_annotated(tmp_path / "in"), "abdomenatlas", tmp_path / "out")
    after = open_dataset(tmp_path / "out")
    assert "spleen" in after["s1"].masks
    assert "spleen" not in after["s2"].masks
    assert not after["s2"].read_mask("colon_lesion").data.any()


def test_labels_are_numbered_in_the_order_asked_for(tmp_path: Path) -> None:
    nnunet(tmp_path / "in", [patient(GRID, "k")])
    convert(tmp_path / "in", "nnunet", tmp_path / "out", structures=["kidney_lesion", "kidney"], name="Mine")
    about = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "kidney_lesion": 1, "kidney": 2}
    assert (about["name"], about["numTraining"], about["file_ending"]) == ("Mine", 1, ".nii.gz")
    labels = files.read_labels(tmp_path / "out" / "labelsTr" / "k.nii.gz").data
    assert np.array_equal(labels == 1, patient(GRID).masks["kidney_lesion"].data)


def test_image_and_labels_share_one_grid_though_the_mask_was_a_little_off(tmp_path: Path) -> None:
    case = patient(GRID, "s1")
    abdomenatlas(tmp_path / "in", [case])
    shifted = Geometry(SHAPE, GRID.affine + np.outer([1, 0, 0, 0], [0, 0, 0, 0.01]))
    for name in ("liver", "liver_tumor", "Spleen", "colon_lesion"):
        path = tmp_path / "in/s1/segmentations" / f"{name}.nii.gz"
        files.write_volume(Volume(files.read_labels(path).data, shifted), path)
    convert(tmp_path / "in", "nnunet", tmp_path / "out")
    image, labels = (tmp_path / "out" / path for path in ("imagesTr/s1_0000.nii.gz", "labelsTr/s1.nii.gz"))
    assert files.read_geometry(image) == files.read_geometry(labels)


def test_a_label_map_on_another_grid_is_refused(tmp_path: Path) -> None:
    lits(tmp_path / "in", [patient(GRID, "volume-0")])
    path = tmp_path / "in" / "segmentation-0.nii"
    files.write_volume(Volume(files.read_labels(path).data, Geometry.of(SHAPE, 1.0)), path)
    with pytest.raises(GeometryError, match=r"volume-0: the liver mask's grid differs"):
        convert(tmp_path / "in", "msd", tmp_path / "out")


@pytest.mark.parametrize("target", TARGETS)
def test_labels_outside_the_scheme_are_refused(target: str, tmp_path: Path) -> None:
    case = patient(GRID, "liver_0")
    msd(tmp_path / "in", [case])
    odd = exclusive(case, {"liver": 1, "liver_lesion": 2, "spleen": 9})
    files.write_volume(odd, tmp_path / "in" / "labelsTr" / "liver_0.nii.gz")
    with pytest.raises(LayoutError, match=r"liver_0: .*label values that no structure has; found 9"):
        convert(tmp_path / "in", target, tmp_path / "out")


def test_the_source_is_never_written_into(tmp_path: Path) -> None:
    msd(tmp_path / "in", [patient(GRID, "liver_0")])
    (tmp_path / "link").symlink_to(tmp_path / "in")
    dataset = open_dataset(tmp_path / "in")
    for out in (tmp_path / "in", tmp_path / "in" / "new", tmp_path / "link" / "new"):
        with pytest.raises(LayoutError, match="would lie in the data"):
            plan_conversion(dataset, "msd", out, ConvertRecipe())
    with pytest.raises(LayoutError, match=r"'kits' is not written; expected one of .*dicom, dicom-seg, msd, nnunet"):
        plan_conversion(dataset, "kits", tmp_path / "out", ConvertRecipe())


def test_order_of_cases_changes_no_byte(tmp_path: Path) -> None:
    msd(tmp_path / "in", [patient(GRID, f"liver_{n}", n) for n in (0, 1, 10, 2)])
    dataset = open_dataset(tmp_path / "in")
    for target in TARGETS:
        convert(dataset, target, tmp_path / target / "same")
        back = Dataset(dataset.root, dataset.layout, dataset.name, dataset.cases[::-1])
        one = snapshot(tmp_path / target / "same")
        shutil.rmtree(tmp_path / target)
        convert(back, target, tmp_path / target / "same")
        assert snapshot(tmp_path / target / "same") == one


def snapshot(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_unlabeled_scans_become_test_cases(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.write_volume(patient(GRID).image, tmp_path / "in" / f"{name}.nii.gz")
    for target in ("msd", "nnunet"):
        convert(tmp_path / "in", target, tmp_path / target)
        assert [case.attributes for case in open_dataset(tmp_path / target)] == [{"split": "test"}] * 2
        assert not (tmp_path / target / "dataset.json").exists()


@pytest.mark.parametrize("target", ["msd", "nnunet"])
def test_test_cases_stay_test_cases_and_keep_their_labels(target: str, tmp_path: Path) -> None:
    nnunet(tmp_path / "in", [patient(GRID, "seen")])
    for kind in ("images", "labels"):
        (tmp_path / "in" / f"{kind}Tr").rename(tmp_path / "in" / f"{kind}Ts")
    (tmp_path / "in" / "dataset.json").write_text(
        (tmp_path / "in" / "dataset.json").read_text().replace('"numTraining": 1', '"numTraining": 0')
    )
    convert(tmp_path / "in", target, tmp_path / "out")
    after = open_dataset(tmp_path / "out")
    assert not after.faults
    assert after["seen"].attributes == {"split": "test"}
    assert same_place(after["seen"].read_mask("kidney"), patient(GRID).masks["kidney"])


def test_in_memory_cases_are_written_too(tmp_path: Path) -> None:
    cases: Sequence[Case] = [patient(GRID, "s1")]
    convert(Dataset(tmp_path / "none", "images", "made", tuple(cases)), "abdomenatlas", tmp_path / "out")
    assert open_dataset(tmp_path / "out")["s1"].masks.keys() == cases[0].masks.keys()


@pytest.mark.parametrize("target", ["msd", "nnunet"])
def test_the_patient_travels_and_no_patient_is_on_two_sides(target: str, tmp_path: Path) -> None:
    msd(tmp_path / "in", [patient(GRID, f"liver_{number}") for number in range(6)])
    dataset = open_dataset(tmp_path / "in")
    cases = [replace(case, patient=f"p{place // 2}") for place, case in enumerate(dataset) if case.masks]
    convert(replace(dataset, cases=tuple(cases)), target, tmp_path / "out")
    after = open_dataset(tmp_path / "out")
    assert {case.id: case.patient for case in after} == {case.id: case.patient for case in cases}
    if target == "nnunet":
        folds = json.loads((tmp_path / "out" / "splits_final.json").read_text())
        assert len(folds) == 3
        splits = read_any_splits(tmp_path / "out" / "splits_final.json", {case.id: case.patient for case in after})
        assert check_leaks(splits) == []
        assert sorted(name for fold in folds for name in fold["val"]) == sorted(case.id for case in cases)


@pytest.mark.parametrize("target", ["msd", "nnunet"])
def test_a_conversion_that_failed_throughout_describes_nothing(target: str, tmp_path: Path) -> None:
    conversion = plan_conversion(
        Dataset(tmp_path / "in", "msd", "x", (patient(GRID),)), target, tmp_path / "out", ConvertRecipe()
    )
    assert finish_conversion(conversion, []) is None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_names_keep_their_letters_through_every_layout(target: str, tmp_path: Path) -> None:
    names = ("患者 01", "Müller (2)", "case", "CASE", "_a", "a.b", "[x]", "Ct", ".dot")
    dataset = Dataset(tmp_path / "in", "msd", "x", tuple(patient(GRID, name) for name in names))
    convert(dataset, target, tmp_path / "out")
    after = open_dataset(tmp_path / "out")
    assert not after.faults
    assert {case.id for case in after} == set(names)


def test_what_nobody_annotated_stays_so(tmp_path: Path) -> None:
    first, second = patient(GRID, "a"), patient(GRID, "b")
    ignored = np.zeros(SHAPE, bool, order="F")
    ignored[:3] = True
    masks = {name: first.masks[name] for name in ("liver", "liver_lesion")}
    first = replace(first, masks=masks | {"ignore": Volume(ignored, GRID)})
    second = replace(second, masks={name: second.masks[name] for name in masks})
    for target in ("nnunet", "abdomenatlas"):
        dataset = Dataset(tmp_path / "in", "msd", "x", (first, second))
        convert(dataset, target, tmp_path / target, structures=("liver_lesion", "liver"))
        found = open_dataset(tmp_path / target)["a"]
        assert np.array_equal(found.read_mask("ignore").data, ignored)
    labels = json.loads((tmp_path / "nnunet" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "liver_lesion": 1, "liver": 2, "ignore": 3}
