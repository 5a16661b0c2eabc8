"""What an annotation study says: seconds a lesion, what was accepted, rejected and added, how masks were changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from synthoma.cases import equivalent_diameter_mm
from synthoma.errors import SynthomaError
from synthoma.evaluation.readers import reader_dice
from synthoma.review.annotation import UNREADABLE, Annotation, AnnotationKind
from synthoma.review.store import Answer, Item, Task
from synthoma.statistics.agreement import cohen_kappa
from synthoma.statistics.intervals import Interval, Ratio, bootstrap
from synthoma.tables import Row, plain
from synthoma.volume import Array, Volume

SIZES_MM = (("< 10 mm", 0.0, 10.0), ("10-20 mm", 10.0, 20.0), (">= 20 mm", 20.0, np.inf))


@dataclass(frozen=True, eq=False)
class Annotated:
    """The findings. lesions: a row each; tasks: a row each; figures: name -> interval by patient.

    open: stage -> tasks not finished; counts: size -> fate -> lesions, of the last stage.
    """

    tasks: tuple[Row, ...]
    lesions: tuple[Row, ...]
    figures: dict[str, Interval]
    counts: dict[str, Counter[str]]
    open: dict[str, int]
    agreement: tuple[Row, ...]
    notes: tuple[str, ...]


def evaluate(kind: AnnotationKind) -> Annotated:
    """The findings of a study as far as it has come; cases that can no longer be read are noted and left out."""
    store = kind.store
    items, answers = {item.id: item for item in store.items()}, store.last_answers()
    names = {reader.id: reader.name for reader in store.readers()}
    rows: list[Row] = []
    lesions: list[Row] = []
    notes: list[str] = []
    for task in store.tasks():
        answer = answers.get(task.id)
        item = items[task.item]
        stage = kind.recipe.stages[task.stage]
        facts: Row = {"reader": names[task.reader], "stage": stage.name, "case": item.case_id, "item": item.id}
        facts["structure"] = item.structure
        done = answer is not None and answer.final
        seconds = spent_seconds(store.answers(task.id)) if answer is not None else 0.0
        verdict = answer.content["verdict"] if answer is not None else ""
        rows.append(facts | {"finished": done, "seconds": round(seconds, 1), "verdict": verdict})
        if answer is not None and done:
            last = task.stage == len(kind.recipe.stages) - 1
            try:
                lesions += [facts | {"last": last} | row for row in _lesion_rows(kind, item, answer)]
            except SynthomaError as error:
                notes.append(f"{item.case_id}: {error.what}")
    opened = Counter(row["stage"] for row in rows if not row["finished"])
    kept = [row for row in lesions if row["last"]]
    return Annotated(
        tuple(rows), tuple(lesions), _figures(rows, kept, kind), _counts(kept), dict(opened),
        tuple(_agreement(kind, items, answers)), tuple(notes),
    )  # fmt: skip


def spent_seconds(answers: Sequence[Answer]) -> float:
    """Seconds before the screen over all openings of a task: each opening counts from 0 again."""
    total, before = 0.0, 0.0
    for answer in answers:
        if answer.seconds < before:
            total += before
        before = answer.seconds
    return total + before


def _lesion_rows(kind: AnnotationKind, item: Item, answer: Answer) -> Iterator[Row]:
    """Every lesion of a finished answer: its fate, diameter, and the DSC with what was proposed."""
    content = Annotation.model_validate(dict(answer.content))
    if content.verdict == UNREADABLE or not content.candidates:
        return
    labels = kind.labels(answer.mask, item)
    proposed = kind.labels(item.facts["mask"], item).data
    own, theirs = np.bincount(labels.data.ravel(), minlength=256), np.bincount(proposed.ravel(), minlength=256)
    both = np.bincount(labels.data[labels.data == proposed], minlength=256)
    scores = {row["label"]: row["score"] for row in item.facts["candidates"]}
    for entry in content.candidates:
        label = entry.label
        voxels = theirs[label] if entry.status == "rejected" else own[label]
        fate = "added" if entry.origin == "reader" and entry.status == "accepted" else entry.status
        drawn = entry.origin == "model" and entry.status == "accepted"
        sizes = int(own[label] + theirs[label])
        yield {
            "label": label,
            "fate": fate,
            "score": scores.get(label),
            "diameter_mm": round(equivalent_diameter_mm(int(voxels) * labels.geometry.voxel_mm3), 2),
            "dsc": round(2 * int(both[label]) / sizes, 4) if drawn and sizes else None,
            "changed": bool(own[label] != theirs[label] or both[label] != own[label]) if drawn else None,
        }


def _figures(tasks: Sequence[Row], lesions: Sequence[Row], kind: AnnotationKind) -> dict[str, Interval]:
    """Means with intervals, cases' patients drawn anew."""
    done = [row for row in tasks if row["finished"]]
    if not done:
        return {}
    patients = {case.id: case.patient for case in kind.dataset}
    names = sorted({str(patients.get(row["case"], row["case"])) for row in done})

    def sums(rows: Sequence[Row], values: Sequence[float]) -> Array:
        places = [names.index(str(patients.get(row["case"], row["case"]))) for row in rows]
        return np.bincount(places, values, len(names)) if rows else np.zeros(len(names))

    def mean(top: Sequence[Row], values: Sequence[float], bottom: Sequence[Row]) -> Interval:
        return bootstrap(Ratio(sums(top, values), sums(bottom, [1.0] * len(bottom))), len(names))

    last = [row for row in done if row["stage"] == kind.recipe.stages[-1].name]
    rejected = [row for row in lesions if row["fate"] == "rejected"]
    compared = [row for row in lesions if row["dsc"] is not None]
    return {
        "seconds per case": mean(done, [row["seconds"] for row in done], done),
        "seconds per lesion": mean(last, [row["seconds"] for row in last], lesions) if lesions else Interval(np.nan),
        "false candidates per scan": mean(rejected, [1.0] * len(rejected), last) if last else Interval(np.nan),
        "DSC of refined against proposed": mean(compared, [row["dsc"] for row in compared], compared),
    }


def _counts(lesions: Sequence[Row]) -> dict[str, Counter[str]]:
    return {
        name: Counter(row["fate"] for row in lesions if low <= row["diameter_mm"] < high)
        for name, low, high in SIZES_MM
    }


def _agreement(kind: AnnotationKind, items: dict[int, Item], answers: dict[int, Answer]) -> Iterator[Row]:
    """Every two readers of a stage: items both finished, DSC of what they accepted, kappa of their judgements."""
    names = {reader.id: reader.name for reader in kind.store.readers()}
    by_item: dict[tuple[int, int], list[tuple[Task, Answer]]] = {}
    for task in kind.store.tasks():
        answer = answers.get(task.id)
        if answer is not None and answer.final and items[task.item].case_id in kind.dataset:
            by_item.setdefault((task.stage, task.item), []).append((task, answer))
    found: dict[tuple[int, int, int], list[tuple[float, list[tuple[str, str]]]]] = {}
    for (stage, number), given in by_item.items():
        for (one, first), (two, second) in combinations(given, 2):
            contents = [Annotation.model_validate(dict(answer.content)) for answer in (first, second)]
            masks = []
            for answer, content in zip((first, second), contents, strict=True):
                labels = kind.labels(answer.mask, items[number])
                masks.append(Volume(np.isin(labels.data, content.labels("accepted")), labels.geometry))
            statuses: list[dict[int, str]] = [
                {entry.label: entry.status for entry in content.candidates if entry.origin == "model"}
                for content in contents
            ]
            judged = [(statuses[0][label], statuses[1][label]) for label in statuses[0] if label in statuses[1]]
            given_alike = float(reader_dice(masks)[0, 1]), judged
            found.setdefault((stage, one.reader, two.reader), []).append(given_alike)
    for (stage, a, b), entries in found.items():
        dsc = [value for value, _ in entries if not np.isnan(value)]
        mean = float(np.mean(dsc)) if dsc else float("nan")
        judged = [pair for _, pairs in entries for pair in pairs]
        kappa = cohen_kappa([pair[0] for pair in judged], [pair[1] for pair in judged]) if judged else np.nan
        yield {
            "stage": kind.recipe.stages[stage].name, "readers": f"{names[a]}, {names[b]}", "items": len(entries),
            "dsc": plain(mean), "candidates": len(judged), "kappa": plain(kappa),
        }  # fmt: skip
