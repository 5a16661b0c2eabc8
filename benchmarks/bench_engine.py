"""What `engine.map_cases` costs beside the cases themselves, in process, on two workers and on a Dask cluster.

    python benchmarks/bench_engine.py [--quick]

Simulated cases burn CPU time and write a small file. Other processes on the machine make wall times worse, never
better, so each figure is the best of some repetitions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from synthoma.clusters import ClusterRecipe
from synthoma.engine import map_cases
from synthoma.recipes import Recipe
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


def seconds(function: Callable[[Job], dict[str, Any]], count: int, cpu_s: float = 0.0, **how: Any) -> float:
    """Wall time of one run over `count` cases, with its folder and records."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "files").mkdir()
        jobs = [Job(f"case-{index}", Path(place) / "files", cpu_s) for index in range(count)]
        start = time.perf_counter()
        with open_run(Path(place) / "out", "bench", Nothing()) as run:
            map_cases(function, jobs, run=run, **how)
        return time.perf_counter() - start


def per_case_ms(count: int, cpu_s: float, repeats: int) -> float:
    """CPU time per case in process, in ms, the best of some repetitions; opening and closing the run not counted."""

    def cpu_seconds(number: int) -> float:
        start = time.process_time()
        seconds(work, number, cpu_s)
        return time.process_time() - start

    empty = min(cpu_seconds(0) for _ in range(3))
    return (min(cpu_seconds(count) for _ in range(repeats)) - empty) * 1e3 / count


def overhead_ms(count: int, repeats: int, **how: Any) -> float:
    """Cost of one case that does nothing, in ms; starting and stopping the workers is not counted."""
    few = min(seconds(rest, 2, **how) for _ in range(repeats))
    many = min(seconds(rest, 2 + count, **how) for _ in range(repeats))
    return (many - few) * 1e3 / count


def speed_up(count: int, cpu_s: float, repeats: int) -> float:
    """How many times faster two workers are than one, both without their start; the best of interleaved pairs."""
    ratios = []
    for _ in range(repeats):
        start = seconds(rest, 2, workers=2)
        alone, together = seconds(work, count, cpu_s), seconds(work, count, cpu_s, workers=2)
        ratios.append(alone / (together - start))
    return max(ratios)


def main() -> None:
    """Print each figure beside its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and repetitions")
    quick = parser.parse_args().quick
    repeats = 1 if quick else 3
    table = Table("figure", "value", "goal")

    costs = {count: per_case_ms(count, 0.001, 1 if count >= 1_000 else 10) for count in (1, 10, 100, 1_000, 10_000)}
    for count, cost in costs.items():
        table.add_row(f"{count:,} cases of 1 ms in process, CPU ms per case", f"{cost:.2f}", "")
    table.add_row("10,000 cases against 100, per case", f"{costs[10_000] / costs[100]:.2f} x", "flat: 1")
    table.add_row("overhead per case in process, ms", f"{overhead_ms(2000, repeats):.3f}", "< 5")
    table.add_row("overhead per case with 2 workers, ms", f"{overhead_ms(2000, repeats, workers=2):.3f}", "< 5")
    cluster = ClusterRecipe(workers=2, memory_gb=1)
    table.add_row("overhead per case on a Dask cluster of 2, ms", f"{overhead_ms(300, 1, cluster=cluster):.1f}", "")
    ratio = speed_up(100 if quick else 300, 0.02, repeats)
    table.add_row(f"2 workers against 1, cases of 20 ms, {os.cpu_count()} cores", f"{ratio:.2f} x", ">= 1.8 x")
    table.add_row("starting and stopping 2 workers, s", f"{seconds(rest, 2, workers=2):.2f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
