"""Recipes and plans: refused nonsense, independent draws, plain data, the distributions of real tumors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from phantoms import ellipsoid_case, fine, plan_of

import bench_priors
from synthoma import anatomy
from synthoma.errors import CaseError, RecipeError
from synthoma.recipe import read_recipe
from synthoma.synthesis.bodies.mass import _distance_for
from synthoma.synthesis.location import OrganModel, measure_organ
from synthoma.synthesis.plan import draw_diameters, draw_plan, draw_plans
from synthoma.synthesis.recipe import SIZES, Mix, SynthesisRecipe
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Floats


@pytest.fixture(scope="module")
def liver() -> OrganModel:
    return bench_priors.plain_organ("liver")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("diameter=3", "unknown key diameter, perhaps diameter_mm; known here: organs, probability"),
        (
            "judge.volume=1",
            "unknown key judge.volume, perhaps volume_error; known here: volume_error",
        ),
        ("probability=1.5", "probability = 1.5"),
        ("retries=-1", "retries = -1"),
        ("lesions=[0,3]", "lesions.0 = 0"),
        ("diameter_mm=[1,9]", "diameter_mm.0 = 1"),
        ("contrast_hu=[-5000,0]", "contrast_hu.0 = -5000"),
        ("phase=venous", "'unenhanced', 'arterial' or 'portal'"),
        ('organs=["lung"]', "organs.0 = 'lung'"),
        ("organs=[]", "organs needs at least one organ, and each once"),
        ('organs=["liver","liver"]', "organs needs at least one organ, and each once"),
        ("sizes.huge=1", "'tiny', 'small', 'medium' or 'large'"),
        ("sizes.small=0", "sizes needs at least one class with a weight above 0"),
    ],
)
def test_a_wrong_recipe_is_a_sentence(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        read_recipe(SynthesisRecipe, None, [override])
    assert message in str(refusal.value)


def test_sizes_and_diameters_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="not both"):
        read_recipe(SynthesisRecipe, None, ["sizes.small=1", "diameter_mm=[5,9]"])


def test_draws_are_the_same_again_and_independent_of_other_organs_and_cases(liver: OrganModel) -> None:
    one = SynthesisRecipe(lesions=(3, 6))
    plans = draw_plans(liver, one, 5)
    assert plans == draw_plans(liver, one, 5)
    assert plans == draw_plans(liver, SynthesisRecipe(lesions=(3, 6), organs=("kidney", "liver")), 5)
    assert plans != draw_plans(liver, one, 6)
    assert plans != draw_plans(replace(liver, case="other"), one, 5)
    assert len({plan.seed for plan in plans}) == len(plans)


def test_another_attempt_is_another_tumor_of_the_same_size(liver: OrganModel) -> None:
    first, again, second = (draw_plan(liver, SynthesisRecipe(), 1, 0, attempt, 20.0) for attempt in (0, 0, 1))
    assert first == again
    assert first.center_mm != second.center_mm
    assert first.seed != second.seed
    assert first.equivalent_diameter_mm == pytest.approx(second.equivalent_diameter_mm, rel=1e-3)


def test_each_case_and_organ_has_one_of_its_mixes(liver: OrganModel) -> None:
    many = Mix(organs=("liver",), weight=3, lesions=(8, 12), diameter_mm=(6, 9), contrast_hu=(-90, -80))
    one = Mix(organs=("liver",), lesions=(1, 1), sizes={"large": 1})
    other = Mix(organs=("kidney",), lesions=(30, 30))
    recipe = SynthesisRecipe(lesions=(3, 3), contrast_hu=(-40, -20), diameter_mm=(10, 11), mixes=(many, one, other))
    found = [draw_diameters(replace(liver, case=str(n)), recipe, 5) for n in range(200)]
    singles = [sizes for sizes in found if len(sizes) == 1]
    assert len(singles) / 200 == pytest.approx(0.25, abs=0.08)
    assert all(48 <= sizes[0] <= 80 for sizes in singles)
    assert all(8 <= len(sizes) <= 12 and max(sizes) <= 9 for sizes in found if len(sizes) != 1)
    case = replace(liver, case=str(next(n for n, sizes in enumerate(found) if len(sizes) > 1)))
    plans = draw_plans(case, recipe, 5)
    assert all(-90 <= plan.contrast_hu <= -80 for plan in plans)
    assert -90 <= draw_plan(case, recipe, 5, 0, 1, 8.0).contrast_hu <= -80
    assert len(draw_diameters(replace(liver, organ="pancreas"), recipe, 5)) == 3


def test_a_recipe_without_mixes_is_what_it_was() -> None:
    assert not {"mixes", "surface_share"} & set(SynthesisRecipe().as_dict())


def test_tumors_reach_the_surface_as_often_as_they_are_to(liver: OrganModel) -> None:
    def depths(share: float | None) -> Floats:
        recipe = SynthesisRecipe(surface_share=share, lesions=(1, 1), diameter_mm=(20, 20))
        plans = [draw_plan(replace(liver, case=str(n)), recipe, 5, 0, 0, 20.0) for n in range(60)]
        cells = np.array([liver.grid.to_ijk(plan.center_mm) for plan in plans])
        nearest = np.abs(liver.cells[None] - cells[:, None]).max(axis=2).argmin(axis=1)
        return np.asarray(liver.depths_mm[nearest])

    assert (depths(None) < 7.0).mean() < 0.1
    assert (depths(0.5) < 7.0).mean() == pytest.approx(0.5, abs=0.2)
    assert (depths(1.0) < 9.5).all()


def test_the_order_of_size_weights_changes_nothing(liver: OrganModel) -> None:
    one = SynthesisRecipe(sizes={"tiny": 1, "large": 2}, lesions=(5, 5))
    other = SynthesisRecipe(sizes={"large": 2, "tiny": 1}, lesions=(5, 5))
    assert one.digest() == other.digest()
    assert draw_diameters(liver, one, 3) == draw_diameters(liver, other, 3)


def test_plans_survive_json(liver: OrganModel) -> None:
    plans = draw_plans(liver, SynthesisRecipe(lesions=(8, 8)), 2)
    plans.append(
        plan_of(
            rim_hu=20.0,
            rim_mm=3.0,
            calcifications=[[[0.1, 0.2, 0.3], 1.5, 300.0], [[0.0, 0.0, 0.0], 1.0, 200.0]],
        )
    )
    for plan in plans:
        assert TumorPlan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_tumors_keep_their_gap_and_lie_as_deep_as_the_liver_asks(liver: OrganModel) -> None:
    plans = draw_plans(liver, SynthesisRecipe(lesions=(12, 12), gap_mm=5.0, diameter_mm=(8, 30)), 0)
    assert [plan.equivalent_diameter_mm for plan in plans] == sorted(
        (plan.equivalent_diameter_mm for plan in plans), reverse=True
    )
    for index, plan in enumerate(plans):
        assert 110 - np.linalg.norm(plan.center_mm) > 0.8 * plan.equivalent_diameter_mm / 2 - 5
        for other in plans[:index]:
            apart = np.linalg.norm(np.subtract(plan.center_mm, other.center_mm))
            assert apart >= plan.radius_mm + other.radius_mm + 5 - 0.01


def test_recipes_rule_over_priors(liver: OrganModel) -> None:
    recipe = SynthesisRecipe(
        lesions=(2, 4), sizes={"small": 1, "medium": 1}, contrast_hu=(-20, -10), mass_effect_share=0.0
    )
    counts, seen = [], []
    for seed in range(25):
        plans = draw_plans(liver, recipe, seed)
        counts.append(len(plans))
        for plan in plans:
            assert -20 <= plan.contrast_hu <= -10
            assert plan.displacement_mm == 0
            seen.append(
                next(
                    name
                    for name, (low, high) in SIZES.items()
                    if low - 0.01 <= plan.equivalent_diameter_mm <= high + 0.01
                )
            )
    assert set(counts) == {2, 3, 4}
    assert set(seen) == {"small", "medium"}
    assert draw_plans(liver, SynthesisRecipe(probability=0.0), 1) == []
    some = [bool(draw_diameters(liver, SynthesisRecipe(probability=0.3), seed)) for seed in range(300)]
    assert np.mean(some) == pytest.approx(0.3, abs=0.09)


def test_hu_of_masses_drift_as_in_real_ones_unless_told_and_nothing_else_depends_on_it(liver: OrganModel) -> None:
    low, high = anatomy.TISSUES["liver"].drift_hu
    for index in range(20):
        plan = draw_plan(liver, SynthesisRecipe(), 0, index, 0, 24.0)
        assert low <= plan.details["drift_hu"] <= high < 0
        assert 0.5 * 12 <= plan.details["drift_mm"] <= 12
        even = draw_plan(liver, SynthesisRecipe(drift_hu=(0, 0)), 0, index, 0, 24.0)
        plain = {name: value for name, value in plan.details.items() if not name.startswith("drift")}
        assert even == replace(plan, details=plain)
    assert 30 <= draw_plan(liver, SynthesisRecipe(drift_hu=(40, 30)), 0, 0, 0, 24.0).details["drift_hu"] <= 40
    unenhanced = replace(liver, phase="unenhanced")
    assert "drift_hu" not in draw_plan(unenhanced, SynthesisRecipe(phase="unenhanced"), 0, 0, 0, 24.0).details


def test_mass_effect_reaches_no_other_tumor_and_stays_fold_free(liver: OrganModel) -> None:
    displaced = 0
    for seed in range(12):
        plans = draw_plans(liver, SynthesisRecipe(lesions=(4, 4), diameter_mm=(6, 25), mass_effect_share=1.0), seed)
        for index, plan in enumerate(plans):
            displaced += plan.displacement_mm > 0
            assert plan.displacement_mm <= 0.4 * min(plan.axes_mm) + 0.01
            for other in plans[:index]:
                if plan.displacement_mm:
                    apart = np.linalg.norm(np.subtract(plan.center_mm, other.center_mm))
                    assert apart > plan.displacement_reach * max(plan.axes_mm) + other.radius_mm - 0.01
    assert displaced > 12


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas", "uterus"])
def test_axis_ratios_have_their_means_and_deviations(organ: str) -> None:
    organ_model, prior = bench_priors.plain_organ(organ), anatomy.SHAPES[organ]
    axes = np.array([draw_plan(organ_model, SynthesisRecipe(), seed, 0, 0, 12.0).axes_mm for seed in range(250)])
    for ratio, (mean, deviation) in (
        (axes[:, 1] / axes[:, 0], prior.b_over_a),
        (axes[:, 2] / axes[:, 1], prior.c_over_b),
    ):
        assert ratio.mean() == pytest.approx(mean, abs=0.025)
        assert ratio.std() == pytest.approx(deviation, abs=0.02)
    assert np.allclose((8 * axes.prod(axis=1)) ** (1 / 3), 12, atol=0.01)


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas"])
def test_diameters_have_the_percentiles_of_real_tumors(organ: str) -> None:
    diameters = np.concatenate([bench_priors.sizes(organ, case) for case in range(250)])
    assert bench_priors.distance(diameters, bench_priors.REAL[organ]["diameter mm"]) < 0.15
    assert np.median(diameters) == pytest.approx(bench_priors.REAL[organ]["diameter mm"][1], rel=0.2)


def test_lesions_of_one_case_are_alike_as_in_real_ones(liver: OrganModel) -> None:
    cases = [np.log(found) for found in (bench_priors.sizes("liver", case) for case in range(300)) if len(found) > 1]
    within = np.sqrt(np.mean([found.var(ddof=1) for found in cases]))
    assert within == pytest.approx(anatomy.SHAPES["liver"].within_case, abs=0.06)
    assert np.concatenate(cases).std() == pytest.approx(anatomy.SHAPES["liver"].log_diameter[1], abs=0.08)


def test_livers_have_as_many_lesions_as_real_ones_and_the_others_one(liver: OrganModel) -> None:
    counts = np.array([len(bench_priors.sizes("liver", case)) for case in range(400)])
    assert np.median(counts) == pytest.approx(4, abs=1)
    assert np.quantile(counts, 0.95) == pytest.approx(23, abs=6)
    assert {
        len(bench_priors.sizes(organ, case)) for organ in ("kidney", "pancreas", "uterus") for case in range(50)
    } == {1}


def test_orientations_are_uniform(liver: OrganModel) -> None:
    axes = np.array([draw_plan(liver, SynthesisRecipe(), seed, 0, 0, 10.0).rotation for seed in range(250)])
    assert np.allclose(axes @ axes.transpose(0, 2, 1), np.eye(3), atol=1e-5)
    assert np.abs(axes.mean(axis=0)).max() < 0.15
    assert np.abs((axes**2).mean(axis=0) - 1 / 3).max() < 0.08


@pytest.mark.parametrize(("radius", "organ_radius"), [(8.0, 30.0), (20.0, 30.0), (27.0, 30.0), (45.0, 34.0)])
def test_the_free_surface_of_two_balls_is_the_wanted_one_or_the_least_possible(
    radius: float, organ_radius: float
) -> None:
    directions = np.random.default_rng(0).standard_normal((20000, 3))
    points = radius * directions / np.linalg.norm(directions, axis=1)[:, None]

    def free(distance: float) -> float:
        return float((np.linalg.norm(points + [distance, 0, 0], axis=1) > organ_radius).mean())

    least = min(free(distance) for distance in np.linspace(0, radius + organ_radius, 200))
    for wanted in (0.2, 0.45, 0.7, 0.9):
        assert free(_distance_for(wanted, radius, organ_radius)) == pytest.approx(max(wanted, least), abs=0.02)


def test_kidney_tumors_have_the_free_surface_and_depth_of_real_ones() -> None:
    # 200 are in benchmarks/bench_priors.py
    found = bench_priors.kidney_sites(50, spacing_mm=2.5)
    means = bench_priors.by_size(found)
    assert means["20-40 mm"] == pytest.approx(0.45, abs=0.12)
    assert means["> 40 mm"] == pytest.approx(0.69, abs=0.15)
    for measure, limit in (("free surface", 0.3), ("depth / radius", 0.45)):
        assert bench_priors.distance(found[measure], bench_priors.REAL["kidney"][measure]) < limit


def test_contrasts_follow_organ_and_phase(liver: OrganModel) -> None:
    for phase in anatomy.PHASES:
        organ_model = replace(liver, phase=phase)
        mean, deviation, low, high = anatomy.CONTRASTS["liver", phase]
        drawn = np.array(
            [draw_plan(organ_model, SynthesisRecipe(), seed, 0, 0, 8.0).contrast_hu for seed in range(150)]
        )
        assert low <= drawn.min()
        assert drawn.max() <= high
        assert drawn.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(150) + 2)


def test_a_full_organ_gets_fewer_tumors_and_one_without_room_is_an_error() -> None:
    case = ellipsoid_case(fine(44), (14, 14, 14))
    organ_model = measure_organ(case.read_image(), case.read_masks(), "liver", "portal", 0.7, "small")
    plans = draw_plans(organ_model, SynthesisRecipe(lesions=(9, 9), diameter_mm=(8, 9)), 0)
    assert 1 <= len(plans) < 9
    lesion = ((0.0, 0.0, 0.0), 20.0)
    with pytest.raises(CaseError, match="no room in the liver"):
        draw_plans(replace(organ_model, lesions=(lesion,)), SynthesisRecipe(lesions=(2, 2), diameter_mm=(8, 9)), 0)
