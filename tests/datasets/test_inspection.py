"""One read of a case: every file once, and the same facts from whatever holds the masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scans import ABDOMEN, body

from grids import oblique
from synthoma import files
from synthoma.cases import Case, Label
from synthoma.datasets.inspection import inspect_case
from synthoma.volume import Box, Volume

VALUES = {"liver": (1, 2), "liver_lesion": (2,), "spleen": (3,), "kidney_left": (4,), "pancreas": (9,)}


def label_map() -> Volume:
    """The phantom's organs in one map; nothing has the value 9."""
    labels = np.zeros(ABDOMEN.shape, np.uint8, order="F")
    for name, values in VALUES.items():
        if values != (9,):
            labels[body().masks[name].data] = values[-1] if name != "liver" else 1
    return Volume(labels, ABDOMEN)


def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_volume(body().image, tmp_path / "ct.nii.gz")
    files.write_volume(label_map(), tmp_path / "labels.nii.gz")
    files.write_volume(body().masks["kidney_right"], tmp_path / "kidney_right.nii.gz")
    masks = {name: Label(tmp_path / "labels.nii.gz", values) for name, values in VALUES.items()}
    case = Case("p", tmp_path / "ct.nii.gz", {**masks, "kidney_right": tmp_path / "kidney_right.nii.gz"})
    read: list[str] = []
    for name in ("read_image", "read_labels"):
        original = getattr(files, name)
        monkeypatch.setattr(
            files, name, lambda path, box=None, original=original: read.append(path.name) or original(path, box)
        )
    found = inspect_case(case)
    assert sorted(read) == ["ct.nii.gz", "kidney_right.nii.gz", "labels.nii.gz"]
    assert set(found.structures) == {*VALUES, "kidney_right"}


def test_a_label_map_gives_what_its_masks_give(tmp_path: Path) -> None:
    labels = label_map()
    files.write_volume(labels, tmp_path / "labels.nii.gz")
    masks = {name: Label(tmp_path / "labels.nii.gz", values) for name, values in VALUES.items()}
    joint = inspect_case(Case("p", body().image, masks))
    apart = inspect_case(
        Case(
            "p", body().image, {name: Volume(np.isin(labels.data, values), ABDOMEN) for name, values in VALUES.items()}
        )
    )
    for name, values in VALUES.items():
        box = Box.around(np.isin(labels.data, values))
        assert joint.structures[name].box == apart.structures[name].box == box
        assert joint.structures[name].volume_ml == pytest.approx(apart.structures[name].volume_ml)
    assert joint.structures["pancreas"].box is None
    assert joint.lesions == apart.lesions
    assert joint.apart == apart.apart == {"liver_lesion": 0}


def test_centers_are_in_mm_on_an_oblique_grid() -> None:
    grid = oblique(2, (12, 10, 8))
    mask = np.zeros(grid.shape, bool)
    mask[3:6, 2:9, 4] = True
    found = inspect_case(Case("p", Volume(np.zeros(grid.shape, np.int16), grid), {"liver": Volume(mask, grid)}))
    np.testing.assert_allclose(found.structures["liver"].center_mm, grid.to_mm((4, 5, 4)))
    assert np.isnan(
        inspect_case(
            Case("p", Volume(np.zeros(grid.shape, np.int16), grid), {"liver": Volume(np.zeros_like(mask), grid)})
        )
        .structures["liver"]
        .center_mm
    ).all()


def test_the_highest_and_lowest_values_are_those_of_all_voxels() -> None:
    data = body().image.data.copy()
    data[1, 1, 1], data[5, 3, 2] = -2000, 3000
    scan = inspect_case(Case("p", Volume(data, ABDOMEN))).scan
    assert scan is not None
    assert (scan.low, scan.high) == (-2000, 3000)
