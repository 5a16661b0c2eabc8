"""Label maps: who wins where masks overlap, and what that cost."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.builders import SHAPE, patient
from grids import oblique
from synthoma.cases import Case
from synthoma.datasets.painting import annotated, label_map, paint
from synthoma.errors import CaseError, GeometryError
from synthoma.volume import Geometry, Volume

GRID = oblique(5, SHAPE)
CASE = patient(GRID)
MASKS = {name: mask.data for name, mask in CASE.masks.items()}


def without(*structures: str) -> Case:
    return Case("p1", CASE.image, {name: mask for name, mask in CASE.masks.items() if name not in structures})


def test_tumors_lie_over_parts_over_organs_over_the_rest_whatever_their_values() -> None:
    values = {"liver_lesion": 1, "hepatic_vessel": 2, "liver": 3, "spleen": 4}
    labels = paint(CASE, values, GRID).labels
    assert labels.geometry == GRID
    assert labels.data.dtype == np.uint8
    for structure, over in {
        "liver_lesion": [],
        "hepatic_vessel": ["liver_lesion"],
        "liver": ["liver_lesion", "hepatic_vessel"],
        "spleen": [],
    }.items():
        hidden = np.logical_or.reduce([np.zeros(SHAPE, bool), *(MASKS[name] for name in over)])
        assert np.array_equal(labels.data == values[structure], MASKS[structure] & ~hidden), structure


def test_every_overwritten_voxel_is_counted() -> None:
    painted = paint(
        CASE, {"liver": 1, "hepatic_vessel": 2, "liver_lesion": 3, "kidney_lesion": 4, "kidney_left": 5}, GRID
    )
    vessel, tumor = MASKS["hepatic_vessel"], MASKS["liver_lesion"]
    assert painted.overwritten["liver"] == {"hepatic_vessel": vessel.sum(), "liver_lesion": (tumor & ~vessel).sum()}
    both = (vessel & tumor).sum()
    assert painted.overwritten["hepatic_vessel"] == {"liver_lesion": both}
    assert both > 0
    assert painted.overwritten["kidney_left"] == {"kidney_lesion": MASKS["kidney_lesion"].sum()}


def test_an_organ_holds_its_tumors_even_where_its_mask_does_not() -> None:
    hollow = Volume(MASKS["liver"] & ~MASKS["liver_lesion"], GRID)
    case = Case("p1", CASE.image, {**CASE.masks, "liver": hollow})
    assert np.array_equal(paint(case, {"liver": 1}, GRID).labels.data == 1, MASKS["liver"])
    alone = paint(case, {"liver": 1, "liver_lesion": 2}, GRID)
    assert np.array_equal(alone.labels.data == 1, hollow.data)
    assert not alone.overwritten


def test_the_kidney_is_one_mask_or_both_sides() -> None:
    sides = without("kidney")
    assert annotated(sides, "kidney")
    assert not annotated(without("kidney", "kidney_left"), "kidney")
    drawn = paint(sides, {"kidney": 1}, GRID).labels.data
    assert np.array_equal(drawn == 1, MASKS["kidney"] | MASKS["kidney_lesion"])


def test_freetumor_maps_have_odd_organs_and_even_tumors() -> None:
    labels = label_map(CASE, "freetumor").data
    assert set(np.unique(labels)) == {0, 1, 2, 5, 6}
    assert np.array_equal(labels == 2, MASKS["liver_lesion"])
    assert np.array_equal(labels == 6, MASKS["kidney_lesion"])
    assert np.array_equal(np.isin(labels, (1, 2)), MASKS["liver"])


def test_organ_and_tumor_maps_share_their_numbers() -> None:
    organs, tumors = label_map(CASE, "organs").data, label_map(CASE, "tumors").data
    assert np.array_equal(np.isin(organs, 1), MASKS["liver"])
    assert np.array_equal(tumors != 0, MASKS["liver_lesion"] | MASKS["kidney_lesion"])
    assert (organs[tumors != 0] == tumors[tumors != 0]).all()


def test_a_map_of_nothing_annotated_is_refused() -> None:
    with pytest.raises(CaseError, match="p1: nothing of tumors is annotated; found spleen"):
        label_map(Case("p1", CASE.image, {"spleen": CASE.masks["spleen"]}), "tumors")
    with pytest.raises(ValueError, match="no scheme"):
        label_map(CASE, "rainbow")


def test_a_mask_on_another_grid_is_refused_by_name() -> None:
    other = Volume(MASKS["liver"], Geometry.of(SHAPE, 2.0))
    with pytest.raises(GeometryError, match="p1: the liver mask's grid differs"):
        paint(Case("p1", CASE.image, {"liver": other}), {"liver": 1}, GRID)
