"""Many cases: records, resume, and the same bytes however the cases were done and however often it was killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from synthoma.disk import atomic, write_text
from synthoma.engine.mapping import exit_code, map_cases
from synthoma.engine.records import CaseRecord
from synthoma.errors import CaseError, DiskFullError, RunError
from synthoma.inputs import Reads
from synthoma.recipe import Recipe
from synthoma.runs import open_run, read_run
from synthoma.seeds import rng_for


class Nothing(Recipe):
    pass


@dataclass(frozen=True)
class Job:
    id: str
    folder: Path
    seconds: float = 0.0


def draw(job: Job) -> dict[str, Any]:
    """Writes a file that depends on the case only; c3 and c7 fail, k* kill their worker."""
    time.sleep(job.seconds)
    if job.id == "c3":
        raise CaseError("no liver", case=job.id, fix="leave it out")
    if job.id == "c7":
        return {"dice": float("nan")}
    if job.id.startswith("k"):
        os._exit(3)
    numbers = rng_for(0, job.id).integers(1000, size=5)
    write_text(job.folder / "cases" / f"{job.id}.txt", f"{numbers}\n")
    return {"sum": int(numbers.sum()), "mean": float(numbers.mean())}


def only_once(job: Job) -> dict[str, Any]:
    """Refuses to do a case twice."""
    with (job.folder / f"{job.id}.done").open("x"):
        return {}


def jobs(folder: Path, count: int = 10, seconds: float = 0.0) -> list[Job]:
    return [Job(f"c{index}", folder, seconds) for index in reversed(range(count))]


def content(folder: Path) -> dict[str, bytes]:
    """Every file but run.json, which holds the times."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del files["run.json"]
    return files


def draw_all(folder: Path, count: int = 10, seconds: float = 0.0, **how: Any) -> Sequence[CaseRecord]:
    with open_run(folder, "draw", Nothing()) as run:
        return map_cases(draw, jobs(folder, count, seconds), run=run, **how)


def test_a_record_per_case_in_the_order_of_the_cases(tmp_path: Path) -> None:
    records = map_cases(draw, jobs(tmp_path))
    assert [record.case for record in records] == [f"c{index}" for index in reversed(range(10))]
    assert [record.case for record in records if record.status == "failed"] == ["c7", "c3"]
    assert exit_code(records) == 1
    assert exit_code(record for record in records if record.status == "done") == 0
    assert map_cases(draw, []) == []
    assert exit_code([]) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failed_record_has_the_error_and_the_traceback_of_the_worker(tmp_path: Path, workers: int) -> None:
    records = {record.case: record for record in map_cases(draw, jobs(tmp_path), workers=workers)}
    assert records["c3"].error == "CaseError: c3: no liver; leave it out"
    assert 'raise CaseError("no liver"' in records["c3"].traceback
    assert records["c3"].result == {}
    assert "nan" in records["c7"].error or "Out of range" in records["c7"].error
    assert records["c0"].traceback == records["c0"].error == ""


@pytest.mark.parametrize("returned", [None, 3, [1], {"path": Path("x")}, {1, 2}])
def test_a_function_that_returns_no_json_data_fails_its_case(returned: Any) -> None:
    (record,) = map_cases(lambda case: returned, ["a"], key=str)
    assert (record.status, record.error.split(":")[0]) == ("failed", "TypeError")


def test_results_are_the_same_json_data_in_process_and_after_a_resume(tmp_path: Path) -> None:
    with open_run(tmp_path, "draw", Nothing()) as run:
        (first,) = map_cases(lambda case: {"pair": (1, 2), "é\udcff": 0.1}, ["a"], key=str, run=run)
    with open_run(tmp_path, "draw", Nothing()) as run:
        (again,) = map_cases(lambda case: {}, ["a"], key=str, run=run)
    assert first.result == again.result == {"pair": [1, 2], "é\udcff": 0.1}


def test_two_cases_of_one_id_are_refused_before_any_is_done(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="c0"):
        map_cases(draw, [*jobs(tmp_path), Job("c0", tmp_path)])
    assert not list(tmp_path.iterdir())


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    folders = [tmp_path / "0" / "out", tmp_path / "1" / "out", tmp_path / "4" / "out"]
    records = [draw_all(folder, workers=int(folder.parent.name)) for folder in folders]
    assert records[0] == records[1] == records[2]
    assert content(folders[0]) == content(folders[1]) == content(folders[2])
    assert len(content(folders[0])) == 8 + 2
    assert read_run(folders[0]).summary == {"cases": 10, "failed": 2}


def test_a_cluster_changes_no_byte(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra cluster is not installed")
    recipe = tmp_path / "cluster.toml"
    recipe.write_text('kind = "local"\nworkers = 2\nmemory_gb = 1.0\n')
    folders = [tmp_path / "here" / "out", tmp_path / "there" / "out"]
    assert draw_all(folders[0]) == draw_all(folders[1], cluster=str(recipe))
    assert content(folders[0]) == content(folders[1])


def test_done_cases_are_not_done_again_and_failed_ones_are(tmp_path: Path) -> None:
    cases = [Job(name, tmp_path / "cases") for name in "abc"]
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "b.done").touch()
    out = tmp_path / "out"
    with open_run(out, "once", Nothing()) as run:
        assert [record.status for record in map_cases(only_once, cases, run=run)] == ["done", "failed", "done"]
    (tmp_path / "cases" / "b.done").unlink()
    with open_run(out, "once", Nothing()) as run:
        assert [record.status for record in map_cases(only_once, cases, run=run)] == ["done", "done", "done"]
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert [(line["case"], line["status"]) for line in lines] == [("a", "done"), ("b", "done"), ("c", "done")]


def test_records_of_cases_that_are_not_asked_for_are_refused_and_more_cases_are_welcome(tmp_path: Path) -> None:
    def once(names: str) -> Sequence[CaseRecord]:
        with open_run(tmp_path, "once", Nothing()) as run:
            return map_cases(lambda case: {}, names, key=str, run=run)

    once("ab")
    assert len(once("cab")) == 3
    with pytest.raises(RunError, match="1 cases that are not asked for; found c"):
        once("ab")
    assert len(once("abc")) == 3


def test_a_case_that_kills_three_workers_is_failed_and_the_others_are_done(tmp_path: Path) -> None:
    cases = [Job("k0", tmp_path), *jobs(tmp_path, 3), Job("k1", tmp_path)]
    records = {record.case: record for record in map_cases(draw, cases, workers=2)}
    assert {case for case, record in records.items() if record.status == "done"} == {"c0", "c1", "c2"}
    assert records["k0"].error == records["k1"].error == "killed three workers, last exit code 3"


def test_workers_and_a_cluster_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="drop --workers"):
        map_cases(draw, jobs(tmp_path), workers=2, cluster="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="-1 workers"):
        map_cases(draw, jobs(tmp_path), workers=-1)


def _command(folder: Path, workers: int) -> subprocess.Popen[bytes]:
    script = "import sys, test_mapping; test_mapping.main(*sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", script, str(folder), str(workers)], cwd=Path(__file__).parent)


def main(folder: str, workers: str) -> None:
    """What a command does; run in a process of its own, so that it can be killed."""
    try:
        draw_all(Path(folder), count=150, seconds=0.02, workers=int(workers))
    except KeyboardInterrupt:
        sys.exit(130)


def test_killed_at_20_random_moments_and_resumed_the_folder_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "a" / "out", tmp_path / "b" / "out"
    draw_all(undisturbed, count=150)
    moments = random.Random(20)
    kills = 0
    for attempt in range(20):
        command = _command(killed, workers=(0, 2)[attempt % 2])
        end = time.monotonic() + 30
        while not (killed / ".lock").exists() and command.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(moments.uniform(0, 0.4))
        command.send_signal(signal.SIGKILL)
        kills += command.wait() == -signal.SIGKILL
    assert kills >= 15
    assert _command(killed, workers=2).wait() == 0
    assert read_run(killed).status == "done"
    assert content(killed) == content(undisturbed)


def test_ctrl_c_leaves_a_run_that_is_interrupted_and_resumes(tmp_path: Path) -> None:
    command = _command(tmp_path, workers=2)
    end = time.monotonic() + 30
    while not (tmp_path / "records.jsonl").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    assert command.wait(30) == 130
    assert read_run(tmp_path).status == "interrupted"
    assert not (tmp_path / ".lock").exists()
    draw_all(tmp_path, count=150)
    assert read_run(tmp_path).summary == {"cases": 150, "failed": 2}


@dataclass(frozen=True)
class Measured:
    """A case made from a file, whose measurement appends to a tally."""

    id: str
    path: Path
    tally: Path

    def reads(self) -> Reads:
        return Reads(self.id, (self.path,))


def measure(case: Measured) -> dict[str, Any]:
    with case.tally.open("a") as file:
        file.write(case.id)
    return {"length": len(case.path.read_text())}


def test_a_resumed_run_does_again_what_is_made_from_changed_files_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tally = tmp_path / "tally"
    cases = [Measured(name, tmp_path / f"{name}.txt", tally) for name in "abc"]

    def run_all(workers: int = 0) -> list[int]:
        tally.write_text("")
        with open_run(tmp_path / "out", "measure", Nothing()) as run:
            records = map_cases(measure, cases, run=run, workers=workers, reads=Measured.reads)
        return [record.result["length"] for record in records]

    for case in cases:
        case.path.write_text("four")
    assert run_all() == [4, 4, 4]
    assert run_all(workers=2) == [4, 4, 4]
    assert tally.read_text() == ""
    assert not caplog.records
    cases[1].path.write_text("seven..")
    assert run_all() == [4, 7, 4]
    assert tally.read_text() == "b"
    assert "1 cases are done again, as their files have changed: b" in caplog.text
    cases[2].path.touch()  # another time, the same content
    assert run_all() == [4, 7, 4]
    assert tally.read_text() == ""


def test_files_that_have_not_changed_are_not_read_again_to_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("four")
    cases = [Measured("a", path, tmp_path / "tally")]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)  # so that the file is old
    for attempt in range(2):
        with open_run(tmp_path / "out", "measure", Nothing()) as run:
            map_cases(measure, cases, run=run, reads=Measured.reads)
        if attempt == 0:
            monkeypatch.setattr(Reads, "digest", lambda self: pytest.fail("read again"))
    assert (tmp_path / "tally").read_text() == "a"


@pytest.mark.parametrize("line", ["[]", '{"case": "a"}', '{"case": 1, "status": "done", "result": {}}', '{"x": 1}'])
def test_a_line_that_is_no_record_is_dropped_and_its_case_done_again(tmp_path: Path, line: str) -> None:
    with open_run(tmp_path, "once", Nothing()) as run:
        map_cases(lambda case: {}, "a", key=str, run=run)
    (tmp_path / "records.jsonl").write_text(line + "\n")
    with open_run(tmp_path, "once", Nothing()) as run:
        (record,) = map_cases(lambda case: {"again": 1}, "a", key=str, run=run)
    assert record.result == {"again": 1}


def hang(job: Job) -> dict[str, Any]:
    """`hang*` never returns, `abort` ends its process as a decoder does."""
    if job.id.startswith("hang"):
        time.sleep(1e6)
    if job.id == "abort":
        os.abort()
    if job.id == "stop":
        raise KeyboardInterrupt
    return {}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_case_that_takes_too_long_is_ended_and_the_others_are_done(tmp_path: Path, workers: int) -> None:
    cases = [Job(name, tmp_path) for name in ("hang1", "hang2", "a", "b")]
    records = {r.case: r for r in map_cases(hang, cases, workers=workers, timeout_s=0.5)}
    assert [records[name].status for name in "ab"] == ["done", "done"]
    for name in ("hang1", "hang2"):
        assert records[name].error == "ended after 0.5 s, the time that a case has (--timeout)"


def test_an_interrupt_inside_a_worker_fails_its_case_only(tmp_path: Path) -> None:
    records = map_cases(hang, [Job("stop", tmp_path), Job("a", tmp_path), Job("b", tmp_path)], workers=2)
    assert [record.status for record in records] == ["failed", "done", "done"]
    assert "KeyboardInterrupt" in records[0].error


def abort_all(folder: str) -> None:
    with open_run(folder, "hang", Nothing()) as run:
        map_cases(hang, [Job(name, Path(folder)) for name in ("a", "abort", "b")], run=run)


def test_the_run_after_a_crash_in_native_code_records_its_case_and_goes_on(tmp_path: Path) -> None:
    script = "import sys, test_mapping; test_mapping.abort_all(sys.argv[1])"
    command = [sys.executable, "-c", script, str(tmp_path)]
    where = Path(__file__).parent
    assert subprocess.run(command, cwd=where, capture_output=True, check=False).returncode == -signal.SIGABRT
    assert subprocess.run(command, cwd=where, capture_output=True, check=False).returncode == 0
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["done", "failed", "done"]
    assert records[1]["error"] == "killed three workers, last exit code -6 (SIGABRT)"
    assert not (tmp_path / ".begun").exists()


WITHOUT_LOCKS = """
import errno, fcntl, os, sys
def no_locks(*_): raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = no_locks
import test_mapping
test_mapping.main(sys.argv[1], sys.argv[2])
"""


def test_two_runs_in_one_folder_without_locks_do_the_same_work_twice(tmp_path: Path) -> None:
    undisturbed, shared = tmp_path / "a" / "out", tmp_path / "b" / "out"
    draw_all(undisturbed, count=150)
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(shared)]
    where = Path(__file__).parent
    both = [
        subprocess.Popen([*command, workers], cwd=where, stderr=subprocess.PIPE, text=True) for workers in ("0", "2")
    ]
    for run in both:
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors
        assert "no locks" in errors
        assert "Traceback" not in errors
    assert content(shared) == content(undisturbed)


def fill(job: Job) -> dict[str, Any]:
    """The disk is full at c1, and at every case after it, until the file `freed` is there."""
    if job.id != "c0" and not (job.folder / "freed").exists():
        with atomic(job.folder / "cases" / job.id):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return {}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_ends_the_run_and_is_no_fault_of_a_case(tmp_path: Path, workers: int) -> None:
    cases = [Job(f"c{index}", tmp_path) for index in range(5)]

    def fill_all() -> Sequence[CaseRecord]:
        with open_run(tmp_path / "out", "fill", Nothing()) as run:
            return map_cases(fill, cases, run=run, workers=workers)

    with pytest.raises(
        DiskFullError, match=r"cannot write .*; found No space left on device; free space and run again"
    ):
        fill_all()
    assert "failed" not in (tmp_path / "out" / "records.jsonl").read_text()
    (tmp_path / "freed").touch()
    assert exit_code(fill_all()) == 0
