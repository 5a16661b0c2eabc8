"""Training as Python and the command call it: who trains, what is refused before anything is written, what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segmentation.ill import scan
from synthoma.commands.tumors import synthesize
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.splits import Fold, Splits, write_splits
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, FailedCasesError, RecipeError, RunError
from synthoma.learning.models import Model, load_model
from synthoma.recipe import make_recipe
from synthoma.runs import read_run
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.training.data import open_all, sides
from synthoma.training.segmentation import read_train_recipe, train

TINY: dict[str, Any] = {
    "steps": 2, "batch": 1, "network": {"width": 4, "depth": 3}, "average": 0, "validate_every": 0, "validation": 0,
    "pictures_every": 0, "tensorboard": False,
    "patches": {"size": [16, 16, 16], "spacing_mm": 6.0, "per_epoch": 2},
}  # fmt: skip
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases, all with a tumor; `c` and `d` are of one patient."""
    folder = tmp_path_factory.mktemp("data")
    for name in NAMES:
        case = scan(name, 40.0, size=24)
        write_case(replace(case, patient="twice") if name in "cd" else case, folder / name)
    return folder


def recipe(**changes: Any) -> TrainRecipe:
    return make_recipe(TrainRecipe, {**TINY, **changes})


def same(one: Model, other: Model) -> bool:
    pairs = zip(one.net.state_dict().values(), other.net.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def write(path: Path, train_ids: str, val_ids: str) -> Path:
    write_splits(Splits((Fold(tuple(train_ids), tuple(val_ids)),), patients={name: name for name in NAMES}), path)
    return path


def test_one_line_of_python_trains_and_the_same_line_finds_the_model_again(data: Path, tmp_path: Path) -> None:
    model = train(recipe(), data, tmp_path / "run", seed=3)
    assert (tmp_path / "run/model.safetensors").exists()
    assert (tmp_path / "cache").is_dir()
    assert same(model, train(recipe(), [data], tmp_path / "run", seed=3))
    assert same(model, load_model(tmp_path / "run"))
    assert read_run(tmp_path / "run").summary["steps"] == 2
    assert read_run(tmp_path / "run").seed == 3


def test_more_steps_than_before_go_on_from_the_finished_model(data: Path, tmp_path: Path) -> None:
    train(recipe(), data, tmp_path / "run")
    model = train(recipe(steps=5), data, tmp_path / "run")
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 5]
    assert model.record["steps"] == 5
    assert read_run(tmp_path / "run").recipe["steps"] == 5
    assert "steps = 5" in (tmp_path / "run/recipe.toml").read_text()
    with pytest.raises(RunError, match="steps: 5 here, 4 asked"):
        train(recipe(steps=4), data, tmp_path / "run")
    with pytest.raises(RunError, match="batch: 1 here, 2 asked"):
        train(recipe(steps=9, batch=2), data, tmp_path / "run")


def test_tumors_are_not_put_on_top_of_those_of_a_synthesis_unasked(data: Path, tmp_path: Path) -> None:
    made = SynthesisRecipe(lesions=(1, 1), diameter_mm=(7, 9), gap_mm=1)
    assert not synthesize(made, data, tmp_path / "made", write="plans").failed
    with pytest.raises(CaseError, match=r"no case can host.*4 cases that a synthesis.*--set synthesis=none"):
        train(recipe(synthesis={}), tmp_path / "made", tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]  # nothing cached, no folder claimed
    train(recipe(synthesis={}, patches={**TINY["patches"], "hosts": "all"}), tmp_path / "made", tmp_path / "run")


@pytest.mark.parametrize(
    ("training", "validation", "says"),
    [("abc", "d", "one patient is on two sides: c .train. and d .val."), ("abcd", "b", "trained and validated on")],
)
def test_patients_and_cases_on_both_sides_are_refused(
    data: Path, tmp_path: Path, training: str, validation: str, says: str
) -> None:
    splits = write(tmp_path / "splits.json", training, validation)
    with pytest.raises(CaseError, match=says):
        train(recipe(), data, tmp_path / "run", splits=splits)
    assert not (tmp_path / "run").exists()


def test_one_scan_on_both_sides_is_refused_by_the_catalog(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthoma.training import data as module

    class Catalog:
        def fingerprints(self) -> tuple[list[str], list[bytes]]:
            return ["a", "b", "c"], [b"x", b"x", b"y"]

    dataset = open_all([data])
    (tmp_path / "catalog.parquet").write_bytes(b"")
    monkeypatch.setattr(module, "read_catalog", lambda path: Catalog())
    splits = write(tmp_path / "splits.json", "acd", "b")
    with pytest.raises(CaseError, match=r"one scan is on two sides: a .train. and b .val."):
        sides(replace(dataset, root=tmp_path), recipe(), splits, 0, 0)


def test_a_case_that_the_splits_name_and_nobody_has_is_told(data: Path, tmp_path: Path) -> None:
    splits = write(tmp_path / "splits.json", "abx", "cd")
    with pytest.raises(FailedCasesError, match=r"x: the splits name it, but no data set has it.*--allow-failures 1"):
        train(recipe(), data, tmp_path / "run", splits=splits)
    model = train(recipe(), data, tmp_path / "run", splits=splits, allow_failures=1)
    assert model.record["data"]["left_out"] == ["x"]
    assert model.record["data"]["validation"] == ["c", "d"]


def broken(data: Path, *ids: str) -> Dataset:
    """The data set with cases that cannot be read, of which `z` could not even be opened."""
    dataset = open_all([data])
    cases = [replace(case, image=data / "none.nii.gz") if case.id in ids else case for case in dataset]
    return replace(dataset, cases=tuple(cases), faults=(CaseError("case.json is no table", case="z"),))


def test_broken_cases_are_refused_with_their_reasons_or_left_out_by_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedCasesError, match=r"1 of 5 cases cannot be used: z: case.json is no table"):
        train(recipe(), broken(data), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FailedCasesError, match=r"1 of 4 cases cannot be used: b: .*none.nii.gz"):
        train(recipe(), broken(data, "b"), tmp_path / "run", allow_failures=1)
    model = train(recipe(), broken(data, "b"), tmp_path / "run", allow_failures=2)
    assert model.record["data"]["training"] == ["a", "c", "d"]
    assert model.record["data"]["left_out"] == ["z", "b"]
    assert read_run(tmp_path / "run").summary["left_out"] == ["z", "b"]


def test_a_resumed_training_refuses_other_cases_than_it_was_begun_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthoma.learning import cache

    train(recipe(), broken(data), tmp_path / "run", allow_failures=2)
    real = cache.cache_case

    def full(case: Any, **how: Any) -> dict[str, Any]:
        if case.id == "b":
            raise OSError("cannot be read today")
        return real(case, **how)

    monkeypatch.setattr(cache, "cache_case", full)
    with pytest.raises(RunError, match=r"begun with other cases; found 3 instead of 4; different: b"):
        train(recipe(steps=4), broken(data), tmp_path / "run", allow_failures=2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patches": {"size": [17, 16, 16]}}, "cannot take this patch"),
        ({"patches": {"per_epoch": 1}, "batch": 2}, "less than a batch"),
        ({"organs": ["liver", "colon"]}, "no case of 4 says where the colon is"),
        ({"synthesis": {"organs": ["kidney"]}}, "which are not learned"),
        ({"segment": {"thresholds": {"liver": 2.0}}}, "between 0 and 1"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        train(recipe(**changes), data, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_failed_before_its_first_step_does_not_block_the_next(data: Path, tmp_path: Path) -> None:
    none_left = replace(broken(data, *NAMES), faults=())
    with pytest.raises(FailedCasesError, match="4 of 4 cases"):
        train(recipe(), none_left, tmp_path / "run")
    assert train(recipe(batch=2), data, tmp_path / "run").record["steps"] == 2
    assert read_run(tmp_path / "run").recipe["batch"] == 2


def test_validation_looks_for_tumors_inside_the_organ_given(data: Path, tmp_path: Path) -> None:
    given = recipe(validate_every=1, segment={"inside_organ": "given"}, validation=0.4)
    assert train(given, data, tmp_path / "run").record["figures"]["latest"]["liver_dsc"] is not None
    dataset = open_all([data])
    bare = replace(dataset, cases=tuple(replace(c, masks={"liver_lesion": c.masks["liver_lesion"]}) for c in dataset))
    with pytest.raises(RecipeError, match="says where the liver is"):
        train(given, bare, tmp_path / "other")
    half = [replace(c, masks=bare[c.id].masks) if c.patient == "twice" else c for c in dataset]
    splits = write(tmp_path / "splits.json", "ab", "cd")
    with pytest.raises(CaseError, match=r"c: no mask of the liver.*segment.inside_organ=predicted"):
        train(given, replace(dataset, cases=tuple(half)), tmp_path / "other", splits=splits)
    assert not (tmp_path / "other").exists()


def test_synthesis_none_turns_synthetic_tumors_off() -> None:
    assert read_train_recipe("unet").synthesis is not None
    assert read_train_recipe("unet", ["synthesis=none"]).synthesis is None


def test_a_manifest_takes_the_place_of_what_the_recipe_says_of_synthesis() -> None:
    recipe = read_train_recipe("unet", ["synthesis.manifest=BANK"])
    assert recipe.synthesis == {"manifest": "BANK"}
    with pytest.raises(RecipeError, match="leaves nothing to choose"):
        read_train_recipe("unet", ["synthesis.manifest=BANK", "synthesis.probability=0.3"])


def test_a_manifests_tumors_are_rendered_on_the_device_of_the_training(tmp_path: Path) -> None:
    folder = tmp_path / "healthy"
    for name in "ab":
        write_case(scan(name, size=24), folder / name)
    bank = SynthesisRecipe(lesions=(1, 2), diameter_mm=(14, 20), gap_mm=1)
    assert not synthesize(bank, folder, tmp_path / "made", write="plans").failed
    losses = {}
    for way in ("bank", "device"):
        table = {"manifest": str(tmp_path / "made"), "render": way}
        patches = {**TINY["patches"], "per_epoch": 6, "lesion_share": 1.0, "organ_share": 0.0}
        settings = recipe(synthesis=table, patches=patches, steps=6, log_every=1, pictures_every=1)
        train(settings, folder, tmp_path / way, device="cpu", cache=tmp_path / "cache")
        lines = [json.loads(line) for line in (tmp_path / way / "metrics.jsonl").read_text().splitlines()]
        losses[way] = [line["loss"] for line in lines if "loss" in line]
        assert list((tmp_path / way / "pictures").iterdir())
    assert len(losses["bank"]) == 6
    assert losses["device"] == pytest.approx(losses["bank"], abs=0.05)
