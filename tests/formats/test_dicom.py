"""DICOM series: read at the right place and value, and refused by name where slices do not make a volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from formats.series import Edit, edit
from grids import ANISOTROPIC, centers_mm, geometries, hu, oblique, value_at
from synthoma import files
from synthoma.errors import FileError, GeometryError, SynthomaError
from synthoma.formats import dicom, dicom_series, dicom_write
from synthoma.volume import PADDING_HU, Box, Geometry, Volume

pydicom = pytest.importorskip("pydicom")


def setting(**values: object) -> Edit:
    def change(image: pydicom.Dataset) -> None:
        for keyword, value in values.items():
            setattr(image, keyword, value)

    return change


@given(geometry=geometries())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_voxels_keep_their_place_and_value_in_a_series(
    tmp_path_factory: pytest.TempPathFactory, geometry: Geometry
) -> None:
    folder = tmp_path_factory.mktemp("series")
    ct = hu(geometry)
    dicom_write.write_series(ct, folder, "P1")
    found = files.read_image(folder)
    assert found.data.dtype == np.int16
    assert np.array_equal(value_at(found, centers_mm(geometry)), ct.data)


def test_the_order_of_the_files_does_not_matter(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        path.rename(folder / f"x{number}")
    assert np.array_equal(files.read_image(folder).data, hu(ANISOTROPIC).data)


def test_a_box_of_a_series_is_the_box_of_the_volume(folder: Path) -> None:
    box = Box((1, 2, 1), (8, 6, 3))
    whole = files.read_image(folder)
    found = files.read_image(folder, box)
    assert np.array_equal(found.data, whole.crop(box).data)
    assert found.geometry == whole.crop(box).geometry
    assert files.read_geometry(folder) == whole.geometry


def test_the_same_volume_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        dicom_write.write_series(hu(oblique(1)), tmp_path / name, "P1")
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_another_volume_gets_other_identifiers(tmp_path: Path) -> None:
    dicom_write.write_series(hu(ANISOTROPIC, 1), tmp_path / "one", "P1", study="S")
    dicom_write.write_series(hu(ANISOTROPIC, 2), tmp_path / "two", "P1", study="S")
    one, two = (pydicom.dcmread(tmp_path / name / "00000.dcm") for name in ("one", "two"))
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID


def test_slope_and_intercept_of_each_slice_are_applied(folder: Path) -> None:
    edit(folder, setting(RescaleSlope=2, RescaleIntercept=-10), "00002.dcm")
    expected = hu(ANISOTROPIC).data.astype(int)
    expected[:, :, 2] = expected[:, :, 2] * 2 - 10
    found = files.read_image(folder)
    assert found.data.dtype == np.int16
    assert np.array_equal(found.data, expected)
    edit(folder, setting(RescaleSlope=0.5, RescaleIntercept=0), "00002.dcm")
    found = files.read_image(folder)
    assert found.data.dtype == np.float32
    assert np.allclose(found.data[:, :, 2], hu(ANISOTROPIC).data[:, :, 2] * 0.5)


@pytest.mark.parametrize(
    ("value", "limit", "vr"), [(-900, None, "SS"), (64636, None, "US"), (-900, 0, "SS"), (100, -900, "SS")]
)
def test_padding_becomes_air_outside_the_field_of_view(tmp_path: Path, value: int, limit: int | None, vr: str) -> None:
    stored = np.asfortranarray(np.tile(np.int16([-900, -899, 0, 100, 101]), (9, 7, 1)))
    dicom_write.write_series(Volume(stored, ANISOTROPIC), tmp_path / "series", "P1")

    def change(image: pydicom.Dataset) -> None:
        image.RescaleIntercept = 50
        image.add_new("PixelPaddingValue", vr, value)
        if limit is not None:
            image.add_new("PixelPaddingRangeLimit", vr, limit)

    edit(tmp_path / "series", change)
    found = files.read_image(tmp_path / "series").data[4, 4]
    padded = {None: 1, 0: 3, -900: 4}[limit]
    assert found.tolist() == [PADDING_HU] * padded + [-850, -849, 50, 150, 151][padded:]


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless", "RLELossless"])
def test_compressed_series_are_read(tmp_path: Path, syntax: str) -> None:
    grid = Geometry.of((64, 48, 3), (0.7, 0.9, 3.0), "LPS")
    ct = Volume(np.clip(hu(grid).data, 0, None), grid)
    folder = tmp_path / "series"
    dicom_write.write_series(ct, folder, "P1")

    def change(image: pydicom.Dataset) -> None:
        image.PixelRepresentation = 0
        image.compress(getattr(pydicom.uid, syntax), encoding_plugin=plugin, generate_instance_uid=False)

    plugin = {"JPEG2000Lossless": "pylibjpeg", "JPEGLSLossless": "pyjpegls", "RLELossless": "pydicom"}[syntax]
    try:
        edit(folder, change)
    except RuntimeError as error:
        pytest.skip(f"no encoder here: {error}")
    assert np.array_equal(files.read_image(folder).data, ct.data)


def test_a_missing_decoder_is_named_with_the_install_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(folder, lambda image: image.compress(pydicom.uid.RLELossless))
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(FileError, match=r"00000.dcm is compressed as RLE.*pip install 'synthoma\[dicom\]'"):
        files.read_image(folder)


def drop(folder: Path, name: str) -> None:
    (folder / name).unlink()


def tilt(image: pydicom.Dataset) -> None:
    x, y, z = image.ImagePositionPatient
    image.ImagePositionPatient = [x, y + 0.2 * z, z]


def twin(folder: Path) -> None:
    image = pydicom.dcmread(folder / "00001.dcm")
    image.SOPInstanceUID = pydicom.uid.generate_uid()
    image.save_as(folder / "copy.dcm")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: drop(f, "00002.dcm"), r"missing slices; found 6.00 mm between 00001.dcm, 00003.dcm, 1 such"),
        (twin, r"1 duplicate slices; found 00001.dcm, copy.dcm both at"),
        (lambda f: edit(f, tilt), r"gantry tilt; found .* 11.3 degrees, from 00000.dcm, 00004.dcm"),
        (lambda f: edit(f, setting(PixelSpacing=[2, 2]), "00003.dcm"), r"1 of 5 differ: 00003.dcm"),
        (
            lambda f: edit(f, setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "00000.dcm"),
            r"1 of 5 differ: 00000.dcm",
        ),
        (
            lambda f: edit(f, setting(ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0])),
            "not at right angles",
        ),
        (lambda f: [drop(f, f"0000{n}.dcm") for n in range(4)], "a single slice; found 00004.dcm"),
    ],
)
def test_slices_that_make_no_volume_are_named(folder: Path, damage: Callable[[Path], object], told: str) -> None:
    damage(folder)
    for read in (files.read_image, files.read_geometry):
        with pytest.raises(GeometryError, match=told) as caught:
            read(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (setting(Modality="MR"), r"no CT series with pixels; found .*MR, 5 slices.*expected modality CT"),
        (setting(RescaleSlope=None), "no rescale slope and intercept, so no HU; found 00000.dcm, 00001.dcm"),
        (setting(NumberOfFrames=7), "00000.dcm is a multi-frame or color image; found 7 frames"),
        (setting(SamplesPerPixel=3), "00000.dcm is a multi-frame or color image"),
        (setting(PixelSpacing=None), "00000.dcm has a damaged DICOM header"),
        (setting(PixelData=bytes(10)), "00000.dcm cannot be decoded"),
        (setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "no CT series with pixels; found .*localizer"),
    ],
)
def test_series_that_are_no_ct_are_named(folder: Path, change: Edit, told: str) -> None:
    edit(folder, change)
    with pytest.raises(FileError, match=told):
        files.read_image(folder)


def test_files_without_pixels_are_left_out_and_counted(folder: Path) -> None:
    report = pydicom.dcmread(folder / "00000.dcm")
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient"):
        delattr(report, keyword)
    report.save_as(folder / "report.dcm")
    (folder / "notes.txt").write_text("not DICOM")
    series = dicom_series.list_series(folder).series
    assert [(len(one.slices), one.without_pixels) for one in series] == [(5, 1)]
    assert np.array_equal(files.read_image(folder).data, hu(ANISOTROPIC).data)


def test_several_series_are_listed_and_one_can_be_named(folder: Path) -> None:
    dicom_write.write_series(hu(oblique(1)), folder / "second", "P1", description="thin")
    with pytest.raises(FileError, match=r"several series; found .*5 slices, (synthoma|thin)\).*; .*series_uid"):
        files.read_image(folder)
    uid = pydicom.dcmread(folder / "second" / "00000.dcm").SeriesInstanceUID
    found = dicom.read_series(folder, uid)
    assert np.array_equal(value_at(found, centers_mm(oblique(1))), hu(oblique(1)).data)
    with pytest.raises(FileError, match=r"holds no series 1\.2\.3; found"):
        dicom.read_series(folder, "1.2.3")


def test_a_localizer_or_a_single_slice_beside_the_scan_is_no_second_series(folder: Path) -> None:
    for name, change in (
        ("scout", setting(SeriesInstanceUID="1.2.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        ("dose", setting(SeriesInstanceUID="1.2.4")),
        ("mr", setting(SeriesInstanceUID="1.2.5", Modality="MR")),
    ):
        image = pydicom.dcmread(folder / "00000.dcm")
        change(image)
        image.save_as(folder / name)
    assert np.array_equal(files.read_image(folder).data, hu(ANISOTROPIC).data)


def test_links_that_run_in_circles_are_walked_once(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder, target_is_directory=True)
    (folder / "again.dcm").symlink_to(folder / "00000.dcm")
    (folder / "nowhere.dcm").symlink_to(folder / "absent")
    assert np.array_equal(files.read_image(folder).data, hu(ANISOTROPIC).data)
    loop = folder.parent / "loop"
    loop.symlink_to(loop)
    with pytest.raises(FileError, match="loop"):
        files.read_image(loop)


def test_masks_stored_as_dicom_are_read_as_labels_whatever_their_modality(tmp_path: Path) -> None:
    mask = (hu(ANISOTROPIC).data > 1000) * np.int16(255)
    dicom_write.write_series(Volume(mask, ANISOTROPIC), tmp_path / "m", "P1")

    def change(image: pydicom.Dataset) -> None:
        image.Modality = "OT"
        del image.RescaleSlope, image.RescaleIntercept

    edit(tmp_path / "m", change)
    found = files.read_labels(tmp_path / "m")
    assert found.data.dtype == np.uint8
    assert np.array_equal(found.data, mask)


@pytest.mark.parametrize("length", [0, 100, 132, 200, 400, 900])
def test_cut_files_are_an_error_or_left_out(folder: Path, length: int) -> None:
    path = folder / "00002.dcm"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SynthomaError, match="series"):
        files.read_image(folder)


def test_what_dicom_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    sheared = hu(oblique(3, shear=True))
    with pytest.raises(GeometryError, match="a grid that leans by"):
        dicom_write.write_series(sheared, tmp_path / "a", "P1")
    with pytest.raises(FileError, match=r"315 voxels such as 40000, expected HU from -32768 to 32767"):
        dicom_write.write_series(Volume(np.full((9, 7, 5), 40000, np.float32), ANISOTROPIC), tmp_path / "a", "P1")
    with pytest.raises(ValueError, match="masks go to"):
        dicom_write.write_series(Volume(np.ones((9, 7, 5), bool), ANISOTROPIC), tmp_path / "a", "P1")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_files_is_not_written_into(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(FileError, match="is not empty"):
        dicom_write.write_series(hu(ANISOTROPIC), folder, "P1")
    assert sorted(folder.iterdir()) == before
    assert len(list(folder.parent.iterdir())) == 1
