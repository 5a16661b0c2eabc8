"""Commands about results: score predictions, compare two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthoma.cli.app import AllowFailures, AllowModules, Cluster, Out, Overrides, Timeout, Workers, app, finish


@app.command()
def evaluate(
    truth: Annotated[Path, typer.Argument(help="Data set with the true masks, in any known layout.", metavar="TRUTH")],
    predictions: Annotated[Path, typer.Argument(help="Data set, masks or label maps.", metavar="PRED")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Metrics and policies (TOML).")] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Values of label maps, if nothing tells them: liver=1,liver_lesion=2."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
) -> None:
    """Score predictions: voxel, surface, lesion and patient, with intervals; tables and one HTML page."""
    from synthoma.commands import results
    from synthoma.evaluation.scoring import EvaluateRecipe
    from synthoma.reading import is_synthesis, open_dataset
    from synthoma.recipe import read_recipe

    true = open_dataset(truth, allow_modules=allow_modules) if is_synthesis(truth) else truth
    done = results.evaluate(
        true, predictions, out, recipe=read_recipe(EvaluateRecipe, recipe, changes), labels=labels, seed=seed,
        workers=workers, cluster=cluster, timeout_s=timeout,
    )  # fmt: skip
    for sentence in done.summary["verdict"]:
        typer.echo(sentence)
    typer.echo(f"report: {out / 'report.html'}")
    finish(done.records, out, done.faults, allow_failures)


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
    from synthoma.commands import results

    for sentence in results.compare(first, second, out, seed=seed).sentences:
        typer.echo(sentence)
    typer.echo(f"report: {out / 'report.html'}")
