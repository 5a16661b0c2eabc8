"""Regions: the same voxels, in few boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masks import FLAT, balls
from scipy.ndimage import distance_transform_edt

from synthoma.errors import CaseError
from synthoma.evaluation.fractions import gather_fractions
from synthoma.evaluation.planes import in_memory_order, planes_of, region_of
from synthoma.evaluation.regions import LEAST, grown
from synthoma.volume import Box, Geometry, Volume


def whole(volume: Volume) -> Box:
    return Box.whole(volume.data.shape)


@given(st.integers(0, 10**6), st.booleans())
def test_a_region_holds_the_voxels_of_its_values_and_no_plane_between_blocks(seed: int, fortran: bool) -> None:
    rng = np.random.default_rng(seed)
    data = rng.choice(np.array([0, 0, 0, 0, 0, 0, 1, 2, 3], np.uint8), rng.integers(1, 9, 3))
    labels = Volume(np.asfortranarray(data) if fortran else data, Geometry.of(data.shape))
    labels = labels.reorient(in_memory_order(labels))
    region = region_of(labels, (1, 3))
    assert np.array_equal(region.read(whole(labels)), np.isin(labels.data, (1, 3)))
    for block in region.blocks:
        for axis in range(3) if block.mask.size > LEAST else ():
            assert block.mask.any(axis=tuple(a for a in range(3) if a != axis)).all()
    for n, one in enumerate(region.blocks):
        for other in region.blocks[n + 1 :]:
            gaps = [max(a, c) - min(b, d) for a, b, c, d in zip(one.box.lower, one.box.upper, *other.box, strict=True)]
            assert max(gaps) >= 1


def test_two_balls_far_apart_are_two_boxes() -> None:
    grid = Geometry.of((80, 72, 36), (0.4, 0.5, 1.25))
    region = region_of(balls(grid, ((0.2, 0.2, 0.3), 8), ((0.85, 0.85, 0.8), 5)))
    assert len(region.blocks) == 2
    assert sum(block.mask.size for block in region.blocks) < 0.1 * np.prod(grid.shape)


def test_thousands_of_specks_are_few_boxes() -> None:
    data = np.zeros((96, 80, 64), bool)
    data[::4, ::4, ::4] = True
    region = region_of(Volume(data, Geometry.of(data.shape)))
    assert region.voxels == 24 * 20 * 16
    assert len(region.blocks) < 100


def test_a_region_turned_to_other_axes_has_the_voxels_of_the_turned_mask() -> None:
    mask = balls(FLAT, ((0.2, 0.2, 0.3), 8), ((0.7, 0.85, 0.8), 5))
    for axes in ("RAS", "SPL", "ARI"):
        turned = region_of(mask).reoriented(axes)
        assert np.array_equal(turned.read(whole(mask.reorient(axes))), mask.reorient(axes).data)
        assert turned.geometry.matches(mask.reorient(axes).geometry)


@given(st.integers(0, 10**6))
def test_a_region_on_another_grid_is_the_mask_resampled_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = Volume(rng.random((12, 11, 9)) < rng.choice([0.005, 0.2]), Geometry.of((12, 11, 9), (1.0, 1.3, 2.0)))
    other = Geometry.of((9, 14, 12), rng.uniform(0.7, 2.5, 3), rng.choice(["RAS", "LPS", "SAR"]))
    other = Geometry(other.shape, other.affine + np.pad(rng.uniform(-6, 6, (3, 1)), ((0, 1), (3, 0))))
    found = region_of(mask).resampled(other)
    expected = Volume(mask.data.astype(np.float32), mask.geometry).to(other, fill=0).data >= 0.5
    assert np.array_equal(found.read(Box.whole(other.shape)), expected)


def test_voxels_of_another_region_are_taken_out() -> None:
    first, second = balls(FLAT, ((0.5, 0.5, 0.5), 12)), balls(FLAT, ((0.6, 0.5, 0.5), 12))
    assert np.array_equal(region_of(first).without(region_of(second)).read(whole(first)), first.data & ~second.data)


def test_an_empty_mask_has_no_blocks() -> None:
    region = region_of(Volume(np.zeros(FLAT.shape, bool), FLAT))
    assert region.blocks == ()
    assert region.volume_ml == 0


@pytest.mark.parametrize("wrong", [-0.01, 1.5, np.nan])
def test_probabilities_outside_0_to_1_are_refused(wrong: float) -> None:
    data = np.full((3, 3, 3), 0.5, np.float32)
    data[1, 1, 1] = wrong
    with pytest.raises(CaseError, match="outside 0 to 1"):
        gather_fractions(planes_of(Volume(data, Geometry.of(data.shape))), 0.5)


def test_a_region_grows_by_millimeters() -> None:
    mask = balls(FLAT, ((0.5, 0.5, 0.5), 8))
    expected = distance_transform_edt(~mask.data, sampling=FLAT.spacing_mm) <= 4
    assert np.array_equal(grown(region_of(mask), 4.0).read(whole(mask)), expected)


def test_a_region_within_another_is_what_both_have() -> None:
    first, second = balls(FLAT, ((0.5, 0.5, 0.5), 12)), balls(FLAT, ((0.6, 0.5, 0.5), 12))
    both = region_of(first).within(region_of(second))
    assert np.array_equal(both.read(whole(first)), first.data & second.data)


def test_a_region_above_a_higher_threshold_is_part_of_it() -> None:
    soft = Volume(np.random.default_rng(0).random(FLAT.shape).astype(np.float32), FLAT)
    low = gather_fractions(planes_of(soft), 0.3)
    assert np.array_equal(low.above(0.7).read(whole(soft)), soft.data >= 0.7)
    assert np.array_equal(low.region.read(whole(soft)), soft.data >= 0.3)
    assert low.peak == soft.data.max()
