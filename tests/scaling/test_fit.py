"""Findings of a study: known laws recovered, intervals that cover, and refusals with a reason."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from studies import made_up, published, real_score

from synthoma.errors import RunError
from synthoma.scaling.fit import FitRecipe, fit_study
from synthoma.scaling.table import Point, Table
from synthoma.statistics.intervals import Interval, Ratio

REAL = "real only"
QUICK = FitRecipe(resamples=400)


def test_the_published_runs_equal_2_to_5_times_as_many_real_cases() -> None:
    fit = fit_study(published(), REAL, FitRecipe(ceiling=100, worthwhile=1))
    factors = {one.cases: one.factor.value for one in fit.levels if one.factor}
    assert factors[60] == pytest.approx(2.4, abs=0.1)
    assert factors[278] == pytest.approx(4.6, abs=0.1)
    assert factors[500] == pytest.approx(3.7, abs=0.1)
    assert factors[1500] < 1.5
    assert {one.score.note for one in fit.levels} == {fit.note}
    assert "without intervals" in fit.note
    assert np.isnan(fit.level("mixed", 60).factor.low)  # type: ignore[union-attr]


def test_more_real_data_has_not_stopped_helping_by_the_published_points() -> None:
    saturation = fit_study(published(), REAL, FitRecipe(ceiling=100, worthwhile=1)).arm(REAL).saturation
    assert saturation is not None
    assert saturation.value > 1500


def test_intervals_cover_the_truth() -> None:
    """Of 60 studies with three seeds; 1,000 of each of nine kinds are in docs/scaling.md."""
    hits: dict[str, list[bool]] = {}

    def covers(name: str, interval: Interval | None, truth: float) -> None:
        assert interval is not None
        hits.setdefault(name, []).append(interval.low <= truth <= interval.high)

    for study in range(60):
        fit = fit_study(made_up(study), REAL, QUICK, seed=study)
        level, arm = fit.level("mixed", 8), fit.arm(REAL)
        assert level is not None
        covers("score", level.score, real_score(24))
        covers("gain", level.gain, real_score(24) - real_score(8))
        covers("equivalent", level.equivalent, 24)
        covers("a", arm.parameters["a"], 0.75)
        covers("c", arm.parameters["c"], 0.6)
        covers("saturation", arm.saturation, (0.9 * (1 - 2**-0.6) / 0.01) ** (1 / 0.6))
    # what 90 to 98 % coverage allows in 60 studies, at 1 in 1,000
    fewest, most = binom.ppf(0.001, 60, 0.90), binom.ppf(0.999, 60, 0.98)
    for name, found in hits.items():
        assert fewest <= sum(found) <= max(most, 60), (name, sum(found))
    total = sum(map(sum, hits.values()))
    assert binom.ppf(0.001, 360, 0.9) <= total <= binom.ppf(0.999, 360, 0.985), total


def test_equal_arms_show_no_difference() -> None:
    shown = [
        not fit_study(made_up(study, worth=1.0), REAL, QUICK).level("mixed", 8).gain.spans_zero  # type: ignore[union-attr]
        for study in range(40)
    ]
    assert sum(shown) <= 6


def test_a_clear_gain_is_found_with_its_equivalent() -> None:
    level = fit_study(made_up(1, patients=40, seeds=5), REAL).level("mixed", 4)
    assert level is not None
    assert level.gain is not None
    assert level.factor is not None
    assert level.gain.low > 0
    assert 1 < level.factor.low < 3 < level.factor.high < 9
    assert level.equivalent == Interval(*(4 * v for v in (level.factor.value, level.factor.low, level.factor.high)), 40)


def test_a_score_above_the_plateau_has_no_end() -> None:
    level = fit_study(made_up(0, cases=(4, 8, 16), worth=1000.0), REAL, QUICK).level("mixed", 16)
    assert level is not None
    assert level.equivalent is not None
    assert level.equivalent.high == np.inf
    assert level.equivalent.low > 16
    assert "extrapolated" in level.equivalent.note
    as_json = json.dumps(fit_study(made_up(0), REAL, QUICK).as_dict(), allow_nan=False)
    assert json.loads(as_json)["real"] == REAL


def test_a_flat_curve_replaces_nothing_that_could_be_counted() -> None:
    flat = [
        replace(p, score=Ratio(p.score.top - real_score(p.cases * (3 if p.arm == "mixed" else 1)), p.score.bottom))
        for p in made_up(4)
    ]
    fit = fit_study(flat, REAL, QUICK)
    level = fit.level("mixed", 8)
    assert level is not None
    assert level.equivalent is not None
    assert np.isnan(level.equivalent.value)
    assert level.equivalent.note.startswith("cannot be identified")
    assert "rise" in fit.arm(REAL).problem


def test_two_sizes_have_a_line_and_the_reason_why_no_more() -> None:
    fit = fit_study(made_up(2, cases=(4, 16)), REAL, QUICK)
    assert fit.arm(REAL).law == "log-linear"
    assert "three parameters, and there are 2 sizes" in fit.arm(REAL).problem
    assert fit.arm(REAL).saturation is None
    assert 4 < fit.level("mixed", 4).equivalent.value < 40  # type: ignore[union-attr]


def test_one_size_has_gains_only() -> None:
    fit = fit_study(made_up(2, cases=(8,)), REAL, QUICK)
    level = fit.level("mixed", 8)
    assert level is not None
    assert level.gain is not None
    assert level.gain.low > 0
    assert level.equivalent is not None
    assert "fewer than two sizes" in level.equivalent.note
    assert "there are 1" in fit.arm(REAL).problem


def test_three_sizes_are_fitted_and_said_to_be_unchecked() -> None:
    fit = fit_study(made_up(3, cases=(4, 8, 16)), REAL, QUICK)
    assert fit.arm(REAL).law == "power"
    assert fit.arm(REAL).problem


def test_a_steady_rise_has_no_plateau_to_be_identified() -> None:
    rise = [
        Point(REAL, n, s, Ratio(np.array([0.1, 0.3]) + 0.1 * np.log(n) + 0.001 * s, np.ones(2)))
        for n in (2, 4, 8, 16, 32) for s in range(2)
    ]  # fmt: skip
    assert "plateau cannot be identified" in fit_study(rise, REAL, QUICK).arm(REAL).problem


def test_one_training_seed_is_said() -> None:
    fit = fit_study(made_up(1, seeds=1), REAL, QUICK)
    assert "one training seed" in fit.note
    assert np.isnan(fit.patient_share)
    assert fit.level("mixed", 4).score.low < fit.level("mixed", 4).score.high  # type: ignore[union-attr]


def test_more_seeds_and_more_patients_narrow_the_intervals() -> None:
    def width(**how: int) -> float:
        gain = fit_study(made_up(1, **how), REAL, QUICK).level("mixed", 8).gain  # type: ignore[arg-type, union-attr]
        assert gain is not None
        return gain.high - gain.low

    assert width(patients=80, seeds=8) < width(patients=80, seeds=3) < width(patients=6, seeds=2)


def test_the_larger_source_of_doubt_is_named() -> None:
    assert fit_study(made_up(1, patients=10, seed_sd=0.003), REAL, QUICK).patient_share > 0.5
    assert fit_study(made_up(1, patients=80, seed_sd=0.06), REAL, QUICK).patient_share < 0.3


def test_missing_points_are_fitted_around() -> None:
    points = [p for p in made_up(1) if (p.arm, p.cases, p.seed) not in {("mixed", 8, 0), (REAL, 16, 2), (REAL, 64, 0)}]
    points = [p for p in points if not (p.arm == "mixed" and p.cases == 64)]
    fit = fit_study(points, REAL, QUICK)
    assert fit.level("mixed", 8).seeds == 2  # type: ignore[union-attr]
    assert fit.level("mixed", 64) is None
    whole = fit_study(made_up(1), REAL, QUICK)
    assert fit.arm(REAL).parameters["a"].value == pytest.approx(whole.arm(REAL).parameters["a"].value, abs=0.1)


def test_synthetic_tumors_alone_have_an_equivalent_and_no_factor() -> None:
    points = made_up(1)
    points += [Point("mixed", 0, p.seed, p.score) for p in points if (p.arm, p.cases) == ("mixed", 8)]
    level = fit_study(points, REAL, QUICK).level("mixed", 0)
    assert level is not None
    assert level.factor is None
    assert level.equivalent is not None
    assert level.equivalent.value == fit_study(points, REAL, QUICK).level("mixed", 8).equivalent.value  # type: ignore[union-attr]


def test_the_best_arm_is_named_with_those_it_is_not_told_from() -> None:
    points = made_up(1, patients=40, seeds=5)
    points += [Point("mixed too", p.cases, p.seed, p.score) for p in points if p.arm == "mixed"]
    best, often, alike = fit_study(points, REAL, QUICK).best[4]
    assert best == "mixed"
    assert often > 0.9
    assert alike == ("mixed too",)


def test_the_same_study_gives_the_same_findings() -> None:
    assert fit_study(made_up(5), REAL, QUICK) == fit_study(made_up(5), REAL, QUICK)


def test_points_of_other_patients_or_twice_the_same_are_refused() -> None:
    points = made_up(1)
    with pytest.raises(RunError, match="different patients"):
        Table.of([*points, Point(REAL, 99, 0, Ratio(np.ones(3), np.ones(3)))])
    with pytest.raises(RunError, match="two points"):
        Table.of([*points, points[0]])


def test_patients_without_what_is_scored_count_nowhere() -> None:
    points = [
        Point(p.arm, p.cases, p.seed, Ratio(np.append(p.score.top, 0.0), np.append(p.score.bottom, 0.0)))
        for p in made_up(1)
    ]
    assert fit_study(points, REAL, QUICK) == fit_study(made_up(1), REAL, QUICK)
