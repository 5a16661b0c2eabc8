"""The network of a two-sample test on crops whose difference is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from synthoma.realism.features import Row
from synthoma.realism.telling import Told, classify_crops
from synthoma.volume import Array

torch = pytest.importorskip("torch")
from synthoma.learning.two_samples import held_out_scores  # noqa: E402

SIZE = 16


def balls(count: int, seed: int, texture_hu: float = 0.0) -> list[Array]:
    """Dark balls in noisy tissue; with a blotchy inside of as many HU, whose mean is no other."""
    rng = np.random.default_rng(seed)
    away = np.sqrt(((np.indices((SIZE,) * 3) - (SIZE - 1) / 2) ** 2).sum(axis=0))
    made = []
    for _ in range(count):
        inside = away < rng.uniform(4.5, 6.5)
        blotches = ndimage.gaussian_filter(rng.normal(size=(SIZE,) * 3), 1.5)
        blotches -= blotches[inside].mean()
        hu = inside * (rng.uniform(-60, -30) + texture_hu * blotches / blotches.std())
        made.append(np.rint(hu + rng.normal(0, 12, (SIZE,) * 3)).astype(np.int16))
    return made


def asked(real: list[Array], synthetic: list[Array], seed: int = 0) -> Told:
    """Two lesions a patient."""
    rows: list[list[Row]] = [
        [{"patient": f"p{place // 2}"} for place in range(len(side))] for side in (real, synthetic)
    ]
    return classify_crops(rows[0], rows[1], (real, synthetic), seed, 300)


def test_another_texture_of_equal_mean_is_told_apart() -> None:
    told = asked(balls(24, 1), balls(24, 2, texture_hu=25.0))
    assert told.shown
    assert told.auc.value > 0.9
    assert told.n == (24, 24)
    assert not told.weights


def test_two_halves_of_one_set_are_not_told_apart() -> None:
    lesions = balls(48, 3)
    told = asked(lesions[:24], lesions[24:])
    assert told.auc.low < 0.5 < told.auc.high
    assert not told.shown


def test_the_same_crops_get_the_same_scores_and_torch_is_left_as_it_was() -> None:
    crops = np.stack(balls(8, 1) + balls(8, 2, texture_hu=30.0))
    truth, folds = np.repeat([0, 1], 8), [(np.arange(0, 16, 2), np.arange(1, 15, 2))]
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first = held_out_scores(crops, truth, folds, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(held_out_scores(crops, truth, folds, seed=1), first)
    assert np.abs(held_out_scores(crops, truth, folds, seed=2) - first)[1:15:2].max() > 1e-3
    assert np.isnan(first[::2]).all()  # never held out
    assert np.isnan(first[15])
    assert np.isfinite(first[1:15:2]).all()


def test_lesions_without_a_crop_are_left_out_and_few_crops_have_no_figure() -> None:
    crops: list[Array | None] = [*balls(12, 1)]
    rows: list[Row] = [{"patient": f"p{place // 2}"} for place in range(12)]
    told = classify_crops(rows, rows, ([*crops[:8], *[None] * 4], crops), 0, 300)
    assert told.note == "8 and 12 lesions of 4 and 6 patients are too few"
    assert np.isnan(told.auc.value)
    assert told.n == (8, 12)
