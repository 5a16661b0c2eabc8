"""The same patient at several dates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from synthoma import disk, reading, runs
from synthoma.cases import Case
from synthoma.commands.outcome import Outcome, as_dataset, as_recipe
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.errors import RecipeError, RunError
from synthoma.followup.outputs import SERIES, WRITES, finish_follow, follow_case, read_series, write_series
from synthoma.followup.recipe import FollowRecipe
from synthoma.followup.series import Series
from synthoma.recipe import Recipe


def follow(
    recipe: FollowRecipe | Path | str,
    data: Dataset | Path | str,
    out: Path | str,
    *,
    seed: int = 0,
    write: str = "full",
    allow_modules: Sequence[str] = (),
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """Each case of a data set at several dates, written to the run folder `out`; the same call again resumes.

    recipe: a follow-up recipe, its TOML file, the name of one that comes along, or the `series.json` of an earlier
    follow-up (or its folder), whose dates are then made again, bit for bit. write: `full` (NIfTI) or `plans` (the
    series alone). allow_modules: generators of the form `module:Class` that a series may name. The others as in
    `map_cases`.
    """
    if write not in WRITES:
        raise RecipeError(f"cannot write {write!r}", expected=f"one of {', '.join(WRITES)}")
    dataset, out = as_dataset(data), Path(os.path.abspath(out))
    cases: Sequence[Case] = dataset.cases
    settings: Recipe
    task: Any
    if not isinstance(recipe, FollowRecipe) and _is_series(Path(recipe)):
        series = read_series(recipe)
        missing = sorted(set(series) - {case.id for case in cases})
        if missing:
            raise RunError(f"the data set lacks cases of the series: {', '.join(missing[:5])}", found=str(dataset.root))
        cases = [case for case in cases if case.id in series]
        settings = Recipe()
        facts = {"series": disk.digest(Path(recipe) / SERIES if Path(recipe).is_dir() else Path(recipe))}
        task = partial(_again, series=series, out=out, write=write, allow_modules=tuple(allow_modules))
    else:
        settings, facts = as_recipe(FollowRecipe, recipe, "follow"), {}
        task = partial(follow_case, recipe=settings, seed=seed, out=out, write=write)
    with runs.open_run(out, "follow", settings, seed, reading.input_facts(dataset, write=write, **facts)) as run:
        records = mapping.map_cases(
            task, cases, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title="follow",
            reads=Case.reads,
        )  # fmt: skip
        counts = finish_follow(records, out, dataset.root)
        run.note(**counts)
    return Outcome(out, records, dataset.faults, counts)


def _is_series(path: Path) -> bool:
    return path.suffix == ".json" or (path / SERIES).is_file()


def _again(
    case: Case, series: dict[str, Series], out: Path, write: str, allow_modules: Sequence[str]
) -> dict[str, Any]:
    return write_series(case, series[case.id], out, write, allow_modules)
