"""Could a lesion be seen: d' against theory in white noise, what is not told, and the figures made of it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_up import RECIPE, evaluate, predictions, truth
from masks import balls

from synthoma.cases import Case, Label
from synthoma.evaluation.detectability import Looked, detectabilities
from synthoma.evaluation.figures import detectability_bins
from synthoma.evaluation.lesion import Components
from synthoma.evaluation.outputs import finish_comparison, read_models
from synthoma.evaluation.planes import region_of
from synthoma.evaluation.scoring import EvaluateRecipe, score_case
from synthoma.evaluation.summary import summarise
from synthoma.evaluation.verdicts import evaluation_sentences
from synthoma.volume import Geometry, Volume

GRID = Geometry.of((60, 60, 40), (1.2, 1.2, 2.0))
ORGAN = balls(GRID, ((0.5, 0.5, 0.5), 66))
NOISE_HU = 20.0


def scan(lesions: Volume, contrast_hu: float, seed: int = 0) -> Volume:
    noise = np.random.default_rng(seed).normal(100, NOISE_HU, GRID.shape)
    return Volume((noise + contrast_hu * lesions.data).round().astype(np.int16), GRID)


@pytest.mark.parametrize(("diameter_mm", "contrast_hu"), [(8, -15), (8, 30), (14, -6)])
def test_in_white_noise_it_is_what_theory_says(diameter_mm: float, contrast_hu: float) -> None:
    lesion = balls(GRID, ((0.5, 0.5, 0.5), diameter_mm))
    found = [
        detectabilities(scan(lesion, contrast_hu, seed).data, ORGAN.data, Components.of(region_of(lesion), "liver"))[0]
        for seed in range(8)
    ]
    around = balls(GRID, ((0.5, 0.5, 0.5), diameter_mm + 14)).data.sum()
    around -= balls(GRID, ((0.5, 0.5, 0.5), diameter_mm + 4)).data.sum()
    expected = abs(contrast_hu) / (NOISE_HU * math.sqrt(1 / lesion.data.sum() + 1 / around))
    assert np.mean(found) == pytest.approx(expected, rel=0.2)


def test_each_lesion_is_asked_by_itself_and_the_answer_is_the_same_again() -> None:
    lesions = balls(GRID, ((0.4, 0.5, 0.5), 10), ((0.56, 0.5, 0.5), 8))  # either lies around the other
    shown = Components.of(region_of(lesions), "liver")
    hu = scan(lesions, 0).data + np.where(balls(GRID, ((0.56, 0.5, 0.5), 8)).data, 600, 0).astype(np.int16)
    larger, smaller = detectabilities(hu, ORGAN.data, shown)
    assert larger < 3
    assert smaller > 8
    assert [larger, smaller] == detectabilities(hu, ORGAN.data, shown)


def test_where_an_organ_has_no_room_for_a_second_one_nothing_is_told() -> None:
    lesion = balls(GRID, ((0.5, 0.5, 0.5), 56))
    told = detectabilities(scan(lesion, -40).data, ORGAN.data, Components.of(region_of(lesion), "liver"))
    assert np.isnan(told).all()


def case(**changes: object) -> Case:
    lesion = balls(GRID, ((0.5, 0.5, 0.5), 10))
    fields = {"image": scan(lesion, -40), "masks": {"liver": ORGAN, "liver_lesion": lesion}} | changes
    return Case("one", **fields)  # type: ignore[arg-type]


def test_a_lesion_row_has_it_if_it_is_asked_for() -> None:
    one = case()
    rows = score_case(one, one, EvaluateRecipe(detectability=(4.0, 6.0))).lesions
    assert {row["side"]: row.get("detectability") is not None for row in rows} == {"truth": True, "predicted": False}
    assert all("detectability" not in row for row in score_case(one, one).lesions)


def test_the_order_of_axes_changes_nothing() -> None:
    lesions = balls(GRID, ((0.3, 0.5, 0.5), 8), ((0.7, 0.5, 0.5), 8), ((0.5, 0.7, 0.5), 8))  # of one size
    plain = case(image=scan(lesions, -25), masks={"liver": ORGAN, "liver_lesion": lesions})
    turned = case(
        image=plain.image.reorient("SPL"),  # type: ignore[union-attr]
        masks={name: mask.reorient("SPL") for name, mask in plain.masks.items()},  # type: ignore[union-attr]
    )
    told = []
    for one in (plain, turned):
        rows = score_case(one, one, EvaluateRecipe(detectability=(4.0,))).lesions
        told.append(sorted((row["center_mm"], row["detectability"]) for row in rows if row["side"] == "truth"))
    np.testing.assert_allclose([value for _, value in told[0]], [value for _, value in told[1]], rtol=1e-6)
    assert len({round(value, 6) for _, value in told[0]}) == 3


def test_a_scan_is_not_read_unless_it_is_asked_for() -> None:
    def unreadable() -> Volume:
        raise AssertionError("the scan was read")

    one = case(image=unreadable)
    assert len(score_case(one, one).lesions) == 2
    with pytest.raises(AssertionError, match="the scan was read"):
        score_case(one, one, EvaluateRecipe(detectability=(4.0,)))


def test_a_sentence_says_what_was_found_of_those_that_can_be_seen_best() -> None:
    recipe = EvaluateRecipe(detectability=(4.0, 6.0), resamples=100)
    nothing = Volume(np.zeros(GRID.shape, bool), GRID)
    told = [case().masks["liver_lesion"], nothing, nothing]
    blind = [
        score_case(case(patient=str(n)), case(masks={"liver_lesion": found}), recipe) for n, found in enumerate(told)
    ]
    told_so = "\n".join(evaluation_sentences(summarise(blind, recipe)))
    assert "Of the lesions that can be seen best (d' >= 6) 33 % were found (" in told_so
    assert "seen best" not in "\n".join(evaluation_sentences(summarise([score_case(case(), case())])))


def test_what_cannot_be_told_is_a_note() -> None:
    recipe = EvaluateRecipe(detectability=(4.0,))
    lesion = case().masks["liver_lesion"]
    alone = case(masks={"liver_lesion": lesion})
    scores = score_case(alone, alone, recipe)
    assert scores.notes == ("liver_lesion: detectability not told: the liver is not annotated",)
    assert len(scores.lesions) == 2
    shifted = case(image=Volume(case().image.data, Geometry.of(GRID.shape, (1.2, 1.2, 2.1))))  # type: ignore[union-attr]
    assert "detectability not told" in Looked(shifted).told("liver_lesion", region_of(lesion), [])[1]  # type: ignore[arg-type]


def test_a_label_map_is_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "one.nii.gz"
    labels = Case("one", path, {"liver": Label(path, (1, 2)), "liver_lesion": Label(path, (2,))})
    found = Looked(labels).told("liver_lesion", region_of(balls(GRID, ((0.5, 0.5, 0.5), 10))), [])
    assert found == ([], "liver_lesion: detectability not told: there is a label map and no scan")


def test_bins_leave_nothing_out() -> None:
    assert detectability_bins(()) == []
    bins = detectability_bins((4.0, 6.0))
    assert [name for name, _, _ in bins] == ["d' < 4", "d' 4-6", "d' >= 6"]
    assert [(low, high) for _, low, high in bins] == [(0, 4), (4, 6), (6, math.inf)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seen")
    truth(folder / "truth")
    recipe = RECIPE.with_changes(detectability=(4.0, 6.0))
    for model in (0, 1):
        predictions(folder / f"model{model}", folder / "truth", model)
        evaluate(folder / "truth", folder / f"model{model}", folder / f"run{model}", recipe)
    return folder


def test_a_run_tells_it_in_tables_sentence_and_plot(study: Path) -> None:
    lesions = pq.read_table(study / "run1" / "lesions.parquet").to_pylist()
    told = [row["detectability"] for row in lesions if row["side"] == "truth"]
    assert any(value is not None for value in told)
    figures = json.loads((study / "run1" / "summary.json").read_text())["figures"]
    shares = {row["size"]: row for row in figures if row["metric"] == "lesion_sensitivity" and not row["group"]}
    low = [row for row in lesions if row["side"] == "truth" and (row["detectability"] or math.inf) < 4]
    assert shares["d' < 4"]["value"] == pytest.approx(np.mean([row["fate"] == "found" for row in low]))
    page = (study / "run1" / "report.html").read_text()
    assert "sensitivity_by_detectability" in " ".join(path.name for path in (study / "run1" / "plots").iterdir())
    assert "who knows its shape and place" in page


def test_models_are_compared_by_it_too(study: Path, tmp_path: Path) -> None:
    comparison = finish_comparison(read_models(study / "run0", study / "run1"), tmp_path)
    assert "d' < 4" in {one.size for one in comparison.differences}


def test_a_run_of_before_is_compared_with_one_of_today(study: Path, tmp_path: Path) -> None:
    evaluate(study / "truth", study / "model0", tmp_path / "today")
    shutil.copytree(tmp_path / "today", tmp_path / "before")
    record = json.loads((tmp_path / "before" / "run.json").read_text())
    del record["recipe"]["detectability"]
    (tmp_path / "before" / "run.json").write_text(json.dumps(record))
    assert read_models(tmp_path / "before", tmp_path / "today").recipe.detectability == ()
