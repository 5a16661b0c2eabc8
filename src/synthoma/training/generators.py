"""Train a generator on lesion crops: what `synthoma train-generator` calls."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthoma import disk, reading
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import RecipeError
from synthoma.extras import need
from synthoma.learning.crops import LesionCrops, build_crops
from synthoma.recipe import find_recipe, make_recipe, read_recipe
from synthoma.runs import Run, open_run
from synthoma.training.data import open_all

if TYPE_CHECKING:
    from synthoma.learning.loop import Team
    from synthoma.learning.tissue import TissueModel
    from synthoma.training.recipe import AdversarialRecipe, DiffusionRecipe

KIND = "train-generator"


def train_generator(
    recipe: DiffusionRecipe | AdversarialRecipe,
    data: Dataset | Sequence[Path | str],
    out: Path | str,
    *,
    critic: Path | str | None = None,
    seed: int = 0,
    cache: Path | str | None = None,
    device: str = "auto",
    workers: int = 0,
    allow_modules: Sequence[str] = (),
) -> TissueModel:
    """The trained generator, also `generator.safetensors` in the run folder `out`; the same call again resumes.

    data: a data set, or the folders of some; those with tumor labels are learned from, all can host fake tumors.
    critic: a trained segmentation whose judgement an adversarial generator learns from. cache: prepared cases, shared
    by runs; a folder `cache` beside `out` unless given. workers: processes that make crops. allow_modules: generators
    of the form `module:Class` that the manifest of a data set may name.
    Raises `CaseError` if there is no lesion to learn from.
    """
    need("torch", extra="train")
    from synthoma.learning.loop import open_team
    from synthoma.learning.tissue import GENERATOR, save_generator

    out = Path(out).absolute()
    place = Path(cache) if cache else out.parent / "cache"
    dataset = data if isinstance(data, Dataset) else open_all(data, allow_modules)
    if critic is not None and recipe.kind == "diffusion":
        raise RecipeError(
            "a diffusion generator learns from lesions alone", found=f"--critic {critic}", fix="leave it out"
        )
    facts = reading.input_facts(dataset, critic=_digest(critic))
    with open_team(device) as team, open_run(out, KIND, recipe, seed, facts) as run:
        crops = build_crops(dataset.cases, place, recipe.crops, workers)
        chosen, held = crops.side(recipe.validation, seed)
        learned = chosen or held
        if recipe.kind == "diffusion":
            from synthoma.training.diffusion import train_diffusion

            model = train_diffusion(recipe, crops, learned, run, team, seed, workers)
        else:
            model = _adversarial(recipe, crops, learned, dataset.cases, place, run, team, seed, workers, critic)
        record: dict[str, object] = {
            "recipe": recipe.as_dict(),
            "data": _described(crops, chosen, held, dataset.cases),
            "seed": seed,
        }
        record["steps"] = recipe.steps
        model = dataclasses.replace(model, record=record)
        save_generator(out / GENERATOR, model)
        run.note(steps=recipe.steps, lesions=len(chosen))
    return dataclasses.replace(model, digest=disk.digest(out / GENERATOR))


def _adversarial(
    recipe: AdversarialRecipe,
    crops: LesionCrops,
    learned: list[int],
    cases: Sequence[Case],
    cache: Path,
    run: Run,
    team: Team,
    seed: int,
    workers: int,
    critic: Path | str | None,
) -> TissueModel:
    """Hosts and the critic opened, then the loop."""
    from synthoma.learning.models import load_model
    from synthoma.training.adversarial import train_adversarial
    from synthoma.training.critics import FrozenCritic
    from synthoma.training.hosts import open_hosts

    frozen = None
    if critic is not None:
        model = load_model(critic, team.device)
        frozen = FrozenCritic.of(model, recipe.crops.spacing_mm, recipe.fakes.organs)
    looks = [crops.lesions[index][1].look for index in learned]
    hosts = open_hosts(
        cases, cache, recipe.crops.spacing_mm, recipe.fakes, looks, recipe.crops.size, recipe.batch, seed, workers
    )
    return train_adversarial(recipe, crops, learned, hosts, frozen, run, team, seed, workers)


def read_generator_recipe(recipe: Path | str, changes: Sequence[str] = ()) -> DiffusionRecipe | AdversarialRecipe:
    """The recipe of this file, or of this name that comes along; its `kind` says which one it is."""
    path = find_recipe(recipe, "generator")
    try:
        kind = tomllib.loads(path.read_text(encoding="utf-8")).get("kind", "")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML", found=str(error)) from error
    return read_recipe(_recipe_of(kind, path), path, changes)


def make_generator_recipe(table: Mapping[str, Any], source: Path | str) -> DiffusionRecipe | AdversarialRecipe:
    """The recipe in a table; its `kind` says which one it is. source: where the table is, for errors."""
    return make_recipe(_recipe_of(table.get("kind", ""), source), table, source)


def _recipe_of(kind: str, source: Path | str) -> type[DiffusionRecipe] | type[AdversarialRecipe]:
    need("torch", extra="train")
    from synthoma.training.recipe import AdversarialRecipe, DiffusionRecipe

    kinds: dict[str, type[DiffusionRecipe] | type[AdversarialRecipe]] = {
        "diffusion": DiffusionRecipe,
        "adversarial": AdversarialRecipe,
    }
    if kind not in kinds:
        raise RecipeError(f"{source}: no kind {kind!r} of generator", expected=f"kind = {' or '.join(kinds)}")
    return kinds[kind]


def _digest(critic: Path | str | None) -> str:
    if critic is None:
        return ""
    from synthoma.learning.models import find_model

    return disk.digest(find_model(critic))


def _described(crops: LesionCrops, chosen: list[int], held: list[int], cases: Sequence[Case]) -> dict[str, object]:
    """The data in a generator's record."""
    organs = [crops.lesions[index][1].look.organ for index in chosen]
    return {
        "cases": sorted({case.id for case in cases}),
        "held_back": sorted({crops.entries[crops.lesions[index][0]].case for index in held}),
        "lesions": {organ: organs.count(organ) for organ in sorted(set(organs))},
    }
