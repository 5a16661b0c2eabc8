"""Copies: several synthetic cases from one scan, with ids of their own, one patient, and other tumors."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthesis.patients import RECIPE, patient, replay_all, voxels, write_patients
from synthoma.engine.mapping import map_cases
from synthoma.errors import RecipeError, SynthomaError
from synthoma.reading import open_dataset, read_case, read_lesion
from synthoma.runs import open_run
from synthoma.synthesis.store.copies import copies_of
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.synthesis.store.outputs import finish_synthesis, synthesize_case

SMALL = RECIPE.with_changes(organs=("liver",), lesions=(1, 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    return write_patients(tmp_path_factory.mktemp("copies") / "data", "plain", "ill")


@pytest.fixture(scope="module")
def outputs(data: Path) -> Path:
    """The three ways of writing three copies of two cases: full, overlay, plans."""
    dataset = open_dataset(data)
    for write in ("full", "overlay", "plans"):
        out = data.parent / write
        with open_run(out, "synthesize", SMALL) as run:
            task = partial(synthesize_case, recipe=SMALL, seed=0, out=out, write=write)
            records = map_cases(task, copies_of(dataset.cases, 3), run=run)
            finish_synthesis(records, out, dataset.root, write)
    return data.parent


@pytest.mark.parametrize("write", ["full", "overlay", "plans"])
def test_copies_are_cases_of_their_own_of_the_same_patient(outputs: Path, write: str) -> None:
    made = open_dataset(outputs / write)
    assert sorted(case.id for case in made) == [
        f"{name}{copy}" for name in ("ill", "plain") for copy in ("", "_copy02", "_copy03")
    ]
    assert {case.id: case.patient for case in made} == {case.id: f"P-{case.id.split('_')[0]}" for case in made}
    scans = [made[name].read_image().data for name in ("plain", "plain_copy02", "plain_copy03")]
    assert not any(np.array_equal(a, b) for a, b in ((scans[0], scans[1]), (scans[0], scans[2]), (scans[1], scans[2])))
    assert made["plain_copy02"].attributes["copy_of"] == "plain"
    assert "copy_of" not in made["plain"].attributes


def test_the_three_ways_of_writing_agree_for_copies(outputs: Path) -> None:
    full, overlay, plans = (voxels(read_case(outputs / write / "ill_copy03")) for write in ("full", "overlay", "plans"))
    assert overlay == plans
    assert full["scan"] == plans["scan"]
    assert full["liver_lesion"] == plans["liver_lesion"]


def test_a_tumor_of_a_copy_is_shown_beside_its_healthy_scan(outputs: Path) -> None:
    for write in ("full", "overlay", "plans"):
        view = read_lesion(outputs / write / "plain_copy02", 1)
        assert "plain_copy02: tumor 1" in view.caption
        assert not np.array_equal(view.before.data, view.after.data)


def test_the_first_copy_has_the_tumors_of_a_synthesis_without_copies(outputs: Path, data: Path) -> None:
    row = synthesize_case(open_dataset(data)["plain"], SMALL, 0, outputs / "alone", "plans")["rows"][0]
    assert read_manifest(outputs / "plans").rows("plain")[0] == row


def test_a_manifest_tells_what_is_a_copy_of_what_and_replays_it(outputs: Path, data: Path) -> None:
    table = read_manifest(outputs / "plans")
    assert table.copies("plain") == ("plain", "plain_copy02", "plain_copy03")
    assert table.copies("nobody") == ()
    assert (table.source("plain"), table.source("plain_copy03")) == ("plain", "plain")
    records = replay_all(outputs / "plans" / "manifest.parquet", data, outputs / "again")
    assert {record.status for record in records} == {"done"}
    name = Path("plain_copy03", "ct.nii.gz")
    assert (outputs / "again" / name).read_bytes() == (outputs / "full" / name).read_bytes()


def test_ids_that_are_taken_and_counts_below_one_are_refused() -> None:
    cases = [patient("p"), dataclasses.replace(patient("q"), id="p_copy02")]
    with pytest.raises(RecipeError, match=r"1 copies would have the id of another case .*; found p_copy02"):
        copies_of(cases, 2)
    with pytest.raises(RecipeError, match="0 copies"):
        copies_of(cases, 0)
    assert copies_of(cases, 1) == cases


def test_a_copy_of_a_copy_tells_the_first_case() -> None:
    (_, second) = copies_of([patient("p")], 2)
    assert copies_of([second], 2)[1].attributes["copy_of"] == "p"


def test_reading_a_record_that_was_changed_by_hand_is_a_sentence(outputs: Path) -> None:
    record = outputs / "plans" / "synthesis.json"
    kept = record.read_text()
    for text in ("[]", "{}", kept.replace('"plans"', '"../x"'), '{"data": 3}', "[" * 100_000):
        record.write_text(text)
        with pytest.raises(SynthomaError, match=r"synthesis\.json is (damaged|not JSON|no record)"):
            open_dataset(outputs / "plans")
    record.write_text(kept)
    assert str(outputs) not in kept
