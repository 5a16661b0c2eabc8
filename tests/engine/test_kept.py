"""Records that are read from the disk when they are asked for."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import pytest

from synthoma.engine.kept import Records
from synthoma.engine.records import CaseRecord
from synthoma.errors import RunError
from synthoma.runs import Journal

NAMES = ["a", "b", "é"]


def record(case: str, value: int = 0) -> CaseRecord:
    return CaseRecord(case, "failed" if value < 0 else "done", {"value": value})


@pytest.mark.parametrize("is_kept", [True, False])
def test_they_come_in_the_order_of_the_cases_and_the_last_one_counts(tmp_path: Path, is_kept: bool) -> None:
    journal = Journal(tmp_path / "records.jsonl") if is_kept else None
    records = Records(NAMES, journal)
    assert records.of("a") is None
    for case, value in (("é", 3), ("a", -1), ("b", 200), ("a", 1)):
        records.add(case, record(case, value).line())
    wanted = [record("a", 1), record("b", 200), record("é", 3)]
    assert list(records) == wanted
    assert records.put_in_order() == 0
    assert records == wanted
    assert records != [*wanted[:2], record("é", 4)]
    assert records[-1] == records.of("é") == wanted[2]
    assert records[1:] == wanted[1:]
    assert pickle.loads(pickle.dumps(records)) == wanted
    if journal is not None:
        assert journal.path.read_text().splitlines() == [one.line() for one in wanted]


def test_they_are_found_again_and_outlive_a_file_in_their_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    records = Records(NAMES, journal)
    for case in reversed(NAMES):
        records.add(case, record(case, -1).line())
    assert records.put_in_order() == 3
    with journal.path.open("ab") as file:
        file.write(b'{"cas\n' + record("b", 2).line().encode() + b"\n\x00\x00")
    again = Records(NAMES, journal)
    journal.path.rename(tmp_path / "other")
    journal.path.write_text("x" * 1000)
    assert [one.result["value"] for one in records] == [-1, -1, -1]
    with pytest.raises(ValueError, match="Expecting value"):
        list(again)  # nothing was read of it before it was replaced
    (tmp_path / "other").rename(journal.path)
    assert [one.result["value"] for one in Records(NAMES, journal)] == [-1, 2, -1]


def test_records_of_others_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    for case in "xay":
        journal.append(record(case).line())
    with pytest.raises(RunError, match=r"records of 2 cases that are not asked for; found x, y;"):
        Records(NAMES, journal)


def test_memory_does_not_grow_with_them(tmp_path: Path) -> None:
    names = [f"case-{number}" for number in range(2000)]
    records = Records(names, Journal(tmp_path / "records.jsonl"))
    lines = [record(name).line() for name in names]
    tracemalloc.start()
    for name, line in zip(names, lines, strict=True):
        records.add(name, line)
    assert records.put_in_order() == 0
    assert sum(one.status == "done" for one in records) == len(names)
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grown < 20 * len(names) + 50_000, "bytes: two numbers a case"
