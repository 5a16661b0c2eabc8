"""Commands about what a lesion measures, and what becomes of it over dates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from synthoma.cli.app import (
    AllowFailures,
    AllowModules,
    Cluster,
    Data,
    Out,
    Overrides,
    Timeout,
    Workers,
    app,
    finish,
)


@app.command()
def follow(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Recipe: a TOML file, or the name of one that comes along; or series.json of a follow run.",
            metavar="RECIPE",
        ),
    ],
    data: Data,
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other tumors and other courses.")] = 0,
    write: Annotated[Literal["full", "plans"], typer.Option("--write", help="NIfTI, or the series alone.")] = "full",
    changes: Overrides = [],  # noqa: B006
    allow_modules: AllowModules = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """The same patient at several dates: tumors that grow, respond, appear and vanish, on scans of their own."""
    from synthoma.commands import following
    from synthoma.followup.recipe import FollowRecipe
    from synthoma.reading import open_dataset
    from synthoma.recipe import find_recipe, read_recipe

    again = recipe.endswith(".json") or Path(recipe).is_dir()
    settings = recipe if again else read_recipe(FollowRecipe, find_recipe(recipe, "follow"), changes)
    done = following.follow(
        settings, open_dataset(data, allow_modules=allow_modules), out, seed=seed, write=write,
        allow_modules=allow_modules, workers=workers, cluster=cluster, timeout_s=timeout,
    )  # fmt: skip
    for record in done.records:
        for note in record.result.get("notes", ()):
            typer.echo(note, err=True)
    typer.echo(f"{done.summary['lesions']} lesions of {done.summary['patients']} patients over time")
    finish(done.records, done.out, done.faults, allow_failures)


@app.command()
def measure(
    data: Annotated[Path, typer.Argument(help="Data set with tumor masks, in any known layout.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option("--out", help="Run folder [measurement-NAME]; resumes.")] = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
) -> None:
    """Every lesion in figures, and over dates: diameters, volume, HU, place, growth, response (RECIST 1.1)."""
    from synthoma.commands import measuring
    from synthoma.measurement.findings import describe
    from synthoma.reading import open_dataset

    dataset = open_dataset(data, allow_modules=allow_modules)
    done = measuring.measure(dataset, out, workers=workers, cluster=cluster, timeout_s=timeout)
    if sum(record.status == "done" for record in done.records) == 1:
        for record in done.records:
            for title, sentences in describe(record.result) if record.status == "done" else []:
                typer.echo("\n".join([title, *(f"  {sentence}" for sentence in sentences)]))
    else:
        for record in done.records:
            for note in record.result.get("notes", ()):
                typer.echo(note, err=True)
    typer.echo(
        f"{done.summary['lesions']} lesions of {done.summary['patients']} patients; a page each: {done.out}/pages"
    )
    finish(done.records, done.out, done.faults, allow_failures)
