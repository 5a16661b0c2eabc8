"""What tests of formats share."""

from __future__ import annotations

from pathlib import Path

import pytest

from grids import ANISOTROPIC, hu
from synthoma.formats import dicom_write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DICOM series of five slices, 9 x 7 pixels, 3 mm apart."""
    pytest.importorskip("pydicom")
    dicom_write.write_series(hu(ANISOTROPIC), tmp_path / "series", "P1")
    return tmp_path / "series"
