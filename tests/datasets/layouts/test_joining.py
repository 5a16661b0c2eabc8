"""Data sets put together: patients stay one, masks find their scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.builders import SHAPE, abdomenatlas, patient, write_json
from synthoma import files
from synthoma.datasets.layouts.joining import join_datasets, join_masks, renamed, require_masks
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.errors import LayoutError
from synthoma.reading import open_dataset as open_any
from synthoma.volume import Geometry, Volume

GRID = Geometry.of(SHAPE, (2.0, 2.0, 3.0), "LPS")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        files.write_volume(patient(GRID, name).image, tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


def write_masks(folder: Path, *names: str) -> None:
    for name in names:
        files.write_volume(patient(GRID).masks[name], folder / f"{name}.nii.gz")


def test_two_cases_of_one_id_keep_their_patient_and_both_names(tmp_path: Path) -> None:
    abdomenatlas(tmp_path / "healthy", [patient(GRID, "s1"), patient(GRID, "s2")])
    abdomenatlas(tmp_path / "made", [patient(GRID, "s1"), patient(GRID, "s3")])
    whole = join_datasets([open_dataset(tmp_path / "healthy"), open_dataset(tmp_path / "made")])
    assert [case.id for case in whole] == ["s1", "s2", "s1_made", "s3"]
    assert [case.patient for case in whole] == ["s1", "s2", "s1", "s3"]
    assert renamed(whole) == {"s1_made": "s1"}
    assert whole["s1_made"].image == tmp_path / "made" / "s1" / "ct.nii.gz"


def test_masks_of_another_folder_are_joined_by_name(scans: Path, tmp_path: Path) -> None:
    write_masks(tmp_path / "masks" / "a", "liver", "spleen")
    write_masks(tmp_path / "masks" / "b" / "segmentations", "liver")
    whole = open_any(scans, masks=tmp_path / "masks")
    assert {case.id: sorted(case.masks) for case in whole} == {"a": ["liver", "spleen"], "b": ["liver"]}
    assert whole["a"].read_mask("liver").data.any()


def test_label_maps_are_joined_by_what_dataset_json_says(scans: Path, tmp_path: Path) -> None:
    labels = Volume(patient(GRID).masks["liver"].data.astype(np.uint8), GRID)
    files.write_volume(labels, tmp_path / "maps" / "a.nii.gz")
    write_json(tmp_path / "maps" / "dataset.json", {"labels": {"background": 0, "liver": 1}})
    whole = join_masks(open_dataset(scans), tmp_path / "maps")
    assert {case.id: sorted(case.masks) for case in whole} == {"a": ["liver"], "b": []}


def test_the_masks_of_a_lone_scan_lie_in_one_folder(scans: Path, tmp_path: Path) -> None:
    (scans / "b.nii.gz").unlink()
    write_masks(tmp_path / "out", "liver", "spleen")
    assert sorted(join_masks(open_dataset(scans), tmp_path / "out")["a"].masks) == ["liver", "spleen"]


def test_masks_that_fit_no_case_are_refused_and_double_ones_a_fault(scans: Path, tmp_path: Path) -> None:
    write_masks(tmp_path / "masks" / "x", "liver")
    with pytest.raises(LayoutError, match=r"no masks in .* fit a case .*expected folders or label maps named a, b"):
        join_masks(open_dataset(scans), tmp_path / "masks")
    write_masks(tmp_path / "masks" / "a", "liver")
    dataset = open_dataset(scans)
    full = replace(dataset, cases=tuple(replace(case, masks={"liver": GRID}) for case in dataset))
    joined = join_masks(full, tmp_path / "masks")
    assert [case.id for case in joined] == ["b"]
    assert "a: two masks of a structure; found liver" in str(joined.faults[0])


def test_scans_without_any_mask_say_what_to_run(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no case of .* has a mask; found 2 scans .*TotalSegmentator .*--masks"):
        require_masks(open_dataset(scans))
    write_masks(tmp_path / "masks" / "a", "liver")
    require_masks(open_any(scans, masks=tmp_path / "masks"))
