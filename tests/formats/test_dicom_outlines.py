"""SEG and RTSTRUCT objects beside a series: which belong to it, and segments of every kind as masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formats.contours import circle, closed, write_structures
from formats.series import MANUAL, edit
from grids import ANISOTROPIC, hu
from synthoma import files
from synthoma.errors import FileError, GeometryError
from synthoma.formats import dicom_codes, dicom_seg, dicom_write
from synthoma.formats.dicom_outlines import OutlineMask
from synthoma.volume import Geometry, Volume

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

ORGAN = np.zeros((9, 7, 5), bool)
ORGAN[1:8, 1:6, 1:4] = True


def masks(scan: Path) -> dict[str, np.ndarray]:
    outlines, grid = files.list_outlines(scan, scan)
    return {one.label: OutlineMask(one.path, (one.number,), grid)().data for one in outlines}


def write(folder: Path, kind: str, pixels: np.ndarray, **more: Any) -> None:
    """A SEG with one segment as highdicom writes it. pixels: (slice, row, column)."""
    images = [pydicom.dcmread(path) for path in sorted(folder.glob("0*.dcm"))]
    for image in images:
        image.AccessionNumber = image.StudyDate = image.StudyTime = ""
    segment = highdicom.seg.SegmentDescription(
        1,
        "liver",
        dicom_codes.concept(dicom_codes.STRUCTURE),
        dicom_codes.concept(dicom_codes.ANATOMY["liver"][0]),
        "MANUAL",
    )
    highdicom.seg.Segmentation(
        images, pixels, kind, [segment], pydicom.uid.generate_uid(), 9, pydicom.uid.generate_uid(), 1, "someone",
        "something", "1", "1", **more,
    ).save_as(folder / "seg.dcm")  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
def test_fractions_are_inside_from_one_half_on(folder: Path, kind: str, packed: bool) -> None:
    shares = np.linspace(0, 1, 5)[:, None, None] * np.ones((1, 7, 9))  # a share for each slice
    write(folder, "FRACTIONAL", shares, fractional_type=kind, max_fractional_value=200)
    if packed:
        edit(folder, lambda image: image.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom"), "seg.dcm")
    assert masks(folder)["liver"].all(axis=(0, 1)).tolist() == [False, False, True, True, True]


def test_a_label_map_object_is_read_as_its_segments(folder: Path) -> None:
    write(folder, "LABELMAP", ORGAN.T.astype(np.uint8))
    assert np.array_equal(masks(folder)["liver"], ORGAN)


def test_segments_that_overlap_are_told_apart(folder: Path) -> None:
    lesion = ORGAN.copy()
    lesion[3:] = False
    both = {"liver": Volume(ORGAN, ANISOTROPIC), "liver_lesion": Volume(lesion, ANISOTROPIC)}
    dicom_seg.write_segmentation(both, folder, folder / "seg.dcm", MANUAL)
    found = masks(folder)
    assert np.array_equal(found["liver"], ORGAN)
    assert np.array_equal(found["liver_lesion 1"], lesion)


def test_a_segmentation_cut_short_or_without_its_frames_is_named(folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, folder / "seg.dcm", MANUAL)
    whole = pydicom.dcmread(folder / "seg.dcm")
    whole.PixelData = whole.PixelData[:6]
    whole.save_as(folder / "seg.dcm")
    with pytest.raises(FileError, match=r"seg.dcm cannot be decoded"):
        masks(folder)
    del whole.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence
    whole.save_as(folder / "seg.dcm")
    with pytest.raises(FileError, match=r"seg.dcm: frame 1 names no segment"):
        masks(folder)


def test_a_header_that_promises_gigabytes_is_refused_before_they_are_made(folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, folder / "seg.dcm", MANUAL)
    edit(folder, lambda image: setattr(image, "Rows", 65535) or setattr(image, "Columns", 65535), "seg.dcm")
    bomb = pydicom.dcmread(folder / "seg.dcm")
    frames = bomb.PerFrameFunctionalGroupsSequence
    bomb.PerFrameFunctionalGroupsSequence = [frames[0]] * 9
    bomb.NumberOfFrames = 9
    bomb.save_as(folder / "seg.dcm")
    with pytest.raises(FileError, match=r"seg.dcm is too large to read; found 4.8 GB"):
        masks(folder)


def test_frames_on_another_grid_than_the_series_are_refused(folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, folder / "seg.dcm", MANUAL)

    def widen(image: Any) -> None:
        image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.8]

    edit(folder, widen, "seg.dcm")
    with pytest.raises(GeometryError, match=r"seg.dcm: frame 1 does not lie on the grid of the scan; found .*0.8x0.8"):
        masks(folder)


def test_a_segmentation_of_slices_that_are_gone_is_not_cut_silently(folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, folder / "seg.dcm", MANUAL)
    for name in ("00003.dcm", "00004.dcm"):
        (folder / name).unlink()
    with pytest.raises(GeometryError, match="frame 1 lies outside of the scan; found 35 voxels outside"):
        masks(folder)


def test_a_segmentation_without_its_series_names_the_one_it_was_drawn_on(folder: Path, tmp_path: Path) -> None:
    uid = pydicom.dcmread(folder / "00000.dcm").SeriesInstanceUID
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, tmp_path / "other" / "a.dcm", MANUAL)
    with pytest.raises(
        FileError, match=rf"other holds no CT series with pixels; found .*SEG.*drawn on the series {uid}"
    ):
        files.read_image(tmp_path / "other")
    dicom_write.write_series(hu(ANISOTROPIC, 7), tmp_path / "ct", "P1")
    (tmp_path / "other" / "a.dcm").rename(tmp_path / "ct" / "seg.dcm")
    with pytest.raises(FileError, match=rf"seg.dcm was drawn on a series that is not here; found series {uid}.*put it"):
        masks(tmp_path / "ct")
    assert files.read_image(tmp_path / "ct").data.shape == (9, 7, 5)


def test_a_segmentation_in_another_frame_of_reference_is_refused(folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, folder / "seg.dcm", MANUAL)
    edit(folder, lambda image: setattr(image, "FrameOfReferenceUID", "1.2.3"), "seg.dcm")
    with pytest.raises(GeometryError, match=r"seg.dcm is in another frame of reference than the CT; found 1\.2\.3"):
        masks(folder)


def test_of_several_series_the_one_that_masks_were_drawn_on_is_read_with_them(tmp_path: Path) -> None:
    study = tmp_path / "study"
    grids = {name: Geometry.of((9, 7, 5), (0.7, 0.9, step), "LPS") for name, step in (("thin", 1.0), ("thick", 3.0))}
    for seed, (name, grid) in enumerate(grids.items()):
        dicom_write.write_series(hu(grid, seed), study / name, "P1", description=name)
    with pytest.raises(FileError, match="holds several series"):
        files.read_image(study)
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, grids["thin"])}, study / "thin", study / "seg.dcm", MANUAL)
    assert np.array_equal(files.read_image(study).data, hu(grids["thin"], 0).data)
    assert np.array_equal(masks(study)["liver"], ORGAN)
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, grids["thick"])}, study / "thick", study / "b.dcm", MANUAL)
    with pytest.raises(FileError, match="holds several series"):
        masks(study)


def test_masks_of_another_series_in_the_folder_are_left_out(folder: Path, tmp_path: Path) -> None:
    dicom_write.write_series(hu(ANISOTROPIC, 5), folder / "pet", "P1")
    edit(folder / "pet", lambda image: setattr(image, "Modality", "PT"))
    write_structures({"liver": closed(circle((0, 0, -6), 2))}, folder, folder / "rs.dcm")
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, tmp_path / "seg.dcm", MANUAL)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    images = [pydicom.dcmread(path) for path in sorted((folder / "pet").iterdir())]
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = images[0].SeriesInstanceUID
    for item, image in zip(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence, images, strict=False):
        item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    seg.save_as(folder / "seg.dcm")
    outlines, _ = files.list_outlines(folder, folder)
    assert [one.path.name for one in outlines] == ["rs.dcm"]


def test_masks_of_slices_with_a_series_identifier_each_are_found_by_the_images(folder: Path) -> None:
    dicom_seg.write_segmentation({"liver": Volume(ORGAN, ANISOTROPIC)}, folder, folder / "seg.dcm", MANUAL)
    for path in folder.glob("0*.dcm"):
        image = pydicom.dcmread(path)
        image.SeriesInstanceUID = pydicom.uid.generate_uid()
        image.save_as(path)
    assert np.array_equal(masks(folder)["liver"], ORGAN)


@pytest.mark.parametrize("structure", [*dicom_codes.ANATOMY, "liver_lesion", "kidney_cyst"])
def test_every_code_leads_back_to_its_structure(structure: str) -> None:
    terms = dicom_codes.terms_of(structure)
    side = terms.side.value if terms.side else ""
    assert dicom_codes.structure_of(terms.type.value, side, tuple(one.value for one in terms.regions)) == structure


def test_every_code_is_one_of_the_standard_with_its_meaning() -> None:
    from pydicom.sr._concepts_dict import concepts

    known = {(scheme, code, meaning) for scheme, words in concepts.items() for codes in words.values()
             for code, (meaning, _) in codes.items()}  # fmt: skip
    organs = [code for pair in dicom_codes.ANATOMY.values() for code in pair if code]
    others = [
        dicom_codes.STRUCTURE,
        dicom_codes.ABNORMAL,
        dicom_codes.TISSUE,
        dicom_codes.FAMILY,
        dicom_codes.MODIFYING,
    ]
    for code in [*organs, *others, *dicom_codes.FINDINGS.values()]:
        assert (code.scheme, code.value, code.meaning) in known


def test_older_codes_and_laterality_words_are_understood() -> None:
    assert dicom_codes.modern("T-62000", "SRT") == "10200004"
    assert dicom_codes.modern("M-80001", "SRT") == "M-80001"
    assert dicom_codes.structure_of("18639004") == "kidney_left"
    assert dicom_codes.structure_of("4147007", "", ("10200004",)) == "liver_lesion"
    assert dicom_codes.structure_of("4147007") == "tumor"
    assert dicom_codes.structure_of("51114001") == ""
