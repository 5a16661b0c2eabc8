"""A small DICOM series on disk, changes to its slices, and an independent look at what is written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synthoma.formats.dicom_seg import Origin

pydicom = pytest.importorskip("pydicom")

Edit = Callable[[Any], None]  # what is done to one slice, a pydicom data set

MANUAL = Origin("manual")
AI = Origin("automatic", "liver-small", "1.2", {"model_digest": "0123"})


def edit(folder: Path, change: Edit, *names: str) -> None:
    """Changes these slices, or all."""
    for path in sorted(folder.iterdir()):
        if not names or path.name in names:
            image = pydicom.dcmread(path)
            change(image)
            image.save_as(path)


def verify(path: Path, kind: str) -> None:
    """Fails if `dciodvfy` (Debian's dicom3tools) finds an error, or another kind of object.

    Skips where it is not installed, unless SYNTHOMA_NEEDS_DICOM3TOOLS is set, as continuous integration does.
    """
    program = shutil.which("dciodvfy")
    if program is None:
        assert not os.environ.get("SYNTHOMA_NEEDS_DICOM3TOOLS"), "dciodvfy is not installed"
        pytest.skip("no dciodvfy here (Debian: apt-get install dicom3tools)")
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert kind in lines, lines
    assert not [line for line in lines if line.startswith("Error")], lines
