"""The slope from one side of a lesion to the other: measured, and flattened to what a look allows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synthoma.learning.looks import Look, histogram, measure_look, trend_of
from synthoma.learning.tissue import leveled
from synthoma.volume import Floats

I, J, K = np.indices((26, 24, 22)).astype(np.float64)
MASK = ((I - 12) / 10) ** 2 + ((J - 11) / 8) ** 2 + ((K - 10) / 6) ** 2 < 1
SLOPE = ((I - 12) + 0.5 * (K - 10)).astype(np.float32)


def parts(seed: int = 0) -> Floats:
    """Tissue of small parts, 8 HU SD, of which a plane explains next to nothing."""
    return np.random.default_rng(seed).normal(0, 8, MASK.shape).astype(np.float32)


def flattened(hu: Floats, most: float, mask: NDArray[np.bool_] = MASK) -> Floats:
    alpha = torch.from_numpy(mask.astype(np.float32))[None, None]
    made = leveled(torch.from_numpy(np.ascontiguousarray(hu))[None, None], alpha, torch.tensor([most]))
    return np.asarray(made[0, 0].numpy())


def test_tissue_without_a_slope_has_no_trend_and_a_plane_is_nothing_else() -> None:
    assert trend_of(np.full(MASK.shape, 30.0), MASK) == 0
    assert trend_of(((I - 12) ** 2 + (J - 11) ** 2 + (K - 10) ** 2), MASK) == pytest.approx(0, abs=1e-6)
    assert trend_of(parts(), MASK) < 0.02
    assert trend_of(70 + 3 * SLOPE, MASK) == pytest.approx(1)


def test_a_trend_grows_with_the_slope_that_is_planted() -> None:
    shares = [trend_of(parts() + steep * SLOPE, MASK) for steep in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert shares == sorted(shares)
    slope, rest = 2.0 * SLOPE[MASK], parts()[MASK]
    assert shares[3] == pytest.approx(slope.var() / (slope.var() + rest.var()), abs=0.05)


def test_a_trend_is_the_same_mirrored_turned_and_on_another_grid() -> None:
    hu = parts() + SLOPE
    plain = trend_of(hu, MASK)
    assert trend_of(hu[::-1, :, ::-1], MASK[::-1, :, ::-1]) == pytest.approx(plain)
    assert trend_of(hu.transpose(2, 0, 1), MASK.transpose(2, 0, 1)) == pytest.approx(plain)
    twice = (np.repeat(array, 2, axis=2) for array in (hu, MASK))
    assert trend_of(*twice) == pytest.approx(plain, abs=0.01)


def test_a_look_is_measured_with_its_trend_and_a_row_of_before_allows_any() -> None:
    look = measure_look(parts() + 2 * SLOPE, MASK, (1.5, 1.5, 1.5), 100.0, "liver", "portal", 24.0)
    assert look.trend == pytest.approx(trend_of(parts() + 2 * SLOPE, MASK))
    row = look.numbers().tolist()
    assert Look.of_numbers(row).trend == pytest.approx(look.trend)
    assert Look.of_numbers(row[:-1]).trend == 1
    assert Look.of_numbers(row[:-1]).histogram == pytest.approx(look.histogram)


def test_a_network_is_not_told_of_the_trend() -> None:
    look = Look("liver", "portal", 20.0, -40.0, 0.0, 0.0, histogram(np.zeros(4)), 0.2)
    assert np.array_equal(look.condition(), dataclasses.replace(look, trend=0.9).condition())


@pytest.mark.parametrize("most", [0.0, 0.25, 0.6])
def test_a_planted_slope_is_flattened_to_the_share_and_the_rest_stays(most: float) -> None:
    made = flattened(parts() + 4 * SLOPE, most)
    assert trend_of(made, MASK) == pytest.approx(most, abs=1e-4)
    changed = made - parts() - 4 * SLOPE
    assert trend_of(changed, MASK) == pytest.approx(1, abs=1e-5)  # nothing but a plane was taken away
    assert changed[MASK].mean() == pytest.approx(0, abs=1e-3)


def test_tissue_under_its_share_stays_as_it_is_to_the_voxel() -> None:
    hu = parts() + 0.5 * SLOPE
    assert trend_of(hu, MASK) < 0.4
    assert np.array_equal(flattened(hu, 0.4), hu)
    steep = 9 * SLOPE
    assert np.array_equal(flattened(steep, 1.0), steep)


def test_flattening_is_mirrored_with_the_tissue_and_knows_lesions_apart() -> None:
    hu = parts() + 3 * SLOPE
    mirrored = flattened(hu[::-1, :, ::-1], 0.3, MASK[::-1, :, ::-1])
    assert mirrored[::-1, :, ::-1] == pytest.approx(flattened(hu, 0.3), abs=1e-3)
    alpha = torch.from_numpy(MASK.astype(np.float32)).expand(3, 1, *MASK.shape)
    both = leveled(torch.from_numpy(hu).expand(3, 1, *MASK.shape), alpha, torch.tensor([0.1, 0.7, 1.0]))
    assert [trend_of(one.numpy(), MASK) for one in both[:, 0]] == pytest.approx(
        [0.1, 0.7, trend_of(hu, MASK)], abs=1e-4
    )


def test_a_lesion_of_one_slice_of_one_voxel_and_none_are_no_trouble() -> None:
    hu = torch.from_numpy(parts() + 4 * SLOPE)[None, None].requires_grad_()
    for box in (np.s_[4:20, 5:18, 9:10], np.s_[12:13, 11:12, 10:11], np.s_[0:0]):
        mask = np.zeros(MASK.shape, bool)
        mask[box] = True
        made = leveled(hu, torch.from_numpy(mask.astype(np.float32))[None, None], torch.tensor([0.2]))
        made.sum().backward()
        assert torch.isfinite(made).all()
        assert hu.grad is not None
        assert torch.isfinite(hu.grad).all()
        if mask.sum() > 1:
            assert trend_of(made[0, 0].detach().numpy(), mask) == pytest.approx(0.2, abs=1e-4)
