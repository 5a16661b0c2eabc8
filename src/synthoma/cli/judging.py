"""Commands about results: score predictions, compare two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthoma.cli.app import AllowFailures, Cluster, Out, Overrides, Timeout, Workers, app, finish, input_facts


@app.command()
def evaluate(
    truth: Annotated[Path, typer.Argument(help="Data set with the true masks, in any known layout.", metavar="TRUTH")],
    predictions: Annotated[Path, typer.Argument(help="Data set, masks or label maps.", metavar="PRED")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Metrics and policies (TOML).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """Score predictions: voxel, surface, lesion and patient, with intervals; tables and one HTML page."""
    from functools import partial

    from synthoma import runs
    from synthoma.engine import mapping
    from synthoma.evaluation.outputs import KIND, finish_evaluation
    from synthoma.evaluation.pairing import Pair, pair_cases, score_pair
    from synthoma.evaluation.scoring import EvaluateRecipe
    from synthoma.reading import open_dataset
    from synthoma.recipe import read_recipe

    settings = read_recipe(EvaluateRecipe, recipe, changes)
    dataset = open_dataset(truth)
    pairs = pair_cases(dataset, predictions, settings)
    with runs.open_run(out, KIND, settings, seed, input_facts(dataset, predictions=str(predictions.resolve()))) as run:
        records = mapping.map_cases(
            partial(score_pair, structures=pairs.structures, recipe=settings), pairs.pairs, run=run, workers=workers,
            cluster=cluster, timeout_s=timeout, title="evaluate", reads=Pair.reads,
        )  # fmt: skip
        run.note(**finish_evaluation(records, pairs, out, settings, seed))
    finish(records, out, pairs.faults, allow_failures)


@app.command()
def compare(
    first: Annotated[
        Path, typer.Argument(help="evaluate run, or a folder of them: one a training seed.", metavar="RUN_A")
    ],
    second: Annotated[Path, typer.Argument(help="The other model's.", metavar="RUN_B")],
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap and the permutations.")] = 0,
) -> None:
    """Two models on the same cases: which is better, on what, by how much, how sure."""
    from synthoma import runs
    from synthoma.evaluation.outputs import finish_comparison, read_models

    models = read_models(first, second)
    inputs = {"first": str(first.resolve()), "second": str(second.resolve())}
    with runs.open_run(out, "compare", models.recipe, seed, inputs):
        finish_comparison(models, out, seed)
    typer.echo(f"report: {out / 'report.html'}")
