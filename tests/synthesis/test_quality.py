"""Verdicts: what is accepted, what is rejected, and the reason with its figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantoms import GRIDS, LIVER, fine, noise, plan_of

from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.insertion import blending
from synthoma.synthesis.kernels import compiled, reference
from synthoma.synthesis.quality import judge
from synthoma.synthesis.recipe import JudgeRecipe
from synthoma.synthesis.scan import HU_RANGE
from synthoma.synthesis.tumor import Measure, Tumor, TumorPlan, Verdict
from synthoma.volume import Geometry, Volume


def judged(
    plan: TumorPlan, recipe: JudgeRecipe | None = None, geometry: Geometry | None = None, cut: float = 0
) -> Verdict:
    """The verdict on a tumor in an even organ; cut: the share of its box that is taken away."""
    geometry = geometry or fine(44)
    ct = Volume(np.rint(LIVER + noise(geometry, 10.0)).astype(np.int16), geometry)
    organ = Volume(np.ones(geometry.shape, bool), geometry)
    tumor = Rules().render(ct, organ, plan)
    if cut:
        alpha = tumor.alpha.copy()
        alpha[: int(cut * len(alpha))] = 0
        tumor = replace(tumor, alpha=alpha)
    return judge(blending.blend(ct, tumor), tumor, ct, recipe or JudgeRecipe())


@pytest.mark.parametrize("grid", GRIDS)
def test_scores_are_those_of_the_tumor(grid: str) -> None:
    verdict = judged(plan_of(24.0, contrast_hu=-45.0, noise_hu=10.0), geometry=GRIDS[grid](44))
    assert verdict.accepted
    assert verdict.reason == ""
    assert verdict.scores["volume_ml"] == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=0.03)
    assert verdict.scores["equivalent_diameter_mm"] == pytest.approx(24, rel=0.01)
    assert verdict.scores["volume_ratio"] == pytest.approx(1, abs=0.03)
    assert verdict.scores["contrast_hu"] == pytest.approx(-45, abs=2)
    assert verdict.scores["contrast_to_noise"] == pytest.approx(4.5, rel=0.15)
    assert verdict.scores["saturated"] == 0
    assert 1 <= verdict.scores["edge_ratio"] < 1.5
    # 10-90 % of a border is 2.56 SD wide; the voxel adds to the scanner's blur and the tumor's own border
    assert verdict.scores["edge_mm"] > 2.5 * np.hypot(0.7, 0.5)


@pytest.mark.parametrize(
    ("change", "recipe", "cut", "reason"),
    [
        ({}, {}, 0.6, "volume is 0."),
        ({"contrast_hu": -3.0}, {"contrast_to_noise": 1.0}, 0, "contrast-to-noise is 0."),
        ({"edge_mm": 6.0}, {}, 0, "x as wide as the scanner's"),
        ({"contrast_hu": -4000.0}, {}, 0, "100 % of the voxels leave the HU range"),
    ],
)
def test_a_rejection_names_the_rule_and_the_figure(change: dict, recipe: dict, cut: float, reason: str) -> None:
    verdict = judged(plan_of(24.0, **change), JudgeRecipe(**recipe), cut=cut)
    assert not verdict.accepted
    assert reason in verdict.reason


def test_an_isodense_tumor_is_accepted_unless_the_recipe_says_otherwise() -> None:
    assert judged(plan_of(24.0, contrast_hu=0.0)).accepted


def test_a_tumor_of_no_voxel_is_rejected() -> None:
    verdict = judged(plan_of(24.0), cut=1.0)
    assert verdict.reason == "no voxel is half filled"
    assert np.isnan(verdict.scores["contrast_hu"])


def test_tiny_tumors_are_accepted_whatever_a_voxel_more_or_less() -> None:
    accepted = {}
    for name in ("1 mm", "0.7x0.7x5 mm"):
        places = [tuple(np.random.default_rng(seed).uniform(-2.5, 2.5, 3)) for seed in range(20)]
        verdicts = [judged(plan_of(4.5, center_mm=place), geometry=GRIDS[name](24)) for place in places]
        accepted[name] = sum(verdict.accepted for verdict in verdicts)
    assert accepted["1 mm"] == 20
    # between two slices of 5 mm it fills neither to the half, and is drawn again elsewhere
    assert 8 <= accepted["0.7x0.7x5 mm"] < 20


def test_tumors_that_follow_the_organ_have_a_tolerance_of_their_own_and_must_hang_on_the_wall() -> None:
    geometry, alpha = fine(20), np.zeros((10, 10, 10), np.float32)
    ct = Volume(np.zeros(geometry.shape, np.int16), geometry)
    plan = plan_of(8.0, form="wall", axes_mm=(6.0, 6.0, 6.0))
    alpha[:6, :6, :6] = 1

    def scores(on_wall: float) -> Measure:
        return lambda box, label: {"lumen_left": 0.3, "on_wall": on_wall}

    tumor = Tumor(plan, geometry.box_around((0, 0, 0), 4.5), alpha, alpha, True, scores(1.0))
    assert plan.volume_mm3 / 216 == pytest.approx(2.09, abs=0.01)
    after = np.full((10, 10, 10), 50, np.int16)
    verdict = judge(after, tumor, ct, JudgeRecipe())
    assert verdict.accepted
    assert verdict.scores["lumen_left"] == 0.3
    assert not judge(after, tumor, ct, JudgeRecipe(wall_volume_error=0.4)).accepted
    assert not judge(after, replace(tumor, follows_organ=False), ct, JudgeRecipe()).accepted
    assert "50 % hang on the wall" in judge(after, replace(tumor, measure=scores(0.5)), ct, JudgeRecipe()).reason


def test_mean_and_sd_of_whole_hu_are_those_of_numpy_to_a_trillionth() -> None:
    for count, middle in ((2, 60), (4001, -1024), (30000, 3000)):
        hu = np.random.default_rng(count).normal(middle, 12, count).astype(np.int16)
        for inside in (compiled.inside, reference.inside):
            *_, mean, deviation = inside(hu.reshape(-1, 1, 1), np.ones((count, 1, 1), np.float32), HU_RANGE)
            assert mean == float(hu.mean(dtype=np.float64))
            assert deviation == pytest.approx(float(hu.std(dtype=np.float64)), rel=1e-12)
