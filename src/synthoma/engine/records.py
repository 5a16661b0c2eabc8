"""One record per case: what became of it, from which files, and which records of an earlier start still hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from synthoma.errors import RunError, listed
from synthoma.inputs import Reads
from synthoma.runs import Journal, Run


@dataclass(frozen=True)
class CaseRecord:
    """What became of one case.

    result: what the function returned, as JSON data; empty if it failed. error: one sentence, the type and the
    message; traceback: the whole of it, from the process that ran the case. Both empty if it is done.
    inputs: digest of all that the case was made from (`inputs.Reads`); empty where nothing was asked to be digested.
    """

    case: str
    status: Literal["done", "failed"]
    result: dict[str, Any]
    error: str = ""
    traceback: str = ""
    inputs: str = ""

    def line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(vars(self), allow_nan=False)


_KNOWN = {own.name for own in fields(CaseRecord)}


class Item(NamedTuple):
    """A case as it travels to where it is done. before: the inputs of its record, if that may still hold."""

    id: str
    case: Any
    before: str | None = None


def is_record(entry: Any) -> bool:
    """Whether an entry of a journal is the record of a case."""
    whole = isinstance(entry, dict) and {"case", "status", "result"} <= set(entry) <= _KNOWN
    return whole and isinstance(entry["case"], str) and isinstance(entry["result"], dict)


def stamp_line(case: str, stamp: str) -> str:
    """A line of the journal of stamps."""
    return json.dumps({"case": case, "stamp": stamp})


def read_stamps(journal: Journal) -> dict[str, str]:
    """Case -> the stamp of its files when their digest was taken; what cannot be read is left out."""
    entries = [entry for entry in journal.read() if isinstance(entry, dict)]
    return {str(entry.get("case")): str(entry.get("stamp", "")) for entry in entries}


def to_do(
    cases: Iterable[tuple[str, Any]],
    record_of: Callable[[str], CaseRecord | None],
    stamps: Mapping[str, str],
    reads: Callable[[Any], Reads] | None,
) -> list[Item]:
    """The cases that have to be looked at or done; the records of all others hold as they are.

    A done case whose files have the sizes, times and inodes that they had is left alone without reading them.
    Where they have not, the digest in its record travels along: if it turns out the same, the record holds after all.
    """
    todo = []
    for name, case in cases:
        before = record_of(name)
        if before is None or before.status == "failed":
            todo.append(Item(name, case))
        elif reads is not None and not (stamps.get(name) and stamps[name] == reads(case).stamp()):
            todo.append(Item(name, case, before.inputs))
    return todo


def require_unchanged(run: Run, cases: Iterable[Any], reads: Callable[[Any], Reads]) -> None:
    """Note what a run that is one piece (a training) is made from; `RunError` if it was begun with anything else.

    cases: those that take part, each with an `id`; what they are made from is in `inputs.jsonl` of the run folder.
    """
    journal, stamped = run.journal("inputs"), run.journal(".inputs.stamps")
    before = {entry["case"]: entry["inputs"] for entry in journal.read() if isinstance(entry, dict)}
    stamps, found = read_stamps(stamped), {}
    for case in cases:
        made_from = reads(case)
        stamp = made_from.stamp()
        same = stamp and stamps.get(case.id) == stamp and case.id in before
        found[case.id] = before[case.id] if same else made_from.digest()
        stamps[case.id] = stamp
    differing = [name for name in {**before, **found} if before.get(name) != found.get(name)] if before else []
    if differing:
        raise RunError(
            f"{run.folder} was begun with other cases, or their files have changed since",
            found=listed(differing),
            fix="choose another --out; what was trained on the old files cannot go on with new ones",
        )
    journal.replace(json.dumps({"case": name, "inputs": digest}) for name, digest in found.items())
    stamped.replace(stamp_line(name, stamps[name]) for name in found)
