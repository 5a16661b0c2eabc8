"""What all tests share: where real data lies, if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT (SYNTHOMA_DATA, else ../shared/data); skips where there is none."""
    folder = Path(os.environ.get("SYNTHOMA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder
