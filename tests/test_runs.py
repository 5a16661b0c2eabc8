"""Run folders: made, resumed, refused; journals that survive a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthoma.disk import host_key
from synthoma.errors import FileError, RunError
from synthoma.recipe import Recipe
from synthoma.runs import Journal, open_run, read_run

DEAD = 2**22 + 1  # above the largest number that Linux gives a process


class Size(Recipe):
    diameter_mm: float = 10.0


class Plan(Recipe):
    size: Size = Size()
    organs: tuple[str, ...] = ("liver",)


def fail(left: Path, error: type[BaseException]) -> None:
    left.touch()
    raise error


def test_a_run_folder_explains_itself(tmp_path: Path) -> None:
    with open_run(tmp_path / "out", "synthesize", Plan(), seed=3, inputs={"images": "ab12"}) as run:
        assert read_run(run.folder).status == "running"
        run.note(cases=7)
    record = read_run(tmp_path / "out")
    assert (record.kind, record.seed, record.status) == ("synthesize", 3, "done")
    assert record.recipe == {"size": {"diameter_mm": 10.0}, "organs": ["liver"]}
    assert record.digest == Plan().digest()
    assert record.inputs == {"images": "ab12"}
    assert record.summary == {"cases": 7}
    assert {"python", "numpy", "synthoma"} <= set(record.versions)
    assert record.finished is not None
    assert record.started <= record.finished
    assert (tmp_path / "out" / "recipe.toml").read_text() == Plan().to_toml()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["recipe.toml", "run.json"]


def test_the_same_run_has_the_same_id_and_another_has_not(tmp_path: Path) -> None:
    def id_of(name: str, kind: str = "synthesize", **settings: object) -> str:
        with open_run(tmp_path / name, kind, Plan(), **settings) as run:  # type: ignore[arg-type]
            return run.record.id

    ids = [id_of("a"), id_of("b", seed=1), id_of("c", kind="train"), id_of("d", inputs={"x": "1"})]
    assert len(set(ids)) == 4
    assert id_of("again") == ids[0]
    assert ids[0].startswith("synthesize-")


@pytest.mark.parametrize(
    ("kind", "recipe", "seed", "inputs", "difference"),
    [
        ("synthesize", Plan(size=Size(diameter_mm=5)), 0, {}, "size.diameter_mm: 10.0 here, 5.0 asked"),
        ("synthesize", Plan(organs=("liver", "spleen")), 0, {}, 'organs.1: absent here, "spleen" asked'),
        ("synthesize", Plan(), 1, {}, "seed: 0 here, 1 asked"),
        ("synthesize", Plan(), 0, {"images": "ab"}, 'inputs.images: absent here, "ab" asked'),
        ("train", Plan(), 0, {}, 'kind: "synthesize" here, "train" asked'),
    ],
)
def test_another_run_is_refused_naming_what_differs(
    tmp_path: Path, kind: str, recipe: Recipe, seed: int, inputs: dict[str, str], difference: str
) -> None:
    with open_run(tmp_path, "synthesize", Plan()):
        pass
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError) as refusal, open_run(tmp_path, kind, recipe, seed, inputs):
        pass
    assert difference in str(refusal.value)
    assert "choose another --out" in str(refusal.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_differs_in_much_is_named_by_a_few_differences(tmp_path: Path) -> None:
    with open_run(tmp_path, "synthesize", Plan()):
        pass
    many = Plan(organs=tuple(f"organ_{n}" for n in range(40)))
    with (
        pytest.raises(RunError, match=r"organs\.0: .* and 35 more; choose") as refusal,
        open_run(tmp_path, "synthesize", many),
    ):
        pass
    assert len(str(refusal.value)) < 600 + 3 * len(str(tmp_path))


def test_a_folder_of_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("six years")
    with pytest.raises(RunError, match=r"thesis\.docx"), open_run(tmp_path, "synthesize", Plan()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunError, match="is a file"), open_run(tmp_path / "out", "synthesize", Plan()):
        pass


def test_what_a_run_killed_in_its_first_moments_leaves_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text('{"id": "x", "host": "y", "pid": 1}\n')
    (tmp_path / f".run.json.{host_key()}-{DEAD}.part").write_text("{")
    with open_run(tmp_path, "synthesize", Plan()):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml", "run.json"]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (ZeroDivisionError, "failed"), (SystemExit, "failed")]
)
def test_how_a_run_ended_is_recorded_and_it_resumes(tmp_path: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), open_run(tmp_path, "synthesize", Plan()) as run:
        fail(run.folder / "work", error)
    record = read_run(tmp_path)
    assert record.status == status
    with open_run(tmp_path, "synthesize", Plan()) as run:
        assert run.record.started == record.started
    assert read_run(tmp_path).status == "done"


def test_two_runs_in_one_folder_are_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom test_runs import Plan, open_run\n"
        "with open_run(sys.argv[1], 'synthesize', Plan()) as run:\n"
        "    print(run.record.id, flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        run_id = other.stdout.readline().strip()
        with pytest.raises(RunError) as refusal, open_run(tmp_path, "synthesize", Plan()):
            pass
        for fact in (run_id, str(other.pid), os.uname().nodename):
            assert fact in str(refusal.value)
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert read_run(tmp_path).status == "running"
    with open_run(tmp_path, "synthesize", Plan()):  # the kernel released the lock
        pass
    assert read_run(tmp_path).status == "done"


def test_a_run_cannot_be_opened_twice_in_one_process(tmp_path: Path) -> None:
    with open_run(tmp_path, "a", Plan()), pytest.raises(RunError, match="in use"), open_run(tmp_path, "a", Plan()):
        pass


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "x"}'])
def test_a_record_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises((RunError, FileError), match=r"run\.json"):
        read_run(tmp_path)


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize("rest", [b'{"case": "b', b"\x00\x00\x00", b'{"case": "\xff', b"\n"])
def test_a_broken_last_line_is_dropped_and_the_next_one_is_whole(tmp_path: Path, rest: bytes) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    assert journal.read() == []
    journal.append('{"case": "a"}')
    with journal.path.open("ab") as file:
        file.write(rest)
    assert journal.read() == [{"case": "a"}]
    journal.append('{"case": "c"}')
    assert [json.loads(line) for line in journal.path.read_text().splitlines()] == [{"case": "a"}, {"case": "c"}]


def test_a_whole_last_line_that_lacks_its_end_is_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    journal.path.write_text('{"case": "a"}')
    journal.read()
    journal.append('{"case": "b"}')
    assert journal.read() == [{"case": "a"}, {"case": "b"}]


def test_a_line_broken_in_the_middle_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    journal.path.write_text('{"case": "a"}\n{"ca\n{"case": "c"}\n')
    assert journal.read() == [{"case": "a"}, {"case": "c"}]
    assert "line 2 is broken" in caplog.text


def test_a_journal_has_one_writer_in_a_run(tmp_path: Path) -> None:
    with open_run(tmp_path, "a", Plan()) as run:
        run.journal()
        run.journal("pairs")
        with pytest.raises(ValueError, match=r"already writes records\.jsonl"):
            run.journal()


def test_a_run_that_failed_before_it_wrote_anything_is_in_nobodys_way(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(ZeroDivisionError), open_run(out, "synthesize", Plan()) as run:
        fail(run.folder / "records.jsonl", ZeroDivisionError)
    assert not out.exists()
    out.mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), open_run(out, "synthesize", Plan()):
        raise ZeroDivisionError
    assert not list(out.iterdir())
    with open_run(out, "train", Plan(), seed=1):
        pass
    with pytest.raises(ZeroDivisionError), open_run(out, "train", Plan(), seed=1):
        raise ZeroDivisionError
    assert read_run(out).status == "failed", "what ended well before stays"


def test_a_run_in_which_every_case_failed_gives_way_to_another_of_its_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def end(cases: int, failed: int, seed: int, kind: str = "synthesize") -> None:
        with open_run(tmp_path, kind, Plan(), seed) as run:
            run.journal().append("{}")
            run.note(cases=cases, failed=failed)

    end(3, 3, seed=0)
    with pytest.raises(RunError, match="another run"):
        end(3, 2, seed=1, kind="train")
    end(3, 2, seed=1)
    assert "every case had failed" in caplog.text
    assert (tmp_path / "records.jsonl").read_text() == "{}\n"
    assert read_run(tmp_path).seed == 1
    with pytest.raises(RunError, match="another run"):
        end(3, 3, seed=2)


@pytest.mark.parametrize("name", ["summary", "inputs", "id"])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, name: str) -> None:
    with open_run(tmp_path, "synthesize", Plan()):
        pass
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {name: 3}))
    with pytest.raises(RunError, match=f"run.json is damaged; found {name} = 3"):
        read_run(tmp_path)
