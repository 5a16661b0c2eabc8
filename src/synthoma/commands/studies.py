"""A scaling study over a data set."""

from __future__ import annotations

import os
from pathlib import Path

from synthoma import reading, runs
from synthoma.commands.outcome import Outcome, as_dataset, as_recipe
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine.clusters import ClusterRecipe
from synthoma.scaling.recipe import StudyRecipe
from synthoma.scaling.study import run_study


def scale(
    recipe: StudyRecipe | Path | str,
    data: Dataset | Path | str,
    out: Path | str,
    *,
    splits: Path | str | None = None,
    device: str = "auto",
    loaders: int = 0,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    allow_failures: int = 0,
) -> Outcome:
    """Trainings with and without synthetic tumors on growing numbers of real cases: how many did they replace?

    recipe: a study recipe, its TOML file, or the name of one that comes along. splits: who trains and who is tested on
    (JSON); else the data set's own. loaders: processes that make patches, of each point. allow_failures: so many cases
    may be broken. The answer is `summary["answer"]`, the page `report.html` in `out`; the same call again goes on.
    """
    settings, dataset, out = as_recipe(StudyRecipe, recipe, "scale"), as_dataset(data), Path(os.path.abspath(out))
    records = run_study(
        settings, dataset, out, splits=Path(splits) if splits else None, workers=workers, cluster=cluster,
        device=device, loaders=loaders, inputs=reading.input_facts(dataset), allow_failures=allow_failures,
    )  # fmt: skip
    return Outcome(out, records, dataset.faults, runs.read_run(out).summary)
