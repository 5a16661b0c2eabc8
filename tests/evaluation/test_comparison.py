"""Two models: who is better is said only where it is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synthoma.errors import CaseError, RecipeError
from synthoma.evaluation.comparison import NOTHING, Comparison, Difference, compare
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe
from synthoma.evaluation.verdicts import comparison_sentences

RECIPE = EvaluateRecipe(resamples=400, distances=False, tolerances_mm=(2.0,), primary=("dsc", "nsd_2mm"))


def model(shift: float, patients: int = 20, seed: int = 0) -> list[CaseScores]:
    """Scores of an organ, DSC 0.7 + shift with a spread of 0.1 between patients and 0.02 within."""
    skill = np.random.default_rng(1).normal(0.7, 0.1, patients)
    noise = np.random.default_rng([seed, round(1000 * (1 + shift))]).normal(shift, 0.02, patients)
    fixed = {"structure": "liver", "outcome": "true positive", "predicted_ml": 1000.0, "hd95_mm": None, "assd_mm": None}
    return [
        CaseScores(f"c{n}", f"p{n}", (fixed | {
            "case": f"c{n}", "patient": f"p{n}", "truth_ml": 1000.0 + n, "error_ml": -float(n),
            "dsc": float(value), "iou": float(value) - 0.1, "nsd_2mm": 0.5,
        },))
        for n, value in enumerate(skill + noise)
    ]  # fmt: skip


def of(comparison: Comparison, metric: str) -> Difference:
    (found,) = (one for one in comparison.differences if one.metric == metric and one.whole)
    return found


def test_a_difference_is_paired_and_named() -> None:
    found = of(compare([model(0.0)], [model(0.05)], ("old", "new"), RECIPE), "dsc")
    assert found.verdict == "new better"
    assert 0.03 < found.gap.low < found.gap.value < found.gap.high < 0.07
    assert max(found.permutation_p, found.wilcoxon_p, found.holm_p) < 0.01
    back = of(compare([model(0.05)], [model(0.0)], ("new", "old"), RECIPE), "dsc")
    assert back.verdict == "new better"
    assert back.gap.value == pytest.approx(-found.gap.value)
    assert back.permutation_p == pytest.approx(found.permutation_p, abs=0.002)


def test_lower_is_better_for_errors() -> None:
    near = [replace(each, rows=(each.rows[0] | {"error_ml": each.rows[0]["error_ml"] / 2 - 1},)) for each in model(0.0)]
    found = of(compare([model(0.0)], [near], ("old", "new"), RECIPE), "absolute_error_ml")
    assert found.gap.value < 0
    assert "old" not in found.verdict


def test_no_difference_is_shown_between_equals() -> None:
    comparison = compare([model(0.0, seed=1)], [model(0.0, seed=2)], ("a", "b"), RECIPE)
    assert of(comparison, "dsc").verdict == NOTHING
    assert of(comparison, "nsd_2mm").verdict == NOTHING
    assert of(comparison, "nsd_2mm").permutation_p == 1.0


def test_an_interval_without_zero_is_not_enough_after_correction() -> None:
    many = RECIPE.with_changes(primary=())
    few = of(compare([model(0.0, 5)], [model(0.05, 5)], ("a", "b"), many), "dsc")
    assert not few.gap.spans_zero
    assert few.verdict == f"{NOTHING} after correction"


def test_training_seeds_widen_the_interval_and_their_spread_is_told() -> None:
    first, second = [model(0.0, seed=n) for n in range(3)], [model(shift, seed=9) for shift in (-0.1, 0.05, 0.2)]
    seeds = compare(first, second, ("a", "b"), RECIPE)
    single = compare(first[:1], second[1:2], ("a", "b"), RECIPE)
    assert seeds.seeds == (3, 3)
    wide, narrow = of(seeds, "dsc"), of(single, "dsc")
    assert wide.gap.high - wide.gap.low > 3 * (narrow.gap.high - narrow.gap.low)
    assert wide.spread[1] == pytest.approx(0.15, abs=0.02)
    assert np.isnan(narrow.spread[0])


def test_cases_that_only_one_run_has_are_left_out_and_named() -> None:
    comparison = compare([model(0.0)], [model(0.05)[3:]], ("a", "b"), RECIPE)
    assert comparison.left_out == ("c0", "c1", "c2")
    assert (comparison.cases, of(comparison, "dsc").gap.n) == (17, 17)


def test_a_scan_undefined_in_one_run_counts_in_none() -> None:
    # without its two worst scans a model would look better than itself
    worst = sorted(model(0.0), key=lambda each: each.rows[0]["dsc"])[:2]
    missed = {each.case for each in worst}
    holes = [
        replace(each, rows=(each.rows[0] | {"dsc": None},)) if each.case in missed else each for each in model(0.0)
    ]
    found = of(compare([model(0.0)], [holes], ("a", "b"), RECIPE), "dsc")
    assert (found.gap.value, found.gap.n, found.first) == (0.0, 18, found.second)


def test_runs_over_different_truths_are_refused() -> None:
    other = [replace(each, rows=(each.rows[0] | {"truth_ml": 5.0},)) for each in model(0.0)]
    with pytest.raises(CaseError, match="another truth"):
        compare([model(0.0)], [other], ("a", "b"), RECIPE)
    with pytest.raises(CaseError, match="no case in common"):
        compare([model(0.0)[:3]], [model(0.0)[5:]], ("a", "b"), RECIPE)


def test_a_primary_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no metric 'dice'.*dsc"):
        compare([model(0.0)], [model(0.0)], ("a", "b"), RECIPE.with_changes(primary=("dice",)))


def test_a_primary_metric_that_was_not_computed_is_told() -> None:
    asked = RECIPE.with_changes(primary=("dsc", "nsd_4mm", "hd95_mm"))
    found = compare([model(0.0)], [model(0.05)], ("old", "new"), asked)
    assert found.absent == ("nsd_4mm", "hd95_mm")
    assert found.as_dict()["absent"] == ("nsd_4mm", "hd95_mm")
    assert "Primary metrics that were not computed: nsd_4mm, hd95_mm." in comparison_sentences(found, asked.primary)


def test_a_gap_that_is_the_same_in_all_patients_is_shown_by_its_test() -> None:
    first = [replace(each, rows=(each.rows[0] | {"dsc": 0.5},)) for each in model(0.0)]
    second = [replace(each, rows=(each.rows[0] | {"dsc": 0.75},)) for each in model(0.0)]
    found = of(compare([first], [second], ("old", "new"), RECIPE), "dsc")
    assert (found.verdict, found.gap.value) == ("new better", 0.25)
    assert np.isnan(found.gap.low)


def test_the_verdict_of_a_comparison_is_one_sentence_a_structure() -> None:
    found = compare([model(0.0)], [model(0.05)], ("old", "new"), RECIPE)
    (told,) = comparison_sentences(found, RECIPE.primary)
    assert told.startswith("liver: new is better in DSC (+0.0")
    assert told.endswith("; no difference is shown in NSD 2 mm.")
    assert comparison_sentences(found, RECIPE.primary, in_silico=True)[0].startswith("All patients are in silico")
