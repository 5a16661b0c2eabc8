"""RTSTRUCT objects for tests: regions as lists of contours in mm (RAS+), drawn on a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from synthoma.volume import Array, Geometry

pydicom = pytest.importorskip("pydicom")

Contour = tuple[str, Array]  # geometric type, points (n, 3) in RAS+ mm


def circle(center_mm: Sequence[float], radius_mm: float, points: int = 720, clockwise: bool = False) -> Array:
    """Points of a circle in an axial plane."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False) * (-1 if clockwise else 1)
    x, y, z = center_mm
    return np.column_stack([x + radius_mm * np.cos(angle), y + radius_mm * np.sin(angle), np.full(points, z)])


def closed(*contours: Array) -> list[Contour]:
    """Contours that enclose something."""
    return [("CLOSED_PLANAR", points) for points in contours]


def flat(geometry: Geometry, ij: Sequence[Sequence[float]], k: float) -> Array:
    """Points at voxels of a slice, in mm."""
    return geometry.to_mm(np.column_stack([np.asarray(ij, float), np.full(len(ij), k)]))


def write_structures(
    regions: Mapping[str, Sequence[Contour]], series: Path, path: Path, frame: str = "", refers: bool = True
) -> None:
    """An RTSTRUCT on the series in a folder; frame: another frame of reference than the series has."""
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(series.glob("*.dcm"))]
    images = [image for image in images if image.Modality == "CT"]
    frame = frame or images[0].FrameOfReferenceUID
    stored = pydicom.Dataset()
    stored.SOPClassUID, stored.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", pydicom.uid.generate_uid()
    stored.Modality, stored.PatientID = "RTSTRUCT", images[0].PatientID
    stored.StudyInstanceUID, stored.SeriesInstanceUID = images[0].StudyInstanceUID, pydicom.uid.generate_uid()
    stored.StructureSetLabel = "test"
    if refers:
        stored.ReferencedFrameOfReferenceSequence = [_referred(images, frame)]
    stored.StructureSetROISequence, stored.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region, drawn = pydicom.Dataset(), pydicom.Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, frame
        stored.StructureSetROISequence.append(region)
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [_contour(kind, points) for kind, points in contours]
        stored.ROIContourSequence.append(drawn)
    stored.file_meta = pydicom.dataset.FileMetaDataset()
    stored.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.save_as(path, enforce_file_format=True)


def _referred(images: Sequence[pydicom.Dataset], frame: str) -> pydicom.Dataset:
    series, study, referred = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = images[0].SeriesInstanceUID, []
    for image in images:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ContourImageSequence.append(item)
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = images[0].StudyInstanceUID, [series]
    referred.FrameOfReferenceUID, referred.RTReferencedStudySequence = frame, [study]
    return referred


def _contour(kind: str, points: Array) -> pydicom.Dataset:
    contour = pydicom.Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
    contour.ContourData = [f"{value:.4f}" for value in (points * (-1, -1, 1)).ravel()]
    return contour
