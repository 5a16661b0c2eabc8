"""A scaling study: every point of a grid trained and scored through the engine, resumable, then fitted and told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import anatomy, disk, files
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine.clusters import ClusterRecipe
from synthoma.engine.mapping import map_cases
from synthoma.engine.records import CaseRecord, require_unchanged
from synthoma.errors import CaseError
from synthoma.learning.cache import refuse_failures
from synthoma.learning.entry import annotates
from synthoma.runs import open_run
from synthoma.scaling.networks import complete_generators, require_arms, train_network
from synthoma.scaling.outputs import DESIGN, KIND, finish_study
from synthoma.scaling.point import EXAMPLES, Plan, Trainer, complete_training, run_point
from synthoma.scaling.recipe import StudyRecipe
from synthoma.scaling.subsets import Sides, choose_examples, find_sides
from synthoma.volume import Box, Geometry

HALF_MM, THICK_MM = 60.0, 4.0  # of the slab of an example that is kept, in plane and across


def run_study(
    recipe: StudyRecipe,
    dataset: Dataset,
    out: Path | str,
    *,
    splits: Path | None = None,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    device: str = "auto",
    loaders: int = 0,
    inputs: Mapping[str, str] | None = None,
    trainer: Trainer = train_network,
    allow_failures: int = 0,
) -> Sequence[CaseRecord]:
    """The record of every point; findings, plots and the report are in the run folder `out`.

    Run again it goes on: points that are done are left alone, one that was interrupted is trained on from its last
    checkpoint, one that failed is tried again. splits: a file of `datasets.splits`, instead of the data set's own.
    workers, cluster: points at a time, as in `map_cases`; of several GPUs each point has one. loaders: processes that
    make patches, of each point. inputs: what the run's record says of the data. trainer: what makes a segmenter of
    training cases. allow_failures: so many cases may be broken, in the data set and in each point. Raises `CaseError`
    for a grid that the cases cannot fill, a patient on both sides, or a test case without the organ that tumors are
    looked for in, and `FailedCasesError` for too many cases that could not be opened; all before a run is begun.
    """
    out = Path(os.path.abspath(out))
    failed = {fault.case or f"({number})": str(fault) for number, fault in enumerate(dataset.faults, 1)}
    refuse_failures(failed, len(failed) + len(dataset), allow_failures)
    if trainer is train_network:
        recipe = recipe.with_changes(train=complete_training(recipe.train, recipe.arms()))
        recipe = recipe.with_changes(learned=complete_generators(recipe))
    sides = find_sides(dataset, recipe, splits)
    _require_organs(dataset, sides, recipe)
    if trainer is train_network:
        require_arms(recipe, sides)
    facts = {"data": str(dataset.root), **(inputs or {}), "splits": sides.splits}
    with open_run(out, KIND, recipe, recipe.seed, facts) as run:
        require_unchanged(run, _members(dataset, sides).values(), Case.reads)
        shown = _keep_examples(dataset, sides, recipe, out)
        plan = Plan(out, dataset.root, recipe, _members(dataset, sides), sides, shown, device, loaders, trainer,
                    allow_failures - len(failed))  # fmt: skip
        tasks = list(recipe.points())
        drawn = all(case.attributes.get("in_silico") for case in dataset)
        design = {"sides": sides.as_dict(), "points": [task.id for task in tasks], "in_silico": drawn}
        disk.write_json(out / DESIGN, design)
        records = map_cases(
            partial(run_point, plan=plan), tasks, run=run, workers=workers, cluster=cluster, title="points"
        )
        if any(record.status == "done" for record in records):
            run.note(**finish_study(out))
    return records


def _require_organs(dataset: Dataset, sides: Sides, recipe: StudyRecipe) -> None:
    """`CaseError` if tumors are looked for inside the organ given with a test case, and one has none."""
    if recipe.train.get("segment", {}).get("inside_organ") != "given":
        return
    organs = [organ.name for organ in anatomy.ORGANS.values() if organ.name in recipe.train.get("organs", ["liver"])]
    for case in (dataset[name] for ids in sides.tests.values() for name in ids):
        for organ in organs:
            if not annotates(case.masks, case.attributes, organ):
                raise CaseError(
                    f"no mask of the {organ}, which tumors are looked for in (train.segment.inside_organ = 'given')",
                    case=case.id,
                    fix="say --set train.segment.inside_organ=predicted",
                )


def _members(dataset: Dataset, sides: Sides) -> dict[str, Case]:
    """The cases that take part in any point."""
    wanted = {*sides.annotated, *sides.healthy, *(case for ids in sides.tests.values() for case in ids)}
    return {case.id: case for case in dataset.cases if case.id in wanted}


def _keep_examples(dataset: Dataset, sides: Sides, recipe: StudyRecipe, out: Path) -> dict[str, Box]:
    """A slab of some test cases around their largest tumor, scan and truth, for the report's pictures."""
    path = out / EXAMPLES / "examples.json"
    if not path.exists():
        rows: list[dict[str, Any]] = []
        for test, ids in sides.tests.items():
            known = [dataset[name] for name in ids if recipe.lesion in dataset[name].masks]
            for case, center in choose_examples(known, recipe.lesion, recipe.examples):
                box = _slab(case.read_geometry(), center)
                files.write_volume(case.read_image(box), out / EXAMPLES / f"{case.id}_ct.nii.gz")
                files.write_volume(case.read_mask(recipe.lesion, box), out / EXAMPLES / f"{case.id}_truth.nii.gz")
                row = {"case": case.id, "test": test, "center_mm": list(center)}
                rows.append(row | {"lower": list(box.lower), "upper": list(box.upper)})
        disk.write_json(path, rows)
    return {row["case"]: Box(tuple(row["lower"]), tuple(row["upper"])) for row in disk.read_json(path)}


def _slab(grid: Geometry, center_mm: Sequence[float]) -> Box:
    """The box around a position that the report shows, thin along the axis that runs from feet to head."""
    center = grid.to_ijk(np.asarray(center_mm))
    axial = int(np.argmax(np.abs(grid.affine[2, :3]) / np.asarray(grid.spacing_mm)))
    half = np.full(3, HALF_MM * np.sqrt(2))  # a grid may be turned against the picture
    half[axial] = THICK_MM
    reach = np.maximum(half / np.asarray(grid.spacing_mm), 1)
    lower, upper = np.floor(center - reach).astype(int), np.ceil(center + reach).astype(int) + 1
    return Box(tuple(lower.tolist()), tuple(upper.tolist())).clip(grid.shape)
