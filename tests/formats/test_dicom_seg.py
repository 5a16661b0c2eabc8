"""DICOM SEG: segments where the masks are, referring to the slices they were drawn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, hu
from synthoma import files
from synthoma.errors import FileError, GeometryError
from synthoma.formats import dicom_seg, dicom_write
from synthoma.volume import Geometry, Volume

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dicom_write.write_series(hu(ANISOTROPIC), tmp_path / "series", "P1")
    return tmp_path / "series"


def masks() -> dict[str, Volume]:
    """Two that overlap, one of them with its axes turned, and an empty one."""
    ct = hu(ANISOTROPIC).data
    return {
        "liver": Volume(ct > 0, ANISOTROPIC),
        "liver_lesion": Volume((ct > 1500).astype(np.uint8) * 3, ANISOTROPIC).reorient("RAS"),
        "hematoma": Volume(np.zeros(ct.shape, bool), ANISOTROPIC),
    }


def test_each_mask_is_a_segment_with_its_name_and_its_voxels(tmp_path: Path, folder: Path) -> None:
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(folder.iterdir())]
    pixels = seg.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for number, (name, mask) in enumerate(masks().items(), start=1):
        assert seg.get_segment_description(number).segment_label == name
        assert np.array_equal(pixels[..., number - 1].T, mask.reorient("LPS").data != 0)
    kind = seg.get_segment_description(2)
    assert kind.segmented_property_type.meaning == "Lesion"
    assert kind.anatomic_regions[0].meaning == "Liver"
    assert seg.FrameOfReferenceUID == pydicom.dcmread(folder / "00000.dcm").FrameOfReferenceUID


def test_the_same_masks_give_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    for name in ("one.dcm", "two.dcm"):
        dicom_seg.write_segmentation(masks(), folder, tmp_path / name)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


def test_the_patient_is_copied_as_the_standard_wants_and_left_out_on_request(tmp_path: Path, folder: Path) -> None:
    secret = {
        "PatientName": "DOE^JANE", "PatientID": "MRN-777", "PatientBirthDate": "19551231", "PatientSex": "F",
        "AccessionNumber": "ACC-777", "StudyID": "ST-777", "StudyDate": "20010203", "StudyTime": "101112",
        "PatientAge": "046Y", "PatientComments": "secret-777", "StudyDescription": "secret-778",
        "ReferringPhysicianName": "HOUSE^GREG", "InstitutionName": "secret-779",
    }  # fmt: skip
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        for keyword, value in secret.items():
            setattr(image, keyword, value)
        image.save_as(path)
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "named.dcm")
    named = pydicom.dcmread(tmp_path / "named.dcm")
    assert (named.PatientName, named.PatientID, named.StudyDate) == ("DOE^JANE", "MRN-777", "20010203")
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm", anonymous=True)
    whole = (tmp_path / "seg.dcm").read_bytes()
    assert [value for value in secret.values() if len(value) > 1 and value.encode() in whole] == []
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert (seg.PatientName, seg.PatientID, seg.PatientSex, seg.StudyDate) == ("", "", "", "")
    assert seg.StudyInstanceUID == named.StudyInstanceUID
    assert np.array_equal(seg.pixel_array, highdicom.seg.segread(tmp_path / "named.dcm").pixel_array)


def test_an_empty_mask_alone_is_written(tmp_path: Path, folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": masks()["hematoma"]}, folder, tmp_path / "seg.dcm")
    assert not highdicom.seg.segread(tmp_path / "seg.dcm").pixel_array.any()


def test_a_mask_on_another_grid_is_refused_and_nothing_written(tmp_path: Path, folder: Path) -> None:
    elsewhere = Volume(np.ones((9, 7, 5), bool), Geometry.of((9, 7, 5), (0.7, 0.9, 2.0), "LPS"))
    with pytest.raises(GeometryError, match="liver mask's grid differs"):
        dicom_seg.write_segmentation({"liver": elsewhere}, folder, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_series_without_identifiers_cannot_be_referred_to(tmp_path: Path, real_data: Path) -> None:
    series = real_data / "dicom_totalseg_thin"
    ct = files.read_image(series)
    with pytest.raises(FileError, match="cannot be referred to; found no StudyInstanceUID, SeriesInstanceUID"):
        dicom_seg.write_segmentation({"bone": Volume(ct.data > 300, ct.geometry)}, series, tmp_path / "s.dcm")


def test_real_masks_are_written_on_the_real_chaos_series(tmp_path: Path, real_data: Path) -> None:
    series = real_data / "chaos_layout" / "3"
    ct = files.read_image(series)
    liver = files.read_labels(real_data / "chaos" / "segmentations" / "liver.nii.gz").to(ct.geometry)
    dicom_seg.write_segmentation({"liver": liver}, series, tmp_path / "seg.dcm")
    assert highdicom.seg.segread(tmp_path / "seg.dcm").pixel_array.sum() == np.count_nonzero(liver.data)
