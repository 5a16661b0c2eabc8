"""Features of lesions whose figures are known: blurred balls of known contrast, noise, border and shape."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import ndimage

from grids import centers_mm
from synthesis.phantoms import grid, rho
from synthoma.cases import Case
from synthoma.errors import GeometryError
from synthoma.realism.crops import organ_hu
from synthoma.realism.features import FEATURES, Side, measure_side
from synthoma.realism.samples import read_samples
from synthoma.realism.shape import shape_features, signed_distance_mm
from synthoma.volume import Geometry, Volume

EXTENT_MM = (90, 90, 90)
UPRIGHT = grid((1.0, 1.0, 1.0), EXTENT_MM)
THICK = grid((0.9, 0.9, 2.5), EXTENT_MM)
OBLIQUE = grid((1.1, 1.0, 1.6), EXTENT_MM, (20, -15, 35))
GRIDS = {"upright": UPRIGHT, "thick": THICK, "oblique": OBLIQUE}


def ball_case(
    geometry: Geometry,
    radius_mm: float = 13.0,
    contrast_hu: float = -40.0,
    blur_mm: float = 1.2,
    noise_hu: float = 8.0,
    inner_noise: float = 1.0,
    seed: int = 0,
    axes: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Case:
    """A ball, or an ellipsoid, in a large ball of liver; `inner_noise` times the noise inside it."""
    shape_mm = tuple(radius_mm * axis for axis in axes)
    fine = rho(geometry, shape_mm, (0, 0, 0)) < 1
    liver = rho(geometry, (40, 40, 40), (0, 0, 0)) < 1
    spacing = geometry.spacing_mm
    soft = ndimage.gaussian_filter(fine.astype(float), [blur_mm / s for s in spacing])
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, noise_hu, geometry.shape) * np.where(fine, inner_noise, 1.0)
    hu = np.where(liver, 100.0, -100.0) + contrast_hu * soft + noise
    masks = {"liver": Volume(liver & ~fine, geometry), "liver_lesion": Volume(fine, geometry)}
    return Case("ball", Volume(np.rint(hu).astype(np.int16), geometry), masks)


def figures(case: Case) -> dict[str, float]:
    (row,) = measure_side(Side("real", case))["lesions"]
    return {name: math.nan if value is None else value for name, value in row.items()}


@pytest.mark.parametrize("name", GRIDS)
def test_a_ball_has_the_figures_it_was_made_with(name: str) -> None:
    found = figures(ball_case(GRIDS[name]))
    assert found["equivalent_diameter_mm"] == pytest.approx(26, rel=0.03)
    assert found["sphericity"] == pytest.approx(1, abs=0.04)
    assert found["solidity"] == pytest.approx(1, abs=0.03)
    assert found["roughness"] < 0.03
    assert found["flatness"] == pytest.approx(1, abs=0.05)
    assert found["contrast_hu"] == pytest.approx(-40, abs=2)
    assert found["noise_ratio"] == pytest.approx(1, abs=0.05)
    assert found["edge_shift_mm"] == pytest.approx(0, abs=0.4)
    assert found["depth_ratio"] == pytest.approx(40 / 13, rel=0.08)
    assert abs(found["rim_hu"]) < 6
    assert math.isnan(found["neighbor_mm"])


@pytest.mark.parametrize("blur_mm", [1.0, 2.0])
def test_the_border_is_as_wide_as_it_was_blurred(blur_mm: float) -> None:
    (sample,) = read_samples(ball_case(UPRIGHT, blur_mm=blur_mm, contrast_hu=-80.0))
    found = figures(ball_case(UPRIGHT, blur_mm=blur_mm, contrast_hu=-80.0))
    assert found["edge_ratio"] * sample.blur_mm == pytest.approx(blur_mm, rel=0.15)


def test_less_noise_and_correlated_noise_inside_are_seen() -> None:
    assert figures(ball_case(UPRIGHT, inner_noise=0.5))["noise_ratio"] == pytest.approx(0.5, abs=0.06)
    case = ball_case(UPRIGHT)
    hu = case.read_image().data.astype(float)
    inside = case.read_mask("liver_lesion").data
    smooth = ndimage.gaussian_filter(hu, (1, 1, 0))
    blurred = Volume(np.rint(np.where(inside, smooth, hu)).astype(np.int16), UPRIGHT)
    found = figures(dataclasses.replace(case, image=blurred))
    assert found["noise_correlation"] > 0.3
    assert abs(figures(case)["noise_correlation"]) < 0.06


def test_an_ellipsoid_is_flat_and_no_rougher_than_a_ball() -> None:
    found = figures(ball_case(UPRIGHT, axes=(1.4, 1.0, 0.6)))
    assert found["flatness"] == pytest.approx(0.6 / 1.4, abs=0.04)
    assert found["elongation"] == pytest.approx(1.0 / 1.4, abs=0.04)
    assert found["sphericity"] < 0.96
    assert found["roughness"] < 0.04


def test_a_mirrored_scan_has_the_same_figures() -> None:
    case = ball_case(THICK, axes=(1.3, 1.0, 0.8))
    turned = Case(
        "ball",
        Volume(case.read_image().data[::-1, :, ::-1], THICK),
        {name: Volume(mask.data[::-1, :, ::-1], THICK) for name, mask in case.each_mask()},
    )
    ours, theirs = figures(case), figures(turned)
    for feature in FEATURES:
        assert ours[feature.name] == pytest.approx(theirs[feature.name], rel=0.02, abs=0.02, nan_ok=True), feature


def test_specks_and_lesions_without_an_organ_have_few_figures() -> None:
    case = ball_case(UPRIGHT, radius_mm=2.4)
    found = figures(case)
    assert found["equivalent_diameter_mm"] > 4
    assert math.isnan(found["rim_hu"])
    alone = Case("ball", case.image, {"liver_lesion": case.masks["liver_lesion"]})
    assert all(math.isnan(figures(alone)[name]) for name in ("contrast_hu", "noise_ratio", "depth_ratio"))
    assert not math.isnan(figures(alone)["sphericity"])


@pytest.mark.parametrize("name", GRIDS)
def test_a_tumor_of_a_wall_is_compared_with_the_wall_and_not_with_gas_or_stool(name: str) -> None:
    geometry = GRIDS[name]
    x, y, z = np.moveaxis(centers_mm(geometry), -1, 0)
    away = np.hypot(x, y)
    colon, lumen = away < 22, away < 17
    tumor = colon & (away > 8) & (np.hypot(y, z) < 14) & (x > 0)
    hu = np.where(colon, 60.0, -100.0)
    hu[lumen] = np.where(y > -12, -1000.0, 400.0)[lumen]  # gas above contrast medium
    hu[tumor] = 100.0
    hu = ndimage.gaussian_filter(hu, [0.6 / s for s in geometry.spacing_mm])
    hu += np.random.default_rng(0).normal(0, 8.0, hu.shape)
    masks = {"colon": Volume(colon & ~tumor, geometry), "colon_lesion": Volume(tumor, geometry)}
    case = Case("tube", Volume(np.rint(hu).astype(np.int16), geometry), masks)
    found = figures(case)
    assert found["contrast_hu"] == pytest.approx(40, abs=12)
    assert found["contrast_to_noise"] == pytest.approx(40 / 8, rel=0.5)
    (sample,) = read_samples(case)
    assert organ_hu(sample) == pytest.approx(60, abs=15)


def test_a_mask_on_another_grid_is_refused() -> None:
    case = ball_case(UPRIGHT)
    for name in ("liver", "liver_lesion"):
        moved = Volume(case.read_mask(name).data, grid((1.0, 1.0, 1.5), (90, 90, 135)))
        with pytest.raises(GeometryError, match=f"{name} mask"):
            measure_side(Side("real", dataclasses.replace(case, masks={**case.masks, name: moved})))


def test_only_tumors_that_were_put_in_count_where_that_is_known() -> None:
    case = ball_case(UPRIGHT)
    assert len(measure_side(Side("synthetic", case, [((0.0, 0.0, 1.0), 5.0)]))["lesions"]) == 1
    assert measure_side(Side("synthetic", case, [((30.0, 0.0, 0.0), 5.0)]))["lesions"] == []


def test_signed_distances_are_zero_at_the_border_and_positive_inside() -> None:
    mask = rho(UPRIGHT, (10, 10, 10), (0, 0, 0)) < 1
    distance = signed_distance_mm(mask, UPRIGHT)
    assert (distance[mask] > 0).all()
    assert (distance[~mask] < 0).all()
    assert distance.max() == pytest.approx(10, abs=1.5)
    assert math.isnan(shape_features(np.zeros((5, 5, 5), bool), UPRIGHT)["sphericity"])
