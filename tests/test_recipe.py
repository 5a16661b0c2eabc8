"""Recipes: read with overrides, refused with the nearest keys, and written with every key explained."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from synthoma.cli.main import run
from synthoma.cli.recipes import FOLDERS, _kind
from synthoma.engine.clusters import ClusterRecipe
from synthoma.errors import RecipeError
from synthoma.recipe import RECIPES, Recipe, make_recipe, read_recipe, recipe_names
from synthoma.recipe_text import _model, commented, first_sentence, meanings, toml_value
from synthoma.synthesis.recipe import SynthesisRecipe

PLACES = [f"{folder}/{name}" for folder in FOLDERS for name in recipe_names(folder)]


def synthoma(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        run([str(word) for word in words])
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("organs=kidney", "organs", ("kidney",)),
        ("organs=kidney,liver", "organs", ("kidney", "liver")),
        ('organs=["kidney"]', "organs", ("kidney",)),
        ("organs=[kidney]", "organs", ("kidney",)),  # a shell took the quotes
        ("organs=[kidney, liver]", "organs", ("kidney", "liver")),
        ("lesions=2,4", "lesions", (2, 4)),
        ("generator=growth", "generator", "growth"),
        ("judge.critic=0.2, 0.9", "judge", None),
    ],
)
def test_one_value_does_where_a_list_is_meant(override: str, key: str, value: object) -> None:
    recipe = read_recipe(SynthesisRecipe, overrides=[override])
    if value is None:
        assert recipe.judge.critic == (0.2, 0.9)
    else:
        assert getattr(recipe, key) == value


def test_a_value_that_is_no_list_stays_one_sentence() -> None:
    with pytest.raises(RecipeError, match="probability = 'often'"):
        read_recipe(SynthesisRecipe, overrides=["probability=often"])
    with pytest.raises(RecipeError, match="organs"):
        read_recipe(SynthesisRecipe, overrides=["organs=hand,foot"])


def test_a_list_with_too_few_values_says_how_many_there_should_be() -> None:
    with pytest.raises(RecipeError, match=r"recipe: diameter_mm = \[20\]: expected 2 values$"):
        read_recipe(SynthesisRecipe, overrides=["diameter_mm=20"])
    with pytest.raises(RecipeError, match=r"recipe: judge\.critic = \[\]: expected 2 values$"):
        read_recipe(SynthesisRecipe, overrides=["judge.critic=[]"])


def test_an_unknown_key_is_told_with_those_it_may_mean() -> None:
    with pytest.raises(RecipeError, match="unknown key organ, perhaps organs; known here: organs, probability"):
        read_recipe(SynthesisRecipe, overrides=["organ=3"])
    with pytest.raises(RecipeError, match=r"unknown key judge\.slit, perhaps slits; known here: volume_error"):
        read_recipe(SynthesisRecipe, overrides=["judge.slit=1"])


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "liver.toml"
    path.write_bytes('organs = ["liver"]\r\nlesions = [1, 2]\r\n'.encode("utf-8-sig"))
    assert read_recipe(SynthesisRecipe, path).lesions == (1, 2)


@pytest.mark.parametrize("content", [b"a = [", b"\xff", b"a = " + b"[" * 5000, b"a = " + b"1" * 5000])
def test_what_is_no_toml_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"a\.toml is not TOML"):
        read_recipe(SynthesisRecipe, tmp_path / "a.toml")


def kind_of(folder: str, settings: dict[str, Any]) -> type[Recipe]:
    if folder in ("train", "generator"):
        pytest.importorskip("torch", reason="the recipe of a network")
    return _kind(folder, settings)


@pytest.mark.parametrize("place", PLACES)
def test_a_recipe_written_out_is_the_same_recipe_and_says_what_every_key_means(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, name = place.partition("/")
    settings = tomllib.loads((RECIPES / folder / f"{name}.toml").read_text())
    kind = kind_of(folder, settings)
    assert synthoma("recipes", place) == 0
    text = capsys.readouterr().out
    assert make_recipe(kind, tomllib.loads(text)) == make_recipe(kind, settings)
    for key in kind.model_fields:
        assert f"{key}: " in text or f"[{key}" in text, key
    if folder == "cluster":
        return  # what means nothing to its kind is refused
    # every key that has a default may be taken without its mark
    lines = [line.removeprefix("#") if line[:1] == "#" and line[1:2] not in " " else line for line in text.splitlines()]
    whole = "\n".join(line for line in lines if not line.endswith("(nothing)"))
    assert make_recipe(kind, tomllib.loads(whole)) == make_recipe(kind, settings)


def every_kind(kind: type[Recipe]) -> set[type[Recipe]]:
    inner = {_model(field.annotation) for field in kind.model_fields.values()} - {None}
    return {kind}.union(*(every_kind(one) for one in inner))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", PLACES)
def test_every_key_of_a_recipe_has_a_meaning(place: str) -> None:
    folder, _, name = place.partition("/")
    for kind in every_kind(kind_of(folder, tomllib.loads((RECIPES / folder / f"{name}.toml").read_text()))):
        keys = {key for key, field in kind.model_fields.items() if _model(field.annotation) is None}
        assert keys - meanings(kind).keys() == set(), kind


def test_the_list_has_every_recipe_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert synthoma("recipes") == 0
    text = capsys.readouterr().out
    for place in PLACES:
        folder, _, name = place.partition("/")
        sentence = first_sentence((RECIPES / folder / f"{name}.toml").read_text())
        assert sentence.endswith("."), place
        assert sentence.split()[0] in text
        assert name in text


def test_a_recipe_is_written_to_a_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synthoma("recipes", "liver", "--out", tmp_path / "my.toml") == 0
    assert "the same name is also that of scale/liver and follow/liver and trial/liver" in capsys.readouterr().err
    assert read_recipe(SynthesisRecipe, tmp_path / "my.toml") == SynthesisRecipe()
    assert synthoma("recipes", "slurm", "--out", tmp_path / "my.toml") == 2
    assert "is there already" in capsys.readouterr().err
    assert synthoma("recipes", "slurm", "--out", tmp_path / "cluster.toml") == 0
    assert read_recipe(ClusterRecipe, tmp_path / "cluster.toml").kind == "slurm"
    assert synthoma("recipes", "livre") == 2
    assert synthoma("recipes", "--out", tmp_path / "x.toml") == 2


@pytest.mark.parametrize(
    "value", [True, 3, 1e-4, 'say "hi"\n', [1, [2, "x"]], {"a b": {"c": 1}, "d": []}, -0.0, "\\", "é"]
)
def test_a_value_of_toml_reads_back(value: Any) -> None:
    assert tomllib.loads(f"a = {toml_value(value)}") == {"a": value}


def test_a_key_that_has_to_be_said_is_told() -> None:
    class Needs(Recipe):
        """Needs one. name: of it."""

        name: str

    assert "# name has to be said" in commented(Needs, {})
