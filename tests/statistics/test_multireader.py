"""Intervals over readers and cases, against a published example, brute force and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from synthoma.statistics.multireader import (
    auc,
    detection_power,
    equivalence,
    equivalence_power,
    random_readers,
    reader_auc,
    reader_rate,
    reader_share,
)

# Van Dyke et al. 1993, 5 readers of 114 cases with and without aortic dissection, spin-echo and cine MRI: AUC of each
# reader, Cov2 of each modality, and what is published of the mean (error, degrees of freedom, interval) by Chakraborty,
# Observer Performance Methods for Diagnostic Imaging (2017), and by the OR-DBM MRMC software of the University of Iowa.
VAN_DYKE = [
    ((0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066), 0.00048396180, 0.89703704, 0.033173597, 12.744648,
     0.82522360, 0.96885048),
    ((0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169), 0.00020418785, 0.94083736, 0.021566368, 12.710190,
     0.89413783, 0.98753689),
]  # fmt: skip


@pytest.mark.parametrize(("values", "covariance", "mean", "error", "freedom", "low", "high"), VAN_DYKE)
def test_the_published_example_of_van_dyke_comes_out(
    values: tuple[float, ...], covariance: float, mean: float, error: float, freedom: float, low: float, high: float
) -> None:
    table = np.full((5, 5), covariance) + np.eye(5) * 5e-4
    found = random_readers(values, table, 114)
    assert found.interval.value == pytest.approx(mean, abs=1e-7)
    assert found.error == pytest.approx(error, rel=1e-6)
    assert found.freedom == pytest.approx(freedom, rel=1e-5)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=1e-6)


def test_auc_counts_pairs_with_ties_as_half() -> None:
    assert auc([1, 2, 3, 2], [0, 0, 1, 1]) == (1 + 1 + 1 + 0.5) / 4
    assert np.isnan(auc([1, 2], [1, 1]))


def test_auc_and_its_variance_are_those_of_a_brute_force_u_statistic() -> None:
    """DeLong's variance is that of the two-sample U statistic by its structural components."""
    rng = np.random.default_rng(1)
    positive = np.arange(40) < 17
    ratings = rng.integers(1, 7, (2, 40)) + 1.0 * positive
    found = reader_auc(ratings, positive)

    def kernel(a: float, b: float) -> float:
        return 1.0 if a > b else 0.5 if a == b else 0.0

    parts = []
    for row in ratings:
        high, low = row[positive], row[~positive]
        v10 = [np.mean([kernel(a, b) for b in low]) for a in high]
        v01 = [np.mean([kernel(a, b) for a in high]) for b in low]
        parts.append((v10, v01))
        value = np.mean(v10)
        error = np.sqrt(np.var(v10, ddof=1) / 17 + np.var(v01, ddof=1) / 23)
        interval = found.by_reader[len(parts) - 1]
        assert interval.value == pytest.approx(value)
        assert interval.high == pytest.approx(min(1, value + 1.959964 * error), abs=1e-6)
    between = sum(np.cov(parts[0][n], parts[1][n])[0, 1] / len(parts[0][n]) for n in (0, 1))
    spread = np.var([interval.value for interval in found.by_reader], ddof=1)
    assert found.error == pytest.approx(np.sqrt((spread + 2 * max(between, 0)) / 2))


def test_intervals_over_readers_and_cases_cover_the_truth() -> None:
    """95 % intervals of the mean share over 5 readers, whose skill differs and who err together."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        hard = rng.normal(0, 0.6, 60)  # shared by the readers
        skill = rng.normal(0, 0.3, 5)
        correct = (0.4 + skill[:, None] + hard + rng.normal(0, 0.8, (5, 60))) > 0
        found = reader_share(correct, np.arange(60) < 30).interval
        truth = 0.6490  # P(N(0.4, 0.6^2 + 0.3^2 + 0.8^2) > 0)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / 300 <= 0.99


def test_one_reader_has_the_interval_over_cases() -> None:
    yes = np.array([[1, 1, 0, 1, 0, 1, 1, 1, 0, 1]])
    found = reader_rate(yes)
    assert found.interval.value == 0.7
    assert found.error == pytest.approx(np.sqrt(0.7 * 0.3 / 9))
    assert found.freedom == np.inf


@pytest.mark.parametrize(
    ("ratings", "positive"),
    [
        ([[1, 2, 3]], [0, 1, 1]),
        ([[1, np.nan, 2, 3]], [0, 0, 1, 1]),
        ([[1, 2, 3, 4]], [0, 1]),
        ([1, 2, 3, 4], [0, 0, 1, 1]),
    ],
)
def test_incomplete_tables_are_refused(ratings: list[list[float]], positive: list[int]) -> None:
    with pytest.raises(ValueError, match=r"every reader answers|two cases"):
        reader_auc(ratings, positive)


def test_equivalence_is_shown_when_the_90_percent_interval_lies_within_the_margin() -> None:
    guesses = np.random.default_rng(3).integers(0, 2, (4, 400))
    found = reader_share(guesses, np.arange(400) < 200)
    wide, narrow = equivalence(found, 0.5, 0.1), equivalence(found, 0.5, 0.01)
    assert wide.shown
    assert 0.4 < wide.low < wide.high < 0.6
    assert not narrow.shown
    for test in (wide, narrow):
        assert test.shown == (test.low > test.center - test.margin and test.high < test.center + test.margin)


def test_power_is_the_share_of_simulated_studies_that_show_it() -> None:
    """Readers who guess alike (latent correlation), 100 cases, 3 readers, margin 0.15."""
    rng = np.random.default_rng(4)
    shown = 0
    for _ in range(400):
        latent = 0.5 * rng.normal(size=100) + np.sqrt(0.75) * rng.normal(size=(3, 100))
        correct = latent > 0
        error = np.sqrt(0.25 * (1 + 2 * 0.161) / 300)  # correlation of signs: 2 asin(0.25) / pi
        shown += abs(correct.mean() - 0.5) + 1.645 * error < 0.15
    assert equivalence_power(100, 3, 0.15, 0.161) == pytest.approx(shown / 400, abs=0.05)


def test_power_grows_with_cases_readers_and_effect() -> None:
    assert equivalence_power(24, 1, 0.1) < equivalence_power(100, 1, 0.1) < equivalence_power(400, 3, 0.1) <= 1
    assert detection_power(24, 3, 0.5) == pytest.approx(0.025)
    assert detection_power(24, 3, 0.6) < detection_power(24, 3, 0.8) < 1


def test_shares_of_0_and_1_have_an_interval() -> None:
    """Wilson 1927: 0 of 12 gives 0 to z^2 / (n + z^2)."""
    one = reader_rate(np.zeros((1, 12)))
    assert (one.interval.low, one.interval.high) == pytest.approx((0, 1.959964**2 / (12 + 1.959964**2)), abs=1e-6)
    three = reader_rate(np.ones((3, 12)))
    assert three.interval.low == pytest.approx(12 / (12 + 1.959964**2), abs=1e-6)
    assert three.interval.high == 1
    mixed = reader_rate(np.array([[0] * 12, [1] * 6 + [0] * 6]))
    assert mixed.by_reader[0].high > 0.2


def test_readers_who_all_separate_perfectly_have_an_area_without_an_interval() -> None:
    positive = np.arange(10) < 5
    found = reader_auc(np.tile(np.where(positive, 6, 1), (2, 1)), positive)
    assert found.interval.value == 1
    assert np.isnan(found.interval.low)
    assert "no answer differs" in found.interval.note
