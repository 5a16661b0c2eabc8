"""The records of many cases: in memory is only where each lies on the disk."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import IO, Any, overload

from synthoma.engine.records import CaseRecord, is_record
from synthoma.errors import RunError
from synthoma.runs import Journal

log = logging.getLogger(__name__)


class Records(Sequence[CaseRecord]):
    """One record a case, in the order of the cases; each is read and parsed when it is asked for.

    The file stays open, so that records outlive one that takes its place. Without a journal they lie in memory.
    Not for several threads at once. Pickled or copied, they are a list.
    """

    def __init__(self, names: Sequence[str], journal: Journal | None = None) -> None:
        """With what the journal has; `RunError` if it has records of cases that are not asked for."""
        self._journal = journal
        self._numbers = {name: number for number, name in enumerate(names)}
        self._ends, self._lengths = array("q", [0]) * len(names), array("q", [0]) * len(names)
        self._file: IO[bytes] | None = None if journal else io.BytesIO()
        if journal:
            self._find(journal)

    def _find(self, journal: Journal) -> None:
        strangers = set()
        for number, (place, entry) in enumerate(journal.scan(), 1):
            if not is_record(entry):
                log.warning("%s: line %d is no record of a case and is dropped", journal.path, number)
            elif entry["case"] in self._numbers:
                self._note(self._numbers[entry["case"]], place.stop, place.stop - place.start)
            else:
                strangers.add(entry["case"])
        if strangers:
            raise RunError(
                f"{journal.path} has records of {len(strangers)} cases that are not asked for",
                found=", ".join(sorted(strangers)[:5]),
                fix="choose another --out, or ask for those cases as well",
            )

    def _note(self, number: int, end: int, length: int) -> None:
        self._ends[number], self._lengths[number] = end, length

    def _opened(self) -> IO[bytes]:
        """The file, made when the first record comes."""
        if self._file is None and self._journal is not None:
            self._file = self._journal.path.open("a+b", buffering=0)
        assert self._file is not None
        return self._file

    def add(self, name: str, line: str) -> None:
        """The record of one of the cases as a line of JSON, instead of any before; `FileError` if the disk is full."""
        data = line.encode() + b"\n"
        try:
            file = self._opened()
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise error if self._journal is None else self._journal.fault(error) from error
        self._note(self._numbers[name], file.tell() - 1, len(data) - 1)

    def of(self, name: str) -> CaseRecord | None:
        """The record of a case, None if it has none yet."""
        number = self._numbers[name]
        return self[number] if self._lengths[number] else None

    def put_in_order(self) -> int:
        """From now on the file holds a line a case, in their order. How many of them failed."""
        failed, end = 0, 0
        ends, lengths = array("q"), array("q")

        def lines() -> Iterator[str]:
            nonlocal failed, end
            for record in self:
                line = record.line()
                length = len(line.encode())
                end += length + 1
                ends.append(end - 1)
                lengths.append(length)
                failed += record.status == "failed"
                yield line

        if self._journal is None:
            return sum(record.status == "failed" for record in self)
        self._journal.replace(lines())
        if self._file is not None:
            self._file.close()
        self._file = self._journal.path.open("rb", buffering=0)
        self._ends, self._lengths = ends, lengths
        return failed

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> CaseRecord: ...

    @overload
    def __getitem__(self, at: slice) -> list[CaseRecord]: ...

    def __getitem__(self, at: int | slice) -> CaseRecord | list[CaseRecord]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        length, file = self._lengths[at], self._opened()
        file.seek(self._ends[at] - length)
        return CaseRecord(**json.loads(file.read(length)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(CaseRecord.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
