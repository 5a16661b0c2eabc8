"""What tumors a training of nnU-Net's gets: told in the environment, or in dataset.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from synthoma.errors import RecipeError
from synthoma.integrations.labels import LabelScheme
from synthoma.integrations.sources import Bank, fitted, open_source
from synthoma.recipe import Recipe, make_recipe
from synthoma.synthesis.online.online import Fixed, Online
from synthoma.synthesis.recipe import SynthesisRecipe

TABLE = "synthoma"  # the key of dataset.json
VARIABLES = {"tumors": "SYNTHOMA_TUMORS", "hosts": "SYNTHOMA_HOSTS"}
_PROBABILITY = 0.5  # of recipes that do not say


class TrainerRecipe(Recipe):
    """The table `synthoma` of dataset.json.

    tumors: a recipe of `synthoma synthesize` by name or file, or as a table of its keys; or the folder or manifest of a
    synthesis, whose finished tumors are put in. Empty: the defaults of a recipe, in every organ that has a label for
    its tumors. hosts: `healthy` cases without real tumors in the organ get new ones, or `all`.
    """

    tumors: str | dict[str, Any] = ""
    hosts: Literal["healthy", "all"] = "healthy"


def read_settings(dataset_json: Mapping[str, Any], environment: Mapping[str, str]) -> TrainerRecipe:
    """The table of dataset.json; what the environment says comes first."""
    table = dataset_json.get(TABLE, {})
    if not isinstance(table, Mapping):
        look = f'"{TABLE}": {{"tumors": "liver", "hosts": "healthy"}}'
        raise RecipeError(f"dataset.json: {TABLE} is no table", found=table, expected=look)
    told = {key: environment[name] for key, name in VARIABLES.items() if environment.get(name)}
    sources = " and ".join(["dataset.json"] * bool(table) + [VARIABLES[key] for key in told]) or None
    return make_recipe(TrainerRecipe, {**table, **told}, sources)


def open_tumors(settings: TrainerRecipe, scheme: LabelScheme) -> Online | Fixed:
    """What puts tumors into cases with these labels; see `sources.fitted` for what is refused."""
    if not scheme.tumors:
        raise RecipeError(
            "dataset.json has no label for the tumors of an organ",
            found=str(scheme),
            expected='an organ and its tumors, as {"liver": 1, "liver_tumor": 2}',
        )
    source = open_source(settings.tumors or {"organs": list(scheme.tumors)})
    if isinstance(source, Bank):
        fitted(source, [scheme])
        return Fixed(source.path, source.allow_modules)
    recipe = fitted(source, [scheme])
    assert isinstance(source, SynthesisRecipe)
    assert isinstance(recipe, SynthesisRecipe)
    probability = source.probability if "probability" in source.model_fields_set else _PROBABILITY
    return Online(recipe.with_changes(probability=1.0), probability, kept=1)
