"""Growth laws: doubling at first, a known Gompertz curve, doubling times within their tables."""

from __future__ import annotations

import numpy as np
import pytest

from synthoma import anatomy
from synthoma.followup.laws import DOUBLING_DAYS, LARGEST_MM3, draw_doubling_days, exponential, gompertz


def test_an_exponential_doubles_in_its_doubling_time() -> None:
    assert exponential(100, 90, 90) == pytest.approx(200)
    assert exponential(100, 90, -90) == pytest.approx(50)


def test_gompertz_solves_its_equation_and_ends_at_the_largest_volume() -> None:
    first, doubling = 2000.0, 120.0
    days = np.linspace(0, 2000, 20001)
    volumes = np.array([gompertz(first, doubling, day) for day in days])
    pace = np.log(2) / (doubling * np.log(LARGEST_MM3 / first))
    rate = np.gradient(volumes, days)
    assert np.allclose(rate[1:-1], (pace * volumes * np.log(LARGEST_MM3 / volumes))[1:-1], rtol=1e-4)
    assert rate[1] / volumes[1] == pytest.approx(np.log(2) / doubling, rel=1e-3)
    assert gompertz(first, doubling, 1e6) == pytest.approx(LARGEST_MM3)
    assert gompertz(2 * LARGEST_MM3, doubling, 100) == 2 * LARGEST_MM3


def test_every_organ_has_doubling_times_with_a_source() -> None:
    assert set(DOUBLING_DAYS) == set(anatomy.ORGANS)
    rng = np.random.default_rng(0)
    for organ, row in DOUBLING_DAYS.items():
        drawn = [draw_doubling_days(organ, None, rng) for _ in range(400)]
        assert row.source
        assert np.median(drawn) == pytest.approx(row.median, rel=0.2)
        assert np.mean([row.low <= days <= row.high for days in drawn]) > 0.8
    assert 10 <= draw_doubling_days("liver", (20, 10), rng) <= 20
