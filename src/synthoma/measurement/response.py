"""Response over dates, as RECIST 1.1 defines it: targets, sums of their diameters, categories; growth in numbers.

Source: Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1),
Eur J Cancer 45:228, 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_MM = 10.0  # longest diameter of a lesion that can be a target
MOST_TARGETS, MOST_PER_ORGAN = 5, 2
PARTIAL = 0.30  # decrease from the baseline sum
PROGRESSION, PROGRESSION_MM = 0.20, 5.0  # increase from the smallest sum so far
CATEGORIES = {
    "CR": "complete response",
    "PR": "partial response",
    "SD": "stable disease",
    "PD": "progressive disease",
    "NM": "no measurable lesion at the first date",
}
_TINY = 1e-9


def choose_targets(lesions: Sequence[tuple[str, float]]) -> list[int]:
    """Which lesions, given as organ and longest diameter in mm, are targets: the largest five, two an organ at most."""
    chosen: list[int] = []
    for number in sorted(range(len(lesions)), key=lambda n: -lesions[n][1]):
        organ, longest = lesions[number]
        same = sum(lesions[other][0] == organ for other in chosen)
        if longest >= LEAST_MM and same < MOST_PER_ORGAN and len(chosen) < MOST_TARGETS:
            chosen.append(number)
    return sorted(chosen)


@dataclass(frozen=True)
class Response:
    """The response at one date. sum_mm: of the targets' diameters. from_baseline, from_smallest: relative changes."""

    category: str
    sum_mm: float
    from_baseline: float
    from_smallest: float
    reason: str


def classify(sums_mm: Sequence[float], new_lesion: bool = False, others_left: bool = False) -> Response:
    """The response at the last of some dates.

    sums_mm: the sum of the targets' diameters at every date, the first being the baseline. new_lesion: whether there is
    a lesion that the baseline had not. others_left: whether any lesion that is no target remains. A first sum of 0
    (no target) is `NM`, unless a new lesion shows.
    """
    first, now = sums_mm[0], sums_mm[-1]
    smallest = min(sums_mm[:-1], default=first)
    changes = (_change(now, first), _change(now, smallest))
    if new_lesion:
        return Response("PD", now, *changes, "a new lesion")
    if first == 0:
        return Response("NM", now, *changes, f"no lesion of {LEAST_MM:g} mm or more at the first date")
    grown = now - smallest
    if grown >= PROGRESSION_MM - _TINY and grown >= PROGRESSION * smallest - _TINY:
        return Response("PD", now, *changes, f"{grown:.1f} mm more than the smallest sum")
    if now == 0 and not others_left:
        return Response("CR", now, *changes, "all lesions are gone")
    if now <= (1 - PARTIAL) * first + _TINY:
        return Response("PR", now, *changes, f"{first - now:.1f} mm less than the first sum")
    return Response("SD", now, *changes, "between partial response and progression")


def _change(now: float, before: float) -> float:
    return now / before - 1 if before else math.nan


def growth_per_day(first_ml: float, last_ml: float, days: float) -> float:
    """Specific growth rate ln(V2 / V1) / days; nan where a volume is 0 or no time passes."""
    if min(first_ml, last_ml) <= 0 or days <= 0:
        return math.nan
    return math.log(last_ml / first_ml) / days


def doubling_days(first_ml: float, last_ml: float, days: float) -> float:
    """Volume doubling time in days: negative for a lesion that shrinks, infinite for one that stays, nan as above."""
    rate = growth_per_day(first_ml, last_ml, days)
    return math.inf if rate == 0 else math.log(2) / rate
