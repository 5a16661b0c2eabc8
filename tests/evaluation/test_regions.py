"""Regions: the same voxels, in few boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masks import FLAT, balls
from scipy.ndimage import distance_transform_edt

from synthoma.errors import CaseError
from synthoma.evaluation.regions import grown, in_memory_order, region_above, region_of
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
        for axis in range(3):
            assert block.mask.any(axis=tuple(a for a in range(3) if a != axis)).all()
    for n, one in enumerate(region.blocks):
        for other in region.blocks[n + 1 :]:
            gaps = [max(a, c) - min(b, d) for a, b, c, d in zip(one.box.lower, one.box.upper, *other.box, strict=True)]
            assert max(gaps) >= 1


def test_two_balls_far_apart_are_two_boxes() -> None:
    region = region_of(balls(FLAT, ((0.2, 0.2, 0.3), 8), ((0.85, 0.85, 0.8), 5)))
    assert len(region.blocks) == 2
    assert sum(block.mask.size for block in region.blocks) < 0.1 * np.prod(FLAT.shape)


def test_an_empty_mask_has_no_blocks() -> None:
    region = region_of(Volume(np.zeros(FLAT.shape, bool), FLAT))
    assert region.blocks == ()
    assert region.volume_ml == 0


@pytest.mark.parametrize("wrong", [-0.01, 1.5, np.nan])
def test_probabilities_outside_0_to_1_are_refused(wrong: float) -> None:
    data = np.full((3, 3, 3), 0.5, np.float32)
    data[1, 1, 1] = wrong
    with pytest.raises(CaseError, match="outside 0 to 1"):
        region_above(Volume(data, Geometry.of(data.shape)), 0.5)


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
    low = region_above(soft, 0.3)
    assert np.array_equal(low.above(soft, 0.7).read(whole(soft)), soft.data >= 0.7)
