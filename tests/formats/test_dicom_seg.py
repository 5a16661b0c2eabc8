"""DICOM SEG: segments where the masks are, with codes, referring to the slices they were drawn on; and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from formats.series import AI, MANUAL, edit, verify
from grids import ANISOTROPIC, hu, oblique
from synthoma import files
from synthoma.errors import FileError, GeometryError
from synthoma.formats import dicom_seg, dicom_write
from synthoma.formats.dicom_outlines import OutlineMask
from synthoma.volume import Geometry, Volume

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")


def masks(geometry: Geometry = ANISOTROPIC) -> dict[str, Volume]:
    """An organ, two tumors in it with the axes of their mask turned, half of a kidney, and an empty mask."""
    liver, lesions, kidney = (np.zeros(geometry.shape, bool) for _ in range(3))
    liver[1:8, 1:6, 1:4] = True
    lesions[2:5, 2:4, 1:3] = True
    lesions[6, 4, 3] = True
    kidney[0:4, :, 2] = True
    return {
        "liver": Volume(liver, geometry),
        "liver_lesion": Volume(lesions.astype(np.uint8) * 3, geometry).reorient("RAS"),
        "kidney_left": Volume(kidney, geometry),
        "pancreas_lesion": Volume(np.zeros(geometry.shape, bool), geometry),
        "hematoma": Volume(np.zeros(geometry.shape, bool), geometry),
    }


def read_back(scan: Path, objects: Path) -> dict[str, Volume]:
    """The structures of a folder's objects, by label, each on the scan's grid."""
    outlines, grid = files.list_outlines(scan, objects)
    return {one.label: OutlineMask(one.path, (one.number,), grid)() for one in outlines}


def test_each_mask_is_a_segment_with_its_name_and_its_voxels(tmp_path: Path, folder: Path) -> None:
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm", MANUAL)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(folder.iterdir())]
    pixels = seg.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    ).T.astype(bool)
    names = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    assert names == ["liver", "liver_lesion 1", "liver_lesion 2", "kidney_left", "pancreas_lesion", "hematoma"]
    wanted = {name: mask.reorient("LPS").data != 0 for name, mask in masks().items()}
    assert np.array_equal(pixels[0], wanted["liver"])
    assert np.array_equal(pixels[1] | pixels[2], wanted["liver_lesion"])
    assert (pixels[1].sum(), pixels[2].sum()) == (12, 1)
    assert np.array_equal(pixels[3], wanted["kidney_left"])
    assert not pixels[4:].any()
    assert seg.FrameOfReferenceUID == pydicom.dcmread(folder / "00000.dcm").FrameOfReferenceUID


def test_segments_carry_the_codes_of_organs_sides_and_tumors(tmp_path: Path, folder: Path) -> None:
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm", MANUAL)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    told = {one.SegmentLabel: one for one in seg.SegmentSequence}
    lesion, kidney = told["liver_lesion 1"], told["kidney_left"]
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert lesion.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Kidney"
    sides = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert sides[0].CodeMeaning == "Left"
    assert told["hematoma"].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"


def test_each_lesion_can_be_tracked_by_an_identifier_of_its_own(tmp_path: Path, folder: Path) -> None:
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm", MANUAL)
    told = highdicom.seg.segread(tmp_path / "seg.dcm").SegmentSequence
    tracked = {one.TrackingID: one.TrackingUID for one in told if "TrackingID" in one}
    assert list(tracked) == ["liver_lesion 1", "liver_lesion 2"]
    assert len(set(tracked.values())) == 2


def test_more_lesions_than_anyone_tracks_share_a_segment(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_seg, "MOST_LESIONS", 1)
    dicom_seg.write_segmentation({"liver_lesion": masks()["liver_lesion"]}, folder, tmp_path / "o" / "s.dcm", MANUAL)
    found = read_back(folder, tmp_path / "o")
    assert {label: int(mask.data.sum()) for label, mask in found.items()} == {
        "liver_lesion 1": 12,
        "liver_lesion others": 1,
    }


def test_who_drew_the_masks_is_told_for_a_program_with_its_version_and_model(tmp_path: Path, folder: Path) -> None:
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm", AI)
    one = highdicom.seg.segread(tmp_path / "seg.dcm").SegmentSequence[0]
    told = one.SegmentationAlgorithmIdentificationSequence[0]
    assert (one.SegmentAlgorithmType, one.SegmentAlgorithmName) == ("AUTOMATIC", "liver-small")
    assert (told.AlgorithmName, told.AlgorithmVersion) == ("liver-small", "1.2")
    assert told.AlgorithmParameters == "model_digest=0123"
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "hand.dcm", MANUAL)
    by_hand = highdicom.seg.segread(tmp_path / "hand.dcm").SegmentSequence[0]
    assert by_hand.SegmentAlgorithmType == "MANUAL"
    assert "SegmentationAlgorithmIdentificationSequence" not in by_hand


@pytest.mark.parametrize("origin", [MANUAL, AI], ids=["manual", "automatic"])
def test_an_independent_validator_finds_no_error(tmp_path: Path, folder: Path, origin: dicom_seg.Origin) -> None:
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm", origin)
    verify(tmp_path / "seg.dcm", "Segmentation")


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LPI", "PLS", "SAR"])
def test_masks_come_back_equal_on_grids_with_any_axes(tmp_path: Path, axes: str) -> None:
    geometry = Geometry.of((9, 7, 5), (0.7, 0.9, 3.0), axes)
    _round_trip(geometry, tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_masks_come_back_equal_on_oblique_grids(tmp_path: Path, seed: int) -> None:
    _round_trip(oblique(seed), tmp_path)


def _round_trip(geometry: Geometry, tmp_path: Path) -> None:
    dicom_write.write_series(hu(geometry), tmp_path / "ct", "P1")
    wanted = masks(geometry)
    dicom_seg.write_segmentation(wanted, tmp_path / "ct", tmp_path / "seg" / "a.dcm", MANUAL)
    found = read_back(tmp_path / "ct", tmp_path / "seg")
    assert np.array_equal(found["liver"].on(geometry).data, wanted["liver"].data)
    both = found["liver_lesion 1"].data | found["liver_lesion 2"].data
    assert np.array_equal(
        Volume(both, found["liver"].geometry).on(geometry).data, wanted["liver_lesion"].on(geometry).data > 0
    )
    assert not found["hematoma"].data.any()


def test_of_several_series_the_one_is_referred_to_on_whose_grid_the_masks_lie(tmp_path: Path) -> None:
    grids = {name: Geometry.of((9, 7, 5), (0.7, 0.9, step), "LPS") for name, step in (("thin", 1.0), ("thick", 3.0))}
    for name, grid in grids.items():
        dicom_write.write_series(hu(grid), tmp_path / "study" / name, "P1", description=name)
    dicom_seg.write_segmentation(masks(grids["thick"]), tmp_path / "study", tmp_path / "seg.dcm", MANUAL)
    referred = pydicom.dcmread(tmp_path / "seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID
    assert referred == pydicom.dcmread(tmp_path / "study" / "thick" / "00000.dcm").SeriesInstanceUID
    dicom_write.write_series(hu(grids["thick"], 5), tmp_path / "study" / "twin", "P1")
    with pytest.raises(GeometryError, match=r"the grid of several series of .*study; found .*thick"):
        dicom_seg.write_segmentation(masks(grids["thick"]), tmp_path / "study", tmp_path / "two.dcm", MANUAL)
    elsewhere = Geometry.of((9, 7, 5), (0.7, 0.9, 2.0), "LPS")
    with pytest.raises(GeometryError, match=r"the grid of no series of .*study; found .*thick"):
        dicom_seg.write_segmentation(masks(elsewhere), tmp_path / "study", tmp_path / "no.dcm", MANUAL)


def test_the_same_masks_give_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    for name in ("one.dcm", "two.dcm"):
        dicom_seg.write_segmentation(masks(), folder, tmp_path / name, AI)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


def test_the_patient_is_copied_as_the_standard_wants_and_left_out_on_request(tmp_path: Path, folder: Path) -> None:
    secret = {
        "PatientName": "DOE^JANE", "PatientID": "MRN-777", "PatientBirthDate": "19551231", "PatientSex": "F",
        "AccessionNumber": "ACC-777", "StudyID": "ST-777", "StudyDate": "20010203", "StudyTime": "101112",
        "PatientAge": "046Y", "PatientComments": "secret-777", "StudyDescription": "secret-778",
        "ReferringPhysicianName": "HOUSE^GREG", "InstitutionName": "secret-779",
    }  # fmt: skip

    def fill(image: pydicom.Dataset) -> None:
        for keyword, value in secret.items():
            setattr(image, keyword, value)

    edit(folder, fill)
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "named.dcm", MANUAL)
    named = pydicom.dcmread(tmp_path / "named.dcm")
    assert (named.PatientName, named.PatientID, named.StudyDate) == ("DOE^JANE", "MRN-777", "20010203")
    dicom_seg.write_segmentation(masks(), folder, tmp_path / "seg.dcm", MANUAL, anonymous=True)
    whole = (tmp_path / "seg.dcm").read_bytes()
    assert [value for value in secret.values() if len(value) > 1 and value.encode() in whole] == []
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert (seg.PatientName, seg.PatientID, seg.PatientSex, seg.StudyDate) == ("", "", "", "")
    assert seg.StudyInstanceUID == named.StudyInstanceUID
    assert np.array_equal(seg.pixel_array, highdicom.seg.segread(tmp_path / "named.dcm").pixel_array)


def test_names_in_any_script_are_written_beside_a_patient_in_latin(tmp_path: Path, folder: Path) -> None:
    def rename(image: pydicom.Dataset) -> None:
        image.SpecificCharacterSet, image.PatientName = "ISO_IR 100", "Müller^Jürgen"

    edit(folder, rename)
    dicom_seg.write_segmentation({"肝臓": masks()["liver"]}, folder, tmp_path / "o" / "seg.dcm", MANUAL)
    seg = pydicom.dcmread(tmp_path / "o" / "seg.dcm")
    assert (str(seg.PatientName), seg.SegmentSequence[0].SegmentLabel) == ("Müller^Jürgen", "肝臓")
    verify(tmp_path / "o" / "seg.dcm", "Segmentation")


def test_an_empty_mask_alone_is_written(tmp_path: Path, folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": masks()["hematoma"]}, folder, tmp_path / "o" / "seg.dcm", MANUAL)
    assert not highdicom.seg.segread(tmp_path / "o" / "seg.dcm").pixel_array.any()
    assert not read_back(folder, tmp_path / "o")["liver"].data.any()


def test_a_mask_on_another_grid_is_refused_and_nothing_written(tmp_path: Path, folder: Path) -> None:
    elsewhere = Volume(np.ones((9, 7, 5), bool), Geometry.of((9, 7, 5), (0.7, 0.9, 2.0), "LPS"))
    with pytest.raises(GeometryError, match="liver mask's grid differs"):
        dicom_seg.write_segmentation({"liver": elsewhere}, folder, tmp_path / "seg.dcm", MANUAL)
    assert not (tmp_path / "seg.dcm").exists()


def test_a_name_longer_than_dicom_allows_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileError, match=r"name of a segment is too long; found x{65}"):
        dicom_seg.write_segmentation({"x" * 65: masks()["liver"]}, folder, tmp_path / "seg.dcm", MANUAL)


def test_a_series_without_identifiers_cannot_be_referred_to(tmp_path: Path, real_data: Path) -> None:
    series = real_data / "dicom_totalseg_thin"
    ct = files.read_image(series)
    with pytest.raises(FileError, match="cannot be referred to; found no StudyInstanceUID, SeriesInstanceUID"):
        dicom_seg.write_segmentation({"bone": Volume(ct.data > 300, ct.geometry)}, series, tmp_path / "s.dcm", MANUAL)


def test_real_masks_are_written_on_the_real_chaos_series_and_read_back(tmp_path: Path, real_data: Path) -> None:
    series = real_data / "chaos_layout" / "3"
    ct = files.read_image(series)
    liver = files.read_labels(real_data / "chaos" / "segmentations" / "liver.nii.gz").to(ct.geometry)
    dicom_seg.write_segmentation({"liver": liver}, series, tmp_path / "o" / "seg.dcm", AI)
    assert highdicom.seg.segread(tmp_path / "o" / "seg.dcm").pixel_array.sum() == np.count_nonzero(liver.data)
    assert np.array_equal(read_back(series, tmp_path / "o")["liver"].data, liver.data > 0)
    verify(tmp_path / "o" / "seg.dcm", "Segmentation")
