"""What comes of a study: its report as a run, and its accepted annotations as a data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synthoma import runs
from synthoma.cases import Case, Source
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError, RunError, SynthomaError
from synthoma.reading import open_dataset
from synthoma.recipe import make_recipe
from synthoma.review import annotated, annotation, browsing, rated, report, turing
from synthoma.review.annotation import UNREADABLE, AnnotationKind
from synthoma.review.browsing import BrowseKind
from synthoma.review.recipes import AnnotateRecipe, TuringRecipe
from synthoma.review.store import DATABASE, Store
from synthoma.runs import RunRecord


@contextmanager
def opened(study: Path) -> Iterator[tuple[RunRecord, Store]]:
    """The record and store of a study, to be read while it may be served; `RunError` if the folder holds none."""
    record = runs.read_run(study)
    if not record.kind.startswith("review-") or not (study / DATABASE).is_file():
        raise RunError(f"{study} is no study", found=record.kind, expected="the output folder of a review command")
    store = Store(study)
    try:
        if not store.fact("created"):
            raise RunError(f"{study} was not set up to the end", fix="run its review command again")
        yield record, store
    finally:
        store.close()


def kind_of(
    record: RunRecord, store: Store, study: Path, data: Path | None = None
) -> AnnotationKind | turing.TuringKind | BrowseKind:
    """The study as its kind. data: where the data set lies now, if it was moved."""
    if record.kind == f"review-{turing.KIND}":
        return turing.TuringKind(store, study, make_recipe(TuringRecipe, record.recipe, study))
    if record.kind == f"review-{annotation.KIND}":
        dataset = open_dataset(data or Path(record.inputs["data"]))
        return AnnotationKind(store, dataset, make_recipe(AnnotateRecipe, record.recipe, study))
    if record.kind == f"review-{browsing.KIND}":
        return BrowseKind(store, Path(record.inputs["synthesis"]), data)
    raise RunError(f"{study} is a study of another kind", found=record.kind)


def write_report(study: Path, out: Path, data: Path | None = None) -> Path:
    """What a study says so far, as a page with tables in `out`; the page."""
    with opened(study) as (record, store):
        kind = kind_of(record, store, study, data)
        notes = list(store.fact("notes", []))
        if isinstance(kind, turing.TuringKind):
            found = rated.evaluate(kind)
            report.write_rated(found, kind.recipe, notes, out, f"Reader study {study.name}")
        elif isinstance(kind, BrowseKind):
            report.write_browsed(kind.judgements(), out, f"Tumors of {kind.synthesis.name}, looked through")
        else:
            facts: dict[str, Any] = {"least_scores": store.fact("least_scores", {})}
            report.write_annotated(
                annotated.evaluate(kind), kind.recipe, notes, facts, out, f"Annotation study {study.name}"
            )
    return out / report.REPORT


@dataclass(frozen=True, eq=False)
class Exported:
    """The accepted annotations as cases. left_out: which cases are not among them, and why."""

    dataset: Dataset
    left_out: tuple[SynthomaError, ...]


def accepted(kind: AnnotationKind) -> Exported:
    """Every case whose structures are all finished, with what was accepted in place of older lesion masks.

    A case that somebody could not read is left out; one without a tumor has an empty mask: annotated and absent.
    """
    cases: dict[str, dict[str, Source]] = {}
    left_out: dict[str, SynthomaError] = {}
    for item in kind.store.items():
        try:
            answers = kind.last_answers(item)
            if not answers:
                left_out[item.case_id] = CaseError("not finished", case=item.case_id)
            elif any(answer.content["verdict"] == UNREADABLE for answer in answers):
                left_out[item.case_id] = CaseError("cannot be read, a reader said", case=item.case_id)
            else:
                kind.case_of(item)
                cases.setdefault(item.case_id, {})[item.structure] = partial(kind.accepted_mask, item)
        except SynthomaError as error:
            left_out[item.case_id] = error.of_case(item.case_id)
    found = []
    for name, masks in cases.items():
        if name in left_out:
            continue
        case = kind.dataset[name]
        found.append(Case(name, case.image, {**case.masks, **masks}, case.patient, case.dataset, case.attributes))
    if not found:
        first = "; ".join(str(error) for error in list(left_out.values())[:3])
        raise CaseError("no case of the study is finished", found=first)
    whole = Dataset(kind.dataset.root, kind.dataset.layout, kind.dataset.name, tuple(found))
    return Exported(whole, tuple(left_out.values()))
