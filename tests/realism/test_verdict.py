"""What the page says of its classifiers: no sentence claims more than the figures show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from realism.test_distances import lesions
from realism.test_features import UPRIGHT, ball_case
from synthoma.commands import realism as command
from synthoma.realism.crops import Crops
from synthoma.realism.features import Row, Side, measure_side
from synthoma.realism.outputs import ask_classifiers
from synthoma.realism.recipe import RealismRecipe
from synthoma.realism.report import realism_page, sentences
from synthoma.realism.telling import Classifiers, Copies, Told, classify
from synthoma.statistics.intervals import Interval

SHOWN = Told(Interval(0.9, 0.8, 0.97, 20), {}, n=(40, 41))
NOT_SHOWN = Told(Interval(0.55, 0.42, 0.68, 20), {}, n=(40, 41))
NONE = Told(Interval(np.nan), {}, "3 and 3 lesions of 2 and 2 patients are too few", (3, 3))


@pytest.mark.parametrize(
    ("crops", "healthy", "words"),
    [
        (SHOWN, NOT_SHOWN, "tells synthetic from real lesions with an AUC of 0.90"),
        (SHOWN, NOT_SHOWN, "that the scans differ themselves is not shown: 0.55"),
        (SHOWN, SHOWN, "but healthy tissue of the same scans as well, with 0.90"),
        (SHOWN, NONE, "whether the scans differ themselves is not known"),
        (NOT_SHOWN, SHOWN, "does not show that it can tell them: AUC 0.55 (95 % interval 0.42 to 0.68)"),
        (NONE, NONE, "No network looked at the voxels: 3 and 3 lesions of 2 and 2 patients are too few"),
    ],
)
def test_the_network_is_believed_only_as_far_as_the_scans_are_alike(crops: Told, healthy: Told, words: str) -> None:
    last = sentences(Classifiers(SHOWN, SHOWN, crops, healthy), [], (40, 41))[-1]
    assert words in last


def test_place_is_told_from_tissue() -> None:
    first = sentences(Classifiers(SHOWN, NOT_SHOWN, NONE, NONE), [], (40, 41))[0]
    assert first.startswith("Synthetic lesions are told from real ones")
    assert "0.55 (95 % interval 0.42 to 0.68) without the features of place" in first
    sides = lesions(12, seed=1), lesions(12, seed=2, neighbor_mm=4.0)
    whole = classify(*sides, resamples=100, shuffle=False)
    assert whole.shown
    assert not classify(*sides, resamples=100, without=("size", "place"), shuffle=False).shown


def test_the_page_has_a_row_for_each_classifier_and_says_why_one_has_no_figure() -> None:
    classifiers = Classifiers(SHOWN, NOT_SHOWN, SHOWN, NONE)
    page = realism_page("T", classifiers, [], [], Copies(np.nan, np.nan, np.nan, 0), [], (40, 41), {})
    table = page.split("Can they be told apart?")[1].split("</table>")[0]
    assert table.count("<tr>") == 5
    assert table.count(">0.90<") == 2
    assert "3 and 3 lesions of 2 and 2 patients are too few" in table


def test_crops_are_looked_at_where_torch_is_and_the_recipe_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.crops_of(RealismRecipe(crops=False), tmp_path) == "left out by the recipe"
    monkeypatch.setattr(command, "present_extras", lambda: {"train": False})
    assert "synthoma[train]" in str(command.crops_of(RealismRecipe(), tmp_path))
    monkeypatch.setattr(command, "present_extras", lambda: {"train": True})
    assert command.crops_of(RealismRecipe(), tmp_path) == Crops(tmp_path / "crops")


def test_the_classifiers_get_the_crops_of_their_side(tmp_path: Path) -> None:
    crops, rows = Crops(tmp_path), {}
    for side in ("real", "synthetic"):
        found: list[Row] = measure_side(Side(side, ball_case(UPRIGHT)), crops=crops)["lesions"]
        rows[side] = found
    classifiers = ask_classifiers(rows["real"], rows["synthetic"], crops)
    assert classifiers.crops.n == classifiers.healthy.n == (1, 1)
    assert classifiers.crops.note == "1 and 1 lesions of 1 and 1 patients are too few"
    left_out = ask_classifiers(rows["real"], rows["synthetic"], "left out by the recipe")
    assert left_out.crops.note == left_out.healthy.note == "left out by the recipe"
