"""What a scan may show besides: arms, fluid, contrast in the bowel, metal, organs taken out, ends that are cut."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from synthoma.errors import RecipeError
from synthoma.phantom.anatomy.tissues import TISSUE_ID
from synthoma.phantom.cohort import CohortRecipe, InSilico, cohort_case, draw_visitor
from synthoma.phantom.hospitals import Hospital
from synthoma.recipe import make_recipe

COARSE = CohortRecipe(spacing_mm=5, noise_hu=2, sex="female")
QUIET = dict.fromkeys(("liver_cyst", "kidney_cyst", "clips", "stent", "gallstone", "fibroid", "lymph_node"), 0.0)
RESECTED = {"gall_bladder": 1.0, "kidney_left": 1.0, "uterus": 1.0, "liver_left": 1.0}


@cache
def visitor(special: bool) -> InSilico:
    """One woman as she is, or with all that can be unusual."""
    more: dict[str, Any] = {
        "arms": 1.0, "bowel_contrast": 1.0, "ascites": 1.0, "resected": RESECTED,
        "distractors": {**QUIET, "screws": 6.0},
    } if special else {"distractors": QUIET}  # fmt: skip
    return draw_visitor(7, COARSE, Hospital(name="place", tumors=0.0, women=1.0, **more), False)


def ml(drawn: InSilico, tissue: str) -> float:
    return float((drawn.abdomen.main == TISSUE_ID[tissue]).sum() * drawn.abdomen.fine.voxel_mm3 / 1000)


def test_a_hospital_without_such_keys_says_what_it_always_said() -> None:
    keys = {"lowest_mm", "highest_mm", "annotated", "arms", "bowel_contrast", "ascites", "resected"}
    assert not keys & set(Hospital(name="place").as_dict())
    assert visitor(False).abdomen.patient.absent == ()


def test_arms_lie_beside_the_body_and_widen_the_field_of_view() -> None:
    plain, drawn = visitor(False), visitor(True)
    width = [one.ct.geometry.shape[0] * one.ct.geometry.spacing_mm[0] for one in (plain, drawn)]
    assert width[1] - width[0] > 150
    middle = drawn.ct.data[:, :, drawn.ct.geometry.shape[2] // 2]
    columns = (middle > 250).any(axis=1)
    assert columns[: len(columns) // 5].any()
    assert columns[-len(columns) // 5 :].any()
    narrow = draw_visitor(7, COARSE, Hospital(name="place", tumors=0.0, arms=1.0, view_mm=(250, 250)), False)
    assert narrow.ct.geometry.shape[0] * 5 == pytest.approx(250, abs=10)


def test_ascites_is_water_around_organs_that_keep_their_size() -> None:
    plain, drawn = visitor(False), visitor(True)
    assert ml(plain, "ascites") == 0
    assert ml(drawn, "ascites") > 150
    fluid = drawn.abdomen.main == TISSUE_ID["ascites"]
    assert -30 < np.median(drawn.ct.data[fluid]) < 45
    assert ml(drawn, "spleen") > 0.75 * ml(plain, "spleen")


def test_contrast_in_the_bowel_is_bright() -> None:
    for structure in ("intestine_contents", "stomach_contents"):
        levels = [
            float(np.median(one.ct.data[one.abdomen.main == TISSUE_ID[structure]]))
            for one in (visitor(False), visitor(True))
        ]
        assert levels[0] < 60
        assert levels[1] > levels[0] + 70


def test_what_was_taken_out_is_annotated_and_absent() -> None:
    plain, drawn = visitor(False), visitor(True)
    for structure in ("gall_bladder", "kidney_left", "uterus"):
        assert plain.mask(structure).data.any()
        assert not drawn.mask(structure).data.any()
    assert drawn.mask("kidney_right").data.any()
    assert 0.4 < ml(drawn, "liver") / ml(plain, "liver") < 0.95


def test_screws_throw_streaks_into_their_slices() -> None:
    drawn = visitor(True)
    screws = [finding for finding in drawn.abdomen.findings if finding.kind == "screw"]
    assert screws
    assert not any(finding.tumor for finding in screws)
    k = round(float(screws[0].center()[2]))
    assert drawn.ct.data[:, :, k].max() > 900
    assert visitor(False).ct.data[:, :, k].max() < 900


def test_scans_end_where_the_hospital_ends_them() -> None:
    cut = draw_visitor(7, COARSE, Hospital(name="place", tumors=0.0, lowest_mm=(40, 60), highest_mm=(130, 150)), False)
    z = cut.ct.geometry.to_mm(np.array([[0, 0, -0.5], [0, 0, cut.ct.geometry.shape[2] - 0.5]]))[:, 2]
    assert 65 < z[1] - z[0] < 130
    liver = cut.mask("liver").data
    assert liver[:, :, -1].any()
    assert not cut.mask("bladder").data.any()


def test_what_a_hospital_did_not_annotate_is_missing_and_not_empty() -> None:
    kidneys = Hospital(name="kidneys", annotated=("kidney", "kidney_lesion"), tumors=0.0)
    recipe = CohortRecipe(spacing_mm=10, hospitals=(kidneys, Hospital(name="all", tumors=0.0)), cases=2)
    partial, whole = cohort_case(recipe, 0), cohort_case(recipe, 1)
    assert set(partial.masks) == {"kidney_left", "kidney_right", "kidney_lesion"}
    assert not partial.read_mask("kidney_lesion").data.any()
    assert partial.attributes["healthy"] is False  # nobody has looked at the other organs
    assert whole.attributes["healthy"] is True
    assert "pancreas_lesion" in whole.masks


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("annotated", ["kidneys"], "no structure kidneys"),
        ("resected", {"heart": 0.1}, "cannot be taken out: heart"),
        ("arms", 1.5, "arms"),
        ("lowest_mm", [50, 10], "lower value first"),
    ],
)
def test_what_cannot_be_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_recipe(Hospital, {"name": "place", key: value})


def test_an_organ_with_tumors_is_not_taken_out() -> None:
    hospital = Hospital(name="place", kinds={"papillary": 1.0}, resected={"kidney_left": 1.0, "spleen": 1.0})
    recipe = CohortRecipe(spacing_mm=10)
    visit = draw_visitor(3, recipe, hospital, True).visit
    assert visit is not None
    assert visit.absent == ("spleen",)
