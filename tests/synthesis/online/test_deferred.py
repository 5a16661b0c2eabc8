"""Tumors of a manifest kept as plans: the same ones, at the same places, rendered when a patch asks for them."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from online.test_online import WHOLE, Cached
from patients import RECIPE, write_patients

from synthoma.cases import Case
from synthoma.errors import RecipeError
from synthoma.reading import open_dataset
from synthoma.synthesis.online.deferred import Deferred
from synthoma.synthesis.online.online import Fixed
from synthoma.synthesis.online.table import complete_table, from_table
from synthoma.synthesis.store.copies import copies_of
from synthoma.synthesis.store.manifest import write_manifest
from synthoma.synthesis.store.outputs import synthesize_case
from synthoma.volume import Box

CPU = torch.device("cpu")
BOXES = [WHOLE, Box((5, 10, 0), (45, 50, 30)), Box((-8, 30, 10), (30, 90, 45))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    """A healthy case, and a manifest of three copies of it whose tumors push or do not."""
    folder = tmp_path_factory.mktemp("bank")
    data = write_patients(folder / "data", "plain")
    case = dataclasses.replace(open_dataset(data)["plain"], attributes={"healthy": True, "phase": "portal"})
    recipe = RECIPE.with_changes(lesions=(2, 3), mass_effect_share=0.4)
    rows = [row for copy in copies_of([case], 3) for row in synthesize_case(copy, recipe, 0, folder, "plans")["rows"]]
    write_manifest(rows, folder / "manifest.parquet")
    return case, folder


def test_tumors_and_voxels_are_those_of_the_bank(made: tuple[Case, Path]) -> None:
    case, folder = made
    bank, deferred = Fixed(folder), Deferred(folder)
    entry = Cached(case, bank, deferred)
    kinds = set()
    for epoch in range(3):
        drawn, kept = bank.draw(entry, epoch), deferred.draw(entry, epoch)
        assert [tumor.plan for tumor in drawn] == [tumor.plan for tumor in kept]
        kinds |= {tumor.made is None for tumor in kept}
        parts = pickle.loads(pickle.dumps([deferred.cut(entry, box, kept) for box in BOXES]))
        for box, (hu, labels) in zip(BOXES, deferred.render_batch(parts, CPU), strict=True):
            expected = bank.render(entry, box, drawn)
            assert np.abs(hu.numpy().astype(int) - expected[0]).max() <= 1
            assert np.array_equal(labels.numpy(), expected[1])
            on_cpu = deferred.render(entry, box, kept)
            assert np.array_equal(on_cpu[0], expected[0])
            assert np.array_equal(on_cpu[1], expected[1])
    assert kinds == {True, False}  # masses as plans, those with a mass effect as voxels


def test_plans_take_less_room_than_voxels(made: tuple[Case, Path]) -> None:
    case, folder = made
    bank, deferred = Fixed(folder), Deferred(folder)
    entry = Cached(case, bank, deferred)
    size = {of: sum(array.nbytes for array in entry.tables(of.name).values()) for of in (bank, deferred)}
    assert size[deferred] < size[bank]
    voxels = {of: entry.tables(of.name)["hu"].size for of in (bank, deferred)}
    pushing = sum(tumor.plan.displacement_mm > 0 for epoch in range(3) for tumor in deferred.draw(entry, epoch))
    assert pushing > 0
    assert 0 < voxels[deferred] < voxels[bank]


def test_a_case_without_tumors_in_the_manifest_gets_none(made: tuple[Case, Path]) -> None:
    case, folder = made
    deferred = Deferred(folder)
    stranger = Cached(dataclasses.replace(case, id="stranger"), deferred)
    assert deferred.draw(stranger, 0) == ()
    again = pickle.loads(pickle.dumps(deferred))
    assert type(again) is Deferred
    assert again.name == deferred.name != Fixed(folder).name


def test_a_recipe_says_where_a_manifests_tumors_are_rendered(made: tuple[Case, Path]) -> None:
    _, folder = made
    table = {"manifest": str(folder), "render": "device"}
    assert complete_table(table, ("liver",), "here") == table
    assert type(from_table(table, 0)) is Deferred
    for plain in ({"manifest": str(folder)}, {"manifest": str(folder), "render": "bank"}):
        assert type(from_table(complete_table(plain, ("liver",), "here"), 0)) is Fixed
    with pytest.raises(RecipeError, match=r"render is 'gpu'.*bank or device"):
        complete_table({"manifest": "x", "render": "gpu"}, ("liver",), "here")
    with pytest.raises(RecipeError, match=r"judged, on the CPU.*synthesis.manifest=OUT"):
        complete_table({"render": "device"}, ("liver",), "here")
