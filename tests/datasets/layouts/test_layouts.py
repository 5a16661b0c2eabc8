"""Layouts: every convention is told from its folder, and every voxel comes back at its place in mm."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from datasets.builders import BUILDERS, SHAPE, abdomenatlas, images, msd, nnunet, patient
from grids import centers_mm, oblique, value_at
from synthoma import files
from synthoma.cases import Case
from synthoma.datasets.layouts import opening
from synthoma.datasets.layouts.listing import Listing, list_folder
from synthoma.datasets.layouts.opening import detect, open_dataset, read_case
from synthoma.errors import CaseError, FileError, LayoutError, SynthomaError
from synthoma.volume import Geometry, Volume

GRIDS = {
    "anisotropic": Geometry.of(SHAPE, (0.7, 0.9, 3.0), "LPS"),
    "slices first": Geometry.of(SHAPE, (5.0, 0.8, 0.8), "SRA"),
    "oblique": oblique(3, SHAPE),
}
GRID = GRIDS["anisotropic"]


def laid_down(layout: str, root: Path, geometry: Geometry = GRID) -> tuple[list[Case], list[str]]:
    build, names = BUILDERS[layout]
    cases = [patient(geometry, name, seed) for seed, name in enumerate(names)]
    return cases, build(root, cases)


def same_place(read: Volume, expected: Volume) -> bool:
    return np.array_equal(value_at(read, centers_mm(expected.geometry)), expected.data)


@pytest.mark.parametrize("geometry", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("layout", BUILDERS)
def test_every_layout_gives_back_every_voxel(layout: str, geometry: Geometry, tmp_path: Path) -> None:
    cases, structures = laid_down(layout, tmp_path / "set", geometry)
    dataset = open_dataset(tmp_path / "set")
    assert dataset.layout == detect(tmp_path / "set") == layout
    assert not dataset.faults
    for case in cases:
        found = dataset[case.id]
        assert set(found.masks) == set(structures)
        assert same_place(found.read_image(), case.image)
        for structure, mask in found.read_masks().items():
            assert same_place(mask, case.masks[structure]), structure


@pytest.mark.parametrize("layout", BUILDERS)
def test_a_case_is_found_by_its_id_and_travels_to_a_worker(layout: str, tmp_path: Path) -> None:
    cases, structures = laid_down(layout, tmp_path / "set")
    found = pickle.loads(pickle.dumps(read_case(tmp_path / "set" / cases[1].id)))
    assert (found.id, found.patient, found.dataset) == (cases[1].id, cases[1].id, "set")
    assert same_place(found.read_image(), cases[1].image)
    assert all(same_place(found.read_mask(name), cases[1].masks[name]) for name in structures)


def test_a_case_is_found_by_its_scan(tmp_path: Path) -> None:
    for layout, path in {
        "msd": "imagesTr/liver_0.nii.gz",
        "abdomenatlas": "s0002/ct.nii.gz",
        "abdomenatlas2": "ct/BDMAP_00000002/ct.nii.gz",
        "lits": "volume-11.nii",
    }.items():
        _, structures = laid_down(layout, tmp_path / layout)
        assert set(read_case(tmp_path / layout / path).masks) == set(structures)
    assert set(read_case(tmp_path / "abdomenatlas2/ct/BDMAP_00000001").masks) == set(structures) | {
        "spleen",
        "colon_lesion",
    }


def test_opening_looks_into_no_image(tmp_path: Path) -> None:
    for layout in sorted(BUILDERS.keys() - {"kits"}):
        laid_down(layout, tmp_path / layout)
        for path in (tmp_path / layout).rglob("*.nii*"):
            path.write_bytes(b"not an image")
        assert len([case.masks for case in open_dataset(tmp_path / layout)]) >= 2


def test_an_empty_mask_is_annotated_and_a_missing_one_is_not(tmp_path: Path) -> None:
    laid_down("abdomenatlas", tmp_path)
    case = open_dataset(tmp_path)["s0002"]
    assert not case.read_mask("colon_lesion").data.any()
    with pytest.raises(CaseError, match=r"s0002: pancreas_lesion is not annotated"):
        case.read_mask("pancreas_lesion")


def test_what_lies_beside_the_cases_is_passed_over_and_listed(tmp_path: Path) -> None:
    abdomenatlas(tmp_path, [patient(GRID, "s1")])
    for name in (".git", "__MACOSX", "notes"):
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / "s1" / "segmentations" / "Thumbs.db").write_bytes(b"what Windows leaves")
    (tmp_path / "README.md").write_text("read me")
    (tmp_path / "s1" / ".ct.nii.gz.part").write_bytes(b"half")
    (tmp_path / "s1" / "._ct.nii.gz").write_bytes(b"what macOS leaves")
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset] == ["s1"]
    assert dataset.others == (tmp_path / "notes",)
    assert not dataset.faults


def test_broken_cases_are_faults_and_the_others_stand(tmp_path: Path) -> None:
    abdomenatlas(tmp_path, [patient(GRID, name) for name in ("good", "twice", "none", "same", "lost", "record")])
    files.write_volume(patient(GRID).image, tmp_path / "twice" / "ct_portal.nii.gz")
    (tmp_path / "none" / "ct.nii.gz").unlink()
    os.link(tmp_path / "same/segmentations/liver_tumor.nii.gz", tmp_path / "same/segmentations/liver_lesion.nii.gz")
    (tmp_path / "lost" / "ct.nii.gz").unlink()
    (tmp_path / "lost" / "ct.nii.gz").symlink_to(tmp_path / "nowhere")
    (tmp_path / "record" / "case.json").write_text("{")
    (tmp_path / "empty").mkdir()
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset] == ["good"]
    said = {fault.case: str(fault) for fault in dataset.faults}
    assert said.keys() == {"twice", "none", "same", "lost", "record", "empty"}
    assert "ct.nii.gz and ct_portal.nii.gz" in said["twice"]
    assert "expected ct.nii.gz" in said["none"]
    assert "liver_lesion.nii.gz and liver_tumor.nii.gz" in said["same"]
    assert "a link to nowhere" in said["lost"]
    assert "is not JSON" in said["record"]
    with pytest.raises(LayoutError, match="several scans"):
        dataset["twice"]


def test_a_locked_folder_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abdomenatlas(tmp_path, [patient(GRID, name) for name in ("good", "a_locked_one")])

    def locked(path: Path) -> Listing:
        if path.name == "a_locked_one":
            raise FileError(f"cannot list {path}", found="Permission denied")
        return list_folder(path)

    monkeypatch.setattr(opening, "list_folder", locked)
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset] == ["good"]
    assert [fault.case for fault in dataset.faults] == ["a_locked_one"]


def test_dicom_files_without_suffix_are_known_by_their_mark(tmp_path: Path) -> None:
    laid_down("dicom", tmp_path)
    for number, path in enumerate((tmp_path / "one").iterdir()):
        path.rename(path.with_name(f"image_{number}"))
    (tmp_path / "one" / "LICENSE").write_text("free")
    assert detect(tmp_path / "one") == "dicom"
    assert read_case(tmp_path / "one").read_image().data.shape == SHAPE


def test_links_in_circles_do_not_hang(tmp_path: Path) -> None:
    abdomenatlas(tmp_path, [patient(GRID, "good")])
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset] == ["good"]
    assert {fault.case for fault in dataset.faults} == {"a", "b"}


def test_two_cases_of_one_id_are_a_fault(tmp_path: Path) -> None:
    images(tmp_path, [patient(GRID, "e\u0301"), patient(GRID, "\u00e9"), patient(GRID, "c")])
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset] == ["c", "\u00e9"]
    assert ".nii.gz and" in str(dataset.faults[0])


def test_an_unknown_folder_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="is empty"):
        detect(tmp_path)
    (tmp_path / "letters").mkdir()
    (tmp_path / "notes.txt").write_text("dear diary")
    with pytest.raises(LayoutError, match=r"found letters/, notes\.txt, expected nnunet: dataset\.json"):
        open_dataset(tmp_path)
    with pytest.raises(LayoutError, match=r"unknown layout 'ms'; expected one of nnunet, msd"):
        open_dataset(tmp_path, layout="ms")
    with pytest.raises(LayoutError, match=r"holds no case; found letters/, notes\.txt, expected lits"):
        open_dataset(tmp_path, layout="lits")
    with pytest.raises(LayoutError, match="no folder"):
        open_dataset(tmp_path / "gone")


def test_a_set_one_folder_further_down_is_hinted_at(tmp_path: Path) -> None:
    msd(tmp_path / "Task03_Liver", [patient(GRID, "liver_0")])
    with pytest.raises(LayoutError, match=r"did you mean .*Task03_Liver \(msd\)\?"):
        open_dataset(tmp_path)


def test_images_and_labels_without_dataset_json_are_not_guessed(tmp_path: Path) -> None:
    case = patient(GRID, "x")
    nnunet(tmp_path, [case])
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(LayoutError, match=r"dataset\.json is missing"):
        open_dataset(tmp_path)


def test_a_folder_of_masks_is_no_folder_of_scans(tmp_path: Path) -> None:
    abdomenatlas(tmp_path, [patient(GRID, "x")])
    with pytest.raises(LayoutError):
        open_dataset(tmp_path / "x" / "segmentations")


def test_a_bare_name_is_found_under_nnunet_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nnunet(tmp_path / "Dataset003_Kidney", [patient(GRID, "x")])
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert [case.id for case in open_dataset("Dataset003_Kidney")] == ["x"]


def test_freetumor_label_maps_are_read_when_named(tmp_path: Path) -> None:
    case = patient(GRID, "x")
    labels = np.zeros(GRID.shape, np.uint8)
    labels[case.masks["liver"].data], labels[case.masks["liver_lesion"].data] = 1, 2
    labels[case.masks["kidney"].data] = 5
    files.write_volume(case.image, tmp_path / "imagesTr" / "x.nii.gz")
    files.write_volume(Volume(labels, GRID), tmp_path / "labelsTr" / "x.nii.gz")
    assert open_dataset(f"freetumor:{tmp_path}").layout == "freetumor"
    found = open_dataset(tmp_path, layout="freetumor")["x"]
    assert set(found.masks) == {"liver", "liver_lesion", "kidney"}  # the kidney's tumors may not have been drawn
    assert all(same_place(mask, case.masks[name]) for name, mask in found.read_masks().items())


def test_pants_says_where_its_table_is(tmp_path: Path) -> None:
    laid_down("pants", tmp_path)
    assert open_dataset(tmp_path).attributes == {"metadata": tmp_path / "metadata.xlsx"}


def test_thousands_of_cases_open_without_a_look_at_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        folder = tmp_path / f"BDMAP_{number:08d}" / "segmentations"
        folder.mkdir(parents=True)
        (folder.parent / "ct.nii.gz").touch()
        (folder / "liver.nii.gz").touch()
    looks = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *args, **options: looks.append(args) or stat(*args, **options))
    assert len(open_dataset(tmp_path)) == 300
    assert len(looks) < 20


def test_real_data_is_read(real_data: Path) -> None:
    dataset = open_dataset(real_data)
    assert dataset.layout == "abdomenatlas"
    assert {"chaos", "crlm_1004", "totalseg_3mm", "sarcoma_002"} <= {case.id for case in dataset}
    assert not dataset.faults
    assert {path.name for path in dataset.others} == {"chaos_layout", "dicom_totalseg_thin"}
    assert "intestine" in dataset["totalseg_3mm"].masks


def test_real_chaos_slices_lie_where_the_whole_scan_has_them(real_data: Path) -> None:
    part = open_dataset(real_data / "chaos_layout")["3"]
    liver, whole = part.read_mask("liver"), read_case(real_data / "chaos")
    assert part.read_image().geometry.matches(liver.geometry)
    assert np.array_equal(whole.read_mask("liver").to(liver.geometry).data, liver.data)


@pytest.mark.parametrize("layout", BUILDERS)
def test_a_cut_file_is_an_error_with_the_case_when_it_is_read(layout: str, tmp_path: Path) -> None:
    laid_down(layout, tmp_path)
    for path in [p for p in tmp_path.rglob("*") if p.suffix in (".gz", ".nii", ".dcm")]:
        path.write_bytes(path.read_bytes()[:200])
    for case in open_dataset(tmp_path):
        with pytest.raises(SynthomaError, match=case.id):
            case.read_image()


@pytest.mark.parametrize("place", ["root", "case", "file"])
def test_a_name_that_is_no_unicode_is_refused_in_a_sentence(tmp_path: Path, place: str) -> None:
    odd = os.fsdecode(b"caf\xe9")
    root = tmp_path / (odd if place == "root" else "root")
    abdomenatlas(root, [patient(GRID, "s1", 0)])
    if place == "case":
        (root / "s1").rename(root / odd)
    if place == "file":
        (root / "s1" / "segmentations" / f"{odd}.nii.gz").touch()
    try:
        faults = [str(fault) for fault in open_dataset(root).faults]
    except FileError as error:
        faults = [str(error)]
    assert len(faults) == 1
    assert "xe9" in faults[0]
    assert "is not UTF-8; rename it" in faults[0]


def test_a_data_set_where_a_case_is_asked_for_names_one_of_its_cases(tmp_path: Path) -> None:
    abdomenatlas(tmp_path / "set", [patient(GRID, name) for name in ("p1", "p2")])
    with pytest.raises(CaseError, match=r"set is a data set; expected a case; give one of them: .*/set/p1$"):
        read_case(tmp_path / "set")


def test_a_case_that_is_not_there_is_not_told_of_layouts(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for path in ("nowhere", "notes/p1", "no/p1"):
        with pytest.raises(LayoutError, match=rf"no file or folder .*/{path}; expected a case's folder, its scan, or"):
            read_case(tmp_path / path)
