"""What a synthesis leaves on disk: the three ways agree, replay agrees, and no way of running changes a byte."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import builders
from synthesis.patients import (
    PATIENTS,
    RECIPE,
    content,
    patient,
    replay_all,
    synthesize_all,
    tamper,
    voxels,
    write_patients,
)
from synthoma import files
from synthoma.cases import Case, find_lesions
from synthoma.datasets.layouts import opening
from synthoma.errors import CaseError, FileError, RecipeError
from synthoma.reading import open_dataset, read_case
from synthoma.runs import read_run
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.synthesis.store.outputs import MAPS, _is_displaced, synthesize_case
from synthoma.volume import Volume


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients as `data`, and what each way of writing makes of them: `full`, `overlay`, `plans`."""
    root = tmp_path_factory.mktemp("outputs")
    write_patients(root / "data")
    for write in ("full", "overlay", "plans"):
        synthesize_all(root / "data", root / write, write)
    return root


@pytest.mark.parametrize("name", PATIENTS)
def test_the_three_ways_of_writing_give_identical_voxels(outputs: Path, name: str) -> None:
    full = read_case(outputs / "full" / name)
    expected = voxels(full)
    assert expected != voxels(opening.read_case(outputs / "data" / name))
    for write in ("overlay", "plans"):
        case = read_case(outputs / write / name)
        assert voxels(case) == expected
        assert (case.id, case.patient, dict(case.attributes)) == (full.id, full.patient, dict(full.attributes))
        assert case.read_image().geometry.matches(full.read_image().geometry, 1e-3)


def test_the_set_tries_pushes_real_tumors_and_both_types(outputs: Path) -> None:
    table = read_manifest(outputs / "plans")
    pushed = {case for case in table.cases if any(plan.displacement_mm for plan in table.plans(case))}
    assert {"float", "ill", "oblique"} <= pushed
    assert all(len(table.plans(case)) >= 2 for case in table.cases)
    moved = [name for name in PATIENTS if voxels(read_case(outputs / "full" / name))["kidney_left"]
             != voxels(opening.read_case(outputs / "data" / name))["kidney_left"]]  # fmt: skip
    assert moved


@pytest.mark.parametrize("write", ["full", "overlay", "plans"])
def test_a_replay_leaves_the_same_files(outputs: Path, tmp_path: Path, write: str) -> None:
    replay_all(outputs / "plans" / "manifest.parquet", outputs / "data", tmp_path / "out", write)
    expected, found = content(outputs / write), content(tmp_path / "out")
    for private in ("synthesis.json", "recipe.toml", "records.jsonl"):
        expected.pop(private), found.pop(private)
    assert found == expected
    assert json.loads((tmp_path / "out" / "synthesis.json").read_text())["write"] == write


def test_real_tumors_keep_their_voxels_and_their_labels(outputs: Path) -> None:
    for name in ("ill", "oblique"):
        before, after = opening.read_case(outputs / "data" / name), read_case(outputs / "full" / name)
        real, both = (case.read_mask("liver_lesion").data for case in (before, after))
        assert both[real].all()
        assert (both & ~real).any()
        assert np.array_equal(before.read_image().data[real], after.read_image().data[real])


def test_lesions_of_the_record_are_real_ones_then_synthetic_ones(outputs: Path) -> None:
    record = json.loads((outputs / "full" / "ill" / "case.json").read_text())
    liver = [lesion for lesion in record["lesions"] if lesion["organ"] == "liver"]
    assert [lesion["index"] for lesion in liver] == list(range(1, len(liver) + 1))
    assert [lesion["synthetic"] for lesion in liver] == [False, False] + [True] * (len(liver) - 2)
    case = read_case(outputs / "full" / "ill")
    whole = {lesion.voxels: lesion for lesion in find_lesions(case.read_mask("liver_lesion"), "liver")}
    assert {lesion["voxels"] for lesion in liver} == set(whole)
    for lesion in liver:
        twin = whole[lesion["voxels"]]
        assert lesion["box"] == [list(twin.box.lower), list(twin.box.upper)]
        assert lesion["center_mm"] == pytest.approx(twin.center_mm, abs=1e-3)
    tumors = record["provenance"]["tumors"]
    assert [tumor["plan"] for tumor in tumors] == [
        row["plan"] for row in read_manifest(outputs / "full").rows("ill") if row["accepted"]
    ]


def test_masks_that_nothing_moved_are_copies_of_their_files(outputs: Path) -> None:
    file = Path("plain") / "segmentations" / "spleen.nii.gz"
    assert (outputs / "full" / file).read_bytes() == (outputs / "data" / file).read_bytes()


def test_structures_known_to_be_displaced_are_those_that_a_look_at_their_masks_finds() -> None:
    case = patient("p", ill=True)
    recipe = RECIPE.with_changes(mass_effect_share=1.0)
    known = set()
    for seed in range(3):
        synthesis = insert_tumors(case, recipe, seed)
        unknown = dataclasses.replace(synthesis, displaced=frozenset())
        for name in case.masks:
            assert _is_displaced(case, synthesis, name) == _is_displaced(case, unknown, name)
        known |= synthesis.displaced
    assert "liver" in known


def test_full_output_is_a_data_set_in_a_layout_that_others_read(outputs: Path) -> None:
    dataset = opening.open_dataset(outputs / "full")
    assert (dataset.layout, {case.id for case in dataset}, dataset.faults) == ("abdomenatlas", set(PATIENTS), ())
    assert {*dataset["plain"].masks} == {"liver", "kidney_left", "spleen", "liver_lesion", "kidney_lesion"}
    assert all(not name.startswith(".") for name in os.listdir(outputs / "full"))


def test_label_maps_and_instances_come_on_request(tmp_path: Path) -> None:
    case = patient("p", ill=True)
    result = synthesize_case(case, RECIPE, 3, tmp_path, maps=("instances", "organs", "tumors", "freetumor"))
    maps = {name: files.read_labels(tmp_path / "p" / MAPS[name]).data for name in ("instances", "tumors", "freetumor")}
    done = read_case(tmp_path / "p")
    made = len([row for row in result["rows"] if row["accepted"]])
    assert set(np.unique(maps["instances"])) == set(range(made + 1))
    tumors = done.read_mask("liver_lesion").data | done.read_mask("kidney_lesion").data
    assert np.array_equal(maps["tumors"] > 0, tumors)
    assert np.array_equal((maps["instances"] > 0) | case.masks["liver_lesion"].data, tumors)
    assert np.array_equal(maps["freetumor"] == 2, done.read_mask("liver_lesion").data)
    assert voxels(done) == voxels(read_case(tmp_path / "p" / "ct.nii.gz"))


def test_a_map_that_cannot_be_drawn_is_a_note_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    case = patient("p")
    spleen = Case(
        "p", case.image, {"spleen": case.masks["spleen"], "colon": case.masks["liver"]}, attributes=case.attributes
    )
    none = SynthesisRecipe(organs=("kidney", "liver"), probability=0.0)
    result = synthesize_case(
        Case("q", case.image, case.masks, attributes=case.attributes), none, 0, tmp_path, maps=("tumors",)
    )
    assert result["notes"] == ["no label map tumors: nothing of tumors is annotated"]
    for maps, write in ((("colors",), "full"), (("instances",), "plans")):
        with pytest.raises(RecipeError, match="no label maps"):
            synthesize_case(spleen, none, 0, tmp_path, write, maps)


def test_label_maps_as_input_are_read_and_tumors_added(tmp_path: Path) -> None:
    healthy = patient("liver_0", ill=True)
    builders.msd(tmp_path / "Task03_Liver", [healthy])
    recipe = RECIPE.with_changes(organs=("liver",), phase="portal")
    cases = []
    for write in ("full", "overlay", "plans"):
        synthesize_all(tmp_path / "Task03_Liver", tmp_path / write, write, recipe)
        cases.append(voxels(read_case(tmp_path / write / "liver_0")))
    assert cases[0] == cases[1] == cases[2]
    assert cases[0].keys() == {"scan", "liver", "liver_lesion"}


def test_a_case_without_its_organ_fails_and_the_others_are_done(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain", "ill")
    (data / "ill" / "segmentations" / "liver.nii.gz").unlink()
    recipe = RECIPE.with_changes(organs=("liver",))
    for write in ("full", "overlay", "plans"):
        records = {record.case: record for record in synthesize_all(data, tmp_path / write, write, recipe)}
        assert (records["ill"].status, records["plain"].status) == ("failed", "done")
        assert "the liver is not annotated" in records["ill"].error
        assert not list((tmp_path / write).glob("*ill*"))
        assert not list((tmp_path / write).glob(".*part"))
        assert [case.id for case in open_dataset(tmp_path / write)] == ["plain"]


@pytest.mark.parametrize("write", ["full", "overlay"])
def test_a_case_that_cannot_be_written_leaves_nothing(tmp_path: Path, write: str, monkeypatch: Any) -> None:
    from synthoma import disk

    def full_disk(path: object, data: object) -> None:
        raise FileError("cannot write", found="no space left")

    monkeypatch.setattr(disk, "write_json", full_disk)
    monkeypatch.setattr(np, "savez_compressed", lambda *args, **arrays: full_disk(0, 0))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "case.json").write_text("what a killed run had finished")
    with pytest.raises(FileError, match="no space left"):
        synthesize_case(patient("p"), RECIPE, 0, tmp_path, write)
    assert not list(tmp_path.iterdir())


def test_a_tampered_scan_is_refused_in_every_way(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain", "ill")
    for write in ("overlay", "plans"):
        synthesize_all(data, tmp_path / write, write)
    tamper(data / "ill" / "ct.nii.gz")
    for write in ("overlay", "plans"):
        with pytest.raises(CaseError, match="ill: the scan differs from the one that its tumors were made on"):
            read_case(tmp_path / write / "ill").read_image()
        read_case(tmp_path / write / "plain").read_image()
    records = {record.case: record for record in replay_all(tmp_path / "plans", data, tmp_path / "again")}
    assert records["plain"].status == "done"
    assert "ill: the scan differs" in records["ill"].error
    assert not (tmp_path / "again" / "ill").exists()


def test_a_tumor_that_other_masks_make_otherwise_fails_its_case(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "ill")
    synthesize_all(data, tmp_path / "plans", "plans")
    everywhere = files.read_labels(data / "ill" / "segmentations" / "liver.nii.gz")
    files.write_volume(
        Volume(np.ones_like(everywhere.data), everywhere.geometry), data / "ill" / "segmentations" / "spleen.nii.gz"
    )
    (record,) = replay_all(tmp_path / "plans", data, tmp_path / "again")
    assert "tumor 1 of the liver comes out otherwise than when it was made" in record.error
    assert "as made with synthoma" in record.error


def test_a_case_missing_in_the_data_fails_and_the_others_are_done(tmp_path: Path, outputs: Path) -> None:
    fewer = write_patients(tmp_path / "data", "plain")
    records = {record.case: record for record in replay_all(outputs / "plans", fewer, tmp_path / "out", "overlay")}
    assert records["plain"].status == "done"
    assert sum("the data set has no such case" in record.error for record in records.values()) == 3


def test_a_result_inside_the_data_and_an_unknown_way_are_refused(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain")
    before = content(data)
    case = opening.read_case(data / "plain")
    with pytest.raises(
        CaseError, match="plain: the result would lie in the data it is made from; choose another --out"
    ):
        synthesize_case(case, RECIPE, 0, data)
    with pytest.raises(RecipeError, match="cannot write 'png'; expected one of full, overlay, plans"):
        synthesize_case(case, RECIPE, 0, tmp_path / "out", "png")
    assert content(data) == before


def test_the_number_of_workers_changes_no_byte(outputs: Path, tmp_path: Path) -> None:
    synthesize_all(outputs / "data", tmp_path / "out", "full", workers=4)
    expected, found = content(outputs / "full"), content(tmp_path / "out")
    expected.pop("synthesis.json"), found.pop("synthesis.json")  # where the data lies, seen from the folder
    assert found == expected


def _command(data: Path, out: Path, write: str) -> subprocess.Popen[bytes]:
    script = (
        "import sys; from pathlib import Path; from synthesis.patients import synthesize_all\n"
        "synthesize_all(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(data), str(out), write], cwd=Path(__file__).parents[2]
    )  # fmt: skip


@pytest.mark.parametrize("write", ["full", "overlay"])
def test_killed_at_random_moments_and_resumed_the_folder_is_that_of_an_undisturbed_run(
    outputs: Path, tmp_path: Path, write: str
) -> None:
    killed, moments, kills = outputs / f"killed_{write}", random.Random(3), 0
    for _ in range(4):
        command = _command(outputs / "data", killed, write)
        end = time.monotonic() + 60
        while not (killed / ".lock").exists() and command.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(moments.uniform(0, 0.8))
        command.send_signal(signal.SIGKILL)
        kills += command.wait() == -signal.SIGKILL
    assert kills >= 1
    assert _command(outputs / "data", killed, write).wait() == 0
    assert read_run(killed).status == "done"
    assert content(killed) == content(outputs / write)
