"""Cases as DICOM: series that say what they are and name nobody, and masks as SEG of the series they were drawn on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formats.series import verify
from grids import hu
from synthoma.cases import Case
from synthoma.datasets.conversion import ConvertRecipe, convert_case, plan_conversion, require_annotated
from synthoma.datasets.dicom_writing import origin_of
from synthoma.datasets.layouts.joining import masks_on_series
from synthoma.datasets.layouts.opening import Dataset, open_dataset
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, LayoutError, RecipeError
from synthoma.formats import dicom_write
from synthoma.segmentation.outputs import require_series
from synthoma.volume import Geometry, Volume

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

GRID = Geometry.of((24, 20, 5), (2.0, 2.0, 5.0), "RAS")


def case(name: str = "p1", grid: Geometry = GRID, seed: int = 0, **attributes: Any) -> Case:
    liver, lesion = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    liver[4:20, 4:16, 1:4] = True
    lesion[6:9, 6:9, 2] = True
    masks = {"liver": Volume(liver, grid), "liver_lesion": Volume(lesion, grid)}
    return Case(name, hu(grid, seed), masks, patient="someone", attributes=attributes)


def write(folder: Path, *cases: Case, provenance: dict[str, Any] | None = None) -> Dataset:
    for one in cases:
        write_case(one, folder / one.id, provenance=provenance)
    return open_dataset(folder)


def convert(dataset: Dataset, layout: str, out: Path, *changes: tuple[str, Any]) -> list[dict[str, Any]]:
    conversion = plan_conversion(dataset, layout, out, ConvertRecipe(**dict(changes)))
    return [convert_case(one, conversion) for one in dataset]


def test_a_case_becomes_a_series_and_a_segmentation_that_are_read_as_the_same_case(tmp_path: Path) -> None:
    convert(write(tmp_path / "in", case()), "dicom", tmp_path / "out", ("drawn", "manual"))
    found = open_dataset(tmp_path / "out")["p1"]
    assert np.array_equal(found.read_image().on(GRID).data, hu(GRID).data)
    for name in ("liver", "liver_lesion"):
        assert np.array_equal(found.read_mask(name).on(GRID).data, case().read_mask(name).data)
    image = pydicom.dcmread(tmp_path / "out" / "p1" / "ct" / "00000.dcm")
    assert list(image.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]  # the patient on the back, as viewers show it
    verify(tmp_path / "out" / "p1" / "ct" / "00000.dcm", "CTImage")
    verify(tmp_path / "out" / "p1" / "segmentation.dcm", "Segmentation")


@pytest.mark.parametrize(
    ("provenance", "attributes", "synthetic"),
    [({"tumors": []}, {}, True), ({}, {"in_silico": True}, True), ({"dataset": "x"}, {}, False)],
)
def test_the_header_says_that_images_are_derived_and_whether_they_are_synthetic(
    tmp_path: Path, provenance: dict[str, Any], attributes: dict[str, Any], synthetic: bool
) -> None:
    source = write(tmp_path / "in", case(**attributes), provenance=provenance)
    records = convert(source, "dicom", tmp_path / "out", ("drawn", "manual"))
    image = pydicom.dcmread(tmp_path / "out" / "p1" / "ct" / "00002.dcm")
    assert records[0]["synthetic"] == synthetic
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert image.DerivationDescription.startswith("Synthetic" if synthetic else "Written from another file format")
    assert image.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeMeaning == "Modifying Equipment"
    assert (image.BurnedInAnnotation, image.PatientIdentityRemoved) == ("NO", "YES")
    assert image.DeidentificationMethod == "No header of the source was copied"


def test_a_series_written_from_dicom_keeps_no_identifier_and_no_word_of_it(tmp_path: Path) -> None:
    dicom_write.write_series(hu(GRID), tmp_path / "in" / "p1", "SECRET-1", description="SECRET-2", study="SECRET-3")
    before = pydicom.dcmread(tmp_path / "in" / "p1" / "00000.dcm")
    convert(open_dataset(tmp_path / "in"), "dicom", tmp_path / "out")
    after = (tmp_path / "out" / "p1" / "ct" / "00000.dcm").read_bytes()
    assert b"SECRET" not in after
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert str(before[keyword].value).encode() not in after
    assert b"p1" in after


@pytest.mark.parametrize("patient", ["x" * 200, "a\\b", "Doe^Jane", "日本"])
def test_any_id_of_a_patient_makes_a_valid_header(tmp_path: Path, patient: str) -> None:
    dicom_write.write_series(hu(GRID), tmp_path / "ct", patient)
    image = pydicom.dcmread(tmp_path / "ct" / "00000.dcm")
    assert image.PatientID == patient if patient == "日本" else len(image.PatientID) == 16
    verify(tmp_path / "ct" / "00000.dcm", "CTImage")


def test_masks_alone_become_segmentations_of_the_series_of_their_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("p1", "p2")):
        dicom_write.write_series(hu(GRID, seed), tmp_path / "dicom" / name, name)
        write(tmp_path / "masks", case(name, seed=seed))
        (tmp_path / "masks" / name / "ct.nii.gz").unlink()
    dataset = masks_on_series(tmp_path / "masks", open_dataset(tmp_path / "dicom"))
    convert(dataset, "dicom-seg", tmp_path / "out", ("drawn", "manual"))
    for name in ("p1", "p2"):
        referred = pydicom.dcmread(tmp_path / "out" / name / "segmentation.dcm").ReferencedSeriesSequence[0]
        series = pydicom.dcmread(tmp_path / "dicom" / name / "00000.dcm")
        assert referred.SeriesInstanceUID == series.SeriesInstanceUID


def test_in_a_folder_of_many_series_the_grid_of_the_masks_tells_theirs(tmp_path: Path) -> None:
    grids = {"a": GRID, "b": Geometry.of((24, 20, 5), (2.0, 2.0, 4.0), "RAS")}
    for name, grid in grids.items():
        dicom_write.write_series(hu(grid), tmp_path / name, name, description=name)
        for path in sorted((tmp_path / name).iterdir()):
            (tmp_path / "all").mkdir(exist_ok=True)
            path.rename(tmp_path / "all" / f"{name}{path.name}")
        write_case(case(f"masks_{name}", grid), tmp_path / "masks" / f"masks_{name}")
    dataset = masks_on_series(tmp_path / "masks", open_dataset(tmp_path / "all"))
    convert(dataset, "dicom-seg", tmp_path / "out", ("drawn", "manual"))
    for name in grids:
        referred = pydicom.dcmread(tmp_path / "out" / f"masks_{name}" / "segmentation.dcm").ReferencedSeriesSequence[0]
        series = pydicom.dcmread(tmp_path / "all" / f"{name}00000.dcm")
        assert referred.SeriesInstanceUID == series.SeriesInstanceUID


def test_masks_without_a_series_and_series_that_are_none_are_told(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        dicom_write.write_series(hu(GRID), tmp_path / "dicom" / name, name)
    write(tmp_path / "masks", case("p1"), case("other"))
    dataset = masks_on_series(tmp_path / "masks", open_dataset(tmp_path / "dicom"))
    assert [one.id for one in dataset] == ["p1"]
    assert "other: masks without a series; expected one of p1, p2" in str(dataset.faults[0])
    alone = masks_on_series(tmp_path / "masks", open_dataset(tmp_path / "dicom" / "p1"))  # not all on this series
    assert [one.id for one in alone] == ["p1"]
    assert "other: masks without a series; expected one of p1" in str(alone.faults[0])
    with pytest.raises(LayoutError, match="masks holds no DICOM series; found abdomenatlas"):
        masks_on_series(tmp_path / "masks", open_dataset(tmp_path / "masks"))


def test_who_drew_masks_is_read_from_their_record_or_has_to_be_said(tmp_path: Path) -> None:
    model = {"model": "liver-small", "model_digest": "0123"}
    one = write(tmp_path / "a", case(), provenance=model)["p1"]
    told = origin_of(one, "", "")
    assert (told.kind, told.name, told.details) == ("automatic", "synthoma liver-small", {"model_digest": "0123"})
    unknown = write(tmp_path / "b", case(), provenance={})["p1"]
    with pytest.raises(CaseError, match=r"p1: nobody says who drew the masks.*--set drawn=manual"):
        origin_of(unknown, "", "")
    said = origin_of(unknown, "automatic", "Total Segmentator 2.4")
    assert (said.name, said.version) == ("Total Segmentator", "2.4")
    with pytest.raises(RecipeError, match="drawn by a program"):
        plan_conversion(open_dataset(tmp_path / "b"), "dicom", tmp_path / "o", ConvertRecipe(drawn="automatic"))
    assert json.loads((tmp_path / "b" / "p1" / "case.json").read_text())["provenance"] == {}


def test_what_no_seg_can_say_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        dicom_write.write_series(hu(GRID), tmp_path / "dicom" / name, name)
    write(tmp_path / "masks", case("p1"), provenance={"model": "liver-small"})
    write(tmp_path / "masks", case("p2"), provenance={})
    dataset = masks_on_series(tmp_path / "masks", open_dataset(tmp_path / "dicom"))
    plan = partial(plan_conversion, dataset, "dicom-seg", tmp_path / "out")
    with pytest.raises(
        CaseError, match=r"^nobody says who drew the masks.*; found 1 of 2 cases: p2.*--set drawn=manual"
    ):
        require_annotated(dataset, plan(ConvertRecipe()))
    require_annotated(dataset, plan(ConvertRecipe()), allowed=1)
    require_annotated(dataset, plan(ConvertRecipe(drawn="manual")))
    other = plan(ConvertRecipe(drawn="manual", structures=("pancreas",)))
    with pytest.raises(CaseError, match=r"^there is no mask to write as DICOM SEG; found 2 of 2 cases without: p1, p2"):
        require_annotated(dataset, other)
    with pytest.raises(CaseError, match=r"^p1: there is no mask to write"):
        convert_case(dataset["p1"], other)
    bare = open_dataset(tmp_path / "dicom")  # as a series, scans without masks can be written
    require_annotated(bare, plan_conversion(bare, "dicom", tmp_path / "out", ConvertRecipe()))
    assert not (tmp_path / "out").exists()


def test_a_segmentation_is_asked_of_dicom_series_only(tmp_path: Path) -> None:
    dicom_write.write_series(hu(GRID), tmp_path / "dicom" / "p1", "p1")
    require_series(open_dataset(tmp_path / "dicom"))
    with pytest.raises(CaseError, match=r"p1: a DICOM SEG refers to a DICOM series; found ct.nii.gz; leave out"):
        require_series(write(tmp_path / "nifti", case()))
