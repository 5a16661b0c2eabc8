"""The audit of a critic: a planted one that sees only large tumors shows up; verdicts do not depend on neighbors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from patients import RECIPE, write_patients
from phantoms import ellipsoid_case, fine

from synthoma.cases import Case, find_lesions
from synthoma.errors import RecipeError
from synthoma.reading import open_dataset
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import CriticRecipe, SynthesisRecipe
from synthoma.synthesis.store.audit import easy_ones, pass_rates
from synthoma.synthesis.store.outputs import synthesize_case
from synthoma.synthesis.tumor import Critic
from synthoma.volume import Volume

CRITIC = CriticRecipe(model="planted", keep=0.6)


def sees_large(case: Case) -> Critic:
    """A critic that calls tumors under 10 mm healthy."""
    del case
    return lambda ct, lesion: float(lesion.data.sum() * lesion.geometry.voxel_mm3 >= 523.5)


def test_a_critic_that_sees_only_large_tumors_shows_up_in_the_audit(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain", "oblique")
    recipe = RECIPE.with_changes(organs=("liver",), lesions=(4, 6), retries=2, critic=CRITIC)
    rows: list[dict[str, Any]] = []
    for seed in range(2):
        for case in open_dataset(data).cases:
            rows += synthesize_case(case, recipe, seed, tmp_path / "out", "plans", critics=sees_large)["rows"]
    rates = pass_rates(rows)
    small = [row for row in rates if row["size"] == "under 10 mm"]
    large = [row for row in rates if row["size"] == "10-20 mm"]
    assert sum(row["kept"] for row in small) < 0.3 * sum(row["judged"] for row in small)
    assert all(row["share"] > 0.9 for row in large)
    assert "it sorts by size" in easy_ones(rates)
    judged = [row for row in rows if "critic" in row["scores"]]
    assert sum(row["judged"] for row in rates) == len(judged)
    assert {row["reason"] for row in judged if not row["accepted"]} == {"the critic's score is 0.00"}


def test_an_even_critic_is_not_accused() -> None:
    rates = [
        {"organ": "liver", "size": size, "contrast": "under 15 HU", "judged": 20, "kept": kept, "share": kept / 20}
        for size, kept in (("under 10 mm", 11), ("10-20 mm", 14))
    ]
    assert easy_ones(rates) == ""
    assert pass_rates([]) == []


def test_the_verdict_on_a_tumor_does_not_depend_on_its_neighbors() -> None:
    """The critic sees one lesion's mask at a time, alone or among others."""
    case = ellipsoid_case(fine(110), (50, 50, 50))
    recipe = SynthesisRecipe(lesions=(3, 3), diameter_mm=(12, 20), retries=0, mass_effect_share=0.0, critic=CRITIC)
    seen: dict[int, list[int]] = {}

    def counting(ct: Volume, lesion: Volume) -> float:
        assert len(find_lesions(lesion, "liver")) == 1
        seen.setdefault(int(lesion.data.sum()), []).append(1)
        return 0.8

    together = insert_tumors(case, recipe, 1, critic=counting)
    assert len(together.inserted) == 3
    assert len(seen) == 3
    assert [tumor.verdict.scores["critic"] for tumor in together.inserted] == [0.8] * 3


def test_a_difficulty_band_leaves_out_the_trivial_and_rejected_plans_are_told() -> None:
    case = ellipsoid_case(fine(110), (50, 50, 50))
    band = CriticRecipe(model="planted", keep=0.3, at_most=0.9)
    recipe = SynthesisRecipe(lesions=(2, 2), diameter_mm=(12, 20), retries=1, critic=band)
    found = insert_tumors(case, recipe, 1, critic=lambda ct, lesion: 1.0)
    assert not found.inserted
    assert any("no tumor in the liver" in note and "lower critic.keep" in note for note in found.notes)


def test_a_recipe_with_a_critic_that_nobody_opened_is_refused() -> None:
    case = ellipsoid_case(fine(60), (28, 28, 28))
    with pytest.raises(RecipeError, match="names a critic, which is not here to judge"):
        insert_tumors(case, SynthesisRecipe(critic=CRITIC))
