"""NRRD and MetaImage: the world of ITK is LPS, ours RAS; refusals name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, hu, oblique
from synthoma import files
from synthoma.errors import FileError, GeometryError
from synthoma.volume import Volume

sitk = pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_finds_our_voxels_where_we_put_them(tmp_path: Path, suffix: str) -> None:
    ct = hu(oblique(3))
    files.write_volume(ct, tmp_path / f"ct{suffix}")
    image = sitk.ReadImage(str(tmp_path / f"ct{suffix}"))
    for ijk in ((0, 0, 0), (8, 6, 4), (3, 5, 1)):
        lps = image.TransformIndexToPhysicalPoint(ijk)
        assert np.allclose(np.multiply(lps, (-1, -1, 1)), ct.geometry.to_mm(ijk), atol=1e-3)
        assert image.GetPixel(ijk) == ct.data[ijk]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("grid", [ANISOTROPIC, oblique(6)])
def test_what_itk_writes_lies_where_its_nifti_lies(tmp_path: Path, suffix: str, grid) -> None:
    files.write_volume(hu(grid), tmp_path / "ct.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "ct.nii.gz")), str(tmp_path / f"ct{suffix}"))
    found = files.read_image(tmp_path / f"ct{suffix}")
    assert np.array_equal(found.data, hu(grid).data)
    assert found.geometry.matches(grid, 1e-2)
    assert files.read_geometry(tmp_path / f"ct{suffix}").matches(grid, 1e-2)


@pytest.mark.parametrize(("dtype", "expected"), [(np.uint16, np.int16), (np.int32, np.int16), (np.float64, np.float32)])
def test_hu_of_other_types_are_brought_to_ours(tmp_path: Path, dtype: type, expected: type) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 5, 6), 1000, dtype)), str(tmp_path / "ct.nrrd"))
    found = files.read_image(tmp_path / "ct.nrrd")
    assert found.data.dtype == expected
    assert found.data.shape == (6, 5, 4)
    assert (found.data == 1000).all()


def test_several_numbers_a_voxel_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), str(tmp_path / "a.mha"))
    with pytest.raises(FileError, match="3 numbers a voxel"):
        files.read_image(tmp_path / "a.mha")


def test_a_fourth_axis_of_one_is_no_fourth_axis(tmp_path: Path) -> None:
    data = np.arange(120, dtype=np.int16).reshape(1, 4, 5, 6)
    sitk.WriteImage(sitk.GetImageFromArray(data, isVector=False), str(tmp_path / "a.mha"))
    assert np.array_equal(files.read_image(tmp_path / "a.mha").data, data[0].T)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_header_that_promises_too_much_or_a_cut_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ct{suffix}"
    files.write_volume(hu(ANISOTROPIC), path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"9 7 5", b"9000 9000 9000"))
    with pytest.raises(FileError, match="cut short, or its header lies"):
        files.read_image(path)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(FileError, match="cannot be read"):
        files.read_image(path)


def test_a_spacing_of_zero_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ct.mha"
    files.write_volume(hu(ANISOTROPIC), path)
    text = path.read_bytes()
    start = text.index(b"ElementSpacing")
    path.write_bytes(text[:start] + b"ElementSpacing = 1 1 1e-9" + text[text.index(b"\n", start) :])
    with pytest.raises(GeometryError, match=r"ct.mha"):
        files.read_image(path)


def test_masks_are_written_as_uint8(tmp_path: Path) -> None:
    files.write_volume(Volume(np.ones((9, 7, 5), bool), ANISOTROPIC), tmp_path / "m.nrrd")
    assert sitk.ReadImage(str(tmp_path / "m.nrrd")).GetPixelID() == sitk.sitkUInt8


NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: {}\n\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = {}\n"


@pytest.mark.parametrize(("name", "header"), [("m.nrrd", NRRD), ("m.mhd", META)])
def test_a_header_reads_voxels_beside_it_and_nowhere_else(tmp_path: Path, name: str, header: str) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    for place in (tmp_path / "secret.raw", tmp_path / "in" / "mine.raw"):
        place.write_bytes(bytes(range(8)))
    path.write_text(header.format("mine.raw"))
    assert files.read_labels(path).data.ravel(order="F").tolist() == list(range(8))
    elsewhere = ["../secret.raw", str(tmp_path / "secret.raw"), "/dev/zero", "-", "./../secret.raw", "LIST\n/dev/zero"]
    for told in elsewhere:
        path.write_text(header.format(told))
        with pytest.raises(FileError, match=f"{name} says that its voxels lie elsewhere; found"):
            files.read_labels(path)
        with pytest.raises(FileError, match="elsewhere"):
            files.read_geometry(path)
