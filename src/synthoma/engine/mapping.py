"""Many cases: one function over each, in process, on local processes or on a cluster, with a record per case."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sysconfig
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from synthoma.engine.clusters import ClusterRecipe, run_on_cluster
from synthoma.engine.kept import Records
from synthoma.engine.processes import run_on_processes
from synthoma.engine.progress import show_progress
from synthoma.engine.records import CaseRecord, Item, read_stamps, stamp_line, to_do
from synthoma.errors import DiskFullError, FileError, RunError, listed, without_folders
from synthoma.inputs import Reads
from synthoma.recipe import find_recipe, read_recipe
from synthoma.runs import Run

BEGUN = ".begun"  # in the run folder: the case that this process works on

# Where this program and Python's own lie: tracebacks name files from there.
INSTALLED = (str(Path(__file__).parents[2]), *(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")))

# A record as a line of JSON, and the stamp of the files that it was made from.
Outcome = tuple[str, str]

log = logging.getLogger(__name__)


def map_cases(
    function: Callable[[Any], dict[str, Any]],
    cases: Iterable[Any],
    *,
    run: Run | None = None,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
    title: str = "",
    key: Callable[[Any], str] = attrgetter("id"),
    journal: str = "records",
    reads: Callable[[Any], Reads] | None = None,
    watch: Callable[[CaseRecord], None] | None = None,
) -> Sequence[CaseRecord]:
    """The record of every case, in the order of `cases`, wherever and in whatever order they were done; read from
    the disk as they are asked for, so that memory does not grow with them.

    function: case -> JSON data; what it writes it writes atomically and under fixed names, so that doing a case
    again writes the same bytes. A case that raises, kills three workers, or runs out of time is a failed record; the
    others go on. run: records are kept in its `JOURNAL.jsonl` as they come; cases done there before are not done
    again unless their files have changed, failed ones are.
    A full disk ends the run (`DiskFullError`). Without a run nothing is kept. No cases give no records.
    workers: 0 or 1 works in this process, more in as many processes of one thread each; function and cases must
    then pickle. cluster: the address of a Dask scheduler (`tcp://...`), the path of a cluster recipe, or the recipe.
    timeout_s: seconds that a case may take, None for any; its process is then ended, so with no workers the cases run
    in one. title: names the progress on stderr; without it there is none. key: case -> id, unique among `cases`.
    reads: case -> what it is made from, kept as a digest in its record; None if a case is made from nothing but itself.
    watch: sees every record as it comes; what it raises ends the map.
    """
    pairs = [(key(case), case) for case in cases]
    _refuse_duplicates(pairs)
    records = Records([name for name, _ in pairs], run.journal(journal) if run else None)
    stamped = run.journal(f".{journal}.stamps") if run and reads else None
    stamps: dict[str, str] = read_stamps(stamped) if stamped else {}
    todo = to_do(pairs, records.of, stamps, reads)
    mark = run.folder / BEGUN if run else None
    read = run.record.inputs.values() if run else ()
    places = [*INSTALLED, *(place for place in read if os.path.isabs(place))]
    outcomes = _start(partial(attempt, function, reads), todo, workers, cluster, timeout_s, mark)
    changed: set[str] = set()
    with closing(outcomes), show_progress(title, len(pairs), len(pairs) - len(todo)) as advance:
        for number, (line, stamp) in outcomes:
            item = todo[number]
            record = _keep(records, item.id, line, places)
            if item.before is not None and item.before != record.inputs:
                changed.add(item.id)
            if stamped and stamp:
                stamps[item.id] = stamp
                stamped.append(stamp_line(item.id, stamp))
            advance(record.status == "failed")
            if watch:
                watch(record)
    if changed:
        names = listed([item.id for item in todo if item.id in changed])
        log.warning("%d cases are done again, as their files have changed: %s", len(changed), names)
    failed = records.put_in_order()
    if run and stamped:
        stamped.replace(stamp_line(name, stamps[name]) for name, _ in pairs if name in stamps)
    if run:
        run.note(cases=len(records), failed=failed)
    return records


def exit_code(records: Iterable[CaseRecord], allow_failures: int = 0) -> int:
    """1 if more cases failed than are allowed to, else 0."""
    return int(sum(record.status == "failed" for record in records) > allow_failures)


def attempt(function: Callable[[Any], dict[str, Any]], reads: Callable[[Any], Reads] | None, item: Item) -> Outcome:
    """The record of one case as a line of JSON, and the stamp of its files; whatever is raised is a failed record.

    A case whose record of an earlier start is from the same files keeps it: the function is not called, the line is
    empty.
    """
    stamp = inputs = ""
    try:
        if reads is not None:
            made_from = reads(item.case)
            stamp, inputs = made_from.stamp(), made_from.digest()  # before they are read: a later change is seen
            if item.before == inputs:
                return "", stamp
        result = function(item.case)
        if not isinstance(result, dict):
            raise TypeError(f"returned {type(result).__name__}, expected a dict of JSON data")
        return CaseRecord(item.id, "done", result, inputs=inputs).line(), stamp
    except (Exception, SystemExit) as error:  # noqa: BLE001 (recorded with its traceback: the other cases go on)
        sentence = _one_line(f"{type(error).__name__}: {error}")
        return CaseRecord(item.id, "failed", {}, sentence, traceback.format_exc(), inputs).line(), ""


def _keep(records: Records, case: str, line: str, places: Iterable[str]) -> CaseRecord:
    """The record of a case that was looked at, written down if it is a new one. places: not to be named in it."""
    before = records.of(case)
    if not line:
        assert before is not None
        return before
    record = CaseRecord(**json.loads(line))
    if record.status == "failed":
        told, traced = (without_folders(text, places) for text in (record.error, record.traceback))
        record = replace(record, error=told, traceback=traced)
        line = record.line()
    _stop_if_full(record)
    if record != before:
        records.add(case, line)
    return record


def _stop_if_full(record: CaseRecord) -> None:
    """`DiskFullError` if that is why the case failed: it is not its fault, and no other would fare better."""
    kind, _, sentence = record.error.partition(": ")
    if kind == DiskFullError.__name__:
        raise DiskFullError(sentence)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _start(
    task: Callable[[Item], Outcome],
    items: Sequence[Item],
    workers: int,
    cluster: str | ClusterRecipe | None,
    timeout_s: float | None,
    mark: Path | None,
) -> Generator[tuple[int, Outcome], None, None]:
    if cluster is not None:
        if workers:
            raise RunError(
                "both --workers and --cluster", fix="the number of workers is the cluster's own: drop --workers"
            )
        if isinstance(cluster, str) and "://" not in cluster:
            cluster = read_recipe(ClusterRecipe, find_recipe(cluster, "cluster"))
        return run_on_cluster(task, items, cluster, _lost, timeout_s)
    if workers < 0:
        raise ValueError(f"{workers} workers, expected 0 or more")
    if workers > 1 or timeout_s is not None:
        if mark:
            mark.unlink(missing_ok=True)  # a worker may die at any case
        return run_on_processes(task, items, max(workers, 1), _lost, timeout_s, _tell_slow)
    return _in_this_process(task, items, mark)


def _in_this_process(
    task: Callable[[Item], Outcome], items: Sequence[Item], mark: Path | None
) -> Generator[tuple[int, Outcome], None, None]:
    """One case after the other; the one at which an earlier process died is tried in a process of its own.

    mark: the file that names the case that is worked on, so that a crash in native code leaves its name.
    """
    fatal = mark.read_bytes() if mark and mark.exists() else None
    for index, item in enumerate(items):
        if fatal == os.fsencode(item.id) and _travels(task, item):
            log.warning("%s: an earlier start ended at this case, so it is tried in a process of its own", item.id)
            yield from ((index, outcome) for _, outcome in run_on_processes(task, [item], 1, _lost))
            continue
        if mark:
            _write_mark(mark, item.id)
        try:
            outcome = task(item)
        except BaseException:  # Ctrl-C: no fault of the case
            if mark:
                mark.unlink(missing_ok=True)
            raise
        yield index, outcome
    if mark:
        mark.unlink(missing_ok=True)


def _write_mark(mark: Path, case: str) -> None:
    try:
        mark.write_bytes(os.fsencode(case))
    except OSError as error:
        raise FileError(f"cannot write {mark}", found=error.strerror, fix="free space and run again") from error


def _travels(task: Callable[[Item], Outcome], item: Item) -> bool:
    try:
        pickle.dumps((task, item))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _tell_slow(item: Item, seconds: float) -> None:
    log.warning("%s has been worked on for %.0f s; --timeout SECONDS ends such a case", item.id, seconds)


def _lost(item: Item, sentence: str, trace: str) -> Outcome:
    return CaseRecord(item.id, "failed", {}, _one_line(sentence), trace).line(), ""


def _refuse_duplicates(pairs: Sequence[tuple[str, Any]]) -> None:
    twice = [case for case, count in Counter(case for case, _ in pairs).items() if count > 1]
    if twice:
        raise RunError(f"{len(twice)} case ids are used more than once", found=", ".join(twice[:5]), fix="rename them")
