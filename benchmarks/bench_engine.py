"""What `engine.map_cases` costs beside the cases themselves, in process, on two workers and on a Dask cluster.

    python benchmarks/bench_engine.py

Simulated cases burn CPU time and write a small file. Other processes on the machine make wall times worse, never
better, so each figure is the best of some repetitions.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from synthoma.engine.clusters import ClusterRecipe
from synthoma.engine.mapping import map_cases
from synthoma.recipe import Recipe
from synthoma.runs import open_run


class Nothing(Recipe):
    """Nothing to set."""


@dataclass(frozen=True)
class Job:
    """A simulated case."""

    id: str
    folder: Path
    cpu_s: float


def work(job: Job) -> dict[str, Any]:
    """Burns CPU time and writes a small file."""
    end = time.process_time() + job.cpu_s
    while time.process_time() < end:
        sum(range(1000))
    (job.folder / job.id).write_text(job.id)
    return {"case": job.id}


def rest(job: Job) -> dict[str, Any]:
    """Does nothing at all, so that what remains is ours."""
    return {}


def seconds(
    function: Callable[[Job], dict[str, Any]],
    count: int,
    cpu_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    **how: Any,
) -> float:
    """Time to map over `count` cases in an open run, with their records."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "files").mkdir()
        jobs = [Job(f"case-{index}", Path(place) / "files", cpu_s) for index in range(count)]
        with open_run(Path(place) / "out", "bench", Nothing()) as run:
            start = clock()
            map_cases(function, jobs, run=run, **how)
            return clock() - start


def per_case_ms(count: int, cpu_s: float, repeats: int) -> float:
    """CPU time per case in process, in ms, the best of some repetitions."""
    return min(seconds(work, count, cpu_s, time.process_time) for _ in range(repeats)) * 1e3 / count


def overhead_ms(count: int, repeats: int, **how: Any) -> float:
    """Wall time of one case that does nothing, in ms; starting and stopping the workers is not counted."""
    few = min(seconds(rest, 2, **how) for _ in range(repeats))
    many = min(seconds(rest, 2 + count, **how) for _ in range(repeats))
    return (many - few) * 1e3 / count


def two_workers(count: int, cpu_s: float, repeats: int) -> tuple[float, float]:
    """How many times faster two workers are than this process, and the CPU time of all of it against one's.

    The start of the workers is not counted; best time against best time.
    """
    runs: dict[str, list[tuple[float, float]]] = {"start": [], "alone": [], "together": []}
    for _ in range(repeats):  # interleaved, so that quiet moments of the machine reach all three
        runs["start"].append(both_clocks(rest, 2, workers=2))
        runs["alone"].append(both_clocks(work, count, cpu_s))
        runs["together"].append(both_clocks(work, count, cpu_s, workers=2))
    start, alone, together = (tuple(map(min, zip(*times, strict=True))) for times in runs.values())
    return alone[0] / (together[0] - start[0]), (together[1] - start[1]) / alone[1]


def both_clocks(function: Callable[[Job], dict[str, Any]], count: int, cpu_s: float = 0.0, **how: Any) -> Any:
    """Wall time, and CPU time with that of the workers."""
    before = sum(os.times()[:4])
    wall_s = seconds(function, count, cpu_s, **how)
    return wall_s, sum(os.times()[:4]) - before


def main() -> None:
    """Print each figure beside its goal."""
    table = Table("figure", "value", "goal")
    repeats = {1: 10, 10: 10, 100: 5, 1_000: 2, 10_000: 1}
    costs = {count: per_case_ms(count, 0.001, times) for count, times in repeats.items()}
    for count, cost in costs.items():
        table.add_row(f"{count:,} case(s) of 1 ms in process, CPU ms per case", f"{cost:.2f}", "")
    table.add_row("10,000 cases against 100, per case", f"{costs[10_000] / costs[100]:.2f} x", "flat: 1")
    table.add_row("overhead per case in process, ms", f"{overhead_ms(2000, 3):.3f}", "< 5")
    table.add_row("overhead per case with 2 workers, ms", f"{overhead_ms(2000, 3, workers=2):.3f}", "< 5")
    cluster = ClusterRecipe(workers=2, memory_gb=1)
    table.add_row("overhead per case on a Dask cluster of 2, ms", f"{overhead_ms(300, 2, cluster=cluster):.1f}", "")
    faster, cpu = two_workers(100, 0.02, 6)
    table.add_row(f"2 workers against 1, cases of 20 ms, {os.cpu_count()} cores", f"{faster:.2f} x", ">= 1.8 x")
    table.add_row("CPU time of 2 workers against 1, the same cases", f"{cpu:.2f} x", "1")
    Console().print(table)


if __name__ == "__main__":
    main()
