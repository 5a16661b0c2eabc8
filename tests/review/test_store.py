"""What a reader said is kept: once, in order, by whom, through kills."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from synthoma.errors import RunError
from synthoma.review.store import SCHEMA, StaleAnswerError, Store, Task


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    reader, other = store.add_reader("reader 1"), store.add_reader("reader 2")
    item = store.add_item("case", "liver_lesion", "", {})
    store.add_task(reader.id, item)
    store.add_task(other.id, item)
    return store


def keep(store: Store, task: Task, key: str, after: int, content: str = "") -> int:
    return store.add_answer(task, key, after, {"said": content}, None, False, 1.5, {})


def test_the_last_answer_counts_and_older_ones_stay(store: Store) -> None:
    task = store.tasks()[0]
    assert keep(store, task, "a" * 8, 0, "first") == 1
    assert keep(store, task, "b" * 8, 1, "second") == 2
    assert [answer.content["said"] for answer in store.answers(task.id)] == ["first", "second"]
    assert store.last_answers()[task.id].content == {"said": "second"}


def test_an_answer_sent_twice_counts_once(store: Store) -> None:
    task = store.tasks()[0]
    assert keep(store, task, "a" * 8, 0) == keep(store, task, "a" * 8, 0) == 1
    assert len(store.answers(task.id)) == 1
    assert len(store.audit()) == 1


def test_an_answer_to_an_older_state_is_refused(store: Store) -> None:
    task = store.tasks()[0]
    keep(store, task, "a" * 8, 0)
    with pytest.raises(StaleAnswerError):
        keep(store, task, "b" * 8, 0)


def test_two_readers_of_one_case_do_not_touch_each_other(store: Store) -> None:
    one, two = store.tasks()
    keep(store, one, "a" * 8, 0, "one")
    keep(store, two, "b" * 8, 0, "two")
    assert [store.last_answers()[task.id].content["said"] for task in (one, two)] == ["one", "two"]


def test_a_key_of_another_task_is_refused(store: Store) -> None:
    one, two = store.tasks()
    keep(store, one, "a" * 8, 0)
    with pytest.raises(StaleAnswerError):
        keep(store, two, "a" * 8, 0)


def test_a_task_is_found_by_its_own_reader_only(store: Store) -> None:
    task = store.tasks()[0]
    assert store.task(task.code, task.reader) == task
    assert store.task(task.code, task.reader + 1) is None


@pytest.mark.parametrize("table", ["answers", "audit", "masks"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET rowid = 99"])
def test_what_was_said_cannot_be_changed_or_removed(store: Store, table: str, change: str) -> None:
    keep(store, store.tasks()[0], "a" * 8, 0)
    store.add_mask("d", [0] * 6, b"")
    store.close()
    with sqlite3.connect(store.path) as database, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(change.format(table))


def test_a_failed_block_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.transaction():
            store.add_reader("reader 3")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(store.readers()) == 2


def test_an_opened_study_is_the_same(store: Store, tmp_path: Path) -> None:
    secret, tasks = store.fact("secret"), store.tasks()
    keep(store, tasks[0], "a" * 8, 0, "kept")
    store.close()
    again = Store(tmp_path)
    assert (again.fact("secret"), again.tasks()) == (secret, tasks)
    assert again.last_answers()[tasks[0].id].content == {"said": "kept"}


def test_a_study_of_a_newer_version_is_refused(store: Store, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(store.path) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(RunError, match="newer version"):
        Store(tmp_path)


def test_a_damaged_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RunError, match="cannot be opened"):
        Store(tmp_path)


def test_nobody_else_can_read_the_tokens_secret(store: Store, tmp_path: Path) -> None:
    store.add_reader("reader 3")
    written = [path for path in tmp_path.iterdir() if path.name.startswith("study.db")]
    assert len(written) >= 2  # the journal too
    assert [path.name for path in written if path.stat().st_mode & 0o77] == []
