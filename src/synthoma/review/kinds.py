"""What the server asks of a study, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from synthoma.review.store import Item, Reader, Store, Task
from synthoma.volume import Geometry


@dataclass(frozen=True, eq=False)
class View:
    """A scan to show. mask: box and packed voxels, as `frames.pack` gives them; facts: plain data for the page."""

    geometry: Geometry
    mask: tuple[list[int], bytes] = ([0] * 6, b"")
    facts: Mapping[str, Any] = field(default_factory=dict)


class Kind(Protocol):
    """A kind of study: what readers see of an item, and which answers count.

    Every method may raise `SynthomaError`, whose sentence is for the operator's terminal
    only: it may name files.
    """

    @property
    def page(self) -> str:
        """The name of its page."""

    @property
    def store(self) -> Store:
        """The study's answers."""

    def settings(self, reader: Reader) -> dict[str, Any]:
        """What the page is told about the study."""

    def view(self, task: Task) -> View:
        """Geometry, labels and facts of a task."""

    def scan(self, task: Task, which: int) -> tuple[int, Iterator[bytes]]:
        """Scan number `which` of a task, as `frames.scan_bytes` gives it, and its length."""

    def check(self, task: Task, content: Mapping[str, Any], final: bool) -> dict[str, Any]:
        """The content of an answer, checked; `AnswerError` with a sentence for the reader if it cannot count."""

    def mask_of(self, task: Task) -> str | None:
        """The digest of the mask that a task stands at, which an answer without a mask of its own keeps."""

    def finished(self, task: Task) -> None:
        """What follows when a reader finished a task; called within the answer's transaction."""


class AnswerError(Exception):
    """An answer that cannot count; its message is a sentence for the reader."""


def state_of(kind: Kind, task: Task) -> tuple[Item, dict[str, Any]]:
    """The item of a task, and where the task stands: number of the last answer, its content, mask, and whether done."""
    item, answer = kind.store.item(task.item), kind.store.last_answer(task.id)
    if answer is None:
        return item, {"number": 0, "content": None, "mask": None, "final": False}
    return item, {
        "number": answer.number, "content": dict(answer.content), "mask": answer.mask, "final": answer.final,
    }  # fmt: skip
