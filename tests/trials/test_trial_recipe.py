"""Designs: which cells they have, and which are refused."""

from __future__ import annotations

import pytest

from synthoma.errors import RecipeError
from synthoma.recipe import make_recipe
from synthoma.trials.design import require_scans
from synthoma.trials.recipe import TrialRecipe

LEVELS = {"diameter_mm": (6, 12, 20), "contrast_hu": (-60, -30)}


def test_a_grid_has_every_combination_and_one_at_a_time_only_what_differs_from_the_base_in_one() -> None:
    grid = TrialRecipe(levels=LEVELS, base={"contrast_hu": -60, "edge_mm": 1})
    assert len(grid.cells()) == 6
    assert all(cell["edge_mm"] == 1 for cell in grid.cells())
    one = grid.with_changes(design="one")
    base = one.base_cell
    assert base == {"diameter_mm": 12, "contrast_hu": -60, "edge_mm": 1}
    assert sorted(sum(cell[name] != base[name] for name in base) for cell in one.cells()) == [0, 1, 1, 1]


def test_a_base_that_is_no_level_and_a_level_that_cannot_be_rendered_are_refused() -> None:
    for settings, words in (
        ({"levels": LEVELS, "base": {"diameter_mm": 13}}, "one of its levels: 6, 12, 20"),
        ({"levels": {**LEVELS, "diameter_mm": (6, 500)}}, "500, expected 2 to 100"),
        ({"levels": {"edge_mm": (1, 2)}}, "diameter_mm and contrast_hu are needed"),
        ({"levels": {**LEVELS, "diameter_mm": (6, 6)}}, "each once"),
        ({"levels": {**LEVELS, "noise_hu": (10, 20)}}, "levels.noise_hu needs 0, the scan as it is"),
        (
            {"levels": {**LEVELS, "rim_hu": (0, 20)}, "generator": "growth"},
            "rim_hu is an attribute of lesions by rules",
        ),
    ):
        with pytest.raises(RecipeError, match=words):
            make_recipe(TrialRecipe, settings)


def test_the_base_of_the_scan_is_the_scan_as_it_is() -> None:
    recipe = TrialRecipe(levels={**LEVELS, "noise_hu": (0, 20, 40), "shift_hu": (-20, 0)}, design="one")
    assert recipe.base_cell["noise_hu"] == recipe.base_cell["shift_hu"] == 0
    assert recipe.states()[0] == {"noise_hu": 0, "shift_hu": 0}
    assert len(recipe.states()) == 4
    assert require_scans(recipe, 2) == 2 * (len(recipe.cells()) + 4)


def test_a_design_with_too_many_scans_says_the_number() -> None:
    recipe = TrialRecipe(levels=LEVELS, most_scans=70)
    assert require_scans(recipe, 10) == 70
    with pytest.raises(RecipeError, match=r"11 hosts x \(6 cells \+ 1 without a lesion\) = 77 scans.*at most 70"):
        require_scans(recipe, 11)
