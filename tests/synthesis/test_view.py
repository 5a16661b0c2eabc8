"""Looking at a tumor: before and after, in a notebook too."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from synthesis.patients import OBLIQUE, RECIPE, UPRIGHT, patient
from synthoma import reading
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.volume import Box, Geometry

MANY = RECIPE.with_changes(organs=("liver",), lesions=(3, 3), mass_effect_share=1.0)


@pytest.mark.parametrize("geometry", [UPRIGHT, OBLIQUE], ids=["upright", "oblique"])
def test_before_is_the_healthy_scan_and_after_has_every_tumor(geometry: Geometry) -> None:
    case = patient("p", geometry)
    made = insert_tumors(case, MANY, seed=3)
    for number, tumor in enumerate(made.inserted, start=1):
        view = made.view(number)
        assert view.before.geometry == view.after.geometry == view.mask.geometry
        assert int(view.mask.data.sum()) == int(tumor.mask.sum())
        first = np.rint(made.geometry.to_ijk(view.before.geometry.to_mm((0, 0, 0)))).astype(int)
        box = Box(tuple(first.tolist()), tuple((first + view.before.geometry.shape).tolist()))
        assert np.array_equal(view.before.data, case.read_image().reorient(made.frame).data[box.slices])
        assert np.array_equal(view.after.data, made.ct.reorient(made.frame).data[box.slices])
    with pytest.raises(CaseError, match="p: no tumor 4; expected 1 to 3"):
        made.view(4)


def size_of(png: bytes | None) -> tuple[int, ...]:
    assert png is not None
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape


def test_a_notebook_shows_cases_syntheses_and_tumors() -> None:
    case = patient("p")
    made = insert_tumors(case, MANY, seed=3)
    assert reading.Case.draw is not None
    assert min(size_of(case._repr_png_())[:2]) > 200
    assert size_of(made._repr_png_())[1] > 3 * 220
    assert min(size_of(made.view(1)._repr_png_())[:2]) > 600
    none = insert_tumors(case, MANY.with_changes(probability=0.0))
    assert none._repr_png_() is None
    assert repr(none).startswith("<Synthesis p: tumors none; 0 plans rejected; portal; ")
    assert repr(made).startswith("<Synthesis p: tumors liver 3; ")
    assert repr(made.view(2)).startswith("<TumorView p: tumor 2, liver, portal phase, planned ")


def test_without_the_door_a_case_has_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Case, "draw", None)
    assert patient("p")._repr_png_() is None
