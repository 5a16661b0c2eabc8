"""The recipe of a realism report."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synthoma.recipe import Recipe


class RealismRecipe(Recipe):
    """organs: whose lesions are compared; all that both sides have unless told.

    smallest_ml: lesions below it are left out. resamples: of the bootstrap. crops: whether a small network looks at
    the lesions too, where torch is installed.
    """

    organs: tuple[str, ...] = ()
    smallest_ml: Annotated[float, Field(gt=0)] = 0.05
    resamples: Annotated[int, Field(ge=100)] = 1000
    crops: bool = True
