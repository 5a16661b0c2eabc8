"""`make bench`: every bench_*.py beside this file, one after the other. `run.py synthesis` runs those named."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

# one thread, so that CPU seconds are comparable; before numpy is imported
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def main() -> None:
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder))
    wanted = sys.argv[1:]
    for path in sorted(folder.glob("bench_*.py")):
        if not wanted or path.stem.removeprefix("bench_") in wanted:
            print(f"\n== {path.stem.removeprefix('bench_')}", flush=True)
            importlib.import_module(path.stem).main()


if __name__ == "__main__":
    main()
