"""The generators in the box: small files with their records, which make tumors in every organ."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import ellipsoid_case, grid

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
