"""nnU-Net: one CT channel, regions, consecutive labels and its splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.builders import SHAPE, nnunet, patient, write_json
from synthoma import files
from synthoma.cases import Label
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.errors import LayoutError
from synthoma.volume import Geometry

GRID = Geometry.of(SHAPE, (0.7, 0.9, 3.0), "LPS")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    nnunet(tmp_path / "Dataset220_KiTS", [patient(GRID, name) for name in ("case_1", "case_2")])
    return tmp_path / "Dataset220_KiTS"


def change(root: Path, **entries: Any) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_regions_are_structures_of_several_values(root: Path) -> None:
    change(root, labels={"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "ignore": 4})
    masks = open_dataset(root)["case_1"].masks
    path = root / "labelsTr" / "case_1.nii.gz"
    assert masks == {
        "kidney": Label(path, (1, 2, 3)),
        "masses": Label(path, (2, 3)),
        "kidney_lesion": Label(path, (2,)),
        "ignore": Label(path, (4,)),
    }


def test_test_cases_need_no_labels(root: Path) -> None:
    for name in ("seen", "unseen"):
        files.write_volume(patient(GRID).image, root / "imagesTs" / f"{name}_0000.nii.gz")
    files.write_volume(open_dataset(root)["case_1"].read_mask("kidney"), root / "labelsTs" / "seen.nii.gz")
    dataset = open_dataset(root)
    assert not dataset.faults
    assert "kidney" in dataset["seen"].masks
    assert not dataset["unseen"].masks
    assert dataset["seen"].attributes == dataset["unseen"].attributes == {"split": "test"}


def test_what_does_not_fit_is_a_fault(root: Path) -> None:
    scan = patient(GRID).image
    for name in ("two_0000", "two_0001", "unlabeled_0000", "odd"):
        files.write_volume(scan, root / "imagesTr" / f"{name}.nii.gz")
    files.write_volume(open_dataset(root)["case_1"].read_mask("kidney"), root / "labelsTr" / "alone.nii.gz")
    dataset = open_dataset(root)
    assert [case.id for case in dataset] == ["case_1", "case_2"]
    said = " | ".join(map(str, dataset.faults))
    assert "two: one CT channel a case; found channels ['0000', '0001']" in said
    assert "unlabeled: the case has no label map; expected labelsTr/unlabeled.nii.gz" in said
    assert "imagesTr/odd.nii.gz is not named as nnU-Net asks" in said
    assert "alone: a label map without an image; expected imagesTr/alone_0000.nii.gz" in said
    assert "found numTraining 2, expected 4" in said


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("channel_names", {"0": "T1", "1": "T2"}, "does not describe CT"),
        ("file_ending", ".png", "file_ending; found .png"),
        ("file_ending", None, "file_ending"),
        ("labels", {"background": 0, "liver": 2}, "gaps; found .0, 2."),
        ("labels", {"background": 0, "liver": "one"}, "no usable labels"),
        ("labels", {"background": 0, "liver": True}, "no usable labels"),
        ("labels", {"background": 0, "liver": []}, "no usable labels"),
        ("labels", [], "no usable labels"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(root: Path, key: str, value: Any, words: str) -> None:
    change(root, **{key: value})
    with pytest.raises(LayoutError, match=words):
        open_dataset(root)


def test_splits_are_found_here_or_among_the_preprocessed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_dataset(root).attributes == {}
    folds = [{"train": ["case_1"], "val": ["case_2"]}]
    write_json(tmp_path / "preprocessed" / root.name / "splits_final.json", folds)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    assert open_dataset(root).attributes == {"splits": folds}
    write_json(root / "splits_final.json", folds[::-1] * 2)
    assert open_dataset(root).attributes == {"splits": folds * 2}
    write_json(root / "splits_final.json", [{"train": "case_1"}])
    with pytest.raises(LayoutError, match="holds no splits"):
        open_dataset(root)


def test_what_dataset_json_lists_itself_lies_anywhere(root: Path) -> None:
    (root / "imagesTr").rename(root.parent / "scans")
    images, label = ["..\\scans\\case_1_0000.nii.gz"], "labelsTr/case_1.nii.gz"
    listed = {
        "first": {"images": images, "label": label},
        "second": {"images": [str(root.parent / "scans" / "case_2_0000.nii.gz")], "label": "./labelsTr/case_2.nii.gz"},
        "gone": {"images": ["nowhere.nii.gz"], "label": label},
        "two": {"images": [*images, *images], "label": label},
        "odd": ["a", "b"],
    }
    change(root, dataset=listed)
    dataset = open_dataset(root)
    assert [case.id for case in dataset] == ["first", "second"]
    assert dataset["first"].image == root.parent / "scans" / "case_1_0000.nii.gz"
    assert dataset["second"].read_mask("kidney").data.any()
    assert {fault.case for fault in dataset.faults} == {"gone", "two", "odd"}
