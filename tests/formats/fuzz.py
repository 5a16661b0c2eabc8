"""Reads damaged copies of small files, in a process of its own with little memory; prints what came of them.

python fuzz.py nifti|packed|nrrd|dicom COUNT FOLDER
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np

from synthoma import files
from synthoma.errors import SynthomaError
from synthoma.formats import dicom_write
from synthoma.volume import Geometry, Volume

SPARE_BYTES = 2**30
SECONDS_EACH = 10


def damaged(whole: bytes, rng: np.random.Generator, reach: int) -> bytes:
    """A copy with up to eight bytes of its first `reach` changed, or (one in six) cut short."""
    if rng.random() < 1 / 6:
        return whole[: rng.integers(len(whole))]
    copy = bytearray(whole)
    for place in rng.integers(min(reach, len(whole)), size=rng.integers(1, 9)):
        copy[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
    return bytes(copy)


def main(kind: str, count: int, folder: Path) -> None:
    grid = Geometry.of((12, 10, 4), (0.8, 0.8, 2.5), "LPS")
    ct = Volume(np.random.default_rng(0).integers(-1000, 2000, grid.shape).astype(np.int16), grid)
    if kind == "dicom":
        path = folder / "series"
        dicom_write.write_series(ct, path, "P1")
        target = path / "00002.dcm"
    else:
        path = target = folder / {"nifti": "ct.nii", "packed": "ct.nii.gz", "nrrd": "ct.nrrd"}[kind]
        files.write_volume(ct, path)
    whole = target.read_bytes()
    raw = zlib.decompress(whole, 31) if kind == "packed" else whole
    files.read_image(path)  # imports what is needed, before memory is limited
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", category=RuntimeWarning, module="synthoma")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))
    counts = {"result": 0, "error": 0}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        copy = damaged(raw, rng, len(raw) - 2 * ct.data.size)
        if kind == "packed":
            squeeze = zlib.compressobj(1, wbits=31)
            copy = squeeze.compress(copy) + squeeze.flush()
        target.write_bytes(copy)
        for read in (files.read_image, files.read_labels, files.read_geometry, files.affine_doubts):
            signal.alarm(SECONDS_EACH)
            try:
                read(path)
            except SynthomaError as error:
                counts["error"] += 1
                if target.parent.name not in str(error):
                    raise AssertionError(f"seed {seed}: {error}") from error
            except BaseException:
                print(f"seed {seed}, {read.__name__}", file=sys.stderr)
                raise
            else:
                counts["result"] += 1
            signal.alarm(0)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
