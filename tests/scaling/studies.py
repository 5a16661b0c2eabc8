"""Made-up studies with known laws: patients differ, training seeds differ, synthetic tumors are worth real cases."""

from __future__ import annotations

import numpy as np

from synthoma.scaling.table import Point
from synthoma.statistics.intervals import Ratio

PUBLISHED = {  # pancreas DSC, in distribution (Chen et al. 2025)
    "real only": {60: 40.2, 278: 52.7, 500: 54.0, 1500: 59.3, 3159: 59.7},
    "mixed": {60: 48.2, 278: 58.1, 500: 59.0, 1500: 59.2, 3159: 59.3},
}


def published() -> list[Point]:
    """The published means, which have no patients."""
    return [
        Point(arm, cases, 0, Ratio(np.array([score]), np.ones(1)))
        for arm, scores in PUBLISHED.items()
        for cases, score in scores.items()
    ]


def real_score(cases: float) -> float:
    """The law that the made-up real-only arm follows."""
    return float(0.75 - 0.9 * cases**-0.6)


def made_up(
    seed: int,
    cases: tuple[int, ...] = (4, 8, 16, 32, 64),
    seeds: int = 3,
    patients: int = 20,
    worth: float = 3.0,
    seed_sd: float = 0.03,
) -> list[Point]:
    """Points of two arms; a case with synthetic tumors is worth `worth` real ones."""
    rng = np.random.default_rng([seed, 7])
    habit = rng.normal(0, 0.12, patients)
    return [
        Point(
            arm,
            n,
            training,
            Ratio(
                real_score(n * times) + habit + rng.normal(0, 0.06, patients) + rng.normal(0, seed_sd),
                np.ones(patients),
            ),
        )
        for n in cases
        for training in range(seeds)
        for arm, times in (("real only", 1.0), ("mixed", worth))
    ]
