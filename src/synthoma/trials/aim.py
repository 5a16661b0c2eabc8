"""From a trial's report to a synthesis recipe that draws more of the sizes that the model missed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synthoma import anatomy, disk
from synthoma.errors import CaseError, FileError
from synthoma.synthesis.recipe import SIZES, SynthesisRecipe
from synthoma.trials.outputs import SUMMARY

Size = Literal["tiny", "small", "medium", "large"]
_KEPT = 0.5  # share of the tumors that keep the natural mix, so that no size is forgotten
_MOST = 5.0  # how many times the mean a size's missed share counts at most


@dataclass(frozen=True)
class Aim:
    """A recipe aimed at what was missed. natural, aimed: share of the tumors by size class; missed: of each class, as
    the trial found. text: what the recipe does, in sentences."""

    recipe: SynthesisRecipe
    natural: Mapping[Size, float]
    missed: Mapping[Size, float]
    aimed: Mapping[Size, float]
    text: str


def aim_recipe(report: Path) -> Aim:
    """The aim of a report's first model, from its run folder.

    The natural mix is that of real tumors of the organ (docs/priors.md). Half of the tumors keep it; the other half is
    drawn in proportion to what is missed, at most five times the mean. Raises `CaseError` if no diameters were varied,
    or nothing was missed, and `FileError` for a folder that is no report.
    """
    organ, model, found = _found_by_diameter(report)
    if len(found) < 2:
        raise CaseError(
            "the trial says nothing about sizes", found=f"{len(found)} diameters",
            fix="vary diameter_mm in the trial's recipe",
        )  # fmt: skip
    levels = np.log(sorted(found))
    shares = np.array([found[level] for level in sorted(found)])
    natural = natural_mix(organ)
    middle = {size: float(np.log(low * high) / 2) for size, (low, high) in SIZES.items()}
    missed: dict[Size, float] = {size: 1 - float(np.interp(middle[size], levels, shares)) for size in natural}
    mean = sum(natural[size] * missed[size] for size in natural)
    if mean <= 0:
        raise CaseError(
            f"{model} missed nothing at the base of the trial", fix="lower base.contrast_hu, or try smaller diameters"
        )
    pull = {size: natural[size] * min(missed[size] / mean, _MOST) for size in natural}
    total = sum(pull.values())
    aimed: dict[Size, float] = {size: _KEPT * natural[size] + (1 - _KEPT) * pull[size] / total for size in natural}
    recipe = SynthesisRecipe(organs=(organ,), sizes={size: round(share, 4) for size, share in aimed.items()})
    after = sum(aimed[size] * missed[size] for size in natural)
    parts = ", ".join(
        f"{size} {SIZES[size][0]:g}-{SIZES[size][1]:g} mm {100 * natural[size]:.0f} -> {100 * aimed[size]:.0f} %"
        for size in natural
    )
    text = (
        f"At the base of the trial {model} misses {100 * mean:.0f} % of tumors that are as large as real ones of the"
        f" {organ}; of those that the recipe draws it would miss {100 * after:.0f} %: {parts}. Whether a model that is"
        " trained on them finds more is another trial."
    )
    return Aim(recipe, natural, missed, aimed, text)


def write_aim(aim: Aim, path: Path) -> None:
    """The recipe as TOML, with the reason above it."""
    disk.write_text(path, f"# {aim.text}\n{aim.recipe.to_toml()}")


def natural_mix(organ: str) -> dict[Size, float]:
    """Share of the size classes among real tumors of an organ; what lies between two classes goes to the nearer one."""
    from scipy.stats import norm

    mean, spread = anatomy.SHAPES[organ].log_diameter
    names: list[Size] = ["tiny", "small", "medium", "large"]
    borders = [float(np.log(SIZES[low][1] * SIZES[high][0]) / 2) for low, high in zip(names, names[1:], strict=False)]
    below = [0.0, *(float(norm.cdf(border, mean, spread)) for border in borders), 1.0]
    return {name: below[place + 1] - below[place] for place, name in enumerate(names)}


def _found_by_diameter(report: Path) -> tuple[Any, str, dict[float, float]]:
    """Organ, first model, and diameter -> share of its lesions found at the base."""
    path = report / SUMMARY
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        model, figures = next(iter(data["models"].items()))
        rows = figures["levels"].get("diameter_mm", [])
        return data["organ"], model, {float(row["level"]): float(row["found"]) for row in rows}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise FileError(
            f"{report} is no finished report of a trial", expected=f"the {SUMMARY} that `synthoma trial-report` leaves"
        ) from error
