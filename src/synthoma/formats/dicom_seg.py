"""Masks as a DICOM SEG that refers to the series they were drawn on (extra `dicom`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import disk
from synthoma.errors import FileError
from synthoma.extras import need
from synthoma.formats import dicom
from synthoma.formats.dicom_series import Slice
from synthoma.volume import Array, Volume

# SNOMED CT codes; a structure named liver_lesion is a lesion found in the liver
_ANATOMY = {
    "adrenal_gland_left": ("23451007", "Adrenal gland"),
    "adrenal_gland_right": ("23451007", "Adrenal gland"),
    "aorta": ("15825003", "Aorta"),
    "bladder": ("89837001", "Bladder"),
    "colon": ("71854001", "Colon"),
    "duodenum": ("38848004", "Duodenum"),
    "esophagus": ("32849002", "Esophagus"),
    "gall_bladder": ("28231008", "Gallbladder"),
    "kidney": ("64033007", "Kidney"),
    "kidney_left": ("18639004", "Left kidney"),
    "kidney_right": ("9846003", "Right kidney"),
    "liver": ("10200004", "Liver"),
    "lung_left": ("44029006", "Left lung"),
    "lung_right": ("3341006", "Right lung"),
    "pancreas": ("15776009", "Pancreas"),
    "postcava": ("64131007", "Inferior vena cava"),
    "prostate": ("41216001", "Prostate"),
    "rectum": ("34402009", "Rectum"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
    "uterus": ("35039007", "Uterus"),
}
_FINDINGS = {
    "_lesion": ("52988006", "Lesion"),
    "_tumor": ("108369006", "Neoplasm"),
    "_cyst": ("367643001", "Cyst"),
}
_STRUCTURE = ("123037004", "Anatomical Structure")
_ABNORMAL = ("49755003", "Morphologically Abnormal Structure")
_TISSUE = ("85756007", "Tissue")
_REFERRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
_COPIED = "PatientID PatientName PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber"
_PLACED = (
    "Modality Rows Columns ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness BitsAllocated "
    "BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation NumberOfFrames "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
)
_NO_DATE, _NO_TIME = "19700101", "000000"


def write_segmentation(
    masks: Mapping[str, Volume],
    series_folder: Path | str,
    path: Path | str,
    series_uid: str | None = None,
    anonymous: bool = False,
) -> None:
    """Masks (structure -> volume, non-zero is inside) as one DICOM SEG, a segment each; they may overlap.

    The standard wants the patient and the study of the series in every object of the study, so name, birth date and
    the like are copied from it. anonymous: they are left empty; only identifiers of the study, the series and its
    slices stay, without which the object refers to nothing.

    Each mask must lie on the series' grid, its axes in any order. The same masks and series give the same bytes:
    identifiers follow from the content, dates are those of the study. Raises `FileError` if the series lacks
    the identifiers to refer to it, `GeometryError` if a mask lies elsewhere.
    """
    highdicom = need("highdicom", extra="dicom")
    folder, path = Path(series_folder), Path(path)
    if not masks:
        raise ValueError("a segmentation needs at least one mask")
    sources, planes = _sources_and_planes(masks, folder, series_uid)
    if anonymous:
        sources = [_nameless(source) for source in sources]
    series, instance = _identifiers(sources, planes, masks)
    seg = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=planes,
        segmentation_type="BINARY",
        segment_descriptions=[_segment(number, name) for number, name in enumerate(masks, start=1)],
        series_instance_uid=series,
        sop_instance_uid=instance,
        series_number=100,
        instance_number=1,
        manufacturer="synthoma",
        manufacturer_model_name="synthoma",
        software_versions=version("synthoma"),
        device_serial_number="0",
    )
    _settle(seg, sources[0])
    with disk.atomic(path) as part:
        seg.save_as(part)


def _settle(seg: Any, source: Any) -> None:
    """Dates of the study in place of the clock's, and identifiers from the content in place of random ones."""
    from pydicom.uid import generate_uid

    del seg.InstanceCreationDate, seg.InstanceCreationTime
    seg.ContentDate, seg.ContentTime = source.StudyDate or _NO_DATE, source.StudyTime or _NO_TIME
    for equipment in seg.get("ContributingEquipmentSequence", []):
        equipment.pop("ContributionDateTime", None)
    organization = generate_uid(entropy_srcs=["dimensions", seg.SOPInstanceUID])
    for item in [*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence]:
        item.DimensionOrganizationUID = organization


def _sources_and_planes(masks: Mapping[str, Volume], folder: Path, series_uid: str | None) -> tuple[list[Any], Array]:
    """Headers of the slices that any mask touches, and the masks on them (slice, row, column, segment).

    Of a file of many frames, its header and all its frames.
    """
    slices, geometry = dicom.find_stack(folder, series_uid)
    turned = {name: mask.reorient(geometry.axes) for name, mask in masks.items()}
    for name, mask in turned.items():
        geometry.require_same(mask.geometry, f"{name} mask")
    if any(one.frame for one in slices):
        return _source_of_frames(slices, turned, folder)
    used = np.flatnonzero(np.any([mask.data.any(axis=(0, 1)) for mask in turned.values()], axis=0))
    used = used if used.size else np.array([0])
    planes = np.stack([mask.data[:, :, used].T != 0 for mask in turned.values()], axis=-1)
    return [_source(slices[index].path) for index in used], planes


def _source_of_frames(slices: Sequence[Slice], masks: Mapping[str, Volume], folder: Path) -> tuple[list[Any], Array]:
    """The same for slices that are frames of one file; its planes are in the order of the file, empty ones included."""
    if len({one.path for one in slices}) > 1:
        raise FileError(f"{folder}: frames of several files", fix="write the masks as NIfTI, or give each its folder")
    source = _source(slices[0].path)
    planes = np.zeros((int(source.NumberOfFrames), slices[0].rows, slices[0].columns, len(masks)), bool)
    for number, mask in enumerate(masks.values()):
        planes[[one.frame for one in slices], :, :, number] = mask.data.T != 0
    return [source], planes


def _source(path: Path) -> Any:
    """The header of one slice, with the identifiers a reference needs."""
    pydicom = need("pydicom", extra="dicom")
    header = pydicom.dcmread(path, stop_before_pixels=True)
    lacking = [keyword for keyword in _REFERRED if not header.get(keyword)]
    if lacking:
        raise FileError(
            f"{path} cannot be referred to",
            found=f"no {', '.join(lacking)}",
            fix="use the series as it left the scanner, or write the masks as NIfTI",
        )
    for keyword in _COPIED.split():
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _nameless(source: Any) -> Any:
    """A header with the identifiers and the place of a slice only."""
    from pydicom.dataset import Dataset

    kept = Dataset()
    kept.file_meta = source.file_meta
    for keyword in (*_REFERRED, *_PLACED.split()):
        if keyword in source:
            kept[keyword] = source[keyword]
    for keyword in _COPIED.split():
        setattr(kept, keyword, "")
    return kept


def _segment(number: int, name: str) -> Any:
    highdicom = need("highdicom", extra="dicom")
    ending = next((ending for ending in _FINDINGS if name.endswith(ending)), "")
    place = _ANATOMY.get(name.removesuffix(ending))
    kind = _FINDINGS[ending] if ending else place or _TISSUE
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=_code(_ABNORMAL if ending else _STRUCTURE),
        segmented_property_type=_code(kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="synthoma",
            family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=version("synthoma"),
        ),
        anatomic_regions=[_code(place)] if ending and place else None,
    )


def _code(pair: tuple[str, str]) -> Any:
    return need("highdicom", extra="dicom").sr.CodedConcept(pair[0], "SCT", pair[1])


def _identifiers(sources: list[Any], planes: Array, masks: Mapping[str, Volume]) -> tuple[str, str]:
    """UIDs of the new series and instance, from what they hold."""
    from pydicom.uid import generate_uid

    content = hashlib.blake2b(np.packbits(planes).data, digest_size=16).hexdigest()
    key = [content, *masks, *(source.SOPInstanceUID for source in sources)]
    return generate_uid(entropy_srcs=["series", *key]), generate_uid(entropy_srcs=["instance", *key])
