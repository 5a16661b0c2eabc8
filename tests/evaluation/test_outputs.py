"""Run folders: what evaluate and compare leave, read back, and looked at by a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_up import RECIPE, evaluate, predictions, truth

from synthoma.errors import RunError
from synthoma.evaluation.outputs import finish_comparison, read_models
from synthoma.evaluation.scoring import EvaluateRecipe

PLOTS = ("sensitivity_by_size", "froc", "roc", "dsc_by_diameter", "bland_altman")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    truth(root / "truth")
    for model in (0, 1):
        predictions(root / f"model{model}", root / "truth", model)
        evaluate(root / "truth", root / f"model{model}", root / f"run{model}")
    return root


def test_an_evaluation_leaves_tables_summary_plots_and_a_report(study: Path) -> None:
    run = study / "run0"
    cases, lesions = pq.read_table(run / "cases.parquet"), pq.read_table(run / "lesions.parquet")
    assert cases.num_rows == 12
    assert {"dsc", "nsd_2mm", "hd95_mm", "assd_mm", "hospital", "curve"} <= set(cases.column_names)
    assert lesions.num_rows >= 8
    summary = json.loads((run / "summary.json").read_text())
    assert summary["counts"]["cases"] == 6
    assert summary["recipe"]["groups"] == ["hospital"]
    for plot in PLOTS:
        assert (run / "plots" / f"liver_lesion_{plot}.svg").read_text().startswith("<?xml")
        assert (run / "plots" / f"liver_lesion_{plot}.csv").stat().st_size > 20


def test_a_report_asks_for_nothing_from_outside(study: Path) -> None:
    for page in (study / "run0" / "report.html",):
        text = page.read_text()
        asked = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']{0,30})""", text)
        assert all(target.startswith("data:image/png;base64,") for target in asked)
        assert "<script" not in text
        assert "@import" not in text
        assert text.count("<svg") == len(PLOTS) + 1


def test_the_same_evaluation_writes_the_same_bytes_on_any_number_of_workers(study: Path, tmp_path: Path) -> None:
    again = tmp_path / "run0"
    evaluate(study / "truth", study / "model0", again, workers=2)
    for name in ("summary.json", "figures.csv", "report.html", "plots/liver_lesion_froc.svg"):
        assert (again / name).read_bytes() == (study / "run0" / name).read_bytes(), name


def test_a_comparison_reads_two_runs(study: Path, tmp_path: Path) -> None:
    models = read_models(study / "run0", study / "run1")
    comparison = finish_comparison(models, tmp_path)
    assert comparison.names == ("run0", "run1")
    assert comparison.cases == 6
    assert json.loads((tmp_path / "summary.json").read_text())["differences"]
    text = (tmp_path / "report.html").read_text()
    assert "run1 better" in text or "no difference shown" in text
    assert (tmp_path / "plots" / "liver_lesion_froc.svg").is_file()


def test_folders_of_runs_are_training_seeds(study: Path, tmp_path: Path) -> None:
    for model in (0, 1):
        for seed in (0, 1):
            shutil.copytree(study / f"run{model}", tmp_path / f"model{model}" / f"seed{seed}")
    comparison = finish_comparison(read_models(tmp_path / "model0", tmp_path / "model1"), tmp_path / "out")
    assert comparison.seeds == (2, 2)


def test_runs_scored_otherwise_are_not_compared(study: Path, tmp_path: Path) -> None:
    recipe = RECIPE.with_changes(tolerances_mm=(5.0,))
    evaluate(study / "truth", study / "model1", tmp_path / "other", recipe)
    with pytest.raises(RunError, match="tolerances_mm"):
        read_models(study / "run0", tmp_path / "other")


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no evaluation"):
        read_models(tmp_path, tmp_path)


def test_a_case_that_cannot_be_scored_is_told_in_the_report(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "model0", tmp_path / "broken")
    (tmp_path / "broken" / "c2" / "segmentations" / "liver_lesion.nii.gz").write_bytes(b"no image")
    evaluate(study / "truth", tmp_path / "broken", tmp_path / "run", EvaluateRecipe(resamples=100))
    counts = json.loads((tmp_path / "run" / "summary.json").read_text())["counts"]
    assert counts["cases"] == 5
    assert counts["failed"][0].startswith("c2: ")
    assert "c2: " in (tmp_path / "run" / "report.html").read_text()


def test_a_browser_shows_the_report(study: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    picture = tmp_path / "report.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,3000",
               f"--screenshot={picture}", (study / "run0" / "report.html").as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    assert len({tuple(color) for color in imread(picture)[::10, ::10].reshape(-1, 4).tolist()}) > 50
