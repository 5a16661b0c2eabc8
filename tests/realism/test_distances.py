"""Distances and the classifier on lesions whose difference is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from browsing import look
from synthoma.errors import CaseError
from synthoma.realism.distances import compare_features, ks_distance, ks_interval, match_sizes
from synthoma.realism.features import FEATURES
from synthoma.realism.outputs import finish_realism
from synthoma.realism.recipe import RealismRecipe
from synthoma.realism.telling import auc, classify, find_copies

Rows = list[dict[str, Any]]


def lesions(patients: int, each: int = 2, seed: int = 0, **shift: float) -> Rows:
    """Rows of standard normal figures, alike within a patient; features may be shifted."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        own = {feature.name: rng.normal(0, 0.5) for feature in FEATURES}
        for index in range(each):
            row = {name: own[name] + rng.normal() + shift.get(name, 0.0) for name in own}
            diameter = float(np.exp(rng.normal(3, 0.4)))
            row |= {"equivalent_diameter_mm": diameter, "longest_axial_mm": diameter * 1.2}
            rows.append(
                {"case": f"c{patient}", "patient": f"p{seed}-{patient}", "organ": "liver", "index": index, **row}
            )
    return rows


def test_the_weighted_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=30).round(1), rng.normal(0.5, 1, 40).round(1)
    ones = np.ones((1, 30)), np.ones((1, 40))
    assert ks_distance(first, second, *ones)[0] == pytest.approx(stats.ks_2samp(first, second).statistic)
    double = np.where(np.arange(30) < 10, 2.0, 1.0)[None]
    repeated = np.concatenate([first[:10], first])
    expected = stats.ks_2samp(repeated, second).statistic
    assert ks_distance(first, second, double, ones[1])[0] == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.0, 0.6, 1.5])
def test_the_interval_holds_the_distance_and_nearly_always_the_true_one(shift: float) -> None:
    truth, held = 2 * stats.norm.cdf(shift / 2) - 1, 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sides = rng.normal(0, 1, 40), rng.normal(shift, 1, 50)
        found = ks_interval((sides[0], np.arange(40) // 2), (sides[1], np.arange(50) // 2), 200, seed)
        assert found.value == pytest.approx(stats.ks_2samp(*sides).statistic)
        assert 0 <= found.low <= found.value < found.high <= 1
        held += found.low <= truth <= found.high
    assert held >= 28


def test_real_against_real_shows_nothing_in_nine_of_ten_draws() -> None:
    shown = sum(
        any(d.differs for d in compare_features(lesions(20, seed=2 * s), lesions(20, seed=2 * s + 1), s, 300))
        for s in range(10)
    )
    assert shown <= 1


def test_the_feature_that_differs_is_named_first_and_others_are_not_named() -> None:
    found = compare_features(lesions(25, seed=1), lesions(25, seed=2, edge_ratio=2.0), 0, 500)
    assert [distance.feature for distance in found if distance.differs] == ["edge_ratio"]
    first = found[0]
    assert first.feature == "edge_ratio"
    assert first.ks.low < first.ks.value < first.ks.high
    assert first.halves < 0.4 < first.ks.value
    assert first.real[1] + 1.5 < first.synthetic[1]


def test_few_lesions_have_distances_but_neither_intervals_nor_tests() -> None:
    found = compare_features(lesions(3, seed=1), lesions(3, seed=2, edge_ratio=3.0))
    assert all(np.isnan(distance.p) and np.isnan(distance.ks.low) and not distance.differs for distance in found)
    assert found[0].ks.note == "few lesions"


def test_matched_lesions_have_equal_sizes() -> None:
    real, synthetic = lesions(30, seed=1), lesions(30, seed=2)
    for row in synthetic:
        row["equivalent_diameter_mm"] *= 1.5
    a, b = match_sizes(real, synthetic)
    assert len(a) == len(b) > 20
    sizes = [np.sort([row["equivalent_diameter_mm"] for row in rows]) for rows in (a, b)]
    assert np.abs(np.log(sizes[0] / sizes[1])).max() < np.log(2) / 3 + 1e-9


def test_a_classifier_tells_what_differs_and_nothing_where_nothing_does() -> None:
    same = classify(lesions(15, seed=1), lesions(15, seed=2), resamples=300)
    assert same.auc.low < 0.5 < same.auc.high
    other = classify(lesions(15, seed=1), lesions(15, seed=2, noise_ratio=3.0), resamples=300)
    assert other.auc.low > 0.7
    assert next(iter(other.weights)) == "noise_ratio"
    few = classify(lesions(4, seed=1), lesions(4, seed=2))
    assert "8 and 8 lesions of 4 and 4 patients are too few" in few.note


def test_a_feature_that_nobody_could_measure_tells_nothing_and_warns_of_nothing(
    recwarn: pytest.WarningsRecorder,
) -> None:
    sides = [[row | {"noise_ratio": float("nan")} for row in lesions(15, seed=seed)] for seed in (1, 2)]
    told = classify(*sides, resamples=50)
    assert 0 < told.auc.value < 1
    assert told.weights["noise_ratio"] == 0
    assert [str(warning.message) for warning in recwarn] == []


def test_what_is_always_told_apart_is_said_to_be() -> None:
    told = classify(lesions(15, seed=1), lesions(15, seed=2, noise_ratio=30.0), resamples=300)
    assert (told.auc.value, told.auc.low, told.auc.high) == (1, 1, 1)


def test_a_patient_whose_lesions_are_alike_teaches_nothing_about_itself() -> None:
    sides = []
    for seed in (1, 2):
        one_each = lesions(15, each=1, seed=seed)
        sides.append([{**row, "index": index} for row in one_each for index in range(4)])
    told = classify(*sides, resamples=300)
    assert told.auc.low < 0.5 < told.auc.high
    assert told.auc.value < 0.75  # folds that part a patient's lesions would reach 1


def test_auc_is_the_share_of_pairs() -> None:
    negative, positive = np.array([0.1, 0.4, 0.4]), np.array([0.4, 0.8])
    value = auc(negative, positive, np.ones((1, 3)), np.ones((1, 2)))[0]
    assert value == pytest.approx((1 + 0.5 + 0.5 + 3) / 6)


def test_copies_of_real_lesions_are_seen() -> None:
    real = lesions(20, seed=1)
    assert find_copies(real, lesions(20, seed=2)).share < 0.1
    copied = [{**row, "patient": "s"} for row in real]
    assert find_copies(real, copied).share == 1.0


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    recipe = RealismRecipe(resamples=200)
    real, synthetic = lesions(20, seed=1), lesions(20, seed=2, sphericity=-3.0)
    summary = finish_realism(real, synthetic, tmp_path, recipe, 0, {"real": "A", "synthetic": "B"})
    assert "sphericity" in summary["verdict"]
    assert summary["differs"] == ["sphericity"]
    page = (tmp_path / "report.html").read_text()
    assert summary["verdict"].split(". ")[0].split(":")[0] in page
    assert page.count("<svg") == len(FEATURES)
    assert len(page) < 3e6
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons", ""
    )
    assert look(tmp_path / "report.html", 1300, 400) == [(0, 0), (0, 0)]
    with pytest.raises(CaseError, match="real lesions in liver, synthetic ones in no organ"):
        finish_realism(real, [], tmp_path, recipe, 0, {})
    with pytest.raises(CaseError, match="real lesions in liver, synthetic ones in kidney"):
        finish_realism(real, [{**row, "organ": "kidney"} for row in synthetic], tmp_path, recipe, 0, {})
