"""Real lesions beside synthetic ones."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from synthoma import reading, runs
from synthoma.commands.outcome import Outcome, as_dataset, as_recipe
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.errors import CaseError
from synthoma.extras import need, present_extras
from synthoma.realism.crops import CROPS, Crops
from synthoma.realism.features import Side, measure_side
from synthoma.realism.outputs import KIND, finish_realism
from synthoma.realism.recipe import RealismRecipe
from synthoma.realism.samples import lesion_organs
from synthoma.synthesis.store.manifest import read_manifest


def realism(
    real: Dataset | Path | str,
    synthetic: Dataset | Path | str,
    out: Path | str,
    *,
    recipe: RealismRecipe | Path | str | None = None,
    seed: int = 0,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """How synthetic lesions differ from real ones: features, distances, a classifier; one page in `out`.

    real, synthetic: data sets with masks of tumors. Of an output of `synthesize` only the tumors that were put in
    count as synthetic. Raises `CaseError` if a side has no lesion, or no organ in common.
    """
    need("skimage", extra="realism")
    need("sklearn", extra="realism")
    settings, out = as_recipe(RealismRecipe, recipe), Path(os.path.abspath(out))
    sides = {"real": as_dataset(real), "synthetic": as_dataset(synthetic)}
    for name, dataset in sides.items():
        if not any(lesion_organs(case) for case in dataset):
            raise CaseError(
                f"no case of the {name} data set has masks of tumors", found=f"{len(dataset)} cases in {dataset.root}"
            )
    tasks = [Side("real", case) for case in sides["real"]] + _synthetic(sides["synthetic"])
    facts = {name: str(dataset.root) for name, dataset in sides.items()}
    with runs.open_run(out, KIND, settings, seed, facts) as run:
        crops = crops_of(settings, out)
        task = partial(
            measure_side, organs=settings.organs, smallest_ml=settings.smallest_ml,
            crops=Crops(out / CROPS) if settings.crops else None,  # without torch too: it may be there on a resume
        )  # fmt: skip
        records = mapping.map_cases(
            task, tasks, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title="realism",
            reads=Side.reads,
        )  # fmt: skip
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for each, record in zip(tasks, records, strict=True):
            rows[each.side] += record.result.get("lesions", [])
        names = {name: dataset.name for name, dataset in sides.items()}
        word = _word(sides["real"])
        summary = finish_realism(rows["real"], rows["synthetic"], out, settings, seed, names, word, crops)
        run.note(**summary)
    faults = [fault for dataset in sides.values() for fault in dataset.faults]
    return Outcome(out, records, faults, summary)


def _synthetic(dataset: Dataset) -> list[Side]:
    """The cases with the balls of the tumors that were put in, where a manifest tells them."""
    if not reading.is_synthesis(dataset.root):
        return [Side("synthetic", case) for case in dataset]
    manifest = read_manifest(dataset.root)
    return [
        Side("synthetic", case, [(plan.center_mm, plan.radius_mm) for plan in manifest.plans(case.id)])
        for case in dataset
        if case.id in manifest
    ]


def crops_of(recipe: RealismRecipe, out: Path) -> Crops | str:
    """Where the crops of the run lie; or why a network does not look at any."""
    if not recipe.crops:
        return "left out by the recipe"
    if not present_extras()["train"]:
        return "left out, since torch is not installed (pip install 'synthoma[train]')"
    return Crops(out / CROPS)


def _word(dataset: Dataset) -> str:
    """What the real side is called: in-silico patients have natural tumors, not real ones."""
    drawn = sum(bool(case.attributes.get("in_silico")) for case in dataset)
    if drawn == len(dataset):
        return "natural in-silico"
    return "real and natural in-silico" if drawn else "real"
