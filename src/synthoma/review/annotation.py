"""Annotation: proposals become tasks, readers accept, reject and refine, stage after stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError
from synthoma.review import frames
from synthoma.review.candidates import DEFAULT_SCORE, find_candidates, lesion_structures, threshold_of
from synthoma.review.kinds import AnswerError, View, state_of
from synthoma.review.recipes import AnnotateRecipe, Stage
from synthoma.review.store import Answer, Item, Reader, Store, Task
from synthoma.volume import Volume

KIND = "annotate"
NOTHING: tuple[list[int], bytes] = ([0] * 6, b"")  # an empty mask, packed
NO_LESION, UNREADABLE = "no tumor", "cannot be read"


class Candidate(pydantic.BaseModel):
    """A lesion in an answer. label: its value in the mask."""

    model_config = pydantic.ConfigDict(extra="forbid")
    label: int = pydantic.Field(ge=1, le=255)
    status: Literal["open", "accepted", "rejected"]
    origin: Literal["model", "reader"]
    disputed: bool = False


class Annotation(pydantic.BaseModel):
    """A reader's answer to an annotation task. verdict: on the case as a whole, if any."""

    model_config = pydantic.ConfigDict(extra="forbid")
    candidates: list[Candidate] = pydantic.Field(max_length=255)
    verdict: Literal["", "no tumor", "cannot be read"] = ""

    def labels(self, status: str) -> list[int]:
        """The labels of the candidates that have this status."""
        return [entry.label for entry in self.candidates if entry.status == status]


def create_study(
    store: Store, dataset: Dataset, proposals: Dataset | None, recipe: AnnotateRecipe, validation: Path | None
) -> list[str]:
    """Fills the store of a new study; notes for the user. Nothing if the study has its items already.

    Raises `CaseError` if no case has a proposal though proposals were given, `GeometryError` for one on another grid.
    """
    if store.fact("created"):
        return list(store.fact("notes", []))
    structures = lesion_structures(recipe.structures, dataset, proposals)
    cut = {name: _least_score(name, recipe, validation) for name in structures}
    notes = []
    if proposals is not None:
        lacking = [case.id for case in dataset if case.id not in proposals]
        if len(lacking) == len(dataset):
            names = ", ".join(case.id for case in proposals.cases[:3])
            raise CaseError(
                f"no case of {dataset.root} has a proposal in {proposals.root}",
                found=names or "no proposal", expected=lacking[0] if lacking else None,
                fix="name proposals as their cases, or leave --proposals out to annotate from nothing",
            )  # fmt: skip
        if lacking:
            notes.append(f"{len(lacking)} of {len(dataset)} cases have no proposal; they start empty")
    with store.transaction():
        readers = [store.add_reader(f"reader {n}", role) for n, role in enumerate(recipe.readers, start=1)]
        for case in dataset:
            geometry = case.read_geometry()
            for structure in structures:
                found = find_candidates(case, proposals, structure, geometry, cut[structure], recipe.least_voxels)
                box, packed = frames.pack(found.labels)
                digest = frames.digest(box, packed)
                store.add_mask(digest, box, packed)
                facts = {"candidates": list(found.lesions), "mask": digest}
                item = store.add_item(case.id, structure, "", facts)
                _open_stage(store, item, 0, recipe.stages[0], readers)
                notes += [f"{case.id}: {found.note}"] * bool(found.note)
        store.set_fact("least_scores", cut)
        store.set_fact("notes", notes)
        store.set_fact("created", True)
    return notes


def _least_score(structure: str, recipe: AnnotateRecipe, validation: Path | None) -> float:
    if recipe.least_score is not None:
        return recipe.least_score
    return threshold_of(validation, structure, recipe.sensitivity) if validation else DEFAULT_SCORE


def _open_stage(store: Store, item: int, number: int, stage: Stage, readers: Sequence[Reader]) -> None:
    """Tasks of an item in a stage, its readers in turn."""
    able = [reader for reader in readers if reader.role == stage.role]
    for n in range(stage.readings):
        store.add_task(able[(item + n) % len(able)].id, item, number, item)


@dataclass(frozen=True, eq=False)
class AnnotationKind:
    """The kind of study that `synthoma review annotate` serves."""

    store: Store
    dataset: Dataset
    recipe: AnnotateRecipe
    page: str = "annotate"

    @cached_property
    def _readers(self) -> list[Reader]:
        return self.store.readers()

    def settings(self, reader: Reader) -> dict[str, Any]:
        """Stages by name, with the tools of each."""
        stages = [{"name": stage.name, "tools": stage.tools, "role": stage.role} for stage in self.recipe.stages]
        return {"stages": stages}

    def case_of(self, item: Item) -> Case:
        """The case of an item; `CaseError` if the data set lost it."""
        return self.dataset[item.case_id]

    def view(self, task: Task) -> View:
        """The scan's grid, the labels as the reader left them, and the candidates."""
        item, state = state_of(self, task)
        content, mask = state["content"], state["mask"]
        if content is None:
            content, mask = self.first_content(item, task)
        rows = {row["label"]: row for row in item.facts["candidates"]}
        facts = {
            "content": content,
            "structure": item.structure.removesuffix("_lesion"),
            "known": rows,
            "case": item.case_id if self.recipe.show_case_ids else "",
        }
        geometry = self.case_of(item).read_geometry()
        return View(geometry, self.store.mask(mask or "") or NOTHING, facts)

    def mask_of(self, task: Task) -> str | None:
        """The mask of the last answer, or what the task started with."""
        item, state = state_of(self, task)
        return state["mask"] or self.first_content(item, task)[1]

    def labels(self, digest: str | None, item: Item) -> Volume:
        """The labels of a stored mask on the scan's own grid; none for no mask."""
        box, packed = self.store.mask(digest or "") or NOTHING
        return frames.unpack(box, packed, self.case_of(item).read_geometry())

    def first_content(self, item: Item, task: Task) -> tuple[dict[str, Any], str]:
        """What a task starts with: the proposals, or what the stage before left."""
        if task.stage == 0:
            candidates = [
                {"label": row["label"], "status": "open", "origin": "model", "disputed": False}
                for row in item.facts["candidates"]
            ]
            return {"candidates": candidates, "verdict": ""}, item.facts["mask"]
        return self._merged(item, self.final_answers(item, task.stage - 1))

    def final_answers(self, item: Item, stage: int) -> list[Answer]:
        """The answers that count of everybody who read an item in a stage; empty unless all have finished."""
        tasks = self.store.tasks_of(item.id, stage)
        answers = [self.store.last_answer(task.id) for task in tasks]
        done = [answer for answer in answers if answer is not None and answer.final]
        return done if len(done) == len(tasks) else []

    def _merged(self, item: Item, answers: Sequence[Answer]) -> tuple[dict[str, Any], str]:
        """The first reader's answer; where another reader differs, the candidate is open again and disputed.

        Lesions that another reader added get further labels, as open ones.
        """
        first = Annotation.model_validate(dict(answers[0].content))
        digest = answers[0].mask or ""
        if len(answers) == 1:
            return first.model_dump(), digest
        merged = {entry.label: entry for entry in first.candidates}
        labels = np.array(self.labels(digest, item).data)
        geometry = self.case_of(item).read_geometry()
        for answer in answers[1:]:
            other = Annotation.model_validate(dict(answer.content))
            theirs = self.labels(answer.mask, item).data
            for entry in other.candidates:
                mine = merged.get(entry.label)
                if mine is not None and mine.origin == entry.origin == "model":
                    if mine.status != entry.status:
                        merged[entry.label] = mine.model_copy(update={"status": "open", "disputed": True})
                elif entry.origin == "reader" and entry.status == "accepted":
                    label = max(merged, default=0) + 1
                    new = (theirs == entry.label) & (labels == 0)
                    if label > 255 or not new.any():
                        continue
                    labels[new] = label
                    merged[label] = Candidate(label=label, status="open", origin="reader", disputed=True)
        box, packed = frames.pack(Volume(labels, geometry))
        digest = frames.digest(box, packed)
        self.store.add_mask(digest, box, packed)
        return {"candidates": [entry.model_dump() for entry in merged.values()], "verdict": ""}, digest

    def scan(self, task: Task, which: int) -> tuple[int, Iterator[bytes]]:
        """The case's scan."""
        scan = self.case_of(self.store.item(task.item)).read_image()
        return 2 * scan.data.size, frames.scan_bytes(scan)

    def check(self, task: Task, content: Mapping[str, Any], final: bool) -> dict[str, Any]:
        """Every candidate once; a finished answer leaves none open, and its verdict fits what was accepted."""
        try:
            answer = Annotation.model_validate(dict(content))
        except pydantic.ValidationError as error:
            raise AnswerError(f"The answer is not complete: {error.error_count()} entries are wrong.") from error
        numbers = [entry.label for entry in answer.candidates]
        if len(set(numbers)) != len(numbers):
            raise AnswerError("Two lesions have the same number.")
        if self.recipe.stages[task.stage].tools == "screen" and any(n not in self._before(task) for n in numbers):
            raise AnswerError("In this stage lesions are accepted or rejected only.")
        later = self.store.tasks_of(task.item, task.stage + 1)
        if any(self.store.last_answer(other.id) for other in later):
            raise AnswerError("The next stage has begun with this case; it can no longer be changed here.")
        if final and not answer.verdict and answer.labels("open"):
            raise AnswerError(f"{len(answer.labels('open'))} candidates are still open: accept or reject them.")
        if answer.verdict == NO_LESION and answer.labels("accepted"):
            raise AnswerError("The case has no tumor, but a lesion is accepted. Reject it, or take the verdict back.")
        return answer.model_dump()

    def _before(self, task: Task) -> set[int]:
        """The labels that a task started with."""
        start = self.first_content(self.store.item(task.item), task)[0]
        return {entry["label"] for entry in start["candidates"]}

    def finished(self, task: Task) -> None:
        """Opens the next stage when every reader of this one has finished."""
        item, following = self.store.item(task.item), task.stage + 1
        if following < len(self.recipe.stages) and self.final_answers(item, task.stage):
            _open_stage(self.store, item.id, following, self.recipe.stages[following], self._readers)

    def last_answers(self, item: Item) -> list[Answer]:
        """The answers of the last stage; empty while it is not finished."""
        return self.final_answers(item, len(self.recipe.stages) - 1)

    def accepted_mask(self, item: Item) -> Volume:
        """What was accepted, bool on the scan's grid; of several readers, what more than half of them accepted.

        Empty while the last stage is not finished.
        """
        geometry = self.case_of(item).read_geometry()
        answers = self.last_answers(item)
        votes = np.zeros(geometry.shape, np.uint8)
        for answer in answers:
            accepted = Annotation.model_validate(dict(answer.content)).labels("accepted")
            votes += np.isin(self.labels(answer.mask, item).data, accepted)
        return Volume(2 * votes > len(answers), geometry)
