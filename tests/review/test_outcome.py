"""What comes out of studies: reports with figures, data sets with the accepted masks."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from review.review_studies import SHAPE, Client, annotation, balls, write_data
from review.test_annotation import judged
from synthoma.cli.main import app
from synthoma.evaluation.pairing import open_predictions
from synthoma.reading import open_dataset
from synthoma.review import annotated
from synthoma.review.annotation import KIND, AnnotationKind, create_study
from synthoma.review.recipes import AnnotateRecipe
from synthoma.review.serving import open_study
from synthoma.review.store import Answer


def finished_study(root: Path) -> Path:
    """A study in a run folder: the first case's first candidate accepted, the other rejected; the second has none."""
    data, proposals = write_data(root)
    recipe = AnnotateRecipe()
    with open_study(root / "study", KIND, recipe, 0, {"data": str(data)}) as store:
        dataset = open_dataset(data)
        create_study(store, dataset, open_predictions(proposals, dataset), recipe, None)
        client = Client(AnnotationKind(store, dataset, recipe))
        one, two = (task["code"] for task in client.work())
        content = judged(client.task(one)["state"]["content"], "accepted", "rejected")
        client.answer(one, content, 0, final=True, seconds=30)
        client.answer(two, {"candidates": [], "verdict": "no tumor"}, 0, final=True, seconds=10)
    return root / "study"


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["review", *map(str, words)])
    return result.exit_code, result.output


@pytest.mark.parametrize("layout", ["abdomenatlas", "nnunet", "msd"])
def test_accepted_lesions_are_exported_on_the_scans_grid(tmp_path: Path, layout: str) -> None:
    study = finished_study(tmp_path)
    code, text = run("export", study, "--out", tmp_path / "out", "--to", layout)
    assert code == 0, text
    out, healthy = open_dataset(tmp_path / "out"), open_dataset(tmp_path / "data")
    for case in out:
        before = healthy[case.id]
        mask = case.read_mask("liver_lesion")
        assert before.read_geometry().matches(mask.geometry)
        np.testing.assert_array_equal(case.read_image().data, before.read_image().data)
        expected = np.zeros(SHAPE, bool)
        if case.id == "ann_smith":
            both = balls((8, 8, 5), (22, 18, 7)).data > 0
            expected = both & (np.indices(SHAPE)[0] < 15 if mask.data[8, 8, 5] else np.indices(SHAPE)[0] >= 15)
            assert mask.data.any()
        np.testing.assert_array_equal(mask.data, expected)


def test_unfinished_cases_are_left_out_with_a_word(tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    recipe = AnnotateRecipe()
    with open_study(tmp_path / "study", KIND, recipe, 0, {"data": str(data)}) as store:
        create_study(store, open_dataset(data), open_predictions(proposals, open_dataset(data)), recipe, None)
    code, text = run("export", tmp_path / "study", "--out", tmp_path / "none")
    assert code != 0
    with open_study(tmp_path / "study", KIND, recipe, 0, {"data": str(data)}) as store:
        client = Client(AnnotationKind(store, open_dataset(data), recipe))
        unreadable = {"candidates": [], "verdict": "cannot be read"}
        client.answer(client.work()[1]["code"], unreadable, 0, final=True)
        one = client.work()[0]["code"]
        client.answer(one, judged(client.task(one)["state"]["content"], "accepted", "accepted"), 0, final=True)
    code, text = run("export", tmp_path / "study", "--out", tmp_path / "out")
    assert code == 1
    assert "bob_jones: cannot be read" in text
    assert [case.id for case in open_dataset(tmp_path / "out")] == ["ann_smith"]


def test_the_report_of_an_annotation_has_its_figures_with_n(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    code, text = run("report", study, "--out", tmp_path / "report")
    assert code == 0, text
    with (tmp_path / "report" / "figures.csv").open() as file:
        figures = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(figures["seconds per case"]["value"]) == 20
    assert float(figures["seconds per lesion"]["value"]) == 20  # 40 s, two candidates
    assert float(figures["false candidates per scan"]["value"]) == 0.5
    assert float(figures["DSC of refined against proposed"]["value"]) == 1
    assert figures["seconds per case"]["n"] == "2"
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "2 of 2 tasks are finished" in page


def test_two_readers_agreement_is_in_the_findings(tmp_path: Path) -> None:
    stages = ({"name": "read", "role": "reader", "readings": 2},)
    kind = annotation(tmp_path, stages=stages, readers=("reader", "reader"))
    for number, statuses in enumerate((("accepted", "accepted"), ("accepted", "rejected"))):
        client = Client(kind, number)
        code = client.work()[0]["code"]
        client.answer(code, judged(client.task(code)["state"]["content"], *statuses), 0, final=True)
    (row,) = annotated.evaluate(kind).agreement
    assert (row["items"], row["candidates"]) == (1, 2)
    assert row["dsc"] == pytest.approx(2 / 3)  # of two balls of one size the other has one


def test_time_counts_every_opening_of_a_case() -> None:
    answers = [Answer(1, n, {}, None, False, seconds, "") for n, seconds in enumerate((5, 9, 2, 4))]
    assert annotated.spent_seconds(answers) == 13
    assert annotated.spent_seconds([]) == 0


def test_a_folder_that_is_no_study_is_a_sentence(tmp_path: Path) -> None:
    from synthoma.errors import RunError

    result = CliRunner().invoke(app, ["review", "report", str(tmp_path), "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, RunError)


def test_every_review_command_and_option_is_documented() -> None:
    from synthoma.cli.review import review

    page = (Path(__file__).parents[2] / "docs" / "review.md").read_text()
    names = [command.callback.__name__ for command in review.registered_commands if command.callback]
    assert [name for name in names if f"synthoma review {name}" not in page] == []
    options = [
        "proposals",
        "validation",
        "readers",
        "host",
        "certificate",
        "key",
        "public",
        "no-browser",
        "data",
        "seed",
        "port",
        "to",
    ]
    assert [option for option in options if f"--{option}" not in page] == []
