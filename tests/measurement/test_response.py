"""Response categories on the textbook's borders, targets, doubling times."""

from __future__ import annotations

import math

import pytest

from synthoma.measurement.response import choose_targets, classify, doubling_days, growth_per_day


@pytest.mark.parametrize(
    ("sums_mm", "category"),
    [
        ((100.0, 70.0), "PR"),
        ((100.0, 70.1), "SD"),
        ((100.0, 120.0), "PD"),
        ((100.0, 119.9), "SD"),
        ((20.0, 24.9), "SD"),  # 24.5 % more, but less than 5 mm
        ((20.0, 25.0), "PD"),
        ((100.0, 60.0, 71.9), "SD"),  # from the smallest sum, 60 mm, 19.8 % more; 28.1 % less than the first
        ((100.0, 60.0, 72.0), "PD"),
        ((100.0, 60.0, 65.0), "PR"),
        ((100.0, 0.0), "CR"),
        ((0.0, 0.0), "NM"),
    ],
)
def test_categories_change_at_the_borders_of_the_guideline(sums_mm: tuple[float, ...], category: str) -> None:
    assert classify(sums_mm).category == category


def test_a_new_lesion_is_progression_whatever_the_sum() -> None:
    assert classify((100.0, 40.0), new_lesion=True).category == "PD"
    assert classify((0.0, 0.0), new_lesion=True).category == "PD"


def test_a_response_is_not_complete_while_another_lesion_is_left() -> None:
    assert classify((100.0, 0.0), others_left=True).category == "PR"


def test_targets_are_the_largest_five_two_an_organ_of_10_mm_or_more() -> None:
    lesions = [("liver", 30.0), ("liver", 12.0), ("liver", 20.0), ("kidney", 9.9), ("kidney", 10.0)]
    lesions += [("colon", 40.0), ("uterus", 41.0), ("pancreas", 11.0)]
    assert choose_targets(lesions) == [0, 2, 5, 6, 7]
    assert choose_targets([("liver", 9.9)]) == []


def test_a_volume_that_doubles_in_90_days_has_a_doubling_time_of_90_days() -> None:
    assert doubling_days(2.0, 4.0, 90) == pytest.approx(90)
    assert doubling_days(4.0, 2.0, 90) == pytest.approx(-90)
    assert doubling_days(4.0, 4.0, 90) == math.inf
    assert math.isnan(doubling_days(0.0, 4.0, 90))
    assert math.isnan(growth_per_day(1.0, 4.0, 0))
