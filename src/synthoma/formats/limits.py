"""How many bytes the voxels of one file may take in memory; a header that asks for more is refused before reading.

A few megabytes can hold gigabytes of zeros. The limit is `DEFAULT_GB`, or what the environment variable
`SYNTHOMA_VOLUME_GB` says.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from synthoma.errors import FileError

VARIABLE = "SYNTHOMA_VOLUME_GB"
DEFAULT_GB = 2.2  # a scan of 1024 x 1024 x 1024 voxels of 2 bytes fits


def limit_bytes() -> int:
    """The limit in bytes; `FileError` if the variable holds no number above 0."""
    told = os.environ.get(VARIABLE, "").strip() or str(DEFAULT_GB)
    try:
        number = float(told)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e6:
        raise FileError(f"{VARIABLE} is no number of gigabytes", found=repr(told), expected="such as 8")
    return int(number * 1e9)


def require_room(path: Path, shape: Sequence[int], bytes_per_voxel: float) -> None:
    """`FileError` if an array of this shape is larger than the limit."""
    needed = math.prod(int(n) for n in shape) * bytes_per_voxel
    limit = limit_bytes()
    if needed > limit:
        raise FileError(
            f"{path} is too large to read",
            found=f"{needed / 1e9:.1f} GB ({'x'.join(str(int(n)) for n in shape)} voxels)",
            expected=f"at most {limit / 1e9:g} GB",
            fix=f"if the file is what it should be, set {VARIABLE}={math.ceil(needed / 1e9)}",
        )
