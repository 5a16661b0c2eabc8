"""The study's database: readers, items, answers, masks and an audit, in one SQLite file that survives a kill.

Answers, masks and the audit are append-only, which triggers enforce. A row that was acknowledged is on the disk: the
journal is written ahead (WAL) and flushed at every commit.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synthoma.errors import RunError

DATABASE = "study.db"
SCHEMA = 1

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE readers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL);
CREATE TABLE items (
  id INTEGER PRIMARY KEY, case_id TEXT NOT NULL, structure TEXT NOT NULL, arm TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE tasks (
  id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, reader INTEGER NOT NULL REFERENCES readers(id),
  item INTEGER NOT NULL REFERENCES items(id), stage INTEGER NOT NULL, position INTEGER NOT NULL,
  repeat INTEGER NOT NULL, UNIQUE (reader, item, stage, repeat));
CREATE TABLE masks (digest TEXT PRIMARY KEY, box TEXT NOT NULL, packed BLOB NOT NULL);
CREATE TABLE answers (
  id INTEGER PRIMARY KEY, task INTEGER NOT NULL REFERENCES tasks(id), number INTEGER NOT NULL,
  key TEXT NOT NULL UNIQUE, content TEXT NOT NULL, mask TEXT REFERENCES masks(digest), final INTEGER NOT NULL,
  seconds REAL NOT NULL, time TEXT NOT NULL, UNIQUE (task, number));
CREATE TABLE audit (
  id INTEGER PRIMARY KEY, time TEXT NOT NULL, reader INTEGER REFERENCES readers(id),
  task INTEGER REFERENCES tasks(id), action TEXT NOT NULL, detail TEXT NOT NULL);
"""
_KEPT = ("masks", "answers", "audit")  # rows are added, never changed or removed


@dataclass(frozen=True)
class Reader:
    """A person who reads. name: as the study calls them (`reader 1`), not the person's."""

    id: int
    name: str
    role: str


@dataclass(frozen=True)
class Item:
    """What is read. structure, arm: empty where the study has none; facts: plain data of its kind."""

    id: int
    case_id: str
    structure: str
    arm: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One item before one reader. code: its public name, random. repeat: 0, or 1 when shown again."""

    id: int
    code: str
    reader: int
    item: int
    stage: int
    position: int
    repeat: int


@dataclass(frozen=True)
class Answer:
    """What a reader said. number: 1, 2, ... within the task, the last counts; final: the task is finished."""

    task: int
    number: int
    content: Mapping[str, Any]
    mask: str | None
    final: bool
    seconds: float
    time: str


class StaleAnswerError(Exception):
    """An answer to a state of the task that another tab has changed since."""


class Store:
    """One study's database with one connection: methods may be called from several threads."""

    def __init__(self, folder: Path) -> None:
        """Opens, or makes; `RunError` if it is damaged or was made by a newer version."""
        self.path = folder / DATABASE
        self._lock = threading.RLock()
        try:
            self.path.touch(mode=0o600)  # it holds the tokens' secret; its journal takes the same mode
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise RunError(
                    f"{folder} is a study of a newer version",
                    found=f"schema {version}",
                    expected=f"schema {SCHEMA} or older",
                    fix="open it with the version that made it",
                )
            if version == 0:
                self._make()
        except (sqlite3.Error, OSError) as error:
            raise RunError(f"{self.path} cannot be opened as a study", found=str(error)) from error

    def _make(self) -> None:
        with self.transaction():
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            for table in _KEPT:
                for change in ("UPDATE", "DELETE"):
                    self._db.execute(
                        f"CREATE TRIGGER {table}_{change.lower()} BEFORE {change} ON {table} "
                        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                    )
            self._db.execute("INSERT INTO facts VALUES ('secret', ?)", (json.dumps(secrets.token_hex(32)),))
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def close(self) -> None:
        """Ends the connection; the journal goes into the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A block whose rows are all kept or none, and on the disk when it ends; blocks may nest."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, tuple(values)).fetchall()

    def _insert(self, query: str, values: Iterable[Any]) -> int:
        with self._lock:
            return int(self._db.execute(query, tuple(values)).lastrowid or 0)

    def fact(self, name: str, otherwise: Any = None) -> Any:
        """A fact of the study; what is given otherwise if it has none of this name."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", [name])
        return json.loads(rows[0][0]) if rows else otherwise

    def set_fact(self, name: str, value: Any) -> None:
        """States a fact of the study, in place of an older one."""
        with self.transaction():
            self._insert("INSERT OR REPLACE INTO facts VALUES (?, ?)", [name, json.dumps(value)])

    def add_reader(self, name: str, role: str = "reader") -> Reader:
        """A new reader."""
        return Reader(self._insert("INSERT INTO readers (name, role) VALUES (?, ?)", [name, role]), name, role)

    def readers(self) -> list[Reader]:
        """All readers, in the order they were added."""
        return [Reader(*row) for row in self._rows("SELECT id, name, role FROM readers ORDER BY id")]

    def add_item(self, case_id: str, structure: str, arm: str, facts: Mapping[str, Any]) -> int:
        """A new item; its id."""
        query = "INSERT INTO items (case_id, structure, arm, facts) VALUES (?, ?, ?, ?)"
        return self._insert(query, [case_id, structure, arm, json.dumps(facts)])

    def items(self) -> list[Item]:
        """All items, in the order they were added."""
        rows = self._rows("SELECT id, case_id, structure, arm, facts FROM items ORDER BY id")
        return [_item(row) for row in rows]

    def item(self, number: int) -> Item:
        """The item of this id, which exists."""
        row = self._rows("SELECT id, case_id, structure, arm, facts FROM items WHERE id = ?", [number])[0]
        return _item(row)

    def add_task(self, reader: int, item: int, stage: int = 0, position: int = 0, repeat: int = 0) -> None:
        """Puts an item before a reader, under a random name; nothing if it already is."""
        query = "INSERT OR IGNORE INTO tasks (code, reader, item, stage, position, repeat) VALUES (?, ?, ?, ?, ?, ?)"
        self._insert(query, [secrets.token_hex(8), reader, item, stage, position, repeat])

    def tasks(self, reader: int | None = None) -> list[Task]:
        """The tasks of a reader, or of all, in the order they are shown."""
        query = "SELECT id, code, reader, item, stage, position, repeat FROM tasks"
        chosen = "" if reader is None else " WHERE reader = ?"
        rows = self._rows(f"{query}{chosen} ORDER BY stage, position, id", [] if reader is None else [reader])
        return [Task(*row) for row in rows]

    def tasks_of(self, item: int, stage: int) -> list[Task]:
        """Everybody's tasks with an item in a stage."""
        query = "SELECT id, code, reader, item, stage, position, repeat FROM tasks WHERE item = ? AND stage = ?"
        return [Task(*row) for row in self._rows(f"{query} ORDER BY id", [item, stage])]

    def task(self, code: str, reader: int) -> Task | None:
        """The task of this public name if it is this reader's, else None."""
        query = "SELECT id, code, reader, item, stage, position, repeat FROM tasks WHERE code = ? AND reader = ?"
        rows = self._rows(query, [code, reader])
        return Task(*rows[0]) if rows else None

    def add_answer(
        self,
        task: Task,
        key: str,
        after: int,
        content: Mapping[str, Any],
        mask: str | None,
        final: bool,
        seconds: float,
        audit: Mapping[str, Any],
    ) -> int:
        """Keeps an answer and what led to it; its number. The same key again changes nothing and gives the same.

        after: the number of the answer that this one follows; `StaleAnswerError` if another came between.
        """
        with self.transaction():
            known = self._rows("SELECT task, number FROM answers WHERE key = ?", [key])
            if known and known[0][0] == task.id:
                return int(known[0][1])
            last = self._rows("SELECT COALESCE(MAX(number), 0) FROM answers WHERE task = ?", [task.id])[0][0]
            if known or last != after:
                raise StaleAnswerError
            query = (
                "INSERT INTO answers (task, number, key, content, mask, final, seconds, time)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            )
            row = [task.id, last + 1, key, json.dumps(content), mask, int(final), seconds, now()]
            self._insert(query, row)
            self.note(task.reader, "answer", {"number": last + 1, "final": final, **audit}, task.id)
            return int(last + 1)

    def answers(self, task: int) -> list[Answer]:
        """Every answer to a task, the last one counts."""
        return [answer for answer in self._answers("WHERE task = ?", [task])]

    def last_answers(self) -> dict[int, Answer]:
        """Task -> the answer that counts, of every task that has one."""
        latest = "WHERE (task, number) IN (SELECT task, MAX(number) FROM answers GROUP BY task)"
        return {answer.task: answer for answer in self._answers(latest, [])}

    def last_answer(self, task: int) -> Answer | None:
        """The answer of a task that counts; None if there is none."""
        found = self._answers("WHERE task = ? ORDER BY number DESC LIMIT 1", [task])
        return found[0] if found else None

    def _answers(self, chosen: str, values: Iterable[Any]) -> list[Answer]:
        rows = self._rows(f"SELECT task, number, content, mask, final, seconds, time FROM answers {chosen}", values)
        return [Answer(row[0], row[1], json.loads(row[2]), row[3], bool(row[4]), row[5], row[6]) for row in rows]

    def add_mask(self, digest: str, box: Iterable[int], packed: bytes) -> None:
        """Keeps the packed voxels of a box under their digest."""
        with self.transaction():
            self._insert("INSERT OR IGNORE INTO masks VALUES (?, ?, ?)", [digest, json.dumps(list(box)), packed])

    def mask(self, digest: str) -> tuple[list[int], bytes] | None:
        """The box and the packed voxels of a digest; None if it is unknown."""
        rows = self._rows("SELECT box, packed FROM masks WHERE digest = ?", [digest])
        return (json.loads(rows[0][0]), rows[0][1]) if rows else None

    def state(self) -> str:
        """16 hexadecimal digits that change with every answer."""
        digest = hashlib.blake2b(str(self.fact("secret")).encode(), digest_size=8)
        for row in self._rows("SELECT key, number, final FROM answers ORDER BY id"):
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def note(self, reader: int | None, action: str, detail: Mapping[str, Any], task: int | None = None) -> None:
        """A row of the audit: who did what, when, on which task."""
        query = "INSERT INTO audit (time, reader, task, action, detail) VALUES (?, ?, ?, ?, ?)"
        self._insert(query, [now(), reader, task, action, json.dumps(detail)])

    def audit(self) -> list[dict[str, Any]]:
        """Every row of the audit, in order, as plain data."""
        rows = self._rows("SELECT time, reader, task, action, detail FROM audit ORDER BY id")
        names = ("time", "reader", "task", "action")
        return [dict(zip(names, row[:4], strict=True)) | {"detail": json.loads(row[4])} for row in rows]


def _item(row: tuple[Any, ...]) -> Item:
    return Item(row[0], row[1], row[2], row[3], json.loads(row[4]))


def now() -> str:
    """This moment in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
