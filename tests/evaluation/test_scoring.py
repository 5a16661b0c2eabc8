"""One case scored: what each policy does, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from masks import FLAT, balls, box, turned
from pydantic import ValidationError

from synthoma import files
from synthoma.cases import Case, Label
from synthoma.errors import CaseError, GeometryError
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe, score_case, score_labels
from synthoma.volume import Geometry, Volume

LESION = {"liver_lesion": None}
GRIDS = pytest.mark.parametrize("geometry", [FLAT, turned()], ids=["anisotropic", "oblique"])


def row(scores: CaseScores) -> dict[str, object]:
    (found,) = scores.rows
    return found


def case(**masks: Volume) -> Case:
    return Case("one", FLAT_SCAN, masks, patient="p", attributes={"phase": "portal"})


FLAT_SCAN = Volume(np.zeros(FLAT.shape, np.int16), FLAT)
NOTHING = Volume(np.zeros(FLAT.shape, bool), FLAT)
BALL = balls(FLAT, ((0.5, 0.5, 0.5), 12))


@GRIDS
def test_scores_of_two_balls_are_json_and_come_back(geometry: Geometry) -> None:
    truth = balls(geometry, ((0.3, 0.3, 0.4), 12), ((0.8, 0.8, 0.7), 6))
    predicted = balls(geometry, ((0.33, 0.3, 0.4), 12))
    found = score_labels(truth, predicted, LESION)
    assert CaseScores.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    entry = row(found)
    assert (entry["found"], entry["missed"], entry["false"], entry["lesions"]) == (1, 1, 0, 2)
    assert entry["outcome"] == "true positive"
    assert entry["dsc"] == pytest.approx(
        2 * (truth.data & predicted.data).sum() / (truth.data.sum() + predicted.data.sum())
    )


@pytest.mark.parametrize(
    ("truth", "predicted", "outcome", "dsc"),
    [
        (NOTHING, NOTHING, "true negative", None),
        (NOTHING, BALL, "false positive", 0.0),
        (BALL, NOTHING, "false negative", 0.0),
        (BALL, BALL, "true positive", 1.0),
    ],
)
def test_empty_masks_are_outcomes_and_never_a_silent_1(
    truth: Volume, predicted: Volume, outcome: str, dsc: object
) -> None:
    found = row(score_labels(truth, predicted, LESION))
    assert (found["outcome"], found["dsc"], found["nsd_2mm"]) == (outcome, dsc, dsc)


def test_labels_of_one_map_are_scored_by_their_values() -> None:
    data = BALL.data.astype(np.uint8)
    data[box(FLAT, (18, 16, 8), (21, 20, 10)).data] = 2
    found = score_labels(Volume(data, FLAT), Volume(data, FLAT), {"liver": (1, 2), "liver_lesion": (2,)})
    volumes = {entry["structure"]: entry["truth_ml"] for entry in found.rows}
    assert volumes["liver"] == pytest.approx(BALL.data.sum() * 0.002)
    assert volumes["liver_lesion"] == pytest.approx(24 * 0.002)
    assert "lesions" not in found.rows[0]


def test_order_in_memory_changes_nothing() -> None:
    first, second = balls(FLAT, ((0.4, 0.5, 0.5), 12)), balls(FLAT, ((0.5, 0.5, 0.6), 11))
    turned_round = Volume(np.asfortranarray(second.data), FLAT)
    plain, mixed = score_labels(first, second, LESION), score_labels(first, turned_round, LESION)
    assert mixed == plain


def test_probabilities_give_a_curve_and_scores() -> None:
    data = 0.9 * balls(FLAT, ((0.3, 0.3, 0.4), 12)).data + 0.35 * balls(FLAT, ((0.8, 0.8, 0.7), 8)).data
    found = score_labels(balls(FLAT, ((0.3, 0.3, 0.4), 12)), Volume(data.astype(np.float32), FLAT), LESION)
    entry = row(found)
    curve = {threshold: (hits, false) for threshold, hits, false in entry["curve"]}  # type: ignore[attr-defined]
    assert curve[0.3] == (1, 1)
    assert curve[0.5] == (1, 0)
    assert entry["score"] == pytest.approx(0.9)
    assert [lesion["score"] for lesion in found.lesions if lesion["side"] == "predicted"] == pytest.approx([0.9])


def test_another_grid_is_refused_with_the_offer_to_resample() -> None:
    finer = FLAT.resampled((0.4, 0.5, 1.25))
    predicted = balls(finer, ((0.5, 0.5, 0.5), 12))
    with pytest.raises(GeometryError, match="resample=true"):
        score_labels(BALL, predicted, LESION)
    found = row(score_labels(BALL, predicted, LESION, EvaluateRecipe(resample=True)))
    assert found["dsc"] > 0.9  # type: ignore[operator]


def test_probabilities_outside_0_to_1_name_the_case() -> None:
    wrong = Volume(np.full(FLAT.shape, 3.5, np.float32), FLAT)
    with pytest.raises(CaseError, match=r"one: .*outside 0 to 1"):
        score_case(case(liver_lesion=BALL), case(liver_lesion=wrong))


def test_a_structure_without_prediction_is_refused_counted_or_left_out() -> None:
    truth, predicted = case(liver=BALL, liver_lesion=BALL), case(liver=BALL)
    asked = ("liver", "liver_lesion")
    with pytest.raises(CaseError, match=r"no prediction of liver_lesion.*missing=empty"):
        score_case(truth, predicted, EvaluateRecipe(structures=asked))
    empty = score_case(truth, predicted, EvaluateRecipe(structures=asked, missing="empty"))
    assert [(entry["structure"], entry["dsc"]) for entry in empty.rows] == [("liver", 1.0), ("liver_lesion", 0.0)]
    assert empty.notes == ("liver_lesion: no prediction, counted as nothing found",)
    out = score_case(truth, predicted, EvaluateRecipe(structures=asked, missing="leave_out"))
    assert [entry["structure"] for entry in out.rows] == ["liver"]
    assert out.notes == ("liver_lesion: no prediction, left out",)


def test_what_is_not_annotated_is_not_scored_as_absent() -> None:
    recipe = EvaluateRecipe(structures=("liver", "liver_lesion"))
    found = score_case(case(liver=BALL), case(liver=BALL, liver_lesion=BALL), recipe)
    assert [entry["structure"] for entry in found.rows] == ["liver"]
    assert found.notes == ("liver_lesion: not annotated",)


def test_lesions_far_from_the_organ_count_only_without_the_restriction() -> None:
    organ = balls(FLAT, ((0.3, 0.5, 0.5), 16))
    lesion, far = balls(FLAT, ((0.3, 0.5, 0.5), 8)), balls(FLAT, ((0.3, 0.5, 0.5), 8), ((0.95, 0.9, 0.5), 5))
    truth, predicted = case(liver=organ, liver_lesion=lesion), case(liver_lesion=far)
    free = score_case(truth, predicted, EvaluateRecipe(structures=("liver_lesion",)))
    near = score_case(truth, predicted, EvaluateRecipe(structures=("liver_lesion",), within_mm=5))
    assert (row(free)["false"], row(near)["false"]) == (1, 0)
    assert row(near)["dsc"] == 1.0


def test_files_are_read_as_masks_label_maps_and_probabilities(tmp_path: Path) -> None:
    soft = Volume((0.8 * BALL.data).astype(np.float32), FLAT)
    labels = Volume(np.asfortranarray(BALL.data * np.uint8(2)), FLAT)
    for name, volume in {"mask": BALL, "soft": soft, "labels": labels}.items():
        files.write_volume(volume, tmp_path / f"{name}.nii.gz")
    truth = Case("one", FLAT_SCAN, {"liver_lesion": tmp_path / "mask.nii.gz"})
    for source in (tmp_path / "soft.nii.gz", Label(tmp_path / "labels.nii.gz", (2,))):
        found = score_case(truth, Case("one", FLAT_SCAN, {"liver_lesion": source}))
        assert row(found)["dsc"] == 1.0


def test_predicted_labels_outside_the_scheme_are_named(tmp_path: Path) -> None:
    files.write_volume(Volume(BALL.data * np.uint8(7), FLAT), tmp_path / "labels.nii.gz")
    predicted = Case("one", FLAT_SCAN, {"liver_lesion": Label(tmp_path / "labels.nii.gz", (2,))})
    with pytest.raises(CaseError, match="outside its scheme; found 7, expected 2"):
        score_case(case(liver_lesion=BALL), predicted)


@pytest.mark.parametrize("wrong", [{"tolerances_mm": (2, 1)}, {"sizes_mm": (0,)}, {"threshold": 0}, {"rule": "dice"}])
def test_recipes_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluateRecipe(**wrong)  # type: ignore[arg-type]
