"""A written case: the same voxels, names and facts come back, in the same bytes every time."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from datasets.builders import SHAPE, patient
from grids import oblique
from synthoma import disk, files
from synthoma.cases import Case, find_lesions
from synthoma.datasets.layouts.opening import open_dataset, read_case
from synthoma.datasets.writing import write_case, write_files
from synthoma.errors import GeometryError
from synthoma.volume import Geometry, Volume

GRIDS = [Geometry.of(SHAPE, (0.7, 0.9, 3.0), "LPS"), oblique(7, SHAPE)]


@pytest.mark.parametrize("geometry", GRIDS, ids=["anisotropic", "oblique"])
def test_a_written_case_reads_back_the_same(geometry: Geometry, tmp_path: Path) -> None:
    case = replace(patient(geometry, "s1"), patient="P 7", dataset="home", attributes={"phase": "portal", "age": 61})
    write_case(case, tmp_path / "set" / "s1")
    for found in (read_case(tmp_path / "set" / "s1"), open_dataset(tmp_path / "set")["s1"]):
        assert (found.id, found.patient, found.dataset) == ("s1", "P 7", "set")
        assert found.attributes == case.attributes
        assert found.masks.keys() == case.masks.keys()
        assert np.array_equal(found.read_image().data, case.image.data)
        assert found.read_image().geometry.matches(geometry, 1e-3)
        for name, mask in found.each_mask():
            assert np.array_equal(mask.data, case.masks[name].data)


def test_files_are_as_abdomenatlas_has_them(tmp_path: Path) -> None:
    case = patient(GRIDS[1], "s1")
    masks = {"pancreas_lesion": case.masks["spleen"], "liver": case.masks["liver"]}
    write_case(replace(case, masks=masks), tmp_path)
    assert {path.name for path in (tmp_path / "segmentations").iterdir()} == {
        "pancreatic_lesion.nii.gz",
        "liver.nii.gz",
    }
    scan, mask = (nibabel.load(tmp_path / name) for name in ("ct.nii.gz", "segmentations/liver.nii.gz"))
    assert mask.get_data_dtype() == np.uint8
    for image in (scan, mask):
        assert np.allclose(image.get_sform(), image.get_qform(), atol=1e-3)
    assert np.array_equal(scan.affine, mask.affine)


def test_the_record_lists_every_lesion_and_where_the_case_comes_from(tmp_path: Path) -> None:
    case = patient(GRIDS[0], "s1")
    write_case(case, tmp_path, provenance={"recipe": "liver"})
    record = json.loads((tmp_path / "case.json").read_text())
    assert record["provenance"] == {"recipe": "liver"}
    assert [lesion["organ"] for lesion in record["lesions"]] == ["liver", "liver", "kidney"]
    first = find_lesions(case.masks["liver_lesion"], "liver")[0]
    assert record["lesions"][0]["volume_ml"] == first.volume_ml
    assert record["lesions"][0]["box"] == [list(first.box.lower), list(first.box.upper)]
    write_case(case, tmp_path, lesions=[replace(first, synthetic=True)])
    record = json.loads((tmp_path / "case.json").read_text())
    assert [lesion["synthetic"] for lesion in record["lesions"]] == [True]


def test_the_same_case_gives_the_same_bytes_and_their_digests(tmp_path: Path) -> None:
    one, two = (write_case(patient(GRIDS[1], "s1"), tmp_path / name) for name in "ab")
    assert one == two
    for file in one["files"]:
        assert (tmp_path / "a" / file["path"]).read_bytes() == (tmp_path / "b" / file["path"]).read_bytes()
        assert disk.digest(tmp_path / "a" / file["path"]) == file["digest"]
    listed = {file["path"] for file in one["files"]}
    assert listed == {p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*") if p.is_file()}


def test_a_mask_on_another_grid_leaves_no_record(tmp_path: Path) -> None:
    scan = patient(GRIDS[0], "s1").image
    case = Case("s1", scan, {"liver": Volume(np.ones(SHAPE, bool), Geometry.of(SHAPE, 2.0))})
    with pytest.raises(GeometryError, match="s1: the liver mask's grid differs"):
        write_case(case, tmp_path)
    assert not (tmp_path / "case.json").exists()


def test_mask_files_as_we_write_them_are_copied_and_others_are_written_anew(tmp_path: Path) -> None:
    case = patient(GRIDS[1], "s1")
    packed = tmp_path / "in" / "liver.nii.gz"
    files.write_volume(Volume(case.masks["liver"].data, GRIDS[1]), packed, level=3)  # other bytes than ours
    for name in ("spleen.nii", "colon.nrrd"):
        files.write_volume(Volume(case.masks[name.split(".")[0]].data, GRIDS[1]), tmp_path / "in" / name)
    wide = Volume(case.masks["kidney"].data.astype(np.uint16), GRIDS[1])
    files.write_volume(wide, tmp_path / "in" / "kidney.nii.gz")
    sources = {path.name.split(".")[0]: path for path in (tmp_path / "in").iterdir()}
    scan = files.read_geometry(packed)  # as a file stores it
    held = replace(
        case, image=Volume(case.image.data, scan), masks=sources | {"kidney_left": case.masks["kidney_left"]}
    )
    write_files(held, tmp_path / "out", list(held.masks), copy=True)
    found = read_case(tmp_path / "out")
    assert (tmp_path / "out" / "segmentations" / "liver.nii.gz").read_bytes() == packed.read_bytes()
    assert nibabel.load(tmp_path / "out" / "segmentations" / "kidney.nii.gz").get_data_dtype() == np.uint8
    for name, mask in found.each_mask():
        assert np.array_equal(mask.data, case.masks[name].data), name


NAME = b"DOE^JANE"


def hidden(path: Path, where: str) -> None:
    """Puts a patient's name into a packed mask, where tools leave such things."""
    image = nibabel.load(path)
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    if where == "extension":
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"{'PatientName': 'DOE^JANE'}"))
    elif where in image.header:
        image.header[where] = NAME
    nibabel.save(image, path)
    raw = gzip.decompress(path.read_bytes())
    if where == "behind the voxels":
        path.write_bytes(gzip.compress(raw + NAME, mtime=0))
    if where == "name of the frame":
        with path.open("wb") as file, gzip.GzipFile("DOE^JANE.nii", "wb", fileobj=file, mtime=0) as frame:
            frame.write(raw)


@pytest.mark.parametrize(
    "where",
    [
        "descrip",
        "db_name",
        "aux_file",
        "intent_name",
        "data_type",
        "extension",
        "behind the voxels",
        "name of the frame",
    ],
)
def test_no_name_in_a_mask_is_passed_on(tmp_path: Path, where: str) -> None:
    write_case(patient(GRIDS[1], "s1"), tmp_path / "in")
    path = tmp_path / "in" / "segmentations" / "liver.nii.gz"
    hidden(path, where)
    assert NAME in path.read_bytes() + gzip.decompress(path.read_bytes())
    written = read_case(tmp_path / "in")
    write_files(written, tmp_path / "out", list(written.masks), lesions=[], copy=True)
    for file in (tmp_path / "out").rglob("*.nii.gz"):
        assert NAME not in file.read_bytes() + gzip.decompress(file.read_bytes()), file.name
    assert np.array_equal(read_case(tmp_path / "out").read_mask("liver").data, written.read_mask("liver").data)


def test_a_mask_on_a_grid_that_is_squared_when_written_is_not_copied(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[2, 0] = 0.002
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), affine), tmp_path / "liver.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.int16), affine), tmp_path / "ct.nii.gz")
    case = Case("s1", tmp_path / "ct.nii.gz", {"liver": tmp_path / "liver.nii.gz"})
    write_files(case, tmp_path / "out", ["liver"], lesions=[], copy=True)
    paths = (tmp_path / "out" / "ct.nii.gz", tmp_path / "out" / "segmentations" / "liver.nii.gz")
    one, two = (files.read_geometry(path) for path in paths)
    assert one == two != files.read_geometry(tmp_path / "ct.nii.gz")


def test_lesions_are_found_in_a_mask_that_could_be_copied(tmp_path: Path) -> None:
    case = patient(GRIDS[0], "s1")
    write_case(case, tmp_path / "in")
    written = read_case(tmp_path / "in")
    write_files(written, tmp_path / "out", list(written.masks), copy=True)
    one, two = (json.loads((tmp_path / name / "case.json").read_text())["lesions"] for name in ("in", "out"))
    assert sorted((lesion["organ"], lesion["voxels"]) for lesion in one) == sorted(
        (lesion["organ"], lesion["voxels"]) for lesion in two
    )
