"""Damaged copies of every kind of file: each a volume or an error that names the file, within 1 GiB of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNTS = {
    "nifti": 300, "packed": 300, "nrrd": 200, "mha": 200, "segments": 200,
    "dicom": 120, "enhanced": 100, "deflated": 60, "jpeg2000": 80, "jpegls": 80,
}  # fmt: skip
NEEDED = {"jpeg2000": "openjpeg", "jpegls": "jpeg_ls", "nrrd": "SimpleITK", "mha": "SimpleITK", "segments": "SimpleITK"}


@pytest.mark.parametrize("kind", COUNTS)
def test_a_damaged_file_gives_a_volume_or_a_named_error(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pydicom")
    pytest.importorskip(NEEDED.get(kind, "numpy"))
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to limit memory")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fuzz.py")), kind, str(COUNTS[kind]), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert sum(counts.values()) == 5 * COUNTS[kind]
    assert min(counts.values()) > 20
