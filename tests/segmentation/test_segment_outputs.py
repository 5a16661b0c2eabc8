"""What segmenting finds at a path, what it writes, and that evaluation reads it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from stubs import dice, phantom, spec, threshold_model

from synthoma import disk, files
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.datasets.writing import write_case
from synthoma.engine import mapping
from synthoma.errors import CaseError, FileError, RunError, SynthomaError
from synthoma.evaluation.pairing import pair_cases, score_pair
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.learning.models import Model, save_model
from synthoma.learning.networks import build_network
from synthoma.segmentation.infer import SegmentRecipe
from synthoma.segmentation.outputs import find_inputs, segment_case
from synthoma.volume import Geometry, Volume

GRID = Geometry.of((60, 50, 24), (1.8, 2.0, 4.0), "LPS")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A data set of two cases, one without a tumor."""
    for name, tumor_mm in (("sick", 14), ("well", 0)):
        ct, organ, tumor = phantom(GRID, 34, tumor_mm)
        masks = {"liver": Volume(organ, GRID), "liver_lesion": Volume(tumor & (tumor_mm > 0), GRID)}
        write_case(
            Case(name, Volume(np.where(tumor_mm, ct.data, np.minimum(ct.data, 100)), GRID), masks), tmp_path / name
        )
    return tmp_path


def test_masks_scores_and_record_of_a_case_are_read_back(truth: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dataset = open_dataset(truth)
    result = segment_case(dataset["sick"], threshold_model(), SegmentRecipe(with_scan=True), "cpu", out, True)
    assert result["windows"] == 4
    (lesion,) = result["lesions"]
    assert lesion["score"] > 0.9
    assert lesion["volume_ml"] == pytest.approx(result["volumes_ml"]["liver_lesion"])
    found = open_dataset(out)["sick"]
    assert found.read_geometry() == dataset["sick"].read_geometry()
    assert dice(dataset["sick"].read_mask("liver").data, found.read_mask("liver").data) > 0.95
    record = disk.read_json(out / "sick/case.json")
    assert record["lesions"][0]["score"] == lesion["score"]
    assert record["cuts"] == {"liver_lesion": {"threshold": 0.5, "peak": 0.0, "smallest_mm3": 15.0, "least_hu": None}}
    scores = files.read_image(out / "sick/scores/liver_lesion.nii.gz")
    assert scores.data.dtype == np.float32
    assert scores.data.max() <= 1
    np.testing.assert_array_equal(scores.data >= 0.5, found.read_mask("liver_lesion").data)
    chance = files.read_image(out / "sick/probabilities/liver.nii.gz")
    np.testing.assert_array_equal(chance.data >= 0.5, found.read_mask("liver").data)


def test_what_is_left_out_as_a_cyst_is_told(truth: Path, tmp_path: Path) -> None:
    case, recipe = open_dataset(truth)["sick"], SegmentRecipe(least_hu={"liver_lesion": 1000.0})
    result = segment_case(case, threshold_model(), recipe, "cpu", tmp_path / "out")
    assert result["notes"] == [
        "1 darker than 1000 HU taken for cysts and left out of liver_lesion (case.json says where; "
        "--set least_hu.liver_lesion=-1024 keeps them)"
    ]
    record = disk.read_json(tmp_path / "out/sick/case.json")
    assert record["lesions"] == []
    (cyst,) = record["cysts"]
    assert cyst["volume_ml"] > 0.5
    assert cyst["hu"] < 1000
    plain = segment_case(case, threshold_model(), SegmentRecipe(), "cpu", tmp_path / "plain")
    assert plain["notes"] == []
    assert disk.read_json(tmp_path / "plain/sick/case.json")["cysts"] == []


def test_a_case_that_is_segmented_again_and_fails_leaves_no_old_masks(truth: Path, tmp_path: Path) -> None:
    case, out = open_dataset(truth)["sick"], tmp_path / "out"
    segment_case(case, threshold_model(), SegmentRecipe(), "cpu", out)
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    with pytest.raises(FileError):
        segment_case(replace(case, image=tmp_path / "broken.nii.gz"), threshold_model(), SegmentRecipe(), "cpu", out)
    assert not (out / "sick").exists()
    with pytest.raises(CaseError, match="would lie in the data"):
        segment_case(case, threshold_model(), SegmentRecipe(), "cpu", truth)
    assert open_dataset(truth)["sick"].masks


def test_the_same_case_gives_the_same_bytes(truth: Path, tmp_path: Path) -> None:
    case = open_dataset(truth)["sick"]
    for name in ("one", "two"):
        segment_case(case, threshold_model(), SegmentRecipe(), "cpu", tmp_path / name)
    written = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(written) == 4
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_evaluate_reads_masks_and_scores_as_segment_wrote_them(truth: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dataset = open_dataset(truth)
    segment = partial(segment_case, model=threshold_model(steepness=10), recipe=SegmentRecipe(), device="cpu", out=out)
    records = mapping.map_cases(segment, dataset.cases)
    assert [record.status for record in records] == ["done", "done"]
    recipe = EvaluateRecipe(distances=False)
    pairs = pair_cases(dataset, out, recipe)
    assert set(pairs.structures) == {"liver", "liver_lesion"}
    scores = {pair.id: score_pair(pair, pairs.structures, recipe) for pair in pairs.pairs}
    rows = {row["structure"]: row for row in scores["sick"]["rows"]}
    assert rows["liver"]["dsc"] > 0.95
    assert rows["liver_lesion"]["found"] == 1
    assert rows["liver_lesion"]["false"] == 0
    assert len(rows["liver_lesion"]["curve"]) == 9
    (mine,) = [row["score"] for row in scores["sick"]["lesions"] if row["side"] == "predicted"]
    assert mine == pytest.approx(records[0].result["lesions"][0]["score"])
    well = {row["structure"]: row for row in scores["well"]["rows"]}["liver_lesion"]
    assert well["outcome"] == "true negative"
    assert 0 < well["score"] < 0.5


def test_a_model_travels_as_a_path_and_is_loaded_where_it_is_used(truth: Path, tmp_path: Path) -> None:
    known = spec((16, 16, 16), 8.0)
    save_model(tmp_path / "model.safetensors", Model(build_network(known.network, 2).eval(), known))
    segment = partial(
        segment_case, model=tmp_path / "model.safetensors", recipe=SegmentRecipe(), device="cpu", out=tmp_path / "out"
    )
    segment = pickle.loads(pickle.dumps(segment))
    assert segment(open_dataset(truth)["sick"])["windows"] > 0
    assert (tmp_path / "out/sick/segmentations/liver.nii.gz").exists()


def test_a_lone_image_a_case_and_a_data_set_are_found(truth: Path, tmp_path: Path) -> None:
    assert [case.id for case in find_inputs(truth)] == ["sick", "well"]
    assert [case.id for case in find_inputs(truth / "sick")] == ["sick"]
    assert [case.id for case in find_inputs(truth / "sick/ct.nii.gz")] == ["sick"]
    lone = tmp_path / "elsewhere" / "Some scan.nrrd"
    lone.parent.mkdir()
    files.write_volume(Volume(np.zeros((4, 4, 4), np.int16), Geometry.of((4, 4, 4))), lone)
    (case,) = find_inputs(lone)
    assert case.read_image().data.shape == (4, 4, 4)
    assert "Some" in case.id
    (tmp_path / "notes.txt").write_text("no scan")
    for path in (tmp_path / "notes.txt", tmp_path / "nothing.nii.gz"):
        with pytest.raises(SynthomaError):
            find_inputs(path)


def test_what_goes_wrong_names_the_case_and_writes_no_record(truth: Path, tmp_path: Path) -> None:
    case = open_dataset(truth)["sick"]
    with pytest.raises(RunError, match=r"sick: the scan needs more memory .* at most 0\.00 GB \(memory_gb\); lower"):
        segment_case(case, threshold_model(), SegmentRecipe(memory_gb=0.001), "cpu", tmp_path / "out")
    hu = np.full(GRID.shape, np.nan, np.float32)
    with pytest.raises(CaseError, match="sick: the scan holds NaN"):
        segment_case(replace(case, image=Volume(hu, GRID)), threshold_model(), SegmentRecipe(), "cpu", tmp_path / "out")
    with pytest.raises(CaseError, match="sick: the liver is not annotated"):
        segment_case(
            replace(case, masks={}), threshold_model(), SegmentRecipe(inside_organ="given"), "cpu", tmp_path / "out"
        )
    assert not (tmp_path / "out/sick/case.json").exists()


def test_a_scan_that_holds_nothing_is_told(tmp_path: Path) -> None:
    case = Case("dark", Volume(np.full(GRID.shape, -1000, np.int16), GRID))
    result = segment_case(case, threshold_model(), SegmentRecipe(), "cpu", tmp_path)
    assert result["volumes_ml"] == {"liver": 0, "liver_lesion": 0}
    assert "is it a CT?" in result["notes"][0]


def test_the_record_names_the_model_and_no_place_on_this_machine(truth: Path, tmp_path: Path) -> None:
    known = spec((16, 16, 16), 8.0)
    model = tmp_path / "ann" / "model.safetensors"
    save_model(model, Model(build_network(known.network, 2).eval(), known))
    result = segment_case(open_dataset(truth)["sick"], model, SegmentRecipe(), "cpu", tmp_path / "out")
    text = (tmp_path / "out/sick/case.json").read_text()
    assert str(tmp_path) not in text + json.dumps(result)
    told = json.loads(text)["provenance"]
    assert (told["model"], told["model_digest"]) == ("model.safetensors", disk.digest(model))
