"""Predictions scored, and two models compared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthoma import reading, runs
from synthoma.commands.outcome import Outcome, as_dataset, as_recipe
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.evaluation.outputs import KIND, finish_comparison, finish_evaluation, read_models
from synthoma.evaluation.pairing import Pair, pair_cases, score_pair
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.evaluation.told import open_label_maps
from synthoma.recipe import make_recipe

if TYPE_CHECKING:
    from synthoma.evaluation.comparison import Comparison


def evaluate(
    truth: Dataset | Path | str,
    predictions: Path | str,
    out: Path | str,
    *,
    recipe: EvaluateRecipe | Path | str | None = None,
    labels: str | Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """Predictions scored against the true masks: tables, figures with intervals and one HTML page in `out`.

    truth: a data set with the true masks. predictions: a data set, masks or label maps. recipe: metrics and policies,
    or their TOML file. labels: what the values of label maps mean that nothing else tells (`liver=1,liver_lesion=2`).
    seed: of the bootstrap. `evaluation.outputs` reads the figures back.
    """
    settings, out = as_recipe(EvaluateRecipe, recipe), Path(os.path.abspath(out))
    if labels is not None:
        settings = make_recipe(EvaluateRecipe, {**settings.as_dict(), "labels": labels}, "--labels")
    maps = None if isinstance(truth, Dataset) else open_label_maps(truth, settings.labels)
    dataset = maps or as_dataset(truth)
    predictions = Path(os.path.abspath(predictions))
    pairs = pair_cases(dataset, predictions, settings)
    facts = reading.input_facts(dataset, predictions=str(predictions))
    with runs.open_run(out, KIND, settings, seed, facts) as run:
        task = partial(score_pair, structures=pairs.structures, recipe=settings)
        records = mapping.map_cases(
            task, pairs.pairs, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title="evaluate",
            reads=Pair.reads,
        )  # fmt: skip
        counts = finish_evaluation(records, pairs, out, settings, seed)
        run.note(**counts)
    return Outcome(out, records, pairs.faults, counts)


def compare(first: Path | str, second: Path | str, out: Path | str, *, seed: int = 0) -> Comparison:
    """Two models on the same cases: which is better, on what, by how much, how sure; a page and tables in `out`.

    first, second: an evaluate run each, or a folder of them, one a training seed. seed: of the bootstrap and the
    permutations.
    """
    first, second, out = (Path(os.path.abspath(path)) for path in (first, second, out))
    models = read_models(first, second)
    with runs.open_run(out, "compare", models.recipe, seed, {"first": str(first), "second": str(second)}):
        return finish_comparison(models, out, seed)
