"""Run folders: what evaluate and compare leave, read back, and looked at by a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_up import RECIPE, evaluate, predictions, truth

from synthoma.errors import RecipeError, RunError, SynthomaError
from synthoma.evaluation.outputs import finish_comparison, read_models
from synthoma.evaluation.report import evaluation_page
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe
from synthoma.evaluation.summary import summarise
from synthoma.reports.pictures import Picture
from synthoma.tables import write_table

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
    assert [sentence.split(": ")[0] for sentence in comparison.sentences] == ["liver_lesion", "liver"]
    assert json.loads((tmp_path / "summary.json").read_text())["sentences"] == list(comparison.sentences)
    assert json.loads((tmp_path / "summary.json").read_text())["differences"]
    text = (tmp_path / "report.html").read_text()
    assert all(escape(sentence) in text for sentence in comparison.sentences)
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


def test_the_verdict_on_top_says_what_was_found(study: Path) -> None:
    text = (study / "run0" / "report.html").read_text()
    top = text[text.index('class="verdict"') : text.index("<h2>")]
    fates = json.loads((study / "run0" / "summary.json").read_text())["counts"]["lesions"]["liver_lesion"]
    true = sum(count for fate, count in fates.items() if fate.startswith("truth "))
    assert f"liver_lesion: {fates['truth found']} of {true} lesions found" in top
    assert "in silico" not in text
    assert "prefers-color-scheme: dark" in text


def test_pages_of_in_silico_patients_say_so_in_title_and_sentence(study: Path, tmp_path: Path) -> None:
    truth(tmp_path / "truth", 2)
    for path in (tmp_path / "truth").glob("*/case.json"):
        told = json.loads(path.read_text())
        path.write_text(json.dumps(told | {"attributes": told.get("attributes", {}) | {"in_silico": True}}))
    predictions(tmp_path / "model", tmp_path / "truth")
    evaluate(tmp_path / "truth", tmp_path / "model", tmp_path / "run", EvaluateRecipe(resamples=100))
    text = (tmp_path / "run" / "report.html").read_text()
    assert "<title>Evaluation run, in silico</title>" in text
    assert "All patients are in silico" in text
    finish_comparison(read_models(tmp_path / "run", tmp_path / "run"), tmp_path / "out")
    assert "All patients are in silico" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("wrong", ['{"status": "done"}', '{"status": "done", "result": {"rows": [{}]}}', "[1]"])
def test_damaged_scores_are_one_sentence(wrong: str, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "run0", tmp_path / "run")
    (tmp_path / "run" / "records.jsonl").write_text(wrong + "\n")
    with pytest.raises(RunError, match=r"records\.jsonl holds no scores; .*run the same evaluate again"):
        read_models(tmp_path / "run", study / "run1")


def test_a_structure_that_is_a_path_writes_no_plot_elsewhere(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "run0", tmp_path / "run")
    text = (tmp_path / "run" / "records.jsonl").read_text()
    (tmp_path / "run" / "records.jsonl").write_text(text.replace('"liver_lesion"', '"../../liver_lesion"'))
    with pytest.raises(SynthomaError, match="the name of a structure is a path"):
        read_models(tmp_path / "run", tmp_path / "run")


def test_a_damaged_recipe_of_a_run_is_one_sentence(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "run0", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["recipe"]["curve"] = "all"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(RecipeError, match="curve"):
        read_models(tmp_path / "run", tmp_path / "run")


def test_markup_in_names_is_shown_as_it_is() -> None:
    name = "<b>liver</b>"
    row = {"structure": name, "case": name, "patient": name, "outcome": "true positive", "truth_ml": 1.0,
           "predicted_ml": 1.0, "error_ml": 0.0, "dsc": 0.5, "iou": 0.4, "nsd_2mm": 0.5}  # fmt: skip
    recipe = EvaluateRecipe(distances=False, tolerances_mm=(2.0,), resamples=100)
    summary = summarise([CaseScores(name, name, (row,))], recipe)
    text = evaluation_page(name, summary, {}, {name: [Picture(name, name, "")]}, {name: [name]})
    assert "<b>liver" not in text
    assert text.count("&lt;b&gt;liver") >= 6


def test_cells_of_a_csv_are_never_formulas(tmp_path: Path) -> None:
    rows = [{"case": text, "dsc": -0.5} for text in ("=1+1", "+1", "-1", "@SUM(A1)", " =1", "a=1", "c-1")]
    write_table(rows, tmp_path / "figures.csv")
    lines = (tmp_path / "figures.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0].strip('"') for line in lines] == [
        "'=1+1",
        "'+1",
        "'-1",
        "'@SUM(A1)",
        "' =1",
        "a=1",
        "c-1",
    ]
    assert all(line.split(",")[1] == "-0.5" for line in lines)


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
