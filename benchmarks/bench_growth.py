"""Growth and follow-up: CPU seconds of growing and measuring, shapes beside real ones, volumes in series."""

from __future__ import annotations

import dataclasses

import numpy as np

from bench_priors import REAL, centered, distance, ellipsoid, measure, plain_organ, whole_mask
from clock import seconds
from synthoma.cases import Case
from synthoma.followup.recipe import FollowRecipe
from synthoma.followup.series import draw_series, make_date
from synthoma.measurement.lesion import measure_case
from synthoma.synthesis.generators.growth.growth import Growth
from synthoma.synthesis.plan import draw_diameters, draw_plan
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Geometry, Volume

# A single-thread port of the published automaton on its active box, and its dense sweep, CPU seconds.
PUBLISHED = {30: (0.03, 0.9), 60: (0.4, 2.1)}
GOALS = {30: 0.10, 60: 0.50}


def main(count: int = 60) -> None:
    """Prints cost, shapes and volumes beside their goals."""
    growing()
    shapes(count)
    lesions()
    series()


def growing() -> None:
    """One tumor each on a 1 mm grid."""
    ct, masks = ellipsoid("liver", (70, 70, 70), 1.0)
    organ = plain_organ("liver")
    for diameter, goal in GOALS.items():
        recipe = SynthesisRecipe(generator="growth", mass_effect_share=0.0)
        plan = dataclasses.replace(draw_plan(organ, recipe, 1, 0, 0, float(diameter)), center_mm=(0.0, 0.0, 0.0))
        cost = seconds(lambda plan=plan: Growth().render(ct, masks["liver"], plan))  # type: ignore[misc]
        port, dense = PUBLISHED[diameter]
        print(f"grow {diameter} mm at 1 mm: {cost:.3f} s (goal {goal}; published: port {port}, dense sweep {dense})")


def shapes(count: int) -> None:
    """KS-like distances to real lesions (see bench_priors), growth beside rules, in even noisy tissue."""
    for organ in ("liver", "kidney", "pancreas"):
        grown, ruled = [], []
        for seed in range(10 * count):
            recipe = SynthesisRecipe(organs=(organ,), generator="growth")
            diameter = draw_diameters(plain_organ(organ), recipe, seed)[0]
            if 8 <= diameter <= 60 and len(grown) < count:
                grown.append(measure(_grown(draw_plan(plain_organ(organ), recipe, seed, 0, 0, diameter))))
                rules = recipe.with_changes(generator="rules")
                ruled.append(measure(whole_mask(draw_plan(plain_organ(organ), rules, seed, 0, 0, diameter))))
        for name in grown[0]:
            real = REAL[organ][name]
            g, r = (distance(np.array([row[name] for row in rows]), real) for rows in (grown, ruled))
            print(f"{organ:9} {name:11} growth {g:.2f}, rules {r:.2f} (goal 0.35; n = {len(grown)})")


def _grown(plan: TumorPlan) -> Array:
    """The label of a plan in tissue of 110 HU with white noise."""
    half = 1.3 * plan.radius_mm + 10
    grid = centered((2 * half,) * 3, 1.0)
    affine = grid.affine.copy()
    affine[:3, 3] += plan.center_mm
    grid = Geometry(grid.shape, affine)
    hu = 110 + np.random.default_rng(plan.seed % 2**32).normal(0, 12, grid.shape)
    ct = Volume(np.asfortranarray(hu.astype(np.int16)), grid)
    organ = Volume(np.ones(grid.shape, bool, order="F"), grid)
    label = Growth().render(ct, organ, dataclasses.replace(plan, base_hu=110.0)).mask
    around = Box.around(label)
    assert around is not None
    return np.pad(label[around.slices], 3)


def lesions() -> None:
    """Ten lesions in a liver of 220 mm at 1 x 1 x 2 mm, with a vessel."""
    grid = centered((240, 240, 240), 1.0).resampled((1.0, 1.0, 2.0))
    points = grid.points_mm()
    liver = np.linalg.norm(points, axis=-1) < 110
    lesion, rng = np.zeros(grid.shape, bool), np.random.default_rng(0)
    for n in range(10):
        angle = 2 * np.pi * n / 10
        center = 70 * np.array([np.cos(angle), np.sin(angle), 0.3 * rng.uniform(-1, 1)])
        lesion |= np.linalg.norm(points - center, axis=-1) < rng.uniform(5, 15)
    vessel = np.linalg.norm(points[..., :2], axis=-1) < 5
    hu = np.where(lesion, 70, np.where(liver, 110, -100)).astype(np.int16)
    masks = {"liver": liver, "liver_lesion": lesion, "hepatic_vessel": vessel}
    case = Case("bench", Volume(np.asfortranarray(hu), grid),
                {name: Volume(np.asfortranarray(mask), grid) for name, mask in masks.items()})  # fmt: skip
    cost = seconds(lambda: measure_case(case))
    found = len(measure_case(case)[0].lesions)
    print(f"measure {found} lesions of a scan in memory, {grid}: {cost:.2f} s (goal 0.5)")


def series() -> None:
    """Largest difference between written and planned volumes over four dates."""
    ct, masks = ellipsoid("liver", (60, 60, 60), 1.0)
    hu = ct.data + np.random.default_rng(0).normal(0, 12, ct.data.shape)
    case = Case("bench", Volume(np.asfortranarray(hu.astype(np.int16)), ct.geometry), masks)
    for generator in ("rules", "growth"):
        tumors = SynthesisRecipe(generator=generator, lesions=(3, 3), diameter_mm=(12, 24), phase="portal")
        recipe = FollowRecipe(synthesis=tumors, course={"growth": 1.0})
        errors = []
        for seed in range(2):
            drawn = draw_series(case, recipe, seed)
            for date in range(len(recipe.days)):
                rows = make_date(case, drawn, date).rows
                errors += [abs(row["volume_ml"] / row["planned_ml"] - 1) for row in rows if row["planned_ml"] > 0.5]
        print(f"series, {generator}: volumes within {100 * max(errors):.1f} % of the plan (goal 3; n = {len(errors)})")


if __name__ == "__main__":
    main()
