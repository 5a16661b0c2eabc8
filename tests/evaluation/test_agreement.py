"""Agreement between readers: published examples and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from masks import FLAT, box

from synthoma.evaluation.readers import reader_dice
from synthoma.statistics.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohen_kappa_agrees_with_scikit_learn(weights: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed (extra dev)")
    rng = np.random.default_rng(1)
    first = rng.integers(0, 4, 60)
    second = np.clip(first + rng.integers(-1, 2, 60), 0, 3)
    expected = metrics.cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
    assert cohen_kappa(first, second, weights) == pytest.approx(expected)  # type: ignore[arg-type]


def test_cohen_kappa_by_hand() -> None:
    # 20 both yes, 15 both no, 5 and 10 apart: observed 0.7, expected 0.5
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_one_answer_throughout_has_no_kappa() -> None:
    assert np.isnan(cohen_kappa([1, 1, 1], [1, 1, 1]))
    assert np.isnan(fleiss_kappa([[3, 0], [3, 0]]))
    assert np.isnan(krippendorff_alpha([[1, 1], [1, 1]]))


def test_fleiss_kappa_of_the_textbook_example() -> None:
    # Fleiss (1971): ten cases, fourteen readers, five categories
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_unequal_numbers_of_readers_are_refused() -> None:
    with pytest.raises(ValueError, match="krippendorff_alpha"):
        fleiss_kappa([[2, 1], [1, 1]])


def test_krippendorff_alpha_of_the_textbook_example() -> None:
    # Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, example C: four readers, gaps
    nan = np.nan
    answers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ]
    assert krippendorff_alpha(answers) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(answers, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(answers, "interval") == pytest.approx(0.849, abs=5e-4)


def test_readers_who_draw_alike_have_dsc_1() -> None:
    masks = [box(FLAT, (0, 0, 0), (4, 4, 4)), box(FLAT, (0, 0, 0), (4, 4, 4)), box(FLAT, (2, 0, 0), (6, 4, 4))]
    assert reader_dice(masks) == pytest.approx(np.array([[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]]))
