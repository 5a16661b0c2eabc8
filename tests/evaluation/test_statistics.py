"""Intervals that cover, and tests that agree with known ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from synthoma.statistics.intervals import Interval, Ratio, bootstrap, weights, wilson
from synthoma.statistics.paired import holm, permutation_p, wilcoxon_p


def mean_of(values: np.ndarray) -> Ratio:
    return Ratio(values, np.ones(len(values)))


@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (lambda rng: rng.normal(3, 2, 40), 3.0),
        (lambda rng: rng.exponential(1.0, 60), 1.0),
        (lambda rng: rng.beta(5, 2, 50), 5 / 7),
    ],
    ids=["normal", "exponential", "beta, like DSC"],
)
def test_95_percent_intervals_cover_92_to_97_percent(draw, true: float) -> None:  # type: ignore[no-untyped-def]
    covered = 0
    for seed in range(500):
        values = draw(np.random.default_rng(seed))
        found = bootstrap(mean_of(values), len(values), 600, seed)
        covered += found.low <= true <= found.high
    assert 0.92 <= covered / 500 <= 0.97


def test_a_bca_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(5).exponential(1.0, 40)
    ours = bootstrap(mean_of(values), 40, 20_000, 1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", random_state=1)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_patients_and_not_scans_are_resampled() -> None:
    # ten scans of each patient tell no more than one
    values = np.random.default_rng(2).normal(size=20)
    once = bootstrap(Ratio(values, np.ones(20)), 20, 2000, 3)
    often = bootstrap(Ratio(values * 10, np.full(20, 10.0)), 20, 2000, 3)
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_one_patient_has_a_value_and_no_interval() -> None:
    found = bootstrap(mean_of(np.array([0.7])), 1)
    assert found.value == 0.7
    assert np.isnan([found.low, found.high]).all()
    assert "one patient" in found.note
    assert found.spans_zero


def test_nothing_has_no_value() -> None:
    assert np.isnan(bootstrap(mean_of(np.zeros(0)), 0).value)


def test_patients_who_are_all_alike_have_no_interval() -> None:
    found = bootstrap(mean_of(np.full(6, 0.1)), 6)
    assert found.value == pytest.approx(0.1)
    assert np.isnan([found.low, found.high]).all()
    assert "alike" in found.note


@pytest.mark.parametrize(("found", "of"), [(3, 3), (0, 3), (20, 20)])
def test_a_proportion_of_patients_who_are_all_alike_has_the_interval_of_wilson(found: int, of: int) -> None:
    values = np.arange(of) < found
    interval = bootstrap(mean_of(values.astype(float)), of, proportion=True)
    expected = stats.binomtest(found, of).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert 0 <= interval.low < interval.high <= 1


def test_a_proportion_of_patients_who_differ_is_bootstrapped() -> None:
    values = np.array([1.0, 1.0, 0.0, 1.0, 1.0])
    assert bootstrap(mean_of(values), 5, proportion=True) == bootstrap(mean_of(values), 5)
    assert wilson(0.8, 5) == pytest.approx(tuple(stats.binomtest(4, 5).proportion_ci(method="wilson")))


def test_a_skewed_sample_moves_the_interval_by_its_acceleration() -> None:
    values = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.8, 1.5, 4.0, 9.0])
    found = bootstrap(mean_of(values), 10, 4000, 2)
    drawn = np.sort(weights(10, 4000, 2) @ values / 10)
    gaps = values - values.mean()  # of the mean the jackknife's gaps are these over n - 1
    acceleration = (gaps**3).sum() / (6 * (gaps**2).sum() ** 1.5)
    bias = stats.norm.ppf((drawn < values.mean()).mean() + (drawn == values.mean()).mean() / 2)
    ends = bias + stats.norm.ppf([0.025, 0.975])
    shares = stats.norm.cdf(bias + ends / (1 - acceleration * ends))
    assert acceleration > 0.1
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, shares)), rel=1e-6)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    figure = mean_of(np.random.default_rng(0).normal(size=15))
    assert bootstrap(figure, 15, seed=4) == bootstrap(figure, 15, seed=4)
    assert bootstrap(figure, 15, seed=4) != bootstrap(figure, 15, seed=5)


def test_training_seeds_are_a_level_that_widens_the_interval() -> None:
    patients = np.random.default_rng(1).normal(0, 0.1, 30)
    runs = [mean_of(patients + shift) for shift in (-1.0, 0.0, 1.0)]

    def mean_of_runs(weights, seeds):  # type: ignore[no-untyped-def]
        return sum(run(weights) * seeds[:, n] for n, run in enumerate(runs)) / seeds.sum(axis=1)

    narrow = bootstrap(runs[1], 30)
    wide = bootstrap(mean_of_runs, (30, 3))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_a_permutation_test_of_few_patients_tries_every_swap() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=8), rng.normal(0.8, 1, size=8)
    gaps = second - first
    swapped = [abs(np.mean(gaps * signs)) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean(np.array(swapped) >= abs(gaps.mean()) - 1e-12)
    assert permutation_p(mean_of(first), mean_of(second)) == pytest.approx(expected)


def test_drawn_permutations_count_the_observed_one_so_that_p_is_never_0() -> None:
    first, second = np.zeros(40), np.linspace(1, 2, 40)
    assert permutation_p(mean_of(first), mean_of(second), 99) == pytest.approx(1 / 100)


def test_a_permutation_test_holds_its_level() -> None:
    below = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first, second = rng.normal(size=(2, 25))
        below += permutation_p(mean_of(first), mean_of(second), 500, seed) < 0.05
    assert 0.01 <= below / 200 <= 0.1


def test_wilcoxon_is_that_of_scipy_and_leaves_out_patients_without_a_figure() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 20))
    there = np.ones(20)
    there[:3] = 0
    found = wilcoxon_p(Ratio(first * there, there), Ratio(second, np.ones(20)))
    assert found == pytest.approx(stats.wilcoxon(second[3:] - first[3:]).pvalue)
    assert wilcoxon_p(mean_of(first), mean_of(first)) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, np.nan, 0.03]) == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_an_interval_that_touches_zero_shows_nothing() -> None:
    assert Interval(0.1, 0.0, 0.2).spans_zero
    assert not Interval(0.1, 0.01, 0.2).spans_zero
    assert not Interval(-0.1, -0.2, -0.01).spans_zero
