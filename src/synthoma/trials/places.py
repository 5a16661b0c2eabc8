"""Places for the lesions of a trial in one host: as real ones lie, or at told depths and distances to vessels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from synthoma.errors import CaseError
from synthoma.seeds import rng_for
from synthoma.synthesis.insertion.insertion import Inserted
from synthoma.synthesis.insertion.scene import Scene
from synthoma.synthesis.location import OrganModel, apart
from synthoma.synthesis.plan import draw_plan
from synthoma.synthesis.tumor import Ball, TumorPlan, Vector
from synthoma.trials.lesions import Labels, Site, insert_all, synthesis_recipe
from synthoma.trials.recipe import Cell, Place, TrialRecipe, part_of
from synthoma.trials.vessels import vessel_distances_mm
from synthoma.volume import Array

_NEAR_MM = 2.0  # how far from the told depth or distance a center may lie
_ANYWHERE: Place = ()

Lacking = tuple[int, Place, str]  # number of the site, the place that could not be had, and why


def find_sites(
    scene: Scene, organ: OrganModel, recipe: TrialRecipe, seed: int, labels: Labels
) -> tuple[list[Site], list[Lacking]]:
    """The sites of a host, each with a place for the largest lesion that fits there; and the places that are lacking.

    Where depth or distance to vessels is told, a site is one lesion with a place for each pair of them; else it has one
    place. Raises the first lacking one's `CaseError` if there is none at all. The scene stays as it is.
    """
    keys = list(dict.fromkeys(part_of(cell, "place") for cell in recipe.cells()))
    sites: list[Site] = []
    lacking: list[Lacking] = []
    distances = vessel_distances_mm(scene, organ) if _tells(keys, "vessel_mm") else None
    for number in range(recipe.sites):
        taken = [(center, site.plan.radius_mm) for site in sites for center in site.centers_mm.values()]
        if keys == [_ANYWHERE]:
            site, why = _drawn(scene, organ, recipe, seed, number, sites, labels)
            lacking += [(number, _ANYWHERE, why)] if site is None else []
        else:
            site, missed = _told(scene, organ, recipe, seed, number, taken, keys, distances, labels)
            lacking += [(number, key, why) for key, why in missed.items()]
        sites += [site] if site is not None else []
    if not sites:
        raise CaseError(f"no room for a lesion in the {recipe.organ}: {lacking[0][2]}", case=scene.case)
    return sites, lacking


def _tells(keys: Sequence[Place], name: str) -> bool:
    return any(name in dict(key) for key in keys)


def _diameters(recipe: TrialRecipe) -> list[float]:
    return sorted({cell["diameter_mm"] for cell in recipe.cells()}, reverse=True)


def _drawn(
    scene: Scene, organ: OrganModel, recipe: TrialRecipe, seed: int, number: int, sites: Sequence[Site], labels: Labels
) -> tuple[Site | None, str]:
    """A site where real lesions may lie, for the largest lesion that fits; or why there is none."""
    rules, first = synthesis_recipe(recipe), ""
    others = [site.plan for site in sites]
    for diameter_mm in _diameters(recipe):
        cell = {**recipe.base_cell, "diameter_mm": diameter_mm}
        for attempt in range(rules.retries + 1):
            try:
                plan = draw_plan(organ, rules, seed, number, attempt, diameter_mm, others)
            except CaseError as error:
                first = first or error.what
                break
            site = Site(number, plan, MappingProxyType({_ANYWHERE: plan.center_mm}))
            why = _why_not(scene, site, cell, recipe, labels)
            if not why:
                return site, ""
            first = first or why
    return None, first


def _told(
    scene: Scene, organ: OrganModel, recipe: TrialRecipe, seed: int, number: int, taken: Sequence[Ball],
    keys: Sequence[Place], distances: Array | None, labels: Labels,
) -> tuple[Site | None, Mapping[Place, str]]:  # fmt: skip
    """A lesion with a center for each told place where it, or the next smaller one, has room; and why others lack."""
    plan = _plan(organ, recipe, seed, number)
    centers: dict[Place, Vector] = {}
    missed: dict[Place, str] = {}
    for key in keys:
        rng = rng_for(seed, scene.case, "place", number, *(f"{name} {level:g}" for name, level in key))
        tried = _candidates(organ, dict(key), distances, rng)
        why = "" if len(tried) else f"no place of the {organ.organ} is {_said(key)}"
        for diameter_mm in _diameters(recipe) if len(tried) else ():
            cell = {**recipe.base_cell, **dict(key), "diameter_mm": diameter_mm}
            reach = plan.radius_mm * diameter_mm / plan.equivalent_diameter_mm + recipe.gap_mm
            clear = tried[apart(tried, [*taken, *organ.lesions], reach).all(axis=1)]
            why = why or ("" if len(clear) else "other lesions are too near")
            for center in clear[: recipe.retries + 1]:
                x, y, z = (round(float(value), 3) for value in center)
                refused = _why_not(scene, Site(number, plan, {key: (x, y, z)}), cell, recipe, labels)
                why = why or refused
                if not refused:
                    centers[key] = (x, y, z)
                    break
            if key in centers:
                break
        if key not in centers:
            missed[key] = why
    return (Site(number, plan, MappingProxyType(centers)) if centers else None), missed


def _plan(organ: OrganModel, recipe: TrialRecipe, seed: int, number: int) -> TumorPlan:
    """The lesion of a site: of the largest diameter that the organ has any place for."""
    refusal: CaseError | None = None
    for diameter_mm in _diameters(recipe):
        try:
            return draw_plan(organ, synthesis_recipe(recipe), seed, number, 0, diameter_mm)
        except CaseError as error:
            refusal = refusal or error
    assert refusal is not None  # there is a diameter
    raise refusal


def _candidates(
    organ: OrganModel, wanted: Mapping[str, float], distances: Array | None, rng: np.random.Generator
) -> Array:
    """Centers (n, 3) of coarse voxels at this depth and distance to vessels, in random order."""
    fits = np.ones(len(organ.cells), bool)
    if "depth_mm" in wanted:
        fits &= np.abs(organ.depths_mm - wanted["depth_mm"]) <= _NEAR_MM
    if "vessel_mm" in wanted:
        assert distances is not None  # told in a level, so they were measured
        fits &= np.abs(distances - wanted["vessel_mm"]) <= _NEAR_MM
    return np.asarray(organ.grid.to_mm(organ.cells[rng.permutation(np.flatnonzero(fits))].astype(float)))


def _why_not(scene: Scene, site: Site, cell: Cell, recipe: TrialRecipe, labels: Labels) -> str:
    """Why a lesion of this cell cannot lie there; empty if it can."""
    [(_, _, done)] = insert_all(scene, [(site, cell)], synthesis_recipe(recipe), recipe.inside, labels)
    return "" if isinstance(done, Inserted) else done.verdict.reason or "rejected"


def _said(key: Place) -> str:
    words = {"depth_mm": "{:g} mm below the surface", "vessel_mm": "{:g} mm from a vessel"}
    return " and ".join(words[name].format(level) for name, level in key)
