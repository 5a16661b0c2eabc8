"""Calibration: on outputs whose true distribution is known, scaling and error are what they must be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from synthoma.learning.calibration import (
    LEVELS,
    Scaling,
    calibration_error,
    fit_scaling,
    probabilities,
    reliability,
    rescaled,
)


def sampled(temperature: float, more: float = 0.0, voxels: int = 400_000) -> tuple[np.ndarray, np.ndarray]:
    """Histograms of a network whose logits are too high by `more`, then this many times too large."""
    rng = np.random.default_rng(0)
    true_logits = rng.normal(-1, 2, voxels)
    inside = rng.random(voxels) < expit(true_logits)
    levels = np.rint(255 * expit((true_logits + more) * temperature)).astype(int)
    return np.bincount(levels, minlength=LEVELS), np.bincount(levels[inside], minlength=LEVELS)


@pytest.mark.parametrize(("temperature", "more"), [(0.6, 0.0), (1.0, 0.0), (2.5, 0.0), (0.6, 1.5), (1.4, 1.0)])
def test_the_scaling_of_a_known_distribution_is_found(temperature: float, more: float) -> None:
    found = fit_scaling(*sampled(temperature, more), shift=True)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.shift == pytest.approx(-more, abs=0.06)


def test_an_overconfident_network_is_far_off_before_and_close_after() -> None:
    voxels, inside = sampled(2.5)
    before, after = calibration_error(voxels, inside), calibration_error(voxels, inside, Scaling(2.5))
    assert before > 0.06
    assert after < 0.015
    for mean, share, count in reliability(voxels, inside, Scaling(2.5)):
        assert share == pytest.approx(mean, abs=0.03 + 3 * np.sqrt(mean * (1 - mean) / count))


def test_the_error_of_a_coin_that_is_called_certain_is_one_half() -> None:
    voxels, inside = np.zeros(LEVELS, int), np.zeros(LEVELS, int)
    voxels[255], inside[255] = 1000, 500
    assert calibration_error(voxels, inside) == pytest.approx(0.5, abs=0.01)
    assert np.isnan(calibration_error(np.zeros(LEVELS, int), np.zeros(LEVELS, int)))


def test_voxels_under_five_percent_do_not_decide_over_the_others() -> None:
    voxels, inside = sampled(2.5)
    more = voxels.copy()
    more[:13] += 10**9
    assert fit_scaling(more, inside) == fit_scaling(voxels, inside)
    assert calibration_error(more, inside) == calibration_error(voxels, inside)


def test_unless_asked_for_nothing_is_shifted() -> None:
    voxels, inside = sampled(2.0, 1.0)
    assert fit_scaling(voxels, inside).shift == 0
    assert fit_scaling(voxels, inside).temperature != fit_scaling(voxels, inside, shift=True).temperature


def test_a_network_that_expects_too_many_is_far_off_before_and_close_after() -> None:
    voxels, inside = sampled(1.0, 2.0)
    before, after = (
        calibration_error(voxels, inside),
        calibration_error(voxels, inside, fit_scaling(voxels, inside, shift=True)),
    )
    assert before > 0.2
    assert after < 0.015


def test_without_both_kinds_of_voxels_nothing_is_scaled() -> None:
    voxels = np.full(LEVELS, 10)
    assert fit_scaling(voxels, np.zeros(LEVELS, int)) == Scaling(1.0, 0.0)
    assert fit_scaling(voxels, voxels) == Scaling(1.0, 0.0)


def test_levels_keep_their_order_and_without_a_shift_one_half() -> None:
    for temperature in (0.3, 1.0, 4.0):
        for shift in (-2.0, 0.0, 1.5):
            table = rescaled(Scaling(temperature, shift)).astype(int)
            assert (np.diff(table) >= 0).all()
            assert table[0] == 0
            assert shift or abs(table[127] - 127) <= 3
            assert table[200] == pytest.approx(255 * expit(logit(200 / 255) / temperature + shift), abs=1)
    assert (rescaled(Scaling())[1:255] == np.arange(1, 255)).all()
    assert probabilities()[128] == pytest.approx(128 / 255)
