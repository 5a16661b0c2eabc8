"""Many cases: one function over each, in process, on local processes or on a cluster, with a record per case."""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from synthoma.engine.clusters import ClusterRecipe, run_on_cluster
from synthoma.engine.processes import run_on_processes
from synthoma.engine.progress import show_progress
from synthoma.errors import RunError
from synthoma.recipe import read_recipe
from synthoma.runs import Journal, Run

# A case as it travels: its id and itself. What comes back is its record as one line of JSON.
Item = tuple[str, Any]


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
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    title: str = "",
    key: Callable[[Any], str] = attrgetter("id"),
    journal: str = "records",
) -> list[CaseRecord]:
    """The record of every case, in the order of `cases`, wherever and in whatever order they were done.

    function: case -> JSON data; what it writes it writes atomically and under fixed names, so that doing a case
    again writes the same bytes. A case that raises, or kills three workers, is a failed record; the others go on.
    run: records are kept in its `JOURNAL.jsonl` as they come; cases done there before are not done again, failed
    ones are. Without a run nothing is kept. No cases give no records.
    workers: 0 or 1 works in this process, more in as many processes of one thread each; function and cases must
    then pickle. cluster: the address of a Dask scheduler (`tcp://...`), the path of a cluster recipe, or the recipe.
    title: names the progress on stderr; without it there is none. key: case -> id, unique among `cases`.
    """
    items: list[Item] = [(key(case), case) for case in cases]
    _refuse_duplicates(items)
    log = run.journal(journal) if run else None
    records = _done_before(log, items) if log else {}
    todo = [item for item in items if item[0] not in records]
    outcomes = _start(partial(attempt, function), todo, workers, cluster)
    with closing(outcomes), show_progress(title, len(items), len(records)) as advance:
        for _, line in outcomes:
            if log:
                log.append(line)
            record = CaseRecord(**json.loads(line))
            records[record.case] = record
            advance(record.status == "failed")
    ordered = [records[case] for case, _ in items]
    if run and log:
        log.replace(_line(record) for record in ordered)
        run.note(cases=len(ordered), failed=sum(record.status == "failed" for record in ordered))
    return ordered


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
        sentence = _one_line(f"{type(error).__name__}: {error}")
        return _line(CaseRecord(case_id, "failed", {}, sentence, traceback.format_exc()))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _line(record: CaseRecord) -> str:
    return json.dumps(vars(record), allow_nan=False)


def _start(
    task: Callable[[Item], str], items: Sequence[Item], workers: int, cluster: str | ClusterRecipe | None
) -> Generator[tuple[int, str], None, None]:
    if cluster is not None:
        if workers:
            raise RunError(
                "both --workers and --cluster", fix="the number of workers is the cluster's own: drop --workers"
            )
        if isinstance(cluster, str) and "://" not in cluster:
            cluster = read_recipe(ClusterRecipe, cluster)
        return run_on_cluster(task, items, cluster, _lost)
    if workers < 0:
        raise ValueError(f"{workers} workers, expected 0 or more")
    if workers > 1:
        return run_on_processes(task, items, workers, _lost)
    return ((index, task(item)) for index, item in enumerate(items))


def _lost(item: Item, sentence: str, trace: str) -> str:
    return _line(CaseRecord(item[0], "failed", {}, _one_line(sentence), trace))


def _refuse_duplicates(items: Sequence[Item]) -> None:
    twice = [case for case, count in Counter(case for case, _ in items).items() if count > 1]
    if twice:
        raise RunError(f"{len(twice)} case ids are used more than once", found=", ".join(twice[:5]), fix="rename them")


def _done_before(journal: Journal, items: Sequence[Item]) -> dict[str, CaseRecord]:
    """The records of the cases already done; failed ones are tried again, and the last record of a case counts."""
    asked = {case for case, _ in items}
    records = {entry["case"]: entry for entry in journal.read()}
    strangers = [case for case in records if case not in asked]
    if strangers:
        raise RunError(
            f"{journal.path} has records of {len(strangers)} cases that are not asked for",
            found=", ".join(strangers[:5]),
            fix="choose another --out, or ask for those cases as well",
        )
    return {case: CaseRecord(**entry) for case, entry in records.items() if entry["status"] == "done"}
