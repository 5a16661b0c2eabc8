"""Laws of scaling: fitted, inverted, compared on what they were not fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from studies import PUBLISHED

from synthoma.scaling.laws import fit_constant, fit_log_linear, fit_power, held_out_errors

CASES = np.array([4.0, 8, 16, 32, 64])


def test_the_published_points_give_the_published_curve() -> None:
    points = PUBLISHED["real only"]
    curve = fit_power(np.array(list(points), float), np.array([list(points.values())]), np.ones(5), ceiling=100)
    assert (curve.a[0], curve.b[0], curve.c[0]) == pytest.approx((63.9, 155, 0.46), rel=0.01)


@pytest.mark.parametrize(("a", "b", "c"), [(0.8, 0.9, 0.5), (0.6, 2.0, 1.5), (0.95, 0.7, 0.1)])
def test_a_power_law_is_found_again(a: float, b: float, c: float) -> None:
    curve = fit_power(CASES, (a - b * CASES**-c)[None], np.ones(5))
    assert (curve.a[0], curve.b[0], curve.c[0]) == pytest.approx((a, b, c), rel=0.02)
    assert curve.at(CASES)[0] == pytest.approx(a - b * CASES**-c, abs=1e-4)


def test_many_resamples_are_fitted_as_each_alone() -> None:
    scores = 0.7 - 0.8 * CASES**-0.7 + np.random.default_rng(0).normal(0, 0.03, (20, 5))
    together = fit_power(CASES, scores, np.ones(5))
    alone = [fit_power(CASES, row[None], np.ones(5)) for row in scores]
    assert together.c == pytest.approx(np.concatenate([one.c for one in alone]))
    assert together.a == pytest.approx(np.concatenate([one.a for one in alone]))


def test_no_other_power_law_lies_nearer() -> None:
    rng = np.random.default_rng(1)
    scores = np.clip(0.7 - 0.8 * CASES**-0.7 + rng.normal(0, 0.1, (10, 5)), 0, 1)
    weights = np.array([3.0, 1, 2, 3, 3])
    curve = fit_power(CASES, scores, weights)
    least = ((curve.at(CASES) - scores) ** 2) @ weights
    for _ in range(2000):
        a, b, c = rng.uniform(0, 1), rng.uniform(0, 3), rng.uniform(0.02, 4)
        assert (((a - b * CASES**-c - scores) ** 2) @ weights >= least - 1e-6).all()


def test_a_falling_score_gives_a_flat_curve_and_a_high_one_stays_below_the_ceiling() -> None:
    falling = fit_power(CASES, np.array([[0.5, 0.45, 0.4, 0.38, 0.3]]), np.ones(5))
    assert falling.b[0] == 0
    straight = fit_power(CASES, (0.1 * np.log(CASES) + 0.4)[None], np.ones(5))
    assert straight.a[0] <= 1


def test_a_score_is_reached_at_the_number_of_cases_that_gives_it() -> None:
    power = fit_power(CASES, (0.7 - 0.8 * CASES**-0.5)[None], np.ones(5))
    assert power.cases_for(power.at(23)[:, 0])[0] == pytest.approx(23)
    line = fit_log_linear(CASES, (0.2 + 0.1 * np.log(CASES))[None], np.ones(5))
    assert line.cases_for(np.array([0.2 + 0.1 * np.log(23)]))[0] == pytest.approx(23)
    assert power.cases_for(np.array([0.71]))[0] == np.inf
    flat = fit_constant(CASES, np.full((1, 5), 0.5), np.ones(5))
    assert [flat.cases_for(np.array([score]))[0] for score in (0.4, 0.6)] == [0, np.inf]


def test_annotating_is_worth_it_until_doubling_adds_too_little() -> None:
    power = fit_power(CASES, (0.7 - 0.8 * CASES**-0.5)[None], np.ones(5))
    at = power.worth_until(0.02)[0]
    assert (power.at(2 * at) - power.at(at))[0, 0] == pytest.approx(0.02, rel=1e-3)
    line = fit_log_linear(CASES, (0.2 + 0.1 * np.log(CASES))[None], np.ones(5))
    assert line.worth_until(0.02)[0] == np.inf
    assert line.worth_until(0.2)[0] == 0


def test_the_right_law_predicts_best_what_was_left_out() -> None:
    rng = np.random.default_rng(2)
    for law, scores in {
        "power": 0.7 - 0.9 * CASES**-0.9,
        "log-linear": 0.1 + 0.12 * np.log(CASES),
        "constant": np.full(5, 0.6),
    }.items():
        errors = held_out_errors(CASES, scores + rng.normal(0, 0.005, 5), np.ones(5))
        assert min(errors, key=errors.__getitem__) == law, errors
    assert np.isnan(held_out_errors(CASES[:3], CASES[:3] / 100, np.ones(3))["power"])
