"""Patients told apart: rates by hand, AUC against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from synthoma.evaluation.patient import Patients, gather


def random_patients(seed: int) -> Patients:
    rng = np.random.default_rng(seed)
    positive = rng.random(40) < 0.5
    score = np.round(rng.random(40) + 0.3 * positive, 1)  # with ties
    return Patients(positive, score > 0.6, score > 0.8, score)


def test_rates_by_hand() -> None:
    patients = Patients(
        *(np.array(row, bool) for row in ([1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 0, 0, 0])), np.zeros(5)
    )
    ones = np.ones((1, 5))
    assert patients.sensitivity(ones)[0] == pytest.approx(2 / 3)
    assert patients.localized_sensitivity(ones)[0] == pytest.approx(1 / 3)
    assert patients.specificity(ones)[0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("seed", range(10))
def test_auc_agrees_with_scikit_learn_weighted_or_not(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed (extra dev)")
    patients = random_patients(seed)
    often = np.random.default_rng(seed).integers(1, 4, 40).astype(float)
    found = patients.auc(np.stack([np.ones(40), often]))
    assert found[0] == pytest.approx(metrics.roc_auc_score(patients.positive, patients.score))
    assert found[1] == pytest.approx(metrics.roc_auc_score(patients.positive, patients.score, sample_weight=often))


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_area_under_the_roc_curve(seed: int) -> None:
    patients = random_patients(seed)
    false, true, _ = patients.roc()
    assert patients.auc(np.ones((1, 40)))[0] == pytest.approx(np.trapezoid(true, false))


def test_auc_without_negatives_is_nan() -> None:
    everyone = Patients(np.ones(3, bool), np.ones(3, bool), np.ones(3, bool), np.arange(3.0))
    assert np.isnan(everyone.auc(np.ones((1, 3)))[0])


def test_a_patient_is_positive_if_any_scan_is() -> None:
    patients = gather(
        np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1], bool), np.array([1, 0, 0, 1], bool),
        np.array([0, 0, 0, 1], bool), np.array([0.2, 0.9, 0.4, 0.3]),
    )  # fmt: skip
    assert patients.positive.tolist() == [True, False, True]
    assert patients.predicted.tolist() == [True, False, True]
    assert patients.localized.tolist() == [False, False, True]
    assert patients.score.tolist() == [0.9, 0.4, 0.3]
