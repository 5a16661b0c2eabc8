"""Commands about scaling: what synthetic tumors are worth in real annotations, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from synthoma.cli.preview import DryRun, amount, duration, say_end, try_training

if TYPE_CHECKING:
    from synthoma.datasets.layouts.opening import Dataset
    from synthoma.scaling.recipe import StudyRecipe


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
    dry_run: DryRun = False,
) -> None:
    """Train with and without synthetic tumors on growing numbers of real cases: how many did they replace?"""
    from synthoma.commands import studies
    from synthoma.reading import open_dataset
    from synthoma.recipe import find_recipe, read_recipe
    from synthoma.scaling.outputs import REPORT
    from synthoma.scaling.recipe import StudyRecipe

    settings = read_recipe(StudyRecipe, find_recipe(recipe, "scale"), changes)
    dataset = open_dataset(data, allow_modules=allow_modules)
    if dry_run:
        _preview_study(settings, dataset, out, splits, device, loaders, workers)
    done = studies.scale(
        settings, dataset, out, splits=splits, device=device, loaders=loaders,
        workers=workers, cluster=cluster, allow_failures=allow_failures,
    )  # fmt: skip
    typer.echo(done.summary.get("answer", "No point is done, so there is no answer."))
    typer.echo(f"report: {out / REPORT}")
    finish(done.records, out, done.faults, allow_failures)


def _preview_study(
    recipe: StudyRecipe, dataset: Dataset, out: Path, splits: Path | None, device: str, loaders: int, workers: int
) -> None:
    """Tell how many trainings a study is and what they would take, from some steps of one; ends the command."""
    from synthoma.recipe import make_recipe
    from synthoma.scaling.networks import complete_generators, require_arms
    from synthoma.scaling.point import arm_training, complete_training
    from synthoma.scaling.recipe import Arm
    from synthoma.scaling.subsets import find_sides
    from synthoma.segmentation.recipe import TrainRecipe

    table = complete_training(recipe.train, recipe.arms())
    recipe = recipe.with_changes(train=table)
    complete_generators(recipe)
    sides, points = find_sides(dataset, recipe, splits), list(recipe.points())
    wanted = [*sides.annotated, *sides.healthy]
    require_arms(recipe, sides)
    training = make_recipe(TrainRecipe, arm_training(table, Arm(recipe.shares[0], "rules")), "train")
    trial = try_training(training, [case for case in dataset if case.id in wanted], device, loaders)
    cached, models = len(wanted) * trial.cache_bytes, len(points) * trial.model_bytes
    steps_s = len(points) * training.steps * trial.step_s
    typer.echo(
        f"{len(points)} trainings of {training.steps} steps would be done on up to {len(wanted)} cases:"
        f" about {duration((len(wanted) * trial.cache_s + steps_s) / max(workers, 1))}, tests not counted"
        f"{', generators and critics neither' if recipe.learned or 'critic' in recipe.filters else ''}."
    )
    typer.echo(f"{out} would hold about {amount(cached)} of prepared cases and {amount(models)} of models.")
    say_end(out, cached + models)


@app.command()
def plan(
    run: Annotated[
        Path, typer.Argument(help="Output folder of scale, finished or not, or of trial-report.", metavar="RUN")
    ],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Of a trial-report: the synthesis recipe (TOML) to write.")
    ] = None,
) -> None:
    """What to do next: annotate, synthesize or stop, by a study; which tumors to draw, by a trial's report."""
    from synthoma.commands.trials import is_report, plan_tumors
    from synthoma.errors import RecipeError
    from synthoma.scaling.outputs import plan_study

    if is_report(run):
        typer.echo(plan_tumors(run, recipe).text)
        return
    if recipe is not None:
        raise RecipeError("a study says how many tumors, not which", fix="give the folder of a trial-report")
    typer.echo(plan_study(run)["text"])
