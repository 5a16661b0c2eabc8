"""Studies end to end: subsets, refusals, resuming, the same records however many processes, and a real training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cohorts import cohort, fail_at_eight, pretend

from synthoma.datasets.layouts.opening import Dataset, open_dataset
from synthoma.datasets.splits import Fold, Splits, write_splits
from synthoma.errors import CaseError, FailedCasesError, RecipeError, RunError
from synthoma.recipe import make_recipe
from synthoma.runs import read_run
from synthoma.scaling.outputs import finish_study, plan_study
from synthoma.scaling.recipe import StudyRecipe
from synthoma.scaling.study import run_study
from synthoma.scaling.subsets import find_sides

QUICK = StudyRecipe(counts=(2, 4, 6), seeds=2, fit={"resamples": 200}, examples=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def study(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "run"
    run_study(QUICK, data, out, trainer=pretend)
    return out


def records_of(folder: Path) -> bytes:
    return (folder / "records.jsonl").read_bytes()


def test_subsets_are_nested_and_every_seed_has_its_own(data: Dataset) -> None:
    sides = find_sides(data, QUICK)
    subsets = [sides.subset(count, 7) for count in (0, 2, 4, 6)]
    for smaller, larger in zip(subsets, subsets[1:], strict=False):
        assert set(smaller) < set(larger)
    assert [len(subset) for subset in subsets] == [0, 2, 4, 6]
    assert len({sides.subset(2, seed) for seed in range(10)}) > 3
    assert set(sides.annotated) == {f"sick{n}" for n in range(6)}
    assert set(sides.healthy) == {f"well{n}" for n in range(3)}


def test_cases_of_one_patient_come_into_a_subset_after_each_other(data: Dataset) -> None:
    sides = find_sides(data, QUICK)
    twins = {name: "one" if name in ("sick1", "sick4") else patient for name, patient in sides.patients.items()}
    for seed in range(10):
        order = [twins[name] for name in replace(sides, patients=twins).subset(6, seed)]
        assert abs(order.index("one") - (5 - order[::-1].index("one"))) == 1


def test_no_test_patient_is_trained_on(data: Dataset, study: Path) -> None:
    design = json.loads((study / "design.json").read_text())["sides"]
    tested = {case for ids in design["tests"].values() for case in ids}
    for point in (study / "points").iterdir():
        assert not tested & set(read_run(point).recipe["training"])


def test_all_arms_of_a_seed_learn_from_the_same_cases(study: Path) -> None:
    for point in (study / "points").glob("*_real"):
        mixed = point.with_name(point.name.replace("real", "rules-50"))
        assert read_run(point).recipe["training"] == read_run(mixed).recipe["training"]
        assert read_run(point).seed == read_run(mixed).seed


def test_a_patient_on_both_sides_is_refused(data: Dataset, tmp_path: Path) -> None:
    ids = [case.id for case in data]
    patients = {name: name for name in ids}
    splits = Splits((Fold(tuple(n for n in ids if n[0] in "sw"), ()),), tuple(n for n in ids if n[0] == "t"), patients)
    write_splits(splits, tmp_path / "splits.json")
    twin = [
        type(c)(c.id, c.image, c.masks, "sick0" if c.id == "test1" else c.id, c.dataset, c.attributes) for c in data
    ]
    leaky = Dataset(data.root, data.layout, data.name, tuple(twin))
    with pytest.raises(
        CaseError, match=r"one patient is on two sides: sick0 \(train and val\) and test1 \(test\); found 1 such pairs"
    ):
        find_sides(leaky, QUICK, tmp_path / "splits.json")


def test_fewer_cases_than_the_grid_asks_for_are_refused_with_the_numbers(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"6 of 9 to train on.*found 6, expected 8"):
        run_study(QUICK.with_changes(counts=(4, 8)), data, tmp_path / "run", trainer=pretend)
    assert not (tmp_path / "run").exists()


def test_a_side_that_is_not_there_is_refused(data: Dataset) -> None:
    with pytest.raises(RecipeError, match="no side 'tset'"):
        find_sides(data, QUICK.with_changes(tests={"tset": "x"}))
    some = Dataset(data.root, data.layout, data.name, tuple(case for case in data if not case.id.startswith("other")))
    with pytest.raises(CaseError, match="no case in ood"):
        find_sides(some, QUICK.with_changes(tests={"ood": "x"}))
    assert list(find_sides(some, QUICK).tests) == ["test"]


def test_a_metric_that_is_not_computed_is_refused_with_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"nsd_3mm is not computed: evaluate.tolerances_mm gives nsd_2mm"):
        make_recipe(StudyRecipe, {"metric": "nsd_3mm"})
    assert make_recipe(StudyRecipe, {"metric": "nsd_3mm", "evaluate": {"tolerances_mm": [3.0]}}).metric == "nsd_3mm"


def test_broken_cases_are_refused_before_any_point_unless_they_are_allowed(data: Dataset, tmp_path: Path) -> None:
    broken = replace(data, faults=(CaseError("no scan", case="c1"), CaseError("no table", case="c2")))
    few = QUICK.with_changes(counts=(2,), seeds=1)
    with pytest.raises(FailedCasesError, match=r"2 of 18 cases cannot be used: c1: no scan \| c2: no table"):
        run_study(few, broken, tmp_path / "run", trainer=pretend, allow_failures=1)
    assert not (tmp_path / "run").exists()
    assert len(run_study(few, broken, tmp_path / "run", trainer=pretend, allow_failures=2)) == 2


def test_a_test_case_without_the_organ_given_is_refused_before_any_point(data: Dataset, tmp_path: Path) -> None:
    given = QUICK.with_changes(train={"organs": ["liver"], "segment": {"inside_organ": "given"}})
    cases = [
        replace(case, masks={"liver_lesion": case.masks["liver_lesion"]}) if case.id == "test0" else case
        for case in data
    ]
    with pytest.raises(CaseError, match=r"test0: no mask of the liver.*inside_organ=predicted"):
        run_study(given, replace(data, cases=tuple(cases)), tmp_path / "run", trainer=pretend)
    assert not (tmp_path / "run").exists()


def test_without_splits_they_are_drawn(data: Dataset, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "cohort")
    (tmp_path / "cohort" / "splits.json").unlink()
    sides = find_sides(open_dataset(tmp_path / "cohort"), QUICK.with_changes(counts=(2, 4)))
    assert list(sides.tests) == ["test"]
    assert len(sides.tests["test"]) == round(0.3 * len(data))
    assert not set(sides.tests["test"]) & {*sides.annotated, *sides.healthy}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"counts": [4, 2]}, "smallest to the largest"),
        ({"shares": [0.5, 0.5]}, "each once"),
        ({"shares": [0.0]}, "greater than 0"),
        ({"metric": "hd95_mm"}, "no curve is known"),
        ({"filters": ["critics"]}, "critic"),
        ({"critic": {"keep": 0.8, "at_most": 0.5}}, "0.8 is above at_most"),
    ],
)
def test_recipes_that_make_no_study_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(StudyRecipe, wrong)


def test_a_grid_has_every_combination_and_the_real_arm_once() -> None:
    recipe = StudyRecipe(counts=(0, 4), shares=(0.25, 0.5), generators=("rules", "my.module:Own"), seeds=2)
    names = [task.id for task in recipe.points()]
    assert len(names) == len(set(names)) == 2 * (4 + 5)
    assert "n0004_s1_my-module-Own-25" in names
    assert [recipe.label(arm) for arm in recipe.arms()][:2] == ["real only", "with synthetic tumors, 25 %, rules"]
    assert not any(name.startswith("n0000") and name.endswith("real") for name in names)


def test_points_with_a_critic_come_last_so_that_a_partial_study_can_be_compared() -> None:
    recipe = StudyRecipe(counts=(3, 6), generators=("rules",), filters=("none", "critic"), copies=2, seeds=2)
    names = [task.id for task in recipe.points()]
    assert names[:4] == ["n0003_s0_real", "n0003_s0_rules-50", "n0006_s0_real", "n0006_s0_rules-50"]
    assert [name.endswith("critic") for name in names] == [False] * 8 + [True] * 4


def test_a_study_leaves_findings_tables_plots_and_a_report(study: Path) -> None:
    found = json.loads((study / "findings.json").read_text())
    assert found["answer"].startswith("With 2 real cases, on new patients of the training hospitals, ")
    assert "patients of other hospitals" in found["answer"]
    assert found["failed"] == []
    table = (study / "points.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 2 * 3
    for name in ("scaling_test", "scaling_ood", "sizes_test", "sizes_ood"):
        assert (study / "plots" / f"{name}.svg").read_text().startswith("<?xml")
        assert (study / "plots" / f"{name}.csv").stat().st_size > 50
    text = (study / "report.html").read_text()
    assert text.count("<svg") == 4
    assert text.count("data:image/png;base64,") == 4
    assert found["answer"].split(";")[0] in text
    summary = read_run(study).summary
    assert summary["cases"] == 12
    assert summary["answer"] == found["answer"]
    assert set(summary["seconds"]) == {"waiting", "training", "testing"}


def test_the_records_of_one_and_of_two_processes_are_the_same(study: Path, data: Dataset, tmp_path: Path) -> None:
    run_study(QUICK, data, tmp_path / "run", trainer=pretend, workers=2)
    assert records_of(tmp_path / "run") == records_of(study)
    for name in ("findings.json", "points.csv", "plots/scaling_test.svg"):
        assert (tmp_path / "run" / name).read_bytes() == (study / name).read_bytes()


def test_a_failed_point_is_shown_and_the_fit_goes_on_without_it(data: Dataset, tmp_path: Path) -> None:
    records = run_study(QUICK, data, tmp_path / "run", trainer=fail_at_eight)
    assert sum(record.status == "failed" for record in records) == 1
    found = json.loads((tmp_path / "run" / "findings.json").read_text())
    assert found["failed"] == ["n0004_s1_rules-50: ValueError: the loss is nan"]
    text = (tmp_path / "run" / "report.html").read_text()
    assert "One point failed" in text
    seeds = {(one["arm"], one["cases"]): one["seeds"] for one in found["fits"]["test"]["levels"]}
    assert seeds["with synthetic tumors", 4] == 1
    assert seeds["real only", 4] == 2
    assert "1 points are not done: n0004_s1_rules-50." in plan_study(tmp_path / "run")["text"]


def test_a_study_resumes_at_the_next_unfinished_point(data: Dataset, study: Path, tmp_path: Path) -> None:
    calls: list[str] = []

    def interrupted(cases, task, plan, run, device):  # type: ignore[no-untyped-def]
        calls.append(task.id)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return pretend(cases, task, plan, run, device)

    with pytest.raises(KeyboardInterrupt):
        run_study(QUICK, data, tmp_path / "run", trainer=interrupted)
    assert read_run(tmp_path / "run").status == "interrupted"
    partial = finish_study(tmp_path / "run")
    assert partial["answer"].startswith("With 2 real cases")
    assert "8 points are not done" in plan_study(tmp_path / "run")["text"]
    run_study(QUICK, data, tmp_path / "run", trainer=interrupted)
    assert len(calls) == 12 + 1
    assert records_of(tmp_path / "run") == records_of(study)


def test_the_plan_says_what_to_do_next(study: Path) -> None:
    plan = plan_study(study)
    assert plan["text"].startswith(plan["answer"])
    assert any("real cases would add" in step or "cannot be identified" in step for step in plan["steps"])
    assert json.loads((study / "plan.json").read_text())["points"] == plan["points"]
    assert plan["cases"] == 2
    assert plan["missing"] == []


def test_a_folder_without_a_study_is_refused(tmp_path: Path, data: Dataset) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        plan_study(tmp_path)

    def broken(cases, task, plan, run, device):  # type: ignore[no-untyped-def]
        raise ValueError("no memory")

    records = run_study(QUICK.with_changes(counts=(2,)), data, tmp_path / "run", trainer=broken)
    assert {record.status for record in records} == {"failed"}
    with pytest.raises(RunError, match=r"no point of .* is done; found n0002_s0_real: ValueError: no memory"):
        plan_study(tmp_path / "run")


def test_synthetic_tumors_alone_are_a_point(data: Dataset, tmp_path: Path) -> None:
    run_study(QUICK.with_changes(counts=(0, 2, 4), seeds=1), data, tmp_path / "run", trainer=pretend)
    rows = [row for row in plan_study(tmp_path / "run")["points"] if row["cases"] == 0]
    assert {row["arm"] for row in rows} == {"with synthetic tumors"}
    assert read_run(tmp_path / "run" / "points" / "n0000_s0_rules-50").recipe["training"] == ["well0", "well1", "well2"]


def test_fewer_healthy_cases_can_be_asked_for(data: Dataset, tmp_path: Path) -> None:
    run_study(QUICK.with_changes(counts=(2,), seeds=1, healthy=1), data, tmp_path / "run", trainer=pretend)
    training = [read_run(point).recipe["training"] for point in (tmp_path / "run" / "points").iterdir()]
    assert [sum(name.startswith("well") for name in names) for names in training] == [1, 1]
