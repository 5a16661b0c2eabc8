"""Predictions of challenges belong to their cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthoma.datasets.layouts.listing import list_folder
from synthoma.datasets.layouts.predictions import case_of_prediction, is_flat


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("volume-3", "volume-3"),
        ("segmentation-3", "volume-3"),
        ("test-segmentation-12", "test-volume-12"),
        ("prediction_00007", "case_00007"),
        ("liver_0_0000", "liver_0"),
        ("liver_0", "liver_0"),
        ("other", "other"),
    ],
)
def test_the_names_that_challenges_ask_for_lead_to_the_case(file: str, case: str) -> None:
    cases = {"volume-3", "test-volume-12", "case_00007", "liver_0", "segmentation-4"}
    assert case_of_prediction(file, cases) == case


def test_a_file_named_as_a_case_is_of_that_case() -> None:
    assert case_of_prediction("segmentation-4", {"volume-4", "segmentation-4"}) == "segmentation-4"


def test_scans_beside_their_label_maps_are_no_flat_folder(tmp_path: Path) -> None:
    (tmp_path / "segmentation-1.nii").touch()
    assert is_flat(list_folder(tmp_path))
    (tmp_path / "volume-1.nii").touch()
    assert not is_flat(list_folder(tmp_path))
