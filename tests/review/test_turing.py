"""A blinded study keeps its secret: every way to tell the arms without looking at a lesion is tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from review.review_studies import Client
from synthoma import files
from synthoma.errors import CaseError, RecipeError
from synthoma.reading import open_dataset
from synthoma.recipe import make_recipe
from synthoma.review import rated, turing
from synthoma.review.arms import Subject, cut_out, find_leaks, find_subjects, match_arms
from synthoma.review.recipes import TuringRecipe
from synthoma.review.store import Store
from synthoma.statistics.multireader import auc
from synthoma.volume import Geometry, Volume

RECIPE = TuringRecipe(items=8, repeats=2, field_mm=(40, 40, 30), most_contrast_hu=60, most_size_ratio=3)


def write_arm(root: Path, floating: bool, odd: bool, offset: int, slice_mm: float = 3.0) -> Path:
    """Four livers with a lesion each. One arm is float32 with fractions, the other has even HU only."""
    rng = np.random.default_rng(offset)
    geometry = Geometry.of((40, 36, 20), (1.5, 1.5, slice_mm), "LPS" if floating else "RAS")
    for n in range(4):
        hu = rng.normal(100, 8, geometry.shape)
        center = np.array([14 + 3 * n, 16, 9])
        lesion = (((np.moveaxis(np.indices(geometry.shape), 0, -1) - center) * [1, 1, 2]) ** 2).sum(-1) <= 16 + 4 * n
        hu[lesion] -= 40 + offset
        scan = hu.astype(np.float32) if floating else (hu.astype(np.int16) // 2 * 2 + int(odd))
        folder = root / f"patient_{offset}_{n}"
        files.write_volume(Volume(scan, geometry), folder / "ct.nii.gz")
        masks = {"liver": np.ones(geometry.shape, np.uint8), "liver_lesion": lesion.astype(np.uint8)}
        for name, mask in masks.items():
            files.write_volume(Volume(mask, geometry), folder / "segmentations" / f"{name}.nii.gz")
    return root


def make(root: Path, recipe: TuringRecipe = RECIPE, readers: int = 2) -> turing.TuringKind:
    real = open_dataset(write_arm(root / "real", False, False, 0))
    synthetic = open_dataset(write_arm(root / "synthetic", True, False, 5))
    folder = root / "study"
    folder.mkdir()
    store = Store(folder)
    turing.create_study(store, folder, real, synthetic, recipe, readers, seed=3)
    return turing.TuringKind(store, folder, recipe)


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> turing.TuringKind:
    return make(tmp_path_factory.mktemp("turing"))


def shown(kind: turing.TuringKind, client: Client) -> Iterator[tuple[str, int, str]]:
    """Arm, showing and code of every task of a client's reader, in its order."""
    items = {item.id: item for item in kind.store.items()}
    codes = [task["code"] for task in client.work()]
    by_code = {task.code: task for task in kind.store.tasks()}
    for code in codes:
        yield items[by_code[code].item].arm, by_code[code].repeat, code


def test_arms_are_of_one_size(kind: turing.TuringKind) -> None:
    arms = [item.arm for item in kind.store.items()]
    assert (arms.count("real"), arms.count("synthetic")) == (4, 4)


def test_what_the_page_is_told_differs_in_nothing_but_voxels(kind: turing.TuringKind) -> None:
    client = Client(kind)
    told: dict[str, set[str]] = {"real": set(), "synthetic": set()}
    for arm, _, code in shown(kind, client):
        answer = client.get(f"/api/task/{code}")
        scan = client.get(f"/api/task/{code}/scan/0")
        kept = {name: value for name, value in scan.headers.items() if name != "date"}
        told[arm].add(json.dumps([answer.json(), dict(answer.headers), kept, len(scan.content)], sort_keys=True))
        assert client.get(f"/api/task/{code}/labels").content == b""
    assert told["real"] == told["synthetic"]
    assert len(told["real"]) == 1


def test_no_answer_of_the_server_holds_a_word_about_arms_or_cases(kind: turing.TuringKind) -> None:
    client = Client(kind)
    texts = [client.get("/").text, client.get("/api/work").text]
    texts += [client.get(f"/api/task/{code}").text for _, _, code in shown(kind, client)]
    for text in texts[1:]:
        for word in ("real", "synth", "patient", "arm", "repeat", "organ", "liver", "diameter", "file", ".bin"):
            assert word not in text.lower(), word


def test_codes_and_files_tell_nothing_by_length_or_order(kind: turing.TuringKind) -> None:
    tasks = list(shown(kind, Client(kind)))
    assert len({len(code) for _, _, code in tasks}) == 1
    assert len({code for _, _, code in tasks}) == len(tasks)
    files_by_arm = {item.arm: str(item.facts["file"]) for item in kind.store.items()}
    assert len({len(name) for name in files_by_arm.values()}) == 1
    assert len({path.stat().st_size for path in (kind.folder / "items").iterdir()}) == 1


@pytest.mark.parametrize("spacing_mm", [None, (2.0, 2.0, 3.0)])
def test_scans_of_different_spacing_give_files_of_one_length_and_a_warning(
    tmp_path: Path, spacing_mm: tuple[float, float, float] | None
) -> None:
    real = open_dataset(write_arm(tmp_path / "real", False, False, 0))
    thin = open_dataset(write_arm(tmp_path / "thin", True, False, 5, slice_mm=2.0))
    (tmp_path / "study").mkdir()
    store = Store(tmp_path / "study")
    recipe = RECIPE.with_changes(spacing_mm=spacing_mm)
    notes = turing.create_study(store, tmp_path / "study", real, thin, recipe, 1, 0)
    assert any("slice spacing alone tells the arms apart" in note for note in notes)
    assert len({path.stat().st_size for path in (tmp_path / "study" / "items").iterdir()}) == 1
    assert len({tuple(item.facts["spacing_mm"]) for item in store.items()}) == (2 if spacing_mm is None else 1)


def test_hu_of_both_arms_have_one_type_one_range_and_one_precision(kind: turing.TuringKind) -> None:
    client = Client(kind)
    for arm, _, code in shown(kind, client):
        voxels = np.frombuffer(client.get(f"/api/task/{code}/scan/0").content, "<i2")
        assert voxels.min() >= -1024
        assert voxels.max() <= 3071
        assert arm in ("real", "synthetic")
    fractional = cut_out(open_dataset(kind.folder.parent / "synthetic").cases[0].read_image(), (-30, -24, 27), RECIPE)
    assert fractional.data.dtype == np.int16


def test_every_reader_has_an_order_of_his_own_that_does_not_go_by_arm(tmp_path: Path) -> None:
    kind = make(tmp_path, readers=12)
    orders, places = set(), []
    for reader in range(12):
        first = [(arm, code) for arm, repeat, code in shown(kind, Client(kind, reader)) if not repeat]
        by_code = {task.code: task.item for task in kind.store.tasks()}
        orders.add(tuple(by_code[code] for _, code in first))
        places += [(n, arm == "synthetic") for n, (arm, _) in enumerate(first)]
    assert len(orders) == 12
    assert abs(auc([n for n, _ in places], [s for _, s in places]) - 0.5) < 0.15


def test_items_come_again_unannounced_and_apart(kind: turing.TuringKind) -> None:
    by_code = {task.code: task for task in kind.store.tasks()}
    for reader in (0, 1):
        order = [by_code[code] for _, _, code in shown(kind, Client(kind, reader))]
        again = [n for n, task in enumerate(order) if task.repeat]
        assert len(again) == 2
        for n in again:
            earlier = next(m for m, task in enumerate(order) if task.item == order[n].item)
            assert n - earlier >= 2
        texts = {Client(kind, reader).get(f"/api/task/{task.code}").text for task in order}
        assert len(texts) == 1


def test_an_item_shown_again_is_the_same_voxels_under_another_code(kind: turing.TuringKind) -> None:
    client = Client(kind)
    task = next(task for task in kind.store.tasks(1) if task.repeat)
    twin = next(other for other in kind.store.tasks(1) if other.item == task.item and not other.repeat)
    one, two = (client.get(f"/api/task/{each.code}/scan/0").content for each in (task, twin))
    assert one == two
    assert task.code != twin.code


def test_a_rating_is_kept_and_the_report_counts_it(tmp_path: Path) -> None:
    kind = make(tmp_path)
    for reader, sharp in ((0, True), (1, False)):
        client = Client(kind, reader)
        for n, (arm, _, code) in enumerate(shown(kind, client)):
            rating = (6 if arm == "synthetic" else 1) if sharp else 1 + n % 6
            content = {"rating": rating, "signs": ["texture"] if rating == 6 else []}
            assert client.answer(code, content, 0, final=True, seconds=4.0).status_code == 200
    found = rated.evaluate(kind)
    assert (found.items, found.left_out, len(found.rows)) == (8, 0, 20)
    assert found.figures["AUC"].by_reader[0].value == 1
    assert found.figures["accuracy"].by_reader[0].value == 1
    calls = [row for row in found.rows if row["reader"] == "reader 2" and not row["repeat"]]
    assert found.figures["accuracy"].by_reader[1].value == np.mean([row["correct"] for row in calls])
    assert [row["n"] for row in found.repeats] == [2, 2]
    assert found.repeats[0]["same"] == 2
    assert found.seconds["reader 1"][1] == 4
    assert found.signs[0]["sign"] == "texture"


def test_an_unfinished_study_reports_what_all_have_answered(tmp_path: Path) -> None:
    kind = make(tmp_path)
    assert rated.evaluate(kind).figures == {}
    client = Client(kind)
    for _, _, code in list(shown(kind, client))[:3]:
        client.answer(code, {"rating": 3}, 0, final=True)
    found = rated.evaluate(kind)
    assert (found.items, found.left_out, len(found.readers)) == (3, 5, 1)


@pytest.mark.parametrize(
    "content", [{}, {"rating": 0}, {"rating": 7}, {"choice": "first"}, {"rating": 2, "arm": "real"}]
)
def test_an_answer_without_a_rating_is_refused(kind: turing.TuringKind, content: dict[str, object]) -> None:
    client = Client(kind, 1)
    code = client.work()[0]["code"]
    assert client.answer(code, content, 0, final=True).status_code == 422


def test_pairs_show_the_synthetic_lesion_left_or_right_by_chance(tmp_path: Path) -> None:
    recipe = RECIPE.with_changes(design="pairs", repeats=0)
    kind = make(tmp_path, recipe, readers=10)
    sides = [kind.synthetic_first(task) for task in kind.store.tasks()]
    assert 8 <= sum(sides) <= 32  # of 40
    for reader in range(10):
        client = Client(kind, reader)
        for task in kind.store.tasks(reader + 1):
            scans = [client.get(f"/api/task/{task.code}/scan/{n}").content for n in (0, 1)]
            assert len(scans[0]) == len(scans[1])
            choice = "first" if kind.synthetic_first(task) else "second"
            client.answer(task.code, {"choice": choice}, 0, final=True)
    found = rated.evaluate(kind)
    assert found.figures["accuracy"].interval.value == 1
    assert client.get(f"/api/task/{task.code}/scan/2").status_code == 410


def subjects(
    sizes: list[float], contrasts: list[float], organ: str = "liver", **technical: list[float]
) -> list[Subject]:
    rows = []
    for n, (size, contrast) in enumerate(zip(sizes, contrasts, strict=True)):
        facts = {name: values[n] for name, values in technical.items()}
        rows.append(Subject(f"case {n}", organ, (0, 0, 0), size, contrast, facts))
    return rows


def test_matched_pairs_are_of_one_organ_and_alike_in_size_and_contrast() -> None:
    rng = np.random.default_rng(0)
    real = subjects([*rng.uniform(8, 50, 40)], [*rng.uniform(-80, 0, 40)])
    made = subjects([*rng.uniform(8, 50, 60)], [*rng.uniform(-80, 0, 60)])
    recipe = TuringRecipe(items=40, repeats=0)
    pairs = match_arms(real, made, recipe, 0)
    assert len(pairs) == 20
    assert len({id(b) for _, b in pairs}) == 20
    for a, b in pairs:
        assert max(a.diameter_mm, b.diameter_mm) <= 1.5 * min(a.diameter_mm, b.diameter_mm)
        assert abs(a.contrast_hu - b.contrast_hu) <= 40


def test_too_few_alike_lesions_are_refused_with_the_number() -> None:
    real = subjects([10.0] * 5, [-30.0] * 5)
    made = subjects([10.0] * 2 + [60.0] * 9, [-30.0] * 11)
    with pytest.raises(CaseError, match=r"2 pairs .* alike.*expected 4 pairs"):
        match_arms(real, made, RECIPE, 0)
    with pytest.raises(CaseError, match="0 pairs"):
        match_arms(real, [replace(each, organ="colon") for each in made], RECIPE, 0)


def test_a_property_of_the_scans_that_tells_the_arms_is_reported() -> None:
    real = subjects([10.0] * 8, [0.0] * 8, thickness=[1.0] * 8, noise=[1.0, 2.0] * 4)
    made = subjects([10.0] * 8, [0.0] * 8, thickness=[5.0] * 8, noise=[2.0, 1.0] * 4)
    (leak,) = find_leaks(list(zip(real, made, strict=True)))
    assert leak.name == "thickness"
    assert leak.auc == 1
    assert "alone tells the arms apart" in str(leak)


def test_the_contrast_is_measured_against_the_ring_around_a_lesion(tmp_path: Path) -> None:
    found = find_subjects(open_dataset(write_arm(tmp_path, False, False, 0)), ("liver",), False)
    assert len(found) == 4
    assert [subject.contrast_hu for subject in found] == pytest.approx([-40] * 4, abs=3)


def test_the_lesion_lies_in_the_middle_of_what_is_shown() -> None:
    geometry = Geometry.of((30, 30, 12), (1, 1, 3), "RAS")
    data = np.zeros(geometry.shape, np.int16)
    data[3, 25, 10] = 500  # near a corner: air is shown beyond the scan
    shown_part = cut_out(Volume(data, geometry), geometry.to_mm((3, 25, 10)), RECIPE).data
    assert shown_part[tuple(n // 2 for n in shown_part.shape)] == 500
    assert shown_part.min() == -1024


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"items": 7}, "the number is even"), ({"repeats": 20}, "at most half"), ({"field_mm": [5, 5, 5]}, "20 to 500")],
)
def test_recipes_that_cannot_be_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make_recipe(TuringRecipe, settings)
