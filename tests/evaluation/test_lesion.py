"""Which lesions are found: hand-made constellations under every rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masks import FLAT, balls, box, turned

from synthoma.cases import find_lesions
from synthoma.evaluation.lesion import Components, Matching, count_found, match_lesions
from synthoma.evaluation.planes import region_of
from synthoma.volume import Geometry, Volume

GRIDS = pytest.mark.parametrize("geometry", [FLAT, turned()], ids=["anisotropic", "oblique"])


def match(truth: Volume, predicted: Volume, **settings: object) -> Matching:
    return match_lesions(region_of(truth), region_of(predicted), "liver", **settings)  # type: ignore[arg-type]


def union(*masks: Volume) -> Volume:
    return Volume(np.logical_or.reduce([mask.data for mask in masks]), masks[0].geometry)


def fates(matching: Matching) -> tuple[list[str], list[str]]:
    return [entry.fate for entry in matching.truth], [entry.fate for entry in matching.predicted]


@GRIDS
def test_a_found_a_missed_and_a_false_lesion(geometry: Geometry) -> None:
    truth = balls(geometry, ((0.3, 0.3, 0.4), 12), ((0.8, 0.8, 0.7), 6))
    predicted = balls(geometry, ((0.33, 0.3, 0.4), 12), ((0.8, 0.2, 0.7), 6))
    matching = match(truth, predicted)
    assert fates(matching) == (["found", "missed"], ["matched", "false"])
    shared, sizes = np.sum(truth.data[:25, :20] & predicted.data[:25, :20]), truth.data[:25, :20].sum()
    other = predicted.data[:25, :20].sum()
    assert matching.truth[0].dsc == pytest.approx(2 * shared / (sizes + other))
    assert matching.truth[0].iou == pytest.approx(shared / (sizes + other - shared))
    assert (matching.truth[0].partner, matching.predicted[0].partner) == (1, 1)
    assert (matching.truth[1].partner, matching.truth[1].dsc) == (0, 0.0)


@pytest.mark.parametrize("rule", ["iou", "overlap", "center"])
def test_counting_gives_the_counts_of_matching(rule: str) -> None:
    rng = np.random.default_rng(3)
    for share in (0.02, 0.1, 0.25):
        truth, predicted = (Volume(rng.random(turned().shape) < share, turned()) for _ in range(2))
        sides = region_of(truth), region_of(predicted)
        full = match_lesions(*sides, "liver", rule)  # type: ignore[arg-type]
        counted = count_found(*(Components.counted(side) for side in sides), rule)  # type: ignore[arg-type]
        assert counted == (full.count("found"), full.count("false"))
        assert share > 0.2 or min(counted) > 0


@GRIDS
def test_a_lesion_predicted_in_two_parts_is_split_not_false(geometry: Geometry) -> None:
    truth = box(geometry, (5, 5, 5), (17, 10, 10))
    predicted = union(box(geometry, (5, 5, 5), (11, 10, 10)), box(geometry, (12, 5, 5), (17, 10, 10)))
    assert fates(match(truth, predicted)) == (["found"], ["matched", "split"])


@GRIDS
def test_two_lesions_under_one_prediction_are_one_found_one_merged(geometry: Geometry) -> None:
    truth = union(box(geometry, (5, 5, 5), (11, 10, 10)), box(geometry, (12, 5, 5), (17, 10, 10)))
    predicted = box(geometry, (5, 5, 5), (17, 10, 10))
    assert fates(match(truth, predicted)) == (["found", "merged"], ["matched"])


def test_rules_differ_on_a_touch_a_large_blob_and_a_center() -> None:
    small = box(FLAT, (10, 10, 8), (13, 13, 10))
    around = box(FLAT, (4, 4, 4), (20, 20, 14))  # IoU 18 / 2560, its center beside the lesion's
    touch = box(FLAT, (12, 12, 9), (18, 18, 15))
    assert fates(match(small, around, rule="iou"))[0] == ["missed"]
    assert fates(match(small, around, rule="overlap"))[0] == ["found"]
    assert fates(match(small, around, rule="center"))[0] == ["found"]
    assert fates(match(small, touch, rule="overlap"))[0] == ["found"]
    assert fates(match(small, touch, rule="center"))[0] == ["missed"]


def test_matching_takes_the_largest_sum_and_not_the_first_come() -> None:
    # the first truth overlaps both predictions, the second truth only the first one
    truth = union(box(FLAT, (0, 0, 0), (10, 5, 5)), box(FLAT, (11, 0, 0), (20, 5, 5)))
    predicted = union(box(FLAT, (0, 0, 0), (4, 5, 5)), box(FLAT, (5, 0, 0), (18, 5, 5)))
    matching = match(truth, predicted)
    assert fates(matching) == (["found", "found"], ["matched", "matched"])
    assert [entry.partner for entry in matching.truth] == [2, 1]


def test_empty_masks_match_nothing() -> None:
    none, some = Volume(np.zeros(FLAT.shape, bool), FLAT), balls(FLAT, ((0.5, 0.5, 0.5), 8))
    assert fates(match(none, none)) == ([], [])
    assert fates(match(none, some)) == ([], ["false"])
    assert fates(match(some, none)) == (["missed"], [])


def test_a_predicted_lesion_less_overlapping_than_the_least_iou_is_false() -> None:
    truth, predicted = box(FLAT, (0, 0, 0), (10, 10, 10)), box(FLAT, (9, 0, 0), (19, 10, 10))
    assert fates(match(truth, predicted)) == (["missed"], ["false"])
    assert fates(match(truth, predicted, least_iou=0.05)) == (["found"], ["matched"])


@given(st.integers(0, 10**6))
def test_swapping_truth_and_prediction_swaps_the_fates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = Geometry.of((12, 11, 10), (1.0, 0.7, 2.0))
    first, second = (Volume(rng.random(geometry.shape) < rate, geometry) for rate in rng.uniform(0.02, 0.12, 2))
    there, back = match(first, second), match(second, first)
    assert there.count("found") == back.count("found") == there.count("matched")
    assert sorted(entry.iou for entry in there.truth) == sorted(entry.iou for entry in back.predicted)


@given(st.integers(0, 10**6))
def test_lesions_are_those_of_the_whole_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = Geometry.of((14, 11, 10), (1.0, 0.7, 2.0))
    mask = Volume(rng.random(geometry.shape) < rng.uniform(0.01, 0.1), geometry)
    components = Components.of(region_of(mask), "liver")
    expected = find_lesions(mask, "liver")
    assert [lesion.voxels for lesion in components.lesions] == [lesion.voxels for lesion in expected]
    places = [
        {(*np.round(lesion.center_mm, 6).tolist(), lesion.box) for lesion in lesions}
        for lesions in (components.lesions, expected)
    ]
    assert places[0] == places[1]
    for box_, labels in components.labels:
        index, count = np.unique(labels[labels > 0], return_counts=True)
        assert [components.lesions[n - 1].voxels for n in index] == count.tolist()
        assert np.array_equal(labels > 0, mask.data[box_.slices])
