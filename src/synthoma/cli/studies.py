"""Commands about scaling: what synthetic tumors are worth in real annotations, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthoma.cli.app import (
    AllowFailures,
    AllowModules,
    Cluster,
    Data,
    Out,
    Overrides,
    RecipeName,
    Workers,
    app,
    finish,
)


@app.command()
def scale(
    recipe: RecipeName,
    data: Data,
    out: Out,
    splits: Annotated[Path | None, typer.Option("--splits", help="Who trains, who is tested on (JSON).")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    loaders: Annotated[int, typer.Option("--loaders", help="Processes that make patches, of each point.")] = 0,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
) -> None:
    """Train with and without synthetic tumors on growing numbers of real cases: how many did they replace?"""
    from synthoma.commands import studies
    from synthoma.reading import open_dataset
    from synthoma.recipe import find_recipe, read_recipe
    from synthoma.scaling.outputs import REPORT
    from synthoma.scaling.recipe import StudyRecipe

    done = studies.scale(
        read_recipe(StudyRecipe, find_recipe(recipe, "scale"), changes),
        open_dataset(data, allow_modules=allow_modules), out, splits=splits, device=device, loaders=loaders,
        workers=workers, cluster=cluster, allow_failures=allow_failures,
    )  # fmt: skip
    typer.echo(done.summary.get("answer", "No point is done, so there is no answer."))
    typer.echo(f"report: {out / REPORT}")
    finish(done.records, out, done.faults, allow_failures)


@app.command()
def plan(
    run: Annotated[Path, typer.Argument(help="Output folder of scale, finished or not.", metavar="RUN")],
) -> None:
    """What a study says to do next: annotate, synthesize, or stop."""
    from synthoma.scaling.outputs import plan_study

    typer.echo(plan_study(run)["text"])
