"""MSD: dataset.json is believed only where the folder agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.builders import SHAPE, msd, patient
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.errors import FileError, LayoutError
from synthoma.volume import Geometry

GRID = Geometry.of(SHAPE, (0.7, 0.9, 3.0), "LPS")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    msd(tmp_path / "Task03_Liver", [patient(GRID, name) for name in ("liver_0", "liver_1", "liver_2")])
    return tmp_path / "Task03_Liver"


def change(root: Path, **entries: Any) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_test_cases_come_without_masks(root: Path) -> None:
    case = open_dataset(root)["untouched"]
    assert not case.masks
    assert case.attributes == {"split": "test"}


def test_hidden_files_of_other_systems_are_no_cases(root: Path) -> None:
    (root / "imagesTr" / "._liver_0.nii.gz").write_bytes(b"macOS")
    assert not open_dataset(root).faults


def test_missing_and_extra_files_are_faults_of_their_cases(root: Path) -> None:
    (root / "labelsTr" / "liver_0.nii.gz").unlink()
    (root / "imagesTr" / "liver_1.nii.gz").rename(root / "imagesTr" / "liver_9.nii.gz")
    dataset = open_dataset(root)
    assert [case.id for case in dataset] == ["liver_2", "untouched"]
    said = [str(fault) for fault in dataset.faults]
    assert any(text.startswith("liver_0: dataset.json names a file that is not there") for text in said)
    assert any(text.startswith("liver_1: dataset.json names a file that is not there") for text in said)
    assert any("imagesTr/liver_9.nii.gz is not in dataset.json" in text for text in said)
    assert len(said) == 3


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"image": "../secret.nii.gz", "label": "x"}, "leads out of its folder"),
        ({"image": "/etc/passwd", "label": "x"}, "leads out of its folder"),
        ({"image": 7}, "names no file"),
        ({"image": "./imagesTr/liver_0.nii.gz"}, "names no file"),
        ("dataset.json", "names no file"),
    ],
)
def test_a_strange_entry_is_a_fault(root: Path, entry: Any, words: str) -> None:
    training = json.loads((root / "dataset.json").read_text())["training"]
    change(root, training=[entry, *training[1:]])
    assert any(words in str(fault) for fault in open_dataset(root).faults)


def test_a_wrong_count_is_a_fault(root: Path) -> None:
    change(root, numTraining=131)
    assert [str(fault).split("; ")[1] for fault in open_dataset(root).faults] == ["found numTraining 131, expected 3"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("labels", {"0": "background", "one": "liver"}, "no usable labels"),
        ("labels", {"0": "background", "1": 5}, "no usable labels"),
        ("labels", None, "no usable labels"),
        ("modality", {"0": "T2", "1": "ADC"}, "does not describe CT"),
        ("training", {"image": "x"}, "training is no list"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(root: Path, key: str, value: Any, words: str) -> None:
    change(root, **{key: value})
    with pytest.raises(LayoutError, match=words):
        open_dataset(root)


def test_a_broken_dataset_json_is_named(root: Path) -> None:
    (root / "dataset.json").write_text('{"training": [')
    with pytest.raises(FileError, match=r"dataset\.json is not JSON"):
        open_dataset(root)
    (root / "dataset.json").write_text("[]")
    with pytest.raises(LayoutError, match=r"dataset\.json is no table; found list"):
        open_dataset(root)


def test_raw_folders_of_the_first_nnunet_are_read(tmp_path: Path) -> None:
    msd(tmp_path, [patient(GRID, name) for name in ("liver_0", "liver_1")])
    for path in [*(tmp_path / "imagesTr").iterdir(), *(tmp_path / "imagesTs").iterdir()]:
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    dataset = open_dataset(tmp_path)
    assert not dataset.faults
    assert [case.id for case in dataset] == ["liver_0", "liver_1", "untouched"]
    assert dataset["liver_0"].read_mask("liver_lesion").data.any()


def test_a_description_from_windows_is_read(tmp_path: Path) -> None:
    msd(tmp_path, [patient(GRID, "liver_0")])
    path = tmp_path / "dataset.json"
    text = path.read_text().replace("./imagesTr/", ".\\\\imagesTr\\\\").replace("./labelsTr/", "labelsTr\\\\")
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (tmp_path / "imagesTr" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "imagesTr" / "._liver_0.nii.gz").write_bytes(b"")
    dataset = open_dataset(tmp_path)
    assert not dataset.faults
    assert [case.id for case in dataset] == ["liver_0", "untouched"]


def test_no_backslash_leads_out_of_the_folder(tmp_path: Path) -> None:
    msd(tmp_path / "set", [patient(GRID, "liver_0")])
    path = tmp_path / "set" / "dataset.json"
    path.write_text(path.read_text().replace("./imagesTr/liver_0", "..\\\\..\\\\liver_0"))
    assert any("leads out of its folder" in str(fault) for fault in open_dataset(tmp_path / "set").faults)
