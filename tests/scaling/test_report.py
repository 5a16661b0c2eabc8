"""The page of a study: complete, self-contained, and shown by a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from studies import made_up

from synthoma.scaling.fit import fit_study
from synthoma.scaling.report import Study, level_rows, study_page
from synthoma.scaling.results import FitRecipe
from synthoma.scaling.table import Point
from synthoma.statistics.intervals import Ratio

REAL, QUICK = "real only", FitRecipe(resamples=200)
VOID = {"meta", "br", "img", "path", "use", "rect", "image"}


def smaller(points: list[Point], by: float) -> list[Point]:
    return [replace(p, score=Ratio(np.clip(p.score.top - by, 0, 1), p.score.bottom)) for p in points]


@pytest.fixture(scope="module")
def study() -> Study:
    points = {"test": made_up(3), "ood": made_up(9, patients=12)}
    third = [replace(p, arm="<own> & other") for p in made_up(3) if p.arm == "mixed" and p.cases < 64]
    points["test"] += smaller(third, 0.03)
    sizes = {
        name: {size: fit_study(smaller(some, by), REAL, QUICK) for size, by in (("< 10 mm", 0.3), (">= 10 mm", 0.0))}
        for name, some in points.items()
    }
    fits = {name: fit_study(some, REAL, QUICK) for name, some in points.items()}
    words = {"test": "new patients", "ood": "patients of other hospitals"}
    return Study(words, "mixed", "DSC", fits, points, sizes, 0.01, ("n0008_s1: RunError: <nan>",))


@pytest.fixture(scope="module")
def page(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(study_page(study, "What do they buy?", study.plots(), [], {"seed": 0, "recipe": {"counts": [4]}}))
    return path


def test_the_page_says_what_was_asked_answered_and_failed(study: Study, page: Path) -> None:
    text = page.read_text()
    for part in ("What do they buy?", study.answer(), "One point failed", "RunError: &lt;nan&gt;", "&lt;own&gt; &amp;"):
        assert part in text
    for remark in study.remarks():
        assert remark.replace("<", "&lt;").replace(">", "&gt;").replace("& ", "&amp; ") in text
    assert text.count("<svg") == 4


def test_a_study_of_in_silico_patients_says_so_in_title_sentence_and_axis(study: Study, page: Path) -> None:
    drawn = replace(study, in_silico=True)
    text = study_page(drawn, "What do they buy?", drawn.plots(), [], {})
    assert "tumors replace? In silico</title>" in text
    assert "All patients are in silico" in text
    assert drawn.plots()[0].svg != study.plots()[0].svg  # its axis
    assert "in silico" not in page.read_text()


def test_the_page_asks_for_nothing_from_outside(page: Path) -> None:
    text = page.read_text()
    asked = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']{0,30})""", text)
    assert all(target.startswith("data:image/png;base64,") for target in asked)
    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_every_tag_is_closed(page: Path) -> None:
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in VOID:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in VOID:
                assert open_tags.pop() == tag

    Reader().feed(page.read_text().removeprefix("<!doctype html>"))
    assert open_tags == []


def test_the_numbers_behind_the_plots_are_those_of_the_fit(study: Study) -> None:
    plot = next(plot for plot in study.plots() if plot.name == "scaling_test")
    means = {(row["arm"], row["cases"]): row["score"] for row in plot.rows if row["kind"] == "mean"}
    assert means == {(one.arm, one.cases): one.score.value for one in study.fits["test"].levels}
    assert sum(row["kind"] == "model" for row in plot.rows) == len(study.points["test"])
    assert plot.svg == next(other for other in study.plots() if other.name == plot.name).svg


def test_the_table_of_points_has_no_infinities(study: Study) -> None:
    rows = level_rows(study)
    assert len(rows) == sum(len(fit.levels) for fit in study.fits.values())
    assert {len(row) for row in rows} == {len(rows[0])}
    assert all(value is None or value == value for row in rows for value in row.values())
    assert np.isfinite([row["score"] for row in rows]).all()


def test_a_browser_shows_the_page(page: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    picture = tmp_path / "report.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1250,3000",
               "--disable-background-networking", f"--user-data-dir={tmp_path / 'browser'}",
               f"--screenshot={picture}", page.as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    colors = {tuple(color) for color in imread(picture)[::5, ::5, :3].reshape(-1, 3).round(2).tolist()}
    assert len(colors) > 30
    for shown in ((0.78, 0.34, 0.11), (0.36, 0.39, 0.44)):  # the mixed and the real-only arm
        assert min(sum(abs(a - b) for a, b in zip(shown, color, strict=True)) for color in colors) < 0.1
