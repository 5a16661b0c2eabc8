"""The recipes that come along: listed, and handed over as files with every key explained."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synthoma.cli.app import app, table
from synthoma.errors import RecipeError

if TYPE_CHECKING:
    from synthoma.recipe import Recipe

# folder of recipes -> the command that takes them, and what they are; a generator's is told by its `kind`
FOLDERS = {
    "synthesis": ("synthesize", "synthoma.synthesis.recipe:SynthesisRecipe"),
    "train": ("train", "synthoma.segmentation.recipe:TrainRecipe"),
    "scale": ("scale", "synthoma.scaling.recipe:StudyRecipe"),
    "follow": ("follow", "synthoma.followup.recipe:FollowRecipe"),
    "trial": ("trial", "synthoma.trials.recipe:TrialRecipe"),
    "cohort": ("cohort", "synthoma.phantom.cohort:CohortRecipe"),
    "generator": ("train-generator", "synthoma.training.recipe:{kind}Recipe"),
    "cluster": ("--cluster", "synthoma.engine.clusters:ClusterRecipe"),
}


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="One of them, or FOLDER/NAME where two have one name.", metavar="NAME")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="TOML file to write, with every key explained.")] = None,
) -> None:
    """List the recipes that come along, or show one with every key and what it means."""
    from synthoma import disk
    from synthoma.recipe import RECIPES, recipe_names
    from synthoma.recipe_text import first_sentence

    known = {f"{folder}/{own}": (folder, own) for folder in FOLDERS for own in recipe_names(folder)}
    if name is None:
        if out is not None:
            raise RecipeError("which recipe is to be written?", expected=f"one of {', '.join(known)}")

        rows = [
            {
                "command": FOLDERS[folder][0],
                "recipe": own,
                "what": first_sentence((RECIPES / folder / f"{own}.toml").read_text(encoding="utf-8")),
            }
            for folder, own in known.values()
        ]
        table(rows, ("command", "recipe", "what"))
        return
    meant = [place for place, (_, own) in known.items() if name in (place, own)]
    if not meant:
        raise RecipeError(f"no recipe {name}", expected=f"one of {', '.join(known)}")
    text = explained(*known[meant[0]])
    if out is None:
        typer.echo(text, nl=False)
    elif out.exists():
        raise RecipeError(f"{out} is there already", fix="choose another --out")
    else:
        disk.write_text(out, text)
        typer.echo(f"{meant[0]}: {out}")
    if len(meant) > 1:
        typer.echo(f"the same name is also that of {' and '.join(meant[1:])}", err=True)


def explained(folder: str, name: str) -> str:
    """The text of a recipe with all its keys."""
    from synthoma.recipe import RECIPES
    from synthoma.recipe_text import commented, headline

    toml = (RECIPES / folder / f"{name}.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(toml)
    return commented(_kind(folder, settings), settings, headline(toml))


def _kind(folder: str, settings: dict[str, Any]) -> type[Recipe]:
    module, _, name = FOLDERS[folder][1].partition(":")
    found: type[Recipe] = getattr(
        importlib.import_module(module), name.format(kind=str(settings.get("kind", "")).title())
    )
    return found
