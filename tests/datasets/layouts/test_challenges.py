"""KiTS, LiTS, 3D-IRCADb and CHAOS: what each leaves open, and what is often broken in copies of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.builders import SHAPE, chaos, exclusive, ircadb, kits, lits, patient
from synthoma import files
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.errors import CaseError, FileError, GeometryError, LayoutError
from synthoma.volume import Geometry, Volume

GRID = Geometry.of(SHAPE, (0.7, 0.9, 3.0), "LPS")


def test_kits_without_a_cyst_does_not_say_there_is_none(tmp_path: Path) -> None:
    case = patient(GRID, "case_00000")
    kits(tmp_path, [case])
    labels = exclusive(case, {"kidney": 1})
    files.write_volume(labels, tmp_path / case.id / "segmentation.nii.gz")
    found = open_dataset(tmp_path)[case.id]
    assert set(found.masks) == {"kidney", "kidney_lesion"}
    assert not found.read_mask("kidney_lesion").data.any()
    (tmp_path / case.id / "instances").mkdir()
    assert set(open_dataset(tmp_path)[case.id].masks) == {"kidney", "kidney_lesion", "kidney_cyst"}


def test_one_kidney_mask_is_the_organ(tmp_path: Path) -> None:
    case = patient(GRID, "case_00000")
    kits(tmp_path, [case])
    found = open_dataset(tmp_path)[case.id]
    assert found.has_organ("kidney")
    assert np.array_equal(found.read_organ("kidney").data, case.masks["kidney"].data)


def test_kits_test_cases_have_no_masks_and_masks_alone_are_a_fault(tmp_path: Path) -> None:
    kits(tmp_path, [patient(GRID, name) for name in ("case_00000", "case_00210")])
    (tmp_path / "case_00210" / "segmentation.nii.gz").unlink()
    (tmp_path / "case_00000" / "imaging.nii.gz").unlink()
    dataset = open_dataset(tmp_path)
    assert dict(dataset["case_00210"].masks) == {}
    assert "download script" in str(dataset.faults[0])


def test_lits_volumes_stand_alone_and_label_maps_do_not(tmp_path: Path) -> None:
    lits(tmp_path, [patient(GRID, f"volume-{n}") for n in (0, 1, 2)])
    (tmp_path / "segmentation-1.nii").unlink()
    (tmp_path / "volume-2.nii").rename(tmp_path / "test-volume-2.nii")
    dataset = open_dataset(tmp_path)
    assert {case.id: sorted(case.masks) for case in dataset} == {
        "test-volume-2": [],
        "volume-0": ["liver", "liver_lesion"],
        "volume-1": [],
    }
    assert [str(fault) for fault in dataset.faults] == [
        "volume-2: a label map without a scan; found segmentation-2.nii"
    ]


def test_packed_patients_of_ircadb_say_so(tmp_path: Path) -> None:
    for name in ("3Dircadb1.1", "3Dircadb1.2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "PATIENT_DICOM.zip").touch()
    ircadb(tmp_path, [patient(GRID, "3Dircadb1.3")])
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset] == ["3Dircadb1.3"]
    assert all("unpack PATIENT_DICOM.zip" in str(fault) for fault in dataset.faults)


def test_a_patient_of_ircadb_without_tumor_folders_is_not_annotated(tmp_path: Path) -> None:
    case = patient(GRID, "3Dircadb1.1")
    ircadb(tmp_path, [case])
    for folder in (tmp_path / case.id / "MASKS_DICOM").glob("livertumor*"):
        folder.rename(tmp_path / folder.name)
    with pytest.raises(CaseError, match="liver_lesion is not annotated"):
        open_dataset(tmp_path)[case.id].read_mask("liver_lesion")


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    chaos(tmp_path, [patient(GRID, "1")])
    return tmp_path / "1" / "Ground"


def test_chaos_needs_a_drawing_for_each_slice(drawings: Path) -> None:
    next(drawings.iterdir()).unlink()
    with pytest.raises(LayoutError, match=r"1: .*Ground does not fit the scan; found 9 PNG, expected 10"):
        open_dataset(drawings.parents[1])["1"].read_mask("liver")


def test_chaos_drawings_have_the_size_of_a_slice(drawings: Path) -> None:
    cv2.imwrite(str(next(drawings.iterdir())), np.zeros((5, 5), np.uint8))
    with pytest.raises(GeometryError, match="is not the size of its slice"):
        open_dataset(drawings.parents[1])["1"].read_mask("liver")


def test_a_broken_drawing_is_named(drawings: Path) -> None:
    next(drawings.iterdir()).write_bytes(b"\x89PNG")
    with pytest.raises(FileError, match="is no readable PNG"):
        open_dataset(drawings.parents[1])["1"].read_mask("liver")


def test_masks_of_one_structure_on_two_grids_are_refused(tmp_path: Path) -> None:
    from synthoma.formats.dicom_write import write_series

    case = patient(GRID, "3Dircadb1.1")
    ircadb(tmp_path, [case])
    folder = tmp_path / case.id / "MASKS_DICOM" / "livertumor3"
    moved = Geometry(GRID.shape, GRID.affine + np.outer([1, 0, 0, 0], [0, 0, 0, 9]))
    write_series(Volume(np.zeros(SHAPE, np.int16), moved), folder, case.id)
    with pytest.raises(GeometryError, match=r"3Dircadb1\.1: the mask's grid differs"):
        open_dataset(tmp_path)[case.id].read_mask("liver_lesion")
