"""The design of a trial as its folder keeps it: which lesion with which attributes lies in which scan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthoma import disk
from synthoma.errors import FileError, RecipeError, SynthomaError
from synthoma.recipe import make_recipe
from synthoma.tables import Row
from synthoma.trials.recipe import TrialRecipe

DESIGN = "design.json"
FORMAT = 2
_LESION = ("case", "host", "patient", "phase", "site", "center_mm", "radius_mm")
_UNTOUCHED = ("case", "host", "patient")


@dataclass(frozen=True)
class Design:
    """What a trial holds. lesions, untouched, left_out: as `planning.plan_host` has them, of hosts that were done.

    in_silico: whether every host is an in-silico patient.
    """

    recipe: TrialRecipe
    untouched: Sequence[Row]
    lesions: Sequence[Row]
    left_out: Sequence[Row]
    in_silico: bool = False

    @property
    def hosts(self) -> dict[str, str]:
        """Host -> patient."""
        return {str(row["host"]): str(row["patient"]) for row in self.untouched}

    @property
    def cases(self) -> list[str]:
        """All scans of the trial: those without a lesion, then those with."""
        return list(dict.fromkeys(str(row["case"]) for row in (*self.untouched, *self.lesions)))


def require_scans(recipe: TrialRecipe, hosts: int) -> int:
    """How many scans a design needs; `RecipeError` if that is more than the recipe allows."""
    cells, bare = len(recipe.cells()), len(recipe.states())
    scans = hosts * (cells + bare)
    if scans > recipe.most_scans:
        raise RecipeError(
            "the design is larger than asked for",
            found=f"{hosts} hosts x ({cells} cells + {bare} without a lesion) = {scans} scans",
            expected=f"at most {recipe.most_scans}",
            fix=f"drop levels, say design = 'one', or --set most_scans={scans}",
        )
    return scans


def write_design(design: Design, out: Path) -> None:
    """The design as JSON in the trial's folder."""
    data = {
        "format": FORMAT,
        "recipe": design.recipe.as_dict(),
        "in_silico": design.in_silico,
        "untouched": list(design.untouched),
        "lesions": list(design.lesions),
        "left_out": list(design.left_out),
    }
    disk.write_json(out / DESIGN, data)


def read_design(folder: Path) -> Design:
    """The design in a trial's folder; `FileError` if there is none, or it is damaged."""
    path = folder / DESIGN
    if not path.is_file():
        raise FileError(f"{folder} is no finished trial", expected=f"the {DESIGN} that `synthoma trial` leaves")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        recipe = make_recipe(TrialRecipe, data["recipe"], str(path))
        needed = {*_LESION, *recipe.base_cell}
        if data["format"] != FORMAT or any(not needed <= row.keys() for row in data["lesions"]):
            raise ValueError(f"format {data['format']}, or lesions without {', '.join(sorted(needed))}")
        if any(not {*_UNTOUCHED, *recipe.states()[0]} <= row.keys() for row in data["untouched"]):
            raise ValueError("scans without a lesion that do not say whose")
        return Design(recipe, data["untouched"], data["lesions"], data["left_out"], bool(data["in_silico"]))
    except (SynthomaError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise FileError(
            f"{path} is damaged, or was changed by hand", found=str(error)[:200], fix="make the trial again"
        ) from error
