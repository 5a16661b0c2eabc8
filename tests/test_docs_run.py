"""Every block of code on every page runs, in the order of its page, on made-up patients and with tiny recipes."""

from __future__ import annotations

import contextlib
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner

from documented import NEVER_RUN, PAGES, Block, blocks, said_in_short
from scaling.cohorts import patient
from small_training import tiny_training
from synthoma import files, recipe
from synthoma.cli.main import app
from synthoma.datasets.splits import Fold, Splits, write_splits
from synthoma.datasets.writing import write_case
from synthoma.volume import Geometry, Volume
from training.lesions import TINY as TINY_GENERATOR


def to_run(page: str) -> list[Block]:
    """The blocks of a page that tests run: commands and Python, if they are not marked."""
    return [block for block in blocks(page) if not block.not_run and (block.is_commands or block.language == "python")]


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DATA_SETS = ("DIR", "DATA", "SCANS", "ANNOTATED", "TEST", "TRUTH", "REAL", "IN", "VALIDATION", "cohort")
TRAIN = {**tomllib.loads(tiny_training()), "synthesis": {"diameter_mm": [10.0, 16.0]}}
# what is said otherwise than in the recipes that come along, by folder: smaller, so that each takes seconds
TINY: dict[str, dict[str, Any]] = {
    "synthesis": {"lesions": [1, 2], "diameter_mm": [10.0, 16.0]},
    "cohort": {"cases": 3, "spacing_mm": 5.0, "slice_mm": 5.0},
    "train": TRAIN,
    "scale": {"counts": [1, 2], "seeds": 2, "examples": 1, "train": TRAIN},
    "trial": {"levels": {"diameter_mm": [10, 16], "contrast_hu": [-60, -40]}, "sites": 1},
    "follow": {"days": [0, 90], "synthesis": {"organs": ["liver"], "lesions": [1, 1], "diameter_mm": [10.0, 14.0]}},
    "generator": {**TINY_GENERATOR, "steps": 2},
}


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes that come along, made small."""
    folder = tmp_path_factory.mktemp("recipes")
    for path in sorted(recipe.RECIPES.rglob("*.toml")):
        settings = tomllib.loads(path.read_text(encoding="utf-8")) | TINY.get(path.parent.name, {})
        if "splits" in settings:
            settings["cases"] = 8  # one of each kind for each side
        for hospital in settings.get("hospitals", ()):
            hospital |= {"spacing_mm": [6.0, 6.0], "slice_mm": [6.0, 6.0]}
        if settings.get("kind") == "adversarial":
            del settings["sampling_steps"]  # of diffusion
        target = folder / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_text(tomli_w.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory, recipes: Path) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"), recipes)


class Shelf:
    """What pages name and nobody on them makes: DIR, PRED, MODEL ... Each is made once, when it is asked for."""

    def __init__(self, folder: Path, recipes: Path) -> None:
        self.folder, self.recipes = folder, recipes
        self.makers: dict[str, Callable[[Path], None]] = {
            **dict.fromkeys(DATA_SETS, _write_patients),
            **dict.fromkeys(("MORE", "HEALTHY"), lambda folder: _write_patients(folder, 0, "more")),
            "RAW": _write_scans,
            **dict.fromkeys(("PRED", "PREDICTED", "PREDICTIONS", "predicted"), _write_masks),
            "MASKS": _write_masks,
            "FLAT": self._label_maps,
            "Dataset001_Liver": self._made("convert DIR --to nnunet --out"),
            "PRED_B": self._made("segment MODEL TRIAL --out"),
            "MODEL": self._made("train unet --data MORE --out"),  # a critic has not seen DIR
            "GEN": self._made("train-generator diffusion --data DIR --out"),
            "SYNTHETIC": self._made("synthesize liver --data DIR --out"),
            "OUT": self._made("synthesize liver --data DIR --out"),
            "RUN_A": self._made("evaluate DIR PRED --out"),
            "RUN_B": self._made("evaluate DIR PRED --out"),
            "TRIAL": self._made("trial liver --data DIR --out"),
            "demo/patient": self._made("cohort one --set cases=1 --out"),
        }

    def _made(self, command: str) -> Callable[[Path], None]:
        return lambda folder: run_command([*command.split(), str(folder)], self, self.folder)

    def _label_maps(self, folder: Path) -> None:
        self.put("Dataset001_Liver", self.folder)
        shutil.copytree(self.folder / "Dataset001_Liver/labelsTr", folder)

    def put(self, name: str, place: Path) -> None:
        """A copy of what has this name in a folder; nothing if it is there already, or is not on the shelf."""
        if (place / name).exists() or name not in self.makers:
            return
        made = self.folder / name
        if not made.exists():
            self.makers[name](made)
        if place != self.folder:
            shutil.copytree(made, place / name)


def _write_patients(folder: Path, sick: int = 3, well: str = "CASE") -> None:
    """Cases with tumors, and two without; with splits."""
    names = [f"patient{n}" for n in range(sick)]
    cases = [patient(name, True) for name in names] + [patient(name, False) for name in (well, f"{well}2")]
    for case in cases:
        write_case(case, folder / case.id)
    trained, tested = tuple(case.id for case in cases if case.id not in names[-1:]), tuple(names[-1:])
    splits = Splits((Fold(trained, ()),), tested, {case.id: case.id for case in cases}, 0, {})
    write_splits(splits, folder / "splits.json")


def _write_masks(folder: Path) -> None:
    """The masks of the same cases without their scans: what another program found."""
    _write_patients(folder)
    for scan in folder.glob("*/ct.nii.gz"):
        scan.unlink()


def _write_scans(folder: Path) -> None:
    """The scans of the same cases without any mask."""
    _write_patients(folder)
    for masks in folder.glob("*/segmentations"):
        shutil.rmtree(masks)


def _write_files_of_a_scan(folder: Path) -> None:
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


def run_command(words: list[str], shelf: Shelf, place: Path) -> None:
    """One command in a folder, with what it reads and nobody has made yet; fails unless it ends well."""
    outputs = {after for word, after in zip(words, words[1:], strict=False) if word in ("--out", "--recipe")}
    for name in _names_in([word for word in words if word not in outputs]):
        shelf.put(name, place)
    # in this process: tests run side by side
    words = ["0" if before == "--workers" else word for before, word in zip(["", *words], words, strict=False)]
    with contextlib.chdir(place), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "RECIPES", shelf.recipes)
        done = CliRunner().invoke(app, words)
    # made-up patients look alike: `validate` says so, and exits with 1
    if done.exit_code not in ((0, 1) if words[0] == "validate" else (0,)):
        raise AssertionError(f"synthoma {' '.join(words)}\n{done.output}\n{done.exception!r}") from done.exception


def _names_in(words: list[str]) -> Iterator[str]:
    """What in a command may be a folder, the parts of values included: `critic.model=MODEL`, `OUT/CASE#1`."""
    for word in words:
        yield word
        yield from re.findall(r"[\w/]+", word)
        yield from (part for part in re.split(r"[/=#\[\]\",]+", word) if part)


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)])
def test_the_blocks_of_a_page_run(page: str, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that needs what tests do not have is marked: `<!-- not run: REASON -->` in the line above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "RECIPES", shelf.recipes)
    _write_files_of_a_scan(tmp_path)
    names: dict[str, object] = {}
    for block in to_run(page):
        if block.is_commands:
            _run_commands(block, shelf, tmp_path)
            continue
        for name in re.findall(r"(?<!out=)\"([\w/]+)\"", block.text):
            shelf.put("demo/patient" if name.startswith("demo/patient") else name, tmp_path)
        exec(compile(block.text, page, "exec"), names)


def _run_commands(block: Block, shelf: Shelf, place: Path) -> None:
    for command in block.commands():
        if command.startswith(tuple(NEVER_RUN)):
            continue
        assert command.startswith("synthoma "), f"{block.page}: tests cannot run `{command}`; mark its block as not run"
        run_command(said_in_short(command)[1:], shelf, place)
