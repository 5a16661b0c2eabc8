"""Commands about generators: train one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthoma.cli.app import AllowModules, Out, Overrides, RecipeName, app
from synthoma.cli.learning import Device, Threads


@app.command("train-generator")
def train_generator(
    recipe: RecipeName,
    data: Annotated[list[Path], typer.Option("--data", help="Data set, in any known layout; repeatable.")],
    out: Out,
    critic: Annotated[
        str | None, typer.Option("--critic", help="Segmentation model that fakes are to convince (adversarial).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, crops and noise.")] = 0,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Prepared cases, shared by runs [cache beside OUT].")
    ] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option("--workers", help="Processes that make crops.")] = 0,
    threads: Threads = 1,
    changes: Overrides = [],  # noqa: B006
    allow_modules: AllowModules = [],  # noqa: B006
) -> None:
    """Train a generator of tumor tissue on lesion crops, adversarially or by diffusion."""
    from synthoma.extras import need

    need("torch", extra="train").set_num_threads(threads)
    from synthoma.learning.tissue import GENERATOR
    from synthoma.training.generators import read_generator_recipe
    from synthoma.training.generators import train_generator as train

    settings = read_generator_recipe(recipe, changes)
    model = train(
        settings, data, out, critic=critic, seed=seed, cache=cache, device=device, workers=workers,
        allow_modules=allow_modules,
    )  # fmt: skip
    typer.echo(
        f"{settings.steps} steps on {len(model.looks)} lesions of {', '.join(model.spec.organs)}: {out / GENERATOR}"
    )
