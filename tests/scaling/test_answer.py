"""Sentences that claim no more than the intervals do."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from studies import made_up, published

from synthoma.reports.plots import COLORS, MARKS
from synthoma.scaling.answer import answer, best_arm, doubling, doubt, reach, saturation, warnings
from synthoma.scaling.fit import fit_study
from synthoma.scaling.results import FitRecipe, StudyFit
from synthoma.scaling.table import Point
from synthoma.statistics.intervals import Interval, Ratio

REAL, QUICK = "real only", FitRecipe(resamples=400)


def fitted(seed: int = 3, **how: object) -> StudyFit:
    return fit_study(made_up(seed, **how), REAL, QUICK)  # type: ignore[arg-type]


def test_the_answer_is_two_sentences_with_intervals() -> None:
    said = answer({"new patients": fitted(), "other hospitals": fitted(9)}, "mixed", "DSC")
    first, second = said.split(". ")
    assert first.startswith("With 4 real cases, on new patients, synthetic tumors raised DSC from 0.32 to 0.51")
    assert "95 % interval" in first
    assert "times as many (2." in first
    assert second.startswith("On other hospitals, synthetic tumors raised DSC")


def test_with_one_test_set_the_second_sentence_is_about_more_annotation() -> None:
    assert ". Going from 64 to 128 real cases would add 0.0" in answer({"test": fitted()}, "mixed", "DSC")


def test_no_difference_is_called_so_and_equals_nothing() -> None:
    said = answer({"test": fitted(worth=1.0)}, "mixed", "DSC")
    assert "no difference was shown" in said
    assert "would score the same" not in said
    assert "raised" not in said


def test_harm_is_called_so() -> None:
    assert "synthetic tumors lowered DSC" in answer({"test": fitted(worth=0.3)}, "mixed", "DSC")


def test_published_means_are_told_without_intervals() -> None:
    said = answer({"test": fit_study(published(), REAL, FitRecipe(ceiling=100))}, "mixed", "DSC")
    assert "DSC was 40.2 without and 48.2 with synthetic tumors (difference +8.0, no interval)" in said
    assert "147 real cases without them would score the same, 2.4 times as many" in said
    assert "values without intervals" in said


def test_what_cannot_be_identified_has_its_reason_in_the_sentence() -> None:
    said = answer({"test": fitted(cases=(8,))}, "mixed", "DSC")
    assert "how many real cases that equals cannot be identified: the arm without synthetic tumors has fewer" in said


def test_an_arm_without_points_is_said() -> None:
    real = [point for point in made_up(1) if point.arm == REAL]
    assert "nothing can be said" in answer({"test": fit_study(real, REAL, QUICK)}, "mixed", "DSC")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Interval(11.2, 8.5, 15), "11 real cases (8.5 to 15)"),
        (Interval(11.2, 8.5, np.inf), "11 real cases (8.5 or more)"),
        (Interval(np.inf, 61.4, np.inf), "more than 61 real cases"),
        (Interval(np.inf), "no number of real cases"),
        (Interval(1234.0), "1,234 real cases"),
    ],
)
def test_numbers_of_cases_may_be_open(found: Interval, words: str) -> None:
    assert reach(found) == words


def test_saturation_is_not_told_from_far_beyond_the_data() -> None:
    near = fitted(cases=(4, 8, 16, 64, 256))
    assert saturation(near.arm(REAL), 256, 0.05).startswith("real only: doubling real cases adds 0.050 or more up to")
    few = fitted(cases=(4, 8, 16))
    assert "cannot be told from so few" in saturation(few.arm(REAL), 16, 0.01)


def test_a_flat_curve_has_no_next_step() -> None:
    flat = [Point(REAL, n, s, Ratio(np.array([0.4, 0.5, 0.6]), np.ones(3))) for n in (4, 8, 16) for s in range(2)]
    arm = fit_study(flat, REAL, QUICK).arm(REAL)
    assert "does not rise" in doubling(arm, 16)
    assert "does not rise" in saturation(arm, 16, 0.01)


def test_a_study_in_which_nothing_was_learned_says_nothing() -> None:
    zero = [Point(arm, n, 0, Ratio(np.zeros(3), np.ones(3))) for n in (4, 8) for arm in (REAL, "mixed")]
    said = answer({"test": fit_study(zero, REAL, QUICK)}, "mixed", "DSC")
    assert said.startswith("No network scored DSC above 0")
    assert "no difference" not in said


def test_the_best_arm_and_the_source_of_doubt_are_named() -> None:
    fit = fitted()
    assert best_arm(fit, 4) == "4 real cases: mixed scored highest (in 100 % of resamples), above all others."
    assert doubt(replace(fit, patient_share=0.7)) == (
        "70 % of the uncertainty of gains comes from having 20 test patients."
    )
    assert "70 % of the uncertainty of gains comes from having 3 training" in doubt(replace(fit, patient_share=0.3))
    assert doubt(fitted(seeds=1)).startswith("One training seed")


def seven_arms(**how: object) -> StudyFit:
    """The made-up study with five more arms, each a copy of the mixed one."""
    points = made_up(3, **how)  # type: ignore[arg-type]
    more = [replace(point, arm=f"arm {n}") for n in range(5) for point in points if point.arm == "mixed"]
    return fit_study([*points, *more], REAL, QUICK)


def test_what_is_to_be_said_of_all_arms_is_said_once() -> None:
    fit = seven_arms(cases=(8,))
    assert warnings(fit) == [
        "curves of all 7 arms: cannot be identified: a curve needs two sizes or more, there are 1."
    ]
    some = replace(fit, arms=(replace(fit.arms[0], problem=""), *fit.arms[1:]))
    assert warnings(some)[0].startswith("curves of mixed; arm 0; arm 1; arm 2; arm 3; arm 4: cannot be identified")
    one = replace(fit, arms=(fit.arms[0], *(replace(arm, problem="") for arm in fit.arms[1:])))
    assert warnings(one)[0].startswith("curve of real only: ")


def test_an_arm_like_all_others_is_not_told_from_any() -> None:
    fit = seven_arms()
    assert "not told from any other arm with synthetic tumors." in best_arm(fit, 4)
    name, often, alike = fit.best[4]
    fewer = replace(fit, best={4: (name, often, alike[:2])})
    assert best_arm(fewer, 4).endswith(f"not told from {', '.join(alike[:2])}.")


def test_the_plot_of_many_arms_has_a_color_for_each_and_its_legend_below() -> None:
    from synthoma.scaling.plots import plot_scaling

    many, few = (plot_scaling("test", fit, [], "mixed", "DSC", "new patients") for fit in (seven_arms(), fitted()))
    assert "Bands are those of 'real only' and 'mixed'." in many.caption
    assert "Bands" not in few.caption
    assert many.svg.count("fill-opacity: 0.1") == few.svg.count("fill-opacity: 0.1") == 2
    assert all(color in many.svg for color in COLORS[:7])
    assert len({*COLORS}) == len({*MARKS}) == len(COLORS) == len(MARKS)
    heights = [float(re.search(r'height="([0-9.]+)pt"', plot.svg).group(1)) for plot in (many, few)]  # type: ignore[union-attr]
    assert heights[0] > heights[1]
