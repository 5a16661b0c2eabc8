"""What is documented exists, what exists is documented, and the examples run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from small_training import tiny_training
from synthoma import files
from synthoma.cli.main import app
from synthoma.datasets.conversion import ConvertRecipe
from synthoma.datasets.splits import SplitRecipe
from synthoma.datasets.validation import CODES, ValidateRecipe
from synthoma.engine.clusters import ClusterRecipe
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.followup.recipe import FollowRecipe, RescanRecipe
from synthoma.learning.augmentation import AugmentationRecipe
from synthoma.learning.crops import CropRecipe
from synthoma.learning.loop import OptimizerRecipe
from synthoma.learning.losses import LossRecipe
from synthoma.learning.networks import NetworkRecipe
from synthoma.learning.patches import PatchRecipe
from synthoma.learning.tissue import TissueNetworkRecipe
from synthoma.phantom.cohort import CohortRecipe, write_cohort_case
from synthoma.phantom.hospitals import Hospital
from synthoma.realism.recipe import RealismRecipe
from synthoma.recipe import Recipe, read_recipe, recipe_names
from synthoma.review.recipes import AnnotateRecipe, Stage, TuringRecipe
from synthoma.scaling.recipe import StudyRecipe
from synthoma.scaling.results import FitRecipe
from synthoma.segmentation.infer import SegmentRecipe
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.synthesis.recipe import CriticRecipe, JudgeRecipe, SynthesisRecipe
from synthoma.training.generators import read_generator_recipe
from synthoma.training.recipe import AdversarialRecipe, DiffusionRecipe
from synthoma.trials.recipe import ReportRecipe, TrialRecipe
from synthoma.volume import Geometry, Volume

ROOT = Path(__file__).parents[1]
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
    (StudyRecipe, "scaling.md"),
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
    for name, text in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (folder / target).exists(), f"{name}: {target}"


def test_the_tree_of_the_readme_is_the_tree() -> None:
    tree = PAGES["README.md"].split("```\nsrc/synthoma/")[1].split("```")[0]
    named = set(re.findall(r"(\w+\.py|\w+/)(?=[\s])", tree))
    there = {path.name for path in (ROOT / "src/synthoma").glob("*.py") if not path.name.startswith("__")}
    there |= {f"{path.parent.name}/" for path in (ROOT / "src/synthoma").glob("*/__init__.py")}
    assert there <= named, there - named


TINY = tiny_training() + "[synthesis]\ndiameter_mm = [20.0, 30.0]\n"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `demo/patient` holds the embedded case, at 5 mm."""
    folder = tmp_path_factory.mktemp("readme")
    recipe = read_recipe(CohortRecipe, ROOT / "src/synthoma/recipes/cohort/one.toml", ["spacing_mm=5"])
    write_cohort_case(0, recipe, folder / "demo/patient")
    # a file of this name is taken for the recipe of this name: the same commands, in seconds
    (folder / "unet").write_text(TINY)
    (folder / "DIR").symlink_to("demo/patient")
    write_files_of_a_scan(folder)
    return folder


def write_files_of_a_scan(folder: Path) -> None:
    """A scan and its liver in the files that docs/files.md names."""
    grid = Geometry.of((64, 64, 40), (5.0, 5.0, 5.0))
    hu = np.full(grid.shape, 50, np.int16, order="F")
    for name in ("scan.nii.gz", "scan.nii", "ct.nrrd"):
        files.write_volume(Volume(hu, grid), folder / name)
    liver = Volume((hu > 0).astype(np.uint8), grid)
    for name in ("liver.nii.gz", "case.seg.nrrd"):
        files.write_volume(liver, folder / name)
    path = folder / "case.seg.nrrd"
    header, _, voxels = path.read_bytes().partition(b"\n\n")
    words = b"\nSegment0_ID:=s\nSegment0_Name:=liver\nSegment0_Layer:=0\nSegment0_LabelValue:=1"
    path.write_bytes(header + words + b"\n\n" + voxels)


# pages whose examples are trainings, trials and comparisons of whole data sets: their own tests run those functions
LONG = ("realism.md", "scaling.md", "trials.md")


@pytest.mark.parametrize(
    "page", sorted(name for name, text in PAGES.items() if "```python" in text and name not in LONG)
)
def test_python_examples_run(page: str, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    blocks = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
