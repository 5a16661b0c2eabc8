"""The synthetic tumors of a training: its table of synthesis, checked, and what puts them into patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthoma.synthesis.online.table import complete_table, from_table

if TYPE_CHECKING:
    from synthoma.learning.patches import Augment
    from synthoma.segmentation.recipe import TrainRecipe


def with_synthesis(recipe: TrainRecipe, source: Path | str) -> TrainRecipe:
    """The recipe with its table of synthesis checked and complete."""
    if recipe.synthesis is None:
        return recipe
    return recipe.with_changes(synthesis=complete_table(recipe.synthesis, recipe.organs, f"{source}: synthesis"))


def make_augment(recipe: TrainRecipe, seed: int, allow_modules: Sequence[str] = ()) -> Augment | None:
    """What puts synthetic tumors into patches: new ones in every epoch, or those of a manifest; None for none.

    allow_modules: generators of the form `module:Class` that the manifest may name.
    """
    augment: Any = from_table(
        recipe.synthesis, seed, allow_modules
    )  # it renders what it drew, which a protocol cannot say
    chosen: Augment | None = augment
    return chosen
