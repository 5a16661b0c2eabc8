"""The dates of scans: from DICOM files where they have one."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthoma import files
from synthoma.cases import Case
from synthoma.measurement.patient import patients_of


def write_header(folder: Path, date: str) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID, header.StudyDate = CTImageStorage, generate_uid(), date
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    folder.mkdir()
    header.save_as(folder / "one.dcm", enforce_file_format=True)
    return folder


def test_scans_are_put_in_the_order_of_their_dicom_dates(tmp_path: Path) -> None:
    later = write_header(tmp_path / "a", "20260301")
    first = write_header(tmp_path / "b", "20260101")
    (patient,) = patients_of([Case("a", later, {}, "p"), Case("b", first, {}, "p")])
    assert [case.id for case in patient.cases] == ["b", "a"]
    assert patient.days == (0, 59)


def test_a_folder_without_dicom_and_a_file_have_no_date(tmp_path: Path) -> None:
    assert files.scan_date(tmp_path) == ""
    assert files.scan_date(tmp_path / "scan.nii.gz") == ""
