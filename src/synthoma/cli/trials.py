"""Commands about virtual lesion trials: make the scans, report what a model finds in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from synthoma.cli.app import AllowFailures, Cluster, Data, Out, Overrides, RecipeName, Timeout, Workers, app, finish


@app.command()
def trial(
    recipe: RecipeName,
    data: Data,
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other places.")] = 0,
    write: Annotated[
        Literal["overlay", "plans"], typer.Option("--write", help="Changed voxels, or the manifest alone.")
    ] = "overlay",
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """A virtual lesion trial: the same lesions with one attribute varied, in every scan of a data set."""
    from synthoma.commands import trials
    from synthoma.recipe import find_recipe, read_recipe
    from synthoma.trials.recipe import TrialRecipe

    settings = read_recipe(TrialRecipe, find_recipe(recipe, "trial"), changes)
    done = trials.trial(
        settings, data, out, seed=seed, write=write, workers=workers, cluster=cluster, timeout_s=timeout
    )
    made = done.summary
    typer.echo(
        f"{made['lesions']} lesions in {made['scans']} scans of {made['hosts']} hosts; {made['left_out']} planned ones"
        " had no room or were rejected"
    )
    finish(done.records, out, done.faults, allow_failures)


@app.command("trial-report")
def trial_report(
    trial: Annotated[Path, typer.Argument(help="Folder that `trial` left.", metavar="TRIAL")],
    predictions: Annotated[Path, typer.Argument(help="Masks that a model predicted on it.", metavar="PRED")],
    out: Out,
    second: Annotated[
        Path | None, typer.Argument(help="Masks of another model, to be compared.", metavar="PRED_B")
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="How lesions are matched (TOML).")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The hosts, if they lie elsewhere now.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap and the permutations.")] = 0,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """What a model finds of a trial's lesions: curves, thresholds, false alarms, two models compared; one page."""
    from synthoma.commands import trials
    from synthoma.recipe import read_recipe
    from synthoma.trials.recipe import ReportRecipe

    done = trials.trial_report(
        trial, predictions, out, second=second, recipe=read_recipe(ReportRecipe, recipe, changes), data=data,
        seed=seed, workers=workers, cluster=cluster, timeout_s=timeout,
    )  # fmt: skip
    typer.echo(done.summary["verdict"])
    typer.echo(f"report: {out / 'report.html'}")
    finish(done.records, out, done.faults, allow_failures)
