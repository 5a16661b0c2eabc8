"""500 damaged headers of each kind: every one a volume or an error that names the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["nifti", "packed", "nrrd", "dicom"])
def test_a_damaged_header_gives_a_volume_or_a_named_error(tmp_path: Path, kind: str) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to limit memory")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fuzz.py")), kind, "500", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert sum(counts.values()) == 2000
    assert min(counts.values()) > 50
