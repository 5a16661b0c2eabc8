"""Commands about networks: train one, segment with it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthoma.cli.app import Out, Overrides, RecipePath, app, input_facts

if TYPE_CHECKING:
    pass

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option("--threads", help="Of torch on the CPU.")]


@app.command()
def train(
    recipe: RecipePath,
    data: Annotated[list[Path], typer.Option("--data", help="Data set, in any known layout; repeatable.")],
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, patches and tumors.")] = 0,
    splits: Annotated[Path | None, typer.Option("--splits", help="Who trains and who validates (JSON).")] = None,
    fold: Annotated[int, typer.Option("--fold", help="Of the splits.")] = 0,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Prepared cases, shared by runs [cache beside OUT].")
    ] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option("--workers", help="Processes that make patches.")] = 0,
    threads: Threads = 1,
    changes: Overrides = [],  # noqa: B006
) -> None:
    """Train a segmentation on real tumors, on synthetic ones drawn anew in every epoch, or on both."""
    from contextlib import nullcontext

    from synthoma import runs
    from synthoma.cli.training import make_augment, open_all, score_validation, sides, with_synthesis
    from synthoma.extras import need
    from synthoma.recipes import read_recipe

    need("torch", extra="train").set_num_threads(threads)
    from synthoma.learning.loop import open_team
    from synthoma.learning.models import MODEL
    from synthoma.segmentation.train import TrainRecipe
    from synthoma.segmentation.train import train as run_training

    settings = with_synthesis(read_recipe(TrainRecipe, recipe, changes), recipe)
    dataset = open_all(data)
    training, validation = sides(dataset.cases, settings, splits, fold, seed)
    facts = input_facts(dataset, splits=str(splits or ""), fold=str(fold))
    with open_team(device) as team:
        with runs.open_run(out, "train", settings, seed, facts) if team.first else nullcontext() as run:
            model = run_training(
                settings, training, validation, run, team, cache=cache or out.parent / "cache", seed=seed,
                workers=workers, augment=make_augment(settings, seed), score=score_validation,
            )  # fmt: skip
            if run:
                run.note(**model.record["figures"], steps=model.record["steps"])
        if team.first:
            typer.echo(f"{model.record['steps']} steps: {out / MODEL}")
