"""Looking through a synthesis: every tumor before and after, accepted or dropped."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from synthoma.errors import CaseError
from synthoma.names import file_name
from synthoma.reading import read_lesion
from synthoma.review import frames
from synthoma.review.kinds import AnswerError, View
from synthoma.review.store import Reader, Store, Task
from synthoma.synthesis.store.manifest import MANIFEST, read_manifest, write_manifest
from synthoma.synthesis.view import TumorView
from synthoma.volume import Volume

KIND = "browse"
DROPPED = "dropped by a reader"
KEPT_VIEWS = 6  # crops in memory: a tumor's scans, mask and facts are asked for one after the other


class Judgement(pydantic.BaseModel):
    """An answer: whether the tumor may stay, and why not."""

    model_config = pydantic.ConfigDict(extra="forbid")
    status: Literal["accepted", "dropped"]
    remark: str = pydantic.Field("", max_length=500)


def create_study(store: Store, synthesis: Path) -> list[str]:
    """A task of every tumor of a synthesis; nothing if the study has them. `CaseError` if there is no tumor."""
    if store.fact("created"):
        return []
    tumors = list(read_manifest(synthesis).tumors())
    if not tumors:
        raise CaseError(f"{synthesis} holds no tumor to look at")
    with store.transaction():
        reader = store.add_reader("reader 1")
        for position, tumor in enumerate(tumors):
            facts = {"number": tumor.number, "diameter_mm": round(tumor.equivalent_diameter_mm, 1)}
            item = store.add_item(tumor.case, f"{tumor.organ}_lesion", "", facts)
            store.add_task(reader.id, item, 0, position)
        store.set_fact("created", True)
    return []


@dataclass(frozen=True, eq=False)
class BrowseKind:
    """The kind of study that `synthoma review browse` serves. data: where the healthy scans lie, if they were moved."""

    store: Store
    synthesis: Path
    data: Path | None = None
    page: str = "browse"
    _views: OrderedDict[int, TumorView] = field(default_factory=OrderedDict)
    _rendering: threading.Lock = field(default_factory=threading.Lock)

    def settings(self, reader: Reader) -> dict[str, Any]:
        """Nothing but the tasks."""
        return {}

    def tumor(self, task: Task) -> TumorView:
        """The tumor of a task with its surroundings; the last few stay in memory."""
        with self._rendering:
            if task.item not in self._views:
                item = self.store.item(task.item)
                folder = self.synthesis / file_name(item.case_id)
                self._views[task.item] = read_lesion(folder, item.facts["number"], self.data)
                while len(self._views) > KEPT_VIEWS:
                    self._views.popitem(last=False)
            return self._views[task.item]

    def view(self, task: Task) -> View:
        """The crop's grid, the tumor's mask, and what is known of it."""
        view, item = self.tumor(task), self.store.item(task.item)
        labels = Volume(view.mask.data.astype(np.uint8), view.mask.geometry)
        organ = item.structure.removesuffix("_lesion")
        facts = {
            "content": {},
            "organ": organ,
            "caption": view.caption.partition(": ")[2],
            "number": item.facts["number"],
        }
        return View(view.after.geometry, frames.pack(labels), facts)

    def scan(self, task: Task, which: int) -> tuple[int, Iterator[bytes]]:
        """0: with the tumor; 1: as it was before."""
        view = self.tumor(task)
        shown = (view.after, view.before)[which % 2]
        return 2 * shown.data.size, frames.scan_bytes(shown)

    def check(self, task: Task, content: Mapping[str, Any], final: bool) -> dict[str, Any]:
        """Accepted or dropped."""
        try:
            return Judgement.model_validate(dict(content)).model_dump()
        except pydantic.ValidationError as error:
            raise AnswerError("Accept the tumor or drop it.") from error

    def mask_of(self, task: Task) -> str | None:
        """None: nothing is drawn."""
        return None

    def finished(self, task: Task) -> None:
        """Nothing follows."""

    def judgements(self) -> list[dict[str, Any]]:
        """A row each tumor: what was said of it, `open` if nothing was."""
        answers = self.store.last_answers()
        items = {item.id: item for item in self.store.items()}
        rows = []
        for task in self.store.tasks():
            item, answer = items[task.item], answers.get(task.id)
            content = dict(answer.content) if answer is not None else {"status": "open", "remark": ""}
            facts = {
                "case": item.case_id,
                "number": item.facts["number"],
                "organ": item.structure.removesuffix("_lesion"),
            }
            seconds = answer.seconds if answer is not None else None
            rows.append(facts | {"diameter_mm": item.facts["diameter_mm"]} | content | {"seconds": seconds})
        return rows


def write_kept(kind: BrowseKind, out: Path) -> tuple[int, int]:
    """The manifest without the tumors that were dropped, as `OUT/manifest.parquet`; how many stay, and how many go.

    Tumors that nobody has judged stay. `synthoma replay` makes the data set of it.
    """
    manifest = read_manifest(kind.synthesis)
    dropped = {(row["case"], row["number"]) for row in kind.judgements() if row["status"] == "dropped"}
    rows = []
    kept = 0
    for case in manifest.cases:
        number = 0
        for row in manifest.rows(case):
            if row["accepted"]:
                number += 1
                if (case, number) in dropped:
                    row = row | {"accepted": False, "reason": DROPPED, "digest": None}
                else:
                    kept += 1
            rows.append(row)
    write_manifest(rows, out / MANIFEST)
    return kept, len(dropped)
