"""Commands about realism: how synthetic lesions differ from real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthoma.cli.app import AllowFailures, AllowModules, Cluster, Out, Overrides, Timeout, Workers, app, finish


@app.command()
def realism(
    real: Annotated[Path, typer.Argument(help="Data set with masks of real tumors.", metavar="REAL")],
    synthetic: Annotated[
        Path, typer.Argument(help="Data set with synthetic ones, as `synthesize` leaves it.", metavar="SYNTHETIC")
    ],
    out: Out,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Organs, resamples (TOML).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of matching, bootstrap and classifier.")] = 0,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
) -> None:
    """How synthetic lesions differ from real ones: features, distances, a classifier; one HTML page."""
    from synthoma.commands import realism as commands
    from synthoma.reading import open_dataset
    from synthoma.realism.recipe import RealismRecipe
    from synthoma.recipe import read_recipe

    first, second = (open_dataset(data, allow_modules=allow_modules) for data in (real, synthetic))
    done = commands.realism(
        first, second, out, recipe=read_recipe(RealismRecipe, recipe, changes), seed=seed, workers=workers,
        cluster=cluster, timeout_s=timeout,
    )  # fmt: skip
    typer.echo(done.summary["verdict"])
    typer.echo(f"report: {out / 'report.html'}")
    finish(done.records, out, done.faults, allow_failures)
