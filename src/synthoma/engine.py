"""Many cases: one function over each, in process, on local processes or on a cluster, with a record per case."""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from synthoma.errors import RunError
from synthoma.runs import Journal, Run

LOG_EVERY_S = 10.0

# A case as it travels: its id and itself. What comes back is its record as one line of JSON.
Item = tuple[str, Any]
Task = Callable[[Item], str]


@dataclass(frozen=True)
class CaseRecord:
    """What became of one case.

    result: what the function returned, as JSON data; empty if it failed. error: one sentence, the type and the
    message; traceback: the whole of it, from the process that ran the case. Both empty if it is done.
    """

    case: str
    status: Literal["done", "failed"]
    result: dict[str, Any]
    error: str = ""
    traceback: str = ""


def map_cases(
    function: Callable[[Any], dict[str, Any]],
    cases: Iterable[Any],
    *,
    run: Run | None = None,
    workers: int = 0,  # everything runs in process until the next commit
    cluster: str | None = None,
    title: str = "",
    key: Callable[[Any], str] = attrgetter("id"),
    journal: str = "records",
) -> list[CaseRecord]:
    """The record of every case, in the order of `cases`, wherever and in whatever order they were done."""
    items: list[Item] = [(key(case), case) for case in cases]
    _refuse_duplicates(items)
    records = run.journal(journal) if run else None
    lines = _done_before(records, items) if records else {}
    todo = [item for item in items if item[0] not in lines]
    with closing(_run_here(partial(attempt, function), todo)) as finished, _progress(title, len(todo)) as advance:
        for index, line in finished:
            lines[todo[index][0]] = line
            if records:
                records.append(line)
            advance(line)
    if records:
        records.replace(lines[case] for case, _ in items)
    outcome = [CaseRecord(**json.loads(lines[case])) for case, _ in items]
    if run:
        run.note(cases=len(outcome), failed=sum(record.status == "failed" for record in outcome))
    return outcome


def exit_code(records: Iterable[CaseRecord]) -> int:
    """1 if any case failed, else 0."""
    return int(any(record.status == "failed" for record in records))


def attempt(function: Callable[[Any], dict[str, Any]], item: Item) -> str:
    """The record of one case as a line of JSON; whatever the function raises becomes a failed record."""
    case_id, case = item
    try:
        result = function(case)
        if not isinstance(result, dict):
            raise TypeError(f"returned {type(result).__name__}, expected a dict of JSON data")
        return _line(CaseRecord(case_id, "done", result))
    except (Exception, SystemExit) as error:  # noqa: BLE001 (recorded with its traceback: the other cases go on)
        sentence = " ".join(f"{type(error).__name__}: {error}".split())
        return _line(CaseRecord(case_id, "failed", {}, sentence, traceback.format_exc()))


def _line(record: CaseRecord) -> str:
    return json.dumps(vars(record), allow_nan=False)


def _run_here(task: Task, items: Sequence[Item]) -> Generator[tuple[int, str], None, None]:
    for index, item in enumerate(items):
        yield index, task(item)


def _refuse_duplicates(items: Sequence[Item]) -> None:
    twice = [case for case, count in Counter(case for case, _ in items).items() if count > 1]
    if twice:
        raise RunError(f"{len(twice)} case ids are used more than once", found=", ".join(twice[:5]), fix="rename them")


def _done_before(journal: Journal, items: Sequence[Item]) -> dict[str, str]:
    """The lines of the cases already done; failed ones are tried again, and the last line of a case counts."""
    asked = {case for case, _ in items}
    records = {entry["case"]: entry for entry in journal.read()}
    strangers = [case for case in records if case not in asked]
    if strangers:
        raise RunError(
            f"{journal.path} has records of {len(strangers)} cases that are not asked for",
            found=", ".join(strangers[:5]),
            fix="choose another --out, or ask for those cases as well",
        )
    return {case: _line(CaseRecord(**entry)) for case, entry in records.items() if entry["status"] == "done"}


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[str], None]]:
    yield lambda line: None
