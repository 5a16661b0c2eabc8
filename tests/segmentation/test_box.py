"""The model in the box: small, with its record, and of use on scans it has never seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthoma.cases import Case
from synthoma.evaluation.scoring import EvaluateRecipe, score_case
from synthoma.learning.models import BOX, load_model, models_in_the_box
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.phantom.hospitals import Hospital
from synthoma.reading import read_case
from synthoma.segmentation.infer import segment

ILL = Hospital(name="elsewhere", tumors=1.0, kinds={"metastasis": 1.0}, diameter_mm=(25, 50), lesions=(1, 1))
GUARD = CohortRecipe(
    name="new", seed=77, region="liver", structures=("liver", "liver_lesion"), hospitals=(ILL,), spacing_mm=2.5
)
QUICK = EvaluateRecipe(distances=False, tolerances_mm=(2.0,))


def scores_of(case: Case, name: str = "liver-small") -> dict[str, float | None]:
    model = load_model(name)
    masks = segment(model, case.read_image(), device="cpu").masks
    known = Case(case.id, case.image, {name: case.masks[name] for name in masks if name in case.masks})
    rows = score_case(known, Case(case.id, case.image, masks), QUICK).rows
    return {row["structure"]: row["dsc"] for row in rows}


def test_every_model_in_the_box_is_small_and_says_where_it_comes_from() -> None:
    names = models_in_the_box()
    assert "liver-small" in names
    for name in names:
        assert (BOX / f"{name}.safetensors").stat().st_size < 8_000_000
        record = load_model(name).record
        assert record["name"] == name
        assert record["data"]["real_tumor_labels"] == 0
        assert record["training"]["recipe"]["organs"]
        assert record["figures"]


def test_it_finds_natural_tumors_of_a_patient_it_has_never_seen() -> None:
    patient = cohort_case(GUARD, 0)
    for name, least in (("liver-small", 0.5), ("abdomen-small", 0.4)):
        found = scores_of(patient, name)
        assert (found["liver"] or 0) > 0.9
        assert (found["liver_lesion"] or 0) > least


ORGANS = ("liver", "pancreas", "kidney_left", "kidney_right", "colon", "esophagus", "kidney_lesion")
KIDNEY = Hospital(name="elsewhere", tumors=1.0, kinds={"clear_cell": 1.0}, diameter_mm=(35, 50), lesions=(1, 1))
ABDOMEN = CohortRecipe(name="new", seed=78, structures=ORGANS, hospitals=(KIDNEY,), spacing_mm=3.0)
# model -> patient, and class -> DSC and ml; a change here is a change of the model or of the way to use it
RECORDED = {
    "liver-small": (GUARD, {"liver": (0.9740, 1485.9), "liver_lesion": (0.8578, 14.578)}),
    "abdomen-small": (
        ABDOMEN,
        {
            "liver": (0.9666, 1826.9), "pancreas": (0.8461, 55.32), "kidney": (0.9521, 315.0), "colon": (0.8805, 869.6),
            "esophagus": (0.7039, 39.39), "kidney_lesion": (0.8430, 59.62),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_models_in_the_box_say_what_they_said(name: str) -> None:
    """Guards against silent change of weights, preparation, windows or thresholds."""
    assert set(RECORDED) == set(models_in_the_box())
    patient, recorded = RECORDED[name]
    case = cohort_case(patient, 0)
    found = segment(load_model(name), case.read_image(), device="cpu").masks
    for structure, (dsc, ml) in recorded.items():
        mask = found[structure].data
        truth = (case.read_organ("kidney") if structure == "kidney" else case.read_mask(structure)).data
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) == pytest.approx(dsc, abs=0.002), structure
        assert mask.sum() * found[structure].geometry.voxel_mm3 / 1000 == pytest.approx(ml, rel=0.005), structure


@pytest.mark.parametrize("name", ["crlm_1004", "crlm_1006"])
def test_it_segments_the_liver_of_a_real_patient_it_has_never_seen(real_data: Path, name: str) -> None:
    assert (scores_of(read_case(real_data / name))["liver"] or 0) > 0.85


@pytest.mark.parametrize(
    ("case", "organs"), [("totalseg_3mm", ("liver", "kidney", "colon")), ("crlm_1004", ("liver", "kidney"))]
)
def test_the_model_of_six_organs_outlines_organs_of_real_scans_it_has_never_seen(
    real_data: Path, case: str, organs: tuple[str, ...]
) -> None:
    known = read_case(real_data / case)
    masks = segment(load_model("abdomen-small"), known.read_image(), device="cpu").masks
    least = {"liver": 0.9, "kidney": 0.85, "colon": 0.6}  # the goals of its training
    for organ in organs:
        mask, truth = masks[organ].data, known.read_organ(organ).data
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > least[organ], organ
