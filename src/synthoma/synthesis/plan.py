"""From a measured organ and a recipe to plans: how many tumors, how large, and one plan for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from synthoma import anatomy
from synthoma.anatomy import ShapePrior
from synthoma.errors import CaseError
from synthoma.seeds import rng_for, seed_for
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.recipe import SIZES, SynthesisRecipe
from synthoma.synthesis.tumor import Request, TumorPlan


def draw_plans(organ: OrganModel, recipe: SynthesisRecipe, seed: int) -> list[TumorPlan]:
    """The tumors of one organ in one case, largest first; the same for the same case, organ, recipe and seed.

    May be empty: the recipe's `probability`. Tumors that find no room are left out, but if none finds any, the
    `CaseError` of the first is raised.
    """
    plans: list[TumorPlan] = []
    first_refusal: Exception | None = None
    for index, diameter_mm in enumerate(draw_diameters(organ, recipe, seed)):
        try:
            plans.append(draw_plan(organ, recipe, seed, index, 0, diameter_mm, plans))
        except CaseError as error:
            first_refusal = first_refusal or error
    if first_refusal is not None and not plans:
        raise first_refusal
    return plans


def draw_diameters(organ: OrganModel, recipe: SynthesisRecipe, seed: int) -> list[float]:
    """How many tumors, and how large: equivalent diameters in mm, largest first."""
    recipe = _mixed(organ, recipe, seed)
    rng = rng_for(seed, organ.case, organ.organ, "sizes")
    if rng.random() >= recipe.probability:
        return []
    prior = anatomy.SHAPES[organ.organ]
    count = _count(prior, recipe, rng)
    mean, spread = prior.log_diameter
    own_spread = prior.within_case or spread
    of_case = rng.normal(mean, np.sqrt(max(spread**2 - own_spread**2, 0)))
    diameters = []
    for _ in range(count):
        if recipe.diameter_mm:
            diameters.append(rng.uniform(min(recipe.diameter_mm), max(recipe.diameter_mm)))
        elif recipe.sizes:
            names = [name for name in SIZES if name in recipe.sizes]  # in one order, as in the digest
            weights = np.array([recipe.sizes[name] for name in names])
            diameters.append(rng.uniform(*SIZES[names[rng.choice(len(names), p=weights / weights.sum())]]))
        else:
            drawn = float(np.exp(rng.normal(of_case, own_spread)))
            diameters.append(min(max(drawn, anatomy.DIAMETER_RANGE_MM[0]), anatomy.DIAMETER_RANGE_MM[1]))
    return sorted((round(float(d), 3) for d in diameters), reverse=True)


def draw_plan(
    organ: OrganModel,
    recipe: SynthesisRecipe,
    seed: int,
    index: int,
    attempt: int,
    diameter_mm: float,
    others: Sequence[TumorPlan] = (),
) -> TumorPlan:
    """One tumor of this diameter; `attempt` > 0 draws another one after a rejection.

    Raises `CaseError` if there is no room.
    """
    recipe = _mixed(organ, recipe, seed)
    rng = rng_for(seed, organ.case, organ.organ, index, attempt)
    plan_seed = seed_for(seed, organ.case, organ.organ, index, attempt)
    request = Request(recipe, diameter_mm, others, plan_seed, attempt)
    plan = open_generator(recipe.generator, allowed=(recipe.generator,)).draw(organ, request, rng)
    return dataclasses.replace(plan, generator=recipe.generator)


def _mixed(organ: OrganModel, recipe: SynthesisRecipe, seed: int) -> SynthesisRecipe:
    """The recipe with the mix of this case and organ: the same for each of its tumors, and when one is drawn again."""
    mixes = [mix for mix in recipe.mixes or () if not mix.organs or organ.organ in mix.organs]
    if not mixes:
        return recipe
    weights = np.array([mix.weight for mix in mixes])
    chosen = rng_for(seed, organ.case, organ.organ, "mix").choice(len(mixes), p=weights / weights.sum())
    return mixes[int(chosen)].applied(recipe)


def _count(prior: ShapePrior, recipe: SynthesisRecipe, rng: np.random.Generator) -> int:
    if recipe.lesions:
        low, high = sorted(recipe.lesions)
        return int(rng.integers(low, high + 1))
    median, most = prior.lesions
    if most <= 1:
        return 1
    return int(min(max(1, round(float(np.exp(rng.normal(np.log(median), np.log(most / median) / 1.645))))), 30))
