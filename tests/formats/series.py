"""A small DICOM series on disk, and changes to its slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pydicom = pytest.importorskip("pydicom")

Edit = Callable[[Any], None]  # what is done to one slice, a pydicom data set


def edit(folder: Path, change: Edit, *names: str) -> None:
    """Changes these slices, or all."""
    for path in sorted(folder.iterdir()):
        if not names or path.name in names:
            image = pydicom.dcmread(path)
            change(image)
            image.save_as(path)
