"""DICOM as hospitals have it: other objects beside the scan, several wrappings, and damage that names its file."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from formats.series import MANUAL, edit
from grids import ANISOTROPIC, hu
from synthoma import files
from synthoma.errors import FileError, GeometryError
from synthoma.formats import codestream, dicom, dicom_file, dicom_seg, dicom_write
from synthoma.volume import PADDING_HU, Box, Geometry, Volume

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)


def beside(folder: Path, name: str, **values: object) -> None:
    """A further object, made of a slice with some elements changed or (None) taken away."""
    image = pydicom.dcmread(folder / "00001.dcm")
    for keyword, value in {"SOPInstanceUID": pydicom.uid.generate_uid(), **values}.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    image.save_as(folder / name)


def is_whole(folder: Path) -> bool:
    return np.array_equal(files.read_image(folder).data, hu(ANISOTROPIC).data)


CUTS = {
    "before the pixels": lambda whole: whole[: whole.index(b"\xe0\x7f\x10\x00")],
    "in the header": lambda whole: whole[:420],
    "after the letters": lambda whole: whole[:132],
    "in the preamble": lambda whole: whole[:100],
    "to nothing": lambda whole: b"",
    "in the pixels": lambda whole: whole[:-20],
    "by other bytes": lambda whole: b"<html>not found</html>" * 20,
}


@pytest.mark.parametrize("name", ["00000.dcm", "00002.dcm", "00004.dcm"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_slice_that_is_damaged_is_named_wherever_it_lies(folder: Path, name: str, cut: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(CUTS[cut](whole))
    with pytest.raises(FileError, match=f"/{name} (is|cannot|has)"):
        files.read_image(folder)


@pytest.mark.parametrize("cut", ["before the pixels", "in the header", "to nothing"])
def test_damage_is_named_too_where_files_have_no_suffix(folder: Path, cut: str) -> None:
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"IM{number:06d}")
    path = folder / "IM000004"
    path.write_bytes(CUTS[cut](path.read_bytes()))
    with pytest.raises(FileError, match="/IM000004 is"):
        files.read_image(folder)


def test_a_slice_without_a_position_is_not_left_out_silently(folder: Path) -> None:
    edit(folder, lambda image: delattr(image, "ImagePositionPatient"), "00004.dcm")
    with pytest.raises(FileError, match=r"00004.dcm has no position in the patient"):
        files.read_image(folder)


@pytest.mark.parametrize("names", [("00003.dcm",), ("00000.dcm", "00001.dcm", "00004.dcm"), ()])
def test_slices_that_do_not_say_what_they_are_count(folder: Path, names: tuple[str, ...]) -> None:
    edit(folder, lambda image: delattr(image, "SOPClassUID"), *names)
    assert is_whole(folder)


def test_files_that_are_no_slices_do_not_count(folder: Path) -> None:
    for name, content in (("notes.txt", b"hello"), ("Thumbs.db", b"x" * 900), ("LOCKFILE", b""), ("report.pdf", b"%")):
        (folder / name).write_bytes(content)
    (folder / "._00001.dcm").write_bytes(b"\0\5\x16\7" + bytes(4000))
    assert is_whole(folder)


DOSE = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "Modality": "RTDOSE", "SeriesInstanceUID": "2.25.7",
    "NumberOfFrames": 6, "RescaleSlope": None, "RescaleIntercept": None,
}  # fmt: skip
CAPTURE = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
STATE = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "Modality": "PR", "PixelData": None, "Rows": None, "Columns": None,
    "ImagePositionPatient": None,
}  # fmt: skip
OTHERS = {
    "dose grid": DOSE,
    "color capture": {**CAPTURE, "SeriesInstanceUID": "2.25.8"},
    "color capture in the series": CAPTURE,
    "gray capture in the series": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"},
    "presentation state": {**STATE, "SeriesInstanceUID": "2.25.9"},
    "presentation state in the series": STATE,
    "localizer in the series": {
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
        "Rows": 3, "Columns": 3, "PixelData": bytes(18),
    },
    "damaged other series": {"Modality": "MR", "SeriesInstanceUID": "2.25.10", "PixelSpacing": None},
    "many frames of another modality": {"Modality": "XA", "SeriesInstanceUID": "2.25.11", "NumberOfFrames": 900},
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["0.dcm", "00000a.dcm", "zzz"])
def test_other_objects_beside_the_scan_do_not_count(folder: Path, other: str, name: str) -> None:
    beside(folder, name, **OTHERS[other])
    assert is_whole(folder)


def test_a_color_slice_of_the_same_kind_is_a_fault_of_the_series(folder: Path) -> None:
    edit(folder, lambda image: setattr(image, "SamplesPerPixel", 3), "00004.dcm")
    with pytest.raises(FileError, match=r"00004.dcm is a multi-frame or color image"):
        files.read_image(folder)


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_transfer_syntax_is_read(folder: Path, syntax: pydicom.uid.UID) -> None:
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        pixels = image.pixel_array
        image.file_meta.TransferSyntaxUID = syntax
        image.PixelData = pixels.astype(">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes()
        little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
        pydicom.dcmwrite(path, image, implicit_vr=implicit, little_endian=little, force_encoding=True)
    assert is_whole(folder)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("meta", [True, False])
def test_files_without_preamble_are_read(folder: Path, implicit: bool, meta: bool) -> None:
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, image, implicit_vr=implicit, little_endian=True, force_encoding=True)
        whole = stream.getvalue()
        length = int.from_bytes(whole[140:144], "little")
        path.write_bytes(whole[132:] if meta else whole[144 + length :])
    assert is_whole(folder)


def test_private_sequences_are_passed_over(folder: Path) -> None:
    def change(image: Dataset) -> None:
        inner = Dataset()
        inner.PixelSpacing, inner.Modality = [9, 9], "XX"
        block = image.private_block(0x0019, "SOMEBODY", create=True)
        block.add_new(0x01, "SQ", [inner, Dataset()])
        block.add_new(0x02, "UN", b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + bytes(6))
        image[0x00191001].is_undefined_length = True

    edit(folder, change)
    assert is_whole(folder)


def enhanced(folder: Path, path: Path, change: Callable[[Dataset], None] = lambda image: None) -> None:
    """The slices of a folder as frames of one file, from last to first, with a rescale of each frame."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir(), reverse=True)]
    one, shared, pixels = slices[0], Dataset(), []
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = one.PixelSpacing, one.SliceThickness
    orientation.ImageOrientationPatient = one.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    groups = []
    for number, image in enumerate(slices):
        group, position, values, kind = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = image.ImagePositionPatient
        values.RescaleSlope, values.RescaleIntercept = 1, number
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [values]
        group.CTImageFrameTypeSequence = [kind]
        groups.append(group)
        pixels.append(image.pixel_array - number)
    one.SOPClassUID, one.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.2.1", len(slices)
    for keyword in (
        "PixelSpacing",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(one, keyword)
    one.SharedFunctionalGroupsSequence, one.PerFrameFunctionalGroupsSequence = [shared], groups
    one.PixelData = np.stack(pixels).astype("<i2").tobytes()
    change(one)
    path.parent.mkdir()
    one.save_as(path)


def test_an_enhanced_image_of_many_frames_is_the_series_of_its_slices(folder: Path, tmp_path: Path) -> None:
    enhanced(folder, tmp_path / "one" / "a.dcm")
    found = files.read_image(tmp_path / "one")
    assert found.data.dtype == np.int16
    assert np.array_equal(found.data, hu(ANISOTROPIC).data)
    assert found.geometry.matches(files.read_geometry(folder), 1e-6)
    box = Box((1, 2, 1), (8, 6, 3))
    assert np.array_equal(files.read_image(tmp_path / "one", box).data, found.crop(box).data)


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_segmentation_of_an_enhanced_image_refers_to_its_frames(
    folder: Path, tmp_path: Path, anonymous: bool
) -> None:
    highdicom = pytest.importorskip("highdicom")
    enhanced(folder, tmp_path / "one" / "a.dcm")
    ct = hu(ANISOTROPIC).data
    masks = {"liver": Volume(ct > 0, ANISOTROPIC), "spleen": Volume(ct > 9000, ANISOTROPIC)}
    dicom_seg.write_segmentation(masks, tmp_path / "one", tmp_path / "seg.dcm", MANUAL, anonymous=anonymous)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    found = np.zeros(ct.shape, bool)
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
        k = round(float(ANISOTROPIC.to_ijk((-x, -y, z))[2]))
        found[:, :, k] = frame.T
        referred = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert int(referred.ReferencedFrameNumber) == 5 - k
    assert np.array_equal(found, ct > 0)
    assert seg.PatientID == ("" if anonymous else "P1")


def test_frames_at_one_place_or_of_a_missing_place_are_named(folder: Path, tmp_path: Path) -> None:
    def twin(image: Dataset) -> None:
        groups = image.PerFrameFunctionalGroupsSequence
        groups[3].PlanePositionSequence = groups[2].PlanePositionSequence

    enhanced(folder, tmp_path / "one" / "a.dcm", twin)
    with pytest.raises(GeometryError, match=r"1 duplicate slices; found a.dcm frame 3, a.dcm frame 4 both at"):
        files.read_image(tmp_path / "one")
    enhanced(folder, tmp_path / "two" / "a.dcm", lambda image: setattr(image, "NumberOfFrames", 6))
    with pytest.raises(FileError, match=r"a.dcm has a damaged DICOM header; found 6 frames, 5 functional groups"):
        files.read_image(tmp_path / "two")


def test_slices_with_a_series_identifier_each_are_the_stack_they_form(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.iterdir())):
        edit(folder, lambda image, n=number: setattr(image, "SeriesInstanceUID", f"2.25.9{n}"), path.name)
    assert is_whole(folder)
    edit(folder, lambda image: setattr(image, "PatientID", "P2"), "00002.dcm")
    with pytest.raises(FileError, match=r"several series; found 5: 2.25.90 .*; and 1 more, expected one") as caught:
        files.read_image(folder)
    assert len(str(caught.value)) < 600


def test_padding_of_an_enhanced_image_is_outside_the_field_of_view(folder: Path, tmp_path: Path) -> None:
    lowest = int(hu(ANISOTROPIC).data.min())
    place = np.argwhere(hu(ANISOTROPIC).data == lowest)[0]
    stored = lowest - (4 - int(place[2]))
    enhanced(folder, tmp_path / "one" / "a.dcm", lambda image: image.add_new("PixelPaddingValue", "SS", stored))
    assert files.read_image(tmp_path / "one").data[tuple(place)] == PADDING_HU


def deflated(path: Path, extra: int) -> None:
    """The slice in the deflated syntax, with so many zeros behind its pixels."""
    image = pydicom.dcmread(path)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(path)
    raw = path.read_bytes()
    at = 144 + int.from_bytes(raw[140:144], "little")
    squeeze = zlib.compressobj(9, wbits=-15)
    body = zlib.decompress(raw[at:], -15)
    path.write_bytes(raw[:at] + squeeze.compress(body) + squeeze.compress(bytes(extra)) + squeeze.flush())


def test_a_deflated_file_is_not_inflated_beyond_what_its_header_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_file, "_HEADER_BYTES", 2**20)
    deflated(folder / "00004.dcm", 2**26)
    tracemalloc.start()
    with pytest.raises(FileError, match=r"00004.dcm is damaged; found more than 10\d+ bytes, expected what its header"):
        files.read_image(folder)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "RLELossless"])
def test_a_slice_that_promises_gigabytes_is_refused(folder: Path, syntax: str) -> None:
    def change(image: Dataset) -> None:
        if syntax == "RLELossless":
            image.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        image.Rows = image.Columns = 60000

    edit(folder, change)
    with pytest.raises(FileError, match=r"too large to read; found 36\.0 GB \(60000x60000x5"):
        files.read_image(folder)


WIDE = Geometry.of((64, 48, 3), (0.7, 0.9, 3.0), "LPS")


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A series of three slices that compression can work on, without negative values."""
    dicom_write.write_series(Volume(np.abs(hu(WIDE).data), WIDE), tmp_path / "series", "P1")
    return tmp_path / "series"


def compressed(folder: Path, kind: str, damage: Callable[[bytearray], None]) -> None:
    """The last slice compressed, and its codestream damaged."""
    encode: Callable[[np.ndarray], bytes]
    if kind == "JPEG2000Lossless":
        utils = pytest.importorskip("openjpeg.utils")
        encode = lambda pixels: utils.encode_array(pixels, photometric_interpretation=2)  # noqa: E731
    else:
        encode = lambda pixels: bytes(pytest.importorskip("jpeg_ls").encode_array(pixels))  # noqa: E731

    def change(image: Dataset) -> None:
        image.PixelRepresentation = 0
        stream = bytearray(encode(image.pixel_array.astype(np.uint16)))
        damage(stream)
        image.PixelData = pydicom.encaps.encapsulate([bytes(stream)])
        image["PixelData"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = getattr(pydicom.uid, kind)

    edit(folder, change, "00002.dcm")


def setting(marker: bytes, offset: int, value: int) -> Callable[[bytearray], None]:
    def damage(stream: bytearray) -> None:
        stream[stream.index(marker) + offset] = value

    return damage


@pytest.mark.parametrize(
    ("kind", "marker", "offset", "value", "told"),
    [
        ("JPEG2000Lossless", b"\xff\x51", 40, 89, "64x48 pixels of 1 x 90 bits, expected 64x48 of 1 x at most 16 bits"),
        ("JPEG2000Lossless", b"\xff\x51", 6, 1, "16777280x48 pixels"),
        ("JPEG2000Lossless", b"\xff\x51", 39, 3, "64x48 pixels of 3 x 12 bits"),
        ("JPEG2000Lossless", b"\xff\x51", 41, 0, "tiles or steps of no size"),
        ("JPEGLSLossless", b"\xff\xf7", 4, 200, "64x48 pixels of 1 x 200 bits"),
        ("JPEGLSLossless", b"\xff\xf7", 7, 200, "51264x48 pixels"),
        ("JPEGLSLossless", b"\xff\xf7", 1, 0xE3, "JPEG stream without a frame"),
    ],
)
def test_a_compressed_slice_that_denies_its_header_never_reaches_the_decoder(
    wide: Path, kind: str, marker: bytes, offset: int, value: int, told: str
) -> None:
    compressed(wide, kind, setting(marker, offset, value))
    with pytest.raises(FileError, match=rf"00002.dcm (is damaged|cannot be decoded).*{told}"):
        files.read_image(wide)


@pytest.mark.parametrize("kind", ["JPEG2000Lossless", "JPEGLSLossless"])
def test_a_compressed_slice_as_it_should_be_is_read(wide: Path, kind: str) -> None:
    compressed(wide, kind, lambda stream: None)
    assert np.array_equal(files.read_image(wide).data, np.abs(hu(WIDE).data))


TABLES = b"\xff\xc4\x00\x05abc\xff\xff\xdb\x00\x02"
FRAME = b"\xff\xc3\x00\x0b\x0c\x00\x07\x00\x09\x01\x01\x11\x00"
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
JPEG = b"\xff\xd8" + TABLES + FRAME + SCAN


def test_the_size_of_every_kind_of_jpeg_is_found_behind_its_tables() -> None:
    assert codestream.read_frame_size(JPEG, "1.2.840.10008.1.2.4.70") == (7, 9, 1, 12)
    assert codestream.read_frame_size(JPEG, "1.2.840.10008.1.2.5") is None


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"\xff\xd8", b"GIF89a", JPEG[:-10], JPEG[:12],
        JPEG.replace(b"\xff\xc3", b"\xff\xe0"),  # no frame
        JPEG.replace(b"\xff\xc4", b"\x7f\xc4"),  # no marker
        JPEG.replace(b"\xff\xc4", b"\xff\x01"),  # an unknown one
        JPEG.replace(b"\xff\xc4", b"\xff\xfe"),  # no code table
        JPEG.replace(FRAME, FRAME + FRAME),
        JPEG.replace(b"\x00\x08\x01\x01", b"\x00\x08\x01\x02"),  # the scan of another component
        JPEG.replace(b"\x00\x0b\x0c", b"\x7f\xff\x0c"),  # a length beyond the end
    ],
)  # fmt: skip
def test_a_jpeg_that_is_damaged_before_its_first_scan_never_reaches_the_decoder(broken: bytes) -> None:
    with pytest.raises(ValueError, match="JPEG"):
        codestream.read_frame_size(broken, "1.2.840.10008.1.2.4.70")


def test_a_named_series_is_read_beside_a_broken_one(folder: Path) -> None:
    uid = pydicom.dcmread(folder / "00000.dcm").SeriesInstanceUID
    dicom_write.write_series(hu(Geometry.of((9, 7, 4), 2.0)), folder / "second", "P1")
    edit(folder / "second", lambda image: delattr(image, "PixelSpacing"))
    found = dicom.read_series(folder, uid)
    assert isinstance(found, Volume)
    assert np.array_equal(found.data, hu(ANISOTROPIC).data)
