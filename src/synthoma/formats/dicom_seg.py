"""Masks as a DICOM SEG that refers to the series they were drawn on (extra `dicom`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synthoma import disk
from synthoma.components import parts_of
from synthoma.errors import FileError
from synthoma.extras import need
from synthoma.formats import dicom
from synthoma.formats.dicom_codes import FAMILY, concept, finding_of, terms_of
from synthoma.formats.dicom_series import Slice
from synthoma.volume import Array, Box, Geometry, Volume

MOST_LESIONS = 100  # of one structure with a segment each; noise has thousands, and the rest share one
_LONGEST_LABEL = 64  # letters that the standard allows
_REFERRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
_COPIED = "PatientID PatientName PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber"
_PLACED = (
    "Modality Rows Columns ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness BitsAllocated "
    "BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation NumberOfFrames "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
)
_NO_DATE, _NO_TIME = "19700101", "000000"


@dataclass(frozen=True)
class Origin:
    """Who drew the masks, as every SEG must say. name and version: of the program, unless a person drew them alone.

    details: what else tells it, such as the digest of a model's file.
    """

    kind: Literal["manual", "semiautomatic", "automatic"]
    name: str = ""
    version: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """What becomes one segment: voxels (bool) on a box of the series' grid. number: of a finding, from 1; else 0."""

    structure: str
    label: str
    box: Box
    voxels: Array
    number: int = 0


def write_segmentation(
    masks: Mapping[str, Volume] | Iterable[tuple[str, Volume]],
    series_folder: Path | str,
    path: Path | str,
    origin: Origin,
    series_uid: str | None = None,
    anonymous: bool = False,
) -> int:
    """Masks (structure and volume, non-zero is inside) as one DICOM SEG; how many segments. They may overlap.

    An organ is one segment; of tumors and cysts every connected part is one, `NAME 1` the largest, with a tracking
    identifier, and an empty mask is an empty segment. Each mask must lie on the series' grid, its axes in any order. Of
    several CT series in the folder the one is taken on whose grid they lie, unless series_uid names one.

    The standard wants the patient and the study of the series in every object of the study, so name, birth date and
    the like are copied from it. anonymous: they are left empty; only identifiers of the study, the series and its
    slices stay, without which the object refers to nothing.

    The same masks and series give the same bytes: identifiers follow from the content, dates are those of the study.
    Raises `FileError` if the series lacks the identifiers to refer to it, `GeometryError` if a mask lies elsewhere.
    """
    highdicom = need("highdicom", extra="dicom")
    folder, path = Path(series_folder), Path(path)
    pairs = masks.items() if isinstance(masks, Mapping) else masks
    sources, planes, parts = _sources_and_planes(pairs, folder, series_uid)
    if anonymous:
        sources = [_nameless(source) for source in sources]
    series, instance = _identifiers(sources, parts)
    segments = [_segment(number, part, origin, sources[0]) for number, part in enumerate(parts, start=1)]
    seg = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=planes,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=series,
        sop_instance_uid=instance,
        series_number=100,
        instance_number=1,
        manufacturer="synthoma",
        manufacturer_model_name="synthoma",
        software_versions=version("synthoma"),
        device_serial_number="0",
        series_description="Segmentation",
        specific_character_set="ISO_IR 192",
        content_label="SEGMENTATION",
    )
    _settle(seg, sources[0])
    with disk.atomic(path) as part:
        seg.save_as(part)
    return len(parts)


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


def _sources_and_planes(
    masks: Iterable[tuple[str, Volume]], folder: Path, series_uid: str | None
) -> tuple[list[Any], Array, list[_Part]]:
    """Headers of the slices that any mask touches, the masks on them (slice, row, column, segment), and the segments.

    Of a file of many frames, its header and all its frames, in the order of the file.
    """
    slices: list[Slice] = []
    parts: list[_Part] = []
    for name, mask in masks:
        if not slices:
            slices, geometry = dicom.find_stack_under(folder, mask.geometry, series_uid)
        parts += _parts(name, mask.on(geometry, f"{name} mask"))
    if not slices:
        raise ValueError("a segmentation needs at least one mask")
    used = sorted({k for part in parts for k in range(part.box.lower[2], part.box.upper[2])}) or [0]
    if any(one.frame for one in slices):
        if len({one.path for one in slices}) > 1:
            raise FileError(
                f"{folder}: frames of several files", fix="write the masks as NIfTI, or give each its folder"
            )
        sources = [_source(slices[0].path)]
        places, count = {k: one.frame for k, one in enumerate(slices)}, int(sources[0].NumberOfFrames)
    else:
        sources = [_source(slices[k].path) for k in used]
        places, count = {k: place for place, k in enumerate(used)}, len(used)
    # zeros take memory only where they are written to: many segments of few slices stay small
    planes = np.zeros((len(parts), count, geometry.shape[1], geometry.shape[0]), bool)
    for plane, part in zip(planes, parts, strict=True):
        columns, rows, _ = part.box.slices
        for k in range(part.voxels.shape[2]):
            plane[places[part.box.lower[2] + k], rows, columns] = part.voxels[:, :, k].T
    return sources, np.moveaxis(planes, 0, -1), parts


def _parts(structure: str, mask: Volume) -> Iterator[_Part]:
    """A structure as segments: an organ as a whole, of findings each connected part."""
    box = Box.around(mask.data)
    if box is None:
        yield _Part(structure, structure, Box((0, 0, 0), (0, 0, 0)), np.zeros((0, 0, 0), bool))
    elif not finding_of(structure):
        yield _Part(structure, structure, box, mask.data[box.slices] != 0)
    else:
        found = parts_of(Volume(mask.data != 0, mask.geometry))
        ranked = found.ranked
        shown = min(len(found.order), MOST_LESIONS)
        for number, place in enumerate(found.boxes[:shown], start=1):
            own = Box(*zip(*((s.start, s.stop) for s in place), strict=True)).shift(found.box.lower)
            yield _Part(structure, f"{structure} {number}", own, ranked[place] == number, number)
        if len(found.order) > shown:
            yield _Part(structure, f"{structure} others", found.box, ranked > shown)


def require_referable(folder: Path, geometry: Geometry) -> None:
    """`FileError` if the series of this grid lacks an identifier that a segmentation refers to it by."""
    slices, _ = dicom.find_stack_under(folder, geometry, None)
    _source(slices[0].path)


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


def _segment(number: int, part: _Part, origin: Origin, source: Any) -> Any:
    """The description of a segment: its name, codes, who drew it and, for a finding, by what it can be tracked."""
    highdicom = need("highdicom", extra="dicom")
    from pydicom.uid import generate_uid

    if len(part.label) > _LONGEST_LABEL:
        fix = "rename the structure"
        raise FileError(
            "the name of a segment is too long", found=part.label, expected=f"{_LONGEST_LABEL} letters", fix=fix
        )
    terms = terms_of(part.structure)
    algorithm = None
    if origin.kind != "manual":
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name=origin.name, family=concept(FAMILY), version=origin.version, parameters=dict(origin.details) or None
        )
    key = [source.SeriesInstanceUID, part.label, repr(part.box), _digest(part.voxels)]
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=part.label,
        segmented_property_category=concept(terms.category),
        segmented_property_type=concept(terms.type),
        algorithm_type=origin.kind.upper(),
        algorithm_identification=algorithm,
        tracking_uid=generate_uid(entropy_srcs=["lesion", *key]) if part.number else None,
        tracking_id=part.label if part.number else None,
        anatomic_regions=[concept(region) for region in terms.regions] or None,
    )
    if terms.side is not None:
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept(terms.side)]
    return segment


def _digest(voxels: Array) -> str:
    return hashlib.blake2b(np.packbits(voxels).data, digest_size=16).hexdigest()


def _identifiers(sources: Sequence[Any], parts: Sequence[_Part]) -> tuple[str, str]:
    """UIDs of the new series and instance, from what they hold."""
    from pydicom.uid import generate_uid

    key = [repr((part.label, part.box, _digest(part.voxels))) for part in parts]
    key += [source.SOPInstanceUID for source in sources]
    return generate_uid(entropy_srcs=["series", *key]), generate_uid(entropy_srcs=["instance", *key])
