"""Reading masks for scores: few planes at a time, ignored voxels, other grids, maps whose values nobody told."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from masks import FLAT, balls, box

from synthoma import files
from synthoma.cases import Case, Label
from synthoma.errors import CaseError, GeometryError
from synthoma.evaluation.masks import SingleMask
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe, score_case
from synthoma.volume import Geometry, Volume

TRUTH = box(FLAT, (5, 5, 5), (15, 15, 10))
SOFT = Volume(np.random.default_rng(0).random(FLAT.shape).astype(np.float32), FLAT)


def case_of(**masks: object) -> Case:
    return Case("c1", TRUTH, masks)  # type: ignore[arg-type]


def only(scores: CaseScores) -> dict[str, object]:
    (row,) = scores.rows
    return row


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_masks_are_never_held_whole(suffix: str, tmp_path: Path) -> None:
    geometry = Geometry.of((200, 200, 200), 1.0)
    for name, shift in (("truth", 0), ("predicted", 2)):
        mask = np.zeros(geometry.shape, np.uint8, order="F")
        mask[40 + shift : 90, 50:90, 60:100] = 1
        mask[180, 180, 180] = shift > 0
        files.write_volume(Volume(mask, geometry), tmp_path / f"{name}{suffix}")
    truth, predicted = (case_of(liver=tmp_path / f"{name}{suffix}") for name in ("truth", "predicted"))
    score_case(truth, predicted)  # imports
    tracemalloc.start()
    row = only(score_case(truth, predicted))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row["dsc"] == pytest.approx(2 * 48 * 1600 / (50 * 1600 + 48 * 1600 + 1))
    limit = 3.0 if suffix == ".nrrd" else 0.75  # its reader loads the whole file
    assert peak < limit * 200**3


@pytest.mark.parametrize("axes", ["RAS", "SPL", "ARI", "LPS"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_prediction_with_its_axes_in_another_order_is_on_the_same_grid(axes: str, soft: bool, tmp_path: Path) -> None:
    data = SOFT.data * TRUTH.data if soft else box(FLAT, (6, 5, 5), (16, 15, 11)).data
    predicted = Volume(np.asarray(data, np.float32 if soft else np.uint8), FLAT)
    files.write_volume(predicted.reorient(axes), tmp_path / "predicted.nii.gz")
    files.write_volume(Volume(TRUTH.data.view(np.uint8), FLAT), tmp_path / "truth.nii.gz")
    truth, settings = case_of(liver_lesion=tmp_path / "truth.nii.gz"), EvaluateRecipe(within_mm=None)
    expected = score_case(truth, case_of(liver_lesion=predicted), settings)
    found = score_case(truth, case_of(liver_lesion=tmp_path / "predicted.nii.gz"), settings)
    assert found == expected
    assert found.notes == ()


def test_a_shifted_prediction_is_refused_with_the_distance_and_one_advice() -> None:
    shifted = Geometry(FLAT.shape, FLAT.affine + np.pad([[2.0], [2.0], [2.5]], ((0, 1), (3, 0))))
    predicted = case_of(liver=Volume(TRUTH.data, shifted))
    with pytest.raises(GeometryError, match=r"found 3\.8 mm apart.*--set headers=truth") as caught:
        score_case(case_of(liver=TRUTH), predicted)
    assert str(FLAT) not in str(caught.value)
    moved = score_case(case_of(liver=TRUTH), predicted, EvaluateRecipe(headers="truth"))
    assert (only(moved)["dsc"], moved.notes) == (1.0, ("liver: header not believed (3.8 mm apart)",))
    resampled = score_case(case_of(liver=TRUTH), predicted, EvaluateRecipe(resample=True))
    assert resampled.notes == ("liver: resampled to the truth's grid (3.8 mm apart)",)
    assert only(resampled)["dsc"] < 0.9  # type: ignore[operator]


def test_a_lost_header_is_called_so() -> None:
    lost = case_of(liver=Volume(TRUTH.data, Geometry(FLAT.shape, np.eye(4))))
    with pytest.raises(GeometryError, match="a header without position and voxel size"):
        score_case(case_of(liver=TRUTH), lost)
    assert only(score_case(case_of(liver=TRUTH), lost, EvaluateRecipe(headers="truth")))["dsc"] == 1.0


def test_another_shape_is_refused_with_both_grids() -> None:
    finer = FLAT.resampled((0.4, 0.5, 1.25))
    with pytest.raises(GeometryError, match=r"80x72x36.*40x36x18.*resample=true"):
        score_case(case_of(liver=TRUTH), case_of(liver=balls(finer, ((0.5, 0.5, 0.5), 9))))


@pytest.mark.parametrize("soft", [False, True])
def test_ignored_voxels_take_part_in_no_score(soft: bool) -> None:
    lesion, far = box(FLAT, (5, 5, 5), (9, 9, 9)), box(FLAT, (30, 20, 5), (36, 26, 9))
    both = lesion.data | far.data
    predicted = Volume(both * np.float32(0.9) if soft else both, FLAT)
    ignored = box(FLAT, (26, 0, 0), (40, 36, 18))
    plain = case_of(liver_lesion=lesion)
    row = only(score_case(replace(plain, masks={**plain.masks, "ignore": ignored}), case_of(liver_lesion=predicted)))
    assert (row["dsc"], row["nsd_1mm"], row["hd95_mm"], row["false"], row["found"]) == (1.0, 1.0, 0.0, 0, 1)
    assert row["predicted_ml"] == row["truth_ml"]
    assert only(score_case(plain, case_of(liver_lesion=predicted)))["false"] == 1
    empty = replace(plain, masks={"liver_lesion": Volume(lesion.data & False, FLAT), "ignore": ignored})
    row = only(score_case(empty, case_of(liver_lesion=Volume(predicted.data * far.data, FLAT))))
    assert (row["outcome"], row["score"]) == ("true negative", 0.0)


def test_the_ignored_region_is_no_structure_to_score() -> None:
    ignored = box(FLAT, (26, 0, 0), (40, 36, 18))
    scores = score_case(case_of(liver=TRUTH, ignore=ignored), case_of(liver=TRUTH, ignore=TRUTH))
    assert [row["structure"] for row in scores.rows] == ["liver"]


def test_a_lone_map_with_several_values_is_never_taken_for_one_mask(tmp_path: Path) -> None:
    path = tmp_path / "case_0.nii.gz"
    files.write_volume(Volume(TRUTH.data.astype(np.uint8) * 255, FLAT), path)
    predicted = case_of(liver=SingleMask(path, "liver"))
    assert only(score_case(case_of(liver=TRUTH), predicted))["dsc"] == 1.0
    both = TRUTH.data.astype(np.uint8)
    both[7:9, 7:9, 7:9] = 2
    files.write_volume(Volume(both, FLAT), path)
    with pytest.raises(CaseError, match=r"case_0\.nii\.gz mean is not told; found 1, 2.*--labels NAME=1,NAME=2"):
        score_case(case_of(liver=TRUTH), predicted)


def test_whole_numbers_stored_as_float_are_a_mask(tmp_path: Path) -> None:
    import nibabel

    for name, value in (("ones", 1.0), ("full", 255.0)):
        image = nibabel.Nifti1Image(TRUTH.data.astype(np.float32) * value, FLAT.affine)
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
        mask = case_of(liver=tmp_path / f"{name}.nii.gz")
        assert only(score_case(case_of(liver=TRUTH), mask))["dsc"] == 1.0
        assert only(score_case(mask, case_of(liver=TRUTH)))["dsc"] == 1.0


def test_structures_of_one_map_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.nii.gz"
    files.write_volume(Volume(TRUTH.data.astype(np.uint8), FLAT), path)
    masks = {"liver": Label(path, (1, 2)), "liver_lesion": Label(path, (2,)), "ignore": Label(path, (3,))}
    opened, open_stored = [], files.open_stored

    def counted(where: Path, labels: bool = False) -> object:
        opened.append(where)
        return open_stored(where, labels)

    monkeypatch.setattr(files, "open_stored", counted)
    score_case(case_of(**masks), case_of(**masks))
    assert opened == [path, path]
