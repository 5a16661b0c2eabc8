"""The generators in the box: small files with their records, which make tumors in every organ."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from phantoms import ellipsoid_case, grid

from synthoma.learning.looks import trend_of
from synthoma.synthesis.generators.learned import LearnedGenerator
from synthoma.synthesis.generators.loading import BOX, generator_file, generators_in_the_box, open_generator
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe

NAMES = ("adversarial-small", "diffusion-small")
ORGANS = ("liver", "pancreas", "kidney", "uterus")


def test_the_box_holds_both_kinds_in_small_files() -> None:
    assert generators_in_the_box() == NAMES
    assert all((BOX / f"{name}.safetensors").stat().st_size < 8_000_000 for name in NAMES)
    assert all(generator_file(name) == BOX / f"{name}.safetensors" for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_in_the_box_says_what_it_learned_from(name: str) -> None:
    generator = open_generator(name)
    assert isinstance(generator, LearnedGenerator)
    record = generator.model.record
    assert record["recipe"]["kind"] == name.removesuffix("-small") == generator.model.spec.kind
    assert set(ORGANS) <= set(record["data"]["lesions"])
    assert record["steps"] > 100
    assert len(generator.looks) == sum(record["data"]["lesions"].values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("organ", ORGANS)
def test_a_model_in_the_box_makes_tumors_of_the_wanted_contrast(name: str, organ: str) -> None:
    case = ellipsoid_case(grid((2.0, 2.0, 3.0), 84), (38, 38, 38), organ="kidney_left" if organ == "kidney" else organ)
    recipe = SynthesisRecipe(
        organs=(organ,),
        lesions=(1, 1),
        diameter_mm=(20, 24),
        contrast_hu=(-50, -50),
        mass_effect_share=0,
        generator=name,
    )
    made = insert_tumors(case, recipe, 2)
    assert len(made.inserted) == 1
    tumor = made.inserted[0]
    assert tumor.verdict.scores["contrast_hu"] == pytest.approx(-50, abs=6)
    inside = tumor.after[tumor.mask].astype(float)
    assert 8 < inside.std() < 45  # the scan's noise, and some tissue
    assert np.isfinite(inside).all()


def test_looks_of_adversarial_small_have_a_trend_and_a_file_of_before_allows_any() -> None:
    trends = {name: [look.trend for look in open_generator(name).looks] for name in NAMES}  # type: ignore[attr-defined]
    assert all(0 <= trend < 1 for trend in trends["adversarial-small"])
    assert 0.2 < float(np.median(trends["adversarial-small"])) < 0.5
    assert set(trends["diffusion-small"]) == {1.0}


def test_a_tumor_of_adversarial_small_has_no_dark_half() -> None:
    case = ellipsoid_case(grid((2.0, 2.0, 3.0), 84), (38, 38, 38))
    recipe = SynthesisRecipe(
        organs=("liver",), lesions=(1, 1), diameter_mm=(30, 30), mass_effect_share=0, generator="adversarial-small"
    )
    plan = insert_tumors(case, recipe, 2).inserted[0].plan
    ct, organ, generator = case.read_image(), case.read_mask("liver"), open_generator("adversarial-small")
    shares = {}
    for trend in (0.3, 1.0):
        made = generator.render(ct, organ, dataclasses.replace(plan, details={**plan.details, "trend": trend}))
        shares[trend] = trend_of(made.hu, made.alpha >= 0.5)
    assert shares[1.0] > 0.6  # the network makes one, with or without its looks
    assert shares[0.3] < 0.35
