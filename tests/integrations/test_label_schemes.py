"""Label schemes: names and values of a pipeline's label map, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthoma.errors import CaseError, RecipeError
from synthoma.integrations.labels import ANY_LESION, label_scheme
from synthoma.volume import Geometry

GRID = Geometry.of((4, 3, 2), (1.0, 1.0, 2.5))


def test_an_organ_holds_its_tumors_and_a_new_tumor_gets_their_first_value() -> None:
    scheme = label_scheme({"background": 0, "liver": [1, 4], "hepatic tumors": [3, 2], "spleen": 7})
    assert scheme.structures == {"liver": (1, 2, 3, 4), "liver_lesion": (2, 3), "spleen": (7,)}
    assert (scheme.tumors, scheme.organs) == ({"liver": 3}, ("liver",))


def test_regions_as_of_nnunet_are_the_same_scheme_as_plain_labels() -> None:
    plain = label_scheme({"background": 0, "liver": 1, "tumor": 2})
    assert label_scheme({"background": 0, "liver": [1, 2], "liver_tumor": 2}) == plain


def test_a_bare_tumor_is_that_of_the_only_organ_else_of_every_organ() -> None:
    assert label_scheme({"liver": 1, "cancer": 2}).structures["liver_lesion"] == (2,)
    both = label_scheme({"liver": 1, "kidney": 3, "tumor": 2})
    assert both.tumors == {"liver": 2, "kidney": 2}
    assert both.structures == {"liver": (1,), "kidney": (3,), ANY_LESION: (2,)}
    # beside another map that shows the organs
    assert label_scheme({"tumor": 1}).tumors["uterus"] == 1
    assert label_scheme({"tumor": 1}, "Task03_Liver").tumors == {"liver": 1}


def test_a_scheme_comes_from_a_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.toml"
    file.write_text("liver = [1, 5]\nliver_tumor = 2\nignore = 255\n")
    assert label_scheme(file) == label_scheme(str(file)) == label_scheme({"liver": [1, 5], "tumor": 2, "ignore": 255})
    with pytest.raises(RecipeError, match="cannot read the labels"):
        label_scheme(tmp_path / "gone.toml")
    file.write_text("liver: 1")
    with pytest.raises(RecipeError, match="not TOML"):
        label_scheme(file)


@pytest.mark.parametrize(
    "labels",
    [{}, {"background": 0}, {"liver": "1"}, {"liver": []}, {"liver": -1}, {"liver": True}, {"liver": 1.0}, ["liver"]],
)
def test_what_is_no_mapping_of_names_to_values_is_refused(labels: Any) -> None:
    with pytest.raises(RecipeError, match=r'expected \{"liver": 1|names no structure|cannot be read'):
        label_scheme(labels)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32, np.float64, np.uint32])
def test_label_maps_of_any_number_type_are_read(kind: type) -> None:
    scheme = label_scheme({"liver": 1, "tumor": 2, "spleen": 300})
    labels = np.array([0, 1, 2, 0 if kind == np.uint8 else 300], kind)[:, None, None]
    read = scheme.read(labels)
    assert read.dtype in (np.uint8, np.uint16)
    assert np.array_equal(read, labels)


def test_a_value_without_a_meaning_is_named() -> None:
    scheme = label_scheme({"liver": 1, "tumor": 2})
    for labels in (np.array([0, 1, 7], np.uint8), np.array([0, 1, 7.0]), np.array([0, 263], np.int64)):
        with pytest.raises(CaseError, match=r"does not know; found (7|263), expected 0 for background, liver"):
            scheme.read(labels[:, None, None])
    with pytest.raises(CaseError, match="found -1"):
        scheme.read(np.array([[[-1, 1]]]))
    with pytest.raises(CaseError, match=r"no labels; found 1.5.*mode nearest"):
        scheme.read(np.array([[[1.5, 1]]], np.float32))
    with pytest.raises(CaseError, match="no labels; found nan"):
        scheme.read(np.array([[[np.nan, 1]]], np.float32))


def test_masks_are_those_that_have_voxels_and_all_parts_of_wanted_organs() -> None:
    scheme = label_scheme({"kidney_left": 1, "kidney_right": 2, "kidney_tumor": [3, 4], "liver": 5, "spleen": 6})
    labels = np.zeros(GRID.shape, np.uint8)
    labels[0, 0, 0], labels[1, 1, 1], labels[2, 2, 0] = 1, 4, 6
    assert set(scheme.masks(labels, GRID)) == {"kidney_left", "kidney_lesion", "spleen"}
    masks = scheme.masks(labels, GRID, ["kidney"])
    assert set(masks) == {"kidney_left", "kidney_right", "kidney_lesion", "spleen"}
    assert np.array_equal(masks["kidney_lesion"].data, labels == 4)
    assert not masks["kidney_right"].data.any()
