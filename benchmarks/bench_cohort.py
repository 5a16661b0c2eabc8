"""What a case of a cohort costs: drawn, scanned, written, catalogued; CPU seconds, and a hundred cases from them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from synthoma.phantom.cohort import CohortRecipe, write_cohort_case
from synthoma.recipe import read_recipe

RECIPES = Path(__file__).parents[1] / "src" / "synthoma" / "recipes" / "cohort"
GOAL_VOXELS, GOAL_CASES, GOAL_S = 160 * 160 * 96, 100, 600
# recipe, and the cases measured: healthy ones and others, of several hospitals
MEASURED = {"demo.toml": (2, 20, 36, 60), "hospitals.toml": (0, 30, 45, 62)}
ROW = "{:<18}{:>8}{:>12}{:>12}{:>14}{:>16}"


def main() -> None:
    """Prints per recipe: cases, voxels, CPU seconds a case, of all its cases, of a hundred of 160x160x96."""
    print(ROW.format("CPU seconds", "cases", "Mvoxels", "a case", "whole cohort", "100 at 160x160x96"))
    for name, numbers in MEASURED.items():
        recipe = read_recipe(CohortRecipe, RECIPES / name)
        cost(recipe, numbers[0])  # modules are loaded
        costs, voxels = zip(*(cost(recipe, number) for number in numbers), strict=True)
        each = float(np.mean(costs))
        scaled = GOAL_CASES * sum(costs) / sum(voxels) * GOAL_VOXELS
        print(
            ROW.format(name, len(numbers), f"{np.mean(voxels) / 1e6:.2f}", f"{each:.2f}", f"{each * recipe.cases:.0f}",
                       f"{scaled:.0f}")
        )  # fmt: skip
    print(f"goal: a hundred such cases in {GOAL_S} s on two cores; two workers share the last column")


def cost(recipe: CohortRecipe, number: int) -> tuple[float, int]:
    """CPU seconds of drawing and writing one case, and its voxels."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        written = write_cohort_case(number, recipe, Path(folder))
        return time.process_time() - start, int(np.prod(written["row"]["shape"]))


if __name__ == "__main__":
    main()
