"""A train recipe's table of synthesis: checked and completed, and what puts its tumors into patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthoma.errors import RecipeError
from synthoma.recipe import make_recipe
from synthoma.synthesis.online.deferred import Deferred
from synthoma.synthesis.online.online import Fixed, Online
from synthoma.synthesis.recipe import SynthesisRecipe

FIXED = "manifest"  # the key of a table of synthesis that names a manifest instead of a recipe
RENDER, DEVICE = "render", "device"  # the key that says where its tumors are rendered
WAYS = ("bank", DEVICE)


def complete_table(table: Mapping[str, Any], organs: Sequence[str], source: Path | str) -> dict[str, Any]:
    """A train recipe's table of synthesis with its defaults: a synthesis recipe, or `manifest`, a path.

    render: of a manifest's tumors; `bank`, on the CPU when the cache is made, unless told, or `device`, on that of the
    training whenever a patch shows them.

    organs: those that are learned; tumors go into all of them unless the table says less. Half of the cases get
    some in an epoch unless it says otherwise. Raises `RecipeError` for other keys, and organs that are not learned.
    """
    if FIXED in table:
        if others := sorted(set(table) - {FIXED, RENDER}):
            raise RecipeError(f"{source}: a manifest leaves nothing to choose but {RENDER}", found=", ".join(others))
        if table.get(RENDER, WAYS[0]) not in WAYS:
            raise RecipeError(f"{source}: {RENDER} is {table[RENDER]!r}", expected=" or ".join(WAYS))
        return dict(table)
    if RENDER in table:
        raise RecipeError(
            f"{source}: {RENDER} belongs to a manifest: tumors that are drawn in every epoch are judged, on the CPU",
            fix="synthoma synthesize --write plans, then train --set synthesis.manifest=OUT",
        )
    recipe = make_recipe(SynthesisRecipe, {"organs": list(organs), "probability": 0.5, **table}, source)
    if recipe.critic.models:
        raise RecipeError(
            f"{source}: a critic judges when a bank is made, not in every epoch",
            found=f"critic.model = {', '.join(recipe.critic.models)}",
            fix="synthoma synthesize --write plans --set critic.model=..., then train --set synthesis.manifest=OUT",
        )
    if others := sorted(set(recipe.organs) - set(organs)):
        raise RecipeError(
            f"{source}: tumors are put into {', '.join(others)}, which are not learned",
            expected=f"some of {', '.join(organs)}",
        )
    return recipe.as_dict()


def from_table(table: Mapping[str, Any] | None, seed: int, allow_modules: Sequence[str] = ()) -> Online | Fixed | None:
    """What puts the synthetic tumors of a table (see `complete_table`) into patches; None for none.

    allow_modules: generators of the form `module:Class` that the plans of a manifest may name.
    """
    if table is None:
        return None
    if FIXED in table:
        if table.get(RENDER) == DEVICE:
            return Deferred(Path(table[FIXED]), tuple(allow_modules))
        return Fixed(Path(table[FIXED]), tuple(allow_modules))
    recipe = make_recipe(SynthesisRecipe, table, "synthesis")
    return Online(recipe.with_changes(probability=1.0), recipe.probability, seed)
