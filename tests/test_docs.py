"""What is documented exists, what exists is documented, and the examples run."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from documented import PAGES as EVERY_PAGE
from documented import blocks, said_in_full
from synthoma.cli.main import app
from synthoma.cli.recipes import FOLDERS
from synthoma.datasets.conversion import ConvertRecipe
from synthoma.datasets.splits import SplitRecipe
from synthoma.datasets.validation import CODES, ValidateRecipe
from synthoma.engine.clusters import ClusterRecipe
from synthoma.errors import RecipeError
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.followup.recipe import FollowRecipe, RescanRecipe
from synthoma.integrations.nnunet.settings import TrainerRecipe
from synthoma.learning.augmentation import AugmentationRecipe
from synthoma.learning.crops import CropRecipe
from synthoma.learning.loop import OptimizerRecipe
from synthoma.learning.losses import LossRecipe
from synthoma.learning.networks import NetworkRecipe
from synthoma.learning.patches import PatchRecipe
from synthoma.learning.tissue import TissueNetworkRecipe
from synthoma.phantom.cohort import CohortRecipe
from synthoma.phantom.hospitals import Hospital
from synthoma.realism.recipe import RealismRecipe
from synthoma.recipe import Recipe, find_recipe, make_recipe, read_recipe, recipe_names
from synthoma.review.recipes import AnnotateRecipe, Stage, TuringRecipe
from synthoma.scaling.recipe import FilterRecipe, StudyRecipe
from synthoma.scaling.results import FitRecipe
from synthoma.segmentation.card import CardRecipe
from synthoma.segmentation.infer import SegmentRecipe
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.synthesis.recipe import CriticRecipe, JudgeRecipe, SynthesisRecipe
from synthoma.training.calibration import CalibrateRecipe
from synthoma.training.generators import read_generator_recipe
from synthoma.training.recipe import AdversarialRecipe, DiffusionRecipe
from synthoma.training.segmentation import read_train_recipe
from synthoma.trials.recipe import ReportRecipe, TrialRecipe

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS_OF_PACKAGE = set(PROJECT["optional-dependencies"])
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
RECIPES: list[tuple[type[Recipe], str]] = [
    (SynthesisRecipe, "synthesis.md"),
    (JudgeRecipe, "synthesis.md"),
    (CohortRecipe, "phantom.md"),
    (ConvertRecipe, "datasets.md"),
    (SplitRecipe, "datasets.md"),
    (ValidateRecipe, "datasets.md"),
    (ClusterRecipe, "engine.md"),
    (EvaluateRecipe, "evaluation.md"),
    (RealismRecipe, "realism.md"),
    (TrialRecipe, "trials.md"),
    (ReportRecipe, "trials.md"),
    (PatchRecipe, "learning.md"),
    (AugmentationRecipe, "learning.md"),
    (NetworkRecipe, "learning.md"),
    (LossRecipe, "learning.md"),
    (OptimizerRecipe, "learning.md"),
    (TrainRecipe, "segmentation.md"),
    (SegmentRecipe, "segmentation.md"),
    (CalibrateRecipe, "segmentation.md"),
    (CardRecipe, "segmentation.md"),
    (StudyRecipe, "scaling.md"),
    (FilterRecipe, "scaling.md"),
    (FitRecipe, "scaling.md"),
    (Hospital, "phantom.md"),
    (FollowRecipe, "growth.md"),
    (RescanRecipe, "growth.md"),
    (AnnotateRecipe, "review.md"),
    (Stage, "review.md"),
    (TuringRecipe, "review.md"),
    (CropRecipe, "generators.md"),
    (CriticRecipe, "generators.md"),
    (TissueNetworkRecipe, "generators.md"),
    (DiffusionRecipe, "generators.md"),
    (AdversarialRecipe, "generators.md"),
    (TrainerRecipe, "nnunet.md"),
]


@pytest.mark.parametrize(("kind", "page"), RECIPES)
def test_every_recipe_key_is_documented(kind: type[Recipe], page: str) -> None:
    """In the first cell of a table's row that says what it means; where a page names the recipe, in its own table."""
    name = f"`{kind.__name__}`"
    rows = first_table_after(PAGES[page], name) if name in PAGES[page] else first_cells(PAGES[page])
    known = " ".join(rows)
    assert [key for key in kind.model_fields if f"`{key}`" not in known] == []


def first_cells(text: str) -> list[str]:
    """The first cells of all rows of all tables."""
    return [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]


def first_table_after(text: str, word: str) -> list[str]:
    """The first cells of the rows of the first table after a word."""
    lines = iter(text.split(word, 1)[1].splitlines())
    rows: list[str] = []
    for line in lines:
        if line.startswith("|"):
            rows.append(line.split("|")[1])
        elif rows:
            break
    return rows


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("synthesis", SynthesisRecipe),
        ("cohort", CohortRecipe),
        ("cluster", ClusterRecipe),
        ("train", TrainRecipe),
        ("scale", StudyRecipe),
        ("follow", FollowRecipe),
        ("trial", TrialRecipe),
    ],
)
def test_every_recipe_file_is_valid(folder: str, kind: type[Recipe]) -> None:
    files = sorted((ROOT / "src" / "synthoma" / "recipes" / folder).glob("*.toml"))
    assert files
    for path in files:
        read_recipe(kind, path)


def test_every_recipe_of_a_generator_is_valid() -> None:
    for name in recipe_names("generator"):
        assert read_generator_recipe(name).kind in ("adversarial", "diffusion")


def test_every_command_is_documented() -> None:
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    everything = "\n".join(PAGES.values())
    assert [name for name in names if f"synthoma {name}" not in everything and name != "info"] == []


def test_every_validation_code_is_documented() -> None:
    assert [code for code in CODES if f"`{code}`" not in PAGES["datasets.md"]] == []


def test_links_between_pages_lead_somewhere() -> None:
    for name, text in EVERY_PAGE.items():
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith("https://"):
                assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_code_on_pages_fits_beside_both_columns_of_the_site() -> None:
    shown = [block for page in EVERY_PAGE if page.startswith("docs/") for block in blocks(page)]
    shown = [block for block in shown if block.language != "math"]
    long = [f"{block.page}: {line}" for block in shown for line in block.text.splitlines() if len(line) > 108]
    assert long == []


def test_the_tree_of_the_readme_is_the_tree() -> None:
    tree = PAGES["README.md"].split("```\nsrc/synthoma/")[1].split("```")[0]
    named = set(re.findall(r"(\w+\.py|\w+/)(?=[\s])", tree))
    there = {path.name for path in (ROOT / "src/synthoma").glob("*.py") if not path.name.startswith("__")}
    there |= {f"{path.parent.name}/" for path in (ROOT / "src/synthoma").glob("*/__init__.py")}
    assert there <= named, there - named


SET = {  # what --set changes, of commands without a named recipe
    "calibrate": CalibrateRecipe,
    "convert": ConvertRecipe,
    "evaluate": EvaluateRecipe,
    "realism": RealismRecipe,
    "segment": SegmentRecipe,
    "split": SplitRecipe,
    "trial-report": ReportRecipe,
    "validate": ValidateRecipe,
}
NAMED = {command: (folder, kind) for folder, (command, kind) in FOLDERS.items()}


@pytest.mark.parametrize("page", [page for page in EVERY_PAGE if any(block.is_commands for block in blocks(page))])
def test_commands_on_pages_exist_with_their_options_and_keys(page: str) -> None:
    """Those of blocks that no test runs as well."""
    lines = [line for block in blocks(page) if block.is_commands for line in block.commands()]
    for line in lines:
        words = said_in_full(line)
        if "synthoma" in words[:8] and words[0] in ("synthoma", "torchrun", "srun", "python"):
            check_command(words[words.index("synthoma") + 1 :])
        for extras in re.findall(r"synthoma\[([\w,]+)\]", line):
            assert set(extras.split(",")) <= EXTRAS_OF_PACKAGE, line
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", MAKEFILE, re.MULTILINE), line


def check_command(words: list[str]) -> None:
    """Refuses a command, an option or a recipe key that does not exist."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command, name, words = command.commands[words[0]], words[0], words[1:]
    flags = {"-h", "--help", "--verbose", "--quiet", *(flag for one in command.params for flag in one.opts)}
    unknown = [word for word in words if word.startswith("-") and word not in flags]
    assert unknown == [], f"synthoma {name} has no {unknown}"
    changes = [value for flag, value in zip(words, words[1:], strict=False) if flag == "--set"]
    if not changes:
        return
    if name in SET:
        read_recipe(SET[name], None, changes)
    elif name == "train":
        read_train_recipe(words[0], changes)
    else:
        folder, place = NAMED[name]
        path = find_recipe(words[0], folder)
        module, _, kind = place.partition(":")
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        recipe = getattr(importlib.import_module(module), kind.format(kind=str(settings.get("kind", "")).title()))
        read_recipe(recipe, path, changes)


def test_recipes_on_pages_are_valid() -> None:
    """Blocks of TOML: a cluster recipe or that of an annotation, whichever takes all of its keys."""
    for page in EVERY_PAGE:
        for block in blocks(page):
            if block.language == "toml":
                kinds = [kind for kind, _ in RECIPES if set(tomllib.loads(block.text)) <= set(kind.model_fields)]
                assert any(_is_valid(kind, block.text) for kind in kinds), f"{page}: {block.text}"


def _is_valid(kind: type[Recipe], text: str) -> bool:
    try:
        make_recipe(kind, tomllib.loads(text))
    except RecipeError:
        return False
    return True
