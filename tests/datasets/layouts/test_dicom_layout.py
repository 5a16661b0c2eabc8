"""Folders of DICOM as data sets: SEG and RTSTRUCT objects beside a series are its masks, whatever names they use."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from formats.contours import circle, closed, write_structures
from formats.series import AI, MANUAL
from grids import hu
from synthoma import files
from synthoma.cli.main import app
from synthoma.datasets.labels import outline_sources
from synthoma.datasets.layouts.joining import join_masks
from synthoma.datasets.layouts.opening import open_dataset, read_case
from synthoma.datasets.validation import ValidateRecipe, check_case
from synthoma.errors import FileError, LayoutError
from synthoma.formats import dicom_seg, dicom_write
from synthoma.formats.dicom_outlines import Outline
from synthoma.volume import Geometry, Volume

pytest.importorskip("highdicom")

RUN = CliRunner()
GRID = Geometry.of((32, 28, 6), (2.0, 2.0, 5.0), "LPS")


def organ(low: int, high: int) -> Volume:
    data = np.zeros(GRID.shape, bool)
    data[low:high, 8:20, 1:5] = True
    return Volume(data, GRID)


def laid_down(root: Path, *below: str) -> Path:
    """One case: a series and a SEG of a liver with two tumors; the folder of the case."""
    series = root / "p1" / Path(*below) if below else root / "p1"
    dicom_write.write_series(hu(GRID), series, "P1")
    tumors = organ(9, 12).data.copy()
    tumors[16:18, 9:12, 2:4] = True
    masks = {"liver": organ(8, 20), "liver_lesion": Volume(tumors, GRID)}
    dicom_seg.write_segmentation(masks, series, root / "p1" / "seg.dcm", AI)
    return root / "p1"


@pytest.mark.parametrize("below", [(), ("ct",), ("study", "series")])
def test_a_segmentation_beside_or_above_its_series_is_its_masks(tmp_path: Path, below: tuple[str, ...]) -> None:
    laid_down(tmp_path, *below)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, [case.id for case in dataset]) == ("dicom", ["p1"])
    case = pickle.loads(pickle.dumps(dataset["p1"]))
    assert list(case.masks) == ["liver", "liver_lesion"]
    assert np.array_equal(case.read_mask("liver").data, organ(8, 20).data)
    assert case.read_mask("liver_lesion").data.sum() == organ(9, 12).data.sum() + 12
    assert list(read_case(tmp_path / "p1").masks) == ["liver", "liver_lesion"]


def test_regions_of_a_structure_set_are_masks_by_the_words_of_planning_systems(tmp_path: Path) -> None:
    dicom_write.write_series(hu(GRID), tmp_path / "p1", "P1")
    center = GRID.to_mm((15.5, 13.5, 2))
    names = ["Kidney_L", "LIVER", "V_Venacava_I", "GTV 1", "GTV2", "Couch"]
    write_structures(
        {name: closed(circle(center, 5 + n)) for n, name in enumerate(names)},
        tmp_path / "p1",
        tmp_path / "p1" / "rs.dcm",
    )
    masks = read_case(tmp_path / "p1").masks
    assert set(masks) == {"kidney_left", "liver", "postcava", "gtv", "couch"}


@pytest.mark.parametrize(
    ("segments", "structures"),
    [
        ([("Liver", "liver"), ("Mass", "tumor")], {"liver": (1,), "liver_lesion": (2,)}),
        ([("Liver", "liver"), ("Lesion 1", ""), ("Lesion 2", "")], {"liver": (1,), "liver_lesion": (2, 3)}),
        ([("Segment_1", "kidney_left"), ("Segment_2", "")], {"kidney_left": (1,), "segment_2": (2,)}),
        ([("liver_lesion 1", "liver_lesion"), ("liver_lesion others", "liver_lesion")], {"liver_lesion": (1, 2)}),
        ([("Abdominal aorta", "aorta"), ("Portal vein", "")], {"aorta": (1,), "portal_vein": (2,)}),
        ([("left kidney", "kidney")], {"kidney_left": (1,)}),
        ([("GTV_liver", ""), ("Pancreas", "")], {"liver_lesion": (1,), "pancreas": (2,)}),
    ],
)
def test_labels_go_before_codes_where_we_know_them(
    segments: list[tuple[str, str]], structures: dict[str, tuple[int, ...]]
) -> None:
    outlines = [Outline(Path("a.dcm"), number, *names) for number, names in enumerate(segments, start=1)]
    found = outline_sources(outlines, GRID, "some")
    assert {name: source.numbers for name, source in found.items()} == structures  # type: ignore[union-attr]


def test_an_organ_twice_and_one_structure_in_two_objects_are_refused() -> None:
    liver, again = Outline(Path("a.dcm"), 1, "Liver"), Outline(Path("a.dcm"), 2, "LIVER")
    with pytest.raises(LayoutError, match=r"a.dcm holds liver twice; found 'Liver', 'LIVER'; rename one"):
        outline_sources([liver, again], GRID, "some")
    other = Outline(Path("b.dcm"), 1, "tumor 1")
    with pytest.raises(LayoutError, match=r"two objects hold masks of liver_lesion; found c.dcm and b.dcm; keep one"):
        outline_sources([liver, Outline(Path("c.dcm"), 4, "tumor 2"), other], GRID, "some")


def test_validate_reads_them_and_tells_of_those_it_cannot_read(tmp_path: Path) -> None:
    laid_down(tmp_path)
    case = open_dataset(tmp_path)["p1"]
    codes = {fault["code"] for fault in check_case(case, ValidateRecipe(), tmp_path)["faults"]}
    assert not codes & {"unreadable", "mask_elsewhere", "mask_shape", "no_masks"}
    (tmp_path / "p1" / "seg.dcm").write_bytes((tmp_path / "p1" / "seg.dcm").read_bytes()[:-20])
    broken = check_case(open_dataset(tmp_path)["p1"], ValidateRecipe(), tmp_path)["faults"]
    assert [fault for fault in broken if fault["code"] == "unreadable" and "seg.dcm" in fault["found"]]


def test_objects_in_another_folder_are_joined_to_their_series_and_to_no_other(tmp_path: Path) -> None:
    folder = laid_down(tmp_path / "ct")
    (tmp_path / "seg" / "p1").mkdir(parents=True)
    (folder / "seg.dcm").rename(tmp_path / "seg" / "p1" / "any.dcm")
    dataset = open_dataset(tmp_path / "ct")
    assert list(dataset["p1"].masks) == []
    joined = join_masks(dataset, tmp_path / "seg")
    assert np.array_equal(joined["p1"].read_mask("liver").data, organ(8, 20).data)
    assert tmp_path / "seg" / "p1" / "any.dcm" in joined["p1"].reads().paths
    dicom_write.write_series(hu(GRID, 3), tmp_path / "other" / "p1", "P1")
    with pytest.raises(FileError, match=r"p1: .*any.dcm was drawn on a series that is not here"):
        join_masks(open_dataset(tmp_path / "other"), tmp_path / "seg")


def test_objects_are_joined_to_a_scan_that_was_converted_to_nifti(tmp_path: Path) -> None:
    folder = laid_down(tmp_path / "dicom")
    files.write_volume(files.read_image(folder).reorient("RAS"), tmp_path / "nifti" / "p1.nii.gz")
    (tmp_path / "seg" / "p1").mkdir(parents=True)
    (folder / "seg.dcm").rename(tmp_path / "seg" / "p1" / "any.dcm")
    joined = join_masks(open_dataset(tmp_path / "nifti"), tmp_path / "seg")["p1"]
    assert np.array_equal(joined.read_mask("liver").reorient("LPS").data, organ(8, 20).data)


def test_a_series_without_masks_has_none_and_a_foreign_object_is_told(tmp_path: Path) -> None:
    dicom_write.write_series(hu(GRID), tmp_path / "a" / "p1", "P1")
    assert dict(open_dataset(tmp_path / "a")["p1"].masks) == {}
    dicom_write.write_series(hu(GRID, 1), tmp_path / "b" / "p1", "P1")
    dicom_seg.write_segmentation(
        {"liver": organ(8, 20)}, tmp_path / "a" / "p1", tmp_path / "b" / "p1" / "s.dcm", MANUAL
    )
    with pytest.raises(FileError, match="put it beside the series it was drawn on"):
        len(open_dataset(tmp_path / "b")["p1"].masks)


def test_whoever_has_masks_that_cannot_be_used_is_not_told_to_segment_first(tmp_path: Path) -> None:
    dicom_write.write_series(hu(GRID), tmp_path / "rt" / "p1", "P1")
    ring = closed(circle(GRID.to_mm((15.5, 13.5, 2)), 12.0))
    write_structures({"Liver": ring}, tmp_path / "rt" / "p1", tmp_path / "rt" / "p1" / "rs.dcm", frame="1.2.3")
    told = RUN.invoke(app, ["validate", str(tmp_path / "rt"), "--out", str(tmp_path / "a")])
    assert told.exit_code == 1
    assert "register the two" in told.output
    assert "no_masks" not in told.output
    folder = laid_down(tmp_path / "seg")
    for path in folder.iterdir():
        if path.name != "seg.dcm":
            path.unlink()
    told = RUN.invoke(app, ["validate", str(tmp_path / "seg"), "--out", str(tmp_path / "b")])
    assert told.exit_code == 1
    assert "no_masks" not in told.output
    assert "1 cases, 1 faults, 0 warnings" in told.output
