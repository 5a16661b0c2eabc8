"""The mission, simulated: ten thousand cases as plans on a Dask cluster of two workers, killed halfway and resumed.

What a case does is trivial (it draws three plans from its own random numbers and returns them as a manifest has them),
so what is measured is all around it: processes, scheduler, messages, records.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthoma.engine.clusters import ClusterRecipe
from synthoma.engine.mapping import map_cases
from synthoma.engine.records import CaseRecord
from synthoma.recipe import Recipe
from synthoma.runs import Journal, open_run
from synthoma.seeds import rng_for
from synthoma.synthesis.tumor import TumorPlan

CASES = 10_000
GOAL_MS = 15
_LOOKED_AT = 10  # how often memory is looked at in a run


class Nothing(Recipe):
    """Nothing to set."""


@dataclass(frozen=True)
class Job:
    """A case that is not there."""

    id: str


def plans_of(job: Job) -> dict[str, Any]:
    """Three plans, as JSON data of some 600 bytes each."""
    rng = rng_for(0, job.id)
    plans = []
    for _ in range(3):
        x, y, z = (round(float(mm), 2) for mm in rng.uniform(-200, 200, 3))
        radius = round(float(rng.uniform(2, 30)), 2)
        plan = TumorPlan(
            organ="liver", center_mm=(x, y, z), axes_mm=(radius,) * 3, orientation=(1.0, 0.0, 0.0, 0.0),
            volume_mm3=round(4.19 * radius**3, 2), radius_mm=radius, base_hu=110.0, contrast_hu=-40.0, edge_mm=0.5,
            blur_mm=0.7, noise_hu=12.0, noise_from_mm=(x, y, z), seed=int(rng.integers(2**62)),
            details={"form": "mass", "roughness": 0.1, "spectrum": 2.6, "skew": 0.1, "texture_hu": 6.0},
        )  # fmt: skip
        plans.append(plan.as_dict())
    return {"plans": plans}


def work(folder: Path, count: int) -> None:
    """One start of the run; prints the memory of driver and scheduler, which share a process, as it goes."""
    seen = 0

    def watch(record: CaseRecord) -> None:
        nonlocal seen
        seen += 1
        if seen % max(count // _LOOKED_AT, 1) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"{seen} {pages * 4096 / 2**20:.0f}", flush=True)

    jobs = [Job(f"case-{number:05d}") for number in range(count)]
    cluster = ClusterRecipe(workers=2, memory_gb=1)
    with open_run(folder, "mission", Nothing()) as run:
        map_cases(plans_of, jobs, run=run, cluster=cluster, watch=watch)


@dataclass(frozen=True)
class Start:
    """What one start of the run cost. cpu_s: of all its processes, where it ended by itself. mb: (cases, memory)."""

    wall_s: float
    cpu_s: float
    mb: list[tuple[int, int]]


def start(folder: Path, count: int, killed_at: int | None = None) -> Start:
    """Starts the run in a process of its own; killed_at: kills it once so many cases are recorded."""
    code = f"from pathlib import Path; import bench_mission; bench_mission.work(Path({str(folder)!r}), {count})"
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]  # workers find this module by its name
    begun, before = time.perf_counter(), os.times()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    while killed_at is not None and process.poll() is None:
        if recorded(folder) >= killed_at:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.5)
    out, _ = process.communicate()
    after = os.times()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the run ended with {process.returncode}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    mb = [(int(line.split()[0]), int(line.split()[1])) for line in out.splitlines()]
    return Start(time.perf_counter() - begun, used, mb)


def recorded(folder: Path) -> int:
    """How many cases have a record, a broken last line not counted."""
    journal = folder / "records.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def mission(count: int = CASES) -> None:
    with tempfile.TemporaryDirectory() as place:
        few = start(Path(place) / "few", 2)
        folder = Path(place) / "many"
        first = start(folder, count, killed_at=count // 2)
        done = recorded(folder)
        second = start(folder, count)
        records = [(entry["case"], entry["status"]) for entry in Journal(folder / "records.jsonl").read()]
        whole = records == [(f"case-{number:05d}", "done") for number in range(count)]
        left = count - done
        wall, cpu = ((two - one) * 1e3 / left for one, two in ((few.wall_s, second.wall_s), (few.cpu_s, second.cpu_s)))
        print(f"{count:,} cases on 2 workers: killed with {done:,} recorded, resumed; all there once: {whole}")
        print(f"overhead per case {wall:.1f} ms by the clock, {cpu:.1f} ms CPU (n = {left:,}; goal: < {GOAL_MS})")
        for name, run in (("first start", first), ("second start", second)):
            told = ", ".join(f"{cases:,}: {size}" for cases, size in run.mb)
            print(f"memory of driver and scheduler, {name}, MB after so many cases: {told}")


def main() -> None:
    mission()


if __name__ == "__main__":
    mission(*map(int, sys.argv[1:2]))
