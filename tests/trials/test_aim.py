"""A recipe aimed at what was missed draws more of it, and no size is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trial_report import design, rows, scores

from synthoma.errors import CaseError, FileError
from synthoma.recipe import read_recipe
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.trials.aim import aim_recipe, natural_mix, write_aim
from synthoma.trials.outputs import finish_report
from synthoma.trials.recipe import ReportRecipe


def report(folder: Path, d0: float) -> Path:
    lesions = rows(d0, patients=6)
    finish_report(design(lesions), [scores("model", lesions)], folder, ReportRecipe(resamples=100), 0, {})
    return folder


def test_a_model_that_misses_small_ones_is_given_more_small_ones_and_some_of_all(tmp_path: Path) -> None:
    aim = aim_recipe(report(tmp_path, 14))
    natural = natural_mix("liver")
    assert sum(natural.values()) == pytest.approx(1)
    assert sum(aim.aimed.values()) == pytest.approx(1)
    assert aim.missed["tiny"] == 1
    assert aim.missed["medium"] < 0.2
    assert aim.missed["large"] == 0
    assert aim.aimed["tiny"] > natural["tiny"]
    assert all(aim.aimed[size] >= natural[size] / 2 - 1e-9 for size in natural)
    assert "large 48-80 mm" in aim.text
    write_aim(aim, tmp_path / "aimed.toml")
    assert read_recipe(SynthesisRecipe, tmp_path / "aimed.toml") == aim.recipe


def test_nothing_missed_and_no_report_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="model missed nothing at the base"):
        aim_recipe(report(tmp_path, 1))
    with pytest.raises(FileError, match="no finished report of a trial"):
        aim_recipe(tmp_path / "none")
