"""Crops of lesions and of healthy tissue: where they lie, what they are compared with, what is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from realism.test_features import GRIDS, UPRIGHT, ball_case
from synthoma.cases import Case
from synthoma.errors import FileError
from synthoma.realism.crops import HEALTHY_SIZE, SIZE, SPACING_MM, Crops, healthy_crop, lesion_crop, organ_hu
from synthoma.realism.features import Side, measure_side
from synthoma.realism.samples import HEALTHY_MM, Sample, read_samples
from synthoma.volume import Volume


def sample(case: Case) -> Sample:
    (one,) = read_samples(case)
    return one


@pytest.mark.parametrize("name", GRIDS)
def test_a_crop_shows_the_lesion_in_its_middle_less_the_organ(name: str) -> None:
    one = sample(ball_case(GRIDS[name], noise_hu=0.0))
    assert organ_hu(one) == pytest.approx(100, abs=1)
    crop = lesion_crop(one, organ_hu(one))
    assert crop.shape == (SIZE,) * 3
    assert crop.dtype == np.int16
    steps = (np.indices(crop.shape) - (SIZE - 1) / 2) * SPACING_MM
    away = np.sqrt((steps**2).sum(axis=0))
    assert crop[away < 8].mean() == pytest.approx(-40, abs=1)
    assert crop[(away > 18) & (away < 22)].mean() == pytest.approx(0, abs=1)


@pytest.mark.parametrize("name", GRIDS)
def test_healthy_tissue_lies_in_the_organ_and_holds_no_lesion(name: str) -> None:
    case = ball_case(GRIDS[name], noise_hu=0.0)
    one = sample(case)
    assert one.healthy is not None
    ball = healthy_crop(one, organ_hu(one))
    assert ball.shape == (HEALTHY_SIZE,) * 3
    assert np.abs(ball).max() <= 2  # the liver everywhere: neither fat nor lesion
    away = np.linalg.norm(case.image.geometry.points_mm() - one.healthy.center_mm, axis=-1)  # type: ignore[union-attr]
    assert case.read_mask("liver").data[away < HEALTHY_MM].all()
    again = sample(case).healthy
    assert again is not None
    assert again.center_mm == one.healthy.center_mm


def test_an_organ_without_room_has_no_healthy_ball() -> None:
    case = ball_case(UPRIGHT)
    lesion = case.read_mask("liver_lesion").data
    thin = Volume(np.roll(lesion, 2, 0) & ~lesion, UPRIGHT)
    one = sample(dataclasses.replace(case, masks={**case.masks, "liver": thin}))
    assert one.healthy is None
    with pytest.raises(ValueError, match="without healthy tissue"):
        healthy_crop(one, 0.0)
    alone = sample(Case("ball", case.image, {"liver_lesion": case.masks["liver_lesion"]}))
    assert alone.healthy is None
    assert organ_hu(alone) == pytest.approx(100, abs=3)  # of all tissue around


def test_what_was_written_is_read_by_its_row(tmp_path: Path) -> None:
    case, crops = ball_case(UPRIGHT), Crops(tmp_path / "crops")
    rows = measure_side(Side("real", case), crops=crops)["lesions"]
    one = sample(case)
    (lesion,), (healthy,) = (crops.read("real", rows, kind) for kind in ("lesion", "healthy"))
    np.testing.assert_array_equal(lesion, lesion_crop(one, organ_hu(one)))
    np.testing.assert_array_equal(healthy, healthy_crop(one, organ_hu(one)))
    assert crops.read("real", [{**rows[0], "index": 9}], "lesion") == [None]
    with pytest.raises(FileError, match="missing or damaged"):
        crops.read("synthetic", rows, "lesion")
    measure_side(Side("synthetic", case, [((30.0, 0.0, 0.0), 5.0)]), crops=crops)  # not one that was put in
    assert crops.read("synthetic", rows, "lesion") == [None]
