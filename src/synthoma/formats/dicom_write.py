"""A CT volume as a series of DICOM files (extra `dicom`)."""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import disk
from synthoma.errors import FileError, GeometryError
from synthoma.extras import need
from synthoma.formats.dicom_codes import MODIFYING, concept
from synthoma.volume import Array, Geometry, Volume

_SQUARE_MM = 0.1  # a grid whose corners DICOM would move by more cannot be written
_LONGEST = 60  # letters of an id
_CT = "1.2.840.10008.5.1.4.1.1.2"  # CT Image Storage


def write_series(
    volume: Volume,
    folder: Path | str,
    patient: str,
    description: str = "synthoma",
    study: str = "",
    derivation: str = "Written by synthoma",
) -> None:
    """The scan as one uncompressed CT series, a file per slice along K, into a new or empty folder.

    The header says that the images are derived and how (derivation), and names the patient as told and nothing else.

    HU must be whole or are rounded, within int16. Identifiers follow from voxels, grid and names, so the same
    input gives the same bytes. A grid that is left-handed comes back with K turned round, every voxel at its mm.
    Raises `GeometryError` if the grid's axes are not at right angles, `FileError` if the folder holds files.
    """
    if not volume.is_image:
        raise ValueError("a CT series holds HU; masks go to dicom_seg.write_segmentation")
    folder = Path(folder)
    _require_right_angles(volume.geometry, folder)
    data = _whole_hu(volume.data, folder)
    part = disk.part_of(folder)
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise FileError(f"{folder} is not empty", expected="a new folder for the series")
        part.mkdir(parents=True)
        common = _common(data, volume.geometry, _short(patient), description, study, derivation)
        for index in range(data.shape[2]):
            image = _slice(common, volume.geometry, data[:, :, index], index)
            image.save_as(part / f"{index:05d}.dcm", enforce_file_format=True)
        if folder.is_dir():
            folder.rmdir()
        part.replace(folder)
    except OSError as error:
        raise FileError(f"cannot write {folder}", found=error.strerror or str(error)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _short(patient: str) -> str:
    """The patient's id as a header can hold it; a digest of one that is too long or holds letters with a meaning."""
    if len(patient) <= _LONGEST and not set(patient) & set("\\^="):
        return patient
    return hashlib.blake2b(patient.encode(), digest_size=8).hexdigest()


def _common(
    data: Array, where: Geometry, patient: str, description: str, study: str, derivation: str
) -> dict[str, Any]:
    """What every slice of the series says, as keyword -> value."""
    need("pydicom", extra="dicom")
    from pydicom.uid import generate_uid

    names = repr((patient, description, study))
    content = hashlib.blake2b(np.asfortranarray(data).T.data, digest_size=16).hexdigest()
    key = [names, content, where.affine.tobytes().hex(), repr(where.shape)]
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "SOPClassUID": _CT,
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "Modality": "CT",
        "Manufacturer": "synthoma",
        "ManufacturerModelName": "synthoma",
        "SoftwareVersions": version("synthoma"),
        "ContributingEquipmentSequence": [_equipment()],
        "DerivationDescription": derivation,
        "BurnedInAnnotation": "NO",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "No header of the source was copied",
        "ReferringPhysicianName": "",
        "SeriesDescription": description,
        "PatientName": f"{patient}^",
        "PatientID": patient,
        "PatientBirthDate": "",
        "PatientSex": "",
        "KVP": None,
        "Laterality": "",
        "PatientPosition": "HFS",
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", patient, study or content]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", *key]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame", *key]),
        "StudyID": study[:16],
        "SeriesNumber": 1,
        "AcquisitionNumber": 1,
        "PositionReferenceIndicator": "",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": data.shape[1],
        "Columns": data.shape[0],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "HU",
    }


def _equipment() -> Any:
    """Who made the images out of others."""
    from pydicom.dataset import Dataset

    made = Dataset()
    made.PurposeOfReferenceCodeSequence = [concept(MODIFYING)]
    made.Manufacturer = made.ManufacturerModelName = "synthoma"
    made.SoftwareVersions = version("synthoma")
    return made


def _slice(common: dict[str, Any], where: Geometry, plane: Array, index: int) -> Any:
    """The data set of one slice; its columns run along I, its rows along J."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    from pydicom.valuerep import DSfloat

    def decimals(values: Any) -> list[Any]:
        return [DSfloat(float(value), auto_format=True) for value in values]

    image = Dataset()
    for keyword, value in common.items():
        setattr(image, keyword, value)
    flip = np.array([-1.0, -1.0, 1.0])  # RAS to LPS
    across, down = (where.affine[:3, axis] * flip / where.spacing_mm[axis] for axis in (0, 1))
    image.ImagePositionPatient = decimals(where.to_mm((0, 0, index)) * flip)
    image.ImageOrientationPatient = decimals([*across, *down])
    image.PixelSpacing = decimals([where.spacing_mm[1], where.spacing_mm[0]])
    image.SliceThickness = decimals([where.spacing_mm[2]])[0]
    image.InstanceNumber = index + 1
    image.SOPInstanceUID = generate_uid(entropy_srcs=[common["SeriesInstanceUID"], str(index)])
    image.PixelData = np.ascontiguousarray(plane.T, "<i2").tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _whole_hu(data: Array, folder: Path) -> Array:
    if data.dtype == np.int16:
        return data
    limits = np.iinfo(np.int16)
    wrong = ~((data >= limits.min) & (data <= limits.max))
    if wrong.any():
        raise FileError(
            f"cannot write {folder}",
            found=f"{np.count_nonzero(wrong)} voxels such as {data[wrong][0]:g}",
            expected=f"HU from {limits.min} to {limits.max}",
        )
    return np.rint(data).astype(np.int16)


def _require_right_angles(where: Geometry, folder: Path) -> None:
    directions = where.affine[:3, :3] / where.spacing_mm
    extent = np.asarray(where.spacing_mm) * where.shape
    lean = np.abs(directions.T @ directions - np.eye(3)).max() * extent.max()
    if lean > _SQUARE_MM:
        raise GeometryError(
            f"cannot write {folder}: DICOM slices stack at right angles",
            found=f"a grid that leans by {lean:.1f} mm",
            fix="resample it with .to(an upright geometry)",
        )
