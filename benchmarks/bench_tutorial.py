"""The tutorial as it is written: each command of docs/tutorial.md, its seconds by the clock and of the CPU."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
GOAL_S = 15 * 60  # on two cores that are free, without the download
SHOWN = ("dsc", "lesion_sensitivity", "false_per_scan")


def commands() -> list[str]:
    """Those of the page that are ours; setting up an environment is the reader's."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("synthoma ")]


def main() -> None:
    """Runs them one after the other in a folder of its own, and prints what the comparison says."""
    started, used = time.perf_counter(), _cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        for line in commands():
            begun, before = time.perf_counter(), _cpu_s()
            words = [sys.executable, "-m", "synthoma", *shlex.split(line)[1:]]
            environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
            subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
            print(f"{time.perf_counter() - begun:7.1f} s, CPU {_cpu_s() - before:6.1f} s: {line}", flush=True)
        said = json.loads((Path(folder) / "comparison/summary.json").read_text(encoding="utf-8"))["differences"]
        for row in said:
            if (row["structure"], row["metric"], row["size"]) in [("liver_lesion", name, "") for name in SHOWN]:
                print({name: row[name] for name in ("metric", "first", "second", "low", "high", "n", "verdict")})
    total, cpu, load = time.perf_counter() - started, _cpu_s() - used, os.getloadavg()[0]
    print(f"together {total:.0f} s by the clock (goal {GOAL_S}), {cpu:.0f} s of CPU; load of the machine {load:.1f}")


def _cpu_s() -> float:
    """CPU seconds of all commands that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    main()
