"""From nothing to a model, with tiny settings: patients, training, false alarms, training on, calibration, card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from synthoma.cases import Case
from synthoma.cli.main import app
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.splits import Fold, Splits, write_splits
from synthoma.learning.models import load_model
from synthoma.learning.negatives import read_negatives
from synthoma.recipe import RECIPES, read_recipe
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.training.data import outside_splits
from synthoma.training.segmentation import read_train_recipe

COHORT = """
name = "tiny"
cases = 3
seed = 3
region = "pancreas"
spacing_mm = 8.0
structures = ["liver", "kidney_left", "kidney_right", "liver_lesion", "kidney_lesion"]
[splits]
test = 0
folds = 1
val = 0.34
by = "hospital"
[[hospitals]]
name = "healthy"
tumors = 0.0
[[hospitals]]
name = "kidneys"
annotated = ["kidney", "kidney_lesion"]
tumors = 0.0
[[hospitals]]
name = "sick"
tumors = 1.0
kinds = {clear_cell = 1.0}
diameter_mm = [30, 50]
"""
TINY = [
    "organs=liver,kidney", "steps=3", "batch=1", "network.width=4", "network.depth=3", "patches.size=[16,16,16]",
    "patches.spacing_mm=8", "patches.per_epoch=4", "pictures_every=0", "healthy=[]", "synthesis=none",
    "tensorboard=false",
]  # fmt: skip
CARD = """
name = "tiny"
hardware = "one core, seconds"
made = ["this test"]
limits = ["it has learned nothing"]
[data]
in_silico = "three patients"
[figures]
none = "0 of 0"
"""


def run(*words: object) -> str:
    done = CliRunner().invoke(app, ["--quiet", *map(str, words)])
    assert done.exit_code == 0, (words, done.output)
    return done.output


def sets(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.timeout(1200)  # seven commands
def test_from_nothing_to_a_model_with_its_card(tmp_path: Path) -> None:
    (tmp_path / "cohort.toml").write_text(COHORT)
    (tmp_path / "card.toml").write_text(CARD)
    data, cache = tmp_path / "data", tmp_path / "cache"
    run("cohort", tmp_path / "cohort.toml", "--out", data)
    train = ["train", "six_organs", "--data", data, "--cache", cache, *sets(TINY)]
    run(*train, "--out", tmp_path / "first")
    # all that the network holds for possible: it has learned nothing
    run("segment", tmp_path / "first", data, "--out", tmp_path / "seen", "--set", "threshold=0.02")
    run("negatives", data, tmp_path / "seen", "--out", tmp_path / "negatives.json")
    places = read_negatives(tmp_path / "negatives.json")
    healthy = {"tiny_0000": {"liver", "kidney"}, "tiny_0001": {"kidney"}, "tiny_0002": {"liver"}}
    assert all(place.organ in healthy[place.case] for place in places)
    more = [f"patches.negatives={tmp_path / 'negatives.json'}", "patches.negative_share=0.2"]
    run(*train, "--from", tmp_path / "first", *sets(more), "--out", tmp_path / "second")
    told = run("calibrate", tmp_path / "second", "--data", data, "--out", tmp_path / "third",
               "--set", "thresholds=[0.3,0.5]", "--set", "smallest_mm3=[0,100]")  # fmt: skip
    assert "balanced:" in told
    known = load_model(tmp_path / "third").spec.calibration
    assert known is not None
    assert known.cases == 3
    assert "Operating points" in (tmp_path / "third/calibration.html").read_text()
    assert json.loads((tmp_path / "third/calibration.json").read_text()) == known.as_dict()
    run("segment", tmp_path / "third", data, "--out", tmp_path / "test", "--set", "sensitivity=balanced")
    run("export", tmp_path / "third", "--to", "safetensors", "--card", tmp_path / "card.toml",
        "--out", tmp_path / "tiny.safetensors")  # fmt: skip
    packed = load_model(tmp_path / "tiny.safetensors")
    assert packed.spec.calibration == known
    assert packed.record["limits"] == ["it has learned nothing"]


def test_of_several_data_sets_those_without_splits_are_trained_on(tmp_path: Path) -> None:
    def case(name: str, dataset: str) -> Case:
        return Case(name, tmp_path, dataset=dataset)

    cases = (case("a", "one"), case("b", "one"), case("c", "one"), case("d", "two"))
    write_splits(Splits((Fold(("a",), ("b",)),), test=("c",)), tmp_path / "splits.json")
    found = outside_splits(Dataset(tmp_path, "folders", "one two", cases), tmp_path / "splits.json")
    assert [each.id for each in found] == ["d"]


@pytest.mark.parametrize("name", ["livers", "six_organs"])
def test_the_recipes_of_the_next_models_give_files_under_eight_megabytes(name: str) -> None:
    from synthoma.learning.networks import build_network, count_parameters

    recipe = read_train_recipe(name)
    assert isinstance(recipe, TrainRecipe)
    assert 2 * count_parameters(build_network(recipe.network, len(recipe.classes))) < 7_900_000
    assert recipe.synthesis is not None
    mixed = {organ for mix in recipe.synthesis["mixes"] for organ in mix["organs"]}
    assert not mixed or mixed == set(recipe.organs)


def test_the_model_of_six_organs_in_the_box_fits_its_recipe() -> None:
    """Else `--from` refuses it: docs/segmentation.md says to go on from there."""
    recipe, start = read_train_recipe("six_organs"), load_model("abdomen-small")
    assert (start.spec.network, start.spec.classes) == (recipe.network, recipe.classes)
    assert (start.spec.spacing_mm, start.spec.window_hu) == ((2.5, 2.5, 2.5), recipe.patches.window_hu)
    assert start.record["data"]["real_tumor_labels"] == 0


def test_the_cohort_of_six_organs_has_all_that_scans_show() -> None:
    from synthoma.phantom.cohort import CohortRecipe

    recipe = read_recipe(CohortRecipe, RECIPES / "cohort" / "six_organs.toml")
    hospitals = recipe.hospitals or ()
    for key in ("arms", "bowel_contrast", "ascites", "resected", "view_mm", "lowest_mm", "highest_mm", "annotated"):
        assert any(getattr(hospital, key) for hospital in hospitals), key
    thickness = [hospital.slice_mm for hospital in hospitals if hospital.slice_mm]
    assert (min(low for low, _ in thickness), max(high for _, high in thickness)) == (0.8, 5.0)
    for organ in ("liver", "pancreas", "kidney", "colon", "esophagus", "uterus"):
        training = [h for h in hospitals if not h.unseen and h.tumors and h.annotates(f"{organ}_lesion")]
        assert len(training) >= 2, organ
