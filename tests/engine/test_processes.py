"""Worker processes: what they return, how they die, and that none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from synthoma.engine import processes
from synthoma.engine.processes import run_on_processes
from synthoma.errors import RunError


def square(number: int) -> int:
    return number * number


def environment_and_threads(_: int) -> tuple[str | None, int]:
    import cv2

    return os.environ.get("OMP_NUM_THREADS"), cv2.getNumThreads()


def die_on_odd(number: int) -> int:
    if number == 1:
        os._exit(7)
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise ZeroDivisionError("five")
    return number


def die_twice(place: str) -> str:
    """Leaves a tally on disk, so that the third attempt succeeds."""
    tally = Path(place)
    deaths = len(tally.read_text()) if tally.exists() else 0
    if deaths < 2:
        tally.write_text("x" * (deaths + 1))
        os._exit(1)
    return f"after {deaths} deaths"


class Refuses:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


def say_why(item: Any, sentence: str, trace: str) -> Any:
    return sentence, trace


def test_every_result_comes_back_with_its_index() -> None:
    assert dict(run_on_processes(square, range(50), 2, say_why)) == {n: n * n for n in range(50)}


def test_no_items_start_no_process_and_give_nothing() -> None:
    assert list(run_on_processes(square, [], 4, say_why)) == []


def test_a_worker_runs_numeric_libraries_with_one_thread_and_the_parent_keeps_its_own() -> None:
    before = dict(os.environ)
    assert list(run_on_processes(environment_and_threads, [0], 2, say_why)) == [(0, ("1", 1))]
    assert dict(os.environ) == before


def test_an_item_that_kills_three_workers_is_lost_and_the_others_are_done() -> None:
    outcome = dict(run_on_processes(die_on_odd, range(7), 2, say_why))
    assert [outcome[n] for n in (0, 2, 4, 6)] == [0, 2, 4, 6]
    assert outcome[1] == ("killed three workers, last exit code 7", "")
    assert outcome[3][0].startswith("killed three workers, last exit code -9 (SIGKILL); probably out of memory")
    assert outcome[5][0] == "ZeroDivisionError: five"
    assert "die_on_odd" in outcome[5][1]


def test_an_item_that_kills_two_workers_is_done_by_the_third(tmp_path: Path) -> None:
    assert list(run_on_processes(die_twice, [str(tmp_path / "tally")], 2, say_why)) == [(0, "after 2 deaths")]


def test_an_item_that_cannot_travel_is_lost_alone() -> None:
    outcome = dict(run_on_processes(str, [1, lambda: 0, Refuses(), 2], 2, say_why))
    assert (outcome[0], outcome[3]) == ("1", "2")
    assert "must pickle" in outcome[1][0]
    assert "not a number" in outcome[2][0]


def test_a_local_function_is_a_wrong_call() -> None:
    with pytest.raises(ValueError, match="cannot be local"):
        next(run_on_processes(lambda number: number, [1], 2, say_why))


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "careless.py"
    script.write_text(
        "from synthoma.engine.processes import run_on_processes\nprint(list(run_on_processes(str, [1, 2], 2, str)))\n"
    )
    outcome = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode != 0
    assert '`if __name__ == "__main__":`' in outcome.stderr


def test_a_worker_that_cannot_load_the_function_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Importable here, absent in a fresh process.
    module = types.ModuleType("gone_in_the_worker")
    exec("def task(number): return number", module.__dict__)
    monkeypatch.setitem(sys.modules, "gone_in_the_worker", module)
    with pytest.raises(RunError, match="gone_in_the_worker"):
        next(run_on_processes(module.task, [1], 2, say_why))


def rest(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_an_item_that_runs_unusually_long_is_named_again_when_its_time_has_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "SLOW_S", 0.2)
    monkeypatch.setattr(processes, "LOOK_S", 0.05)
    named: list[tuple[float, float]] = []
    outcome = run_on_processes(rest, [0.0, 1.0], 2, say_why, slow=lambda item, seconds: named.append((item, seconds)))
    assert dict(outcome) == {0: 0.0, 1: 1.0}
    assert {item for item, _ in named} == {1.0}
    times = [seconds for _, seconds in named]
    assert times[0] >= 0.2
    assert all(later >= 2 * earlier for earlier, later in zip(times[:-1], times[1:], strict=True))


LONG = """
import os, sys, time
from pathlib import Path
from synthoma.engine.processes import run_on_processes

def stay(place):
    Path(place).write_text(str(os.getpid()))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        sum(range(10_000))  # busy, so that only being told can end it

if __name__ == "__main__":
    try:
        list(run_on_processes(stay, sys.argv[1:], 2, str))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_workers_die_with_their_parent(tmp_path: Path, ending: signal.Signals, code: int) -> None:
    script = tmp_path / "long.py"
    script.write_text(LONG)
    places = [tmp_path / "one", tmp_path / "two"]
    parent = subprocess.Popen(
        [sys.executable, str(script), *map(str, places)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    _wait_until(lambda: all(place.exists() and place.read_text() for place in places))
    if ending is signal.SIGINT:
        os.killpg(parent.pid, ending)  # as a terminal does
    else:
        parent.send_signal(ending)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == code
    assert "Traceback" not in errors
    _wait_until(lambda: not any(_alive(int(place.read_text())) for place in places))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited 30 s"
        time.sleep(0.02)
