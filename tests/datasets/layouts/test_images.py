"""Plain folders of scans: ids without nnU-Net's channel, and Slicer's segments beside a scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.builders import SHAPE, patient
from synthoma import files
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.volume import Geometry

GRID = Geometry.of(SHAPE, (2.0, 2.0, 3.0), "LPS")


def write_scans(folder: Path, *names: str) -> None:
    for name in names:
        files.write_volume(patient(GRID).image, folder / f"{name}.nii.gz")


@pytest.mark.parametrize("folder", ["imagesTr", "imagesTs", "scans"])
def test_the_channel_of_nnunet_is_no_part_of_the_id(tmp_path: Path, folder: str) -> None:
    write_scans(tmp_path / folder, "liver_0_0000", "liver_1_0000")
    assert [case.id for case in open_dataset(tmp_path / folder)] == ["liver_0", "liver_1"]


def test_a_second_channel_is_a_fault(tmp_path: Path) -> None:
    write_scans(tmp_path / "imagesTr", "liver_0_0000", "liver_0_0001")
    dataset = open_dataset(tmp_path / "imagesTr")
    assert [case.id for case in dataset] == ["liver_0"]
    assert "liver_0: one CT channel a case; found liver_0_0001.nii.gz" in str(dataset.faults[0])


def test_numbers_of_cases_are_no_channels(tmp_path: Path) -> None:
    write_scans(tmp_path, "insilico_0000", "insilico_0001")
    assert [case.id for case in open_dataset(tmp_path)] == ["insilico_0000", "insilico_0001"]
    write_scans(tmp_path / "one", "insilico_0000")
    assert [case.id for case in open_dataset(tmp_path / "one")] == ["insilico_0000"]


def test_a_name_that_no_file_should_have_is_changed_said_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_scans(tmp_path, "new\nline", "back\\slash", "plain (1)")
    cases = {case.id: case.attributes for case in open_dataset(tmp_path)}
    assert cases == {
        "back_slash": {"renamed_from": r"'back\\slash'"},
        "new_line": {"renamed_from": r"'new\nline'"},
        "plain (1)": {},
    }
    assert r"'new\nline' cannot be the name of a case: it is called 'new_line'" in caplog.text
