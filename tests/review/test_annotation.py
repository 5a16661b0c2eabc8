"""From proposals to accepted lesions: what readers can say, stage after stage."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from review.review_studies import SHAPE, Client, annotation, balls, grid, write_data
from synthoma import files
from synthoma.errors import CaseError, GeometryError, RecipeError
from synthoma.evaluation.pairing import open_predictions
from synthoma.reading import open_dataset
from synthoma.recipe import make_recipe
from synthoma.review import frames
from synthoma.review.annotation import create_study
from synthoma.review.recipes import AnnotateRecipe
from synthoma.review.store import Store
from synthoma.volume import Geometry, Volume

SENIOR_JUNIOR = (
    {"name": "screen", "role": "senior", "tools": "screen"},
    {"name": "refine", "role": "junior"},
    {"name": "sign", "role": "senior"},
)


def judged(content: dict[str, Any], *statuses: str) -> dict[str, Any]:
    candidates = [entry | {"status": s} for entry, s in zip(content["candidates"], statuses, strict=True)]
    return content | {"candidates": candidates}


def test_a_case_goes_from_proposals_to_accepted_voxels(tmp_path: Path) -> None:
    kind = annotation(tmp_path)
    client = Client(kind)
    code = client.work()[0]["code"]
    task = client.task(code)
    assert task["shape"] == list(SHAPE)
    assert [entry["status"] for entry in task["state"]["content"]["candidates"]] == ["open", "open"]
    content = judged(task["state"]["content"], "accepted", "rejected")
    assert client.answer(code, content, 0, final=True).json() == {"number": 1}
    mask = kind.accepted_mask(kind.store.items()[0])
    proposals = balls((8, 8, 5), (22, 18, 7)).data > 0
    assert mask.data.any()
    assert (mask.data <= proposals).all()
    assert mask.data.sum() * 2 == proposals.sum()
    assert client.work()[0]["done"]


def test_a_drawn_mask_is_kept_on_the_scans_grid(tmp_path: Path) -> None:
    kind = annotation(tmp_path)
    client = Client(kind)
    code = client.work()[1]["code"]
    drawn = balls((12, 20, 4))
    box, packed = frames.pack(drawn)
    labels = frames.unpack(box, packed, grid())
    screen = labels.reorient(frames.SCREEN).data
    part = tuple(slice(low, low + n) for low, n in zip(box[:3], box[3:], strict=True))
    digest = client.send_mask(code, box, screen[part].tobytes(order="F")).json()["digest"]
    content = {"candidates": [{"label": 1, "status": "accepted", "origin": "reader"}], "verdict": ""}
    assert client.answer(code, content, 0, mask=digest, final=True).status_code == 200
    mask = kind.accepted_mask(kind.store.items()[1])
    np.testing.assert_array_equal(mask.data, drawn.data > 0)
    assert mask.geometry == kind.dataset["bob_jones"].read_geometry()
    again = client.task(code)
    assert again["state"]["mask"] == digest
    assert again["box"] == box


def test_the_scan_arrives_whole(tmp_path: Path) -> None:
    kind = annotation(tmp_path)
    client = Client(kind)
    voxels = np.frombuffer(client.get(f"/api/task/{client.work()[0]['code']}/scan/0").content, "<i2")
    scan = kind.dataset["ann_smith"].read_image().reorient(frames.SCREEN).data
    np.testing.assert_array_equal(voxels.reshape(scan.shape, order="F"), scan)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c, "2 candidates are still open"),
        (lambda c: judged(c, "accepted", "rejected") | {"verdict": "no tumor"}, "take the verdict back"),
        (lambda c: c | {"candidates": [c["candidates"][0]] * 2}, "same number"),
        (lambda c: c | {"verdict": "maybe"}, "not complete"),
        (lambda c: judged(c, "accepted", "perhaps"), "not complete"),
    ],
)
def test_what_cannot_be_finished_is_refused_with_a_sentence(tmp_path: Path, change: Any, sentence: str) -> None:
    client = Client(annotation(tmp_path))
    code = client.work()[0]["code"]
    answer = client.answer(code, change(client.task(code)["state"]["content"]), 0, final=True)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]
    assert client.task(code)["state"]["number"] == 0


def test_a_second_tab_cannot_overwrite_the_first(tmp_path: Path) -> None:
    client = Client(annotation(tmp_path))
    code = client.work()[0]["code"]
    content = client.task(code)["state"]["content"]
    assert client.answer(code, content, 0, key="tab one 1").status_code == 200
    answer = client.answer(code, content, 0, key="tab two 1")
    assert answer.status_code == 409
    assert "another tab" in answer.json()["error"]


def test_stages_follow_each_other_and_keep_what_was_said(tmp_path: Path) -> None:
    kind = annotation(tmp_path, stages=SENIOR_JUNIOR, readers=("senior", "junior"))
    senior, junior = Client(kind, 0), Client(kind, 1)
    assert (len(senior.work()), len(junior.work())) == (2, 0)
    code = senior.work()[0]["code"]
    screened = judged(senior.task(code)["state"]["content"], "accepted", "rejected")
    senior.answer(code, screened, 0, final=True)
    (following,) = junior.work()
    assert junior.task(following["code"])["state"]["content"] == screened
    assert kind.last_answers(kind.store.items()[0]) == []
    junior.answer(following["code"], screened, 0, final=True)
    assert len([task for task in senior.work() if task["stage"] == 2]) == 1


def test_a_stage_that_has_begun_closes_the_one_before(tmp_path: Path) -> None:
    kind = annotation(tmp_path, stages=SENIOR_JUNIOR, readers=("senior", "junior"))
    senior, junior = Client(kind, 0), Client(kind, 1)
    code = senior.work()[0]["code"]
    content = judged(senior.task(code)["state"]["content"], "accepted", "rejected")
    senior.answer(code, content, 0, final=True)
    assert senior.answer(code, content, 1, final=True).status_code == 200  # nobody has begun: a second thought is fine
    assert len(junior.work()) == 1
    junior.answer(junior.work()[0]["code"], content, 0)
    answer = senior.answer(code, content, 2)
    assert answer.status_code == 422
    assert "next stage has begun" in answer.json()["error"]


def test_readers_who_differ_leave_a_disputed_candidate(tmp_path: Path) -> None:
    stages = ({"name": "read", "role": "junior", "readings": 2}, {"name": "settle", "role": "senior"})
    kind = annotation(tmp_path, stages=stages, readers=("junior", "junior", "senior"))
    readers = [Client(kind, number) for number in range(3)]
    content = readers[0].task(readers[0].work()[0]["code"])["state"]["content"]
    for reader, statuses in zip(readers, (("accepted", "rejected"), ("accepted", "accepted")), strict=False):
        reader.answer(reader.work()[0]["code"], judged(content, *statuses), 0, final=True)
    (task,) = readers[2].work()
    found = readers[2].task(task["code"])["state"]["content"]["candidates"]
    assert [(entry["status"], entry["disputed"]) for entry in found] == [("accepted", False), ("open", True)]


def test_two_readers_of_one_stage_are_joined_by_majority(tmp_path: Path) -> None:
    stages = ({"name": "read", "role": "reader", "readings": 3},)
    kind = annotation(tmp_path, stages=stages, readers=("reader",) * 3)
    for number, statuses in enumerate((("accepted", "rejected"), ("accepted", "rejected"), ("rejected", "accepted"))):
        client = Client(kind, number)
        code = client.work()[0]["code"]
        client.answer(code, judged(client.task(code)["state"]["content"], *statuses), 0, final=True)
    assert kind.accepted_mask(kind.store.items()[0]).data.sum() * 2 == (balls((8, 8, 5), (22, 18, 7)).data > 0).sum()


def test_a_case_removed_meanwhile_is_a_sentence_without_its_name(tmp_path: Path) -> None:
    client = Client(annotation(tmp_path))
    code = client.work()[0]["code"]
    shutil.rmtree(tmp_path / "data" / "ann_smith")
    for path in ("", "/scan/0", "/labels"):
        answer = client.get(f"/api/task/{code}{path}")
        assert answer.status_code == 410
        assert "can no longer be read" in answer.json()["error"]
        assert "smith" not in answer.text


def test_proposals_of_other_cases_are_refused(tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    for name in ("ann_smith", "bob_jones"):
        (proposals / name).rename(proposals / f"{name}_2")
    (tmp_path / "study").mkdir()
    with pytest.raises(CaseError, match=r"no case of .* has a proposal"):
        create_study(
            Store(tmp_path / "study"),
            open_dataset(data),
            open_predictions(proposals, open_dataset(data)),
            AnnotateRecipe(),
            None,
        )


def test_a_proposal_on_another_grid_is_refused_and_leaves_no_item(tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    other = Volume(np.zeros((8, 8, 8), np.uint8), Geometry.of((8, 8, 8)))
    files.write_volume(other, proposals / "bob_jones" / "segmentations" / "liver_lesion.nii.gz")
    (tmp_path / "study").mkdir()
    store = Store(tmp_path / "study")
    with pytest.raises(GeometryError, match=r"bob_jones.*grid differs"):
        create_study(store, open_dataset(data), open_predictions(proposals, open_dataset(data)), AnnotateRecipe(), None)
    assert store.items() == store.readers() == []


def test_candidates_come_from_scores_until_somebody_changes_the_mask(tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    masks, scores = (proposals / "ann_smith" / name / "liver_lesion.nii.gz" for name in ("segmentations", "scores"))
    strong, weak = (balls(center).data.astype(np.float32) for center in ((8, 8, 5), (22, 18, 7)))
    files.write_volume(Volume(0.9 * strong + 0.3 * weak, grid()), scores)
    files.write_volume(Volume((strong > 0).astype(np.uint8), grid()), masks)

    def candidates(study: str) -> tuple[list[dict[str, Any]], list[str]]:
        (tmp_path / study).mkdir()
        store, dataset = Store(tmp_path / study), open_dataset(data)
        recipe = AnnotateRecipe(least_score=0.2)
        notes = create_study(store, dataset, open_predictions(proposals, dataset), recipe, None)
        return store.items()[0].facts["candidates"], notes

    found, notes = candidates("scored")
    assert [entry["score"] for entry in found] == [pytest.approx(0.9, abs=0.01), pytest.approx(0.3, abs=0.01)]
    assert not notes
    files.write_volume(Volume((weak > 0).astype(np.uint8), grid()), masks)  # the other one, drawn by hand
    found, notes = candidates("corrected")
    assert [entry["score"] for entry in found] == [None]
    assert notes == ["ann_smith: the mask of liver_lesion was changed after its scores were made; they are left out"]


def test_a_data_set_without_proposals_starts_empty(tmp_path: Path) -> None:
    data, _ = write_data(tmp_path)
    (tmp_path / "study").mkdir()
    store, dataset = Store(tmp_path / "study"), open_dataset(data)
    with pytest.raises(CaseError, match="say which lesions"):
        create_study(store, dataset, None, AnnotateRecipe(), None)
    create_study(store, dataset, None, AnnotateRecipe(structures=("liver_lesion",)), None)
    assert [item.facts["candidates"] for item in store.items()] == [[], []]


def test_a_stage_needs_readers_of_its_role() -> None:
    with pytest.raises(RecipeError, match="needs 1 readers with the role senior"):
        make_recipe(AnnotateRecipe, {"stages": [{"role": "senior"}]})


def test_what_was_not_drawn_on_stays_through_reloads_and_stages(tmp_path: Path) -> None:
    kind = annotation(tmp_path, stages=SENIOR_JUNIOR, readers=("senior", "junior"))
    senior, junior = Client(kind, 0), Client(kind, 1)
    code = senior.work()[0]["code"]
    proposed = senior.get(f"/api/task/{code}/labels").content
    content = judged(senior.task(code)["state"]["content"], "accepted", "accepted")
    senior.answer(code, content, 0)
    assert senior.get(f"/api/task/{code}/labels").content == proposed
    drawn = balls((15, 10, 5))
    box, packed = frames.pack(drawn)
    digest = senior.send_mask(code, box, zlib.decompress(packed)).json()["digest"]
    one = {"candidates": content["candidates"][:1], "verdict": ""}
    senior.answer(code, one, 1, mask=digest, final=True)
    later = junior.work()[0]["code"]
    assert junior.task(later)["box"] == box
    junior.answer(later, one, 0, final=True)  # nothing drawn in this stage
    last = next(task["code"] for task in senior.work() if task["stage"] == 2)
    senior.answer(last, one, 0, final=True)
    np.testing.assert_array_equal(kind.accepted_mask(kind.store.items()[0]).data, drawn.data > 0)


def test_a_mask_goes_to_another_tool_and_comes_back(tmp_path: Path) -> None:
    client = Client(annotation(tmp_path))
    one, two = (task["code"] for task in client.work())
    path = tmp_path / "lesions.nii.gz"
    path.write_bytes(client.get(f"/api/task/{one}/nifti").content)
    labels = files.read_labels(path)
    np.testing.assert_array_equal(labels.data > 0, balls((8, 8, 5), (22, 18, 7)).data > 0)
    drawn = Volume(balls((12, 20, 4)).data * 9, labels.geometry)
    files.write_volume(drawn, path)
    answer = client.post(f"/api/task/{two}/nifti", path.read_bytes(), **{"content-type": "application/octet-stream"})
    box, packed = answer.content.split(b"\n", 1)
    np.testing.assert_array_equal(frames.unpack(json.loads(box), packed, labels.geometry).data, drawn.data)


@pytest.mark.parametrize("spoil", ["nonsense", "cut", "other grid", "turned", "large values", "fractions"])
def test_a_mask_file_that_is_none_is_a_sentence(tmp_path: Path, spoil: str) -> None:
    client = Client(annotation(tmp_path))
    code, path = client.work()[0]["code"], tmp_path / "mask.nii.gz"
    geometry = files.read_geometry(tmp_path / "data" / "ann_smith" / "ct.nii.gz")
    mask = Volume(np.ones(SHAPE, np.uint8), geometry)
    written = {
        "other grid": Volume(np.ones((4, 4, 4), np.uint8), Geometry.of((4, 4, 4))),
        "turned": Volume(mask.data, Geometry(SHAPE, geometry.affine @ np.diag([1, -1, 1, 1]))),
        "large values": Volume(mask.data.astype(np.uint16) * 300, geometry),
        "fractions": Volume(mask.data * np.float32(0.5), geometry),
    }.get(spoil, mask)
    files.write_volume(written, path)
    body = {"nonsense": b"nothing", "cut": path.read_bytes()[:60]}.get(spoil, path.read_bytes())
    answer = client.post(f"/api/task/{code}/nifti", body, **{"content-type": "application/octet-stream"})
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert "/tmp" not in answer.text


def test_a_stage_that_screens_takes_no_new_lesion(tmp_path: Path) -> None:
    client = Client(annotation(tmp_path, stages=SENIOR_JUNIOR, readers=("senior", "junior")))
    code = client.work()[0]["code"]
    content = client.task(code)["state"]["content"]
    content["candidates"].append({"label": 9, "status": "accepted", "origin": "reader"})
    answer = client.answer(code, content, 0)
    assert answer.status_code == 422
    assert "accepted or rejected only" in answer.json()["error"]
